/* npuc compare: what recipes, or another form of a model, do to each product and to the outputs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/analysis/plan.h"
#include "tools/analysis/plans.h"
#include "tools/analysis/present.h"
#include "tools/json.h"
#include "tools/model_args.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"recipe", "R", "a recipe (npuc quantize); repeated: each by itself against the model"},
    {"calib", "DATA", "what to run: TOKENS.npy, INPUTS.npz or a folder"},
    {"input", "NAME=FILE", "two plans: what both run on (npuc run)"},
    {"threads", "N", "two plans: threads of the emulation"},
    {"runs", "N", "use the first N runs of the data; default all"},
    {"each", "N",
     "outputs with one product quantised (isolated) and with all but one (inverse), over the first N runs: "
     "two runs of the model per product and run"},
    {"top", "N", "products in the table; default 20, 0 all"},
    {"target", "T", "also bytes and times of the plans on this target"},
    {"context", "N", "language models: tokens before the step that is timed; default 512"},
    {"D", "NAME=SIZE", "fix a dimension of the model"},
    {"shape", "X=AxBxC", "fix the shape of an input"},
    {"csv", "FILE", "write a line per product"},
    {"html", "FILE", "write a page: bars of products, histograms, channels, accuracy against bytes and time"},
    {"pareto", NULL, "the arguments are results of --json: --html shows them in one page"},
    {"quiet", NULL, "no progress"},
    {"json", NULL, "everything as JSON on stdout"},
    {NULL, NULL, NULL},
};

static int write_page(json_t *data, const char *path)
{
    struct diag d;
    diag_init(&d, term_diag, NULL);
    return analysis_write_page(data, path, &d);
}

/* ---- results of earlier runs in one page */

static int read_result(const char *path, json_t *all)
{
    json_error_t e;
    json_t *j = json_load_file(path, 0, &e);
    if (!j || !json_is_array(json_object_get(j, "comparisons"))) {
        term_error("%s: expected a result of npuc compare --json%s%s", path, j ? "" : "; ", j ? "" : e.text);
        json_decref(j);
        return diag_exit_code(NPUC_E_INVALID);
    }
    json_array_append_new(all, j);
    return 0;
}

static int join_results(const struct command *cmd, const struct args *a)
{
    int code = 0;
    const char *page = args_value(a, "html");
    if (!page || a->words.len == 0)
        return args_wrong(cmd, "--pareto takes results of --json and --html FILE");
    json_t *all = json_array();
    for (int64_t i = 0; code == 0 && i < a->words.len; i++)
        code = read_result(a->words.data[i], all);
    json_t *data = json_pack("{s:o}", "analyses", all);
    code = code == 0 ? write_page(data, page) : code;
    json_decref(data);
    return code;
}

/* ---- a comparison */

static bool compare_all(struct analysis *an, const struct args *a, int *code)
{
    bool ok = analysis_open(an, a, a->words.data[0], args_value(a, "calib"), code);
    for (int64_t i = 1; ok && i < a->words.len; i++)
        ok = analysis_add_model(an, a->words.data[i], code);
    for (int64_t i = 0; ok && i < a->given.len; i++)
        if (strcmp(a->given.data[i].option->name, "recipe") == 0)
            ok = analysis_add_recipe(an, a->given.data[i].value, code);
    return ok;
}

static bool time_all(struct analysis *an, const struct args *a, int64_t context, int *code)
{
    struct plan_request q = {
        .args = a, .data = &an->data, .model = an->model, .target = args_value(a, "target"), .context = context};
    bool ok = true;
    for (int64_t i = 0; q.target && ok && i < an->comparisons.len; i++) {
        struct comparison *c = an->comparisons.data[i];
        const struct quantiser base = c->recipe ? quant_recipe_quantiser(c->recipe) : (struct quantiser){0};
        q.base = c->recipe ? &base : NULL;
        q.model = c->recipe ? an->model : c->path;
        ok = plan_figures(&q, &c->plan, &an->list, NULL, code);
    }
    return ok;
}

static int present(const struct analysis *an, const struct args *a, int64_t top)
{
    int code = 0;
    const char *csv = args_value(a, "csv"), *page = args_value(a, "html");
    json_t *j = analysis_json(an);
    if (csv)
        code = analysis_write_csv(an, csv);
    if (code == 0 && page) {
        json_t *data = json_pack("{s:[O]}", "analyses", j);
        code = write_page(data, page);
        json_decref(data);
    }
    if (code == 0 && args_flag(a, "json"))
        print_json(json_incref(j));
    else if (code == 0)
        analysis_print(an, top);
    json_decref(j);
    return code;
}

static int compare(const struct command *cmd, struct args *a)
{
    int code = 0;
    int64_t top, context;
    struct analysis *an = ARENA_NEW(&a->arena, struct analysis);
    an->arena = &a->arena;
    an->shows = term_is_tty(2) && !args_flag(a, "quiet");
    if (!args_value(a, "calib"))
        return args_wrong(cmd, "--calib DATA is missing: what the model runs on");
    if (a->words.len < 1 || (a->words.len < 2 && !args_value(a, "recipe")))
        return args_wrong(cmd, "expected MODEL --recipe R, or two models");
    if (!args_number(cmd, a, "runs", (struct arg_range){1, INT64_MAX, INT64_MAX}, &an->runs, &code) ||
        !args_number(cmd, a, "each", (struct arg_range){0, INT64_MAX, 0}, &an->each_runs, &code) ||
        !args_number(cmd, a, "context", (struct arg_range){1, 1 << 24, 512}, &context, &code) ||
        !args_number(cmd, a, "top", (struct arg_range){0, INT64_MAX, 20}, &top, &code))
        return code;
    if (compare_all(an, a, &code) && time_all(an, a, context, &code))
        code = present(an, a, top);
    analysis_close(an);
    return code;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    const bool plans = a.words.len == 2 && file_is_plan(a.words.data[0]) && file_is_plan(a.words.data[1]);
    if (args_flag(&a, "pareto"))
        code = join_results(cmd, &a);
    else
        code = plans ? plans_compare(&a) : compare(cmd, &a);
    args_free(&a);
    return code;
}

const struct command command_compare = {
    .name = "compare",
    .what = "what a recipe does to each product of a model and to its outputs",
    .usage = "MODEL --recipe R --calib DATA [options]\n"
             "       npuc compare MODEL MODEL2 --calib DATA [options]\n"
             "       npuc compare PLAN PLAN2 --input NAME=FILE ... [--json]\n"
             "       npuc compare --pareto A.json B.json ... --html FILE",
    .examples = "  npuc quantize examples/bard/model.onnx --scheme w8a16 -o w8.recipe\n"
                "  npuc compare examples/bard/model.onnx --recipe w8.recipe --calib examples/bard/eval/prefill_ids.npy "
                "--html w8.html\n",
    .options = options,
    .run = run,
};
