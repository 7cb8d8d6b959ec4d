/* npuc quantize: a recipe for a model, from a scheme and calibration data. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stopwatch.h"
#include "quant/variant.h"
#include "tools/analysis/search.h"
#include "tools/analysis/sensitivity.h"
#include "tools/equalise.h"
#include "tools/json.h"
#include "tools/model_args.h"
#include "tools/outcome.h"
#include "tools/qdq.h"
#include "tools/quantize.h"
#include "tools/term.h"
#include "tools/turn.h"

static const struct arg_option options[] = {
    {"o", "RECIPE", "the recipe to write"},
    {"scheme", "S",
     "how products are coded: w8a16, w8a8, w8a8-zero, w8a8-dynamic, w8a16i, w4a16-gN, w4a8-gN, fp8, fp8-static, "
     "fp8-w8a16, hif8, hif8-cast, "
     "mxfp8, mxfp8-ceil, mxfp6, mxfp4, nvfp4; +kv8, +kv4, +k8v4 or +kvfp8 behind it, or alone, for KV caches"},
    {"calib", "DATA", "calibration data: TOKENS.npy, INPUTS.npz or a folder; for schemes with fixed scales"},
    {"runs", "N", "use the first N runs of the data"},
    {"activations", "BY",
     "how ranges of activations are found: minmax, ema, percentile, mse, kl, octav, hfmg, ifmr; default minmax"},
    {"equalise", "HOW",
     "with --calib, what makes operands easier to code, with commas: smooth, rotate, correct, keys (of 4-bit "
     "caches); or none; default smooth,keys, and keys alone with --activations"},
    {"input-error", "E",
     "inputs whose codes leave more than this part of the output as error get scales per token, or stay in 16 bits; "
     "default 0.01"},
    {"keep-outliers", "N", "instead: the N inputs with the largest error stay in 16 bits"},
    {"weights", "BY",
     "how codes of weights are found: minmax, mse, ssz, hqq and, with --calib, awq, gptq, adaround, descent; default "
     "minmax for int8, with --calib and inputs as they are gptq; for fewer bits descent with --calib, for floats of 8 "
     "bits gptq, both mse without"},
    {"parts", "N",
     "algorithms that see data code the products in N parts from front to back; each makes up for what the codes of "
     "those before changed, and takes two more runs of all data; default 4"},
    {"narrow-last", NULL,
     "schemes of up to 4 bits for products that make the outputs, too (lm_head); else their weights get 8 bits"},
    {"keep", "PATTERN", "leave products whose names match alone: --keep '*lm_head*'; repeated"},
    {"variant", "V", "a vendor's rule for scales and rounding: onnx, ort, tensorrt, amct, full; default onnx"},
    {"recipe", "R", "with --export-qdq and no --scheme: the recipe to write into the model"},
    {"export-qdq", "OUT.onnx", "also the quantised model as standard ONNX: QuantizeLinear and DequantizeLinear"},
    {"from", "MODEL", "instead of a scheme: the recipe that a quantised model (QDQ, QLinear, MatMulNBits) holds"},
    {"float", "OUT.onnx", "with --from: also that model without its codes"},
    {"sensitivity", NULL, "rank the products by what the recipe does to each, on the calibration data (npuc compare)"},
    {"search", "LIMIT",
     "mixed precision: the cheapest choice of --schemes within max-drop=X (of the outputs: 0.5%), the most exact one "
     "within max-bytes=Y of weights (and of caches, where --schemes has some for them) or max-us=Z of time"},
    {"schemes", "S1,S2,..",
     "what --search chooses from, product by product, and for all KV caches together (kv8, kv4), beside leaving it as "
     "it is"},
    {"cost", "C", "what a search with max-drop brings down: bytes or us; default bytes"},
    {"each", "N", "runs of the data that products are measured alone with; default 1 for --search, else 0"},
    {"target", "T", "whose plan --search measures; default ascend-910b1"},
    {"context", "N", "language models: tokens before the step that --search times; default 512"},
    {"csv", "FILE", "write the figures of --sensitivity, a line per product"},
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

static void report(const struct quantization *q, const struct args *args, double seconds, json_t *sensitivity)
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
        json_put(j, "products", json_integer(r->entries.len - q->turned));
        json_put(j, "kept", json_integer(kept));
        json_put(j, "runs", json_integer(runs));
        if (sensitivity)
            json_put(j, "sensitivity", json_incref(sensitivity));
        json_put(j, "turned", json_integer(q->turned));
        json_put(j, "outliers", equalise_json(q));
        print_json(j);
    } else if (!args_flag(args, "quiet")) {
        const char *with = runs ? arena_printf(q->arena, ", %" PRId64 " runs of calibration data", runs) : "";
        term_stage("quantize",
                   arena_printf(q->arena, "%" PRId64 " products, %" PRId64 " kept%s -> %s", r->entries.len - q->turned,
                                kept, with, q->ask.recipe),
                   seconds);
        if (q->turned > 0)
            printf("keys of %" PRId64 " caches are turned, queries with them\n", q->turned);
        if (turn_in_vain(q))
            printf("no keys are turned: products of queries do not read these caches head by head; they are coded as "
                   "they are\n");
        equalise_report(q, stdout);
    }
}

/* ---- arguments */

static bool read_equalisers(struct quantization *q, const struct args *a, bool has_calibrator)
{
    const char *how = args_value(a, "equalise");
    const int bits = quant_equalisers_read(how ? how : has_calibrator ? "keys" : "smooth,keys");
    const unsigned keys = 1u << QUANT_EQUALISER_keys;
    q->ask.equalise = bits < 0 ? 0 : (unsigned)bits & ~keys;
    q->ask.turns = bits >= 0 && ((unsigned)bits & keys);
    return bits >= 0;
}

static bool read_error(struct quantization *q, const struct args *a)
{
    const char *text = args_value(a, "input-error");
    char *end;
    if (!text)
        return true;
    q->ask.input_error = strtod(text, &end);
    return end != text && !*end && q->ask.input_error > 0;
}

static int check_arguments(struct quantization *q, const struct command *cmd, const struct args *a)
{
    const char *scheme = args_value(a, "scheme"), *weights = args_value(a, "weights"),
               *activations = args_value(a, "activations"), *variant = args_value(a, "variant");
    bool calibrates;
    int code = 0;
    if (!scheme || !args_value(a, "o"))
        return args_wrong(cmd, scheme ? "-o RECIPE is missing" : "--scheme S is missing");
    if (weights && !quant_weight_find(weights))
        return args_wrong(cmd, arena_printf(q->arena, "there is no algorithm '%s' for weights", weights));
    if (activations && !quant_calibrator_find(activations))
        return args_wrong(cmd, arena_printf(q->arena, "there is no calibrator '%s'", activations));
    q->ask.calib = args_value(a, "calib");
    if (quantize_scheme(q, scheme, weights, activations, &calibrates) != NPUC_OK)
        return diag_exit_code(NPUC_E_USAGE);
    if (variant && !quant_variant_find(variant))
        return args_wrong(cmd, arena_printf(q->arena, "there is no variant '%s'", variant));
    if (variant)
        quant_variant_set(quant_variant_find(variant), &q->ask.form);
    if (!args_number(cmd, a, "runs", (struct arg_range){1, INT64_MAX, INT64_MAX}, &q->ask.runs, &code))
        return code;
    if (!read_equalisers(q, a, activations != NULL))
        return args_wrong(cmd, "--equalise takes smooth, rotate, correct and keys, with commas, or none");
    if (!args_number(cmd, a, "keep-outliers", (struct arg_range){0, INT64_MAX, -1}, &q->ask.keep_outliers, &code))
        return code;
    if (!read_error(q, a))
        return args_wrong(cmd, "--input-error takes a positive number");
    if (!args_number(cmd, a, "parts", (struct arg_range){1, INT64_MAX, 4}, &q->ask.parts, &code))
        return code;
    const bool needs = weights && quant_weight_find(weights)->needs != 0;
    if ((calibrates || needs) && !q->ask.calib)
        return args_wrong(
            cmd, arena_printf(q->arena, "%s needs calibration data: give --calib DATA",
                              needs ? arena_printf(q->arena, "--weights %s", weights)
                                    : arena_printf(q->arena, "scheme %s has fixed scales of activations and", scheme)));
    q->ask.recipe = args_value(a, "o");
    q->ask.keeps = is_kept;
    q->ask.narrow_last = args_flag(a, "narrow-last");
    q->ask.user = (void *)(uintptr_t)a;
    q->ask.shows = term_is_tty(2) && !args_flag(a, "quiet");
    return 0;
}

/* ---- models that hold codes */

/* With another compilation than that of the recipe, which has changed its module. */
static int export_model(const struct args *a, const char *recipe)
{
    struct compilation c;
    int code = 0;
    compilation_init(&c);
    if (model_args(a, &c, &code)) {
        enum npuc_status s = compilation_set(&c, "recipe", recipe);
        if (s == NPUC_OK)
            s = qdq_export(&c, a->words.data[0], args_value(a, "export-qdq"));
        code = diag_exit_code(s);
    }
    compilation_free(&c);
    if (code == 0 && !args_flag(a, "quiet"))
        term_stage("export", args_value(a, "export-qdq"), 0);
    return code;
}

static int read_model(struct quantization *q, const struct command *cmd, const struct args *a)
{
    static const char *const others[] = {"scheme",  "calib",  "weights",   "activations",
                                         "variant", "recipe", "export-qdq"};
    const struct qdq_request r = {args_value(a, "from"), args_value(a, "o"), args_value(a, "float")};
    int64_t products;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(others); i++)
        if (args_value(a, others[i]))
            return args_wrong(
                cmd, arena_printf(q->arena, "--from reads a recipe from a model: --%s has no place there", others[i]));
    if (!r.recipe)
        return args_wrong(cmd, "-o RECIPE is missing");
    const enum npuc_status s = qdq_read(&q->c, &r, &products);
    if (s == NPUC_OK && !args_flag(a, "quiet"))
        term_stage("quantize", arena_printf(q->arena, "%" PRId64 " products of %s -> %s", products, r.model, r.recipe),
                   0);
    return diag_exit_code(s);
}

/* Inputs with fixed scales, of which nobody said how exact they must be. */
static bool may_tighten(const struct quantization *q, const struct args *a)
{
    const struct quant_operand *input = &q->ask.form.input;
    return q->ask.equalise && input->codes != DT_NONE && !input->dynamic && !input->cast && q->ask.keep_outliers < 0 &&
           !args_value(a, "input-error");
}

/* One recipe; inputs that leave more of a product's output as error than input_error get better scales or none; 0: as
 * the arguments say. */
static int make_once(struct quantization *q, const struct command *cmd, const struct args *a, double input_error)
{
    const int code = check_arguments(q, cmd, a);
    if (code != 0)
        return code;
    q->ask.model = a->words.data[0];
    q->ask.input_error = input_error > 0 ? input_error : q->ask.input_error;
    return diag_exit_code(quantize_run(q));
}

static int make_again(struct quantization *q, const struct command *cmd, struct args *a, double input_error)
{
    int code = 0;
    quantize_free(q);
    quantize_init(q, &a->arena);
    return model_args(a, &q->c, &code) ? make_once(q, cmd, a, input_error) : code;
}

/* Errors of many inputs add up: while they change the outputs too much, each may leave half of what the worst does.
 * Where that does not take a fifth of the change away, other things make it: the round before was enough. */
static int tighten(struct quantization *q, const struct command *cmd, struct args *a)
{
    enum { MOST_ROUNDS = 8 };
    double last = 0, noise = 0, before = 0;
    int code = 0;
    if (!outcome_of_inputs(a, &q->ask, &last, &code))
        return code;
    for (int i = 0; i < MOST_ROUNDS && last > OUTCOME_MOST && outcome_largest(q) > 0; i++) {
        const double next = outcome_largest(q) / 2;
        code = make_again(q, cmd, a, next);
        if (code != 0 || !outcome_of_inputs(a, &q->ask, &noise, &code))
            return code;
        if (noise > 0.8 * last)
            return make_again(q, cmd, a, before);
        before = next;
        last = noise;
    }
    return code;
}

static int make_recipe(struct quantization *q, const struct command *cmd, struct args *a)
{
    const int64_t begin = stopwatch_ns();
    json_t *sensitivity = NULL;
    int code = make_once(q, cmd, a, 0);
    if (code == 0 && may_tighten(q, a))
        code = tighten(q, cmd, a);
    const double seconds = stopwatch_since(begin);
    if (code == 0 && args_flag(a, "sensitivity"))
        code = sensitivity_run(cmd, a, &q->ask, &sensitivity);
    if (code == 0)
        report(q, a, seconds, sensitivity);
    json_decref(sensitivity);
    return code != 0 || !args_value(a, "export-qdq") ? code : export_model(a, q->ask.recipe);
}

/* The command without --search. */
static int quantize(const struct command *cmd, struct args *a)
{
    int code = 0;
    struct quantization *q = ARENA_NEW(&a->arena, struct quantization);
    const bool reads = args_value(a, "from") != NULL, exports = !args_value(a, "scheme") && args_value(a, "recipe");
    quantize_init(q, &a->arena);
    if (args_words(cmd, a, reads ? 0 : 1, &code) && (exports || model_args(a, &q->c, &code))) {
        if (reads)
            code = read_model(q, cmd, a);
        else if (exports)
            code = args_value(a, "export-qdq") ? export_model(a, args_value(a, "recipe"))
                                               : args_wrong(cmd, "--recipe R is for --export-qdq OUT.onnx");
        else
            code = make_recipe(q, cmd, a);
    }
    quantize_free(q);
    return code;
}

/* ---- search */

struct search_user {
    const struct command *cmd;
    const struct args *args;
};

static void give(struct args *a, const char *name, const char *value)
{
    for (const struct arg_option *o = options; o->name; o++)
        if (strcmp(o->name, name) == 0) {
            const struct arg_given g = {o, value};
            vec_push(&a->arena, &a->given, g);
        }
}

/* A recipe of one scheme, as if the command had been asked for it. */
static int make_one(void *user, const char *scheme, const char *path)
{
    const struct search_user *u = user;
    struct args a = {0};
    arena_init(&a.arena, NULL);
    for (int64_t i = 0; i < u->args->given.len; i++)
        if (strcmp(u->args->given.data[i].option->name, "json") != 0)
            vec_push(&a.arena, &a.given, u->args->given.data[i]);
    vec_push(&a.arena, &a.words, u->args->words.data[0]);
    give(&a, "scheme", scheme);
    give(&a, "o", path);
    give(&a, "quiet", NULL);
    const int code = quantize(u->cmd, &a);
    args_free(&a);
    return code;
}

static int search(const struct command *cmd, struct args *a)
{
    static const char *const others[] = {"scheme", "from", "recipe", "export-qdq", "sensitivity"};
    struct search_user user = {cmd, a};
    struct search_request q = {.args = a, .calib = args_value(a, "calib"), .out = args_value(a, "o")};
    json_t *report = NULL;
    int code = 0;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(others); i++)
        if (args_flag(a, others[i]))
            return args_wrong(cmd, arena_printf(&a->arena, "--%s has no place beside --search", others[i]));
    if (!args_words(cmd, a, 1, &code))
        return code;
    if (!q.calib || !q.out)
        return args_wrong(cmd, q.calib ? "-o RECIPE is missing"
                                       : "--search measures on calibration data: give --calib DATA");
    if (!args_number(cmd, a, "runs", (struct arg_range){1, INT64_MAX, INT64_MAX}, &q.runs, &code) ||
        !args_number(cmd, a, "each", (struct arg_range){1, INT64_MAX, 1}, &q.each_runs, &code) ||
        !args_number(cmd, a, "context", (struct arg_range){1, 1 << 24, 512}, &q.context, &code))
        return code;
    q.model = a->words.data[0];
    q.shows = term_is_tty(2) && !args_flag(a, "quiet");
    q.make = make_one;
    q.user = &user;
    code = search_run(&q, &a->arena, args_flag(a, "json") ? &report : NULL);
    if (report)
        print_json(report);
    return code;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    code = args_value(&a, "search") ? search(cmd, &a) : quantize(cmd, &a);
    args_free(&a);
    return code;
}

const struct command command_quantize = {
    .name = "quantize",
    .what = "a recipe for a quantised model, from a scheme and calibration data",
    .usage = "MODEL --scheme S -o RECIPE [--calib DATA] [--export-qdq OUT.onnx] [options]\n"
             "       npuc quantize MODEL --recipe R --export-qdq OUT.onnx\n"
             "       npuc quantize MODEL --search LIMIT --schemes S1,S2,.. --calib DATA -o RECIPE\n"
             "       npuc quantize --from MODEL -o RECIPE [--float OUT.onnx]",
    .examples =
        "  npuc quantize examples/bard/model.onnx --scheme w4a16-g32 -o bard-w4.recipe\n"
        "  npuc quantize examples/bard/model.onnx --scheme w8a8 --calib examples/bard/eval/prefill_ids.npy -o "
        "w8a8.recipe\n"
        "  npuc quantize examples/bard/model.onnx --search max-drop=1% --schemes w8a8-dynamic,w4a16-g32 --calib "
        "examples/bard/eval/prefill_ids.npy -o mixed.recipe\n",
    .options = options,
    .run = run,
};
