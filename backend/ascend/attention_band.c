/* Which keys a row of attention can see at all, from how its mask is computed (ir/band.h): `keep` in
 * Where(keep, scores, -inf), and what is added to the scores where it is minus infinity. Chunks outside of the band
 * change nothing (kernels/attend_chunks.h) and are left out. */
#include "backend/ascend/attention.h"

/* Numbers of the scores' sequences that both ends of a window count from; one of them alone says nothing about how many
 * chunks an item has. */
static bool window_from_data(const struct att *a, const struct ir_band *b)
{
    const struct type *t = b->first_data == b->last_data ? b->first_data->type : NULL;
    return t && b->has_first && b->has_last && a->n_batch > 0 && t->dims[0] == a->batch[0] &&
           node_in(a->soft, 0)->type->rank == a->n_batch + 2;
}

static bool is_plane(const struct att *a, const struct type *t)
{
    return t->rank >= 2 && t->dims[t->rank - 2] == a->plane_rows && t->dims[t->rank - 1] == a->total;
}

/* Does v follow from the scores? */
static bool from_scores(const struct att *a, const struct value *v)
{
    const struct node *n = v->def;
    bool found = n && n == a->qk;
    for (int i = 0; n && !found && n->graph == node_region(a->fused, 0) && i < n->n_in; i++)
        found = node_in(n, i) && from_scores(a, node_in(n, i));
    return found;
}

/* The scores as they were before n; NULL: n is no mask. *by is its band. */
static const struct value *masked_by(struct ir_ctx *cx, const struct att *a, const struct node *n, struct ir_band *by)
{
    const struct value *scores;
    if (!is_plane(a, n->out[0].type))
        return NULL;
    if (ir_read_choice(cx, n, a->plane_rows, &scores, by))
        return scores;
    if (n->op != OP_Add)
        return NULL;
    const int at = from_scores(a, node_in(n, 0)) ? 0 : 1;
    *by = ir_read_bias(cx, node_in(n, 1 - at), a->plane_rows);
    return node_in(n, at);
}

struct ir_band att_read_band(struct ir_ctx *cx, const struct att *a)
{
    struct ir_band band = {.has_last = false};
    const struct value *v = node_in(a->soft, 0);
    while (v && v->def && v->def != a->qk && v->graph == node_region(a->fused, 0)) {
        const struct node *n = v->def;
        struct ir_band by = {.has_last = false};
        const bool view = op_has((enum op)n->op, T_VIEW) || n->op == OP_Identity || n->op == OP_Cast;
        v = view ? node_in(n, 0) : masked_by(cx, a, n, &by);
        ir_band_narrow(cx, &band, &by);
    }
    if ((band.first_data || band.last_data) && !window_from_data(a, &band))
        band = (struct ir_band){.has_first = band.has_first && !band.first_data,
                                .has_last = band.has_last && !band.last_data,
                                .first = band.first,
                                .last = band.last};
    return band;
}
