/* Products of one left operand with several constant weights - query, key and value; experts - become one Fused
 * "matmul_group" region, where the target has one kernel for it: one launch, and no cores without work between them.
 *
 *   %q = MatMul %x, %wq : f32[s,64];  %k = MatMul %x, %wk : f32[s,16];  %v = MatMul %x, %wv : f32[s,16]
 * becomes
 *   %q, %k, %v = Fused %x, %wq, %wk, %wv {kind="matmul_group" body=(...) { MatMul; MatMul; MatMul; Yield }} : ...
 *
 * Block-quantised ones (MatMulNBits) likewise, with others of the same blocks. Members may be regions of fuse_matmul.
 * Requirements: (1) weights are constants, so that no product depends on another; (2) at most MAX_GROUP of them; (3)
 * the target takes the region as a whole, else the nodes stay as they were; (4) runs after fuse_product, whose regions
 * read several products of one operand themselves. Columns of a product are independent, so no bit changes.
 *
 * Products that stay apart - with vector operators behind them, or on a target without such a kernel - at least stand
 * together: what reads them, the rotary embeddings of query and key, can then be one launch (backend/join.c). One moves
 * up to another of the same operand, not far before it, when it reads nothing else but constants and what that one
 * reads. */
#include "passes/pass.h"

#define MAX_GROUP 4
#define MAX_MOVE  64 /* nodes that a product moves up at most: results of what is farther off would be kept long */

static bool is_product(const struct pass_ctx *px, const struct node *n)
{
    const bool plain = n->op == OP_MatMul || n->op == OP_FusedMatMul || n->op == OP_Gemm || n->op == OP_MatMulInteger;
    const bool region =
        n->op == OP_Fused && node_attr_str(n, "kind", 0) == str_internz(&px->cx->strings, "matmul_epilogue");
    return (plain || region || n->op == OP_MatMulNBits) && n->place == PLACE_NPU && n->n_out == 1 && n->n_in > 1 &&
           n->in[0].value;
}

/* A constant, or one that is stored in another form. */
static bool is_constant(const struct value *v)
{
    for (int hops = 0; v->def && hops < 3; hops++) {
        const struct node *n = v->def;
        if (n->op != OP_Cast && n->op != OP_Transpose && n->op != OP_TransData)
            break;
        v = node_in(n, 0);
    }
    return value_const(v) != NULL;
}

/* All operands but the first are constants. */
static bool has_weights(const struct node *n)
{
    for (int i = 1; i < n->n_in; i++)
        if (node_in(n, i) && !is_constant(node_in(n, i)))
            return false;
    return !is_constant(node_in(n, 0));
}

/* Of the same type, absent in both alike. */
static bool same_type(const struct value *a, const struct value *b)
{
    return a && b ? a->type->dtype == b->type->dtype : a == b;
}

/* Codes of one kind in blocks of one size, if any of the two is block-quantised. */
static bool same_codes(const struct node *a, const struct node *b)
{
    static const char *const attrs[] = {"K", "bits", "block_size", "code_type"};
    if (a->op != OP_MatMulNBits && b->op != OP_MatMulNBits)
        return true;
    bool same = a->op == b->op;
    for (int i = 0; same && i < NPUC_ARRAY_LEN(attrs); i++)
        same = node_attr_int(a, attrs[i], 0) == node_attr_int(b, attrs[i], 0);
    return same && same_type(node_in(a, 2), node_in(b, 2)) && same_type(node_in(a, 3), node_in(b, 3)) &&
           !node_in(a, 4) && !node_in(b, 4);
}

static bool is_peer(const struct pass_ctx *px, const struct node *first, const struct node *n)
{
    return n->graph == first->graph && is_product(px, n) && has_weights(n) && node_in(n, 0) == node_in(first, 0) &&
           n->out[0].type->dtype == first->out[0].type->dtype && same_codes(first, n);
}

/* The products of the operand that `first` reads, in the order of the graph, first being the first. */
static int64_t collect(const struct pass_ctx *px, struct node *first, struct node *nodes[MAX_GROUP])
{
    int64_t n = 0, uses = 0;
    nodes[n++] = first;
    for_each_use (u, first->in[0].value) {
        struct node *at = u->user;
        if (++uses > 64)
            break;
        if (at == first || n == MAX_GROUP || u != &at->in[0] || !is_peer(px, first, at))
            continue;
        int64_t i = n++;
        for (; i > 1 && nodes[i - 1]->id > at->id; i--)
            nodes[i] = nodes[i - 1];
        nodes[i] = at;
    }
    return n;
}

static void fuse(struct pass_ctx *px, struct node *const *nodes, int64_t n)
{
    const char *reason = NULL;
    struct node *fused = ir_fuse(px->cx, nodes, n, nodes[0], "matmul_group");
    if (px->target->supports(px->target, px->cx, fused, &reason)) {
        fused->place = PLACE_NPU;
        pass_count(px, STAT_group_products_groups, 1);
        pass_count(px, STAT_group_products_grouped, n);
        return;
    }
    ir_unfuse(fused);
    pass_count(px, STAT_group_products_kept, 1);
}

/* ---- products that stay apart ------------------------------------------------------------------------------- */

/* Any on the matrix unit, also a group or a region with vector operators behind it. */
static bool is_any_product(const struct pass_ctx *px, const struct node *n)
{
    static const char *const kinds[] = {"matmul_vector", "matmul_group"};
    bool region = false;
    for (int i = 0; n->op == OP_Fused && !region && i < NPUC_ARRAY_LEN(kinds); i++)
        region = node_attr_str(n, "kind", 0) == str_internz(&px->cx->strings, kinds[i]);
    return is_product(px, n) || (region && n->place == PLACE_NPU && n->n_in > 0 && n->in[0].value);
}

static bool reads(const struct node *n, const struct value *v)
{
    for (int i = 0; i < n->n_in; i++)
        if (node_in(n, i) == v)
            return true;
    return false;
}

/* Of the same left operand, and reads nothing that is not there before `first`. */
static bool may_follow(const struct pass_ctx *px, const struct node *first, const struct node *n)
{
    if (!is_any_product(px, n) || node_in(n, 0) != node_in(first, 0))
        return false;
    for (int i = 1; i < n->n_in; i++)
        if (node_in(n, i) && !is_constant(node_in(n, i)) && !reads(first, node_in(n, i)))
            return false;
    return true;
}

/* Moves those behind `first` to it and returns the last of them. */
static struct node *bring_together(struct pass_ctx *px, struct node *first)
{
    struct node *last = first, *next;
    int64_t left = MAX_MOVE;
    for (struct node *n = first->next; n && left > 0; n = next, left--) {
        next = n->next;
        if (!may_follow(px, first, n))
            continue;
        if (last->next != n) {
            if (!ir_may_rewrite(px->cx))
                break;
            ir_move_before(n, last->next);
            pass_count(px, STAT_group_products_moved, 1);
        }
        last = n;
    }
    return last;
}

enum npuc_status group_products(struct pass_ctx *px, struct graph *g)
{
    struct node *nodes[MAX_GROUP];
    VEC(struct node *) products = {0}; /* found first: fusing moves nodes */
    if (!px->target)
        return NPUC_OK;
    for_each_node (n, g)
        if (is_product(px, n) && has_weights(n))
            vec_push(&px->arena, &products, n);
    for (int64_t i = 0; i < products.len; i++) {
        if (products.data[i]->graph != g)
            continue;
        const int64_t n = collect(px, products.data[i], nodes);
        if (n > 1 && ir_may_rewrite(px->cx))
            fuse(px, nodes, n);
    }
    ir_sort(g);
    for (struct node *n = g->first; n; n = n->next)
        if (is_any_product(px, n) && !is_constant(node_in(n, 0)))
            n = bring_together(px, n);
    ir_sort(g); /* constants of what has moved */
    return NPUC_OK;
}
