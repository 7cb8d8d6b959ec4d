/* MatMulNBits: y = a x dequantised(w) + bias, w of N x K in blocks along K.
 *
 * Where matrix and vector cores can run one kernel, the vector cores dequantise the blocks of the weight that the cube
 * core needs next (nbits_feed.c). Elsewhere there are two launches: the vector cores dequantise the weight into a
 * workspace in NZ, rows n (the form constant weights are stored in), then the cube cores multiply as usual; the
 * workspace lives for these two steps only. Both round the dequantised value to the type of a: the bits are the same.
 */
#include "backend/ascend/nbits.h"
#include "backend/ascend/gens.h"

bool gen_nbits_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct nbits q;
    return nbits_match(m, cx, n, &q, reason);
}

/* The weight while the product runs, in one kernel; false when the machine has no such kernels. */
static bool feeds(const struct machine *m, const struct nbits_feed *f)
{
    struct mm_tile t = {.n = 16};
    return m->mixed && m->vector_per_cube == 2 && m->n_vector >= 2 * m->n_cube &&
           f->feed.fit(&f->feed, m, m->size[TS_L0B] / (2 * 16 * dtype_size(f->q->to)), &t);
}

enum npuc_status gen_nbits_emit(struct emit *e, struct node *n)
{
    struct nbits q;
    struct nbits_feed f;
    const char *why = NULL;
    if (!nbits_match(e->m, e->cx, n, &q, &why))
        return node_error(e->cx, n, D_VERIFY, "a block-quantised product was placed on the NPU that it cannot do: %s",
                          why ? why : "");
    nbits_take_tensors(e, n, &q);
    struct mm p = nbits_product(e, &q, n);
    struct mm_tensors t = {
        .a = emit_tensor(e, p.a), .b = -1, .c = emit_tensor(e, p.c), .bias = mm_bias_tensor(e, &p), .factor = -1};
    nbits_group_tensors(e, &p, &t);
    nbits_feed_init(&f, &q, e->m, e->tiling);
    enum npuc_status st = NPUC_OK;
    if (feeds(e->m, &f))
        p.feed = &f.feed;
    else
        st = nbits_dequant_all(e, &q, &t.b);
    if (st != NPUC_OK)
        return st;
    return mm_emit(e, &p, &t, op_table[n->op]->name);
}
