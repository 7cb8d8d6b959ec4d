/* npuc compile: a model becomes a plan. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/stopwatch.h"
#include "tools/conversions.h"
#include "tools/model_args.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"o", "PLAN", "the plan to write"},
    MODEL_OPTIONS,
    {"input-layout", "X=L", "storage of input X: ND, NZ or NC1HWC0"},
    {"output-layout", "Y=L", "storage of output Y, likewise"},
    {"tile", "m=..,n=..", "override tile sizes (m, n, k, rows, cols); results keep their bits"},
    {"force", "K=V,K=V", "fix choices to compare variants, as npuc estimate --help has them; results keep their bits"},
    {"strict", NULL, "round where the model's own steps and ONNX's function bodies round; slower"},
    {"plain-maps", NULL, "keep feature maps in the order of their dimensions; results keep their bits"},
    {"verify-each", NULL, "check the graph after every pass"},
    {"dump-dir", "FOLDER", "write the graph as text after every pass: FOLDER/NN-pass.ir"},
    {"max-rewrites", "N", "stop rewriting after N changes, to find the one that matters"},
    {"quiet", NULL, "no stage lines"},
    {"json", NULL, "a summary as JSON on stdout"},
    {NULL, NULL, NULL},
};

static void on_progress(void *user, const char *stage, const char *text, double seconds)
{
    (void)user;
    term_stage(stage, text, seconds);
}

static int count_host(const struct plan *p)
{
    int n = 0;
    for (int64_t i = 0; i < p->steps.len; i++)
        n += p->steps.data[i].kind == PS_HOST;
    return n;
}

/* Writing over the model is never meant. */
static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void print_json(const struct compilation *c, const char *plan)
{
    printf("{\"plan\": \"%s\", \"target\": \"%s\", \"nodes\": %lld, \"kernels\": %lld, \"steps\": %lld, "
           "\"host_steps\": %d, "
           "\"weight_bytes\": %lld}\n",
           plan, c->target.id, (long long)c->n_imported, (long long)c->plan.kernels.len, (long long)c->plan.steps.len,
           count_host(&c->plan), (long long)c->plan.weights_size);
}

/* Layout conversions that are left: a line behind those of the stages. */
static void print_conversions(struct args *a, const char *plan)
{
    const int64_t begin = stopwatch_ns();
    const char *line = conversions_of_file(plan, &a->arena);
    if (line)
        term_stage("layouts", line, stopwatch_since(begin));
}

/* What became of --kv-page. */
static void print_pages(struct args *a, const struct compilation *c)
{
    const struct plan_entry *e = &c->plan.entries.data[0];
    int n = 0;
    for (int32_t i = 0; i < e->n_caches; i++)
        n += e->caches[i].page > 0 && !e->caches[i].ring;
    term_stage("pages",
               arena_printf(&a->arena, "%d of %d caches in pages of %lld rows%s", n, e->n_caches,
                            (long long)c->options.cache_page,
                            n < e->n_caches ? "; those of codes or of a fixed size stay in one piece" : ""),
               0);
}

/* Caches of sliding windows that are rings. */
static void print_rings(struct args *a, const struct compilation *c)
{
    const struct plan_entry *e = &c->plan.entries.data[0];
    int64_t n = 0, least = INT64_MAX, most = 0, capacity = 0;
    for (int32_t i = 0; i < e->n_caches; i++) {
        const struct plan_cache *k = &e->caches[i];
        if (!k->ring)
            continue;
        n++;
        least = k->ring < least ? k->ring : least;
        most = k->ring > most ? k->ring : most;
        capacity = k->capacity;
    }
    if (n > 0)
        term_stage("rings",
                   arena_printf(&a->arena, "%lld of %d caches keep the last %lld%s rows of %lld, for sliding windows",
                                (long long)n, e->n_caches, (long long)least,
                                most > least ? arena_printf(&a->arena, " to %lld", (long long)most) : "",
                                (long long)capacity),
                   0);
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    struct compilation *c;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    c = ARENA_NEW(&a.arena, struct compilation);
    compilation_init(c);
    const char *out = args_value(&a, "o");
    if (args_words(cmd, &a, 1, &code) && model_args(&a, c, &code)) {
        if (!out) {
            term_error("npuc compile: -o PLAN is missing: the file to write (npuc compile --help)");
            code = 2;
        } else if (same_file(a.words.data[0], out)) {
            term_error("npuc compile: %s: the plan would overwrite the model; give another -o", out);
            code = 2;
        } else {
            if (!args_flag(&a, "quiet") && !args_flag(&a, "json"))
                c->progress = on_progress;
            code = diag_exit_code(compilation_write(c, a.words.data[0], out));
            if (code == 0 && args_flag(&a, "json"))
                print_json(c, out);
            if (code == 0 && c->progress && c->options.cache_page > 0)
                print_pages(&a, c);
            if (code == 0 && c->progress)
                print_rings(&a, c);
            if (code == 0 && c->progress)
                print_conversions(&a, out);
        }
    }
    compilation_free(c);
    args_free(&a);
    return code;
}

const struct command command_compile = {
    .name = "compile",
    .what = "compile an ONNX model into a plan",
    .usage = "MODEL -o PLAN [options]",
    .examples = "  npuc compile examples/bard/model.onnx --target ascend-910b1 -o bard.plan\n"
                "  npuc compile examples/bard/model.onnx -D batch_size=1 --precision fp16 -o bard16.plan\n",
    .options = options,
    .run = run,
};
