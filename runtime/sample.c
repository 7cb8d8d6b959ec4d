/* Choosing a token by logits; the definition is at struct npurt_sampling.
 *
 * All three restrictions keep a prefix of the tokens in descending order, so the candidates are a heap from which only
 * as many are taken as stay; without restrictions none is taken and the draw walks the ids. Weights are in double with
 * an exponential of our own, sums ascend in the order of the walk: a seed gives the same ids on every machine. */
#include "runtime/rt.h"

#include <math.h>

#include "base/half.h"
#include "kernels/fmath_wide.h"

struct choice {
    const struct npurt_sampling *how;
    const struct npurt_tensor *t;
    int64_t first, vocab; /* of the row in t */
    float *logit;         /* penalised */
    float largest;
    int32_t *heap; /* ids; the root is the likeliest */
    int64_t n_heap, n_taken, n_kept;
    double *weight; /* of those taken from the heap, in order */
};

static float raw(const struct choice *c, int64_t id)
{
    const int64_t at = c->first + id;
    if (c->t->dtype == NPURT_F16)
        return half_f16_to_f32(((const uint16_t *)c->t->data)[at]);
    if (c->t->dtype == NPURT_BF16)
        return half_bf16_to_f32(((const uint16_t *)c->t->data)[at]);
    return ((const float *)c->t->data)[at];
}

static void read_logits(struct choice *c, const int64_t *before, int64_t n)
{
    const float penalty = (float)c->how->repeat_penalty;
    for (int64_t i = 0; i < c->vocab; i++)
        c->logit[i] = raw(c, i);
    for (int64_t i = 0; penalty != 0 && penalty != 1 && i < n; i++)
        if (before[i] >= 0 && before[i] < c->vocab) {
            const float x = raw(c, before[i]);
            c->logit[before[i]] = x > 0 ? x / penalty : x * penalty;
        }
}

/* The first largest; -1 when a logit is NaN or none is finite. */
static int64_t find_largest(const struct choice *c)
{
    int64_t best = 0;
    for (int64_t i = 0; i < c->vocab; i++) {
        if (isnan(c->logit[i]))
            return -1;
        if (c->logit[i] > c->logit[best])
            best = i;
    }
    return isfinite(c->logit[best]) ? best : -1;
}

static double weight_of(const struct choice *c, int64_t id)
{
    const double x = ((double)c->logit[id] - (double)c->largest) / c->how->temperature;
    return x < -700 ? 0 : k_exp_wide(x);
}

/* ---- the heap ---- */

static bool goes_before(const struct choice *c, int32_t a, int32_t b)
{
    return c->logit[a] > c->logit[b] || (c->logit[a] == c->logit[b] && a < b);
}

static void sift_down(struct choice *c, int64_t at)
{
    const int32_t id = c->heap[at];
    for (int64_t child = 2 * at + 1; child < c->n_heap; child = 2 * at + 1) {
        if (child + 1 < c->n_heap && goes_before(c, c->heap[child + 1], c->heap[child]))
            child++;
        if (!goes_before(c, c->heap[child], id))
            break;
        c->heap[at] = c->heap[child];
        at = child;
    }
    c->heap[at] = id;
}

/* Moves the root behind the shrinking heap: what was taken lies there from the end on. */
static int32_t take(struct choice *c)
{
    const int32_t id = c->heap[0];
    c->heap[0] = c->heap[--c->n_heap];
    c->heap[c->n_heap] = id;
    if (c->n_heap > 0)
        sift_down(c, 0);
    return id;
}

static int32_t kept_id(const struct choice *c, int64_t i)
{
    return c->heap[c->vocab - 1 - i];
}

static void make_heap(struct choice *c)
{
    c->n_heap = c->vocab;
    for (int64_t i = 0; i < c->vocab; i++)
        c->heap[i] = (int32_t)i;
    for (int64_t i = c->vocab / 2; i-- > 0;)
        sift_down(c, i);
}

/* ---- restrictions ---- */

static bool has_top_k(const struct choice *c)
{
    return c->how->top_k > 0 && c->how->top_k < c->vocab;
}

static bool has_top_p(const struct choice *c)
{
    return c->how->top_p > 0 && c->how->top_p < 1;
}

/* Weight of the i-th likeliest, taken from the heap when it was not. */
static double weight_at(struct choice *c, int64_t i)
{
    for (; c->n_taken <= i; c->n_taken++) {
        const int32_t id = take(c);
        c->weight[c->n_taken] = weight_of(c, id);
    }
    return c->weight[i];
}

/* What the share of top_p is of: what top_k left, or all. */
static double total_of(struct choice *c)
{
    double sum = 0;
    for (int64_t i = 0; i < (has_top_k(c) ? c->how->top_k : c->vocab); i++)
        sum += has_top_k(c) ? weight_at(c, i) : weight_of(c, i);
    return sum;
}

/* Counts the likeliest that all restrictions keep; the sum of their weights. The likeliest weighs 1. */
static double keep_prefix(struct choice *c)
{
    make_heap(c);
    const double limit = has_top_p(c) ? c->how->top_p * total_of(c) : (double)INFINITY;
    const int64_t most = has_top_k(c) ? c->how->top_k : c->vocab;
    double sum = 0;
    while (c->n_kept < most && sum < limit && weight_at(c, c->n_kept) >= c->how->min_p)
        sum += c->weight[c->n_kept++];
    return sum;
}

/* Number `draw` of SplitMix64 (Steele, Lea, Flood 2014) as a double in [0, 1). */
static double uniform(uint64_t seed, uint64_t draw)
{
    uint64_t z = seed + (draw + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

static int64_t draw(struct choice *c)
{
    const struct npurt_sampling *h = c->how;
    const bool restricted = (h->top_k > 0 && h->top_k < c->vocab) || (h->top_p > 0 && h->top_p < 1) || h->min_p > 0;
    const double end = uniform(h->seed, h->draw) * (restricted ? keep_prefix(c) : total_of(c));
    const int64_t n = restricted ? c->n_kept : c->vocab;
    int64_t last = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double w = restricted ? c->weight[i] : weight_of(c, i);
        sum += w;
        if (w > 0)
            last = i;
        if (sum > end)
            break;
    }
    return restricted ? kept_id(c, last) : last;
}

/* ---- public ---- */

static enum npuc_status check_sampling(npurt_session *s, const struct npurt_sampling *h)
{
    const struct {
        const char *name;
        double value, most;
    } rows[] = {{"temperature", h->temperature, 1e6},
                {"top_k", (double)h->top_k, 0x1p62},
                {"top_p", h->top_p, 1},
                {"min_p", h->min_p, 1},
                {"repeat_penalty", h->repeat_penalty, 1e6}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (!(rows[i].value >= 0 && rows[i].value <= rows[i].most))
            return rt_fail(s, D_USAGE, "%s is %g, expected 0 to %g", rows[i].name, rows[i].value, rows[i].most);
    return NPUC_OK;
}

static enum npuc_status find_row(npurt_session *s, int64_t row, struct npurt_tensor *t, struct choice *c)
{
    const int i = npurt_logits_output(s->owner);
    if (i < 0)
        return rt_fail(s, D_UNSUPPORTED, "the plan has no KV caches and logits to choose tokens by");
    const char *name = npurt_plan_output(s->owner, i)->name;
    const enum npuc_status st = npurt_output(s, name, t);
    if (st != NPUC_OK)
        return st;
    if (!t->data)
        return rt_fail(s, D_USAGE, "mode clock computes no logits to choose tokens by; use data or both");
    int64_t rows = 1;
    for (int k = 0; k + 1 < t->rank; k++)
        rows *= t->dims[k];
    if (t->rank < 1 || (t->dtype != NPURT_F32 && t->dtype != NPURT_F16 && t->dtype != NPURT_BF16) || rows < 1 ||
        t->dims[t->rank - 1] < 1 || t->dims[t->rank - 1] > INT32_MAX)
        return rt_fail(s, D_UNSUPPORTED, "output %.100s holds no float logits", name);
    if (row >= rows || row < -rows)
        return rt_fail(s, D_USAGE, "row %lld of the %lld rows of %.100s", (long long)row, (long long)rows, name);
    c->vocab = t->dims[t->rank - 1];
    c->first = (row < 0 ? row + rows : row) * c->vocab;
    return NPUC_OK;
}

static enum npuc_status choose(npurt_session *s, struct choice *c, const int64_t *before, int64_t n, int64_t *token)
{
    struct arena *a = &s->scratch;
    c->logit = ARENA_ARRAY(a, float, c->vocab);
    if (!c->logit)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    read_logits(c, before, n);
    const int64_t best = find_largest(c);
    if (best < 0)
        return rt_fail(s, D_RUN_FAULT, "no token can be chosen: logits are NaN or none is finite");
    *token = best;
    if (c->how->temperature == 0)
        return NPUC_OK;
    c->largest = c->logit[best];
    c->heap = ARENA_ARRAY(a, int32_t, c->vocab);
    c->weight = ARENA_ARRAY(a, double, c->vocab);
    if (!c->heap || !c->weight)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    *token = draw(c);
    return NPUC_OK;
}

enum npuc_status npurt_sample(npurt_session *s, int64_t row, const struct npurt_sampling *how, const int64_t *before,
                              int64_t n, int64_t *token)
{
    struct npurt_tensor t;
    struct choice c = {.how = how, .t = &t};
    enum npuc_status st = check_sampling(s, how);
    if (st == NPUC_OK)
        st = find_row(s, row, &t, &c);
    if (st != NPUC_OK)
        return st;
    const struct arena_mark mark = arena_mark(&s->scratch);
    st = choose(s, &c, before, n, token);
    arena_release(&s->scratch, mark);
    return st;
}
