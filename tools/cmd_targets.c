/* npuc targets: known machines, and every constant of one with unit and source. */
#include <stdio.h>

#include "targets/target.h"
#include "tools/args.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"json", NULL, "as JSON"},
    {NULL, NULL, NULL},
};
static const char *const confidence[] = {"spec", "silicon", "simulator", "derived", "guess"};

static int list(bool json)
{
    const char *const *ids;
    int n = target_list(&ids);
    struct diag d;
    diag_init(&d, term_diag, NULL);
    printf(json ? "[" : "");
    for (int i = 0; i < n; i++) {
        struct target t;
        if (target_load(&t, ids[i], &d) != NPUC_OK)
            return 70;
        if (json)
            printf("%s{\"id\": \"%s\", \"name\": \"%s\", \"family\": \"%s\"}", i ? ", " : "", t.id, t.name, t.family);
        else
            printf("%-16s %s\n", t.id, t.name);
        target_free(&t);
    }
    printf(json ? "]\n" : "");
    return 0;
}

static void show_value(const struct target *t, int k, struct arena *a, bool json, bool first)
{
    const struct target_value *v = &t->value[k];
    const char *text = target_value_text(t, (enum target_key)k, a);
    if (json)
        printf("%s{\"key\": \"%s\", \"value\": \"%s\", \"source\": \"%s\", \"confidence\": \"%s\"}",
               first ? "" : ",\n ", target_keys[k].name, text, v->source ? v->source : "", confidence[v->confidence]);
    else
        printf("%-24s %-18s %-10s %s\n", target_keys[k].name, text, confidence[v->confidence],
               v->source ? v->source : "");
}

static int show(const char *id, bool json)
{
    struct target t;
    struct diag d;
    diag_init(&d, term_diag, NULL);
    enum npuc_status s = target_load(&t, id, &d);
    if (s != NPUC_OK)
        return diag_exit_code(s);
    bool first = true;
    printf(json ? "[" : "%s (%s)\n", t.name, t.family);
    for (int k = 0; k < TK_COUNT; k++) {
        if (!t.value[k].set)
            continue;
        show_value(&t, k, &t.arena, json, first);
        first = false;
    }
    printf(json ? "]\n" : "");
    target_free(&t);
    return 0;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    bool json = args_flag(&a, "json");
    if (a.words.len == 0)
        code = list(json);
    else if (args_words(cmd, &a, 1, &code))
        code = show(a.words.data[0], json);
    args_free(&a);
    return code;
}

const struct command command_targets = {
    .name = "targets",
    .what = "known machines and their constants, with units and sources",
    .usage = "[TARGET] [--json]",
    .examples = "  npuc targets\n  npuc targets ascend-910b1\n",
    .options = options,
    .run = run,
};
