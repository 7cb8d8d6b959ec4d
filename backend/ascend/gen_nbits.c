/* MatMulNBits: y = a x dequantised(w) + bias, w of N x K in blocks along K. Products of one left operand that stand in
 * a region of passes/group_products.c are one launch, as those of gen_matmul_group.c.
 *
 * Where matrix and vector cores can run one kernel, the vector cores dequantise the blocks of the weight that the cube
 * core needs next (nbits_feed.c). Elsewhere there are two launches: the vector cores dequantise the weight into a
 * workspace in NZ, rows n (the form constant weights are stored in), then the cube cores multiply as usual; the
 * workspace lives for these two steps only. Both round the dequantised value to the type of a: the bits are the same.
 */
#include "backend/ascend/nbits.h"
#include "backend/ascend/gens.h"

struct nbits_group {
    const struct node *nodes[MM_MAX_GROUP];
    struct nbits q[MM_MAX_GROUP];
    struct value *results[MM_MAX_GROUP];
    int n;
};

/* The weight while the product runs, in one kernel; false when the machine has no such kernels. */
static bool feeds(const struct machine *m, const struct nbits_feed *f)
{
    struct mm_tile t = {.n = 16};
    return m->mixed && m->vector_per_cube == 2 && m->n_vector >= 2 * m->n_cube &&
           f->feed.fit(&f->feed, m, m->size[TS_L0B] / (2 * 16 * dtype_size(f->q->to)), &t);
}

static bool take(struct ir_ctx *cx, const struct machine *m, const struct node *n, struct nbits_group *g,
                 const char **reason)
{
    struct nbits *q = &g->q[g->n];
    if (n->op != OP_MatMulNBits || n->n_out != 1 || g->n == MM_MAX_GROUP || !nbits_match(m, cx, n, q, reason))
        return false;
    if (g->n > 0 && (mm_outside(node_in(n, 0)) != mm_outside(node_in(g->nodes[0], 0)) || !nbits_is_peer(g->q, q))) {
        *reason = "block-quantised products of different operands or blocks";
        return false;
    }
    g->nodes[g->n++] = n;
    return true;
}

static bool take_region(struct ir_ctx *cx, const struct machine *m, const struct node *fused, struct nbits_group *g,
                        const char **reason)
{
    const struct node *yield = graph_yield(node_region(fused, 0));
    struct nbits_feed f;
    for_each_node (k, node_region(fused, 0)) {
        if (k->op == OP_Constant || k->op == OP_Yield)
            continue;
        if (!take(cx, m, k, g, reason))
            return false;
        for (int i = 0; i < fused->n_out; i++)
            if (node_in(yield, i) == &k->out[0])
                g->results[g->n - 1] = &fused->out[i];
        if (!g->results[g->n - 1])
            return false;
    }
    if (g->n < 2)
        return false;
    nbits_feed_init(&f, g->q, g->n, m, NULL);
    *reason = "products whose weights the target dequantises in launches of their own";
    return feeds(m, &f);
}

static bool match(struct ir_ctx *cx, const struct machine *m, const struct node *n, struct nbits_group *g,
                  const char **reason)
{
    if (n->op == OP_Fused)
        return node_attr_str(n, "kind", 0) == str_internz(&cx->strings, MM_GROUP_KIND) &&
               take_region(cx, m, n, g, reason);
    g->nodes[0] = n;
    g->results[0] = node_out(n, 0);
    g->n = 1;
    return nbits_match(m, cx, n, g->q, reason);
}

bool gen_nbits_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct nbits_group g = {.n = 0};
    return match(cx, m, n, &g, reason);
}

static void take_tensors(struct emit *e, struct nbits_group *g, struct mm *p, struct mm_tensors *t)
{
    for (int i = 0; i < g->n; i++) {
        nbits_take_tensors(e, g->nodes[i], &g->q[i]);
        p[i] = nbits_product(e, &g->q[i], g->nodes[i]);
        p[i].c = g->results[i];
        t[i] = (struct mm_tensors){.a = emit_tensor(e, p[i].a),
                                   .b = -1,
                                   .c = emit_tensor(e, p[i].c),
                                   .bias = mm_bias_tensor(e, &p[i]),
                                   .factor = -1};
        nbits_group_tensors(e, &p[i], &t[i]);
    }
    p->peers = p + 1;
    p->n_peers = g->n - 1;
}

enum npuc_status gen_nbits_emit(struct emit *e, struct node *n)
{
    struct nbits_group g = {.n = 0};
    struct nbits_feed f;
    struct mm p[MM_MAX_GROUP];
    struct mm_tensors t[MM_MAX_GROUP];
    const char *why = NULL;
    if (!match(e->cx, e->m, n, &g, &why))
        return node_error(e->cx, n, D_VERIFY, "a block-quantised product was placed on the NPU that it cannot do: %s",
                          why ? why : "");
    take_tensors(e, &g, p, t);
    nbits_feed_init(&f, g.q, g.n, e->m, e->tiling);
    enum npuc_status st = NPUC_OK;
    if (feeds(e->m, &f))
        p->feed = &f.feed;
    p->feed_key = nbits_feed_key(&f);
    for (int i = 0; i < g.n && !p->feed && st == NPUC_OK; i++)
        st = nbits_dequant_all(e, &g.q[i], &p[i], &t[i]);
    if (st != NPUC_OK)
        return st;
    return mm_emit(e, p, t, g.n > 1 ? "GroupedMatMul" : op_table[n->op]->name);
}
