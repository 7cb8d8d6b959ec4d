/* Which regions are attention: product, vector operators over the rows of its result, SoftmaxMatMul.
 *
 * Between the two the rows may be seen in other shapes (Reshape views), as long as the columns stay what they are.
 * Behind them the result may be seen in another shape, turned from [heads, rows] to [rows, heads], and narrowed.
 * One of these shapes, that in which masks and other operands meet the scores, is the iteration space of the vector
 * region. */
#include "backend/ascend/attention.h"
#include "ir/ops/extent.h"

#define MAX_GROUPS 16 /* of a row of codes: an instruction or two each */

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static bool is_product(const struct node *n)
{
    return n->op == OP_MatMul || n->op == OP_FusedMatMul;
}

static bool is_view(const struct node *n)
{
    return op_has((enum op)n->op, T_VIEW) || n->op == OP_Identity;
}

/* q or k widened to f32: a product of the narrow operands whose sums are not rounded. */
static bool widens(const struct att *a, const struct node *n)
{
    return n->op == OP_Cast && (node_in(a->qk, 0) == &n->out[0] || node_in(a->qk, 1) == &n->out[0]) &&
           dtype_size(node_in(n, 0)->type->dtype) == 2 && n->out[0].type->dtype == DT_F32;
}

bool att_feeds(const struct att *a, const struct node *n)
{
    return n->op == OP_CacheDecode || n->op == OP_TransData || n->op == OP_Slice || widens(a, n);
}

/* A node of the vector region. */
static bool is_vector(const struct att *a, const struct node *n)
{
    return !att_feeds(a, n) && n != a->qk && n != a->soft && !is_view(n) && n->op != OP_Constant && n->op != OP_Yield;
}

/* ---- products --------------------------------------------------------------------------------------------- */

/* What may stand between the second product and the region's end. */
static bool ends(const struct node *n)
{
    return n->op == OP_Cast || n->op == OP_Transpose || is_view(n);
}

static bool find_products(const struct node *n, struct att *a)
{
    const struct graph *g = node_region(n, 0);
    const struct value *y = node_in(graph_yield(g), 0);
    a->fused = n;
    while (n->n_out == 1 && y->def && y->graph == g && ends(y->def)) {
        a->turn = y->def->op == OP_Transpose && !a->turn ? y->def : a->turn;
        y = node_in(y->def, 0);
    }
    a->soft = n->n_out == 1 && y->graph == g ? y->def : NULL;
    for_each_node (m, g)
        if (is_product(m)) {
            if (a->qk)
                return false;
            a->qk = m;
        }
    return a->qk && a->soft && a->soft->op == OP_SoftmaxMatMul;
}

/* An operand of a node as the surrounding graph sees it; NULL when it is computed in the region, or absent. */
static struct value *operand(struct ir_ctx *cx, const struct att *a, const struct node *n, int i)
{
    const struct value *v = node_in(n, i);
    if (v && v->def && widens(a, v->def))
        v = node_in(v->def, 0);
    if (v && v->def && v->def->op == OP_TransData)
        v = node_in(v->def, 0); /* rows in pages */
    if (v && v->def && v->def->op == OP_Slice && slice_takes_columns(cx, v->def))
        v = node_in(v->def, 0); /* the first columns of longer rows */
    if (v && v->def && v->def->op == OP_CacheDecode)
        return &v->def->out[0];
    return v && !v->def ? node_in(a->fused, (int)v->index) : NULL;
}

/* Strides of a matrix operand for the batch of the scores, and between its rows. */
static bool read_strides(struct ir_ctx *cx, const struct att *a, const struct value *v, expr *batch, expr *row)
{
    expr strides[IR_MAX_RANK];
    const int rank = v->type->rank;
    if (rank < 2 || rank - 2 > a->n_batch || !value_strides(cx, v, strides))
        return false;
    *row = strides[rank - 2];
    for (int i = 0; i < a->n_batch; i++) {
        const int axis = rank - 2 - a->n_batch + i;
        int64_t size = 1;
        const bool one = axis < 0 || (expr_is_const(&cx->exprs, v->type->dims[axis], &size) && size == 1);
        batch[i] = one ? expr_const(&cx->exprs, 0) : strides[axis];
        if (!one && v->type->dims[axis] != a->batch[i])
            return false;
    }
    return true;
}

/* Of keys or values. */
static bool read_rows(struct ir_ctx *cx, struct att *a, int operand, expr *batch, expr *row)
{
    const struct value *v = operand == ATT_KEYS ? a->k : a->v;
    if (v->type->layout.page)
        return (operand == ATT_KEYS ? a->k_rows : a->v_rows) && att_read_pages(cx, a, v, operand, batch, row);
    return read_strides(cx, a, v, batch, row);
}

/* An operand that the region decodes. */
static bool read_codes(struct ir_ctx *cx, struct att *a, const struct value *v, struct att_codes *c)
{
    const struct node *d = v->def && v->def->op == OP_CacheDecode ? v->def : NULL;
    if (!d || v->graph != node_region(a->fused, 0))
        return true;
    if (node_in(d, 0)->def || node_in(d, 1)->def || !cache_form(cx, d, &c->f) || c->f.size / c->f.group > MAX_GROUPS)
        return false;
    c->codes = node_in(a->fused, (int)node_in(d, 0)->index);
    c->scales = node_in(a->fused, (int)node_in(d, 1)->index);
    return read_strides(cx, a, c->codes, c->batch, &c->row) && read_strides(cx, a, c->scales, c->s_batch, &c->s_row);
}

static bool read_decoders(struct ir_ctx *cx, struct att *a)
{
    const struct att_codes *k = &a->coded[ATT_KEYS], *v = &a->coded[ATT_VALUES];
    return read_codes(cx, a, a->k, &a->coded[ATT_KEYS]) && read_codes(cx, a, a->v, &a->coded[ATT_VALUES]) &&
           (!k->codes || a->k_rows) && (!v->codes || a->v_rows);
}

static bool read_operands(struct ir_ctx *cx, struct att *a, const char **reason)
{
    const struct type *s = a->qk->out[0].type;
    a->q = operand(cx, a, a->qk, 0);
    a->k = operand(cx, a, a->qk, 1);
    a->v = operand(cx, a, a->soft, 1);
    a->sink = operand(cx, a, a->soft, 2);
    a->y = node_out(a->fused, 0);
    const struct type *y = a->soft->out[0].type;
    if (!a->q || !a->k || !a->v || (node_in(a->soft, 2) && !a->sink) || s->rank < 2 || y->rank != s->rank)
        return refuse(reason, "attention products of another form");
    a->n_batch = s->rank - 2;
    for (int i = 0; i < a->n_batch; i++)
        a->batch[i] = s->dims[i];
    a->rows = s->dims[s->rank - 2];
    a->total = s->dims[s->rank - 1];
    for (int i = 0; i < s->rank - 1; i++)
        if (y->dims[i] != s->dims[i]) /* one member of a result must not stand for several */
            return refuse(reason, "attention whose products group rows differently");
    if (!read_strides(cx, a, a->q, a->q_batch, &a->q_row) || !read_rows(cx, a, ATT_KEYS, a->k_batch, &a->k_row) ||
        !read_rows(cx, a, ATT_VALUES, a->v_batch, &a->v_row) ||
        !read_strides(cx, a, &a->soft->out[0], a->y_batch, &a->y_row))
        return refuse(reason, "attention operands whose batch sizes are not known to agree");
    return read_decoders(cx, a) || refuse(reason, "attention on caches of codes that do not lie in rows");
}

static bool read_products(const struct machine *m, struct ir_ctx *cx, struct att *a, const char **reason)
{
    struct mm qk;
    const struct type *v = node_in(a->soft, 1)->type;
    const bool turned = node_attr_int(a->soft, "transB", 0) != 0;
    if (!mm_match(m, cx, a->qk, &qk, reason))
        return false;
    if (qk.a_trans || qk.bias || qk.relu || qk.weight)
        return refuse(reason, "attention products of another form");
    a->in = qk.in;
    a->score = qk.out;
    a->prob = v->dtype;
    a->out = a->soft->out[0].type->dtype;
    a->empty = (enum attend_empty)node_attr_int(a->soft, "empty", 0);
    a->scale = node_attr_float(a->soft, "scale", 1.0f);
    a->k_rows = qk.b_trans;
    a->v_rows = !turned;
    if (!mm_has_mac(m, a->prob, a->out) || dtype_size(a->prob) < 2 || dtype_size(a->score) < 2)
        return refuse(reason, "attention of a type that the matrix unit does not multiply");
    if (!expr_is_const(&cx->exprs, qk.k, &a->size) ||
        !expr_is_const(&cx->exprs, v->dims[v->rank - 1 - (turned ? 1 : 0)], &a->v_size) || a->size < 1 || a->v_size < 1)
        return refuse(reason, "attention with a head size that is not known");
    if (!read_operands(cx, a, reason))
        return false;
    a->in = a->q->type->dtype;
    return (a->k->type->dtype == a->in && mm_has_mac(m, a->in, a->score)) ||
           refuse(reason, "attention of a type that the matrix unit does not multiply");
}

/* ---- vector region ---------------------------------------------------------------------------------------- */

/* The shape over which a node iterates. */
static const struct type *node_shape(const struct node *n)
{
    return op_has((enum op)n->op, T_REDUCE) ? node_in(n, 0)->type : n->out[0].type;
}

/* Does the node read more than values of the region and single numbers? */
static bool reads_tensors(struct ir_ctx *cx, const struct node *n)
{
    const bool axes = op_has((enum op)n->op, T_REDUCE) && op_table[n->op]->cls != CLS_NORM;
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = node_in(n, i);
        const bool outside = v && (!v->def || v->def->op == OP_Constant);
        if (outside && !(axes && i == 1) && type_const_count(cx, v->type) != 1)
            return true;
    }
    return false;
}

static expr count_rows(struct ir_ctx *cx, const expr *dims, int rank)
{
    expr n = expr_const(&cx->exprs, 1);
    for (int i = 0; i < rank - 1; i++)
        n = expr_mul(&cx->exprs, n, dims[i]);
    return n;
}

/* The same dimensions as the space, or with a last one of one? */
static bool same_shape(struct ir_ctx *cx, const struct type *t, const struct type *s)
{
    for (int i = 0; i < s->rank; i++)
        if (t->rank != s->rank ||
            (t->dims[i] != s->dims[i] && !(i == s->rank - 1 && expr_is_one(&cx->exprs, t->dims[i]))))
            return false;
    return true;
}

/* The same rows and columns in another shape? */
static bool same_rows(struct ir_ctx *cx, const struct att *a, const struct type *t, expr n_rows)
{
    return t->rank >= 1 && (t->dims[t->rank - 1] == a->total || expr_is_one(&cx->exprs, t->dims[t->rank - 1])) &&
           count_rows(cx, t->dims, t->rank) == n_rows;
}

/* The widest shape in which operands meet the scores; that of any node when there are none. */
static const struct type *choose_shape(struct ir_ctx *cx, const struct att *a)
{
    const struct type *any = NULL, *chosen = NULL;
    for_each_node (n, node_region(a->fused, 0)) {
        if (n == a->soft)
            break;
        if (!is_vector(a, n))
            continue;
        const struct type *t = node_shape(n);
        const bool wide = t->rank >= 2 && t->dims[t->rank - 1] == a->total;
        if (wide && !any)
            any = t;
        if (wide && !chosen && reads_tensors(cx, n))
            chosen = t;
    }
    return chosen ? chosen : any;
}

/* The sink is read over the space: its shape must be that of the rows as SoftmaxMatMul counts them. */
static bool sink_fits(struct ir_ctx *cx, const struct att *a)
{
    const struct type *s = node_in(a->soft, 0)->type;
    const int64_t group = node_attr_int(a->soft, "group", 1);
    const int r = s->rank;
    if (!a->sink)
        return true;
    if (a->space.rank != r || (r < 3 && group > 1) || a->sink->type->rank > r)
        return false;
    for (int i = 0; i < r - 3; i++)
        if (a->space.shape[i] != s->dims[i])
            return false;
    return (r < 3 || a->space.shape[r - 3] == expr_mul_const(&cx->exprs, s->dims[r - 3], group)) &&
           expr_mul_const(&cx->exprs, a->space.shape[r - 2], group) == s->dims[r - 2];
}

static bool read_space(struct ir_ctx *cx, struct att *a, const char **reason)
{
    const struct type *chosen = choose_shape(cx, a), *s = chosen ? chosen : node_in(a->soft, 0)->type;
    if (s->rank > IR_MAX_RANK - 2)
        return refuse(reason, "attention over too many dimensions");
    space_init(cx, &a->space, s->rank);
    for (int i = 0; i < s->rank; i++)
        a->space.shape[i] = s->dims[i];
    const expr n_rows = count_rows(cx, s->dims, s->rank);
    for_each_node (n, node_region(a->fused, 0)) {
        if (n == a->soft)
            break;
        if (n->op == OP_Constant || att_feeds(a, n))
            continue;
        if (!same_rows(cx, a, n->out[0].type, n_rows))
            return refuse(reason, "attention whose scores change shape");
        if (!is_vector(a, n))
            continue;
        if (op_has((enum op)n->op, T_REDUCE))
            return refuse(reason, "attention with a reduction of its scores beside the softmax");
        if (!lower_check(cx, n, reason))
            return false;
        if (same_shape(cx, node_shape(n), s)) {
            if (!space_add(cx, &a->space, n, reason))
                return false;
        } else if (reads_tensors(cx, n)) {
            return refuse(reason, "attention whose scores meet operands in two shapes");
        }
    }
    for (int i = 0; i < s->rank; i++)
        if (a->space.shape[i] != s->dims[i])
            return refuse(reason, "attention whose operands widen the scores");
    return sink_fits(cx, a) || refuse(reason, "attention with a sink of another shape");
}

/* The space's rows as batch x planes x plane_rows. */
static bool split_rows(struct ir_ctx *cx, struct att *a, const char **reason)
{
    struct expr_pool *x = &cx->exprs;
    const struct space *s = &a->space;
    const expr one = expr_const(x, 1);
    expr batch = one, outer = one;
    for (int i = 0; i < a->n_batch; i++)
        batch = expr_mul(x, batch, a->batch[i]);
    for (int i = 0; i < s->rank - 3; i++)
        outer = expr_mul(x, outer, s->shape[i]);
    a->plane_rows = s->shape[s->rank - 2];
    a->planes = one;
    const expr heads = s->rank > 2 ? s->shape[s->rank - 3] : one;
    if (a->plane_rows == a->rows && expr_mul(x, outer, heads) == batch)
        return true;
    a->heads_split = true;
    a->planes = expr_is_one(&cx->exprs, a->plane_rows) ? a->rows : expr_floordiv(x, a->rows, a->plane_rows);
    if (s->rank < 3 || expr_is_one(&cx->exprs, a->planes) || expr_mul(x, a->planes, a->plane_rows) != a->rows)
        return refuse(reason, "attention whose rows are not whole heads");
    const expr key_heads = expr_floordiv(x, heads, a->planes);
    return (expr_mul(x, key_heads, a->planes) == heads && expr_mul(x, outer, key_heads) == batch) ||
           refuse(reason, "attention whose rows are not whole heads");
}

/* ---- the result ------------------------------------------------------------------------------------------- */

/* Heads and rows of the operand of the Transpose are batch x planes and plane_rows; in its result they have changed
 * places. */
static bool read_turn(struct ir_ctx *cx, struct att *a)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = node_in(a->turn, 0)->type;
    const struct attr *perm = node_attr(a->turn, "perm");
    const int r = t->rank, head = r - 3, row = r - 2;
    expr stride = expr_const(x, 1);
    if (!perm || a->n_batch < 1 || r != a->n_batch + 2 || t->dims[row] != a->plane_rows ||
        t->dims[head] != expr_mul(x, a->batch[a->n_batch - 1], a->planes))
        return false;
    for (int i = 0; i < r; i++)
        if (perm->v.ints[i] != (i == head ? row : i == row ? head : i) || (i < head && t->dims[i] != a->batch[i]))
            return false;
    stride = t->dims[r - 1];
    a->y_plane = stride;
    a->y_batch[a->n_batch - 1] = expr_mul(x, a->planes, stride);
    a->y_row = stride = expr_mul(x, stride, t->dims[head]);
    stride = expr_mul(x, stride, t->dims[row]);
    for (int i = a->n_batch - 2; i >= 0; i--) {
        a->y_batch[i] = stride;
        stride = expr_mul(x, stride, a->batch[i]);
    }
    return true;
}

/* What stands behind the second product: at most one turn, and a cast of its f32 sums to 16 bits. */
static bool read_end(struct ir_ctx *cx, struct att *a, const char **reason)
{
    int turns = 0;
    for (const struct node *n = graph_yield(node_region(a->fused, 0))->in[0].value->def; n != a->soft;
         n = node_in(n, 0)->def) {
        turns += n->op == OP_Transpose;
        if (n->op == OP_Cast &&
            (a->out != DT_F32 || dtype_size(n->out[0].type->dtype) != 2 || !dtype_is_float(n->out[0].type->dtype)))
            return refuse(reason, "attention whose result is cast to a type that the kernel does not write");
        a->out = n->op == OP_Cast ? n->out[0].type->dtype : a->out;
    }
    return turns == 0 || (turns == 1 && read_turn(cx, a)) ||
           refuse(reason, "attention whose result is turned otherwise than from heads of rows to rows of heads");
}

bool att_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct att *out, const char **reason)
{
    struct att_tile tile;
    *out = (struct att){0};
    if (n->op != OP_Fused || node_attr_str(n, "kind", 0) != str_internz(&cx->strings, "attention"))
        return false;
    if (!m->mixed || m->vector_per_cube != 2 || m->n_vector < 2 * m->n_cube)
        return refuse(reason, "the target does not run matrix and vector cores in one kernel");
    if (!find_products(n, out))
        return refuse(reason, "attention products of another form");
    if (!read_products(m, cx, out, reason) || !read_space(cx, out, reason) || !split_rows(cx, out, reason) ||
        !read_end(cx, out, reason))
        return false;
    out->band = att_read_band(cx, out);
    return att_fit(m, out, 16, NULL, &tile) || refuse(reason, "attention with a head size that does not fit on chip");
}
