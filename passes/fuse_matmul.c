/* Fuses what follows a matrix product or convolution and can be done where its result leaves the matrix unit: a bias
 * row, Relu, a cast to a narrower type, and one to f32: for the caller, with --precision for all but vector regions.
 *
 *   %m = MatMul %x, %w : f32[b,s,64];  %a = Add %m, %bias : f32[b,s,64];  %y = Relu %a
 * becomes
 *   %y = Fused %x, %w, %bias {kind="matmul_epilogue" body=(...) { MatMul; Add; Relu; Yield }} : f32[b,s,64]
 *
 * Behind a product of integers the members are a Cast to f32, a Mul by a constant row and a Cast to a narrower float.
 * Behind a convolution of integers the members are those that make it a number again: a Cast to f32, a Mul by a factor
 * and an Add of a term per channel, a Cast to a narrower float, Relu or PRelu; then an Add of another map and Relu;
 * then the codes in integers of the result: Mul, Round, Clip, Cast. A result that others read beside its codes stays
 * one of the region.
 *
 * Requirements: (1) every value between has one use, the next member; (2) the bias is a constant of one row; the matrix
 * unit (and the interpreter in such a region) starts from it and adds the products, the file adds it last, so f32
 * results may differ in the last bit, and narrower ones round once instead of after each operator, f32 of a narrower
 * product not at all: when strict, neither is fused; (3) the target takes the region as a whole, else the nodes stay as
 * they were; (4) runs after placement and before fuse_vector, which would take the Add; Fused nodes are not fused
 * again. Left alone: residuals behind products (a matrix, not a row), casts to wider types for vector operators, whose
 * region does them while it reads. */
#include "passes/match.h"

#define MAX_MEMBERS 12

struct chain {
    struct node *nodes[MAX_MEMBERS];
    int64_t n, plain; /* plain: as many are tried when the target refuses all; 0: none */
    bool has_bias;    /* or takes none */
};

static bool is_product(const struct node *n)
{
    return (n->op == OP_MatMul || n->op == OP_FusedMatMul || n->op == OP_Gemm || n->op == OP_ScaledMatMul) &&
           n->place == PLACE_NPU && n->out[0].type->rank >= 1;
}

/* Only Relu follows a convolution: its bias is an operand. */
static bool is_conv(const struct node *n)
{
    return (n->op == OP_Conv || n->op == OP_ConvTranspose) && n->place == PLACE_NPU;
}

/* One constant row, as long as the rows of `of`. */
static bool is_row(const struct value *bias, const struct type *of)
{
    const struct type *t = bias ? bias->type : NULL;
    int64_t one;
    if (!t || !value_const(bias) || t->rank < 1 || t->rank > of->rank || t->dims[t->rank - 1] != of->dims[of->rank - 1])
        return false;
    for (int i = 0; i < t->rank - 1; i++)
        if (!expr_is_const(&bias->graph->module->cx->exprs, t->dims[i], &one) || one != 1)
            return false;
    return true;
}

static bool add_bias(struct chain *c, const struct node *n, const struct value *sum)
{
    const struct value *bias = node_in(n, 0) == sum ? node_in(n, 1) : node_in(n, 0);
    if (n->op != OP_Add || c->has_bias || c->n != 1 || !is_row(bias, sum->type))
        return false;
    c->has_bias = true;
    return true;
}

/* PRelu of a value, with constant slopes. */
static bool is_bent(const struct node *n, const struct value *sum)
{
    return n->op == OP_PRelu && node_in(n, 0) == sum && value_const(node_in(n, 1));
}

static bool add_relu(struct chain *c, const struct node *n, const struct value *sum)
{
    const enum op last = (enum op)c->nodes[c->n - 1]->op;
    return (n->op == OP_Relu || (is_conv(c->nodes[0]) && is_bent(n, sum))) && last != OP_Relu && last != OP_PRelu;
}

static bool narrows(const struct node *n, const struct value *sum)
{
    return n->op == OP_Cast && dtype_is_float(n->out[0].type->dtype) &&
           dtype_size(n->out[0].type->dtype) < dtype_size(sum->type->dtype);
}

/* To the type of the accumulators, in a kernel of its own otherwise. Roundings that the model itself asks for stay
 * unless the result is the caller's. */
static bool widens(const struct pass_ctx *px, const struct node *n, const struct value *sum)
{
    const bool made = px->options.precision != DT_NONE;
    return n->op == OP_Cast && n->out[0].type->dtype == DT_F32 && dtype_size(sum->type->dtype) == 2 &&
           dtype_is_float(sum->type->dtype) && (made ? match_apart(&n->out[0]) : match_leaves(&n->out[0]));
}

/* One f32 number per channel of `of`: [channels, 1, 1..]. */
static bool is_per_channel(const struct value *v, const struct type *of)
{
    if (!v || v->type->kind != TYPE_TENSOR || v->type->dtype != DT_F32 || v->type->rank != of->rank - 1 ||
        v->type->dims[0] != of->dims[1])
        return false;
    for (int i = 1; i < v->type->rank; i++)
        if (!expr_is_one(&v->graph->module->cx->exprs, v->type->dims[i]))
            return false;
    return true;
}

static bool is_number(const struct value *v)
{
    double number;
    return match_scalar(v, &number);
}

/* Members behind a convolution of integers, in this order. Those to STEP_ADD make its sums numbers; the others may be
 * missing, the Relu behind an Add of a map with it, integer codes as a whole. */
enum { STEP_ADD = 3, STEP_RELU = 5, STEP_MAP = 6, STEP_MAP_RELU = 7, STEP_CODES = 8, STEPS = 12 };

static bool is_scaled_step(const struct node *n, const struct value *sum, int64_t step)
{
    const struct value *x = node_in(n, 0), *other = x == sum ? node_in(n, 1) : x;
    const enum dtype to = n->out[0].type->dtype;
    if (x != sum && (step != STEP_MAP || node_in(n, 1) != sum))
        return false;
    switch (step) {
    case 1: return n->op == OP_Cast && to == DT_F32;
    case 2: return n->op == OP_Mul && is_per_channel(other, sum->type);
    case STEP_ADD: return n->op == OP_Add && is_per_channel(other, sum->type);
    case 4: return n->op == OP_Cast && dtype_is_float(to) && dtype_size(to) == 2;
    case STEP_RELU: return n->op == OP_Relu || is_bent(n, sum);
    case STEP_MAP: return n->op == OP_Add && other && other != sum && other->type == sum->type;
    case STEP_CODES: return n->op == OP_Mul && is_number(other);
    case 9: return n->op == OP_Round;
    case 10: return n->op == OP_Clip && is_number(node_in(n, 1)) && is_number(node_in(n, 2));
    case 11: return n->op == OP_Cast && (to == DT_I8 || to == DT_I16);
    default: return n->op == OP_Relu;
    }
}

/* The next member and its step: a user of `sum` at one of the steps from `step` on. Integer codes may be one user of
 * many; before them a value has one. */
static struct node *next_step(const struct node *conv, const struct value *sum, int64_t *step)
{
    const bool alone = value_has_one_use(sum);
    for (int64_t s = *step; s < STEPS; s++) {
        const bool skips = s > *step;
        if ((skips && (*step <= STEP_ADD || *step > STEP_CODES || s == STEP_MAP_RELU || s > STEP_CODES)) ||
            (!alone && s != STEP_CODES))
            continue;
        for_each_use (u, sum)
            if (u->user->place == PLACE_NPU && u->user->graph == conv->graph && u->user->n_out == 1 &&
                is_scaled_step(u->user, sum, s)) {
                *step = s;
                return u->user;
            }
    }
    return NULL;
}

static void collect_scaled(struct node *conv, struct chain *c)
{
    struct node *next;
    *c = (struct chain){.nodes = {conv}, .n = 1};
    int64_t whole = 1, plain = 1; /* members when it may end; without maps and codes */
    for (int64_t step = 1; step < STEPS; step++) {
        const struct value *sum = &c->nodes[c->n - 1]->out[0];
        if (value_used_in_body(sum) || !(next = next_step(conv, sum, &step)))
            break;
        c->nodes[c->n++] = next;
        whole = step >= STEP_ADD && (step < STEP_CODES || step == STEPS - 1) ? c->n : whole;
        plain = step >= STEP_ADD && step < STEP_MAP ? c->n : plain;
    }
    c->n = whole;
    c->plain = plain;
}

/* The product and its users, one after the other, as far as the pattern goes. */
static void collect(const struct pass_ctx *px, struct node *product, struct chain *c)
{
    const bool has = is_conv(product) || (product->op == OP_Gemm && node_in(product, 2)) ||
                     (product->op == OP_ScaledMatMul && node_in(product, 4));
    *c = (struct chain){.nodes = {product}, .n = 1, .has_bias = has || px->options.strict};
    while (c->n < MAX_MEMBERS) {
        struct value *sum = &c->nodes[c->n - 1]->out[0];
        struct node *next = value_has_one_use(sum) ? sum->uses->user : NULL;
        if (!next || next->place != PLACE_NPU || next->graph != product->graph || next->n_out != 1)
            return;
        const bool ends = (!is_conv(product) && narrows(next, sum)) || (!px->options.strict && widens(px, next, sum));
        if (!ends && !add_bias(c, next, sum) && !add_relu(c, next, sum))
            return;
        c->nodes[c->n++] = next;
        if (ends)
            return;
    }
}

/* Behind a product of integers: Cast to f32, Mul by a constant row, Cast to a narrower float. */
static void collect_factor(struct node *product, struct chain *c)
{
    *c = (struct chain){.nodes = {product}, .n = 1};
    for (int step = 1; step < 4; step++) {
        const struct value *sum = &c->nodes[c->n - 1]->out[0];
        struct node *next = value_has_one_use(sum) ? sum->uses->user : NULL;
        if (!next || next->place != PLACE_NPU || next->graph != product->graph || next->n_out != 1)
            break;
        const struct value *other = node_in(next, node_in(next, 0) == sum ? 1 : 0);
        const bool fits =
            step == 2 ? next->op == OP_Mul && is_row(other, sum->type)
                      : next->op == OP_Cast && (step == 3 ? narrows(next, sum) : next->out[0].type->dtype == DT_F32);
        if (!fits)
            break;
        c->nodes[c->n++] = next;
    }
    c->n = c->n < 3 ? 1 : c->n;
}

/* The first node behind the product that the chain leaves where it is. */
static struct node *behind(const struct chain *c)
{
    struct node *n = c->nodes[0]->next;
    for (int64_t i = 1; n && i < c->n; i++)
        for (int64_t k = 1; n && k < c->n; k++)
            n = n == c->nodes[k] ? n->next : n;
    return n;
}

static void fuse(struct pass_ctx *px, struct chain *c)
{
    const char *reason = NULL;
    struct node *fused = ir_fuse(px->cx, c->nodes, c->n, c->nodes[c->n - 1], "matmul_epilogue");
    if (px->target->supports(px->target, px->cx, fused, &reason)) {
        fused->place = PLACE_NPU;
        pass_count(px, STAT_fuse_matmul_regions, 1);
        pass_count(px, STAT_fuse_matmul_fused, c->n);
        return;
    }
    ir_unfuse(fused);
    if (c->plain > 1 && c->plain < c->n) {
        c->n = c->plain;
        fuse(px, c);
        return;
    }
    pass_count(px, STAT_fuse_matmul_kept, 1);
}

enum npuc_status fuse_matmul(struct pass_ctx *px, struct graph *g)
{
    struct chain c;
    struct map tried; /* products by id: what the target refused stands behind its chain again */
    if (!px->target)
        return NPUC_OK;
    map_init(&tried, &px->arena);
    for (struct node *n = g->first, *next; n; n = next) {
        next = n->next;
        const bool integers = n->op == OP_ConvInteger && n->place == PLACE_NPU;
        const bool products = n->op == OP_MatMulInteger && n->place == PLACE_NPU && n->out[0].type->rank >= 1;
        if (!is_product(n) && !is_conv(n) && !integers && !products)
            continue;
        if (products)
            collect_factor(n, &c);
        else if (integers)
            collect_scaled(n, &c);
        else
            collect(px, n, &c);
        if (c.n < 2 || map_find(&tried, n->id) || !ir_may_rewrite(px->cx))
            continue;
        map_put(&tried, n->id, 1);
        next = behind(&c);
        fuse(px, &c);
    }
    return NPUC_OK;
}
