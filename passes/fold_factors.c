/* Multiplications by constants per channel go into what makes the other operand. apply_recipe calls it for the inputs
 * that a recipe smooths; as a pass it takes all such Mul nodes.
 *
 *   %y = Mul (RMSNormalization %x, %w), %c            ->  %y = RMSNormalization %x, %w*c
 *   %y = Mul (MatMul %x, %w), %c                      ->  %y = MatMul %x, %w*c                   columns of %w
 *   %y = Mul (MatMul %x, (DequantizeLinear %q, %s)), %c    ->   ... (DequantizeLinear %q, %s*c)  the codes stay
 *   %y = Mul (Mul %gate, %up), %c                     ->  %up * c, or else %gate * c
 *   %y = Mul (Reshape (Transpose (MatMul %p, %v))), %c     ->  %v * c: attention, where repeated heads share factors
 *
 * Requirements: (1) factors are positive and finite, so that Relu and its like commute with them; (2) every value on
 * the way is read by one node alone, or it would reach others; results of the function, caches among them, stay exact;
 * (3) first everything is looked at, then everything changed; (4) each node is looked at once per level, at most
 * MOST_DEPTH levels, so it terminates. The rows of `rules` are all operators that a factor passes; others end the walk.
 * Rounding is that of the changed constants, in their own type. */
#include "passes/factors.h"

#include <math.h>
#include <string.h>

#include "ir/eval.h"
#include "passes/match.h"

enum { MOST_DEPTH = 24, MOST_FACTORS = 1 << 22 };

struct fold {
    struct pass_ctx *px;
    bool apply; /* else only look */
    int depth;
};
typedef bool push_fn(struct fold *f, struct node *n, const struct factor *c);

/* ---- factors */

static int64_t count_of(const struct factor *c)
{
    int64_t n = 1;
    for (int i = 0; i < c->rank; i++)
        n *= c->dims[i];
    return n;
}

/* Size along axis `from_last` counted from the last one, 0. */
static int64_t factor_dim(const struct factor *c, int from_last)
{
    return from_last < c->rank ? c->dims[c->rank - 1 - from_last] : 1;
}

struct factor factor_of_columns(const struct value *x, const float *v, int64_t n)
{
    struct factor c = {.rank = x->type->rank, .v = v};
    for (int i = 0; i < c.rank; i++)
        c.dims[i] = i == c.rank - 1 ? n : 1;
    return c;
}

/* The factor repeated to these sizes (each of them 1 or the factor's, aligned at the last axis, or more where it has
 * 1), in the arena of the pass. */
static const float *spread(struct fold *f, const struct factor *c, int rank, const int64_t *dims)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    float *to = ARENA_ARRAY(&f->px->arena, float, n + 1);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = 0, stride = 1, rest = i;
        for (int k = 0; k < rank; k++) {
            const int64_t d = dims[rank - 1 - k], own = factor_dim(c, k);
            at += own == 1 ? 0 : rest % d * stride;
            stride *= own;
            rest /= d;
        }
        to[i] = c->v[at];
    }
    return to;
}

/* Axes along which the factor does not change become 1. */
static void shrink(struct fold *f, struct factor *c)
{
    for (int axis = 0; axis < c->rank; axis++) {
        int64_t inner = 1;
        const int64_t n = count_of(c), d = c->dims[axis];
        bool same = true;
        for (int i = axis + 1; i < c->rank; i++)
            inner *= c->dims[i];
        for (int64_t i = 0; same && i < n; i++)
            same = c->v[i] == c->v[i - i / inner % d * inner];
        if (!same || d == 1)
            continue;
        float *to = ARENA_ARRAY(&f->px->arena, float, n / d + 1);
        for (int64_t i = 0; i < n / d; i++)
            to[i] = c->v[i / inner * inner * d + i % inner];
        c->v = to;
        c->dims[axis] = 1;
    }
}

/* ---- constants */

struct value *factors_scale_constant(struct pass_ctx *px, struct builder *b, const struct value *t,
                                     const struct factor *c)
{
    struct k_tensor from, to = {.dtype = t->type->dtype};
    if (!value_const(t) || !blob_tensor(px->cx, t->type, value_const(t), &from))
        return NULL;
    struct factor own = {.rank = from.rank};
    memcpy(own.dims, from.dims, sizeof(int64_t) * (size_t)from.rank);
    to.rank = from.rank;
    for (int k = 0; k < c->rank; k++)
        if (factor_dim(c, k) != 1 && k >= to.rank)
            to.rank = k + 1;
    int64_t n = 1;
    for (int k = 0; k < to.rank; k++) {
        const int64_t a = factor_dim(&own, k), d = factor_dim(c, k);
        to.dims[to.rank - 1 - k] = a == 1 ? d : a;
        n *= a == 1 ? d : a;
    }
    to.size = n * dtype_size(to.dtype);
    to.data = arena_zalloc(&px->arena, to.size + 8);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = 0, of = 0, stride = 1, step = 1, rest = i;
        for (int k = 0; k < to.rank; k++) {
            const int64_t place = rest % to.dims[to.rank - 1 - k];
            at += factor_dim(&own, k) == 1 ? 0 : place * stride;
            of += factor_dim(c, k) == 1 ? 0 : place * step;
            stride *= factor_dim(&own, k);
            step *= factor_dim(c, k);
            rest /= to.dims[to.rank - 1 - k];
        }
        k_set_f64(&to, i, k_get_f64(&from, at) * (double)c->v[of]);
    }
    return ir_const(b, to.dtype, to.rank, to.dims, to.data, to.size);
}

static bool is_wide_float(const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && dtype_is_float(v->type->dtype) && dtype_table[v->type->dtype].bits >= 16;
}

/* Is every axis of the factor one that v has with that size, or may be given to it (`grows`: constants of size 1)? */
static bool fits(const struct ir_ctx *cx, const struct value *v, const struct factor *c, bool grows)
{
    for (int k = 0; k < c->rank; k++) {
        const int at = v->type->rank - 1 - k;
        int64_t d = 1;
        if (factor_dim(c, k) == 1)
            continue;
        if (at >= 0 && !expr_is_const(&cx->exprs, v->type->dims[at], &d))
            return false;
        if (d != factor_dim(c, k) && !(grows && d == 1))
            return false;
    }
    return true;
}

static bool scale_operand(struct fold *f, struct node *n, int i, const struct factor *c)
{
    struct k_tensor t;
    const struct value *v = node_in(n, i);
    if (!blob_tensor(f->px->cx, v->type, value_const(v), &t) || !fits(f->px->cx, v, c, true))
        return false;
    if (!f->apply)
        return true;
    struct builder b = ir_at(n);
    struct value *scaled = factors_scale_constant(f->px, &b, v, c);
    if (scaled)
        ir_set_input(n, i, scaled);
    return scaled != NULL;
}

/* ---- the walk */

static push_fn *rule_of(enum op op);

/* The value that v's node makes becomes the old one times c. */
static bool push(struct fold *f, struct value *v, const struct factor *c)
{
    push_fn *rule = v->def && v->index == 0 ? rule_of(v->def->op) : NULL;
    if (!rule || !is_wide_float(v) || !fits(f->px->cx, v, c, false) || f->depth >= MOST_DEPTH)
        return false;
    f->depth++;
    const bool done = rule(f, v->def, c);
    f->depth--;
    return done;
}

/* Operand i, read by n alone, becomes the old one times c. */
static bool operand(struct fold *f, struct node *n, int i, const struct factor *c)
{
    struct value *v = node_in(n, i);
    if (!v || !is_wide_float(v))
        return false;
    if (value_const(v))
        return scale_operand(f, n, i, c);
    return v->graph == n->graph && value_has_one_use(v) && push(f, v, c);
}

static bool look(struct fold *f, struct node *n, int i, const struct factor *c)
{
    const struct fold was = *f;
    f->apply = false;
    const bool can = operand(f, n, i, c);
    *f = was;
    return can;
}

/* One of two factors takes it: constants first, then the right one. */
static bool push_product(struct fold *f, struct node *n, const struct factor *c)
{
    const int first = value_const(node_in(n, 0)) ? 0 : 1;
    return operand(f, n, look(f, n, first, c) ? first : 1 - first, c);
}

static bool push_first(struct fold *f, struct node *n, const struct factor *c)
{
    return operand(f, n, 0, c);
}

/* Sums, choices and concatenations: all operands from the first float one on. */
static bool push_all(struct fold *f, struct node *n, const struct factor *c)
{
    const int first = n->op == OP_Where ? 1 : 0;
    for (int i = first; i < n->n_in; i++)
        if (!look(f, n, i, c))
            return false;
    for (int i = first; f->apply && i < n->n_in; i++)
        if (!operand(f, n, i, c))
            return false;
    return true;
}

static bool push_concat(struct fold *f, struct node *n, const struct factor *c)
{
    const int64_t axis = node_attr_int(n, "axis", 0), rank = n->out[0].type->rank;
    return factor_dim(c, (int)(axis < 0 ? -1 - axis : rank - 1 - axis)) == 1 && push_all(f, n, c);
}

/* Scale and bias, where there is one, from operand 1 on; the factor is along one axis and theirs. */
static bool push_affine(struct fold *f, struct node *n, const struct factor *c)
{
    const bool has_bias = node_in(n, 2) != NULL;
    if (!look(f, n, 1, c) || (has_bias && !look(f, n, 2, c)))
        return false;
    return !f->apply || (operand(f, n, 1, c) && (!has_bias || operand(f, n, 2, c)));
}

/* A norm over the last axis: its scale has no other. */
static bool push_norm(struct fold *f, struct node *n, const struct factor *c)
{
    const int64_t axis = node_attr_int(n, "axis", -1);
    const struct value *scale = node_in(n, 1);
    return (axis == -1 || axis == n->out[0].type->rank - 1) && scale->type->rank == 1 && push_affine(f, n, c);
}

/* A vector along axis 1 of n's result as a vector for operands of one axis; false: it is along others. */
static bool of_channels(const struct node *n, const struct factor *c, struct factor *vector)
{
    const int rank = n->out[0].type->rank;
    const int64_t channels = factor_dim(c, rank - 2);
    *vector = (struct factor){.rank = 1, .dims = {channels}, .v = c->v};
    return rank >= 2 && count_of(c) == channels;
}

static bool push_batch_norm(struct fold *f, struct node *n, const struct factor *c)
{
    struct factor vector;
    return node_attr_int(n, "training_mode", 0) == 0 && of_channels(n, c, &vector) && push_affine(f, n, &vector);
}

static bool push_conv(struct fold *f, struct node *n, const struct factor *c)
{
    struct factor vector;
    if (!of_channels(n, c, &vector))
        return false;
    struct factor filters = {.rank = node_in(n, 1)->type->rank, .v = c->v};
    for (int i = 0; i < filters.rank; i++)
        filters.dims[i] = i == 0 ? vector.dims[0] : 1;
    const bool has_bias = node_in(n, 2) != NULL;
    if (!look(f, n, 1, &filters) || (has_bias && !look(f, n, 2, &vector)))
        return false;
    return !f->apply || (operand(f, n, 1, &filters) && (!has_bias || operand(f, n, 2, &vector)));
}

/* Pooling and the like: channels stay apart. */
static bool push_channels(struct fold *f, struct node *n, const struct factor *c)
{
    struct factor vector;
    return of_channels(n, c, &vector) && operand(f, n, 0, c);
}

/* ---- products */

/* The last two axes exchanged. */
static struct factor turned(struct fold *f, const struct factor *c)
{
    struct factor t = *c;
    if (c->rank < 2) {
        t = (struct factor){.rank = 2, .dims = {factor_dim(c, 0), 1}, .v = c->v};
    } else if (factor_dim(c, 0) != 1 && factor_dim(c, 1) != 1) {
        const int64_t rows = factor_dim(c, 1), cols = factor_dim(c, 0);
        float *to = ARENA_ARRAY(&f->px->arena, float, count_of(c) + 1);
        for (int64_t i = 0; i < count_of(c); i++)
            to[i / (rows * cols) * rows * cols + i % cols * rows + i / cols % rows] = c->v[i];
        t.v = to;
    }
    if (c->rank >= 2) {
        t.dims[t.rank - 1] = c->dims[c->rank - 2];
        t.dims[t.rank - 2] = c->dims[c->rank - 1];
    }
    return t;
}

/* Columns belong to the right operand. */
static bool push_matmul(struct fold *f, struct node *n, const struct factor *c)
{
    const bool trans = node_attr_int(n, "transB", 0) != 0;
    if (node_in(n, 0)->type->rank < 2 || node_in(n, 1)->type->rank < 2 || factor_dim(c, 1) != 1 ||
        node_attr_int(n, "transBatchB", 0) != 0)
        return false;
    for (int k = node_in(n, 1)->type->rank; k < c->rank; k++)
        if (factor_dim(c, k) != 1)
            return false;
    const struct factor t = trans ? turned(f, c) : *c;
    return operand(f, n, 1, &t);
}

static bool push_gemm(struct fold *f, struct node *n, const struct factor *c)
{
    const struct factor t = node_attr_int(n, "transB", 0) ? turned(f, c) : *c;
    const bool has_bias = node_in(n, 2) != NULL;
    if (factor_dim(c, 1) != 1 || !look(f, n, 1, &t) || (has_bias && !look(f, n, 2, c)))
        return false;
    return !f->apply || (operand(f, n, 1, &t) && (!has_bias || operand(f, n, 2, c)));
}

/* Codes stay, their scales change: those per axis where the factor is along that axis alone, those of blocks where it
 * is not along the blocks. */
static bool push_dequantize(struct fold *f, struct node *n, const struct factor *c)
{
    const struct value *s = node_in(n, 1);
    const int rank = n->out[0].type->rank;
    const int64_t axis = node_attr_int(n, "axis", 1), block = node_attr_int(n, "block_size", 0);
    const int from_last = (int)(axis < 0 ? -1 - axis : rank - 1 - axis);
    if (!value_const(s) || from_last < 0 || from_last >= rank)
        return false;
    if (s->type->rank == rank && block > 0)
        return factor_dim(c, from_last) == 1 && operand(f, n, 1, c);
    const struct factor vector = {.rank = 1, .dims = {factor_dim(c, from_last)}, .v = c->v};
    return s->type->rank == 1 && count_of(c) == vector.dims[0] && fits(f->px->cx, s, &vector, false) &&
           operand(f, n, 1, &vector);
}

/* ---- movement */

static bool push_transpose(struct fold *f, struct node *n, const struct factor *c)
{
    const int rank = n->out[0].type->rank;
    const struct attr *perm = node_attr(n, "perm");
    int64_t full[IR_MAX_RANK], strides[IR_MAX_RANK], stride = 1;
    struct factor t = {.rank = rank};
    for (int i = 0; i < rank; i++)
        full[i] = factor_dim(c, rank - 1 - i);
    for (int i = 0; i < rank; i++)
        t.dims[perm ? perm->v.ints[i] : rank - 1 - i] = full[i];
    /* strides in c of the axes of t */
    for (int i = rank - 1; i >= 0; i--) {
        strides[perm ? perm->v.ints[i] : rank - 1 - i] = stride;
        stride *= full[i];
    }
    float *to = ARENA_ARRAY(&f->px->arena, float, stride + 1);
    for (int64_t i = 0; i < stride; i++) {
        int64_t at = 0, rest = i;
        for (int k = rank - 1; k >= 0; k--) {
            at += rest % t.dims[k] * strides[k];
            rest /= t.dims[k];
        }
        to[i] = c->v[at];
    }
    t.v = to;
    return operand(f, n, 0, &t);
}

/* The product of the last axes of v from `first` on; 0: some of them is not known, or too large. */
static int64_t block_of(const struct ir_ctx *cx, const struct value *v, int first)
{
    int64_t n = 1, d;
    for (int i = first; i < v->type->rank; i++) {
        if (!expr_is_const(&cx->exprs, v->type->dims[i], &d) || d < 1 || d > MOST_FACTORS / n)
            return 0;
        n *= d;
    }
    return n;
}

/* Reshape and its like: the last axes that hold the factor lie together on both sides. */
static bool push_reshape(struct fold *f, struct node *n, const struct factor *c)
{
    const struct ir_ctx *cx = f->px->cx;
    const struct value *to = &n->out[0], *from = node_in(n, 0);
    int at = to->type->rank, of = from->type->rank;
    for (int k = 0; k < to->type->rank; k++)
        at = factor_dim(c, k) != 1 ? to->type->rank - 1 - k : at;
    /* grow the smaller block until both are the same */
    for (;;) {
        const int64_t a = block_of(cx, to, at), b = block_of(cx, from, of);
        if (a == 0 || b == 0)
            return false;
        if (a == b)
            break;
        if (a < b ? --at < 0 : --of < 0)
            return false;
    }
    int64_t dims[IR_MAX_RANK];
    for (int i = at; i < to->type->rank; i++)
        (void)expr_is_const(&cx->exprs, to->type->dims[i], &dims[i - at]);
    struct factor t = {.rank = from->type->rank, .v = spread(f, c, to->type->rank - at, dims)};
    for (int i = 0; i < t.rank; i++) {
        t.dims[i] = 1;
        if (i >= of)
            (void)expr_is_const(&cx->exprs, from->type->dims[i], &t.dims[i]);
    }
    shrink(f, &t);
    return operand(f, n, 0, &t);
}

/* ---- rules */

static const struct {
    enum op op;
    push_fn *push;
} rules[] = {
    {OP_Mul, push_product},
    {OP_Div, push_first},
    {OP_Add, push_all},
    {OP_Sub, push_all},
    {OP_Sum, push_all},
    {OP_Where, push_all},
    {OP_Cast, push_first},
    {OP_Identity, push_first},
    {OP_Neg, push_first},
    {OP_Abs, push_first},
    {OP_Relu, push_first},
    {OP_LeakyRelu, push_first},
    {OP_PRelu, push_first},
    {OP_Expand, push_first},
    {OP_Concat, push_concat},
    {OP_Reshape, push_reshape},
    {OP_Squeeze, push_reshape},
    {OP_Unsqueeze, push_reshape},
    {OP_Flatten, push_reshape},
    {OP_Transpose, push_transpose},
    {OP_MatMul, push_matmul},
    {OP_FusedMatMul, push_matmul},
    {OP_Gemm, push_gemm},
    {OP_Conv, push_conv},
    {OP_MaxPool, push_channels},
    {OP_AveragePool, push_channels},
    {OP_GlobalAveragePool, push_channels},
    {OP_GlobalMaxPool, push_channels},
    {OP_RMSNormalization, push_norm},
    {OP_LayerNormalization, push_norm},
    {OP_BatchNormalization, push_batch_norm},
    {OP_DequantizeLinear, push_dequantize},
};

static push_fn *rule_of(enum op op)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++)
        if (rules[i].op == op)
            return rules[i].push;
    return NULL;
}

bool factors_would_fold(struct pass_ctx *px, struct value *x, const struct factor *c)
{
    struct fold f = {.px = px};
    if (count_of(c) > MOST_FACTORS)
        return false;
    for (int64_t i = 0; i < count_of(c); i++)
        if (!(c->v[i] > 0 && isfinite(c->v[i])))
            return false;
    return push(&f, x, c);
}

bool factors_fold(struct pass_ctx *px, struct value *x, const struct factor *c)
{
    struct fold f = {.px = px, .apply = true};
    if (!factors_would_fold(px, x, c) || !ir_may_rewrite(px->cx))
        return false;
    const bool done = push(&f, x, c);
    NPUC_ASSERT(done);
    return done;
}

/* ---- the pass */

/* A Mul by a constant of the same rank or less, with which its result has the other operand's type. */
static bool read_mul(struct pass_ctx *px, const struct node *n, int of, struct factor *c)
{
    const struct value *x = node_in(n, 1 - of), *v = node_in(n, of);
    struct k_tensor t;
    if (!value_const(v) || !is_wide_float(v) || x->type != n->out[0].type || !value_has_one_use(x) ||
        !blob_tensor(px->cx, v->type, value_const(v), &t))
        return false;
    float *f = ARENA_ARRAY(&px->arena, float, k_count(&t) + 1);
    for (int64_t i = 0; i < k_count(&t); i++)
        f[i] = (float)k_get_f64(&t, i);
    *c = (struct factor){.rank = t.rank, .v = f};
    memcpy(c->dims, t.dims, sizeof(int64_t) * (size_t)t.rank);
    return true;
}

enum npuc_status fold_factors(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct factor c;
        const struct arena_mark mark = arena_mark(&px->arena);
        for (int of = 0; n->op == OP_Mul && of < 2; of++) {
            struct value *x = node_in(n, 1 - of);
            if (!read_mul(px, n, of, &c) || !factors_fold(px, x, &c))
                continue;
            ir_replace_all(&n->out[0], x);
            ir_erase(n);
            pass_count(px, STAT_fold_factors_folded, 1);
            break;
        }
        arena_release(&px->arena, mark);
    }
    return NPUC_OK;
}
