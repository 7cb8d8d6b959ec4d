/* npuc generate: tokens after a prompt with the KV cache of the plan, token ids in and out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stopwatch.h"
#include "tools/json.h"
#include "tools/lm.h"
#include "tools/report.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"tokens", "IDS", "prompt: ids separated by commas, or a .npy file of integers"},
    {"new", "N", "tokens to generate; default 32"},
    {"stop", "IDS", "stop after any of these tokens"},
    {"eos", "ID", "the same for one token"},
    {"temperature", "T", "draw tokens with logits divided by T; default 0: the likeliest"},
    {"top-k", "K", "draw among the K likeliest; default 0: all"},
    {"top-p", "P", "draw among the fewest likeliest that have a share of P together; default 1"},
    {"min-p", "P", "draw among those at least P times as likely as the likeliest; default 0"},
    {"repeat-penalty", "R", "divide positive logits of tokens seen before by R, multiply negative ones; default 1"},
    {"seed", "S", "of the draws (SplitMix64): the same seed gives the same tokens; default 0"},
    {"chunk", "N",
     "run the prompt N tokens a call; default: in one call. Rows of a call do not see how many there are, so where "
     "each row is computed by itself the logits have the same bits (docs/design.md, 7)"},
    SESSION_OPTIONS,
    {"profile", NULL,
     "times on the target: tables of kernels for the prefill's last call and for the last decode step"},
    {"json", NULL, "tokens and times as JSON on stdout"},
    {NULL, NULL, NULL},
};

struct step_time { /* one call of the model on the target */
    int64_t past, rows;
    double us, cycles;
};
struct generation {
    struct lm lm;
    struct lm_ids tokens; /* prompt and what was generated */
    struct lm_ids stop;
    struct npurt_sampling how;
    int64_t n_prompt, n_new, chunk;
    VEC(struct step_time) steps; /* those of the prompt first */
    int64_t n_prefills, decode_bytes;
    double prefill_seconds, decode_seconds; /* on this host */
    json_t *prefill, *decode;               /* reports of the last call of each kind */
    const char *finish;                     /* "stop", "length", "capacity" */
    bool json, table;
};

static bool is_timed(const struct generation *g)
{
    return g->lm.s.mode != NPURT_DATA;
}

static bool has_values(const struct generation *g)
{
    return g->lm.s.mode != NPURT_CLOCK;
}

static int64_t n_generated(const struct generation *g)
{
    return g->tokens.list.len - g->n_prompt;
}

/* ---- running ---- */

static int run_rows(struct generation *g, int64_t past, int64_t rows)
{
    const int code = lm_step(&g->lm, g->tokens.list.data + past, past, rows);
    if (code != 0 || !is_timed(g))
        return code;
    const struct npurt_report *r = npurt_report(g->lm.s.run);
    const struct step_time t = {past, rows, r->us, r->cycles};
    vec_push(g->lm.arena, &g->steps, t);
    return 0;
}

/* Tables and reports are of the session's last call. */
static void show_call(struct generation *g, json_t **json, const char *title)
{
    if (!is_timed(g))
        return;
    const struct npurt_report *r = npurt_report(g->lm.s.run);
    if (g->table)
        report_print(stdout, r, title);
    if (g->json)
        *json = report_json(r);
}

static int prefill(struct generation *g)
{
    const int64_t begin = stopwatch_ns();
    int64_t past = 0, rows = 0;
    int code = 0;
    for (; code == 0 && past < g->n_prompt; past += rows) {
        rows = g->n_prompt - past < g->chunk ? g->n_prompt - past : g->chunk;
        code = run_rows(g, past, rows);
        if (code == 0 && past + rows < g->n_prompt && term_is_tty(2))
            fprintf(stderr, "\r  prompt %" PRId64 " of %" PRId64 " tokens ", past + rows, g->n_prompt);
    }
    if (g->chunk < g->n_prompt && term_is_tty(2))
        fprintf(stderr, "\r\033[K");
    g->n_prefills = g->steps.len;
    g->prefill_seconds = stopwatch_since(begin);
    if (code == 0)
        show_call(
            g, &g->prefill,
            arena_printf(g->lm.arena, "prefill, %lld tokens after %lld", (long long)rows, (long long)(past - rows)));
    return code;
}

static int pick(struct generation *g, int64_t *token)
{
    *token = 0;
    if (!has_values(g))
        return 0;
    g->how.draw = (uint64_t)n_generated(g);
    const enum npuc_status st = npurt_sample(g->lm.s.run, -1, &g->how, g->tokens.list.data, g->tokens.list.len, token);
    return st == NPUC_OK ? 0 : session_fail(&g->lm.s, st);
}

/* Ids appear as they come where a person waits for them. */
static void show_token(const struct generation *g, int64_t token)
{
    if (g->json || !has_values(g))
        return;
    printf("%s%" PRId64, n_generated(g) > 1 ? "," : "", token);
    if (term_is_tty(1))
        fflush(stdout);
}

static bool is_stop(const struct generation *g, int64_t token)
{
    for (int64_t i = 0; has_values(g) && i < g->stop.list.len; i++)
        if (g->stop.list.data[i] == token)
            return true;
    return false;
}

/* Why the last token was the last; NULL: it was not. */
static const char *find_end(const struct generation *g, int64_t token)
{
    const int64_t room = npurt_cache_capacity(g->lm.s.run);
    if (is_stop(g, token))
        return "stop";
    if (n_generated(g) == g->n_new)
        return "length";
    return room > 0 && g->tokens.list.len > room ? "capacity" : NULL;
}

static int generate(struct generation *g)
{
    int code = prefill(g);
    const int64_t begin = stopwatch_ns();
    while (code == 0 && !g->finish) {
        int64_t token;
        code = pick(g, &token);
        if (code != 0)
            break;
        vec_push(g->lm.arena, &g->tokens.list, token);
        show_token(g, token);
        g->finish = find_end(g, token);
        if (g->finish)
            break;
        code = run_rows(g, g->tokens.list.len - 1, 1);
        if (code == 0 && is_timed(g))
            g->decode_bytes += npurt_report(g->lm.s.run)->gm_read;
    }
    g->decode_seconds = stopwatch_since(begin);
    if (!g->json && has_values(g) && n_generated(g) > 0)
        printf("\n");
    if (code == 0 && n_generated(g) > 1)
        show_call(g, &g->decode,
                  arena_printf(g->lm.arena, "decode, %lld tokens before", (long long)g->tokens.list.len - 2));
    return code;
}

/* ---- results ---- */

struct totals { /* of the calls of one kind, on the target */
    double us, cycles, rows;
    int64_t n;
};

static struct totals total_of(const struct generation *g, bool decode)
{
    struct totals t = {0};
    for (int64_t i = decode ? g->n_prefills : 0; i < (decode ? g->steps.len : g->n_prefills); i++) {
        t.us += g->steps.data[i].us;
        t.cycles += g->steps.data[i].cycles;
        t.rows += (double)g->steps.data[i].rows;
        t.n++;
    }
    return t;
}

static double rate(double n, double seconds)
{
    return seconds > 0 ? n / seconds : 0;
}

static void print_times(const struct generation *g)
{
    const struct totals p = total_of(g, false), d = total_of(g, true);
    printf("prefill  %lld tokens in %.1f us to the first token (%.0f tokens/s on the target, %.0f cycles)\n",
           (long long)g->n_prompt, p.us, rate(p.rows, 1e-6 * p.us), p.cycles);
    if (d.n)
        printf("decode   %.1f us per token (%.0f tokens/s on the target, %.0f cycles, %.1f MB read per token)\n",
               d.us / (double)d.n, rate((double)d.n, 1e-6 * d.us), d.cycles / (double)d.n,
               1e-6 * (double)g->decode_bytes / (double)d.n);
}

static void put_times(const struct generation *g, json_t *j)
{
    const struct totals p = total_of(g, false), d = total_of(g, true);
    json_t *steps = json_array();
    for (int64_t i = 0; i < g->steps.len; i++) {
        const struct step_time *t = &g->steps.data[i];
        json_t *step = json_object();
        json_put(step, "past", json_integer(t->past));
        json_put(step, "tokens", json_integer(t->rows));
        json_put(step, "us", json_real(t->us));
        json_put(step, "cycles", json_real(t->cycles));
        json_array_append_new(steps, step);
    }
    json_put(j, "time_to_first_token_us", json_real(p.us));
    json_put(j, "tokens_per_s", json_real(rate((double)d.n, 1e-6 * d.us)));
    json_put(j, "prefill_us", json_real(p.us));
    json_put(j, "prefill_cycles", json_real(p.cycles));
    json_put(j, "decode_us_per_token", json_real(d.n ? d.us / (double)d.n : 0));
    json_put(j, "decode_cycles_per_token", json_real(d.n ? d.cycles / (double)d.n : 0));
    json_put(j, "calls", steps);
    json_put(j, "prefill", g->prefill ? g->prefill : json_null());
    json_put(j, "decode", g->decode ? g->decode : json_null());
}

static void print_result(const struct generation *g)
{
    const double decodes = (double)(n_generated(g) - 1);
    if (!g->json) {
        if (is_timed(g))
            print_times(g);
        return;
    }
    json_t *ids = has_values(g) ? json_array() : json_null(), *j = json_object();
    for (int64_t i = g->n_prompt; has_values(g) && i < g->tokens.list.len; i++)
        json_array_append_new(ids, json_integer(g->tokens.list.data[i]));
    json_put(j, "tokens", ids);
    json_put(j, "prompt_tokens", json_integer(g->n_prompt));
    json_put(j, "finish", json_text(g->finish));
    json_put(j, "host_seconds", json_real(g->prefill_seconds + g->decode_seconds));
    json_put(j, "host_prefill_tokens_per_s", json_real(rate((double)g->n_prompt, g->prefill_seconds)));
    json_put(j, "host_decode_tokens_per_s", json_real(rate(decodes, g->decode_seconds)));
    if (is_timed(g))
        put_times(g, j);
    print_json(j);
}

/* ---- arguments ---- */

static bool read_real(const struct command *cmd, const struct args *a, const char *name, double most, double *out,
                      int *exit_code)
{
    const char *v = args_value(a, name);
    char *end = NULL;
    const double x = v ? strtod(v, &end) : 0;
    if (v && (end == v || *end || !(x >= 0 && x <= most))) {
        term_error("npuc %s: --%s takes %s, not %s", cmd->name, name,
                   most > 1 ? "a number from 0 on" : "a number of 0 to 1", v);
        *exit_code = diag_exit_code(NPUC_E_USAGE);
        return false;
    }
    if (v)
        *out = x;
    return true;
}

static bool read_sampling(const struct command *cmd, const struct args *a, struct npurt_sampling *h, int *exit_code)
{
    int64_t seed = 0;
    const bool ok = read_real(cmd, a, "temperature", 1e6, &h->temperature, exit_code) &&
                    args_number(cmd, a, "top-k", (struct arg_range){0, INT64_MAX, h->top_k}, &h->top_k, exit_code) &&
                    read_real(cmd, a, "top-p", 1, &h->top_p, exit_code) &&
                    read_real(cmd, a, "min-p", 1, &h->min_p, exit_code) &&
                    read_real(cmd, a, "repeat-penalty", 1e6, &h->repeat_penalty, exit_code) &&
                    args_number(cmd, a, "seed", (struct arg_range){0, INT64_MAX, 0}, &seed, exit_code);
    h->seed = (uint64_t)seed;
    return ok;
}

static bool read_arguments(struct generation *g, const struct command *cmd, const struct args *a, int *exit_code)
{
    const char *ids = args_value(a, "tokens"), *stop = args_value(a, "stop");
    int64_t eos;
    if (!ids) {
        *exit_code = args_wrong(cmd, "--tokens IDS is missing: the prompt");
        return false;
    }
    g->json = args_flag(a, "json");
    if (!args_number(cmd, a, "new", (struct arg_range){0, INT64_MAX, 32}, &g->n_new, exit_code) ||
        !args_number(cmd, a, "eos", (struct arg_range){0, INT64_MAX, -1}, &eos, exit_code) ||
        !args_number(cmd, a, "chunk", (struct arg_range){1, INT64_MAX, INT64_MAX}, &g->chunk, exit_code) ||
        !read_sampling(cmd, a, &g->how, exit_code) || !lm_read_ids(ids, "tokens", g->lm.arena, &g->tokens, exit_code) ||
        (stop && !lm_read_ids(stop, "stop", g->lm.arena, &g->stop, exit_code)))
        return false;
    if (eos >= 0)
        vec_push(g->lm.arena, &g->stop.list, eos);
    g->n_prompt = g->tokens.list.len;
    if (g->n_prompt > 0)
        return true;
    term_error("npuc generate: --tokens holds no token");
    *exit_code = diag_exit_code(NPUC_E_USAGE);
    return false;
}

/* Refused before anything runs. */
static int check_prompt(const struct generation *g)
{
    const int64_t room = npurt_cache_capacity(g->lm.s.run);
    const int code = lm_check_tokens(&g->lm, g->tokens.list.data, g->n_prompt);
    if (code != 0 || room <= 0 || g->n_prompt <= room)
        return code;
    term_error("%s: the prompt has %" PRId64 " tokens, the caches have room for %" PRId64
               "; compile with a larger --kv-capacity",
               g->lm.s.path, g->n_prompt, room);
    return diag_exit_code(NPUC_E_LIMIT);
}

static int run_generation(const struct command *cmd, struct generation *g, const struct args *a)
{
    int code = 0;
    if (!read_arguments(g, cmd, a, &code) ||
        !lm_open_timed(&g->lm, a, args_flag(a, "profile") ? NPURT_BOTH : NPURT_DATA, &code))
        return code;
    g->table = args_flag(a, "profile") && !g->json;
    code = check_prompt(g);
    if (code == 0 && g->n_new > 0)
        code = generate(g);
    if (code != 0)
        return code;
    print_result(g);
    if (!g->finish || strcmp(g->finish, "capacity") != 0)
        return 0;
    term_error("%s: stopped after %" PRId64 " of %" PRId64 " tokens: the caches have room for %" PRId64
               "; compile with a larger --kv-capacity",
               g->lm.s.path, n_generated(g), g->n_new, npurt_cache_capacity(g->lm.s.run));
    return diag_exit_code(NPUC_E_LIMIT);
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
        code = run_generation(cmd, &g, &a);
    session_close(&g.lm.s);
    args_free(&a);
    return code;
}

const struct command command_generate = {
    .name = "generate",
    .what = "text generation with a language model's plan, token ids in and out",
    .usage = "PLAN --tokens IDS [--new N] [options]",
    .examples = "  npuc generate bard.plan --tokens 0,685,45,37,47,14,199 --new 16\n"
                "  npuc generate bard.plan --tokens 0,685,45,37,47,14,199 --new 16 --mode both --profile\n"
                "  npuc generate bard.plan --tokens 0,685,45,37 --new 16 --temperature 0.8 --top-p 0.9 --seed 7\n",
    .options = options,
    .run = run,
};
