/* Gather, scatter and their kin: element addresses come from an index tensor. Indices are checked; negative ones count
 * from the end. */
#include <string.h>

#include "kernels/op.h"

static bool index_ok(struct k_call *c, int64_t *v, int64_t dim)
{
    if (*v < -dim || *v >= dim) {
        k_fail(c, NPUC_E_INVALID, "index %lld is out of range for dimension %lld", (long long)*v, (long long)dim);
        return false;
    }
    *v += *v < 0 ? dim : 0;
    return true;
}

enum npuc_status k_op_gather(struct k_call *c)
{
    int axis;
    int64_t n, dims[K_MAX_RANK];
    if (!k_has(c, 2, 1) || !k_axis(c, k_attr_int(c, "axis", 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *at = c->in[1];
    int64_t *index = k_whole(c, 1, &n);
    if (!index)
        return k_no_memory(c);
    const int rank = x->rank - 1 + at->rank;
    if (rank > K_MAX_RANK)
        return k_fail(c, NPUC_E_LIMIT, "rank %d", rank);
    for (int64_t i = 0; i < n; i++)
        if (!index_ok(c, &index[i], x->dims[axis]))
            return NPUC_E_INVALID;
    memcpy(dims, x->dims, (size_t)axis * sizeof *dims);
    memcpy(dims + axis, at->dims, (size_t)at->rank * sizeof *dims);
    memcpy(dims + axis + at->rank, x->dims + axis + 1, (size_t)(x->rank - axis - 1) * sizeof *dims);
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, rank, dims);
    if ((!src && k_count(x) > 0) || !y)
        return k_no_memory(c);
    const int64_t row = k_stride(x, axis) * k_move_size(x->dtype), outer = k_dims_count(axis, x->dims);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < n; i++)
            memcpy(y + (o * n + i) * row, src + (o * x->dims[axis] + index[i]) * row, (size_t)row);
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* Offset in a tensor of shape `t` of the element that position `index` (of `rank` dims) addresses with `v` on the axis.
 */
static int64_t element_at(const struct k_tensor *t, const int64_t *index, int axis, int64_t v)
{
    int64_t at = 0;
    for (int i = 0; i < t->rank; i++)
        at = at * t->dims[i] + (i == axis ? v : index[i]);
    return at;
}
static void advance(const struct k_tensor *t, int64_t *index)
{
    for (int i = t->rank - 1; i >= 0 && ++index[i] == t->dims[i]; i--)
        index[i] = 0;
}

enum npuc_status k_op_gather_elements(struct k_call *c)
{
    int axis;
    int64_t n;
    if (!k_has(c, 2, 1) || !k_axis(c, k_attr_int(c, "axis", 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *at = c->in[1];
    int64_t *v = k_whole(c, 1, &n), index[K_MAX_RANK] = {0};
    bool fits = v && at->rank == x->rank;
    for (int i = 0; fits && i < x->rank; i++)
        fits = i == axis || at->dims[i] <= x->dims[i];
    if (!fits)
        return k_fail(c, NPUC_E_INVALID, "indices do not fit the data");
    const int64_t size = k_move_size(x->dtype);
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, at->rank, at->dims);
    if ((!src && k_count(x) > 0) || !y)
        return k_no_memory(c);
    for (int64_t i = 0; i < n; i++, advance(at, index)) {
        if (!index_ok(c, &v[i], x->dims[axis]))
            return NPUC_E_INVALID;
        memcpy(y + i * size, src + element_at(x, index, axis, v[i]) * size, (size_t)size);
    }
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* Element offset of the slice that `depth` indices select after `batch` leading dims; -1 with the error set. */
static int64_t slice_at(struct k_call *c, const struct k_tensor *x, int batch, int64_t *v, int64_t depth)
{
    int64_t at = 0;
    for (int64_t k = 0; k < depth; k++) {
        if (!index_ok(c, &v[k], x->dims[batch + k]))
            return -1;
        at += v[k] * k_stride(x, batch + (int)k);
    }
    return at;
}
enum npuc_status k_op_gather_nd(struct k_call *c)
{
    int64_t n, dims[K_MAX_RANK];
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *at = c->in[1];
    const int batch = (int)k_attr_int(c, "batch_dims", 0);
    int64_t *v = k_whole(c, 1, &n);
    if (!v)
        return k_no_memory(c);
    const int64_t depth = at->rank > 0 ? at->dims[at->rank - 1] : 0;
    if (at->rank < 1 || batch < 0 || batch >= at->rank || batch + depth > x->rank ||
        at->rank - 1 + x->rank - batch - depth > K_MAX_RANK)
        return k_fail(c, NPUC_E_INVALID, "indices do not fit the data");
    const int tail = x->rank - batch - (int)depth;
    memcpy(dims, at->dims, (size_t)(at->rank - 1) * sizeof *dims);
    memcpy(dims + at->rank - 1, x->dims + batch + depth, (size_t)tail * sizeof *dims);
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, at->rank - 1 + tail, dims);
    if ((!src && k_count(x) > 0) || !y)
        return k_no_memory(c);
    const int64_t slices = k_dims_count(at->rank - 1, at->dims), batches = k_dims_count(batch, at->dims);
    const int64_t row = k_dims_count(tail, dims + at->rank - 1) * k_move_size(x->dtype);
    const int64_t whole = k_dims_count(x->rank - batch, x->dims + batch);
    for (int64_t i = 0; i < slices; i++) {
        const int64_t from = slice_at(c, x, batch, v + i * depth, depth);
        if (from < 0)
            return NPUC_E_INVALID;
        const int64_t b = i / (slices / batches);
        memcpy(y + i * row, src + (b * whole + from) * k_move_size(x->dtype), (size_t)row);
    }
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* --- scatter --- */

/* How an update meets the element: replaced, or combined by a formula. */
static enum k_fn reduction_of(struct k_call *c)
{
    static const struct {
        const char *name;
        enum k_fn fn;
    } rows[] = {{"none", K_FN_Identity}, {"add", K_FN_Add}, {"mul", K_FN_Mul}, {"max", K_FN_Max}, {"min", K_FN_Min}};
    const char *name = k_attr_str(c, "reduction", "none");
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (!strcmp(rows[i].name, name))
            return rows[i].fn;
    k_fail(c, NPUC_E_INVALID, "unknown reduction");
    return K_FN_none;
}
struct scatter {
    enum k_fn fn;
    enum dtype t;
    char *y;
    const char *update;
    int64_t size;
};
static void scatter_run(const struct scatter *s, int64_t to, int64_t from, int64_t n)
{
    char *y = s->y + to * s->size;
    const char *u = s->update + from * s->size;
    if (s->fn == K_FN_Identity) {
        memcpy(y, u, (size_t)(n * s->size));
        return;
    }
    const struct k_rows arg[3] = {{y, 0, 1}, {u, 0, 1}};
    k_vec(s->fn, s->t, 1, n, y, 0, arg, NULL);
}
static enum npuc_status scatter_start(struct k_call *c, struct scatter *s)
{
    const struct k_tensor *x = c->in[0];
    *s = (struct scatter){.fn = reduction_of(c), .t = x->dtype, .size = k_move_size(x->dtype)};
    if (s->fn == K_FN_none)
        return NPUC_E_INVALID;
    if (c->in[2]->dtype != x->dtype || (s->fn != K_FN_Identity && !k_fn_supports(s->fn, x->dtype)))
        return k_fail(c, NPUC_E_INVALID, "type of the updates does not fit");
    const char *src = k_move_in(c, x);
    s->update = k_move_in(c, c->in[2]);
    s->y = k_move_out(c, 0, x->dtype, x->rank, x->dims);
    if ((!src && k_count(x) > 0) || (!s->update && k_count(c->in[2]) > 0) || !s->y)
        return k_no_memory(c);
    memmove(s->y, src, (size_t)(k_count(x) * s->size));
    return NPUC_OK;
}
enum npuc_status k_op_scatter_elements(struct k_call *c)
{
    int axis;
    int64_t n, index[K_MAX_RANK] = {0};
    struct scatter s;
    if (!k_has(c, 3, 1) || !k_axis(c, k_attr_int(c, "axis", 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *at = c->in[1];
    int64_t *v = k_whole(c, 1, &n);
    if (!v)
        return k_no_memory(c);
    bool fits = at->rank == x->rank && n == k_count(c->in[2]);
    for (int i = 0; fits && i < x->rank; i++)
        fits = i == axis || at->dims[i] <= x->dims[i];
    if (!fits)
        return k_fail(c, NPUC_E_INVALID, "indices, updates and data do not fit");
    K_TRY(scatter_start(c, &s));
    for (int64_t i = 0; i < n; i++, advance(at, index)) {
        if (!index_ok(c, &v[i], x->dims[axis]))
            return NPUC_E_INVALID;
        scatter_run(&s, element_at(x, index, axis, v[i]), i, 1);
    }
    k_move_done(c, 0, s.y);
    return NPUC_OK;
}
enum npuc_status k_op_scatter_nd(struct k_call *c)
{
    int64_t n;
    struct scatter s;
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *at = c->in[1];
    int64_t *v = k_whole(c, 1, &n);
    if (!v)
        return k_no_memory(c);
    const int64_t depth = at->rank > 0 ? at->dims[at->rank - 1] : 0;
    if (at->rank < 1 || depth > x->rank)
        return k_fail(c, NPUC_E_INVALID, "indices do not fit the data");
    const int64_t slices = k_dims_count(at->rank - 1, at->dims),
                  row = k_dims_count(x->rank - (int)depth, x->dims + depth);
    if (k_count(c->in[2]) != slices * row)
        return k_fail(c, NPUC_E_INVALID, "updates do not fit the indices");
    K_TRY(scatter_start(c, &s));
    for (int64_t i = 0; i < slices; i++) {
        const int64_t to = slice_at(c, x, 0, v + i * depth, depth);
        if (to < 0)
            return NPUC_E_INVALID;
        scatter_run(&s, to, i * row, row);
    }
    k_move_done(c, 0, s.y);
    return NPUC_OK;
}

enum npuc_status k_op_tensor_scatter(struct k_call *c)
{
    int axis;
    int64_t n = 0, *at = NULL;
    if (!k_has(c, 2, 1) || !k_axis(c, k_attr_int(c, "axis", -2), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *u = c->in[1];
    const bool circular = !strcmp(k_attr_str(c, "mode", "linear"), "circular");
    bool fits = u->rank == x->rank && u->dtype == x->dtype && axis > 0;
    for (int i = 0; fits && i < x->rank; i++)
        fits = i == axis ? u->dims[i] <= x->dims[i] : u->dims[i] == x->dims[i];
    if (k_in(c, 2) && !(at = k_whole(c, 2, &n)))
        return k_no_memory(c);
    if (!fits || (at && n != x->dims[0]))
        return k_fail(c, NPUC_E_INVALID, "update or write_indices do not fit the cache");
    const char *src = k_move_in(c, x), *up = k_move_in(c, u);
    char *y = k_move_out(c, 0, x->dtype, x->rank, x->dims);
    if ((!src && k_count(x) > 0) || (!up && k_count(u) > 0) || !y)
        return k_no_memory(c);
    const int64_t row = k_stride(x, axis) * k_move_size(x->dtype), outer = k_dims_count(axis, x->dims);
    const int64_t rows = x->dims[axis], add = u->dims[axis], per_batch = x->dims[0] > 0 ? outer / x->dims[0] : 1;
    memmove(y, src, (size_t)(outer * rows * row));
    for (int64_t o = 0; o < outer; o++)
        for (int64_t s = 0; s < add; s++) {
            int64_t to = (at ? at[o / per_batch] : 0) + s;
            if (circular && to >= 0)
                to %= rows;
            if (to < 0 || to >= rows)
                return k_fail(c, NPUC_E_INVALID, "row %lld is outside of the cache of %lld rows", (long long)to,
                              (long long)rows);
            memcpy(y + (o * rows + to) * row, up + (o * add + s) * row, (size_t)row);
        }
    k_move_done(c, 0, y);
    return NPUC_OK;
}

enum npuc_status k_op_one_hot(struct k_call *c)
{
    int64_t n, dims[K_MAX_RANK];
    int axis;
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *at = c->in[0], *values = c->in[2];
    const int64_t depth = k_get_i64(c->in[1], 0);
    if (at->rank >= K_MAX_RANK || !k_axis(c, k_attr_int(c, "axis", -1), at->rank + 1, &axis))
        return NPUC_E_INVALID;
    n = k_count(at);
    if (depth < 0 || k_count(values) < 2)
        return k_fail(c, NPUC_E_INVALID, "depth or values are not valid");
    memcpy(dims, at->dims, sizeof dims);
    memmove(dims + axis + 1, at->dims + axis, (size_t)(at->rank - axis) * sizeof *dims);
    dims[axis] = depth;
    const int64_t size = k_move_size(values->dtype), inner = k_dims_count(at->rank - axis, at->dims + axis);
    const char *v = k_move_in(c, values);
    char *y = k_move_out(c, 0, values->dtype, at->rank + 1, dims);
    if (!v || !y)
        return k_no_memory(c);
    for (int64_t i = 0; i < n * depth; i++)
        memcpy(y + i * size, v, (size_t)size);
    for (int64_t i = 0; i < n; i++) {
        int64_t k = k_get_i64(at, i);
        k += k < 0 ? depth : 0;
        if (k >= 0 && k < depth)
            memcpy(y + ((i / inner * depth + k) * inner + i % inner) * size, v + size, (size_t)size);
    }
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* A complex number with a part that is not 0, a text with a character. */
static bool is_set(const struct k_tensor *x, int64_t i)
{
    switch (x->dtype) {
    case DT_STRING: return ((const struct k_string *)x->data)[i].len > 0;
    case DT_C64: return ((const float *)x->data)[2 * i] != 0 || ((const float *)x->data)[2 * i + 1] != 0;
    case DT_C128: return ((const double *)x->data)[2 * i] != 0 || ((const double *)x->data)[2 * i + 1] != 0;
    default: return k_get_f64(x, i) != 0;
    }
}

enum npuc_status k_op_non_zero(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t n = k_count(x), rank = x->rank > 0 ? x->rank : 1;
    int64_t hits = 0, index[K_MAX_RANK] = {0};
    for (int64_t i = 0; i < n; i++)
        hits += is_set(x, i);
    int64_t *y = k_out(c, 0, DT_I64, 2, (const int64_t[]){rank, hits});
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0, at = 0; i < n; i++, advance(x, index))
        if (is_set(x, i)) {
            for (int64_t d = 0; d < rank; d++)
                y[d * hits + at] = index[d];
            at++;
        }
    return NPUC_OK;
}
