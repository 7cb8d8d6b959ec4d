/* npuc generate: greedy generation with the KV cache of the plan, token ids in and out. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tools/json.h"
#include "tools/lm.h"
#include "tools/report.h"
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
    struct lm lm;
    struct lm_ids tokens; /* prompt and what was generated */
    int64_t n_prompt, n_new, eos;
    double prefill_us, decode_us, prefill_cycles, decode_cycles, host_seconds;
    int64_t n_decodes, decode_bytes;
    json_t *prefill, *decode; /* reports of the prefill and of the last decode step */
};

/* The first largest logit of the last position. */
static int pick(struct generation *g, int64_t *token)
{
    struct lm_logits l;
    const int code = lm_take_logits(&g->lm, &l);
    int64_t best = 0;
    for (int64_t i = 1; code == 0 && i < l.vocab; i++)
        if (lm_logit(&l, l.rows - 1, i) > lm_logit(&l, l.rows - 1, best))
            best = i;
    *token = best;
    return code;
}

static void note_times(struct generation *g, bool prefill)
{
    if (g->lm.s.mode == NPURT_DATA)
        return;
    const struct npurt_report *r = npurt_report(g->lm.s.run);
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
    bool table = args_flag(a, "profile") && !args_flag(a, "json") && g->lm.s.mode != NPURT_DATA,
         json = args_flag(a, "json");
    double begin = now();
    int64_t past = 0, rows = g->n_prompt;
    for (int64_t i = 0; i < g->n_new; i++) {
        int64_t token = 0;
        int code = lm_step(&g->lm, g->tokens.list.data + past, past, rows);
        if (code == 0)
            code = pick(g, &token);
        if (code != 0)
            return code;
        note_times(g, i == 0);
        bool last = i + 1 == g->n_new || token == g->eos;
        if (g->lm.s.mode != NPURT_DATA && i == 0 && table)
            report_print(stdout, npurt_report(g->lm.s.run),
                         arena_printf(g->lm.arena, "prefill, %lld tokens", (long long)rows));
        else if (g->lm.s.mode != NPURT_DATA && last && table)
            report_print(stdout, npurt_report(g->lm.s.run),
                         arena_printf(g->lm.arena, "decode, %lld tokens before", (long long)past));
        if (g->lm.s.mode != NPURT_DATA && json && (i == 0 || last))
            *(i == 0 ? &g->prefill : &g->decode) = report_json(npurt_report(g->lm.s.run));
        past += rows;
        rows = 1;
        vec_push(g->lm.arena, &g->tokens.list, token);
        if (token == g->eos)
            break;
    }
    g->host_seconds = now() - begin;
    return 0;
}

/* ---- arguments and results ---- */

static void print_ids(const struct generation *g)
{
    for (int64_t i = g->n_prompt; i < g->tokens.list.len; i++)
        printf("%s%lld", i > g->n_prompt ? "," : "", (long long)g->tokens.list.data[i]);
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
        if (g->lm.s.mode != NPURT_DATA)
            print_times(g);
        return;
    }
    json_t *ids = json_array(), *j = json_object();
    for (int64_t i = g->n_prompt; i < g->tokens.list.len; i++)
        json_array_append_new(ids, json_integer(g->tokens.list.data[i]));
    json_object_set_new(j, "tokens", ids);
    json_object_set_new(j, "prompt_tokens", json_integer(g->n_prompt));
    json_object_set_new(j, "host_seconds", json_real(g->host_seconds));
    if (g->lm.s.mode != NPURT_DATA) {
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
    int code = 0;
    const char *ids = args_value(a, "tokens");
    if (!ids) {
        term_error("npuc generate: --tokens IDS is missing: the prompt (npuc generate --help)");
        return 2;
    }
    if (!read_number(a, "new", 32, &g->n_new, &code) || !read_number(a, "eos", -1, &g->eos, &code) ||
        !lm_read_ids(ids, "tokens", g->lm.arena, &g->tokens, &code))
        return code;
    g->n_prompt = g->tokens.list.len;
    if (g->n_prompt == 0) {
        term_error("npuc generate: --tokens holds no token");
        return 2;
    }
    if (!lm_open(&g->lm, a, args_flag(a, "profile") ? NPURT_BOTH : NPURT_DATA, &code))
        return code;
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
    g.lm.arena = &a.arena;
    if (args_words(cmd, &a, 1, &code))
        code = run_generation(&g, &a);
    session_close(&g.lm.s);
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
