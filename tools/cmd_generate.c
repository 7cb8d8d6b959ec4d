/* npuc generate: tokens after a prompt with the KV cache of the plan, token ids in and out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/stopwatch.h"
#include "tools/batch.h"
#include "tools/json.h"
#include "tools/report.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"tokens", "IDS",
     "prompt: ids separated by commas, or a .npy file of integers; given several times, or a .txt file with a prompt "
     "per "
     "line: a batch. Its greedy tokens are those of each prompt alone; what all begin with is read once where caches "
     "lie "
     "in pages (compile --kv-page)"},
    {"new", "N", "tokens to generate; default 32"},
    {"stop", "IDS", "stop after any of these tokens"},
    {"eos", "ID", "the same for one token"},
    {"temperature", "T", "draw tokens with logits divided by T; default 0: the likeliest"},
    {"top-k", "K", "draw among the K likeliest; default 0: all"},
    {"top-p", "P", "draw among the fewest likeliest that have a share of P together; default 1"},
    {"min-p", "P", "draw among those at least P times as likely as the likeliest; default 0"},
    {"repeat-penalty", "R", "divide positive logits of tokens seen before by R, multiply negative ones; default 1"},
    {"seed", "S",
     "of the draws (SplitMix64): the same seed gives the same tokens; prompt i of a batch has S + i; default 0"},
    {"chunk", "N",
     "run the prompt N tokens a call; default: in one call. Rows of a call do not see how many there are, so where "
     "each row is computed by itself the logits have the same bits (docs/design.md, 7)"},
    SESSION_OPTIONS,
    {"profile", NULL,
     "times on the target: tables of kernels for the prefill's last call and for the last decode step"},
    {"json", NULL, "tokens and times as JSON on stdout"},
    {NULL, NULL, NULL},
};

struct step_time {      /* one call of the model on the target */
    int64_t past, rows; /* tokens before, tokens of each sequence */
    int64_t made;       /* tokens that it read of prompts, or sequences that it continued */
    bool decode;
    double us, cycles;
};
struct generation {
    struct lm lm;
    VEC(struct lm_sequence) list; /* a prompt each */
    struct lm_ids stop;
    struct npurt_sampling how;
    int64_t n_new, chunk;
    VEC(struct step_time) steps;
    int64_t decode_bytes;
    double prefill_seconds, decode_seconds; /* on this host */
    json_t *prefill, *decode;               /* reports of the last call of each kind */
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

static int64_t n_generated(const struct lm_sequence *q)
{
    return q->tokens.list.len - q->n_prompt;
}

/* ---- running ---- */

static void note_call(struct generation *g, const struct step_time *call)
{
    if (!is_timed(g))
        return;
    const struct npurt_report *r = npurt_report(g->lm.s.run);
    struct step_time t = *call;
    t.us = r->us;
    t.cycles = r->cycles;
    vec_push(g->lm.arena, &g->steps, t);
    g->decode_bytes += t.decode ? r->gm_read : 0;
}

/* Tables and reports are of the session's last call. */
static void show_call(struct generation *g, json_t **json, const char *title)
{
    if (!is_timed(g))
        return;
    const struct npurt_report *r = npurt_report(g->lm.s.run);
    if (g->table)
        report_print(stdout, r, title);
    if (g->json) {
        json_decref(*json);
        *json = report_json(r);
    }
}

static bool is_stop(const struct generation *g, int64_t token)
{
    for (int64_t i = 0; has_values(g) && i < g->stop.list.len; i++)
        if (g->stop.list.data[i] == token)
            return true;
    return false;
}

/* Ids appear as they come where a person waits for them; those of several sequences, and beside tables, at the end. */
static bool streams(const struct generation *g)
{
    return !g->json && !g->table && has_values(g) && g->list.len == 1;
}

static void show_token(const struct generation *g, const struct lm_sequence *q, int64_t token)
{
    if (!streams(g))
        return;
    printf("%s%" PRId64, n_generated(q) > 1 ? "," : "", token);
    if (term_is_tty(1))
        fflush(stdout);
}

/* Chooses the next token of sequence i; `row`: of the last call. */
static int extend(struct generation *g, struct lm_batch *b, int64_t i, int64_t row)
{
    struct lm_sequence *q = &b->list[i];
    struct npurt_sampling how = g->how;
    int64_t token = 0;
    how.draw = (uint64_t)n_generated(q);
    how.seed += (uint64_t)(q - g->list.data);
    const int code = has_values(g) ? lm_batch_pick(b, i, row, &how, &token) : 0;
    if (code != 0)
        return code;
    vec_push(g->lm.arena, &q->tokens.list, token);
    show_token(g, q, token);
    q->finish = is_stop(g, token)            ? "stop"
                : n_generated(q) == g->n_new ? "length"
                : lm_batch_full(b, i)        ? "capacity"
                                             : NULL;
    return 0;
}

/* What all prompts begin with is read once, where their caches can share it. */
static int read_common(struct generation *g, struct lm_batch *b, int64_t *past)
{
    const int64_t common = lm_batch_common(b);
    int64_t rows = 0;
    int code = 0;
    for (; code == 0 && *past < common; *past += rows) {
        code = lm_batch_read_common(b, common, *past, g->chunk, &rows);
        if (code == 0)
            note_call(g, &(struct step_time){.past = *past, .rows = rows, .made = rows});
    }
    return code;
}

static int prefill(struct generation *g, struct lm_batch *b)
{
    const int64_t begin = stopwatch_ns();
    int64_t past = 0, rows = 0, row;
    int code = read_common(g, b, &past);
    for (; code == 0 && past < b->longest; past += rows) {
        code = lm_batch_read(b, past, g->chunk, &rows);
        if (code != 0)
            break;
        note_call(g, &(struct step_time){.past = past, .rows = rows, .made = b->n * rows});
        for (int64_t i = 0; code == 0 && i < b->n; i++)
            if (lm_batch_ends(b, i, past, rows, &row))
                code = extend(g, b, i, row);
        if (past + rows < b->longest && term_is_tty(2))
            fprintf(stderr, "\r  prompt %" PRId64 " of %" PRId64 " tokens ", past + rows, b->longest);
    }
    if (g->chunk < b->longest && term_is_tty(2))
        fprintf(stderr, "\r\033[K");
    g->prefill_seconds += stopwatch_since(begin);
    if (code == 0)
        show_call(
            g, &g->prefill,
            arena_printf(g->lm.arena, "prefill, %lld tokens after %lld", (long long)rows, (long long)(past - rows)));
    return code;
}

static int64_t n_open(const struct lm_batch *b)
{
    int64_t n = 0;
    for (int64_t i = 0; i < b->n; i++)
        n += b->list[i].finish == NULL;
    return n;
}

static int generate(struct generation *g, struct lm_batch *b)
{
    int code = prefill(g, b);
    const int64_t begin = stopwatch_ns();
    bool decoded = false;
    for (int64_t open; code == 0 && (open = n_open(b)) > 0; decoded = true) {
        code = lm_batch_step(b);
        if (code != 0)
            break;
        note_call(g, &(struct step_time){.past = b->held - 1, .rows = 1, .made = open, .decode = true});
        for (int64_t i = 0; code == 0 && i < b->n; i++)
            if (!b->list[i].finish)
                code = extend(g, b, i, -1);
    }
    g->decode_seconds += stopwatch_since(begin);
    if (code == 0 && decoded)
        show_call(g, &g->decode, arena_printf(g->lm.arena, "decode, %lld tokens before", (long long)b->held - 1));
    return code;
}

/* All in one batch where the model takes that, else one prompt after another. */
static int generate_all(struct generation *g)
{
    const bool together = lm_batch_takes(&g->lm, g->list.data, g->list.len);
    const int64_t n = together ? g->list.len : 1;
    int code = 0;
    for (int64_t i = 0; code == 0 && i < g->list.len; i += n) {
        struct lm_batch b;
        lm_batch_init(&b, &g->lm, &g->list.data[i], n);
        code = generate(g, &b);
    }
    return code;
}

/* ---- results ---- */

struct totals { /* of the calls of one kind, on the target */
    double us, cycles, made;
    int64_t n;
};

static struct totals total_of(const struct generation *g, bool decode)
{
    struct totals t = {0};
    for (int64_t i = 0; i < g->steps.len; i++) {
        const struct step_time *call = &g->steps.data[i];
        if (call->decode != decode)
            continue;
        t.us += call->us;
        t.cycles += call->cycles;
        t.made += (double)call->made;
        t.n++;
    }
    return t;
}

static double rate(double n, double seconds)
{
    return seconds > 0 ? n / seconds : 0;
}

static int64_t n_read(const struct generation *g)
{
    int64_t n = 0;
    for (int64_t i = 0; i < g->list.len; i++)
        n += g->list.data[i].n_prompt;
    return n;
}

static void print_times(const struct generation *g)
{
    const struct totals p = total_of(g, false), d = total_of(g, true);
    const char *first = g->list.len > 1 ? "first tokens" : "first token";
    printf("prefill  %lld tokens in %.1f us to the %s (%.0f tokens/s on the target, %.0f cycles)\n",
           (long long)n_read(g), p.us, first, rate(p.made, 1e-6 * p.us), p.cycles);
    if (d.n)
        printf("decode   %.1f us per %s (%.0f tokens/s on the target, %.0f cycles, %.1f MB read per %s)\n",
               d.us / (double)d.n, g->list.len > 1 ? "step" : "token", rate(d.made, 1e-6 * d.us),
               d.cycles / (double)d.n, 1e-6 * (double)g->decode_bytes / (double)d.n,
               g->list.len > 1 ? "step" : "token");
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
    json_put(j, "tokens_per_s", json_real(rate(d.made, 1e-6 * d.us)));
    json_put(j, "prefill_us", json_real(p.us));
    json_put(j, "prefill_cycles", json_real(p.cycles));
    json_put(j, "decode_us_per_token", json_real(d.n ? d.us / (double)d.n : 0));
    json_put(j, "decode_cycles_per_token", json_real(d.n ? d.cycles / (double)d.n : 0));
    json_put(j, "calls", steps);
    json_put(j, "prefill", g->prefill ? g->prefill : json_null());
    json_put(j, "decode", g->decode ? g->decode : json_null());
}

static void put_sequence(const struct generation *g, const struct lm_sequence *q, json_t *j)
{
    json_t *ids = has_values(g) ? json_array() : json_null();
    for (int64_t i = q->n_prompt; has_values(g) && i < q->tokens.list.len; i++)
        json_array_append_new(ids, json_integer(q->tokens.list.data[i]));
    json_put(j, "tokens", ids);
    json_put(j, "prompt_tokens", json_integer(q->n_prompt));
    json_put(j, "finish", json_text(q->finish));
}

static void print_ids(const struct generation *g)
{
    for (int64_t k = 0; has_values(g) && k < g->list.len; k++) {
        const struct lm_sequence *q = &g->list.data[k];
        for (int64_t i = q->n_prompt; !streams(g) && i < q->tokens.list.len; i++)
            printf("%s%" PRId64, i > q->n_prompt ? "," : "", q->tokens.list.data[i]);
        if (g->n_new > 0)
            printf("\n");
    }
}

static void print_json_result(const struct generation *g)
{
    int64_t made = 0, used;
    const int64_t pages = npurt_cache_pages(g->lm.s.run, &used);
    json_t *j = json_object(), *list = g->list.len > 1 ? json_array() : NULL;
    for (int64_t i = 0; i < g->list.len; i++) {
        const struct lm_sequence *q = &g->list.data[i];
        json_t *of = list ? json_object() : j;
        made += n_generated(q) - 1;
        put_sequence(g, q, of);
        if (list)
            json_array_append_new(list, of);
    }
    if (list)
        json_put(j, "sequences", list);
    if (pages > 0 && has_values(g)) {
        json_put(j, "pages", json_integer(pages));
        json_put(j, "pages_used", json_integer(used));
    }
    json_put(j, "host_seconds", json_real(g->prefill_seconds + g->decode_seconds));
    json_put(j, "host_prefill_tokens_per_s", json_real(rate((double)n_read(g), g->prefill_seconds)));
    json_put(j, "host_decode_tokens_per_s", json_real(rate((double)made, g->decode_seconds)));
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

static bool add_prompt(struct generation *g, struct lm_ids ids, int *exit_code)
{
    const struct lm_sequence q = {.tokens = ids, .n_prompt = ids.list.len};
    vec_push(g->lm.arena, &g->list, q);
    if (q.n_prompt > 0)
        return true;
    term_error("npuc generate: --tokens holds no token");
    *exit_code = diag_exit_code(NPUC_E_USAGE);
    return false;
}

/* A text file has a prompt per line. */
static bool read_lines(struct generation *g, const char *path, int *exit_code)
{
    struct diag d;
    struct file_map m;
    diag_init(&d, term_diag, NULL);
    const enum npuc_status st = file_map_open(&m, path, &d);
    bool ok = st == NPUC_OK;
    *exit_code = diag_exit_code(st);
    for (int64_t at = 0, n; ok && at < m.size; at += n + 1) {
        const uint8_t *end = memchr(m.data + at, '\n', (size_t)(m.size - at));
        n = end ? end - (m.data + at) : m.size - at;
        struct lm_ids ids = {0};
        const char *line = arena_strndup(g->lm.arena, (const char *)m.data + at, n);
        ok = lm_read_ids(line, "tokens", g->lm.arena, &ids, exit_code) && add_prompt(g, ids, exit_code);
    }
    if (st == NPUC_OK)
        file_map_close(&m);
    return ok;
}

static bool read_prompts(struct generation *g, const struct args *a, int *exit_code)
{
    bool ok = true;
    for (int64_t i = 0; ok && i < a->given.len; i++) {
        const char *v = a->given.data[i].value;
        const size_t len = v ? strlen(v) : 0;
        struct lm_ids ids = {0};
        if (strcmp(a->given.data[i].option->name, "tokens") != 0)
            continue;
        ok = len > 4 && strcmp(v + len - 4, ".txt") == 0
                 ? read_lines(g, v, exit_code)
                 : lm_read_ids(v, "tokens", g->lm.arena, &ids, exit_code) && add_prompt(g, ids, exit_code);
    }
    return ok;
}

static bool read_arguments(struct generation *g, const struct command *cmd, const struct args *a, int *exit_code)
{
    const char *stop = args_value(a, "stop");
    int64_t eos;
    if (!args_value(a, "tokens")) {
        *exit_code = args_wrong(cmd, "--tokens IDS is missing: the prompt");
        return false;
    }
    g->json = args_flag(a, "json");
    if (!args_number(cmd, a, "new", (struct arg_range){0, INT64_MAX, 32}, &g->n_new, exit_code) ||
        !args_number(cmd, a, "eos", (struct arg_range){0, INT64_MAX, -1}, &eos, exit_code) ||
        !args_number(cmd, a, "chunk", (struct arg_range){1, INT64_MAX, INT64_MAX}, &g->chunk, exit_code) ||
        !read_sampling(cmd, a, &g->how, exit_code) || !read_prompts(g, a, exit_code) ||
        (stop && !lm_read_ids(stop, "stop", g->lm.arena, &g->stop, exit_code)))
        return false;
    if (eos >= 0)
        vec_push(g->lm.arena, &g->stop.list, eos);
    if (g->list.len > 0)
        return true;
    term_error("npuc generate: --tokens holds no prompt");
    *exit_code = diag_exit_code(NPUC_E_USAGE);
    return false;
}

/* Refused before anything runs. */
static int check_prompt(const struct generation *g, const struct lm_sequence *q)
{
    const int64_t room = npurt_cache_capacity(g->lm.s.run);
    const int code = lm_check_tokens(&g->lm, q->tokens.list.data, q->n_prompt);
    if (code != 0 || room <= 0 || q->n_prompt <= room)
        return code;
    term_error("%s: the prompt has %" PRId64 " tokens, the caches have room for %" PRId64
               "; compile with a larger --kv-capacity",
               g->lm.s.path, q->n_prompt, room);
    return diag_exit_code(NPUC_E_LIMIT);
}

static int print_result(const struct generation *g)
{
    if (g->json) {
        print_json_result(g);
    } else {
        print_ids(g);
        if (is_timed(g))
            print_times(g);
    }
    for (int64_t i = 0; i < g->list.len; i++) {
        const struct lm_sequence *q = &g->list.data[i];
        if (!q->finish || strcmp(q->finish, "capacity") != 0)
            continue;
        term_error("%s: stopped after %" PRId64 " of %" PRId64 " tokens: the caches have room for %" PRId64
                   "; compile with a larger --kv-capacity",
                   g->lm.s.path, n_generated(q), g->n_new, npurt_cache_capacity(g->lm.s.run));
        return diag_exit_code(NPUC_E_LIMIT);
    }
    return 0;
}

static int run_generation(const struct command *cmd, struct generation *g, const struct args *a)
{
    int code = 0;
    if (!read_arguments(g, cmd, a, &code) ||
        !lm_open_timed(&g->lm, a, args_flag(a, "profile") ? NPURT_BOTH : NPURT_DATA, &code))
        return code;
    g->table = args_flag(a, "profile") && !g->json;
    for (int64_t i = 0; code == 0 && i < g->list.len; i++)
        code = check_prompt(g, &g->list.data[i]);
    if (code == 0 && g->n_new > 0)
        code = generate_all(g);
    return code == 0 ? print_result(g) : code;
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
    .usage = "PLAN --tokens IDS [--tokens IDS ...] [--new N] [options]",
    .examples = "  npuc generate bard.plan --tokens 0,685,45,37,47,14,199 --new 16\n"
                "  npuc generate bard.plan --tokens 0,685,45,37,47,14,199 --new 16 --mode both --profile\n"
                "  npuc generate bard.plan --tokens 0,685,45,37 --tokens 0,199 --new 16\n"
                "  npuc generate bard.plan --tokens 0,685,45,37 --new 16 --temperature 0.8 --top-p 0.9 --seed 7\n",
    .options = options,
    .run = run,
};
