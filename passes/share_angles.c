/* Rotary embeddings that look up their angles by positions share what is looked up.
 *
 *   %q = RotaryEmbedding %x, %cos, %sin, %positions;  %k = RotaryEmbedding %y, %cos, %sin, %positions
 * becomes
 *   %c = Gather %cos, %positions;  %s = Gather %sin, %positions
 *   %q = RotaryEmbedding %x, %c, %s;  %k = RotaryEmbedding %y, %c, %s
 *
 * Every layer of a model has the same tables and positions: two lookups are left of two per operator. The bits are
 * those of the operator with positions, which looks up rows itself. Runs behind the passes that choose types, which
 * would take the lookups for embeddings of words; so it merges equal ones itself. Requirements: (1) tables [rows,
 * columns], positions [batch, seq] with the batch and seq of x; (2) the node that takes the place has no positions, so
 * it terminates. */
#include "passes/pass.h"

struct lookup {
    const struct value *table, *positions;
    struct value *rows;
};
struct sharer {
    struct pass_ctx *px;
    VEC(struct lookup) known;
};

static bool has_form(const struct node *n)
{
    if (n->op != OP_RotaryEmbedding || n->n_in < 4 || !node_in(n, 3))
        return false;
    const struct type *x = node_in(n, 0)->type, *p = node_in(n, 3)->type;
    const int seq = x->rank == 4 ? 2 : 1;
    return (x->rank == 3 || x->rank == 4) && p->rank == 2 && p->dims[0] == x->dims[0] && p->dims[1] == x->dims[seq] &&
           node_in(n, 1)->type->rank == 2 && node_in(n, 2)->type->rank == 2;
}

static struct value *look_up(struct sharer *s, struct builder *b, struct value *table, struct value *positions)
{
    for (int64_t i = 0; i < s->known.len; i++)
        if (s->known.data[i].table == table && s->known.data[i].positions == positions)
            return s->known.data[i].rows;
    struct value *rows = ir_op2(b, OP_Gather, table, positions);
    if (rows)
        vec_push(&s->px->arena, &s->known, ((struct lookup){table, positions, rows}));
    return rows;
}

static enum npuc_status share(struct sharer *s, struct node *n)
{
    struct builder b = ir_at(n);
    struct value *positions = node_in(n, 3);
    struct value *in[3] = {node_in(n, 0), look_up(s, &b, node_in(n, 1), positions),
                           look_up(s, &b, node_in(n, 2), positions)};
    if (!in[1] || !in[2])
        return NPUC_E_INTERNAL;
    struct node *r = ir_new(&b, OP_RotaryEmbedding, 3, in, 1);
    ir_copy_attrs(r, n);
    const enum npuc_status st = ir_infer(r);
    if (st != NPUC_OK)
        return st;
    ir_replace_all(&n->out[0], &r->out[0]);
    if (!n->out[0].uses)
        ir_erase(n);
    pass_count(s->px, STAT_share_angles_shared, 1);
    return NPUC_OK;
}

enum npuc_status share_angles(struct pass_ctx *px, struct graph *g)
{
    struct sharer s = {.px = px};
    enum npuc_status st = NPUC_OK;
    for_each_node_safe(n, g) if (st == NPUC_OK && has_form(n) && ir_may_rewrite(px->cx)) st = share(&s, n);
    return st;
}
