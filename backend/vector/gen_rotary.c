/* RotaryEmbedding: pairs of columns rotated by angles per position. With position_ids the rows of the cos and sin
 * tables are gathered first. x and y are seen as [batch, position, head, half] views, so both ONNX layouts are one
 * program. Where a CacheAppend is the only reader of y, it writes y itself: rows go from the rotation to the cache. */
#include "backend/vector/gens.h"
#include "backend/vector/rows.h"
#include "backend/vector/views.h"
#include "backend/vector/vregion.h"

/* Sizes of a RotaryEmbedding node. */
struct rotary {
    expr batch, seq, heads;
    int64_t head_size, half;
    bool interleaved;
};

static bool rotary_of(struct ir_ctx *cx, const struct node *n, struct rotary *r)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = node_in(n, 0)->type;
    int64_t num_heads = node_attr_int(n, "num_heads", 0), hidden, half;
    if (t->rank != 3 && t->rank != 4)
        return false;
    if (!expr_is_const(x, t->dims[t->rank - 1], &hidden))
        return false;
    r->head_size = t->rank == 4 ? hidden : num_heads > 0 ? hidden / num_heads : 0;
    r->batch = t->dims[0];
    r->seq = t->rank == 4 ? t->dims[2] : t->dims[1];
    r->heads = t->rank == 4 ? t->dims[1] : expr_const(x, num_heads);
    const struct type *c = node_in(n, 1)->type;
    r->interleaved = node_attr_int(n, "interleaved", 0) != 0;
    if (!expr_is_const(x, c->dims[c->rank - 1], &half))
        return false;
    int64_t rd = node_attr_int(n, "rotary_embedding_dim", 0);
    r->half = rd > 0 ? rd / 2 : r->head_size / 2;
    return r->half == half && 2 * r->half <= r->head_size && r->half > 0;
}

bool gen_rotary_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct rotary r;
    expr s[IR_MAX_RANK];
    const struct node *rotary = emit_appended(n);
    if (rotary)
        return gen_rotary_match(m, cx, rotary, reason);
    if (n->op != OP_RotaryEmbedding)
        return false;
    enum dtype t = node_in(n, 0)->type->dtype;
    *reason = "head size and rotary dimension must be constants that agree, in dense float tensors of one type";
    return rotary_of(cx, n, &r) && dtype_is_float(t) && t != DT_F64 && node_in(n, 1)->type->dtype == t &&
           node_in(n, 2)->type->dtype == t && node_in(n, 0)->type->layout.kind == LAYOUT_ND &&
           value_strides(cx, node_in(n, 1), s);
}

/* cos or sin as a view [batch, seq, -, half]; gathered into a temporary when there are positions. */
static enum npuc_status angle_view(struct emit *e, struct node *n, int input, const struct rotary *r,
                                   struct vr_view *out)
{
    struct expr_pool *x = &e->cx->exprs;
    struct value *table = node_in(n, input), *pos = node_in(n, 3);
    expr half = expr_const(x, r->half), zero = expr_const(x, 0);
    int32_t tensor = emit_tensor(e, table);
    bool one_batch = false;
    int64_t b;
    if (pos) {
        const expr dims[3] = {r->batch, r->seq, half};
        tensor = emit_temp(e, input == 1 ? "cos" : "sin", table->type->dtype, 3, dims);
        struct gather_rows g = {.data = emit_tensor(e, table),
                                .index = emit_tensor(e, pos),
                                .out = tensor,
                                .dtype = table->type->dtype,
                                .index_dtype = pos->type->dtype,
                                .outer = expr_const(x, 1),
                                .n_rows = table->type->dims[0],
                                .n_index = expr_mul(x, r->batch, r->seq),
                                .row_len = half};
        enum npuc_status s = emit_gather_rows(e, &g, "RotaryEmbedding");
        if (s != NPUC_OK)
            return s;
    } else {
        one_batch = expr_is_const(x, table->type->dims[0], &b) && b == 1;
    }
    *out = (struct vr_view){.tensor = tensor, .dtype = table->type->dtype, .offset = zero};
    out->stride[0] = one_batch ? zero : expr_mul(x, r->seq, half);
    out->stride[1] = half;
    out->stride[2] = zero;
    out->stride[3] = expr_const(x, 1);
    return NPUC_OK;
}

/* x or y as [batch, seq, head, column] from column `from` on, every `step`-th; x may be a transposed view. */
static struct vr_view head_view(struct emit *e, struct value *v, const struct rotary *r, int64_t from, int64_t step)
{
    struct expr_pool *x = &e->cx->exprs;
    struct vr_view w = {.tensor = emit_tensor(e, v), .dtype = v->type->dtype};
    expr s[IR_MAX_RANK];
    bool walkable = value_strides(e->cx, v, s), four = v->type->rank == 4;
    NPUC_ASSERT(walkable);
    expr column = s[v->type->rank - 1];
    w.offset = expr_mul_const(x, column, from);
    w.stride[0] = s[0];
    w.stride[1] = four ? s[2] : s[1];
    w.stride[2] = four ? s[1] : expr_mul_const(x, column, r->head_size);
    w.stride[3] = expr_mul_const(x, column, step);
    return w;
}

/* y likewise: where the append puts its rows, if there is one, else a value of its own. */
static struct vr_view result_view(struct emit *e, struct node *n, struct node *append, const struct rotary *r,
                                  const int64_t run[2])
{
    struct expr_pool *x = &e->cx->exprs;
    struct vr_view w, rows;
    if (!append)
        return head_view(e, &n->out[0], r, run[0], run[1]);
    view_appended(e, append, &rows);
    w = rows; /* [batch, head, position, column] */
    w.offset = expr_add(x, rows.offset, expr_mul_const(x, rows.stride[3], run[0]));
    w.stride[1] = rows.stride[2];
    w.stride[2] = rows.stride[1];
    w.stride[3] = expr_mul_const(x, rows.stride[3], run[1]);
    return w;
}

static enum npuc_status copy_tail(struct emit *e, struct node *n, struct node *append, const struct rotary *r)
{
    struct vr *v = ARENA_NEW(e->arena, struct vr);
    const expr dims[4] = {r->batch, r->seq, r->heads, expr_const(&e->cx->exprs, r->head_size - 2 * r->half)};
    struct vr_view src = head_view(e, node_in(n, 0), r, 2 * r->half, 1),
                   dst = result_view(e, n, append, r, (const int64_t[2]){2 * r->half, 1});
    vr_init(v, e, 4, dims);
    vr_output(v, vr_input(v, &src), &dst);
    return vr_launch(v, "copy", "RotaryEmbedding");
}

/* An operand in f32: products and sums are rounded to the type of x once, at the end, as the kernel does. */
static int wide(struct vr *v, const struct vr_view *w)
{
    const int x = vr_input(v, w);
    return w->dtype == DT_F32 ? x : vr_cast(v, DT_F32, x);
}

static void narrow(struct vr *v, int x, const struct vr_view *w)
{
    vr_output(v, w->dtype == DT_F32 ? x : vr_cast(v, w->dtype, x), w);
}

/* n with its result as an own value, or where `append` writes it. */
static enum npuc_status emit_rotary(struct emit *e, struct node *n, struct node *append, const char *label)
{
    struct rotary r;
    struct vr *v = ARENA_NEW(e->arena, struct vr);
    struct vr_view cos_view, sin_view;
    if (!rotary_of(e->cx, n, &r))
        return node_error(e->cx, n, D_UNSUPPORTED, "head size or rotary dimension not known");
    enum npuc_status s = angle_view(e, n, 1, &r, &cos_view);
    if (s == NPUC_OK)
        s = angle_view(e, n, 2, &r, &sin_view);
    if (s != NPUC_OK)
        return s;
    const expr dims[4] = {r.batch, r.seq, r.heads, expr_const(&e->cx->exprs, r.half)};
    int64_t second = r.interleaved ? 1 : r.half, step = r.interleaved ? 2 : 1;
    struct vr_view x1 = head_view(e, node_in(n, 0), &r, 0, step), x2 = head_view(e, node_in(n, 0), &r, second, step);
    struct vr_view y1 = result_view(e, n, append, &r, (const int64_t[2]){0, step}),
                   y2 = result_view(e, n, append, &r, (const int64_t[2]){second, step});
    vr_init(v, e, 4, dims);
    const int a = wide(v, &x1), b = wide(v, &x2), c = wide(v, &cos_view), d = wide(v, &sin_view);
    narrow(v, vr_vec2(v, K_FN_Sub, vr_vec2(v, K_FN_Mul, c, a), vr_vec2(v, K_FN_Mul, d, b)), &y1);
    narrow(v, vr_vec2(v, K_FN_Add, vr_vec2(v, K_FN_Mul, d, a), vr_vec2(v, K_FN_Mul, c, b)), &y2);
    s = vr_launch(v, "rotary", label);
    return s == NPUC_OK && 2 * r.half < r.head_size ? copy_tail(e, n, append, &r) : s;
}

enum npuc_status gen_rotary_emit(struct emit *e, struct node *n)
{
    struct node *rotary = emit_appended(n);
    return rotary ? emit_rotary(e, rotary, n, "RotaryEmbedding+CacheAppend")
                  : emit_rotary(e, n, NULL, "RotaryEmbedding");
}
