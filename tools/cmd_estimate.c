/* npuc estimate: times of a model or plan on a target, without computing it; weights may be absent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/rt.h"
#include "tools/conversions.h"
#include "tools/estimate.h"
#include "tools/json.h"
#include "tools/model_args.h"
#include "tools/report.h"
#include "tools/roles.h"
#include "tools/spread.h"
#include "tools/sweep.h"
#include "tools/table.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    MODEL_OPTIONS,
    {"context", "N", "language models: times of a prefill of N tokens and of one decode step after it; default 2048"},
    {"batch", "N", "language models: sequences at once; default 1"},
    {"cores", "N", "use N cube cores with their vector cores"},
    {"vector-cores", "N", "use N vector cores"},
    {"input-layout", "X=L", "storage of input X: ND, NZ or NC1HWC0; the way to the model's dimensions is timed"},
    {"output-layout", "Y=L", "storage of output Y, likewise"},
    {"force", "K=V,K=V",
     "fix choices: tile=MxNxK, split=RxC cores over M and N, l1k=STEPS of K in a load to L1, stages=N, "
     "gm_tile=ROWSxCOLS, ub_tile=COLS, l2=cached|bypass, order=swizzle|aswt (aswt: the last round of tiles in parts), "
     "launches=joint|single (single: no two kernels share a launch)"},
    {"compare", "T2,T3", "the same for other targets, a line each (models only); all: every target of npuc targets"},
    SPREAD_OPTIONS,
    {"sweep", "NAME=N,N",
     "all combinations of sizes: batch=1,8,32 and seq=128,2048 of a language model (seq: tokens in the cache at the "
     "first "
     "new one), else dimensions by name; a table, with --json, --csv, --html, --svg"},
    {"exact", NULL,
     "time prefills of more than 2048 tokens too; without it a sweep continues them from shorter ones and marks them "
     "~"},
    {"csv", "FILE", "the sweep as comma-separated values"},
    {"html", "FILE", "the sweep as a page of its own: plots and table"},
    {"svg", "FILE", "the sweep's plots"},
    {"profile", NULL, "tables of kernels"},
    {"json", NULL, "as JSON on stdout: total_us and pipes_us of one call, then everything per target"},
    {NULL, NULL, NULL},
};

struct request {
    const struct args *a;
    const char *path;
    int64_t context, batch;
    bool json, profile;
    struct sweep *sweep; /* NULL: none */
    struct spread spread;
    double gm; /* several devices: bytes of global memory of one */
};
struct result {
    double prefill_us, decode_us, single_us;
    bool is_llm;
};

static int run_once(struct session *s, const struct request *q, const char *title, double *us, json_t *into,
                    const char *key)
{
    enum npuc_status st = npurt_run(s->run);
    if (st != NPUC_OK)
        return session_fail(s, st);
    const struct npurt_report *r = npurt_report(s->run);
    *us = r->us;
    struct conversions c;
    struct arena *arena = (struct arena *)(uintptr_t)&q->a->arena;
    conversions_of(&c, s, arena);
    if (q->json) {
        json_t *j = report_json(r);
        json_put(j, "layout_conversions", conversions_json(&c));
        json_object_set_new(into, key, j);
    } else if (q->profile) {
        report_print(stdout, r, title);
        conversions_table(&c, stdout, arena);
    } else {
        printf("%s: ", title), report_summary(stdout, r);
        printf("layouts     %s\n", conversions_line(&c, arena));
    }
    return 0;
}

/* Several devices: stages in turns, times over links, memory of the device that needs most. */
static void spread_result(struct session *s, const struct request *q, const struct spread_run runs[2], double *us[2],
                          json_t *j)
{
    struct arena *arena = (struct arena *)(uintptr_t)&q->a->arena;
    const struct npurt_report *r = npurt_report(s->run);
    const int last = runs[1].us > 0 ? 1 : 0;
    const int64_t turns = last ? spread_turns(&q->spread, q->batch) : 1;
    const struct spread_stages stages = spread_divide(&q->spread, &runs[last]);
    double *cache = ARENA_ARRAY(arena, double, s->run->entry->n_caches + 1), sum = 0;
    char b[4][BYTES_TEXT];
    for (int32_t i = 0; i < s->run->entry->n_caches; i++)
        sum += cache[i] = (double)(s->run->caches[i].size * turns);
    double weights = (double)r->weights_size, caches = sum;
    for (int i = 0; i <= last; i++)
        *us[i] = spread_us(&runs[i], &stages, s, turns, i == 1);
    if (q->spread.pipeline > 1)
        spread_memory(&stages, s, cache, &weights, &caches);
    const double need = weights + caches + (double)r->pool_size, over = need - q->gm;
    json_t *d = q->json ? spread_json(&q->spread) : NULL;
    if (d) {
        json_put(d, last ? "time_to_first_token_us" : "call_us", json_real(*us[0]));
        if (last)
            json_put(d, "decode_us_per_step", json_real(*us[1]));
        json_put(d, "link_us", json_real(runs[last].link_us));
        json_put(d, "memory_bytes_per_device", json_real(need));
        json_put(d, "fits", json_boolean(over <= 0));
        json_put(j, "spread", d);
        return;
    }
    printf("devices     %s: %.0f %% of %s over links", spread_text(&q->spread, arena),
           100 * runs[last].link_us / runs[last].us, last ? "a decode step" : "the call");
    if (q->spread.tensor > 1)
        printf("; of %lld products %lld are divided",
               (long long)(q->spread.division.divided + q->spread.division.whole),
               (long long)q->spread.division.divided);
    if (q->spread.expert > 1)
        printf("; %lld products of experts, a part of %lld of the matrices", (long long)q->spread.division.spread,
               (long long)q->spread.expert);
    printf("\n");
    printf("per device  weights %s, caches %s, activations %s of %s: %s%s\n", bytes_text(b[0], weights),
           bytes_text(b[1], caches), bytes_text(b[2], (double)r->pool_size), bytes_text(b[3], q->gm),
           over > 0 ? "does not fit, too much: " : "fits", over > 0 ? bytes_text(b[0], over) : "");
    for (int64_t i = 0; i < q->spread.division.notes.len; i++)
        printf("note        %s\n", q->spread.division.notes.data[i]);
}

/* Prefill of `context` tokens into an empty cache, then one token after them. */
static int language_model(struct session *s, const struct request *q, struct result *out, json_t *j)
{
    char title[96];
    struct spread_run runs[2];
    struct arena *arena = (struct arena *)(uintptr_t)&q->a->arena;
    const int64_t batch = spread_batch(&q->spread, q->batch);
    enum npuc_status st = role_shapes(s->plan, s->run, batch, 0, q->context);
    if (st != NPUC_OK)
        return session_fail(s, st);
    snprintf(title, sizeof title, "prefill, batch %lld, %lld tokens", (long long)batch, (long long)q->context);
    int code = run_once(s, q, title, &out->prefill_us, j, "prefill");
    if (code != 0)
        return code;
    runs[0] = spread_run_of(&q->spread, s, arena);
    int64_t past = q->context, capacity = npurt_cache_capacity(s->run);
    if (capacity > 0 && past + 1 > capacity)
        past = capacity - 1; /* the cache of a plan is full then */
    st = role_shapes(s->plan, s->run, batch, past, 1);
    if (st != NPUC_OK)
        return session_fail(s, st);
    snprintf(title, sizeof title, "decode, batch %lld, %lld tokens before", (long long)batch, (long long)past);
    code = run_once(s, q, title, &out->decode_us, j, "decode");
    out->is_llm = true;
    runs[1] = spread_run_of(&q->spread, s, arena);
    if (code == 0 && !spread_is_one(&q->spread))
        spread_result(s, q, runs, (double *[2]){&out->prefill_us, &out->decode_us}, j);
    return code;
}

static bool has_dims(const struct args *a)
{
    return args_value(a, "D") != NULL || args_value(a, "shape") != NULL;
}

static int measure(struct session *s, const struct request *q, struct result *out, json_t *j)
{
    int code = 0;
    if (plan_is_language_model(s->plan) && !has_dims(q->a))
        return language_model(s, q, out, j);
    if (file_is_plan(q->path) && !session_dims(s, q->a, &code))
        return code;
    code = run_once(s, q, "one call", &out->single_us, j, "run");
    if (code == 0 && !spread_is_one(&q->spread)) {
        struct spread_run runs[2] = {spread_run_of(&q->spread, s, (struct arena *)(uintptr_t)&q->a->arena)};
        spread_result(s, q, runs, (double *[2]){&out->single_us, &out->single_us}, j);
    }
    return code;
}

static void print_line(const char *target, const struct request *q, const struct result *r)
{
    if (r->is_llm)
        printf("%-16s prefill %10.2f ms (%.0f tokens/s)   decode %9.3f ms per step (%.1f tokens/s)", target,
               r->prefill_us / 1e3, 1e6 * (double)(q->context * q->batch) / r->prefill_us, r->decode_us / 1e3,
               1e6 * (double)q->batch / r->decode_us);
    else
        printf("%-16s %10.3f ms", target, r->single_us / 1e3);
    if (!spread_is_one(&q->spread))
        printf("   %s", spread_text(&q->spread, (struct arena *)(uintptr_t)&q->a->arena));
    printf("\n");
}

static void add_note(const struct request *q, json_t *j, const char *text)
{
    json_t *notes = q->json ? json_object_get(j, "notes") : NULL;
    if (q->json && !notes) {
        notes = json_array();
        json_object_set_new(j, "notes", notes);
    }
    if (q->json)
        json_array_append_new(notes, json_string(text));
    else
        printf("note        %s\n", text);
}

/* Are there products whose rows choose their matrix when the kernel runs? */
static bool chooses_matrices(const struct npurt_report *r)
{
    for (int64_t i = 0; r && i < r->n_steps; i++)
        if (r->steps[i].kernel && strstr(r->steps[i].kernel, "_grouped"))
            return true;
    return false;
}

/* What the figures take for granted. */
static void note_assumptions(const struct compilation *c, const struct request *q, const struct npurt_report *r,
                             json_t *j)
{
    const struct precision_mode *p = c->options.precision;
    if (p && p->integer != DT_NONE)
        add_note(q, j,
                 c->info.has_mac[p->integer]
                     ? "scales of the integer products are assumed: times hold, values do not exist"
                     : "no kernel multiplies these integers on this target: products are timed in the float type");
    if (chooses_matrices(r))
        add_note(q, j,
                 q->spread.expert > 1
                     ? "the experts that tokens of all groups choose are modelled: E (1 - (1 - k/E)^tokens) of E, rows "
                       "dealt out evenly over experts and groups"
                     : "the experts that tokens choose are modelled: E (1 - (1 - k/E)^tokens) of E, rows dealt out "
                       "evenly");
    if (q->spread.expert > q->batch && !q->sweep)
        add_note(q, j, "fewer sequences than groups of --ep: times are those of one in each group");
}

/* A sweep also times what does not fit and says how much is missing: the target gets more memory, `gm` is what it has.
 */
static bool lift_memory(struct compilation *c, double *gm, int *code)
{
    struct target t;
    enum npuc_status st = target_load(&t, c->options.target, &c->diag);
    if (st == NPUC_OK) {
        for (int64_t i = 0; st == NPUC_OK && i < c->options.sets.len; i++)
            st = target_set(&t, c->options.sets.data[i], &c->diag);
        *gm = target_num(&t, TK_GM_SIZE);
        target_free(&t);
    }
    if (st == NPUC_OK)
        st = compilation_set(c, "set", "gm.size=1048576GiB");
    *code = diag_exit_code(st);
    return st == NPUC_OK;
}

/* The part of one device is compiled; what does not fit is told with the times. */
static bool begin_spread(struct request *q, struct compilation *c, int *code)
{
    if (spread_is_one(&q->spread))
        return true;
    q->spread.division.notes.len = 0;
    q->spread.division.divided = q->spread.division.whole = q->spread.division.collectives = 0;
    q->spread.division.spread = 0;
    c->options.division = &q->spread.division;
    return q->sweep || lift_memory(c, &q->gm, code);
}

static int one_target(struct request *q, const char *target, json_t *all)
{
    struct session s = {0};
    struct result r = {0};
    struct compilation *c = arena_zalloc((struct arena *)(uintptr_t)&q->a->arena, (int64_t)sizeof *c);
    int code = 0;
    json_t *j = json_object();
    bool plan = file_is_plan(q->path), ok;
    compilation_init(c);
    ok = plan ? estimate_plan(q->path, q->a, &s, &code) : model_args(q->a, c, &code);
    if (ok && !plan) {
        if (target)
            c->options.target = target;
        const int64_t context = q->sweep ? sweep_largest(q->sweep, "seq", q->context) : q->context;
        if (c->options.cache_capacity > 0 && c->options.cache_capacity < context + 1)
            c->options.cache_capacity = context + 1;
        if (q->sweep)
            ok = lift_memory(c, &q->sweep->gm, &code);
        ok = ok && begin_spread(q, c, &code) && estimate_model(c, q->path, &s, &code);
    }
    ok = ok && spread_check(&q->spread, &s, &code);
    if (ok && q->sweep) {
        code = sweep_run(q->sweep, &s, npurt_plan_target(s.plan));
        ok = false; /* reported when all targets are done */
    }
    if (ok)
        code = measure(&s, q, &r, j);
    if (ok && code == 0)
        note_assumptions(c, q, npurt_report(s.run), j);
    if (ok && code == 0 && !q->json)
        print_line(npurt_plan_target(s.plan), q, &r);
    if (ok && code == 0 && q->json && !r.is_llm && !json_object_get(all, "total_us")) {
        json_object_set_new(all, "total_us", json_real(r.single_us));
        json_object_set_new(all, "pipes_us", report_pipes(npurt_report(s.run)));
    }
    if (ok && code == 0 && q->json)
        json_object_set_new(all, npurt_plan_target(s.plan), json_incref(j));
    json_decref(j);
    session_close(&s);
    compilation_free(c);
    return code;
}

/* Each of "T2,T3", or all that are listed but the one that was first. */
static int more_targets(struct request *q, const char *more, json_t *all)
{
    struct arena *arena = (struct arena *)(uintptr_t)&q->a->arena;
    const char *first = args_value(q->a, "target");
    const char *const *ids;
    int code = 0;
    if (more && strcmp(more, "all") == 0) {
        const int n = target_list(&ids);
        for (int i = 0; i < n && code == 0; i++)
            if (strcmp(ids[i], first ? first : "ascend-910b1") != 0)
                code = one_target(q, ids[i], all);
        return code;
    }
    while (more && *more && code == 0) {
        const char *comma = strchr(more, ',');
        const int64_t len = comma ? comma - more : (int64_t)strlen(more);
        code = one_target(q, arena_strndup(arena, more, len), all);
        more = comma ? comma + 1 : NULL;
    }
    return code;
}

static int all_targets(struct request *q)
{
    int code = 0;
    if (!spread_is_one(&q->spread) && file_is_plan(q->path)) {
        term_error("%s: a plan is of one device; --devices, --tp and --pp take the model", q->path);
        return diag_exit_code(NPUC_E_USAGE);
    }
    json_t *all = json_object();
    code = one_target(q, NULL, all);
    if (code == 0)
        code = more_targets(q, args_value(q->a, "compare"), all);
    if (q->json && code == 0 && !q->sweep)
        print_json(json_incref(all));
    json_decref(all);
    return code;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int sweep_all(struct request *q)
{
    struct sweep w = {.arena = (struct arena *)(uintptr_t)&q->a->arena, .model = q->path, .spread = &q->spread};
    const double begin = now();
    int code = 0;
    q->sweep = &w;
    if (!sweep_read(&w, q->a, &code))
        return code;
    code = all_targets(q);
    w.seconds = now() - begin;
    if (code != 0 || !sweep_files(&w, q->a, &code))
        return code;
    if (q->json)
        print_json(sweep_json(&w));
    else
        sweep_table(&w);
    return 0;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    struct request q = {.a = &a, .json = args_flag(&a, "json"), .profile = args_flag(&a, "profile")};
    if (args_words(cmd, &a, 1, &code) && spread_read(&q.spread, cmd, &a, &code) &&
        args_number(cmd, &a, "context", (struct arg_range){1, 1 << 24, 2048}, &q.context, &code) &&
        args_number(cmd, &a, "batch", (struct arg_range){1, 1 << 24, 1}, &q.batch, &code)) {
        q.path = a.words.data[0];
        code = args_value(&a, "sweep") ? sweep_all(&q) : all_targets(&q);
    }
    args_free(&a);
    return code;
}

const struct command command_estimate = {
    .name = "estimate",
    .what = "times on a target, without computing and without weights",
    .usage = "MODEL|PLAN [options]",
    .examples = "  npuc estimate examples/bard/model.onnx --target ascend-910b1 --context 128\n"
                "  npuc estimate examples/bard/model.onnx --context 128 --compare ascend-910b3,ascend-310p3\n"
                "  npuc estimate examples/bard/model.onnx --context 128 --set l2.size=32MiB --profile\n"
                "  npuc estimate examples/bard/model.onnx --context 128 --cores 8 --json\n"
                "  npuc estimate examples/bard/model.onnx --context 128 --devices 2\n"
                "  npuc estimate examples/bard/model.onnx --sweep batch=1,4 --sweep seq=32,128 --html sweep.html\n",
    .options = options,
    .run = run,
};
