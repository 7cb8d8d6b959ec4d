/* A node as equal parts of axis 0 (images), one per cluster, run side by side as copies of one kernel.
 *
 * While its generator runs, operands and results that have images on axis 0 have the type of one part; the plan tensors
 * are those of the whole, made before, and each launch notes which of them its copies divide (struct plan_step). What
 * the generator adds as workspace is there once per copy. Images do not meet in any of the operators taken, so each is
 * computed as before, bit by bit. */
#include "backend/emit_priv.h"

enum { MAX_VALUES = 512 };

static bool images_of(const struct ir_ctx *cx, const struct value *v, int64_t *n)
{
    return v->type->kind == TYPE_TENSOR && !type_is_object(v->type) && v->type->rank > 0 &&
           dtype_size(v->type->dtype) > 0 &&
           (v->type->layout.kind == LAYOUT_ND || v->type->layout.kind == LAYOUT_NHWC) &&
           expr_is_const(&cx->exprs, v->type->dims[0], n);
}

/* The same for all images: a constant, cast or seen in another shape. */
static bool is_fixed(const struct value *v)
{
    while (v && v->def && op_has((enum op)v->def->op, T_VIEW))
        v = node_in(v->def, 0);
    return v && (value_const(v) || weight_is_cast(v));
}

/* Rows of the left operand are images, or batch members are. */
static bool product_is_apart(const struct node *n)
{
    const struct value *a = node_in(n, 0), *b = node_in(n, 1);
    return a && b && a->type->rank >= 2 && node_attr_int(n, "transA", 0) == 0 &&
           (is_fixed(b) ? b->type->rank <= 2 : b->type->rank == a->type->rank && a->type->rank > 2);
}

/* Are all operands but the first the same for all images? A bias that is no constant may have as many elements as there
 * are images. `outer`: the Fused node that n stands in. */
static bool rest_is_fixed(const struct node *n, const struct node *outer)
{
    for (int i = 1; i < n->n_in; i++) {
        const struct value *v = node_in(n, i);
        const bool input = v && outer && !v->def && v->graph == n->graph;
        if (v && !is_fixed(input ? node_in(outer, (int)v->index) : v))
            return false;
    }
    return true;
}

static bool op_is_apart(const struct node *n, const struct node *outer)
{
    const enum op op = n->op;
    const enum op_class cls = op_table[op]->cls;
    if (op == OP_MaxPool && node_out(n, 1)) /* places are counted over all images */
        return false;
    if ((cls == CLS_CONV || op == OP_Gemm) && !rest_is_fixed(n, outer))
        return false;
    if (op_has(op, T_ALONG)) {
        const int64_t axis = node_attr_int(n, "axis", 0);
        return axis > 0 || (axis < 0 && axis + n->out[0].type->rank > 0);
    }
    return op_has(op, T_APART | T_ELEMENTWISE) && (cls != CLS_MATMUL || product_is_apart(n));
}

struct parts {
    struct emit *e;
    int64_t images;
    int32_t copies, n;
    struct value *value[MAX_VALUES];
    const struct type *whole[MAX_VALUES];
};

/* A value of images: noted, to have the type of a part. What has one on axis 0 is the same for all. */
static bool note(struct parts *p, struct value *v)
{
    int64_t n;
    if (!v || is_fixed(v))
        return true;
    if (v->type->kind == TYPE_TENSOR && v->type->rank == 0)
        return true;
    if (!images_of(p->e->cx, v, &n) || (n != p->images && n != 1))
        return false;
    if (n == p->images) {
        if (p->n == MAX_VALUES)
            return false;
        p->value[p->n++] = v;
    }
    return true;
}

/* An operand that has images has them where the result has them, and a constant has none. `outer`: the Fused node. */
static bool broadcasts(const struct parts *p, const struct node *n, const struct value *v, const struct node *outer)
{
    int64_t first = 0;
    const bool input = outer && !v->def && v->graph == n->graph;
    const bool fixed = is_fixed(input ? node_in(outer, (int)v->index) : v);
    const struct type *t = v->type, *y = n->out[0].type;
    if (t->kind != TYPE_TENSOR || t->rank == 0)
        return true;
    if (t->rank != y->rank)
        return fixed && t->rank < y->rank;
    return !fixed || (expr_is_const(&p->e->cx->exprs, t->dims[0], &first) && first == 1);
}

static bool note_node(struct parts *p, struct node *n, const struct node *outer)
{
    if (!op_is_apart(n, outer))
        return false;
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i) && n->op != OP_Constant && !note(p, &n->out[i]))
            return false;
    const enum op_class cls = op_table[n->op]->cls;
    for (int i = 0; i < n->n_in && p->images > 1 && cls != CLS_MATMUL && cls != CLS_CONV; i++)
        if (node_in(n, i) && !broadcasts(p, n, node_in(n, i), outer))
            return false;
    return true;
}

/* Its bytes are those of the tensor, parts one behind the other. */
static bool is_whole(struct emit *e, int32_t tensor)
{
    const struct plan_tensor *t = &e->plan->tensors.data[tensor];
    int64_t offset;
    if (t->kind != PT_ALIAS)
        return true;
    return expr_is_const(&e->plan->exprs, t->base_offset, &offset) && offset == 0 &&
           t->size == e->plan->tensors.data[t->base].size;
}

static bool collect(struct parts *p, struct node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (!note(p, node_in(n, i)))
            return false;
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i) && !note(p, &n->out[i]))
            return false;
    if (n->op != OP_Fused)
        return note_node(p, n, NULL);
    const struct graph *g = node_region(n, 0);
    for (int32_t i = 0; i < g->n_inputs; i++)
        if (node_in(n, i) && !is_fixed(node_in(n, i)) && !note(p, g->inputs[i]))
            return false;
    for_each_node (k, g)
        if (k->op != OP_Yield && k->op != OP_Constant && !note_node(p, k, n))
            return false;
    return true;
}

static bool read_parts(struct emit *e, struct node *n, int32_t copies, struct parts *p)
{
    *p = (struct parts){.e = e, .copies = copies};
    return n->n_out > 0 && node_out(n, 0) && images_of(e->cx, &n->out[0], &p->images) && p->images % copies == 0 &&
           collect(p, n);
}

bool emit_may_divide(struct emit *e, struct node *n, int32_t copies)
{
    return read_parts(e, n, copies, ARENA_NEW(e->arena, struct parts));
}

bool emit_divides(struct emit *e, struct node *n, int32_t copies)
{
    struct parts *p = ARENA_NEW(e->arena, struct parts);
    if (!read_parts(e, n, copies, p))
        return false;
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        struct value *v = i < n->n_in ? node_in(n, i) : node_out(n, i - n->n_in);
        if (v && !is_fixed(v) && !is_whole(e, emit_tensor(e, v)))
            return false;
    }
    return true;
}

static void retype(struct parts *p)
{
    expr dims[IR_MAX_RANK];
    for (int32_t i = 0; i < p->n; i++) {
        struct value *v = p->value[i];
        struct type t = *v->type;
        p->whole[i] = v->type;
        for (int d = 0; d < t.rank; d++)
            dims[d] = d > 0 ? v->type->dims[d] : expr_const(&p->e->cx->exprs, p->images / p->copies);
        t.dims = dims;
        v->type = type_intern(p->e->cx, &t);
    }
}

enum npuc_status emit_copies(struct emit *e, const struct gen *g, struct node *n, int32_t copies)
{
    struct parts *p = ARENA_NEW(e->arena, struct parts);
    const bool ok = read_parts(e, n, copies, p);
    NPUC_ASSERT(ok);
    e->copies = copies;
    e->divided.len = 0;
    for (int32_t i = 0; i < p->n; i++)
        if (e->tensor_of[p->value[i]->id] >= 0)
            vec_push(e->arena, &e->divided, e->tensor_of[p->value[i]->id]);
    retype(p);
    const enum npuc_status s = g->emit(e, n);
    for (int32_t i = p->n - 1; i >= 0; i--)
        p->value[i]->type = p->whole[i];
    e->copies = 0;
    return s;
}
