/* npuc ops: which operators compile, with which element types, and where they run. */
#include <string.h>

#include "tools/args.h"
#include "tools/json.h"
#include "tools/ops/print.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"target", "T[,T2...]", "for these targets; default: ascend-910b1, with --md or --json all"},
    {"json", NULL, "as JSON on stdout (docs/operators.md)"},
    {"md", NULL, "as Markdown: docs/operators.md"},
    {NULL, NULL, NULL},
};

static bool add_named(struct ops_matrix *m, const char *list)
{
    for (const char *t = list; t;) {
        const char *comma = strchr(t, ',');
        if (m->n_targets == OPS_MAX_TARGETS) {
            term_error("npuc ops: at most %d targets at once", OPS_MAX_TARGETS);
            return false;
        }
        if (!ops_add_target(m, arena_strndup(m->arena, t, comma ? comma - t : (int64_t)strlen(t))))
            return false;
        t = comma ? comma + 1 : NULL;
    }
    return true;
}

/* Every target that can be compiled for; families without generators are left out. */
static bool add_all(struct ops_matrix *m)
{
    const char *const *ids;
    const int n = target_list(&ids);
    for (int i = 0; i < n && m->n_targets < OPS_MAX_TARGETS; i++)
        if (!ops_add_target(m, ids[i]))
            return false;
    return true;
}

static int report(struct ops_matrix *m, const struct args *a)
{
    ops_list(m, a->words.data, a->words.len);
    for (int64_t w = 0; w < a->words.len; w++) {
        bool known = false;
        for (int64_t i = 0; i < m->rows.len; i++)
            known = known || strcmp(m->rows.data[i].op, a->words.data[w]) == 0;
        if (!known) {
            term_error("npuc ops: no operator of any known domain is named %s", a->words.data[w]);
            return 2;
        }
    }
    ops_try(m);
    if (args_flag(a, "json"))
        print_json(ops_json(m));
    else if (args_flag(a, "md"))
        ops_print_markdown(m);
    else
        ops_print_text(m);
    return 0;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    struct diag d;
    diag_init(&d, term_diag, NULL);
    struct ops_matrix *m = ARENA_NEW(&a.arena, struct ops_matrix);
    m->arena = &a.arena;
    m->diag = &d;
    const char *target = args_value(&a, "target");
    const bool all = !target && (args_flag(&a, "json") || args_flag(&a, "md"));
    const bool ok = all ? add_all(m) : add_named(m, target ? target : "ascend-910b1");
    code = ok ? report(m, &a) : diag_exit_code(d.first == NPUC_OK ? NPUC_E_USAGE : d.first);
    ops_free(m);
    args_free(&a);
    return code;
}

const struct command command_ops = {
    .name = "ops",
    .what = "which operators compile, with which element types, and where they run",
    .usage = "[NAME...] [--target T[,T2...]] [--json | --md]",
    .examples = "  npuc ops\n  npuc ops Conv MatMulNBits --target ascend-910b1,ascend-310p3\n  npuc ops --md\n",
    .options = options,
    .run = run,
};
