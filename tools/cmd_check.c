/* npuc check: will the model compile for a target, what runs where and why, before anything is compiled. */
#include <string.h>

#include "tools/coverage/coverage.h"
#include "tools/json.h"
#include "tools/model_args.h"
#include "tools/rewrite/rewrite.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    MODEL_OPTIONS,
    {"nodes", NULL, "list every node that is not on the NPU"},
    {"json", NULL, "as JSON on stdout (docs/check.md)"},
    {"md", NULL, "as Markdown"},
    {"apply-rewrites", "OUT.onnx",
     "write the model with rewrites that bring more of it to the NPU, if it computes the same"},
    {NULL, NULL, NULL},
};

/* One coverage per name in "T1,T2"; NULL: the default target. */
static bool add_targets(struct coverage *v, const struct args *a, const char *list)
{
    for (const char *t = list; t || v->n_targets == 0;) {
        const char *comma = t ? strchr(t, ',') : NULL;
        if (v->n_targets == COV_MAX_TARGETS) {
            term_error("npuc check: at most %d targets at once", COV_MAX_TARGETS);
            return false;
        }
        coverage_add(v, a, t ? arena_strndup(v->arena, t, comma ? comma - t : (int64_t)strlen(t)) : NULL);
        t = comma ? comma + 1 : NULL;
    }
    return true;
}

static void print_report(const struct coverage *v, const struct args *a, const struct rewriting *r)
{
    if (args_flag(a, "json")) {
        json_t *j = coverage_json(v);
        if (r)
            json_object_set_new(j, "rewrites", rewriting_json(r));
        print_json(j);
        return;
    }
    if (args_flag(a, "md"))
        coverage_print_markdown(v, args_flag(a, "nodes"));
    else
        coverage_print_text(v, args_flag(a, "nodes"));
    if (r)
        rewriting_print(v, r, args_flag(a, "md"));
}

/* One line on what an exit code of 1 is about, as for every command that does not end with 0. */
static void print_cause(const struct coverage *v)
{
    if (v->problems.len > 0)
        return;
    if (v->missing_line)
        term_error("%s: %s", v->path, v->missing_line);
    for (int64_t i = 0; i < v->nodes.len; i++)
        for (int k = 0; k < v->n_targets; k++) {
            const struct cov_node *n = &v->nodes.data[i];
            if (n->where[k] != COV_HOST)
                continue;
            term_error("%s: node '%s' (%s) runs on the host of %s: %s", v->path, n->name, v->rows.data[n->row].op,
                       v->target[k].id, n->reason[k] ? n->reason[k] : "no kernel for it on the target's cores");
            return;
        }
}

/* What cannot be read at all is an error like any command's; the rest is the report. */
static int print(const struct coverage *v, const struct args *a)
{
    const bool readable = v->n_nodes > 0;
    const char *out = args_value(a, "apply-rewrites");
    for (int64_t i = 0; i < v->problems.len; i++)
        term_error("%s: %s", v->path, v->problems.data[i]);
    if (!readable)
        return v->target[0].exit_code;
    if (!out)
        print_cause(v); /* with rewrites the code is about the file */
    struct rewriting r;
    const int code = out ? rewrite_model(v, a, out, &r) : coverage_exit_code(v);
    print_report(v, a, out && (r.after || r.refused) ? &r : NULL);
    if (out && r.refused)
        term_error("npuc check: %s: not written: %s", out, r.refused);
    return code;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    if (args_words(cmd, &a, 1, &code)) {
        struct coverage v = {.arena = &a.arena, .path = a.words.data[0]};
        code = add_targets(&v, &a, args_value(&a, "target")) ? print(&v, &a) : 2;
    }
    args_free(&a);
    return code;
}

const struct command command_check = {
    .name = "check",
    .what = "will a model compile, what runs where, why, and what to do",
    .usage = "MODEL [--target T[,T2...]] [options]",
    .examples = "  npuc check examples/bard/model.onnx --target ascend-910b1\n"
                "  npuc check examples/bard/model.onnx --target ascend-910b1,ascend-950pr --md\n"
                "  npuc check examples/bard/model.onnx --nodes -D batch_size=4\n"
                "  npuc check examples/bard/model.onnx -D batch_size=1 --apply-rewrites bard_b1.onnx\n",
    .options = options,
    .run = run,
};
