/* Algorithms for weights that have seen what the weight is multiplied with: they need its Gram matrix. */
#include "base/pool.h"
#include "base/size.h"
#include "quant/encode.h"
#include "quant/rows.h"
#include "quant/statistics.h"

/* Damping of the Gram matrix, in mean diagonal elements: GPTQ's. */
static const double damping = 0.01;

struct solving {
    const struct quant_rows *whole;
    float *scratch; /* of all workers */
    void (*run)(const struct quant_rows *t);
};

static void solve(void *arg, int64_t item, int worker)
{
    const struct solving *s = arg;
    struct quant_rows part = *s->whole;
    part.first = item * QUANT_ROWS_AT_ONCE;
    part.n = size_min(QUANT_ROWS_AT_ONCE, part.w->channels - part.first);
    part.scratch = s->scratch + worker * quant_rows_scratch(part.w->k);
    s->run(&part);
}

/* Codes and scales in turn: each of the two steps lowers the cost. */
static void feed_and_descend(const struct quant_rows *t)
{
    enum { TURNS = 3, CODES = 4 };
    quant_feed_errors(t);
    for (int i = 0; i < TURNS; i++) {
        quant_refit_scales(t);
        quant_descend(t, CODES);
    }
}

/* Scales that mind the importance of columns, then `run` on parts of the rows. */
static const char *with_metric(const struct quant_task *t, void (*run)(const struct quant_rows *t))
{
    const struct quant_statistics *seen = t->w->seen;
    const int64_t k = t->w->k;
    struct quant_metric m;
    if (seen->k != k || !seen->gram)
        return "what calibration saw of its input has another length than its rows";
    const struct arena_mark mark = arena_mark(t->scratch);
    float *scratch = ARENA_ARRAY(t->scratch, float, pool_threads(t->pool) * quant_rows_scratch(k));
    const bool made = scratch && quant_metric_make(&m, seen->gram, k, damping, true, t->scratch, t->pool);
    if (made) {
        quant_fit_codes(t, m.importance);
        const struct quant_rows whole = {.o = t->o, .w = t->w, .m = &m, .out = t->out};
        struct solving s = {&whole, scratch, run};
        pool_for(t->pool, size_ceil_div(t->w->channels, QUANT_ROWS_AT_ONCE), solve, &s);
    }
    arena_release(t->scratch, mark);
    return made ? NULL : "there is no memory for the Gram matrix of its input";
}

const char *quant_choose_gptq(const struct quant_task *t)
{
    return with_metric(t, quant_feed_errors);
}

const char *quant_choose_descent(const struct quant_task *t)
{
    return with_metric(t, feed_and_descend);
}
