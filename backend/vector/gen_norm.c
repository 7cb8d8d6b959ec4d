/* Normalisations as vector regions: BatchNormalization (inference), InstanceNormalization, GroupNormalization,
 * LpNormalization, LayerNormalization with its statistics. Computed in f32 and rounded at the end, as the reference
 * does. */
#include "backend/vector/gens.h"
#include "backend/vector/views.h"

struct normaliser {
    enum op op;
    bool (*check)(struct ir_ctx *cx, const struct node *n, const char **reason);
    enum npuc_status (*emit)(struct emit *e, struct node *n);
};

/* Operand i of one value per channel along dimension `axis` of the region, as f32. */
static int per_channel(struct vr *r, struct value *v, int axis)
{
    struct vr_view w = view_element(r->e, v, expr_const(emit_pool(r->e), 0));
    w.stride[axis] = expr_const(emit_pool(r->e), 1);
    return vr_cast(r, DT_F32, vr_input(r, &w));
}

/* x as [batch, groups, channels of a group, space]. */
static void channel_dims(struct emit *e, const struct type *t, int64_t groups, expr dims[4])
{
    struct expr_pool *x = emit_pool(e);
    const expr one = expr_const(x, 1), c = t->rank > 1 ? t->dims[1] : one;
    dims[0] = t->dims[0];
    dims[1] = groups > 0 ? expr_const(x, groups) : c;
    dims[2] = groups > 0 ? expr_floordiv(x, c, expr_const(x, groups)) : one;
    dims[3] = view_product(x, t->dims, 2, t->rank > 2 ? t->rank : 2);
}

static bool check_batch(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    *reason = "statistics of a batch (training) are computed on the host";
    return node_attr_int(n, "training_mode", 0) == 0 && !node_out(n, 1) && !node_out(n, 2) &&
           node_in(n, 0)->type->rank >= 1;
}

static enum npuc_status emit_batch(struct emit *e, struct node *n)
{
    const struct type *t = node_in(n, 0)->type;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    expr dims[4];
    channel_dims(e, t, 0, dims);
    vr_init(r, e, 4, dims);
    const struct vr_view src = view_dense(e, emit_tensor(e, node_in(n, 0)), t->dtype, 4, dims),
                         dst = view_dense(e, emit_tensor(e, &n->out[0]), n->out[0].type->dtype, 4, dims);
    const int variance = per_channel(r, node_in(n, 4), 1);
    const int eps = vr_imm(r, DT_F32, node_attr_float(n, "epsilon", 1e-5f));
    const int factor = vr_vec2(r, K_FN_Mul, vr_vec1(r, K_FN_Rsqrt, vr_vec2(r, K_FN_Add, variance, eps)),
                               per_channel(r, node_in(n, 1), 1));
    int v = vr_cast(r, DT_F32, vr_input(r, &src));
    v = vr_vec2(r, K_FN_Mul, vr_vec2(r, K_FN_Sub, v, per_channel(r, node_in(n, 3), 1)), factor);
    v = vr_vec2(r, K_FN_Add, v, per_channel(r, node_in(n, 2), 1));
    vr_output(r, vr_cast(r, n->out[0].type->dtype, v), &dst);
    return vr_launch(r, "batch_norm", "BatchNormalization");
}

/* (x - mean) * Rsqrt(variance + epsilon) of rows of n elements; x is f32. */
static int standardised(struct vr *r, int x, expr n, float epsilon, int *mean, int *inv)
{
    const int count = view_size(r, DT_F32, n);
    *mean = vr_vec2(r, K_FN_Div, vr_reduce(r, K_RED_SUM, x), count);
    const int apart = vr_vec2(r, K_FN_Sub, x, *mean);
    const int variance = vr_vec2(r, K_FN_Div, vr_reduce(r, K_RED_SUMSQ, apart), count);
    *inv = vr_vec1(r, K_FN_Rsqrt, vr_vec2(r, K_FN_Add, variance, vr_imm(r, DT_F32, epsilon)));
    return vr_vec2(r, K_FN_Mul, apart, *inv);
}

static bool check_group(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    int64_t c;
    const struct type *t = node_in(n, 0)->type;
    const int64_t groups = n->op == OP_GroupNormalization ? node_attr_int(n, "num_groups", 0) : 1;
    *reason = "the number of channels is not known, or num_groups does not divide it";
    return t->rank >= 2 && groups > 0 &&
           (n->op != OP_GroupNormalization || (expr_is_const(&cx->exprs, t->dims[1], &c) && c % groups == 0));
}

static enum npuc_status emit_group(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *t = node_in(n, 0)->type;
    const char *label = op_table[n->op]->name;
    struct vr *r = ARENA_NEW(e->arena, struct vr), *w = ARENA_NEW(e->arena, struct vr);
    expr dims[4];
    int mean, inv;
    channel_dims(e, t, n->op == OP_GroupNormalization ? node_attr_int(n, "num_groups", 1) : 0, dims);
    const expr rows[2] = {expr_mul(x, dims[0], dims[1]), expr_mul(x, dims[2], dims[3])};
    const int32_t between = emit_temp(e, "standardised", DT_F32, 2, rows);
    const struct vr_view src = view_dense(e, emit_tensor(e, node_in(n, 0)), t->dtype, 2, rows),
                         mid = view_dense(e, between, DT_F32, 2, rows);
    vr_init(r, e, 2, rows);
    const int v = standardised(r, vr_cast(r, DT_F32, vr_input(r, &src)), rows[1], node_attr_float(n, "epsilon", 1e-5f),
                               &mean, &inv);
    vr_output(r, v, &mid);
    const enum npuc_status s = vr_launch(r, "standardise", label);
    if (s != NPUC_OK)
        return s;
    const expr flat[3] = {dims[0], expr_mul(x, dims[1], dims[2]), dims[3]};
    const struct vr_view in = view_dense(e, between, DT_F32, 3, flat),
                         dst = view_dense(e, emit_tensor(e, &n->out[0]), t->dtype, 3, flat);
    vr_init(w, e, 3, flat);
    const int scaled = vr_vec2(w, K_FN_Mul, vr_input(w, &in), per_channel(w, node_in(n, 1), 1));
    vr_output(w, vr_cast(w, t->dtype, vr_vec2(w, K_FN_Add, scaled, per_channel(w, node_in(n, 2), 1))), &dst);
    return vr_launch(w, "scale", label);
}

/* x over its norm along an axis; a norm of 0 leaves zeros. */
static bool check_lp(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    *reason = "only p of 1 or 2 along an axis";
    const int64_t p = node_attr_int(n, "p", 2);
    return (p == 1 || p == 2) && node_in(n, 0)->type->rank >= 1;
}

static enum npuc_status emit_lp(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *t = node_in(n, 0)->type;
    const int axis = view_axis(n, "axis", -1, t->rank);
    const expr inner = view_product(x, t->dims, axis + 1, t->rank), one = expr_const(x, 1);
    const expr dims[3] = {view_product(x, t->dims, 0, axis), inner, t->dims[axis]};
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    struct vr_view src = {.tensor = emit_tensor(e, node_in(n, 0)), .dtype = t->dtype, .offset = expr_const(x, 0)};
    src.stride[0] = expr_mul(x, inner, t->dims[axis]);
    src.stride[1] = one;
    src.stride[2] = inner;
    struct vr_view dst = src;
    dst.tensor = emit_tensor(e, &n->out[0]);
    vr_init(r, e, 3, dims);
    const int v = vr_cast(r, DT_F32, vr_input(r, &src)), none = vr_imm(r, DT_F32, 0);
    int norm = vr_reduce(r, node_attr_int(n, "p", 2) == 1 ? K_RED_ABSSUM : K_RED_SUMSQ, v);
    if (node_attr_int(n, "p", 2) == 2)
        norm = vr_vec1(r, K_FN_Sqrt, norm);
    const int y = view_where(r, vr_vec2(r, K_FN_Equal, norm, none), none, vr_vec2(r, K_FN_Div, v, norm));
    vr_output(r, vr_cast(r, t->dtype, y), &dst);
    return vr_launch(r, "lp_norm", "LpNormalization");
}

/* LayerNormalization over the axes behind `axis`, scale and bias of exactly their shape. */
static bool check_layer(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const struct type *t = node_in(n, 0)->type;
    const int axis = view_axis(n, "axis", -1, t->rank);
    (void)cx;
    *reason = "scale and bias must have the shape of the normalised axes, the statistics type f32";
    for (int i = 1; i < n->n_in; i++) {
        const struct type *w = node_in(n, i) ? node_in(n, i)->type : NULL;
        if (w && (w->rank != t->rank - axis || w->layout.kind != LAYOUT_ND))
            return false;
        for (int k = 0; w && k < w->rank; k++)
            if (w->dims[k] != t->dims[axis + k])
                return false;
    }
    return t->rank >= 1 && node_attr_int(n, "stash_type", 1) == 1;
}

static enum npuc_status emit_layer(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *t = node_in(n, 0)->type;
    const int axis = view_axis(n, "axis", -1, t->rank);
    const expr dims[2] = {view_product(x, t->dims, 0, axis), view_product(x, t->dims, axis, t->rank)};
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    int stat[3] = {0};
    vr_init(r, e, 2, dims);
    const struct vr_view src = view_dense(e, emit_tensor(e, node_in(n, 0)), t->dtype, 2, dims),
                         dst = view_dense(e, emit_tensor(e, &n->out[0]), n->out[0].type->dtype, 2, dims);
    int v = standardised(r, vr_cast(r, DT_F32, vr_input(r, &src)), dims[1], node_attr_float(n, "epsilon", 1e-5f),
                         &stat[1], &stat[2]);
    v = vr_cast(r, n->out[0].type->dtype, vr_cast(r, t->dtype, v));
    for (int i = 1; i < 3 && i < n->n_in; i++) {
        if (!node_in(n, i))
            continue;
        struct vr_view w = view_element(e, node_in(n, i), expr_const(x, 0));
        w.stride[1] = expr_const(x, 1);
        v = vr_vec2(r, i == 1 ? K_FN_Mul : K_FN_Add, v, vr_input(r, &w));
    }
    vr_output(r, v, &dst);
    for (int i = 1; i < 3; i++) {
        if (!node_out(n, i))
            continue;
        struct vr_view w = view_element(e, &n->out[i], expr_const(x, 0));
        w.stride[0] = expr_const(x, 1);
        vr_output(r, vr_cast(r, w.dtype, stat[i]), &w);
    }
    return vr_launch(r, "layer_norm", "LayerNormalization");
}

static const struct normaliser normalisers[] = {
    {OP_BatchNormalization, check_batch, emit_batch}, {OP_InstanceNormalization, check_group, emit_group},
    {OP_GroupNormalization, check_group, emit_group}, {OP_LpNormalization, check_lp, emit_lp},
    {OP_LayerNormalization, check_layer, emit_layer},
};

static const struct normaliser *find_normaliser(const struct node *n)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(normalisers); i++)
        if (normalisers[i].op == (enum op)n->op)
            return &normalisers[i];
    return NULL;
}

bool gen_norm_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const struct normaliser *d = find_normaliser(n);
    (void)m;
    if (!d)
        return false;
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = node_in(n, i);
        *reason = "the vector unit normalises dense tensors of floats up to 32 bits";
        if (v && (!view_plain(cx, v, reason) || !dtype_is_float(v->type->dtype) || v->type->dtype == DT_F64 ||
                  v->type->layout.kind != LAYOUT_ND))
            return false;
    }
    return d->check(cx, n, reason);
}

enum npuc_status gen_norm_emit(struct emit *e, struct node *n)
{
    return find_normaliser(n)->emit(e, n);
}
