/* npuc-opt: IR text (or an ONNX model) in, passes, IR text out. The workbench for passes and their tests. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/file.h"
#include "frontend/export/onnx_write.h"
#include "frontend/onnx.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "passes/pass.h"
#include "quant/recipe.h"
#include "tools/tensor_io.h"

static const char usage_text[] =
    "usage: npuc-opt [options] FILE.ir|MODEL.onnx        ('-' reads text from standard input)\n"
    "  -p, --passes LIST       passes to run, separated by commas; 'default' is the whole pipeline\n"
    "  -o FILE                 write there and not to standard output\n"
    "      --no-output         print no IR\n"
    "      --emit-onnx FILE    write the graph as an ONNX model; prints no IR\n"
    "      --external-limit N  bytes of constants in that file; beyond it they go to FILE.data (default 1 GiB)\n"
    "      --no-verify         do not verify after reading and after each pass\n"
    "      --blobs FILE        contents of large constants (side file of the text)\n"
    "      --write-blobs FILE  write the side file of the result\n"
    "      --round-trip        check after each pass that the text reads back and prints the same\n"
    "      --stop-after PASS   end after that pass\n"
    "      --max-rewrites N    stop changing the graph after N rewrites (bisection)\n"
    "      --cache-capacity N  rows of KV caches\n"
    "      --cache-ring N      new rows of a call that rings of sliding windows have room for\n"
    "      --cache-page N      rows of a page of KV caches\n"
    "      --target T          place for that target; without it passes that need one do nothing\n"
    "      --devices N         the pass `shard` makes the graph of one of N devices\n"
    "      --expert-groups N   `spread_experts` that of one of N groups of devices\n"
    "      --precision P       as for npuc compile, for the passes `precision`, `whole_precision` and `quantise`\n"
    "      --recipe R          how the pass `apply_recipe` quantises (docs/quantization.md)\n"
    "      --strict            round where the model's own steps round\n"
    "      --dump-dir DIR      write NN-<pass>.ir after each pass\n"
    "      --stats             counters on standard error\n"
    "      --time-passes       time of each pass on standard error\n"
    "      --eval              run the first function in the reference interpreter\n"
    "      --input NAME=FILE   input for --eval, in the forms of npuc run; repeated\n"
    "      --output-dir DIR    one .npy (or .pb, where numpy lacks the type) per result of --eval; without it they are "
    "printed\n"
    "      --list              known passes\n"
    "example: npuc-opt -p fold_constants,dce --stats model.ir\n"
    "         npuc-opt -p place,fuse_vector --target ascend-910b1 model.ir\n"
    "         npuc-opt -p fold_constants,dce --emit-onnx simpler.onnx model.onnx\n";

enum { MAX_INPUTS = 256, MAX_STEPS = 256, MAX_PRINTED = 64 };

struct opt {
    const char *file, *out, *passes, *blobs, *write_blobs, *output_dir, *target, *emit_onnx, *recipe;
    const struct precision_mode *precision;
    bool strict;
    const char *inputs[MAX_INPUTS];
    int n_inputs;
    bool no_output, stats, time_passes, eval, round_trip;
    int64_t max_rewrites, cache_capacity, cache_page, cache_ring, external_limit, devices, expert_groups;
    struct pass_run run;
};

struct work {
    struct ir_ctx cx;
    struct diag diag;
    struct arena arena; /* text and evaluation */
    struct file_map text, blobs;
    struct onnx_model *onnx;
    struct module *m;
    const struct opt *opt;
    enum npuc_status round_trip; /* first failure */
    struct target target;
    struct machine machine;
    struct target_info info;
    bool has_target;
};

static void print_line(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "%s\n", line);
}

static void out_of_memory(void *user)
{
    (void)user;
    fprintf(stderr, "npuc-opt: error E0503: out of host memory\n");
    exit(diag_exit_code(NPUC_E_NOMEM));
}

static enum npuc_status usage_error(struct work *w, const char *text)
{
    return diag_error_text(&w->diag, &(struct diag_loc){.file = "npuc-opt", .index = -1}, D_USAGE, text);
}

/* ---- options */

static enum npuc_status parse_count(struct work *w, const char *text, int64_t *out)
{
    char *end;
    *out = strtoll(text, &end, 10);
    if (*text && !*end && *out >= 0)
        return NPUC_OK;
    return usage_error(w, arena_printf(&w->arena, "'%s' is not a count", text));
}

static enum npuc_status parse_precision(struct work *w, const char *text, const struct precision_mode **out)
{
    *out = precision_find(text);
    return *out ? NPUC_OK : usage_error(w, arena_printf(&w->arena, "'%s' is not " PRECISION_NAMES, text));
}

static enum npuc_status add_input(struct work *w, struct opt *o, const char *text)
{
    if (!strchr(text, '=') || o->n_inputs == MAX_INPUTS)
        return usage_error(w, "--input takes NAME=FILE");
    o->inputs[o->n_inputs++] = text;
    return NPUC_OK;
}

static void list_passes(void)
{
    for (int i = 0; i < PASS_COUNT; i++)
        printf("%-20s %s\n", pass_table[i].name, pass_table[i].what);
}

enum {
    O_HELP = 'h',
    O_PASSES = 'p',
    O_OUT = 'o',
    O_NO_OUTPUT = 256,
    O_NO_VERIFY,
    O_ROUND_TRIP,
    O_BLOBS,
    O_WRITE_BLOBS,
    O_STOP_AFTER,
    O_MAX_REWRITES,
    O_CACHE,
    O_PAGE,
    O_RING,
    O_DEVICES,
    O_EXPERT_GROUPS,
    O_DUMP_DIR,
    O_STATS,
    O_TIME,
    O_EVAL,
    O_INPUT,
    O_OUTPUT_DIR,
    O_LIST,
    O_TARGET,
    O_PRECISION,
    O_RECIPE,
    O_STRICT,
    O_EMIT_ONNX,
    O_EXTERNAL
};

static const struct option long_options[] = {
    {"help", 0, NULL, O_HELP},
    {"passes", 1, NULL, O_PASSES},
    {"no-output", 0, NULL, O_NO_OUTPUT},
    {"no-verify", 0, NULL, O_NO_VERIFY},
    {"round-trip", 0, NULL, O_ROUND_TRIP},
    {"blobs", 1, NULL, O_BLOBS},
    {"write-blobs", 1, NULL, O_WRITE_BLOBS},
    {"stop-after", 1, NULL, O_STOP_AFTER},
    {"max-rewrites", 1, NULL, O_MAX_REWRITES},
    {"cache-capacity", 1, NULL, O_CACHE},
    {"cache-page", 1, NULL, O_PAGE},
    {"cache-ring", 1, NULL, O_RING},
    {"devices", 1, NULL, O_DEVICES},
    {"expert-groups", 1, NULL, O_EXPERT_GROUPS},
    {"dump-dir", 1, NULL, O_DUMP_DIR},
    {"stats", 0, NULL, O_STATS},
    {"time-passes", 0, NULL, O_TIME},
    {"eval", 0, NULL, O_EVAL},
    {"input", 1, NULL, O_INPUT},
    {"output-dir", 1, NULL, O_OUTPUT_DIR},
    {"list", 0, NULL, O_LIST},
    {"target", 1, NULL, O_TARGET},
    {"precision", 1, NULL, O_PRECISION},
    {"recipe", 1, NULL, O_RECIPE},
    {"strict", 0, NULL, O_STRICT},
    {"emit-onnx", 1, NULL, O_EMIT_ONNX},
    {"external-limit", 1, NULL, O_EXTERNAL},
    {NULL, 0, NULL, 0},
};

static enum npuc_status apply_option(struct work *w, struct opt *o, int c)
{
    switch (c) {
    case O_PASSES: o->passes = optarg; return NPUC_OK;
    case O_OUT: o->out = optarg; return NPUC_OK;
    case O_NO_OUTPUT: o->no_output = true; return NPUC_OK;
    case O_NO_VERIFY: o->run.verify_each = false; return NPUC_OK;
    case O_ROUND_TRIP: o->round_trip = true; return NPUC_OK;
    case O_BLOBS: o->blobs = optarg; return NPUC_OK;
    case O_WRITE_BLOBS: o->write_blobs = optarg; return NPUC_OK;
    case O_STOP_AFTER: o->run.stop_after = optarg; return NPUC_OK;
    case O_MAX_REWRITES: return parse_count(w, optarg, &o->max_rewrites);
    case O_DEVICES: return parse_count(w, optarg, &o->devices);
    case O_EXPERT_GROUPS: return parse_count(w, optarg, &o->expert_groups);
    case O_CACHE: return parse_count(w, optarg, &o->cache_capacity);
    case O_RING: return parse_count(w, optarg, &o->cache_ring);
    case O_PAGE: return parse_count(w, optarg, &o->cache_page);
    case O_TARGET: o->target = optarg; return NPUC_OK;
    case O_PRECISION: return parse_precision(w, optarg, &o->precision);
    case O_RECIPE: o->recipe = optarg; return NPUC_OK;
    case O_STRICT: o->strict = true; return NPUC_OK;
    case O_EMIT_ONNX: o->emit_onnx = optarg; return NPUC_OK;
    case O_EXTERNAL: return parse_count(w, optarg, &o->external_limit);
    case O_DUMP_DIR: o->run.dump_dir = optarg; return NPUC_OK;
    case O_STATS: o->stats = true; return NPUC_OK;
    case O_TIME: o->time_passes = true; return NPUC_OK;
    case O_EVAL: o->eval = true; return NPUC_OK;
    case O_INPUT: return add_input(w, o, optarg);
    case O_OUTPUT_DIR: o->output_dir = optarg; return NPUC_OK;
    default: return usage_error(w, "unknown option; npuc-opt --help lists them");
    }
}

/* *done: the answer was printed. */
static enum npuc_status parse_options(struct work *w, struct opt *o, int argc, char **argv, bool *done)
{
    *o = (struct opt){.max_rewrites = -1, .run = {.verify_each = true}};
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "hp:o:", long_options, NULL)) != -1;) {
        if (c == O_HELP || c == O_LIST) {
            if (c == O_HELP)
                fputs(usage_text, stdout);
            else
                list_passes();
            *done = true;
            return NPUC_OK;
        }
        const enum npuc_status s = apply_option(w, o, c);
        if (s != NPUC_OK)
            return s;
    }
    if (optind + 1 != argc)
        return usage_error(w, "expected one file; npuc-opt --help shows the options");
    o->file = argv[optind];
    return NPUC_OK;
}

/* ---- reading */

static enum npuc_status read_stdin(struct work *w, const char **text, int64_t *len)
{
    VEC(char) all = {0};
    for (int c; (c = getchar()) != EOF;)
        vec_push(&w->arena, &all, (char)c);
    *text = all.data ? all.data : "";
    *len = all.len;
    return NPUC_OK;
}

static bool is_onnx(const char *path)
{
    const size_t len = strlen(path);
    return len > 5 && strcmp(path + len - 5, ".onnx") == 0;
}

static enum npuc_status read_module(struct work *w, const struct opt *o)
{
    w->cx.file = o->file;
    if (is_onnx(o->file)) {
        const struct onnx_options options = {.allow_missing_data = true};
        return onnx_import(&w->cx, o->file, &options, &w->onnx, &w->m);
    }
    const char *text;
    int64_t len;
    enum npuc_status s;
    if (strcmp(o->file, "-") == 0) {
        s = read_stdin(w, &text, &len);
    } else {
        s = file_map_open(&w->text, o->file, &w->diag);
        text = (const char *)w->text.data;
        len = w->text.size;
    }
    struct ir_blobs blobs;
    if (s == NPUC_OK && o->blobs) {
        s = file_map_open(&w->blobs, o->blobs, &w->diag);
        if (s == NPUC_OK)
            s = ir_blobs_open(&w->cx, w->blobs.data, w->blobs.size, &blobs);
    }
    return s == NPUC_OK ? ir_parse_with(&w->cx, text, len, o->blobs ? &blobs : NULL, &w->m) : s;
}

/* ---- passes */

/* The text of the module, read into a context of its own, verifies and prints the same. */
static enum npuc_status round_trip(struct work *w, const char *after)
{
    struct arena a;
    struct ir_ctx cx;
    struct module *m = NULL;
    const char *text, *again = "";
    int64_t len, again_len = 0;
    arena_init(&a, NULL);
    ir_ctx_init(&cx, NULL, &w->diag);
    a.on_oom = cx.arena.on_oom = cx.scratch.on_oom = out_of_memory;
    cx.file = after;
    ir_print(w->m, &a, &text, &len);
    enum npuc_status s = ir_parse(&cx, text, len, &m);
    if (s == NPUC_OK)
        s = ir_verify(m, after);
    if (s == NPUC_OK)
        ir_print(m, &a, &again, &again_len);
    if (s == NPUC_OK && (again_len != len || memcmp(again, text, (size_t)len) != 0))
        s = diag_error_text(&w->diag, &(struct diag_loc){.file = after, .index = -1}, D_VERIFY,
                            "the text form reads back as another module");
    ir_module_free(m);
    ir_ctx_free(&cx);
    arena_free(&a);
    return s;
}

static void after_pass(void *user, const struct pass_ctx *px, const struct pass *p, int64_t ns)
{
    struct work *w = user;
    (void)px;
    if (w->opt->time_passes)
        fprintf(stderr, "%-20s %8.3f ms\n", p->name, (double)ns / 1e6);
    if (w->opt->round_trip && w->round_trip == NPUC_OK)
        w->round_trip = round_trip(w, p->name);
}

static enum npuc_status add_steps(struct work *w, const char *list, struct pass_step *steps, int64_t *n)
{
    while (*list) {
        const int64_t len = (int64_t)strcspn(list, ",");
        int64_t n_default;
        const struct pass_step *pipeline = pass_pipeline(&n_default);
        const int id = pass_find(list, len);
        if (len == 7 && memcmp(list, "default", 7) == 0) {
            for (int64_t i = 0; i < n_default && *n < MAX_STEPS; i++)
                steps[(*n)++] = pipeline[i];
        } else if (id >= 0 && *n < MAX_STEPS) {
            steps[(*n)++] = (struct pass_step){(enum pass_id)id, NULL};
        } else {
            return usage_error(
                w, arena_printf(&w->arena, "unknown pass '%.*s'; npuc-opt --list names them", (int)len, list));
        }
        list += len;
        list += *list == ',';
    }
    return NPUC_OK;
}

static enum npuc_status load_target(struct work *w, const char *id)
{
    enum npuc_status s = target_load(&w->target, id, &w->diag);
    if (s != NPUC_OK)
        return s;
    w->has_target = true;
    s = machine_init(&w->machine, &w->target, &w->diag);
    if (s == NPUC_OK)
        backend_target_info(&w->machine, &w->info);
    return s;
}

static enum npuc_status run_passes(struct work *w, struct opt *o)
{
    struct pass_step steps[MAX_STEPS];
    int64_t n = 0;
    enum npuc_status s = add_steps(w, o->passes ? o->passes : "", steps, &n);
    if (s == NPUC_OK && o->target)
        s = load_target(w, o->target);
    struct quant_recipe recipe = {0};
    if (s == NPUC_OK && o->recipe)
        s = quant_recipe_read(&recipe, o->recipe, &w->arena, &w->diag);
    if (s != NPUC_OK)
        return s;
    const struct quantiser quantiser = quant_recipe_quantiser(&recipe);
    struct pass_ctx px;
    pass_ctx_init(&px, w->m, w->has_target ? &w->info : NULL);
    px.options.cache_capacity = o->cache_capacity;
    px.options.cache_page = o->cache_page;
    px.options.cache_ring = o->cache_ring;
    px.options.quantiser = o->recipe ? &quantiser : NULL;
    if (o->precision) {
        px.options.precision = o->precision->precision;
        px.options.integer = o->precision->integer;
        px.options.whole = o->precision->whole;
    }
    px.options.strict = o->strict;
    struct division division = {.tensor = o->devices, .expert = o->expert_groups, .arena = &w->arena};
    px.options.division = o->devices > 1 || o->expert_groups > 1 ? &division : NULL;
    w->cx.max_rewrites = o->max_rewrites;
    o->run.after = after_pass;
    o->run.user = w;
    w->opt = o;
    if (o->round_trip)
        w->round_trip = round_trip(w, "reading");
    s = pass_run_all(&px, steps, n, &o->run);
    s = s == NPUC_OK ? w->round_trip : s;
    if (s == NPUC_OK && o->stats)
        fputs(pass_stats_text(&px, &w->arena), stderr);
    for (int64_t i = 0; i < division.notes.len; i++)
        fprintf(stderr, "division: %s\n", division.notes.data[i]);
    pass_ctx_free(&px);
    quant_recipe_close(&recipe);
    return s;
}

/* ---- writing */

static enum npuc_status write_file(struct work *w, const char *path, const void *data, int64_t size)
{
    static struct file_writer writer; /* large; one at a time */
    const enum npuc_status s = file_writer_open(&writer, path, &w->diag);
    if (s != NPUC_OK)
        return s;
    file_writer_put(&writer, data, size);
    return file_writer_commit(&writer, &w->diag);
}

static enum npuc_status write_module(struct work *w, const struct opt *o)
{
    enum npuc_status s = NPUC_OK;
    if (o->write_blobs) {
        const uint8_t *data;
        int64_t size;
        ir_blobs_print(w->m, &w->arena, &data, &size);
        s = write_file(w, o->write_blobs, data, size);
    }
    if (s == NPUC_OK && o->emit_onnx)
        s = onnx_write(w->m, o->emit_onnx, &(struct onnx_write_options){.external_limit = o->external_limit});
    if (s != NPUC_OK || o->no_output || ((o->eval || o->emit_onnx) && !o->out))
        return s;
    const char *text;
    int64_t len;
    ir_print(w->m, &w->arena, &text, &len);
    if (o->out)
        return write_file(w, o->out, text, len);
    fwrite(text, 1, (size_t)len, stdout);
    return NPUC_OK;
}

/* ---- evaluation */

static enum npuc_status read_input(struct work *w, const struct opt *o, const struct value *v, struct k_tensor *out)
{
    const char *name = str_text(&w->cx.strings, v->name);
    const size_t len = strlen(name);
    for (int i = 0; i < o->n_inputs; i++)
        if (strncmp(o->inputs[i], name, len) == 0 && o->inputs[i][len] == '=')
            return tensor_read(o->inputs[i] + len + 1, name, &w->arena, &w->diag, out);
    return diag_error_text(&w->diag, &(struct diag_loc){.file = o->file, .node = name, .index = -1}, D_INPUT_BINDING,
                           "no --input for this function input");
}

static void print_result(const char *name, const struct k_tensor *t)
{
    printf("%s: %s[", name, dtype_table[t->dtype].name);
    for (int i = 0; i < t->rank; i++)
        printf("%s%" PRId64, i ? "," : "", t->dims[i]);
    printf("] [");
    const int64_t count = k_count(t);
    for (int64_t i = 0; i < count && i < MAX_PRINTED; i++) {
        if (dtype_is_float(t->dtype))
            printf("%s%.9g", i ? ", " : "", k_get_f64(t, i));
        else
            printf("%s%" PRId64, i ? ", " : "", k_get_i64(t, i));
    }
    printf("%s]\n", count > MAX_PRINTED ? ", ..." : "");
}

static enum npuc_status write_result(struct work *w, const struct opt *o, const struct value *v,
                                     const struct k_tensor *t)
{
    const char *name = str_text(&w->cx.strings, v->name);
    if (!o->output_dir) {
        print_result(name, t);
        return NPUC_OK;
    }
    char *safe = arena_strndup(&w->arena, name, (int64_t)strlen(name));
    for (char *c = safe; *c; c++)
        if (*c == '/')
            *c = '_';
    /* numpy has no name for bfloat16 and the narrow types */
    const bool numpy = t->dtype == DT_STRING || dtype_table[t->dtype].npy;
    const char *path = arena_printf(&w->arena, "%s/%s.%s", o->output_dir, safe, numpy ? "npy" : "pb");
    return tensor_write(path, numpy ? TENSOR_NPY : TENSOR_PB, name, t, &w->arena, &w->diag);
}

static enum npuc_status evaluate(struct work *w, const struct opt *o)
{
    const struct graph *g = w->m->funcs.data[0];
    const struct node *yield = graph_yield(g);
    struct k_tensor *in = ARENA_ARRAY(&w->arena, struct k_tensor, g->n_inputs + 1);
    struct k_tensor *out = ARENA_ARRAY(&w->arena, struct k_tensor, yield->n_in + 1);
    enum npuc_status s = NPUC_OK;
    for (int i = 0; s == NPUC_OK && i < g->n_inputs; i++)
        s = read_input(w, o, g->inputs[i], &in[i]);
    if (s == NPUC_OK)
        s = ir_eval(&w->cx, g, in, out, &w->arena);
    for (int i = 0; s == NPUC_OK && i < yield->n_in; i++)
        s = write_result(w, o, yield->in[i].value, &out[i]);
    return s;
}

static enum npuc_status run(struct work *w, struct opt *o)
{
    enum npuc_status s = read_module(w, o);
    if (s == NPUC_OK)
        s = run_passes(w, o);
    if (s == NPUC_OK)
        s = write_module(w, o);
    if (s == NPUC_OK && o->eval)
        s = evaluate(w, o);
    return s;
}

int main(int argc, char **argv)
{
    static struct work w;
    struct opt o;
    bool done = false;
    diag_init(&w.diag, print_line, NULL);
    ir_ctx_init(&w.cx, NULL, &w.diag);
    arena_init(&w.arena, NULL);
    w.cx.arena.on_oom = w.cx.scratch.on_oom = w.arena.on_oom = out_of_memory;
    enum npuc_status s = parse_options(&w, &o, argc, argv, &done);
    if (s == NPUC_OK && !done)
        s = run(&w, &o);
    ir_module_free(w.m);
    onnx_close(w.onnx);
    if (w.has_target)
        target_free(&w.target);
    ir_ctx_free(&w.cx);
    arena_free(&w.arena);
    file_map_close(&w.text);
    file_map_close(&w.blobs);
    return diag_exit_code(s);
}
