#include "tools/model_args.h"

#include <stdio.h>
#include <string.h>

#include "plan/format.h"
#include "tools/term.h"

static const char *const passed_on[] = {
    "target",        "precision",    "D",          "shape",       "kv-capacity",  "kv-page",
    "kv-pool",       "kv-ring",      "set",        "cores",       "vector-cores", "input-layout",
    "output-layout", "force",        "tile",       "verify-each", "strict",       "dump-dir",
    "stop-after",    "max-rewrites", "plain-maps", "recipe",      "value"};

bool model_args(const struct args *a, struct compilation *c, int *exit_code)
{
    diag_init(&c->diag, term_diag, NULL);
    for (int64_t i = 0; i < a->given.len; i++) {
        const struct arg_given *g = &a->given.data[i];
        for (int64_t k = 0; k < NPUC_ARRAY_LEN(passed_on); k++) {
            if (strcmp(passed_on[k], g->option->name) != 0)
                continue;
            enum npuc_status s = compilation_set(c, g->option->name, g->value ? g->value : "1");
            if (s != NPUC_OK) {
                *exit_code = diag_exit_code(s);
                return false;
            }
        }
    }
    return true;
}

bool file_is_plan(const char *path)
{
    char head[8] = {0};
    FILE *f = fopen(path, "rb");
    if (!f)
        return false;
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    return n == sizeof head && memcmp(head, PLAN_MAGIC, sizeof head) == 0;
}
