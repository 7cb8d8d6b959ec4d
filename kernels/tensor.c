/* The calling convention of operator kernels: outputs, attributes, elements. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "kernels/op.h"

int64_t k_dims_count(int rank, const int64_t *dims)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    return n;
}
int64_t k_count(const struct k_tensor *t)
{
    return k_dims_count(t->rank, t->dims);
}
int64_t k_stride(const struct k_tensor *t, int axis)
{
    return k_dims_count(t->rank - axis - 1, t->dims + axis + 1);
}

enum npuc_status k_fail(struct k_call *c, enum npuc_status s, const char *fmt, ...)
{
    const int at = snprintf(c->error, sizeof c->error, "%s: ", c->op ? c->op : "?");
    va_list args;
    va_start(args, fmt);
    if (at > 0 && at < (int)sizeof c->error)
        (void)vsnprintf(c->error + at, sizeof c->error - (size_t)at, fmt, args);
    va_end(args);
    return s;
}
enum npuc_status k_no_memory(struct k_call *c)
{
    return c->error[0] ? NPUC_E_INVALID : k_fail(c, NPUC_E_NOMEM, "out of memory");
}

bool k_has(struct k_call *c, int n, int m)
{
    for (int i = 0; i < n; i++)
        if (!k_in(c, i)) {
            k_fail(c, NPUC_E_INVALID, "input %d is missing", i);
            return false;
        }
    if (c->n_out < m)
        k_fail(c, NPUC_E_INVALID, "%d outputs expected", m);
    return c->n_out >= m;
}

static int64_t bytes_of(enum dtype t, int64_t n)
{
    int64_t size;
    if (t == DT_STRING)
        return size_mul(n, (int64_t)sizeof(struct k_string), &size) ? size : -1;
    return dtype_bytes(t, n, &size) ? size : -1;
}

void *k_out(struct k_call *c, int i, enum dtype t, int rank, const int64_t *dims)
{
    int64_t n = 1;
    bool fits = rank <= K_MAX_RANK;
    if (!fits) {
        k_fail(c, NPUC_E_LIMIT, "rank %d exceeds %d", rank, K_MAX_RANK);
        return NULL;
    }
    for (int d = 0; d < rank; d++)
        fits = fits && size_mul(n, dims[d], &n);
    const int64_t size = fits ? bytes_of(t, n) : -1;
    if (size < 0) {
        k_fail(c, NPUC_E_LIMIT, "output %d is too large", i);
        return NULL;
    }
    struct k_tensor *out = &c->out[i];
    if (!out->data || out->size < size) {
        out->data = arena_alloc(c->arena, size > 0 ? size : 1, 64);
        if (!out->data) {
            k_fail(c, NPUC_E_NOMEM, "out of memory");
            return NULL;
        }
    }
    out->kind = K_TENSOR;
    out->dtype = t;
    out->rank = rank;
    for (int d = 0; d < rank; d++)
        out->dims[d] = dims[d];
    out->size = size;
    return out->data;
}
void *k_out_like(struct k_call *c, int i, const struct k_tensor *like)
{
    return k_out(c, i, like->dtype, like->rank, like->dims);
}

void *k_scratch(struct k_call *c, int64_t n, int64_t size)
{
    int64_t bytes;
    if (!size_mul(n, size, &bytes)) {
        k_fail(c, NPUC_E_LIMIT, "intermediate result is too large");
        return NULL;
    }
    void *p = arena_zalloc(c->arena, bytes > 0 ? bytes : 1);
    if (!p)
        k_fail(c, NPUC_E_NOMEM, "out of memory");
    return p;
}
float *k_floats(struct k_call *c, const struct k_tensor *t)
{
    if (t->dtype == DT_F32)
        return t->data;
    float *x = k_scratch(c, k_count(t), sizeof *x);
    if (x)
        k_load_f32(x, t->dtype, t->data, 0, k_count(t));
    return x;
}
enum npuc_status k_out_floats(struct k_call *c, int i, enum dtype t, const struct k_tensor *shape, const float *x)
{
    void *y = k_out(c, i, t, shape->rank, shape->dims);
    if (!y)
        return k_no_memory(c);
    k_cast(t, y, DT_F32, x, k_count(shape), true);
    return NPUC_OK;
}

int64_t *k_whole(struct k_call *c, int i, int64_t *n)
{
    const struct k_tensor *t = k_in(c, i);
    if (!t || !(dtype_is_integer(t->dtype) || t->dtype == DT_BOOL)) {
        k_fail(c, NPUC_E_INVALID, "input %d must be a tensor of whole numbers", i);
        return NULL;
    }
    *n = k_count(t);
    int64_t *v = k_scratch(c, *n, sizeof *v);
    if (v)
        k_cast(DT_I64, v, t->dtype, t->data, *n, true);
    return v;
}
bool k_axis(struct k_call *c, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank) {
        k_fail(c, NPUC_E_INVALID, "axis %lld is out of range for rank %d", (long long)axis, rank);
        return false;
    }
    *out = (int)(axis < 0 ? axis + rank : axis);
    return true;
}

const struct k_attr *k_attr_find(const struct k_call *c, const char *name)
{
    for (int i = 0; i < c->n_attrs; i++)
        if (!strcmp(c->attrs[i].name, name))
            return &c->attrs[i];
    return NULL;
}
int64_t k_attr_int(const struct k_call *c, const char *name, int64_t otherwise)
{
    const struct k_attr *a = k_attr_find(c, name);
    if (!a)
        return otherwise;
    return a->kind == K_ATTR_INT ? a->v.i : a->kind == K_ATTR_FLOAT ? (int64_t)a->v.f : otherwise;
}
float k_attr_float(const struct k_call *c, const char *name, float otherwise)
{
    const struct k_attr *a = k_attr_find(c, name);
    if (!a)
        return otherwise;
    return a->kind == K_ATTR_FLOAT ? a->v.f : a->kind == K_ATTR_INT ? (float)a->v.i : otherwise;
}
const char *k_attr_str(const struct k_call *c, const char *name, const char *otherwise)
{
    const struct k_attr *a = k_attr_find(c, name);
    return a && a->kind == K_ATTR_STRING ? a->v.s : otherwise;
}

double k_get_f64(const struct k_tensor *t, int64_t index)
{
    double v = 0;
    k_load_f64(&v, t->dtype, t->data, index, 1);
    return v;
}
int64_t k_get_i64(const struct k_tensor *t, int64_t index)
{
    if (dtype_is_float(t->dtype)) {
        const double v = k_get_f64(t, index);
        int64_t y;
        k_cast(DT_I64, &y, DT_F64, &v, 1, true);
        return y;
    }
    int64_t v = 0;
    k_widen(&v, t->dtype, t->data, index, 1);
    return v;
}
void k_set_f64(const struct k_tensor *t, int64_t index, double v)
{
    union {
        float f;
        double d;
        int64_t i;
    } u = {.d = v};
    const enum k_wide w = k_wide_of(t->dtype);
    if (w == K_WIDE_F32)
        u.f = (float)v;
    else if (w != K_WIDE_F64)
        k_cast(DT_I64, &u.i, DT_F64, &v, 1, true);
    k_narrow(t->dtype, t->data, index, &u, 1, true);
}
void k_set_i64(const struct k_tensor *t, int64_t index, int64_t v)
{
    if (dtype_is_float(t->dtype))
        k_set_f64(t, index, (double)v);
    else
        k_narrow(t->dtype, t->data, index, &v, 1, true);
}

bool k_broadcast(int ra, const int64_t *a, int rb, const int64_t *b, int *rank, int64_t *dims)
{
    *rank = ra > rb ? ra : rb;
    if (*rank > K_MAX_RANK)
        return false;
    for (int i = *rank - 1; i >= 0; i--) {
        const int ia = i - (*rank - ra), ib = i - (*rank - rb);
        const int64_t da = ia >= 0 ? a[ia] : 1, db = ib >= 0 ? b[ib] : 1;
        if (da != db && da != 1 && db != 1)
            return false;
        dims[i] = da == 1 ? db : da;
    }
    return true;
}
