/* npuc perplexity: how well a language model's plan predicts a text.
 *
 * The tokens t are cut into n = floor(len(t) / W) windows that do not overlap; what fills no window is dropped. With
 * --bos B a window's targets are its W tokens y[0..W-1] and its inputs B, y[0], .., y[W-2]; without, its targets are
 * y[1..W-1] and its inputs y[0..W-2]. Each window begins with empty caches at position 0.
 *   perplexity = exp(-sum of log softmax(logits)[target] / number of targets)
 * The log-softmax and the sums are in double. The standard error of the mean over targets is that of the windows'
 * means, since tokens of a window depend on each other; that of the perplexity follows by the delta method. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tools/json.h"
#include "tools/lm.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"tokens", "F", "the text: ids separated by commas, or a .npy file of integers"},
    {"window", "W", "tokens per window; default 256"},
    {"bos", "ID", "a token that every window begins with; without it the first of a window is not predicted"},
    {"windows", "N", "the first N windows only; default all"},
    SESSION_OPTIONS,
    {"json", NULL, "the result as JSON on stdout"},
    {NULL, NULL, NULL},
};

struct scoring {
    struct lm lm;
    struct lm_ids text;
    int64_t window, bos, windows; /* bos < 0: none */
    int64_t *in;                  /* inputs of a window */
    int64_t targets;              /* of a window */
    double sum, sum_squares;      /* over windows, of their mean negative log-likelihood in nats */
    double seconds;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* -log softmax(row)[target]. */
static double surprise(const struct lm_logits *l, int64_t row, int64_t target)
{
    double most = lm_logit(l, row, 0), sum = 0;
    for (int64_t i = 1; i < l->vocab; i++)
        most = fmax(most, lm_logit(l, row, i));
    for (int64_t i = 0; i < l->vocab; i++)
        sum += exp((double)lm_logit(l, row, i) - most);
    return log(sum) + most - (double)lm_logit(l, row, target);
}

/* Adds what the targets of the last call cost. */
static int score_call(struct scoring *s, const int64_t *targets, int64_t rows, double *total)
{
    struct lm_logits l;
    int code = lm_take_logits(&s->lm, &l);
    if (code == 0)
        code = lm_check_tokens(&s->lm, targets, rows);
    for (int64_t i = 0; code == 0 && i < rows; i++)
        *total += surprise(&l, l.rows - rows + i, targets[i]);
    return code;
}

static int empty_caches(struct scoring *s)
{
    const enum npuc_status st = npurt_cache_truncate(s->lm.s.run, 0);
    return st == NPUC_OK ? 0 : session_fail(&s->lm.s, st);
}

/* All rows in one call where the model gives logits of each, else token by token. */
static int score_window(struct scoring *s, const int64_t *targets, bool *by_token, double *total)
{
    struct lm_logits l;
    int code = empty_caches(s);
    if (code == 0 && !*by_token) {
        code = lm_step(&s->lm, s->in, 0, s->targets);
        if (code == 0)
            code = lm_take_logits(&s->lm, &l);
        if (code != 0 || l.rows == s->targets)
            return code != 0 ? code : score_call(s, targets, s->targets, total);
        *by_token = true;
        code = empty_caches(s);
    }
    for (int64_t i = 0; code == 0 && i < s->targets; i++) {
        code = lm_step(&s->lm, s->in + i, i, 1);
        if (code == 0)
            code = score_call(s, targets + i, 1, total);
    }
    return code;
}

static void show_progress(int64_t done, const struct scoring *s)
{
    if (term_is_tty(2))
        fprintf(stderr, "\r  window %" PRId64 " of %" PRId64 ", perplexity so far %.3f ", done, s->windows,
                exp(s->sum / (double)done));
}

static int score_text(struct scoring *s)
{
    bool by_token = false;
    int code = 0;
    const double begin = now();
    for (int64_t w = 0; code == 0 && w < s->windows; w++) {
        const int64_t *y = s->text.list.data + w * s->window;
        double total = 0;
        for (int64_t i = 0; i < s->targets; i++)
            s->in[i] = s->bos < 0 ? y[i] : i == 0 ? s->bos : y[i - 1];
        code = score_window(s, s->bos < 0 ? y + 1 : y, &by_token, &total);
        const double mean = total / (double)s->targets;
        s->sum += mean;
        s->sum_squares += mean * mean;
        if (code == 0)
            show_progress(w + 1, s);
    }
    if (term_is_tty(2))
        fprintf(stderr, "\r\033[K");
    s->seconds = now() - begin;
    return code;
}

/* ---- arguments and results */

static bool read_number(const struct args *a, const char *name, int64_t otherwise, int64_t least, int64_t *out,
                        int *exit_code)
{
    const char *v = args_value(a, name);
    char *end = NULL;
    *out = v ? strtoll(v, &end, 10) : otherwise;
    if (!v || (end != v && *end == '\0' && *out >= least))
        return true;
    term_error("npuc perplexity: --%s takes a number from %" PRId64 " on, not %s", name, least, v);
    *exit_code = diag_exit_code(NPUC_E_USAGE);
    return false;
}

static bool read_arguments(struct scoring *s, const struct args *a, int *exit_code)
{
    const char *text = args_value(a, "tokens");
    if (!text) {
        term_error("npuc perplexity: --tokens F is missing: the text as token ids (npuc perplexity --help)");
        *exit_code = diag_exit_code(NPUC_E_USAGE);
        return false;
    }
    if (!read_number(a, "window", 256, 1, &s->window, exit_code) || !read_number(a, "bos", -1, 0, &s->bos, exit_code) ||
        !read_number(a, "windows", INT64_MAX, 1, &s->windows, exit_code) ||
        !lm_read_ids(text, "tokens", s->lm.arena, &s->text, exit_code))
        return false;
    s->targets = s->bos < 0 ? s->window - 1 : s->window;
    const int64_t whole = s->text.list.len / s->window;
    s->windows = s->windows < whole ? s->windows : whole;
    if (s->windows > 0 && s->targets > 0) {
        s->in = ARENA_ARRAY(s->lm.arena, int64_t, s->targets);
        return true;
    }
    term_error("%s: %" PRId64 " tokens fill no window of %" PRId64 " with a target; give a smaller --window", text,
               s->text.list.len, s->window);
    *exit_code = diag_exit_code(NPUC_E_INVALID);
    return false;
}

static void print_result(const struct scoring *s, bool json)
{
    const double n = (double)s->windows, mean = s->sum / n, ppl = exp(mean);
    const double variance = s->windows > 1 ? fmax(0, (s->sum_squares - n * mean * mean) / (n - 1)) : 0;
    const double error = ppl * sqrt(variance / n), rate = n * (double)s->targets / s->seconds;
    if (!json) {
        printf("perplexity  %.4f +- %.4f   (%" PRId64 " windows of %" PRId64 ", %" PRId64
               " targets, %.4f nats each; %.0f tokens/s on this host)\n",
               ppl, error, s->windows, s->window, s->windows * s->targets, mean, rate);
        return;
    }
    json_t *j = json_object();
    json_put(j, "perplexity", json_real(ppl));
    json_put(j, "standard_error", json_real(error));
    json_put(j, "nats_per_target", json_real(mean));
    json_put(j, "windows", json_integer(s->windows));
    json_put(j, "window", json_integer(s->window));
    json_put(j, "targets", json_integer(s->windows * s->targets));
    json_put(j, "host_seconds", json_real(s->seconds));
    print_json(j);
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    struct scoring s = {0};
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    s.lm.arena = &a.arena;
    if (args_words(cmd, &a, 1, &code) && read_arguments(&s, &a, &code) && lm_open(&s.lm, &a, NPURT_DATA, &code))
        code = score_text(&s);
    if (code == 0 && s.seconds > 0)
        print_result(&s, args_flag(&a, "json"));
    session_close(&s.lm.s);
    args_free(&a);
    return code;
}

const struct command command_perplexity = {
    .name = "perplexity",
    .what = "how well a language model's plan predicts a text of token ids",
    .usage = "PLAN --tokens F [--window W] [--bos ID] [options]",
    .examples = "  npuc perplexity bard.plan --tokens examples/bard/eval/test.npy --window 256 --bos 0 --windows 4\n"
                "  npuc perplexity bard.plan --tokens 0,685,45,37,47,14,199 --window 7 --json\n",
    .options = options,
    .run = run,
};
