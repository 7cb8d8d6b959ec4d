/* npuc generate: greedy generation with the KV cache of the plan, token ids in and out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/half.h"
#include "kernels/tensor.h"
#include "tools/json.h"
#include "tools/npy.h"
#include "tools/report.h"
#include "tools/roles.h"
#include "tools/session.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"tokens", "IDS", "prompt: ids separated by commas, or a .npy file of integers"},
    {"new", "N", "tokens to generate; default 32"},
    {"eos", "ID", "stop after this token"},
    SESSION_OPTIONS,
    {"profile", NULL, "times on the target: tables of kernels for prefill and for the last decode step"},
    {"json", NULL, "tokens and times as JSON on stdout"},
    {NULL, NULL, NULL},
};

struct generation {
    struct session s;
    struct arena *arena;
    VEC(int64_t) tokens; /* prompt and what was generated */
    int64_t n_prompt, n_new, eos;
    const char *logits; /* output */
    double prefill_us, decode_us, prefill_cycles, decode_cycles, host_seconds;
    int64_t n_decodes, decode_bytes;
    json_t *prefill, *decode; /* reports of the prefill and of the last decode step */
};

static int fail(const struct generation *g, const char *fmt, const char *what)
{
    term_error("%s: %s%s", g->s.path, fmt, what);
    return 4;
}

/* An integer input of n values, first, first + step, ... */
static enum npuc_status give(struct generation *g, const struct npurt_value *v, int64_t n, int64_t first, int64_t step,
                             const int64_t *from)
{
    const int64_t dims[2] = {1, n};
    const int64_t flat[1] = {n};
    void *data = arena_zalloc(g->arena, n * 8 + 8);
    for (int64_t i = 0; i < n; i++) {
        int64_t x = from ? from[i] : first + i * step;
        if (v->dtype == NPURT_I64)
            ((int64_t *)data)[i] = x;
        else if (v->dtype == NPURT_I32)
            ((int32_t *)data)[i] = (int32_t)x;
        else if (v->dtype == NPURT_BOOL)
            ((uint8_t *)data)[i] = x != 0;
        else
            ((float *)data)[i] = (float)x;
    }
    return npurt_set_input(g->s.run, v->name, v->dtype, v->rank == 1 ? 1 : 2, v->rank == 1 ? flat : dims, data);
}

/* One call: rows tokens from `past` on. */
static int step(struct generation *g, int64_t past, int64_t rows)
{
    struct arena_mark mark = arena_mark(g->arena);
    for (int i = 0; i < npurt_plan_inputs(g->s.plan); i++) {
        const struct npurt_value *v = npurt_plan_input(g->s.plan, i);
        enum npuc_status st = NPUC_OK;
        enum role role = role_of(v);
        if (role == ROLE_UNKNOWN && !v->optional)
            return fail(g, "cannot tell what this input of the plan is for: ", v->name);
        if (role != ROLE_CACHE && v->rank > 2)
            return fail(g, "generation feeds inputs of rank 1 and 2; this one has another: ", v->name);
        if (role == ROLE_TOKENS)
            st = give(g, v, rows, 0, 0, g->tokens.data + past);
        else if (role == ROLE_MASK)
            st = give(g, v, past + rows, 1, 0, NULL);
        else if (role == ROLE_POSITIONS)
            st = give(g, v, rows, past, 1, NULL);
        else if (role == ROLE_FIRST_ROW)
            st = give(g, v, 1, past, 0, NULL);
        else if (role == ROLE_VALID_ROWS)
            st = give(g, v, 1, past + rows, 0, NULL);
        if (st != NPUC_OK)
            return session_fail(&g->s, st);
    }
    enum npuc_status st = npurt_run(g->s.run);
    if (st != NPUC_OK)
        return session_fail(&g->s, st);
    arena_release(g->arena, mark);
    return 0;
}

static float logit(const struct npurt_tensor *t, int64_t i)
{
    if (t->dtype == NPURT_F16)
        return half_f16_to_f32(((const uint16_t *)t->data)[i]);
    if (t->dtype == NPURT_BF16)
        return half_bf16_to_f32(((const uint16_t *)t->data)[i]);
    return ((const float *)t->data)[i];
}

/* The first largest logit of the last position. */
static int pick(struct generation *g, int64_t *token)
{
    struct npurt_tensor t;
    enum npuc_status st = npurt_output(g->s.run, g->logits, &t);
    if (st != NPUC_OK)
        return session_fail(&g->s, st);
    if (t.rank < 1 || (t.dtype != NPURT_F32 && t.dtype != NPURT_F16 && t.dtype != NPURT_BF16) || t.dims[t.rank - 1] < 1)
        return fail(g, "this output holds no float logits: ", g->logits);
    int64_t vocab = t.dims[t.rank - 1], count = 1, best = 0;
    for (int i = 0; i < t.rank; i++)
        count *= t.dims[i];
    for (int64_t i = 1; i < vocab; i++)
        if (logit(&t, count - vocab + i) > logit(&t, count - vocab + best))
            best = i;
    *token = best;
    return 0;
}

static void note_times(struct generation *g, bool prefill)
{
    if (g->s.mode == NPURT_DATA)
        return;
    const struct npurt_report *r = npurt_report(g->s.run);
    *(prefill ? &g->prefill_us : &g->decode_us) += r->us;
    *(prefill ? &g->prefill_cycles : &g->decode_cycles) += r->cycles;
    if (!prefill) {
        g->n_decodes++;
        g->decode_bytes += r->gm_read;
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int generate(struct generation *g, const struct args *a)
{
    bool table = args_flag(a, "profile") && !args_flag(a, "json") && g->s.mode != NPURT_DATA,
         json = args_flag(a, "json");
    double begin = now();
    int64_t past = 0, rows = g->n_prompt;
    for (int64_t i = 0; i < g->n_new; i++) {
        int64_t token = 0;
        int code = step(g, past, rows);
        if (code == 0)
            code = pick(g, &token);
        if (code != 0)
            return code;
        note_times(g, i == 0);
        bool last = i + 1 == g->n_new || token == g->eos;
        if (g->s.mode != NPURT_DATA && i == 0 && table)
            report_print(stdout, npurt_report(g->s.run),
                         arena_printf(g->arena, "prefill, %lld tokens", (long long)rows));
        else if (g->s.mode != NPURT_DATA && last && table)
            report_print(stdout, npurt_report(g->s.run),
                         arena_printf(g->arena, "decode, %lld tokens before", (long long)past));
        if (g->s.mode != NPURT_DATA && json && (i == 0 || last))
            *(i == 0 ? &g->prefill : &g->decode) = report_json(npurt_report(g->s.run));
        past += rows;
        rows = 1;
        vec_push(g->arena, &g->tokens, token);
        if (token == g->eos)
            break;
    }
    g->host_seconds = now() - begin;
    return 0;
}

/* ---- arguments and results ---- */

static bool read_ids(struct generation *g, const char *text, struct diag *d, int *exit_code)
{
    size_t len = strlen(text);
    if (len > 4 && strcmp(text + len - 4, ".npy") == 0) {
        struct k_tensor t;
        enum npuc_status st = npy_read(text, g->arena, d, &t);
        *exit_code = diag_exit_code(st);
        for (int64_t i = 0; st == NPUC_OK && i < k_count(&t); i++)
            vec_push(g->arena, &g->tokens, k_get_i64(&t, i));
        return st == NPUC_OK;
    }
    for (const char *s = text; *s;) {
        char *end;
        long long v = strtoll(s, &end, 10);
        if (end == s || (*end && *end != ',') || v < 0) {
            term_error("npuc generate: --tokens takes ids separated by commas or a .npy file, not %s", text);
            *exit_code = 2;
            return false;
        }
        vec_push(g->arena, &g->tokens, (int64_t)v);
        s = *end ? end + 1 : end;
    }
    return true;
}

static bool find_logits(struct generation *g)
{
    bool cached = false;
    for (int i = 0; i < npurt_plan_inputs(g->s.plan); i++)
        cached = cached || npurt_plan_input(g->s.plan, i)->cache;
    for (int i = npurt_plan_outputs(g->s.plan) - 1; i >= 0; i--) {
        const struct npurt_value *v = npurt_plan_output(g->s.plan, i);
        if (!v->cache && (!g->logits || strstr(v->name, "logits")))
            g->logits = v->name;
    }
    return cached && g->logits;
}

static void print_ids(const struct generation *g)
{
    for (int64_t i = g->n_prompt; i < g->tokens.len; i++)
        printf("%s%lld", i > g->n_prompt ? "," : "", (long long)g->tokens.data[i]);
    printf("\n");
}

static void print_times(const struct generation *g)
{
    double token_us = g->n_decodes ? g->decode_us / (double)g->n_decodes : 0;
    printf("prefill  %lld tokens in %.1f us (%.0f tokens/s on the target, %.0f cycles)\n", (long long)g->n_prompt,
           g->prefill_us, g->prefill_us > 0 ? 1e6 * (double)g->n_prompt / g->prefill_us : 0, g->prefill_cycles);
    if (g->n_decodes)
        printf("decode   %.1f us per token (%.0f tokens/s on the target, %.0f cycles, %.1f MB read per token)\n",
               token_us, 1e6 / token_us, g->decode_cycles / (double)g->n_decodes,
               1e-6 * (double)g->decode_bytes / (double)g->n_decodes);
}

static void print_result(struct generation *g, const struct args *a)
{
    if (!args_flag(a, "json")) {
        print_ids(g);
        if (g->s.mode != NPURT_DATA)
            print_times(g);
        return;
    }
    json_t *ids = json_array(), *j = json_object();
    for (int64_t i = g->n_prompt; i < g->tokens.len; i++)
        json_array_append_new(ids, json_integer(g->tokens.data[i]));
    json_object_set_new(j, "tokens", ids);
    json_object_set_new(j, "prompt_tokens", json_integer(g->n_prompt));
    json_object_set_new(j, "host_seconds", json_real(g->host_seconds));
    if (g->s.mode != NPURT_DATA) {
        json_object_set_new(j, "prefill_us", json_real(g->prefill_us));
        json_object_set_new(j, "decode_us_per_token",
                            json_real(g->n_decodes ? g->decode_us / (double)g->n_decodes : 0));
        json_object_set_new(j, "prefill", g->prefill ? g->prefill : json_null());
        json_object_set_new(j, "decode", g->decode ? g->decode : json_null());
    }
    print_json(j);
}

static bool read_number(const struct args *a, const char *name, int64_t otherwise, int64_t *out, int *exit_code)
{
    const char *v = args_value(a, name);
    char *end = NULL;
    *out = v ? strtoll(v, &end, 10) : otherwise;
    if (!v || (end != v && *end == '\0' && *out >= 0))
        return true;
    term_error("npuc generate: --%s takes a number, not %s", name, v);
    *exit_code = 2;
    return false;
}

static int run_generation(struct generation *g, const struct args *a)
{
    struct diag d;
    int code = 0;
    diag_init(&d, term_diag, NULL);
    const char *ids = args_value(a, "tokens");
    if (!ids) {
        term_error("npuc generate: --tokens IDS is missing: the prompt (npuc generate --help)");
        return 2;
    }
    if (!read_number(a, "new", 32, &g->n_new, &code) || !read_number(a, "eos", -1, &g->eos, &code) ||
        !read_ids(g, ids, &d, &code))
        return code;
    g->n_prompt = g->tokens.len;
    if (g->n_prompt == 0) {
        term_error("npuc generate: --tokens holds no token");
        return 2;
    }
    if (!session_open(&g->s, a, a->words.data[0], args_flag(a, "profile") ? NPURT_BOTH : NPURT_DATA, &code))
        return code;
    if (!find_logits(g))
        return fail(g,
                    "no language model with a KV cache: generation needs caches and a logits output; see npuc inspect ",
                    g->s.path);
    if (g->s.mode == NPURT_CLOCK)
        return fail(g, "generation needs data: --mode data or both; npuc estimate gives times alone", "");
    code = generate(g, a);
    if (code == 0)
        print_result(g, a);
    return code;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    struct generation g = {0};
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    g.arena = &a.arena;
    if (args_words(cmd, &a, 1, &code))
        code = run_generation(&g, &a);
    session_close(&g.s);
    args_free(&a);
    return code;
}

const struct command command_generate = {
    .name = "generate",
    .what = "greedy text generation with a language model's plan, token ids in and out",
    .usage = "PLAN --tokens IDS [--new N] [options]",
    .examples = "  npuc generate bard.plan --tokens 0,685,45,37,47,14,199 --new 16\n"
                "  npuc generate bard.plan --tokens 0,685,45,37,47,14,199 --new 16 --mode both --profile\n",
    .options = options,
    .run = run,
};
