/* Sequences of tensors. Results share the elements of their operands: a kernel makes new lists, never new elements,
 * except where it cuts or joins tensors. */
#include <string.h>

#include "base/size.h"
#include "kernels/op.h"

/* Output 0 as a list of n elements; NULL with the error set. */
static struct k_tensor *out_list(struct k_call *c, enum k_kind kind, enum dtype t, int64_t n)
{
    struct k_tensor *at = k_scratch(c, n, (int64_t)sizeof *at);
    if (at)
        c->out[0] = (struct k_tensor){
            .kind = kind, .dtype = t, .rank = 1, .dims = {n}, .data = at, .size = n * (int64_t)sizeof *at};
    return at;
}

/* Input i is a value of this kind; false with the error set. */
static bool is_kind(struct k_call *c, int i, enum k_kind kind)
{
    static const char *const names[] = {"a tensor", "a sequence", "an optional"};
    const struct k_tensor *t = k_in(c, i);
    if (t && t->kind == kind)
        return true;
    k_fail(c, NPUC_E_INVALID, "input %d must be %s", i, names[kind]);
    return false;
}

/* Another operator's kernel as a part of this one; its message becomes this operator's. */
static enum npuc_status part(struct k_call *c, k_op_fn *fn, struct k_call inner)
{
    inner.op = c->op;
    inner.arena = c->arena;
    inner.pool = c->pool;
    const enum npuc_status s = fn(&inner);
    if (s != NPUC_OK)
        memcpy(c->error, inner.error, sizeof c->error);
    return s;
}

/* Position input i of a list with `limit` places, from the end when negative; `otherwise` when absent. */
static bool position(struct k_call *c, int i, int64_t otherwise, int64_t limit, int64_t *out)
{
    int64_t n = 1, at = otherwise;
    if (k_in(c, i)) {
        const int64_t *v = k_whole(c, i, &n);
        if (!v)
            return false;
        at = n == 1 ? v[0] : INT64_MIN;
        at = at < 0 && at > INT64_MIN ? at + k_in(c, 0)->dims[0] : at;
    }
    if (n == 1 && at >= 0 && at < limit) {
        *out = at;
        return true;
    }
    k_fail(c, NPUC_E_INVALID, "the position is outside of the sequence of %lld elements",
           (long long)k_in(c, 0)->dims[0]);
    return false;
}

enum npuc_status k_op_sequence_construct(struct k_call *c)
{
    if (!k_has(c, c->n_in > 1 ? c->n_in : 1, 1))
        return NPUC_E_INVALID;
    struct k_tensor *y = out_list(c, K_SEQUENCE, c->in[0]->dtype, c->n_in);
    for (int i = 0; y && i < c->n_in; i++) {
        if (!is_kind(c, i, K_TENSOR))
            return NPUC_E_INVALID;
        y[i] = *c->in[i];
    }
    return y ? NPUC_OK : k_no_memory(c);
}

enum npuc_status k_op_sequence_empty(struct k_call *c)
{
    if (!k_has(c, 0, 1))
        return NPUC_E_INVALID;
    const int64_t t = k_attr_int(c, "dtype", 0);
    return out_list(c, K_SEQUENCE, t ? dtype_from_onnx(t) : DT_F32, 0) ? NPUC_OK : k_no_memory(c);
}

enum npuc_status k_op_sequence_at(struct k_call *c)
{
    int64_t at;
    if (!k_has(c, 2, 1) || !is_kind(c, 0, K_SEQUENCE) || !position(c, 1, 0, c->in[0]->dims[0], &at))
        return NPUC_E_INVALID;
    c->out[0] = ((const struct k_tensor *)c->in[0]->data)[at];
    return NPUC_OK;
}

enum npuc_status k_op_sequence_length(struct k_call *c)
{
    if (!k_has(c, 1, 1) || !is_kind(c, 0, K_SEQUENCE))
        return NPUC_E_INVALID;
    int64_t *y = k_out(c, 0, DT_I64, 0, NULL);
    if (!y)
        return k_no_memory(c);
    *y = c->in[0]->dims[0];
    return NPUC_OK;
}

enum npuc_status k_op_sequence_insert(struct k_call *c)
{
    int64_t at;
    if (!k_has(c, 2, 1) || !is_kind(c, 0, K_SEQUENCE) || !is_kind(c, 1, K_TENSOR) ||
        !position(c, 2, c->in[0]->dims[0], c->in[0]->dims[0] + 1, &at))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t n = x->dims[0];
    struct k_tensor *y = out_list(c, K_SEQUENCE, c->in[1]->dtype, n + 1);
    if (!y)
        return k_no_memory(c);
    memcpy(y, x->data, (size_t)at * sizeof *y);
    y[at] = *c->in[1];
    memcpy(y + at + 1, (const struct k_tensor *)x->data + at, (size_t)(n - at) * sizeof *y);
    return NPUC_OK;
}

enum npuc_status k_op_sequence_erase(struct k_call *c)
{
    int64_t at;
    if (!k_has(c, 1, 1) || !is_kind(c, 0, K_SEQUENCE) || !position(c, 1, c->in[0]->dims[0] - 1, c->in[0]->dims[0], &at))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t n = x->dims[0];
    struct k_tensor *y = out_list(c, K_SEQUENCE, x->dtype, n - 1);
    if (!y)
        return k_no_memory(c);
    memcpy(y, x->data, (size_t)at * sizeof *y);
    memcpy(y + at, (const struct k_tensor *)x->data + at + 1, (size_t)(n - 1 - at) * sizeof *y);
    return NPUC_OK;
}

/* ---- cutting and joining */

/* Lengths of the pieces of an axis of `dim`: given one by one, or all of one length but the last. */
static int64_t *piece_lengths(struct k_call *c, int64_t dim, int64_t *n)
{
    int64_t chunk = 1;
    if (k_in(c, 1)) {
        int64_t *v = k_whole(c, 1, n);
        if (!v || c->in[1]->rank == 1)
            return v;
        chunk = *n == 1 ? v[0] : 0;
    }
    if (chunk < 1) {
        k_fail(c, NPUC_E_INVALID, "split must be at least 1");
        return NULL;
    }
    *n = dim / chunk + (dim % chunk != 0);
    int64_t *len = k_scratch(c, *n, (int64_t)sizeof *len);
    for (int64_t i = 0; len && i < *n; i++)
        len[i] = dim - i * chunk < chunk ? dim - i * chunk : chunk;
    return len;
}

static void drop_axis(struct k_tensor *t, int axis)
{
    t->rank--;
    memmove(t->dims + axis, t->dims + axis + 1, (size_t)(t->rank - axis) * sizeof *t->dims);
}

enum npuc_status k_op_split_to_sequence(struct k_call *c)
{
    int axis;
    int64_t n, sum = 0;
    if (!k_has(c, 1, 1) || !is_kind(c, 0, K_TENSOR) || !k_axis(c, k_attr_int(c, "axis", 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    int64_t *len = piece_lengths(c, x->dims[axis], &n);
    if (!len)
        return k_no_memory(c);
    for (int64_t i = 0; i < n; i++)
        if (!size_add(sum, len[i], &sum) || n > INT32_MAX)
            return k_fail(c, NPUC_E_INVALID, "length %lld of a piece is not valid", (long long)len[i]);
    if (sum != x->dims[axis])
        return k_fail(c, NPUC_E_INVALID, "the pieces have %lld elements together, the axis has %lld", (long long)sum,
                      (long long)x->dims[axis]);
    struct k_tensor *y = out_list(c, K_SEQUENCE, x->dtype, n);
    const struct k_tensor lengths = {.dtype = DT_I64, .rank = 1, .dims = {n}, .data = len, .size = n * 8};
    const struct k_tensor *in[2] = {x, &lengths};
    const struct k_attr attr = {.name = "axis", .kind = K_ATTR_INT, .v.i = axis};
    const struct k_call split = {.in = in, .n_in = 2, .out = y, .n_out = (int)n, .attrs = &attr, .n_attrs = 1};
    const enum npuc_status s = !y ? k_no_memory(c) : n ? part(c, k_op_split, split) : NPUC_OK;
    for (int64_t i = 0; s == NPUC_OK && i < n && !k_in(c, 1) && !k_attr_int(c, "keepdims", 1); i++)
        drop_axis(&y[i], axis);
    return s;
}

enum npuc_status k_op_concat_from_sequence(struct k_call *c)
{
    if (!k_has(c, 1, 1) || !is_kind(c, 0, K_SEQUENCE))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t n = x->dims[0], stack = k_attr_int(c, "new_axis", 0);
    const struct k_tensor **in = k_scratch(c, n, (int64_t)sizeof *in);
    struct k_tensor *at = k_scratch(c, n, (int64_t)sizeof *at);
    int axis;
    if (!in || !at)
        return k_no_memory(c);
    if (n < 1 || n > INT32_MAX)
        return k_fail(c, NPUC_E_INVALID, "there is nothing to join in a sequence of %lld elements", (long long)n);
    memcpy(at, x->data, (size_t)n * sizeof *at);
    if (!k_axis(c, k_attr_int(c, "axis", 0), at[0].rank + (stack != 0), &axis))
        return NPUC_E_INVALID;
    for (int64_t i = 0; i < n; i++) {
        in[i] = &at[i];
        if (!stack)
            continue;
        if (at[i].rank >= K_MAX_RANK || axis > at[i].rank)
            return k_fail(c, NPUC_E_INVALID, "element %lld has rank %d", (long long)i, at[i].rank);
        memmove(at[i].dims + axis + 1, at[i].dims + axis, (size_t)(at[i].rank - axis) * sizeof *at[i].dims);
        at[i].dims[axis] = 1;
        at[i].rank++;
    }
    const struct k_attr attr = {.name = "axis", .kind = K_ATTR_INT, .v.i = axis};
    const struct k_call join = {.in = in, .n_in = (int)n, .out = c->out, .n_out = 1, .attrs = &attr, .n_attrs = 1};
    return part(c, k_op_concat, join);
}

/* ---- optionals */

enum npuc_status k_op_optional(struct k_call *c)
{
    if (!k_has(c, 0, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = k_in(c, 0);
    struct k_tensor *y = out_list(c, K_OPTIONAL, x ? x->dtype : DT_NONE, x != NULL);
    if (!y)
        return k_no_memory(c);
    if (x)
        y[0] = *x;
    return NPUC_OK;
}

/* A value that is no optional is there. */
enum npuc_status k_op_optional_has_element(struct k_call *c)
{
    bool *y = k_has(c, 0, 1) ? k_out(c, 0, DT_BOOL, 0, NULL) : NULL;
    if (!y)
        return k_no_memory(c);
    const struct k_tensor *x = k_in(c, 0);
    *y = x && (x->kind != K_OPTIONAL || x->dims[0] > 0);
    return NPUC_OK;
}

enum npuc_status k_op_optional_get_element(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    if (x->kind == K_OPTIONAL && x->dims[0] < 1)
        return k_fail(c, NPUC_E_INVALID, "the optional value is empty");
    c->out[0] = x->kind == K_OPTIONAL ? *(const struct k_tensor *)x->data : *x;
    return NPUC_OK;
}
