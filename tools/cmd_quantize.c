/* npuc quantize: a recipe for a model, from a scheme and calibration data. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval.h"
#include "quant/calibrate.h"
#include "quant/scheme.h"
#include "quant/weight.h"
#include "tools/calib.h"
#include "tools/json.h"
#include "tools/model_args.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"o", "RECIPE", "the recipe to write"},
    {"scheme", "S", "how products are coded: w8a16, w8a8, w8a8-dynamic, w4a16-gN, fp8-w8a16"},
    {"calib", "DATA", "calibration data: TOKENS.npy, INPUTS.npz or a folder; for schemes with fixed scales"},
    {"runs", "N", "use the first N runs of the data"},
    {"activations", "BY", "how ranges of activations are found: minmax, ema, percentile, mse, kl, octav, hfmg, ifmr; default minmax"},
    {"weights", "BY", "how codes of weights are found; default minmax"},
    {"keep", "PATTERN", "leave products whose names match alone: --keep '*lm_head*'; repeated"},
    {"D", "NAME=SIZE", "fix a dimension of the model while calibrating"},
    {"shape", "X=AxBxC", "fix the shape of an input while calibrating"},
    {"quiet", NULL, "no progress"},
    {"json", NULL, "a summary as JSON on stdout"},
    {NULL, NULL, NULL},
};

struct found {
    const char *name;
    const struct node *n;
    bool kept;
    struct observer seen;
};
struct quantization {
    const struct args *args;
    struct arena *arena;
    struct compilation c;
    const char *weight, *input; /* of the scheme */
    bool watches;               /* scales come from calibration */
    VEC(struct found) products; /* in the order of the graph */
    struct map by_node;         /* node id -> place in products + 1 */
    struct calib data;
    int64_t runs;
};

/* ---- products */

static bool is_kept(const struct args *a, const char *name)
{
    for (int64_t i = 0; i < a->given.len; i++)
        if (strcmp(a->given.data[i].option->name, "keep") == 0 && fnmatch(a->given.data[i].value, name, 0) == 0)
            return true;
    return false;
}

/* As a quantiser that codes nothing: it notes what could be coded. */
static const struct quant_product *note_product(void *user, const struct node *n, const char *name)
{
    struct quantization *q = user;
    struct found f = {
        .name = arena_strndup(q->arena, name, (int64_t)strlen(name)), .n = n, .kept = is_kept(q->args, name)};
    observer_init(&f.seen, q->arena);
    vec_push(q->arena, &q->products, f);
    map_put(&q->by_node, n->id, (uint64_t)q->products.len);
    return NULL;
}

static enum npuc_status find_products(struct quantization *q)
{
    static const struct pass_step step = {PASS_apply_recipe, NULL};
    const struct quantiser notes = {.user = q, .product = note_product};
    const struct pass_run run = {0};
    struct pass_ctx px;
    pass_ctx_init(&px, q->c.module, NULL);
    px.options.quantiser = &notes;
    map_init(&q->by_node, q->arena);
    enum npuc_status s = pass_run_all(&px, &step, 1, &run);
    pass_ctx_free(&px);
    if (s == NPUC_OK && q->products.len == 0)
        s = diag_error_text(
            &q->c.diag, &(struct diag_loc){.file = q->c.cx.file, .index = -1}, D_UNSUPPORTED,
            "the model has no MatMul, Gemm or Conv with a constant weight: there is nothing to quantise");
    return s;
}

/* ---- calibration */

static enum npuc_status watch_node(void *user, const struct node *n, const struct k_tensor *const *in)
{
    struct quantization *q = user;
    const uint64_t *at = map_find(&q->by_node, n->id);
    struct found *f = at ? &q->products.data[*at - 1] : NULL;
    if (!f || f->kept)
        return NPUC_OK;
    if (!observe(&f->seen, in[0], q->arena))
        return node_error(&q->c.cx, n, D_RUN_FAULT, "its rows have another length than in the run before");
    if (f->seen.bad > 0)
        return node_error(&q->c.cx, n, D_RUN_FAULT, "its input holds infinities or NaN with this calibration data");
    return NPUC_OK;
}

static enum npuc_status calibrate(struct quantization *q)
{
    const struct graph *g = q->c.module->funcs.data[0];
    const struct ir_watch watch = {.node = watch_node, .user = q};
    enum npuc_status s = calib_open(&q->data, args_value(q->args, "calib"), g, q->arena, &q->c.diag);
    const bool shows = term_is_tty(2) && !args_flag(q->args, "quiet");
    q->runs = q->runs < q->data.n_runs ? q->runs : q->data.n_runs;
    for (int64_t i = 0; s == NPUC_OK && i < q->runs; i++) {
        struct arena a;
        arena_init(&a, NULL);
        struct k_tensor *inputs = ARENA_ARRAY(&a, struct k_tensor, g->n_inputs + 1);
        struct k_tensor *outputs = ARENA_ARRAY(&a, struct k_tensor, graph_yield(g)->n_in + 1);
        s = inputs && outputs ? calib_inputs(&q->data, i, inputs, &a) : NPUC_E_NOMEM;
        if (s == NPUC_OK)
            s = ir_eval_watched(&q->c.cx, g, inputs, outputs, &a, &watch);
        arena_free(&a);
        if (shows)
            fprintf(stderr, "\r  calibrating  %" PRId64 " of %" PRId64 " runs ", i + 1, q->runs);
    }
    if (shows)
        fprintf(stderr, "\r\033[K");
    return s;
}

/* ---- the recipe */

/* The form of all products, with scale 1 where calibration gives it. */
static enum npuc_status scheme_form(struct quantization *q, struct quant_product *out)
{
    const char *by_weight = args_value(q->args, "weights"), *by_input = args_value(q->args, "activations");
    const size_t n = strlen(q->input);
    const int len = (int)(q->watches ? n - strlen(" static") : n);
    const char *input =
        n == 0 ? ""
               : arena_printf(q->arena, "input = %.*s%s%s\n", len, q->input, q->watches ? " scale=1 by=" : "",
                              q->watches ? (by_input ? by_input : "minmax") : "");
    const char *text = arena_printf(q->arena, "version = 1\n[all]\nweight = %s by=%s\n%s", q->weight,
                                    by_weight ? by_weight : "minmax", input);
    struct quant_recipe one;
    const enum npuc_status s =
        quant_recipe_parse(&one, "the scheme", text, (int64_t)strlen(text), q->arena, &q->c.diag);
    *out = s == NPUC_OK ? one.entries.data[0].form : (struct quant_product){0};
    return s;
}

static enum npuc_status make_recipe(struct quantization *q, struct quant_recipe *r)
{
    struct quant_product form;
    const enum npuc_status s = scheme_form(q, &form);
    *r = (struct quant_recipe){.arena = q->arena, .scheme = args_value(q->args, "scheme")};
    for (int64_t i = 0; s == NPUC_OK && i < q->products.len; i++) {
        const struct found *f = &q->products.data[i];
        struct quant_entry e = {.name = f->name, .form = form};
        if (f->kept)
            e = (struct quant_entry){.name = f->name, .keep = "asked for by --keep"};
        else if (q->watches && f->seen.n == 0)
            e = (struct quant_entry){.name = f->name, .keep = "it did not run with the calibration data"};
        else if (q->watches)
            quant_calibrate(&e.form.input, &f->seen);
        vec_push(q->arena, &r->entries, e);
    }
    return s;
}

static enum npuc_status write_recipe(struct quantization *q, const struct quant_recipe *r, const char *path)
{
    struct file_writer w;
    int64_t len;
    const char *text = quant_recipe_text(r, q->arena, &len);
    if (!text)
        return diag_error(&q->c.diag, NULL, D_HOST_MEMORY);
    const enum npuc_status s = file_writer_open(&w, path, &q->c.diag);
    if (s != NPUC_OK)
        return s;
    file_writer_put(&w, text, len);
    return file_writer_commit(&w, &q->c.diag);
}

static void report(const struct quantization *q, const struct quant_recipe *r, const char *path)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < r->entries.len; i++)
        kept += r->entries.data[i].keep != NULL;
    if (args_flag(q->args, "json")) {
        json_t *j = json_object();
        json_put(j, "recipe", json_text(path));
        json_put(j, "scheme", json_text(r->scheme));
        json_put(j, "products", json_integer(r->entries.len));
        json_put(j, "kept", json_integer(kept));
        json_put(j, "runs", json_integer(q->watches ? q->runs : 0));
        print_json(j);
    } else if (!args_flag(q->args, "quiet")) {
        const char *runs = q->watches ? arena_printf(q->arena, ", %" PRId64 " runs of calibration data", q->runs) : "";
        term_stage(
            "quantize",
            arena_printf(q->arena, "%" PRId64 " products, %" PRId64 " kept%s -> %s", r->entries.len, kept, runs, path),
            0);
    }
}

static int quantize(struct quantization *q, const char *model, const char *path)
{
    struct quant_recipe r;
    enum npuc_status s = compilation_import(&q->c, model);
    if (s == NPUC_OK)
        s = find_products(q);
    if (s == NPUC_OK && q->watches)
        s = calibrate(q);
    if (s == NPUC_OK)
        s = make_recipe(q, &r);
    if (s == NPUC_OK)
        s = write_recipe(q, &r, path);
    if (s == NPUC_OK)
        report(q, &r, path);
    return diag_exit_code(s);
}

/* ---- arguments */

static int usage(const char *text)
{
    term_error("npuc quantize: %s (npuc quantize --help)", text);
    return diag_exit_code(NPUC_E_USAGE);
}

static int check_arguments(struct quantization *q)
{
    const char *scheme = args_value(q->args, "scheme"), *runs = args_value(q->args, "runs");
    const char *by_weight = args_value(q->args, "weights"), *by_input = args_value(q->args, "activations");
    char *end = NULL;
    if (!scheme || !args_value(q->args, "o"))
        return usage(scheme ? "-o RECIPE is missing" : "--scheme S is missing");
    if (!quant_scheme_find(scheme, q->arena, &q->weight, &q->input))
        return usage(arena_printf(q->arena, "there is no scheme '%s'", scheme));
    if (by_weight && !quant_weight_find(by_weight))
        return usage(arena_printf(q->arena, "there is no algorithm '%s' for weights", by_weight));
    if (by_input && !quant_calibrator_find(by_input))
        return usage(arena_printf(q->arena, "there is no calibrator '%s'", by_input));
    q->runs = runs ? strtoll(runs, &end, 10) : INT64_MAX;
    if (runs && (*end || q->runs < 1))
        return usage(arena_printf(q->arena, "--runs takes a number from 1 on, not %s", runs));
    const size_t n = strlen(q->input), m = strlen(" static");
    q->watches = n > m && strcmp(q->input + n - m, " static") == 0;
    if (q->watches && !args_value(q->args, "calib"))
        return usage(arena_printf(q->arena, "scheme %s has fixed scales of activations: give --calib DATA to find them",
                                  scheme));
    return 0;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    struct quantization *q = ARENA_NEW(&a.arena, struct quantization);
    q->args = &a;
    q->arena = &a.arena;
    compilation_init(&q->c);
    if (args_words(cmd, &a, 1, &code) && model_args(&a, &q->c, &code) && (code = check_arguments(q)) == 0)
        code = quantize(q, a.words.data[0], args_value(&a, "o"));
    compilation_free(&q->c);
    args_free(&a);
    return code;
}

const struct command command_quantize = {
    .name = "quantize",
    .what = "a recipe for a quantised model, from a scheme and calibration data",
    .usage = "MODEL --scheme S -o RECIPE [--calib DATA] [options]",
    .examples = "  npuc quantize examples/bard/model.onnx --scheme w4a16-g32 -o bard-w4.recipe\n"
                "  npuc quantize examples/bard/model.onnx --scheme w8a8 --calib examples/bard/eval/prefill_ids.npy -o "
                "w8a8.recipe\n",
    .options = options,
    .run = run,
};
