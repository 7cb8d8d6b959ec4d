/* Elementwise operators with broadcasting: formulas, their variadic and attribute-selected forms, casts. */
#include <math.h>
#include <string.h>

#include "kernels/op.h"

struct apply {
    enum k_fn fn;
    const struct k_nd *d;
    const struct k_tensor *const *in;
    int arity;
    char *dst;
    int64_t dst_size;
    const float *params;
};
static void apply_block(void *arg, const int64_t *offset)
{
    const struct apply *a = arg;
    const struct k_nd *d = a->d;
    const int last = d->rank - 1;
    struct k_rows rows[3] = {0};
    for (int i = 0; i < a->arity; i++)
        rows[i] = (struct k_rows){(const char *)a->in[i]->data + offset[i + 1] * dtype_size(a->in[i]->dtype),
                                  d->stride[i + 1][last - 1], d->stride[i + 1][last]};
    k_vec(a->fn, a->in[a->arity - 1]->dtype, d->dims[last - 1], d->dims[last], a->dst + offset[0] * a->dst_size,
          d->stride[0][last - 1], rows, a->params);
}

static bool shape_of(struct k_call *c, const struct k_tensor *const *in, int arity, struct k_nd *d)
{
    d->rank = in[0]->rank;
    memcpy(d->dims, in[0]->dims, sizeof d->dims);
    for (int i = 1; i < arity; i++) {
        int64_t dims[K_MAX_RANK];
        memcpy(dims, d->dims, sizeof dims);
        if (!k_broadcast(d->rank, dims, in[i]->rank, in[i]->dims, &d->rank, d->dims)) {
            k_fail(c, NPUC_E_INVALID, "shapes of the inputs do not broadcast");
            return false;
        }
    }
    return true;
}

/* Where of types that k_vec does not know (strings): by bytes. */
static enum npuc_status select_bytes(struct k_call *c, const struct k_tensor *const *in, const struct k_nd *d)
{
    const int64_t size = k_move_size(in[1]->dtype), n = k_dims_count(d->rank, d->dims);
    const void *src[2] = {k_move_in(c, in[1]), k_move_in(c, in[2])};
    char *y = k_move_out(c, 0, in[1]->dtype, d->rank, d->dims);
    char *spread = k_scratch(c, n, size);
    uint8_t *cond = k_scratch(c, n, 1);
    if (!src[0] || !src[1] || !y || !spread || !cond)
        return k_no_memory(c);
    struct k_nd m = *d;
    k_nd_dense(&m, 0);
    k_nd_broadcast(&m, 1, in[0]);
    k_nd_copy(m, cond, in[0]->data, 1);
    for (int side = 0; side < 2; side++) {
        k_nd_broadcast(&m, 1, in[1 + side]);
        k_nd_copy(m, side ? spread : y, src[side], size);
    }
    for (int64_t i = 0; i < n; i++)
        if (!cond[i])
            memcpy(y + i * size, spread + i * size, (size_t)size);
    k_move_done(c, 0, y);
    return NPUC_OK;
}

enum npuc_status k_apply(struct k_call *c, enum k_fn fn, const struct k_tensor *const *in, const float *params)
{
    const struct k_fn_info *info = k_fn_info(fn);
    const enum dtype t = in[info->arity - 1]->dtype;
    struct k_nd d = {.n = info->arity + 1};
    for (int i = fn == K_FN_Where ? 1 : 0; i < info->arity; i++)
        if (in[i]->dtype != t)
            return k_fail(c, NPUC_E_INVALID, "inputs have types %s and %s", dtype_table[in[i]->dtype].name,
                          dtype_table[t].name);
    if (!shape_of(c, in, info->arity, &d))
        return NPUC_E_INVALID;
    if (fn == K_FN_Where && dtype_size(t) == 0)
        return select_bytes(c, in, &d);
    if (!k_fn_supports(fn, t))
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[t].name);
    const enum dtype result = info->result == K_RESULT_BOOL ? DT_BOOL : t;
    void *y = k_out(c, 0, result, d.rank, d.dims);
    if (!y)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    for (int i = 0; i < info->arity; i++)
        k_nd_broadcast(&d, i + 1, in[i]);
    k_nd_collapse(&d);
    if (d.rank == 1) {
        d.rank = 2;
        d.dims[1] = d.dims[0];
        d.dims[0] = 1;
        for (int o = 0; o < d.n; o++) {
            d.stride[o][1] = d.stride[o][0];
            d.stride[o][0] = 0;
        }
    }
    k_nd_each(&d, 2, apply_block, &(struct apply){fn, &d, in, info->arity, y, dtype_size(result), params});
    return NPUC_OK;
}

struct param {
    const char *name;
    float value;
};
/* Attribute names and defaults of every formula, from its row. */
#define P0                                                                                                             \
    {                                                                                                                  \
        {                                                                                                              \
            0                                                                                                          \
        }                                                                                                              \
    }
#define P1(a, x)                                                                                                       \
    {                                                                                                                  \
        {                                                                                                              \
#a, x                                                                                                      \
        }                                                                                                              \
    }
#define P2(a, x, b, y)                                                                                                 \
    {                                                                                                                  \
        {#a, x},                                                                                                       \
        {                                                                                                              \
#b, y                                                                                                      \
        }                                                                                                              \
    }
#define P3(a, x, b, y, e, z)                                                                                           \
    {                                                                                                                  \
        {#a, x}, {#b, y},                                                                                              \
        {                                                                                                              \
#e, z                                                                                                      \
        }                                                                                                              \
    }
#define I2(a, x, b, y)                                         P2(a, x, b, y)
#define FORMULA(number, nm, arity, result, types, params, ...) [number] = params,
static const struct param params_of[K_FN_end][3] = {
#include "kernels/formula.def"
};
#undef FORMULA

static void read_params(const struct k_call *c, enum k_fn fn, float p[3])
{
    for (int i = 0; i < k_fn_info(fn)->n_params; i++)
        p[i] = k_attr_float(c, params_of[fn][i].name, params_of[fn][i].value);
}

enum npuc_status k_elementwise(struct k_call *c, enum k_fn fn)
{
    float p[3] = {0};
    if (!k_has(c, k_fn_info(fn)->arity, 1))
        return NPUC_E_INVALID;
    read_params(c, fn, p);
    return k_apply(c, fn, c->in, p);
}

/* --- forms that an attribute or the operands choose --- */

enum npuc_status k_op_gelu(struct k_call *c)
{
    return k_elementwise(c, strcmp(k_attr_str(c, "approximate", "none"), "tanh") ? K_FN_Gelu : K_FN_GeluTanh);
}
enum npuc_status k_op_mod(struct k_call *c)
{
    return k_elementwise(c, k_attr_int(c, "fmod", 0) ? K_FN_FMod : K_FN_Mod);
}
enum npuc_status k_op_bit_shift(struct k_call *c)
{
    return k_elementwise(c, strcmp(k_attr_str(c, "direction", ""), "LEFT") ? K_FN_BitShiftRight : K_FN_BitShiftLeft);
}

enum npuc_status k_op_identity(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = k_in(c, 0);
    if (x->kind != K_TENSOR) {
        c->out[0] = *x;
        return NPUC_OK;
    }
    void *y = k_out_like(c, 0, x);
    if (!y)
        return k_no_memory(c);
    memmove(y, x->data, (size_t)c->out[0].size);
    return NPUC_OK;
}

/* t as `to` in the arena; t itself when it has that type. */
static const struct k_tensor *as_type(struct k_call *c, const struct k_tensor *t, enum dtype to)
{
    if (t->dtype == to)
        return t;
    struct k_tensor *y = k_scratch(c, 1, sizeof *y);
    if (!y)
        return NULL;
    *y = *t;
    y->dtype = to;
    y->size = k_count(t) * k_move_size(to);
    y->data = k_scratch(c, k_count(t), k_move_size(to));
    if (!y->data)
        return NULL;
    k_cast(to, y->data, t->dtype, t->data, k_count(t), true);
    return y;
}

/* Runs fn in `work` instead of the type of output 0 and casts the result back. */
static enum npuc_status apply_as(struct k_call *c, enum k_fn fn, enum dtype work, const struct k_tensor *const *in,
                                 enum dtype result)
{
    const struct k_tensor *arg[3] = {0};
    for (int i = 0; i < k_fn_info(fn)->arity; i++)
        if (!(arg[i] = as_type(c, in[i], work)))
            return k_no_memory(c);
    float p[3] = {0};
    read_params(c, fn, p);
    if (work == result)
        return k_apply(c, fn, arg, p);
    struct k_tensor wide = {0};
    struct k_call inner = *c;
    inner.out = &wide;
    inner.n_out = 1;
    const enum npuc_status s = k_apply(&inner, fn, arg, p);
    memcpy(c->error, inner.error, sizeof c->error);
    K_TRY(s);
    void *y = k_out(c, 0, result, wide.rank, wide.dims);
    if (!y)
        return k_no_memory(c);
    k_cast(result, y, work, wide.data, k_count(&wide), true);
    return NPUC_OK;
}

/* The result has the type of the base; the exponent may have another. */
enum npuc_status k_op_pow(struct k_call *c)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const enum dtype t = c->in[0]->dtype, e = c->in[1]->dtype;
    const enum dtype work = t == e || dtype_is_float(t) || dtype_is_integer(e) ? t : DT_F64;
    return apply_as(c, K_FN_Pow, work, c->in, t);
}

/* Erf is defined for integers too. */
enum npuc_status k_op_erf(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const enum dtype t = c->in[0]->dtype;
    return apply_as(c, K_FN_Erf, dtype_is_float(t) ? t : DT_F32, c->in, t);
}

static bool same_text(const struct k_string *a, const struct k_string *b)
{
    return a->len == b->len && !memcmp(a->text, b->text, (size_t)a->len);
}
struct text_equal {
    uint8_t *y;
    const struct k_string *a, *b;
};
static void text_equal_one(void *arg, const int64_t *offset)
{
    const struct text_equal *t = arg;
    t->y[offset[0]] = same_text(&t->a[offset[1]], &t->b[offset[2]]);
}
enum npuc_status k_op_equal(struct k_call *c)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    if (c->in[0]->dtype != DT_STRING || c->in[1]->dtype != DT_STRING)
        return k_elementwise(c, K_FN_Equal);
    struct k_nd d = {.n = 3};
    if (!shape_of(c, c->in, 2, &d))
        return NPUC_E_INVALID;
    struct text_equal t = {k_out(c, 0, DT_BOOL, d.rank, d.dims), c->in[0]->data, c->in[1]->data};
    if (!t.y)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    k_nd_broadcast(&d, 1, c->in[0]);
    k_nd_broadcast(&d, 2, c->in[1]);
    k_nd_each(&d, 0, text_equal_one, &t);
    return NPUC_OK;
}

/* Where on strings; numbers and bits are the formula's. */
struct text_where {
    struct k_string *y;
    const bool *cond;
    const struct k_string *a, *b;
};
static void text_where_one(void *arg, const int64_t *offset)
{
    const struct text_where *t = arg;
    t->y[offset[0]] = t->cond[offset[1]] ? t->a[offset[2]] : t->b[offset[3]];
}
enum npuc_status k_op_where(struct k_call *c)
{
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    if (c->in[1]->dtype != DT_STRING || c->in[2]->dtype != DT_STRING || c->in[0]->dtype != DT_BOOL)
        return k_elementwise(c, K_FN_Where);
    struct k_nd d = {.n = 4};
    if (!shape_of(c, c->in, 3, &d))
        return NPUC_E_INVALID;
    struct text_where t = {k_out(c, 0, DT_STRING, d.rank, d.dims), c->in[0]->data, c->in[1]->data, c->in[2]->data};
    if (!t.y)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    for (int i = 0; i < 3; i++)
        k_nd_broadcast(&d, i + 1, c->in[i]);
    k_nd_each(&d, 0, text_where_one, &t);
    return NPUC_OK;
}

/* Sum, Mean, Max, Min: a chain of the binary formula, left to right. */
static enum npuc_status chain(struct k_call *c, enum k_fn fn)
{
    if (!k_has(c, c->n_in > 1 ? c->n_in : 1, 1))
        return NPUC_E_INVALID;
    if (c->n_in == 1)
        return k_op_identity(c);
    const float p[3] = {0};
    struct k_tensor step[2] = {0};
    const struct k_tensor *left = c->in[0];
    for (int i = 1; i < c->n_in; i++) {
        const struct k_tensor *const in[3] = {left, c->in[i]};
        if (i == c->n_in - 1)
            return k_apply(c, fn, in, p);
        struct k_call inner = *c;
        step[i % 2] = (struct k_tensor){0};
        inner.out = &step[i % 2];
        const enum npuc_status s = k_apply(&inner, fn, in, p);
        memcpy(c->error, inner.error, sizeof c->error);
        K_TRY(s);
        left = &step[i % 2];
    }
    return NPUC_OK;
}
enum npuc_status k_op_sum(struct k_call *c)
{
    return chain(c, K_FN_Add);
}
enum npuc_status k_op_max(struct k_call *c)
{
    return chain(c, K_FN_Max);
}
enum npuc_status k_op_min(struct k_call *c)
{
    return chain(c, K_FN_Min);
}
enum npuc_status k_op_mean(struct k_call *c)
{
    K_TRY(chain(c, K_FN_Add));
    const struct k_tensor *y = &c->out[0];
    struct k_tensor n = {.dtype = y->dtype, .data = k_scratch(c, 1, 8), .size = 8};
    if (!n.data)
        return k_no_memory(c);
    k_set_i64(&n, 0, c->n_in);
    const struct k_tensor sum = *y, *const in[3] = {&sum, &n};
    return k_apply(c, K_FN_Div, in, NULL);
}

/* Absent bounds are the type's own. */
static const struct k_tensor *bound(struct k_call *c, int i, bool low)
{
    if (k_in(c, i))
        return k_in(c, i);
    const enum dtype t = c->in[0]->dtype;
    struct k_tensor *b = k_scratch(c, 1, sizeof *b);
    union k_lanes *lanes = k_scratch(c, 1, sizeof *lanes);
    if (!b || !lanes)
        return NULL;
    *b = (struct k_tensor){.dtype = t, .data = lanes, .size = 8};
    union k_lanes acc;
    k_red_init(low ? K_RED_MAX : K_RED_MIN, t, &acc); /* their neutral elements */
    k_narrow(t, lanes, 0, &acc, 1, false);
    return b;
}
enum npuc_status k_op_clip(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *const in[3] = {c->in[0], bound(c, 1, true), bound(c, 2, false)};
    if (!in[1] || !in[2])
        return k_no_memory(c);
    return k_apply(c, K_FN_Clip, in, NULL);
}

enum npuc_status k_op_swiglu(struct k_call *c)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    struct k_tensor gate = {0};
    struct k_call inner = *c;
    inner.out = &gate;
    const float p[3] = {k_attr_float(c, "alpha", 1.0f)};
    K_TRY(k_apply(&inner, K_FN_Swish, c->in, p));
    const struct k_tensor *const in[3] = {&gate, c->in[1]};
    return k_apply(c, K_FN_Mul, in, p);
}
