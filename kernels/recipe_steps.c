/* Steps of recipes in one call each, for every driver. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/op.h"
#include "kernels/recipe.h"

enum npuc_status r_fail(struct recipe *r, const char *fmt, ...)
{
    char text[200];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (r->status == NPUC_OK)
        r->status = k_fail(r->c, NPUC_E_INVALID, "%s", text);
    return r->status;
}

static rval step(struct recipe *r, const char *op, int n_in, const rval *in, int n_attrs, const struct k_attr *attrs)
{
    return r->status == NPUC_OK ? r->d->node(r, op, n_in, in, n_attrs, attrs) : NULL;
}

rval r1(struct recipe *r, const char *op, rval x)
{
    return step(r, op, 1, &x, 0, NULL);
}
rval r2(struct recipe *r, const char *op, rval x, rval y)
{
    return step(r, op, 2, (rval[]){x, y}, 0, NULL);
}
rval r3(struct recipe *r, const char *op, rval x, rval y, rval z)
{
    return step(r, op, 3, (rval[]){x, y, z}, 0, NULL);
}
rval r_attr1(struct recipe *r, const char *op, rval x, struct k_attr a)
{
    return step(r, op, 1, &x, 1, &a);
}
rval r_node(struct recipe *r, const char *op, int n_in, const rval *in, int n_attrs, const struct k_attr *attrs)
{
    return step(r, op, n_in, in, n_attrs, attrs);
}
struct k_attr r_int(const char *name, int64_t v)
{
    return (struct k_attr){.name = name, .kind = K_ATTR_INT, .v.i = v};
}

enum dtype r_type(struct recipe *r, rval x)
{
    return x ? r->d->type(x) : DT_NONE;
}
int r_rank(struct recipe *r, rval x)
{
    return x ? r->d->rank(x) : 0;
}
enum dtype r_wide(enum dtype t)
{
    return t == DT_F64 ? DT_F64 : DT_F32;
}
rdim r_dim(struct recipe *r, rval x, int axis)
{
    if (r->status != NPUC_OK)
        return r->d->number(r, 0);
    const int rank = r->d->rank(x), at = axis < 0 ? axis + rank : axis;
    if (at < 0 || at >= rank) {
        r_fail(r, "an input has %d dims, more expected", rank);
        return r->d->number(r, 0);
    }
    return r->d->dim(r, x, at);
}
bool r_size(struct recipe *r, rval x, int axis, int64_t *out)
{
    *out = 0;
    const rdim d = r_dim(r, x, axis);
    return r->status == NPUC_OK && r->d->known(r, d, out);
}

rval r_cast(struct recipe *r, rval x, enum dtype t)
{
    if (r->status != NPUC_OK || r->d->type(x) == t)
        return x;
    return r_attr1(r, "Cast", x, r_int("to", dtype_table[t].onnx));
}
rval r_real(struct recipe *r, enum dtype t, double v)
{
    double cell[2] = {0};
    const struct k_tensor one = {.dtype = t, .data = cell, .size = (int64_t)sizeof cell};
    k_set_f64(&one, 0, v);
    return r->status == NPUC_OK ? r->d->constant(r, t, 0, NULL, cell) : NULL;
}
rval r_ints(struct recipe *r, const int64_t *v, int64_t n)
{
    return r->status == NPUC_OK ? r->d->constant(r, DT_I64, 1, &n, v) : NULL;
}
static rval sizes(struct recipe *r, const rdim *d, int n)
{
    return r->status == NPUC_OK ? r->d->sizes(r, d, n) : NULL;
}
rval r_expand(struct recipe *r, rval x, const rdim *d, int n)
{
    return r2(r, "Expand", x, sizes(r, d, n));
}
rval r_full(struct recipe *r, enum dtype t, double v, const rdim *d, int n)
{
    return r_expand(r, r_real(r, t, v), d, n);
}
rval r_zeros(struct recipe *r, enum dtype t, const rdim *d, int n)
{
    return r_full(r, t, 0, d, n);
}
rval r_shape(struct recipe *r, rval x, const rdim *d, int n)
{
    return step(r, "Reshape", 2, (rval[]){x, sizes(r, d, n)}, 1, (struct k_attr[]){r_int("allowzero", 1)});
}
rval r_perm(struct recipe *r, rval x, int n, const int64_t *perm)
{
    bool same = true;
    for (int i = 0; i < n; i++)
        same = same && perm[i] == i;
    return same ? x : r_attr1(r, "Transpose", x, (struct k_attr){"perm", K_ATTR_INTS, n, {.ints = perm}});
}
rval r_swap(struct recipe *r, rval x)
{
    int64_t perm[K_MAX_RANK];
    const int n = r_rank(r, x);
    for (int i = 0; i < n; i++)
        perm[i] = i < n - 2 ? i : 2 * n - 3 - i;
    return r_perm(r, x, n, perm);
}
rval r_unsqueeze(struct recipe *r, rval x, int64_t axis)
{
    return r2(r, "Unsqueeze", x, r_ints(r, &axis, 1));
}
rval r_squeeze(struct recipe *r, rval x, int64_t axis)
{
    return r2(r, "Squeeze", x, r_ints(r, &axis, 1));
}
rval r_slice_dims(struct recipe *r, rval x, int64_t axis, rdim from, rdim to)
{
    return step(r, "Slice", 4, (rval[]){x, sizes(r, &from, 1), sizes(r, &to, 1), r_ints(r, &axis, 1)}, 0, NULL);
}
rval r_slice(struct recipe *r, rval x, int64_t axis, int64_t from, int64_t to)
{
    return step(r, "Slice", 4, (rval[]){x, r_ints(r, &from, 1), r_ints(r, &to, 1), r_ints(r, &axis, 1)}, 0, NULL);
}
rval r_concat(struct recipe *r, const rval *x, int n, int64_t axis)
{
    return n == 1 ? x[0] : step(r, "Concat", n, x, 1, (struct k_attr[]){r_int("axis", axis)});
}
rval r_sum(struct recipe *r, rval x, const int64_t *axes, int64_t n, bool keep)
{
    const struct k_attr kept = r_int("keepdims", keep);
    return step(r, "ReduceSum", n ? 2 : 1, (rval[]){x, n ? r_ints(r, axes, n) : NULL}, 1, &kept);
}
