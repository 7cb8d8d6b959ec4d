/* Products with constant weights in integers, the rest in floats: MagicMind's qint8_mixed_float16 and its like.
 *
 *   %y = Conv %x, %w, %b : f16[n,c,h,w]                                  (%w constant)
 * becomes
 *   %q = Cast (Clip (Round (Mul %x, 1/sx)), -most, most) : i8            one for all products of %x
 *   %s = ConvInteger %q, %wq : i32;  %f = Cast %s : f32
 *   %y = Cast (Add (Mul %f, %sw), %b) : f16                              %sw: one number per output channel
 *
 * Codes that products alone read of a MaxPool or Concat are chosen from codes, so that its producers can leave them.
 * This is what a quantised model says, so that kernels, fusion and clock see the network as it would run. Nothing is
 * calibrated: scales are stand-ins (STAND_IN) and %wq is declared without bytes, so such a graph can be timed, not run;
 * the compiler refuses to write a plan of it that could be.
 * Requirements: (1) the weight is a constant, seen through casts; (2) the target multiplies integers of that width; (3)
 * a convolution has at least LEAST_CHANNELS channels per group: vector units do the others, in floats; (4) what is made
 * is no Conv, MatMul or Gemm, so it terminates. Left alone: transposed convolutions, products of two activations,
 * scaled Gemm (lower_steps takes factors off). */
#include "passes/pass.h"

enum { LEAST_CHANNELS = 3, MOST_CHOICES = 8 };
#define STAND_IN 0.03125 /* of activations; of weights times activations its square: exact in every float type */

/* What a product needs of its node. */
struct product {
    struct value *x, *w, *bias;
    enum op integer;
    bool trans_w;
    int channel_axis; /* of the result, from the right */
};

static struct value *uncast(struct value *v)
{
    while (v && v->def && v->def->op == OP_Cast)
        v = node_in(v->def, 0);
    return v;
}

static bool is_plain_gemm(const struct node *n)
{
    return node_attr_int(n, "transA", 0) == 0 && node_attr_float(n, "alpha", 1) == 1 &&
           (!node_in(n, 2) || node_attr_float(n, "beta", 1) == 1);
}

static bool read_product(const struct ir_ctx *cx, const struct node *n, struct product *p)
{
    int64_t channels;
    if (n->op != OP_Conv && n->op != OP_MatMul && n->op != OP_Gemm)
        return false;
    *p = (struct product){.x = node_in(n, 0), .w = uncast(node_in(n, 1)), .bias = uncast(node_in(n, 2))};
    if (!p->w || !value_const(p->w) || !dtype_is_float(p->x->type->dtype) || p->x->type->rank < 2 ||
        n->out[0].type->rank < 2)
        return false;
    if (n->op == OP_Conv) {
        p->integer = OP_ConvInteger;
        p->channel_axis = p->x->type->rank - 1;
        return expr_is_const(&cx->exprs, p->w->type->dims[1], &channels) && channels >= LEAST_CHANNELS;
    }
    p->integer = OP_MatMulInteger;
    p->channel_axis = 1;
    p->trans_w = n->op == OP_Gemm && node_attr_int(n, "transB", 0) != 0;
    return p->w->type->rank == 2 && (n->op == OP_MatMul || is_plain_gemm(n));
}

/* ---- operands */

/* Operator `op` of x and a number. */
static struct value *with(struct builder *b, enum op op, struct value *x, double v)
{
    return x ? ir_op2(b, op, x, ir_scalar_like(b, x, v)) : NULL;
}

static bool chooses(const struct node *n)
{
    return (n->op == OP_MaxPool || n->op == OP_Concat) && n->n_out == 1;
}

/* Is every use of the value that of a product as its left operand, in this graph, itself or behind further choices? */
static bool only_products_read(const struct ir_ctx *cx, const struct value *x, int depth)
{
    struct product p;
    for_each_use (u, x) {
        const struct node *n = u->user;
        if (n->graph != x->graph)
            return false;
        const bool chosen = depth < MOST_CHOICES && chooses(n) && only_products_read(cx, &n->out[0], depth + 1);
        if (!chosen && (u != &n->in[0] || !read_product(cx, n, &p)))
            return false;
    }
    return true;
}

/* Choosing elements commutes with quantisation by one scale, which is monotonous: the codes of what is chosen from. */
static bool is_choice(const struct ir_ctx *cx, const struct value *x)
{
    return x->def && chooses(x->def) && only_products_read(cx, x, 0);
}

static struct value *codes_of(struct pass_ctx *px, struct value *x, struct map *made, int depth);

/* The node again, of codes. */
static struct value *chosen_codes(struct pass_ctx *px, struct node *n, struct map *made, int depth)
{
    struct value **in = ARENA_ARRAY(&px->arena, struct value *, n->n_in);
    for (int i = 0; i < n->n_in; i++)
        if (!(in[i] = codes_of(px, node_in(n, i), made, depth)))
            return NULL;
    struct builder b = ir_at(n);
    struct node *c = ir_new(&b, (enum op)n->op, n->n_in, in, 1);
    ir_copy_attrs(c, n);
    return ir_infer(c) == NPUC_OK ? &c->out[0] : NULL;
}

static struct value *new_codes(struct pass_ctx *px, struct value *x)
{
    const double most = px->options.integer == DT_I8 ? 127 : 32767;
    struct builder b = x->def && x->def->next ? ir_at(x->def->next) : ir_at(x->graph->first);
    struct value *v = with(&b, OP_Mul, x, 1 / STAND_IN);
    v = v ? ir_op1(&b, OP_Round, v) : NULL;
    v = v ? ir_op3(&b, OP_Clip, v, ir_scalar_like(&b, v, -most), ir_scalar_like(&b, v, most)) : NULL;
    return v ? ir_cast(&b, v, px->options.integer) : NULL;
}

static struct value *codes_of(struct pass_ctx *px, struct value *x, struct map *made, int depth)
{
    const uint64_t *known = map_find(made, x->id);
    if (known)
        return (struct value *)(uintptr_t)*known;
    const bool before = depth < MOST_CHOICES && px->options.integer == DT_I8 && is_choice(px->cx, x);
    struct value *v = before ? chosen_codes(px, x->def, made, depth + 1) : new_codes(px, x);
    map_put(made, x->id, (uint64_t)(uintptr_t)v);
    return v;
}

/* The codes of w: of its shape, without bytes. */
static struct value *weight_codes(struct pass_ctx *px, struct builder *b, const struct product *p)
{
    const struct type *t = type_with_dtype(b->cx, p->w->type, px->options.integer);
    if (p->trans_w) /* turned when the model is converted */
        t = type_tensor(b->cx, t->dtype, 2, (const expr[]){t->dims[1], t->dims[0]});
    struct blob blob = *value_const(p->w);
    blob.size = type_const_count(b->cx, t) * dtype_size(t->dtype);
    blob.data = NULL;
    return ir_const_blob(b, t, arena_copy(&px->m->arena, &blob, sizeof blob));
}

/* [channels][1].. so that it is broadcast along the channels of the result. */
static struct value *along_channels(struct builder *b, struct value *v, const struct product *p)
{
    expr dims[IR_MAX_RANK];
    if (!v || p->channel_axis == 1)
        return v;
    const int rank = p->channel_axis;
    dims[0] = v->type->dims[0];
    for (int i = 1; i < rank; i++)
        dims[i] = expr_const(&b->cx->exprs, 1);
    return ir_reshape(b, v, rank, dims);
}

static struct value *scales_of(struct pass_ctx *px, struct builder *b, const struct product *p, const struct value *sum)
{
    int64_t n = 0;
    const int at = sum->type->rank - p->channel_axis;
    if (!expr_is_const(&b->cx->exprs, sum->type->dims[at], &n) || n < 1)
        return NULL;
    float *v = ARENA_ARRAY(&px->arena, float, n);
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)(STAND_IN * STAND_IN);
    int64_t dims[IR_MAX_RANK] = {n};
    for (int i = 1; i < p->channel_axis; i++)
        dims[i] = 1;
    return ir_const(b, DT_F32, p->channel_axis, dims, v, n * (int64_t)sizeof *v);
}

/* ---- */

static struct value *integer_product(struct pass_ctx *px, struct builder *b, struct node *n, const struct product *p,
                                     struct map *made)
{
    struct value *const in[] = {codes_of(px, p->x, made, 0), weight_codes(px, b, p)};
    if (!in[0] || !in[1])
        return NULL;
    struct node *s = ir_new(b, p->integer, 2, in, 1);
    ir_copy_attrs(s, n);
    return ir_infer(s) == NPUC_OK ? &s->out[0] : NULL;
}

static enum npuc_status convert(struct pass_ctx *px, struct node *n, const struct product *p, struct map *made)
{
    struct builder b = ir_at(n);
    struct value *sum = integer_product(px, &b, n, p, made);
    struct value *scales = sum ? scales_of(px, &b, p, sum) : NULL;
    struct value *y = scales ? ir_op2(&b, OP_Mul, ir_cast(&b, sum, DT_F32), scales) : NULL;
    if (y && p->bias)
        y = ir_op2(&b, OP_Add, y, along_channels(&b, ir_cast(&b, p->bias, DT_F32), p));
    y = y ? ir_cast(&b, y, n->out[0].type->dtype) : NULL;
    if (!y || y->type != n->out[0].type)
        return pass_failure(px);
    ir_replace_all(&n->out[0], y);
    pass_count(px, STAT_quantise_converted, 1);
    return NPUC_OK;
}

enum npuc_status quantise(struct pass_ctx *px, struct graph *g)
{
    const enum dtype t = px->options.integer;
    struct map made;
    struct product p;
    if (t == DT_NONE || (px->target && !px->target->has_mac[t]))
        return NPUC_OK;
    map_init(&made, &px->arena);
    for_each_node_safe(n, g)
    {
        if (!read_product(px->cx, n, &p) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = convert(px, n, &p, &made);
        if (s != NPUC_OK)
            return s;
    }
    ir_dce(g);
    return NPUC_OK;
}
