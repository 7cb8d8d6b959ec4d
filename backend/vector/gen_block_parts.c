/* Concat and Split on channels of maps in blocks of channels (NC1HWC0): parts begin on whole blocks, so each is one
 * strided copy per member of the batch. */
#include "backend/vector/gens.h"
#include "backend/vector/views.h"

static bool is_blocked(const struct value *v, int64_t c0)
{
    return v && v->type->kind == TYPE_TENSOR && v->type->layout.kind == LAYOUT_NC1HWC0 && v->type->layout.c0 == c0;
}

static int parts_of(const struct node *n)
{
    return n->op == OP_Concat ? n->n_in : n->n_out;
}

static struct value *part(const struct node *n, int i)
{
    return n->op == OP_Concat ? node_in(n, i) : node_out(n, i);
}

static struct value *whole(const struct node *n)
{
    return n->op == OP_Concat ? node_out(n, 0) : node_in(n, 0);
}

bool gen_block_parts_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    if ((n->op != OP_Concat && n->op != OP_Split) || !whole(n) || whole(n)->type->layout.kind != LAYOUT_NC1HWC0)
        return false;
    const int rank = whole(n)->type->rank, count = parts_of(n);
    *reason = "parts of blocked maps are whole blocks of channels";
    if (view_axis(n, "axis", 0, rank) != 1)
        return false;
    for (int i = 0; i < count; i++) {
        int64_t channels;
        if (!is_blocked(part(n, i), whole(n)->type->layout.c0) ||
            !expr_is_const(&cx->exprs, part(n, i)->type->dims[1], &channels) ||
            (channels % whole(n)->type->layout.c0 && (i + 1 < count || n->op == OP_Split)))
            return false;
    }
    return true;
}

/* [batch][blocks and positions of a part]; strides of the tensor that holds it. */
static struct vr_view part_view(struct emit *e, struct value *v, expr offset, expr member)
{
    struct vr_view w = view_element(e, v, offset);
    w.stride[0] = member;
    w.stride[1] = expr_const(emit_pool(e), 1);
    return w;
}

static expr member_of(struct expr_pool *x, const struct type *t)
{
    const expr c0 = expr_const(x, t->layout.c0), blocks = expr_ceildiv(x, t->dims[1], c0);
    return expr_mul(x, expr_mul(x, blocks, c0), view_product(x, t->dims, 2, t->rank));
}

enum npuc_status gen_block_parts_emit(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    struct value *all = whole(n);
    const expr member = member_of(x, all->type);
    expr at = expr_const(x, 0);
    for (int i = 0; i < parts_of(n); i++) {
        struct value *v = part(n, i);
        const expr len = member_of(x, v->type), dims[2] = {all->type->dims[0], len};
        const struct vr_view one = part_view(e, v, expr_const(x, 0), len), in_all = part_view(e, all, at, member);
        const bool joins = n->op == OP_Concat, placed = joins && emit_is_placed(e, v, all);
        const enum npuc_status s =
            placed ? NPUC_OK
                   : view_copy(e, 2, dims, joins ? &in_all : &one, joins ? &one : &in_all, op_table[n->op]->name);
        if (s != NPUC_OK)
            return s;
        at = expr_add(x, at, len);
    }
    return NPUC_OK;
}
