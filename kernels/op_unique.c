/* Unique: the different elements, or the different slices along an axis, in rising or in first-seen order.
 *
 * Slices are ordered by their elements in row-major order, numbers by value with NaN last and all NaN alike, strings by
 * bytes. The positions are sorted by merging, equal ones stay in order. */
#include <math.h>
#include <string.h>

#include "kernels/op.h"

struct unique {
    const struct k_tensor *x;
    int64_t outer, n, inner; /* [outer][n][inner]: n slices of outer * inner elements */
    enum k_wide wide;
    const void *key; /* elements in their carrier, strings as they are */
};

#define ORDER(T)                                                                                                       \
    (((const T *)u->key)[a] < ((const T *)u->key)[b] ? -1 : ((const T *)u->key)[a] > ((const T *)u->key)[b])
#define FLOAT_ORDER(T)                                                                                                 \
    (isnan(((const T *)u->key)[a]) || isnan(((const T *)u->key)[b])                                                    \
         ? (isnan(((const T *)u->key)[a]) != 0) - (isnan(((const T *)u->key)[b]) != 0)                                 \
         : ORDER(T))
static int text_order(const struct k_string *a, const struct k_string *b)
{
    const int64_t n = a->len < b->len ? a->len : b->len;
    const int d = n > 0 ? memcmp(a->text, b->text, (size_t)n) : 0;
    return d ? d : a->len < b->len ? -1 : a->len > b->len;
}
static int element_order(const struct unique *u, int64_t a, int64_t b)
{
    switch (u->wide) {
    case K_WIDE_F32: return FLOAT_ORDER(float);
    case K_WIDE_F64: return FLOAT_ORDER(double);
    case K_WIDE_I64: return ORDER(int64_t);
    case K_WIDE_U64: return ORDER(uint64_t);
    case K_WIDE_NONE: break;
    }
    return text_order((const struct k_string *)u->key + a, (const struct k_string *)u->key + b);
}
static int slice_order(const struct unique *u, int64_t a, int64_t b)
{
    for (int64_t o = 0; o < u->outer; o++)
        for (int64_t i = 0; i < u->inner; i++) {
            const int d = element_order(u, (o * u->n + a) * u->inner + i, (o * u->n + b) * u->inner + i);
            if (d)
                return d;
        }
    return 0;
}

/* Sorts order[0..n) by slices; spare has n elements as well. Returns the array that holds the result. */
static int64_t *merge_sort(const struct unique *u, int64_t *order, int64_t *spare)
{
    for (int64_t width = 1; width < u->n; width *= 2) {
        for (int64_t from = 0; from < u->n; from += 2 * width) {
            const int64_t mid = from + width < u->n ? from + width : u->n;
            const int64_t end = mid + width < u->n ? mid + width : u->n;
            int64_t a = from, b = mid;
            for (int64_t at = from; at < end; at++) {
                const bool first = b >= end || (a < mid && slice_order(u, order[a], order[b]) <= 0);
                spare[at] = order[first ? a++ : b++];
            }
        }
        int64_t *swap = order;
        order = spare;
        spare = swap;
    }
    return order;
}

static enum npuc_status unique_of(struct k_call *c, struct unique *u, int *axis)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const struct k_attr *a = k_attr_find(c, "axis");
    const bool along = a && a->kind == K_ATTR_INT;
    *axis = -1;
    if (along && !k_axis(c, a->v.i, x->rank, axis))
        return NPUC_E_INVALID;
    *u = (struct unique){.x = x, .outer = 1, .n = k_count(x), .inner = 1, .wide = K_WIDE_NONE, .key = x->data};
    if (along) {
        u->outer = k_dims_count(*axis, x->dims);
        u->n = x->dims[*axis];
        u->inner = k_stride(x, *axis);
    }
    if (x->dtype == DT_STRING)
        return NPUC_OK;
    u->wide = k_wide_of(x->dtype);
    if (u->wide == K_WIDE_NONE)
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[x->dtype].name);
    void *key = k_scratch(c, k_count(x), k_wide_size(u->wide));
    if (!key)
        return k_no_memory(c);
    k_widen(key, x->dtype, x->data, 0, k_count(x));
    u->key = key;
    return NPUC_OK;
}

struct groups {
    int64_t n;
    int64_t *first, *count; /* per group in the order of the result */
    int64_t *of;            /* group of each slice */
};

/* Groups of equal slices among the sorted positions; then in order of their first slices unless `sorted`. */
static bool group(struct k_call *c, const struct unique *u, bool sorted, struct groups *g)
{
    int64_t *order = k_scratch(c, u->n, sizeof *order), *spare = k_scratch(c, u->n, sizeof *spare);
    *g = (struct groups){.first = k_scratch(c, u->n, sizeof *g->first),
                         .count = k_scratch(c, u->n, sizeof *g->count),
                         .of = k_scratch(c, u->n, sizeof *g->of)};
    if (!order || !spare || !g->first || !g->count || !g->of)
        return false;
    for (int64_t i = 0; i < u->n; i++)
        order[i] = i;
    order = merge_sort(u, order, spare);
    for (int64_t i = 0; i < u->n; i++) {
        if (i == 0 || slice_order(u, order[i - 1], order[i]) != 0)
            g->first[g->n++] = order[i];
        g->of[order[i]] = g->n - 1;
    }
    if (!sorted) {
        int64_t next = 0, *number = k_scratch(c, u->n, sizeof *number);
        if (!number)
            return false;
        for (int64_t i = 0; i < u->n; i++)
            if (g->first[g->of[i]] == i)
                number[g->of[i]] = next++;
        for (int64_t i = 0; i < u->n; i++)
            g->of[i] = number[g->of[i]];
    }
    for (int64_t i = u->n - 1; i >= 0; i--) {
        g->first[g->of[i]] = i;
        g->count[g->of[i]]++;
    }
    return true;
}

static bool put(struct k_call *c, int i, const int64_t *v, int64_t n)
{
    if (!k_wants(c, i))
        return true;
    int64_t *y = k_out(c, i, DT_I64, 1, &n);
    if (y && n > 0)
        memcpy(y, v, (size_t)n * sizeof *v);
    return y != NULL;
}

enum npuc_status k_op_unique(struct k_call *c)
{
    struct unique u;
    struct groups g;
    int axis;
    K_TRY(unique_of(c, &u, &axis));
    if (!group(c, &u, k_attr_int(c, "sorted", 1) != 0, &g))
        return k_no_memory(c);
    int64_t dims[K_MAX_RANK] = {g.n};
    if (axis >= 0) {
        memcpy(dims, u.x->dims, (size_t)u.x->rank * sizeof *dims);
        dims[axis] = g.n;
    }
    const char *x = k_move_in(c, u.x);
    char *y = k_move_out(c, 0, u.x->dtype, axis >= 0 ? u.x->rank : 1, dims);
    if (!x || !y)
        return k_no_memory(c);
    const int64_t row = u.inner * k_move_size(u.x->dtype);
    for (int64_t o = 0; o < u.outer; o++)
        for (int64_t i = 0; i < g.n; i++)
            memcpy(y + (o * g.n + i) * row, x + (o * u.n + g.first[i]) * row, (size_t)row);
    k_move_done(c, 0, y);
    return put(c, 1, g.first, g.n) && put(c, 2, g.of, u.n) && put(c, 3, g.count, g.n) ? NPUC_OK : k_no_memory(c);
}
