/* npuc quantize: a recipe for a model, from a scheme and calibration data. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stopwatch.h"
#include "tools/json.h"
#include "tools/model_args.h"
#include "tools/quantize.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"o", "RECIPE", "the recipe to write"},
    {"scheme", "S",
     "how products are coded: w8a16, w8a8, w8a8-dynamic, w8a16i, w4a16-gN, w4a8-gN, fp8, fp8-static, fp8-w8a16, hif8, "
     "mxfp8, mxfp6, mxfp4, nvfp4; +kv8, +kv4 or +kvfp8 behind it, or alone, for KV caches"},
    {"calib", "DATA", "calibration data: TOKENS.npy, INPUTS.npz or a folder; for schemes with fixed scales"},
    {"runs", "N", "use the first N runs of the data"},
    {"activations", "BY",
     "how ranges of activations are found: minmax, ema, percentile, mse, kl, octav, hfmg, ifmr; default minmax"},
    {"weights", "BY", "how codes of weights are found; default minmax"},
    {"keep", "PATTERN", "leave products whose names match alone: --keep '*lm_head*'; repeated"},
    {"D", "NAME=SIZE", "fix a dimension of the model while calibrating"},
    {"shape", "X=AxBxC", "fix the shape of an input while calibrating"},
    {"quiet", NULL, "no progress"},
    {"json", NULL, "a summary as JSON on stdout"},
    {NULL, NULL, NULL},
};

static bool is_kept(void *user, const char *name)
{
    const struct args *a = user;
    for (int64_t i = 0; i < a->given.len; i++)
        if (strcmp(a->given.data[i].option->name, "keep") == 0 && fnmatch(a->given.data[i].value, name, 0) == 0)
            return true;
    return false;
}

static void report(const struct quantization *q, const struct args *args, double seconds)
{
    const struct quant_recipe *r = &q->recipe;
    const int64_t runs = q->data.n_runs ? q->ask.runs : 0;
    int64_t kept = 0;
    for (int64_t i = 0; i < r->entries.len; i++)
        kept += r->entries.data[i].keep != NULL;
    if (args_flag(args, "json")) {
        json_t *j = json_object();
        json_put(j, "recipe", json_text(q->ask.recipe));
        json_put(j, "scheme", json_text(r->scheme));
        json_put(j, "products", json_integer(r->entries.len));
        json_put(j, "kept", json_integer(kept));
        json_put(j, "runs", json_integer(runs));
        print_json(j);
    } else if (!args_flag(args, "quiet")) {
        const char *with = runs ? arena_printf(q->arena, ", %" PRId64 " runs of calibration data", runs) : "";
        term_stage("quantize",
                   arena_printf(q->arena, "%" PRId64 " products, %" PRId64 " kept%s -> %s", r->entries.len, kept, with,
                                q->ask.recipe),
                   seconds);
    }
}

/* ---- arguments */

static int usage(const char *text)
{
    term_error("npuc quantize: %s (npuc quantize --help)", text);
    return diag_exit_code(NPUC_E_USAGE);
}

static int check_arguments(struct quantization *q, const struct command *cmd, const struct args *a)
{
    const char *scheme = args_value(a, "scheme"), *weights = args_value(a, "weights"),
               *activations = args_value(a, "activations");
    bool calibrates;
    int code = 0;
    if (!scheme || !args_value(a, "o"))
        return usage(scheme ? "-o RECIPE is missing" : "--scheme S is missing");
    if (weights && !quant_weight_find(weights))
        return usage(arena_printf(q->arena, "there is no algorithm '%s' for weights", weights));
    if (activations && !quant_calibrator_find(activations))
        return usage(arena_printf(q->arena, "there is no calibrator '%s'", activations));
    if (quantize_scheme(q, scheme, weights, activations, &calibrates) != NPUC_OK)
        return diag_exit_code(NPUC_E_USAGE);
    if (!args_number(cmd, a, "runs", (struct arg_range){1, INT64_MAX, INT64_MAX}, &q->ask.runs, &code))
        return code;
    q->ask.calib = args_value(a, "calib");
    const bool needs = weights && quant_weight_find(weights)->needs != 0;
    if ((calibrates || needs) && !q->ask.calib)
        return usage(
            arena_printf(q->arena, "%s needs calibration data: give --calib DATA",
                         needs ? arena_printf(q->arena, "--weights %s", weights)
                               : arena_printf(q->arena, "scheme %s has fixed scales of activations and", scheme)));
    q->ask.recipe = args_value(a, "o");
    q->ask.keeps = is_kept;
    q->ask.user = (void *)(uintptr_t)a;
    q->ask.shows = term_is_tty(2) && !args_flag(a, "quiet");
    return 0;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    const int64_t begin = stopwatch_ns();
    struct quantization *q = ARENA_NEW(&a.arena, struct quantization);
    quantize_init(q, &a.arena);
    if (args_words(cmd, &a, 1, &code) && model_args(&a, &q->c, &code) && (code = check_arguments(q, cmd, &a)) == 0) {
        q->ask.model = a.words.data[0];
        code = diag_exit_code(quantize_run(q));
        if (code == 0)
            report(q, &a, stopwatch_since(begin));
    }
    quantize_free(q);
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
