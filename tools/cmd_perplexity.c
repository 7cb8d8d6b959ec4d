/* npuc perplexity: how well a language model's plan predicts a text.
 *
 * The tokens t are cut into n = floor(len(t) / W) windows that do not overlap; what fills no window is dropped. With
 * --bos B a window's targets are its W tokens y[0..W-1] and its inputs B, y[0], .., y[W-2]; without, its targets are
 * y[1..W-1] and its inputs y[0..W-2]. Each window begins with empty caches at position 0.
 *   perplexity = exp(-sum of log softmax(logits)[target] / number of targets)
 * The log-softmax and the sums are in double. The standard error of the mean over targets is that of the windows'
 * means, since tokens of a window depend on each other; that of the perplexity follows by the delta method.
 *
 * --reference PLAN0 reads the same windows: the difference of the windows' means, d, has a standard error of its own,
 * far below those of the two perplexities, whose ratio is exp(d). Per target, with p of the reference and q of the
 * plan: KL = sum p log(p / q); its 99 % is the smallest value that 99 % of the targets do not exceed. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/stopwatch.h"
#include "quant/distance.h"
#include "tools/json.h"
#include "tools/lm.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"tokens", "F", "the text: ids separated by commas, or a .npy file of integers"},
    {"window", "W", "tokens per window; default 256"},
    {"bos", "ID", "a token that every window begins with; without it the first of a window is not predicted"},
    {"windows", "N", "the first N windows only; default all"},
    {"reference", "PLAN0",
     "compare with this plan on the same text: change of the perplexity with its paired standard "
     "error, KL divergence, agreement of the likeliest token"},
    SESSION_OPTIONS,
    {"json", NULL, "the result as JSON on stdout"},
    {NULL, NULL, NULL},
};

/* Of values one per window. */
struct moments {
    double sum, squares;
};
/* A plan that reads the text. */
struct reader {
    struct lm lm;
    struct moments nats; /* mean negative log-likelihood of a window */
    double total;        /* of the window that is being read */
    struct lm_logits logits;
    float *row; /* [vocab], of the target at hand */
};
struct scoring {
    struct reader plan, reference;
    bool compares;
    struct arena *arena;
    struct lm_ids text;
    int64_t window, bos, windows; /* bos < 0: none */
    int64_t *in;                  /* inputs of a window */
    int64_t targets;              /* of a window */
    bool by_token;                /* a model gives logits of the last row alone */
    struct moments difference;    /* of the windows' means, plan - reference */
    double *kl;                   /* [windows * targets] */
    int64_t n_kl, agree;
    double seconds;
};

static void moments_add(struct moments *m, double v)
{
    m->sum += v;
    m->squares += v * v;
}

/* Standard error of the mean of n values. */
static double moments_error(const struct moments *m, int64_t n)
{
    const double mean = m->sum / (double)n;
    const double variance = n > 1 ? fmax(0, (m->squares - m->sum * mean) / (double)(n - 1)) : 0;
    return sqrt(variance / (double)n);
}

/* ---- reading */

static void take_row(struct reader *r, int64_t row)
{
    for (int64_t i = 0; i < r->logits.vocab; i++)
        r->row[i] = lm_logit(&r->logits, row, i);
}

static int take_logits(struct scoring *s, struct reader *r)
{
    const int code = lm_take_logits(&r->lm, &r->logits);
    if (code == 0 && !r->row)
        r->row = ARENA_ARRAY(s->arena, float, r->logits.vocab + 1);
    return code;
}

/* Both models have their row of this target. */
static void score_target(struct scoring *s, int64_t target)
{
    struct reader *p = &s->plan, *r = &s->reference;
    if (!s->compares) {
        p->total += metric_log_sum(p->row, p->logits.vocab) - (double)p->row[target];
        return;
    }
    const struct metric_words w = metric_softmax(r->row, p->row, p->logits.vocab);
    p->total += w.y_log_sum - (double)p->row[target];
    r->total += w.x_log_sum - (double)r->row[target];
    s->kl[s->n_kl++] = w.kl;
    s->agree += w.top == w.best;
}

/* What the targets of the last call cost. */
static int score_call(struct scoring *s, const int64_t *targets, int64_t rows)
{
    const struct lm_logits *p = &s->plan.logits, *r = &s->reference.logits;
    if (s->compares && p->vocab != r->vocab) {
        term_error("%s: its vocabulary has %" PRId64 " tokens, that of the reference %s has %" PRId64
                   "; only plans of one model can be compared",
                   s->plan.lm.s.path, p->vocab, s->reference.lm.s.path, r->vocab);
        return diag_exit_code(NPUC_E_INVALID);
    }
    const int code = lm_check_tokens(&s->plan.lm, targets, rows);
    for (int64_t i = 0; code == 0 && i < rows; i++) {
        take_row(&s->plan, p->rows - rows + i);
        if (s->compares)
            take_row(&s->reference, r->rows - rows + i);
        score_target(s, targets[i]);
    }
    return code;
}

static int empty_caches(struct lm *lm)
{
    const enum npuc_status st = npurt_cache_truncate(lm->s.run, 0);
    return st == NPUC_OK ? 0 : session_fail(&lm->s, st);
}

/* A call of both models; *least: the rows of logits that each of them gave. */
static int call_models(struct scoring *s, int64_t at, int64_t rows, int64_t *least)
{
    struct reader *const both[] = {&s->plan, s->compares ? &s->reference : NULL};
    int code = 0;
    *least = rows;
    for (int i = 0; code == 0 && i < 2 && both[i]; i++) {
        if (at == 0)
            code = empty_caches(&both[i]->lm);
        if (code == 0)
            code = lm_step(&both[i]->lm, s->in + at, at, rows);
        if (code == 0)
            code = take_logits(s, both[i]);
        *least = both[i]->logits.rows < *least ? both[i]->logits.rows : *least;
    }
    return code;
}

/* All rows in one call where the models give logits of each, else token by token. */
static int score_window(struct scoring *s, const int64_t *targets)
{
    int64_t rows;
    int code = 0;
    if (!s->by_token) {
        code = call_models(s, 0, s->targets, &rows);
        if (code != 0 || rows == s->targets)
            return code != 0 ? code : score_call(s, targets, s->targets);
        s->by_token = true;
    }
    for (int64_t i = 0; code == 0 && i < s->targets; i++) {
        code = call_models(s, i, 1, &rows);
        if (code == 0)
            code = score_call(s, targets + i, 1);
    }
    return code;
}

static void show_progress(int64_t done, const struct scoring *s)
{
    if (term_is_tty(2))
        fprintf(stderr, "\r  window %" PRId64 " of %" PRId64 ", perplexity so far %.3f ", done, s->windows,
                exp(s->plan.nats.sum / (double)done));
}

static int score_text(struct scoring *s)
{
    int code = 0;
    const int64_t begin = stopwatch_ns();
    const double n = (double)s->targets;
    for (int64_t w = 0; code == 0 && w < s->windows; w++) {
        const int64_t *y = s->text.list.data + w * s->window;
        s->plan.total = s->reference.total = 0;
        for (int64_t i = 0; i < s->targets; i++)
            s->in[i] = s->bos < 0 ? y[i] : i == 0 ? s->bos : y[i - 1];
        code = score_window(s, s->bos < 0 ? y + 1 : y);
        moments_add(&s->plan.nats, s->plan.total / n);
        moments_add(&s->reference.nats, s->reference.total / n);
        moments_add(&s->difference, (s->plan.total - s->reference.total) / n);
        if (code == 0)
            show_progress(w + 1, s);
    }
    if (term_is_tty(2))
        fprintf(stderr, "\r\033[K");
    s->seconds = stopwatch_since(begin);
    return code;
}

/* ---- arguments and results */

static bool read_arguments(const struct command *cmd, struct scoring *s, const struct args *a, int *exit_code)
{
    const char *text = args_value(a, "tokens");
    if (!text) {
        *exit_code = args_wrong(cmd, "--tokens F is missing: the text as token ids");
        return false;
    }
    if (!args_number(cmd, a, "window", (struct arg_range){1, INT64_MAX, 256}, &s->window, exit_code) ||
        !args_number(cmd, a, "bos", (struct arg_range){0, INT64_MAX, -1}, &s->bos, exit_code) ||
        !args_number(cmd, a, "windows", (struct arg_range){1, INT64_MAX, INT64_MAX}, &s->windows, exit_code) ||
        !lm_read_ids(text, "tokens", s->arena, &s->text, exit_code))
        return false;
    s->targets = s->bos < 0 ? s->window - 1 : s->window;
    const int64_t whole = s->text.list.len / s->window;
    s->windows = s->windows < whole ? s->windows : whole;
    if (s->windows > 0 && s->targets > 0) {
        s->in = ARENA_ARRAY(s->arena, int64_t, s->targets);
        s->compares = args_value(a, "reference") != NULL;
        s->kl = s->compares ? ARENA_ARRAY(s->arena, double, s->windows * s->targets) : NULL;
        return true;
    }
    term_error("%s: %" PRId64 " tokens fill no window of %" PRId64 " with a target; give a smaller --window", text,
               s->text.list.len, s->window);
    *exit_code = diag_exit_code(NPUC_E_INVALID);
    return false;
}

/* A plan's own figures. */
struct figures {
    double perplexity, error, nats;
};
static struct figures figures_of(const struct moments *nats, int64_t windows)
{
    const double mean = nats->sum / (double)windows;
    return (struct figures){exp(mean), exp(mean) * moments_error(nats, windows), mean};
}

/* What the comparison says. */
struct change {
    double share, error; /* of the reference's perplexity */
    double kl, kl99, kl_most, agreement;
};
static struct change change_of(struct scoring *s)
{
    const double ratio = exp(s->difference.sum / (double)s->windows);
    struct change c = {.share = ratio - 1, .error = ratio * moments_error(&s->difference, s->windows)};
    for (int64_t i = 0; i < s->n_kl; i++)
        c.kl += s->kl[i] / (double)s->n_kl;
    c.kl99 = metric_quantile(s->kl, s->n_kl, 0.99);
    c.kl_most = s->kl[s->n_kl - 1];
    c.agreement = (double)s->agree / (double)s->n_kl;
    return c;
}

static void put_figures(json_t *j, const struct figures *f)
{
    json_put(j, "perplexity", json_number(f->perplexity));
    json_put(j, "standard_error", json_number(f->error));
    json_put(j, "nats_per_target", json_number(f->nats));
}

static void put_change(json_t *j, struct scoring *s)
{
    const struct change c = change_of(s);
    const struct figures f = figures_of(&s->reference.nats, s->windows);
    json_t *r = json_object(), *kl = json_object();
    json_put(r, "plan", json_text(s->reference.lm.s.path));
    put_figures(r, &f);
    json_put(j, "reference", r);
    json_put(j, "change", json_number(c.share));
    json_put(j, "change_standard_error", json_number(c.error));
    json_put(kl, "mean", json_number(c.kl));
    json_put(kl, "p99", json_number(c.kl99));
    json_put(kl, "max", json_number(c.kl_most));
    json_put(j, "kl", kl);
    json_put(j, "top1_agreement", json_number(c.agreement));
}

static void print_json_result(struct scoring *s)
{
    const struct figures f = figures_of(&s->plan.nats, s->windows);
    json_t *j = json_object();
    put_figures(j, &f);
    json_put(j, "windows", json_integer(s->windows));
    json_put(j, "window", json_integer(s->window));
    json_put(j, "targets", json_integer(s->windows * s->targets));
    json_put(j, "host_seconds", json_number(s->seconds));
    if (s->compares)
        put_change(j, s);
    print_json(j);
}

static void print_result(struct scoring *s)
{
    const struct figures f = figures_of(&s->plan.nats, s->windows);
    const int64_t n = s->windows * s->targets;
    printf("perplexity  %.4f +- %.4f   (%" PRId64 " windows of %" PRId64 ", %" PRId64
           " targets, %.4f nats each; %.0f tokens/s on this host)\n",
           f.perplexity, f.error, s->windows, s->window, n, f.nats, (double)n / s->seconds);
    if (!s->compares)
        return;
    const struct figures r = figures_of(&s->reference.nats, s->windows);
    const struct change c = change_of(s);
    printf("reference   %.4f +- %.4f   %s\n", r.perplexity, r.error, s->reference.lm.s.path);
    printf("change      %+.3f %% +- %.3f   of the reference, window by window\n", 100 * c.share, 100 * c.error);
    printf("KL          %.6f mean, %.6f at 99 %%, %.6f largest   nats\n", c.kl, c.kl99, c.kl_most);
    printf("top 1       %.2f %% agree\n", 100 * c.agreement);
}

/* Opens the plan, and the reference as if it were the command's word. */
static bool open_plans(struct scoring *s, const struct args *a, int *exit_code)
{
    const char *path = args_value(a, "reference");
    struct args other = *a;
    other.words.data = &path;
    return lm_open(&s->plan.lm, a, NPURT_DATA, exit_code) &&
           (!s->compares || lm_open(&s->reference.lm, &other, NPURT_DATA, exit_code));
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    struct scoring s = {0};
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    s.arena = s.plan.lm.arena = s.reference.lm.arena = &a.arena;
    if (args_words(cmd, &a, 1, &code) && read_arguments(cmd, &s, &a, &code) && open_plans(&s, &a, &code))
        code = score_text(&s);
    if (code == 0 && s.seconds > 0)
        (args_flag(&a, "json") ? print_json_result : print_result)(&s);
    session_close(&s.plan.lm.s);
    session_close(&s.reference.lm.s);
    args_free(&a);
    return code;
}

const struct command command_perplexity = {
    .name = "perplexity",
    .what = "how well a language model's plan predicts a text of token ids",
    .usage = "PLAN --tokens F [--window W] [--bos ID] [--reference PLAN0] [options]",
    .examples = "  npuc perplexity bard.plan --tokens examples/bard/eval/test.npy --window 256 --bos 0 --windows 4\n"
                "  npuc perplexity bard.plan --tokens 0,685,45,37,47,14,199 --window 7 --json\n",
    .options = options,
    .run = run,
};
