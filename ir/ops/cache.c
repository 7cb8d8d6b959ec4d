/* KV caches of codes: kernels/op_cache_code.c says what the operators do. Codes and scales are two tensors with the
 * axes of the cache, whose last one holds the codes of a row, or its scales and zero points. */
#include "ir/cache_code.h"
#include "ir/ops/infer.h"

static bool last_of(const struct ir_ctx *cx, const struct value *v, int64_t *out)
{
    const struct type *t = v ? v->type : NULL;
    return t && t->kind == TYPE_TENSOR && t->rank >= 2 && expr_is_const(&cx->exprs, t->dims[t->rank - 1], out);
}

bool cache_form(const struct ir_ctx *cx, const struct node *n, struct k_cache_form *f)
{
    const enum dtype code = dtype_from_onnx(node_attr_int(n, "code", 0));
    const bool shifted = node_attr_int(n, "zero", 0) != 0;
    int64_t size, scales;
    if (code == DT_NONE || !last_of(cx, node_in(n, 0), &size))
        return false;
    if (n->op == OP_CacheEncode) {
        const enum dtype t = node_in(n, 0)->type->dtype == DT_BF16 ? DT_BF16 : DT_F16;
        *f = k_cache_form_of(code, shifted, size, node_attr_int(n, "group", 0), t);
        return k_cache_takes(code, shifted, size);
    }
    if (!last_of(cx, node_in(n, 1), &scales))
        return false;
    size *= dtype_table[code].bits == 4 ? 2 : 1;
    const int64_t groups = scales / (shifted ? 2 : 1);
    if (!k_cache_takes(code, shifted, size) || groups < 1 || size % groups != 0)
        return false;
    *f = k_cache_form_of(code, shifted, size, size / groups, node_in(n, 1)->type->dtype);
    return f->group * groups == size && k_cache_scales(f) == scales &&
           node_in(n, 0)->type->dtype == k_cache_stored(f) && (f->scale == DT_F16 || f->scale == DT_BF16);
}

static enum npuc_status begin(struct ir_ctx *cx, const struct node *n, struct k_cache_form *f)
{
    const enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK && !cache_form(cx, n, f))
        return node_error(cx, n, D_SHAPE_MISMATCH,
                          "rows of input 0 have no known length, or one that the codes do not have");
    return s;
}

/* Output i: `x` with another last axis. */
static enum npuc_status part(struct ir_ctx *cx, struct node *n, int i, struct shape x, enum dtype t, int64_t last)
{
    x.d[x.rank - 1] = expr_const(&cx->exprs, last);
    return infer_out(cx, n, i, t, &x);
}

static void lay(struct ir_ctx *cx, struct value *v, const struct layout *l)
{
    if (l->kind == LAYOUT_CACHE)
        v->type = type_with_layout(cx, v->type, *l);
}

/* Operand i: matrices [heads, size, size] of f32 that turn rows of n; they may be absent. */
static enum npuc_status check_turn(struct ir_ctx *cx, const struct node *n, int i, int64_t size)
{
    if (!infer_has(n, i))
        return NPUC_OK;
    const struct shape x = infer_shape(n, 0), m = infer_shape(n, i);
    const bool fits = infer_dtype(n, i) == DT_F32 && x.rank >= 3 && m.rank == 3 && m.d[0] == x.d[x.rank - 3] &&
                      infer_dim_is(cx, m.d[1], size) && infer_dim_is(cx, m.d[2], size);
    return fits ? NPUC_OK
                : node_error(cx, n, D_SHAPE_MISMATCH, "input %d has no matrix of f32 for each head, %lld by %lld", i,
                             (long long)size, (long long)size);
}

static enum npuc_status encode_infer(struct ir_ctx *cx, struct node *n)
{
    struct k_cache_form f;
    enum npuc_status s = begin(cx, n, &f);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK)
        s = check_turn(cx, n, 1, f.size);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    int axis;
    s = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    if (s == NPUC_OK && axis == x.rank - 1)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'axis' is the last axis, along which rows are coded");
    if (s == NPUC_OK)
        s = part(cx, n, 0, x, k_cache_stored(&f), k_cache_row(&f));
    if (s == NPUC_OK)
        s = part(cx, n, 1, x, f.scale, k_cache_scales(&f));
    if (s != NPUC_OK)
        return s;
    const int64_t capacity = node_attr_int(n, "capacity", 0);
    const struct layout l = {
        .kind = LAYOUT_CACHE, .axis = axis, .capacity = capacity > 0 ? expr_const(&cx->exprs, capacity) : x.d[axis]};
    lay(cx, &n->out[0], &l);
    lay(cx, &n->out[1], &l);
    return NPUC_OK;
}

static enum npuc_status append_coded_infer(struct ir_ctx *cx, struct node *n)
{
    struct k_cache_form f;
    enum npuc_status s = begin(cx, n, &f);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 2);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    const struct shape up = infer_shape(n, 2);
    int axis;
    if (up.rank != out.rank)
        return infer_rank_error(cx, n, 2, "the rank of input 0");
    s = infer_axis_attr(cx, n, "axis", out.rank, &axis);
    if (s != NPUC_OK)
        return s;
    for (int i = 0; i < out.rank - 1; i++)
        if (i != axis && !infer_dim_same(cx, out.d[i], up.d[i]))
            return node_error(cx, n, D_SHAPE_MISMATCH, "input 2 has size %s on axis %d, expected %s",
                              infer_dim_text(cx, up.d[i]), i, infer_dim_text(cx, out.d[i]));
    if (!infer_dim_is(cx, up.d[up.rank - 1], f.size))
        return node_error(cx, n, D_SHAPE_MISMATCH, "rows of input 2 have %s numbers, those of the cache %lld",
                          infer_dim_text(cx, up.d[up.rank - 1]), (long long)f.size);
    const expr length = infer_has(n, 4) ? value_elem(cx, n->in[4].value, 0) : EXPR_INVALID;
    out.d[axis] = !infer_has(n, 4) ? expr_add(&cx->exprs, out.d[axis], up.d[axis])
                  : length         ? infer_max(cx, out.d[axis], length)
                                   : infer_fresh(cx, n, 0, axis);
    for (int i = 0; s == NPUC_OK && i < 2; i++) {
        s = part(cx, n, i, out, infer_dtype(n, i), i == 0 ? k_cache_row(&f) : k_cache_scales(&f));
        if (s == NPUC_OK)
            lay(cx, &n->out[i], &n->in[i].value->type->layout);
    }
    return s;
}

static enum npuc_status decode_infer(struct ir_ctx *cx, struct node *n)
{
    struct k_cache_form f;
    enum dtype t;
    enum npuc_status s = begin(cx, n, &f);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "to", DT_F32, &t);
    if (s == NPUC_OK && !dtype_is_float(t))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'to' is %s, expected a float type", dtype_table[t].name);
    if (s == NPUC_OK)
        s = check_turn(cx, n, 2, f.size);
    return s == NPUC_OK ? part(cx, n, 0, infer_shape(n, 0), t, f.size) : s;
}

#include "ir/ops/rows.h"

#include "ir/ops/cache.def"
