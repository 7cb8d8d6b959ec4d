/* NonMaxSuppression: for each batch entry and class, boxes by falling score (of equal ones the lower index first), each
 * kept unless it overlaps one already kept by more than the threshold. All in float. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "kernels/op.h"

struct nms {
    int64_t batches, classes, boxes;
    int64_t most; /* kept per class */
    float overlap, least;
    bool has_least, centered;
    const float *box, *score;
    int64_t *kept;           /* [batches * classes][most] */
    int64_t *count;          /* [batches * classes] */
    struct candidate *order; /* [threads][boxes] */
};
struct candidate {
    float score;
    int64_t at;
};

/* Falling score, numbers before what is none, then rising index: a total order, so any sort gives one result. */
static int by_score(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    const bool nx = isnan(x->score), ny = isnan(y->score);
    if (nx != ny)
        return nx ? 1 : -1;
    if (!nx && x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Corners of a box: given so in any order, or as center, width and height. */
static void corners(const struct nms *m, const float *box, float lo[2], float hi[2])
{
    for (int i = 0; i < 2; i++) {
        if (m->centered) {
            const float half = box[2 + i] / 2;
            lo[i] = box[i] - half;
            hi[i] = box[i] + half;
        } else {
            lo[i] = box[i] < box[2 + i] ? box[i] : box[2 + i];
            hi[i] = box[i] < box[2 + i] ? box[2 + i] : box[i];
        }
    }
}

/* The boxes share more than the given part of their union. */
static bool overlap(const struct nms *m, const float *a, const float *b)
{
    float lo_a[2], hi_a[2], lo_b[2], hi_b[2], side[2];
    corners(m, a, lo_a, hi_a);
    corners(m, b, lo_b, hi_b);
    for (int i = 0; i < 2; i++) {
        const float lo = lo_a[i] > lo_b[i] ? lo_a[i] : lo_b[i], hi = hi_a[i] < hi_b[i] ? hi_a[i] : hi_b[i];
        if (hi <= lo)
            return false;
        side[i] = hi - lo;
    }
    const float both = side[0] * side[1], area_a = (hi_a[0] - lo_a[0]) * (hi_a[1] - lo_a[1]),
                area_b = (hi_b[0] - lo_b[0]) * (hi_b[1] - lo_b[1]), all = area_a + area_b - both;
    if (both <= 0 || area_a <= 0 || area_b <= 0 || all <= 0)
        return false;
    return both / all > m->overlap;
}

static void one_class(void *arg, int64_t item, int worker)
{
    const struct nms *m = arg;
    const float *score = m->score + item * m->boxes, *box = m->box + item / m->classes * m->boxes * 4;
    struct candidate *order = m->order + worker * m->boxes;
    int64_t n = 0, *kept = m->kept + item * m->most, count = 0;
    for (int64_t i = 0; i < m->boxes; i++)
        if (!m->has_least || score[i] > m->least)
            order[n++] = (struct candidate){score[i], i};
    qsort(order, (size_t)n, sizeof *order, by_score);
    for (int64_t i = 0; i < n && count < m->most; i++) {
        bool keep = true;
        for (int64_t k = 0; keep && k < count; k++)
            keep = !overlap(m, box + 4 * order[i].at, box + 4 * kept[k]);
        if (keep)
            kept[count++] = order[i].at;
    }
    m->count[item] = count;
}

static enum npuc_status nms_of(struct k_call *c, struct nms *m)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *boxes = c->in[0], *scores = c->in[1], *most = k_in(c, 2), *overlap_in = k_in(c, 3),
                          *least = k_in(c, 4);
    if (boxes->rank != 3 || scores->rank != 3 || boxes->dims[2] != 4 || boxes->dims[0] != scores->dims[0] ||
        boxes->dims[1] != scores->dims[2])
        return k_fail(c, NPUC_E_INVALID, "expected boxes [B,N,4] and scores [B,C,N]");
    const bool has_least = least && k_count(least) > 0;
    *m = (struct nms){.batches = boxes->dims[0],
                      .classes = scores->dims[1],
                      .boxes = boxes->dims[1],
                      .most = most && k_count(most) > 0 ? k_get_i64(most, 0) : 0,
                      .overlap = overlap_in && k_count(overlap_in) > 0 ? (float)k_get_f64(overlap_in, 0) : 0,
                      .has_least = has_least,
                      .least = has_least ? (float)k_get_f64(least, 0) : 0,
                      .centered = k_attr_int(c, "center_point_box", 0) != 0};
    m->most = m->most < 0 ? 0 : m->most > m->boxes ? m->boxes : m->most;
    m->box = k_floats(c, boxes);
    m->score = k_floats(c, scores);
    m->count = k_scratch(c, k_dims_count(2, scores->dims), sizeof *m->count);
    m->kept = k_scratch(c, k_dims_count(2, scores->dims) * m->most, sizeof *m->kept);
    m->order = k_scratch(c, pool_threads(c->pool) * m->boxes, sizeof *m->order);
    return m->box && m->score && m->count && m->kept && m->order ? NPUC_OK : k_no_memory(c);
}

enum npuc_status k_op_non_max_suppression(struct k_call *c)
{
    struct nms m;
    K_TRY(nms_of(c, &m));
    const int64_t items = m.batches * m.classes;
    int64_t rows = 0;
    if (m.most > 0)
        pool_for(c->pool, items, one_class, &m);
    for (int64_t i = 0; i < items; i++)
        rows += m.count[i];
    int64_t *y = k_out(c, 0, DT_I64, 2, (const int64_t[]){rows, 3});
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0; i < items; i++)
        for (int64_t k = 0; k < m.count[i]; k++) {
            *y++ = i / m.classes;
            *y++ = i % m.classes;
            *y++ = m.kept[i * m.most + k];
        }
    return NPUC_OK;
}
