/* Which keys a row of attention can see at all, from how its mask is computed (ir/band.h): `keep` in
 * Where(keep, scores, -inf). Chunks outside of the band change nothing (kernels/attend_chunks.h) and are left out. */
#include "backend/ascend/attention.h"

/* Numbers of the scores' sequences that both ends of a window count from; one of them alone says nothing about how many
 * chunks an item has. */
static bool window_from_data(const struct att *a, const struct ir_band *b)
{
    const struct type *t = b->first_data == b->last_data ? b->first_data->type : NULL;
    return t && b->has_first && b->has_last && a->n_batch > 0 && t->dims[0] == a->batch[0] &&
           node_in(a->soft, 0)->type->rank == a->n_batch + 2;
}

struct ir_band att_read_band(struct ir_ctx *cx, const struct att *a)
{
    struct ir_band band = {.has_last = false};
    const struct value *v = node_in(a->soft, 0);
    while (v->def && v->def != a->qk && v->graph == node_region(a->fused, 0)) {
        const struct node *n = v->def;
        const struct type *t = n->out[0].type;
        const bool view = op_has((enum op)n->op, T_VIEW) || n->op == OP_Identity || n->op == OP_Cast;
        const bool mask = n->op == OP_Where && t->rank >= 2 && t->dims[t->rank - 2] == a->plane_rows &&
                          t->dims[t->rank - 1] == a->total && type_const_count(cx, node_in(n, 2)->type) == 1 &&
                          ir_is_minus_infinity(node_in(n, 2));
        if (!view && !mask)
            break;
        if (mask) {
            const struct ir_band by = ir_read_keep(cx, node_in(n, 0), a->plane_rows);
            ir_band_narrow(cx, &band, &by);
        }
        v = node_in(n, mask ? 1 : 0);
    }
    if ((band.first_data || band.last_data) && !window_from_data(a, &band))
        band = (struct ir_band){.has_first = band.has_first && !band.first_data,
                                .has_last = band.has_last && !band.last_data,
                                .first = band.first,
                                .last = band.last};
    return band;
}
