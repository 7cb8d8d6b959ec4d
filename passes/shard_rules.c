/* What each operator makes of operands that lie over several devices: one row each in the table at the end.
 *
 * Products with constant weights begin it: from whole rows they make parts of the columns, from parts of the columns
 * they make summands. Everything else passes parts on as far as its elements do not meet, or takes whole operands. */
#include "passes/shard.h"

#define TABLE_SHARE 0.01 /* of all weights: a table of fewer bytes is not worth dividing */

static struct expr_pool *pool(const struct shard_node *c)
{
    return &c->s->px->cx->exprs;
}

static const struct type *type_of(const struct shard_node *c, int i)
{
    return node_in(c->n, i)->type;
}

struct cut shard_split(int axis, const struct cut *like)
{
    return (struct cut){.kind = CUT_SPLIT, .axis = axis, .ways = like->ways, .seed = like->seed};
}

static struct cut partial(const struct cut *like)
{
    return (struct cut){.kind = CUT_PARTIAL, .ways = like->ways, .seed = like->seed};
}

static int axis_attr(const struct node *n, const char *name, int64_t otherwise, int rank)
{
    const int64_t a = node_attr_int(n, name, otherwise);
    return (int)(a < 0 ? a + rank : a);
}

static bool is_one(const struct shard_node *c, expr e)
{
    return expr_is_one(pool(c), e);
}

static void whole(struct shard_node *c)
{
    (void)c;
}

/* ---- elementwise ---- */

/* Operators that a sum passes through: of one operand; of a sum and a whole operand; of two sums. */
static const enum op linear_one[] = {OP_Neg, OP_Identity, OP_Cast, OP_Mul, OP_Div};
static const enum op linear_two[] = {OP_Add, OP_Sub, OP_Sum};

static bool listed(const enum op *list, int64_t n, enum op op)
{
    for (int64_t i = 0; i < n; i++)
        if (list[i] == op)
            return true;
    return false;
}

static bool pass_sum(struct shard_node *c)
{
    const enum op op = (enum op)c->n->op;
    const struct cut first = shard_cut(c, 0);
    int sums = 0, parts = 0;
    for (int i = 0; i < c->n->n_in; i++) {
        const struct cut x = shard_cut(c, i);
        sums += x.kind == CUT_PARTIAL && (sums == 0 || x.ways == first.ways);
        parts += x.kind == CUT_SPLIT;
    }
    const bool one = first.kind == CUT_PARTIAL && sums == 1 && listed(linear_one, NPUC_ARRAY_LEN(linear_one), op);
    const bool all = sums == c->n->n_in && listed(linear_two, NPUC_ARRAY_LEN(linear_two), op);
    const bool narrow = op == OP_Cast && !dtype_is_float(c->n->out[0].type->dtype);
    if (parts > 0 || narrow || !(one || all))
        return false;
    for (int i = 0; i < c->n->n_in; i++)
        c->want[i] = shard_cut(c, i);
    c->out[0] = partial(&first);
    return true;
}

static int align(const struct shard_node *c, int i, int axis)
{
    return axis + c->n->out[0].type->rank - type_of(c, i)->rank;
}

/* Among operands that are broadcast: all that reach along the axis of the first one that is divided are divided. */
static void elementwise(struct shard_node *c)
{
    struct cut lead = CUT_NONE;
    if (pass_sum(c))
        return;
    for (int i = 0; i < c->n->n_in; i++) {
        const struct cut x = shard_cut(c, i);
        if (x.kind != CUT_SPLIT)
            continue;
        if (lead.kind == CUT_WHOLE)
            lead = shard_split(align(c, i, x.axis), &x);
        else if (x.ways != lead.ways)
            shard_lower(c, x.ways > lead.ways ? x.seed : lead.seed, x.ways < lead.ways ? x.ways : lead.ways,
                        "an operand beside it is divided over fewer devices");
    }
    if (lead.kind == CUT_WHOLE)
        return;
    for (int i = 0; i < c->n->n_in; i++) {
        const int axis = lead.axis - c->n->out[0].type->rank + (node_in(c->n, i) ? type_of(c, i)->rank : 0);
        if (node_in(c->n, i) && axis >= 0 && !is_one(c, type_of(c, i)->dims[axis]))
            c->want[i] = shard_split(axis, &lead);
    }
    for (int i = 0; i < c->n->n_out; i++)
        c->out[i] = lead;
}

/* ---- products ---- */

struct axes {
    int k, n; /* of the right operand */
    int x_k;  /* of the left one */
};

static struct axes product_axes(const struct shard_node *c)
{
    const int x = type_of(c, 0)->rank, w = type_of(c, 1)->rank;
    const bool ta = node_attr_int(c->n, "transA", 0) != 0, tb = node_attr_int(c->n, "transB", 0) != 0;
    return (struct axes){.k = tb ? w - 1 : w - 2, .n = tb ? w - 2 : w - 1, .x_k = ta ? x - 2 : x - 1};
}

/* By rows where the left operand is divided along K, else by columns; cut_weight wants the right operand, and what lies
 * beside it, so. */
static void weighted(struct shard_node *c, int x_k, expr n_size,
                     void (*cut_weight)(struct shard_node *, bool by_rows, const struct cut *))
{
    const struct cut x = shard_cut(c, 0);
    const int last = c->n->out[0].type->rank - 1;
    if (x.kind == CUT_SPLIT && x.axis == x_k) {
        c->want[0] = x;
        c->out[0] = partial(&x);
        cut_weight(c, true, &x);
    } else if (x.kind == CUT_SPLIT) {
        c->want[0] = x;
        c->out[0] = shard_split(x.axis + c->n->out[0].type->rank - type_of(c, 0)->rank, &x);
    } else {
        struct cut own = {.kind = CUT_SPLIT, .axis = last, .ways = shard_ways(c, n_size), .seed = (int32_t)c->n->id};
        if (own.ways < 2)
            return;
        c->out[0] = own;
        cut_weight(c, false, &own);
    }
}

static void cut_matrix(struct shard_node *c, bool by_rows, const struct cut *like)
{
    const struct axes a = product_axes(c);
    c->want[1] = shard_split(by_rows ? a.k : a.n, like);
    for (int i = 2; i < c->n->n_in && !by_rows; i++) { /* bias, zero points of columns */
        const struct value *v = node_in(c->n, i);
        const int last = v ? v->type->rank - 1 : -1;
        if (last >= 0 && v->type->dims[last] == type_of(c, 1)->dims[a.n])
            c->want[i] = shard_split(last, like);
    }
}

/* Of two activations: along axes of the batch, rows, columns, or K. */
static void activations(struct shard_node *c)
{
    const struct axes a = product_axes(c);
    const struct cut x = shard_cut(c, 0), y = shard_cut(c, 1);
    const int rank = c->n->out[0].type->rank, rx = type_of(c, 0)->rank, ry = type_of(c, 1)->rank;
    const struct cut *lead = x.kind == CUT_SPLIT ? &x : &y;
    if (lead->kind != CUT_SPLIT || rx < 2 || ry < 2)
        return;
    const int from = lead == &x ? rx : ry, batch = lead->axis + rank - from;
    if (x.kind == CUT_SPLIT && y.kind == CUT_SPLIT && x.ways != y.ways) {
        shard_lower(c, x.ways > y.ways ? x.seed : y.seed, x.ways < y.ways ? x.ways : y.ways,
                    "the other operand is divided over fewer devices");
        return;
    }
    if (lead->axis < from - 2) {
        for (int i = 0; i < 2; i++) {
            const int axis = batch - rank + (i ? ry : rx);
            if (axis >= 0 && !is_one(c, type_of(c, i)->dims[axis]))
                c->want[i] = shard_split(axis, lead);
        }
        c->out[0] = shard_split(batch, lead);
    } else if (x.kind == CUT_SPLIT && x.axis == a.x_k) {
        c->want[0] = x;
        c->want[1] = shard_split(a.k, &x);
        c->out[0] = partial(&x);
    } else if (x.kind == CUT_SPLIT) {
        c->want[0] = x;
        c->out[0] = shard_split(rank - 2, &x);
    } else if (y.axis == a.n) {
        c->want[1] = y;
        c->out[0] = shard_split(rank - 1, &y);
    }
}

static void product(struct shard_node *c)
{
    if (type_of(c, 0)->rank < 2 || type_of(c, 1)->rank < 2)
        return;
    if (shard_is_weight(node_in(c->n, 1)) && type_of(c, 1)->rank == 2)
        weighted(c, product_axes(c).x_k, type_of(c, 1)->dims[product_axes(c).n], cut_matrix);
    else
        activations(c);
}

/* Rows that choose their matrix: each of the matrices, from operand 2 on, is divided. */
static void cut_matrices(struct shard_node *c, bool by_rows, const struct cut *like)
{
    const bool turned = node_attr_int(c->n, "transB", 0) != 0;
    const int end = c->n->n_in - (node_attr_int(c->n, "sorted", 0) != 0 ? 1 : 0);
    for (int i = 2; i < end; i++)
        c->want[i] = shard_split(type_of(c, i)->rank - (turned == by_rows ? 1 : 2), like);
}

static void grouped_product(struct shard_node *c)
{
    const int rank = type_of(c, 2)->rank;
    const bool turned = node_attr_int(c->n, "transB", 0) != 0;
    if (shard_is_weight(node_in(c->n, 2)) && rank >= 2)
        weighted(c, type_of(c, 0)->rank - 1, type_of(c, 2)->dims[rank - (turned ? 2 : 1)], cut_matrices);
}

/* Codes [N, blocks of K, bytes]; scales, zero points [N, blocks] or flat; bias [N]. Rows that choose their matrix have
 * them for each matrix, and one operand more in front. */
static int codes_at(const struct node *n)
{
    return n->op == OP_GroupedMatMulNBits ? 2 : 1;
}

static void cut_blocks(struct shard_node *c, bool by_rows, const struct cut *like)
{
    const int first = codes_at(c->n), axis = first - 1;
    for (int i = first; i < c->n->n_in; i++) {
        const struct value *v = node_in(c->n, i);
        if (!v || v->type->rank <= axis || (i > first + 2 && (by_rows || axis > 0)))
            continue;
        c->want[i] = shard_split(by_rows && v->type->rank > axis + 1 ? axis + 1 : axis, like);
        if (!expr_divisible(pool(c), v->type->dims[c->want[i].axis], like->ways))
            shard_lower(c, like->seed, 1, "its blocks of K are not divisible");
    }
}

static void block_product(struct shard_node *c)
{
    const expr n = expr_const(pool(c), node_attr_int(c->n, "N", 1));
    const int first = codes_at(c->n);
    if (shard_is_weight(node_in(c->n, first)) && type_of(c, first)->rank >= 3)
        weighted(c, type_of(c, 0)->rank - 1, n, cut_blocks);
}

static enum npuc_status fit_blocks(struct shard_node *c)
{
    const bool by_rows = c->out[0].kind == CUT_PARTIAL;
    const struct cut *x = &c->want[codes_at(c->n)];
    if (x->kind == CUT_SPLIT)
        ir_set_int(c->n, by_rows ? "K" : "N", node_attr_int(c->n, by_rows ? "K" : "N", 1) / x->ways);
    return NPUC_OK;
}

/* ---- lookups ---- */

/* Rows of a large table: each device has some of them and gives zeros for the others. */
static void gather(struct shard_node *c)
{
    const struct type *t = type_of(c, 0);
    const int axis = axis_attr(c->n, "axis", 0, t->rank), more = type_of(c, 1)->rank - 1;
    const struct cut x = shard_cut(c, 0);
    if (x.kind == CUT_SPLIT && x.axis != axis) {
        c->want[0] = x;
        c->out[0] = shard_split(x.axis + (x.axis > axis ? more : 0), &x);
    } else if (axis == 0 && t->rank == 2 && shard_is_weight(node_in(c->n, 0)) && !dtype_is_integer(t->dtype) &&
               shard_bytes(c->s, node_in(c->n, 0)) >= TABLE_SHARE * c->s->weight_bytes) {
        struct cut own = {.kind = CUT_SPLIT, .ways = shard_ways(c, t->dims[0]), .seed = (int32_t)c->n->id};
        if (own.ways < 2)
            return;
        c->want[0] = own;
        c->out[0] = partial(&own);
    }
}

/* ---- movement ---- */

/* Products of the first dims: rank + 1 of them. */
static void prefixes(struct shard_node *c, const struct type *t, expr out[IR_MAX_RANK + 1])
{
    out[0] = expr_const(pool(c), 1);
    for (int i = 0; i < t->rank; i++)
        out[i + 1] = expr_mul(pool(c), out[i], t->dims[i]);
}

/* Ends of the next sizes of both sides that hold the same elements, behind i and k. */
static bool next_group(const expr *from, int n, const expr *to, int m, int *i, int *k)
{
    for (int a = *i + 1; a <= n; a++)
        for (int b = *k + 1; b <= m; b++)
            if (from[a] == to[b]) {
                *i = a;
                *k = b;
                return true;
            }
    return false;
}

/* Axis of the result that holds the parts of axis x->axis of the operand, which has other dims and as many elements;
 * -1: none. It is the first one of those that the axis became, or the next if the size of that is open. */
static int moved_axis(struct shard_node *c, const struct cut *x)
{
    const struct type *from = type_of(c, 0), *to = c->n->out[0].type;
    expr before[IR_MAX_RANK + 1], after[IR_MAX_RANK + 1];
    int i = 0, k = 0, first = 0;
    prefixes(c, from, before);
    prefixes(c, to, after);
    while (i <= x->axis) {
        first = k;
        if (!next_group(before, from->rank, after, to->rank, &i, &k))
            return -1;
    }
    for (int64_t size; first < k; first++)
        if (!is_one(c, to->dims[first]) &&
            (expr_is_const(pool(c), to->dims[first], &size) || expr_divisible(pool(c), to->dims[first], x->ways)))
            return first;
    return -1;
}

static void reshape(struct shard_node *c)
{
    struct cut x = shard_cut(c, 0);
    if (x.kind == CUT_PARTIAL) {
        c->want[0] = x;
        c->out[0] = x;
    }
    if (x.kind != CUT_SPLIT || c->n->out[0].type->rank < 0)
        return;
    const int axis = moved_axis(c, &x);
    if (axis < 0 || !shard_divides(c, &x, c->n->out[0].type->dims[axis], "heads"))
        return;
    c->want[0] = x;
    c->out[0] = shard_split(axis, &x);
}

static enum npuc_status new_sizes(struct shard_node *c)
{
    expr dims[IR_MAX_RANK];
    struct builder b = ir_at(c->n);
    const struct type *t = c->n->out[0].type;
    if (c->out[0].kind != CUT_SPLIT)
        return NPUC_OK;
    shard_dims(c->s, t, &c->out[0], dims);
    ir_set_input(c->n, 1, ir_sizes(&b, dims, t->rank, false));
    return NPUC_OK;
}

static void transpose(struct shard_node *c)
{
    const struct cut x = shard_cut(c, 0);
    const struct attr *perm = node_attr(c->n, "perm");
    const int rank = type_of(c, 0)->rank;
    c->want[0] = x;
    c->out[0] = x;
    for (int i = 0; i < rank && x.kind == CUT_SPLIT; i++)
        if ((perm ? perm->v.ints[i] : rank - 1 - i) == x.axis)
            c->out[0] = shard_split(i, &x);
}

static void expand(struct shard_node *c)
{
    const struct cut x = shard_cut(c, 0);
    c->want[0] = x;
    c->out[0] = x.kind == CUT_SPLIT ? shard_split(align(c, 0, x.axis), &x) : x;
}

/* Operands of one rank that meet along `axis` alone: all are divided as the first that is. */
static void along(struct shard_node *c, int n_in, int axis)
{
    struct cut lead = CUT_NONE;
    for (int i = 0; i < n_in && lead.kind == CUT_WHOLE; i++)
        if (shard_cut(c, i).kind == CUT_SPLIT && shard_cut(c, i).axis != axis)
            lead = shard_cut(c, i);
    for (int i = 0; i < n_in && lead.kind == CUT_SPLIT; i++)
        c->want[i] = lead;
    for (int i = 0; i < c->n->n_out && lead.kind == CUT_SPLIT; i++)
        c->out[i] = lead;
}

static void concat(struct shard_node *c)
{
    along(c, c->n->n_in, axis_attr(c->n, "axis", 0, c->n->out[0].type->rank));
}

static void append(struct shard_node *c)
{
    along(c, 2, axis_attr(c->n, "axis", -2, c->n->out[0].type->rank));
}

/* Along the axis that is divided: each piece is divided, the weight in front having its columns in that order. */
static void pieces(struct shard_node *c)
{
    struct cut x = shard_cut(c, 0);
    const int axis = axis_attr(c->n, "axis", 0, type_of(c, 0)->rank);
    if (x.kind != CUT_SPLIT)
        return;
    for (int i = 0; i < c->n->n_out && x.axis == axis; i++)
        if (node_out(c->n, i) && !shard_divides(c, &x, c->n->out[i].type->dims[axis], "a piece of a product's columns"))
            return;
    c->want[0] = x;
    for (int i = 0; i < c->n->n_out; i++)
        c->out[i] = x;
}

static enum npuc_status new_pieces(struct shard_node *c)
{
    const int axis = axis_attr(c->n, "axis", 0, type_of(c, 0)->rank);
    expr *sizes = ARENA_ARRAY(&c->s->px->arena, expr, c->n->n_out);
    struct builder b = ir_at(c->n);
    if (c->want[0].kind != CUT_SPLIT || c->want[0].axis != axis || !node_in(c->n, 1))
        return NPUC_OK;
    for (int i = 0; i < c->n->n_out; i++)
        sizes[i] = shard_part(c->s, c->n->out[i].type->dims[axis], c->want[0].ways);
    ir_set_input(c->n, 1, ir_sizes(&b, sizes, c->n->n_out, false));
    return NPUC_OK;
}

/* The place of the divided axis among those that a Slice names; -1: it does not. */
static int64_t slice_entry(struct shard_node *c, int axis)
{
    const int rank = type_of(c, 0)->rank;
    const int64_t n = value_n_elems(c->s->px->cx, node_in(c->n, 1));
    for (int64_t i = 0; i < n; i++) {
        int64_t a = i;
        if (node_in(c->n, 3) && !expr_is_const(pool(c), value_elem(c->s->px->cx, node_in(c->n, 3), i), &a))
            return -2;
        if ((a < 0 ? a + rank : a) == axis)
            return i;
    }
    return n < 0 ? -2 : -1;
}

static void slice(struct shard_node *c)
{
    struct cut x = shard_cut(c, 0);
    if (x.kind == CUT_PARTIAL) {
        c->want[0] = x;
        c->out[0] = x;
    }
    const int64_t at = x.kind == CUT_SPLIT ? slice_entry(c, x.axis) : -2;
    if (at == -2)
        return;
    if (at >= 0) { /* a piece of a product's columns: begins and ends with whole parts */
        int64_t first, last, step = 1, size;
        struct ir_ctx *cx = c->s->px->cx;
        const bool known = expr_is_const(pool(c), value_elem(cx, node_in(c->n, 1), at), &first) &&
                           expr_is_const(pool(c), value_elem(cx, node_in(c->n, 2), at), &last) &&
                           (!node_in(c->n, 4) || expr_is_const(pool(c), value_elem(cx, node_in(c->n, 4), at), &step)) &&
                           expr_is_const(pool(c), type_of(c, 0)->dims[x.axis], &size);
        if (!known || step != 1 ||
            !shard_divides(c, &x, expr_const(pool(c), first), "a piece of a product's columns") ||
            !shard_divides(c, &x, c->n->out[0].type->dims[x.axis], "a piece of a product's columns"))
            return;
    }
    c->want[0] = x;
    c->out[0] = x;
}

static enum npuc_status new_range(struct shard_node *c)
{
    const struct cut *x = &c->want[0];
    const int64_t at = x->kind == CUT_SPLIT ? slice_entry(c, x->axis) : -1;
    struct builder b = ir_at(c->n);
    if (at < 0)
        return NPUC_OK;
    const int64_t n = value_n_elems(c->s->px->cx, node_in(c->n, 1));
    for (int i = 1; i <= 2; i++) {
        expr *e = ARENA_ARRAY(&c->s->px->arena, expr, n);
        for (int64_t k = 0; k < n; k++)
            e[k] = value_elem(c->s->px->cx, node_in(c->n, i), k);
        const expr begin = shard_part(c->s, value_elem(c->s->px->cx, node_in(c->n, 1), at), i == 1 ? x->ways : 1);
        e[at] = i == 1 ? begin : expr_add(pool(c), begin, shard_part(c->s, c->n->out[0].type->dims[x->axis], x->ways));
        ir_set_input(c->n, i, ir_sizes(&b, e, n, false));
    }
    return NPUC_OK;
}

/* ---- rows ---- */

static bool reduces(struct shard_node *c, int axis, bool *known)
{
    const int rank = type_of(c, 0)->rank;
    const struct value *axes = node_in(c->n, 1);
    *known = true;
    if (attr_index(op_table[c->n->op], "axis") >= 0)
        return axis_attr(c->n, "axis", -1, rank) == axis;
    const int64_t n = axes ? value_n_elems(c->s->px->cx, axes) : 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t a;
        if (!expr_is_const(pool(c), value_elem(c->s->px->cx, axes, i), &a))
            return *known = false;
        if ((a < 0 ? a + rank : a) == axis)
            return true;
    }
    *known = n >= 0;
    return n == 0 && node_attr_int(c->n, "noop_with_empty_axes", 0) == 0;
}

static void reduce(struct shard_node *c)
{
    const struct cut x = shard_cut(c, 0);
    bool known;
    if (x.kind == CUT_PARTIAL && (c->n->op == OP_ReduceSum || c->n->op == OP_ReduceMean)) {
        c->want[0] = x;
        c->out[0] = x;
    }
    if (x.kind != CUT_SPLIT)
        return;
    const bool meets = reduces(c, x.axis, &known);
    if (!known || (meets && c->n->op != OP_ReduceSum))
        return;
    c->want[0] = x;
    int gone = 0;
    for (int i = 0; i < x.axis && node_attr_int(c->n, "keepdims", 1) == 0; i++)
        gone += reduces(c, i, &known);
    for (int i = 0; i < c->n->n_out; i++)
        c->out[i] = meets ? partial(&x) : shard_split(x.axis - gone, &x);
}

/* Elements meet from attribute `axis` on. */
static void norm(struct shard_node *c)
{
    const struct cut x = shard_cut(c, 0);
    if (x.kind != CUT_SPLIT || x.axis >= axis_attr(c->n, "axis", -1, type_of(c, 0)->rank))
        return;
    c->want[0] = x;
    c->out[0] = x;
}

/* ---- the table ---- */

static const struct shard_rule rules[] = {
    {OP_MatMul, product, NULL},
    {OP_FusedMatMul, product, NULL},
    {OP_Gemm, product, NULL},
    {OP_MatMulInteger, product, NULL},
    {OP_GroupedMatMul, grouped_product, NULL},
    {OP_MatMulNBits, block_product, fit_blocks},
    {OP_GroupedMatMulNBits, block_product, fit_blocks},
    {OP_Gather, gather, NULL},
    {OP_Reshape, reshape, new_sizes},
    {OP_Flatten, reshape, NULL},
    {OP_Unsqueeze, reshape, NULL},
    {OP_Squeeze, reshape, NULL},
    {OP_Transpose, transpose, NULL},
    {OP_Expand, expand, new_sizes},
    {OP_Concat, concat, NULL},
    {OP_CacheAppend, append, NULL},
    {OP_TensorScatter, append, NULL},
    {OP_Split, pieces, new_pieces},
    {OP_Slice, slice, new_range},
    {OP_Softmax, reduce, NULL},
    {OP_LogSoftmax, reduce, NULL},
    {OP_ReduceSum, reduce, NULL},
    {OP_ReduceMean, reduce, NULL},
    {OP_ReduceMax, reduce, NULL},
    {OP_ReduceMin, reduce, NULL},
    {OP_ReduceSumSquare, reduce, NULL},
    {OP_ReduceL2, reduce, NULL},
    {OP_RMSNormalization, norm, NULL},
    {OP_LayerNormalization, norm, NULL},
    {OP_RotaryEmbedding, shard_rotary, shard_fewer_heads},
    {OP_Attention, shard_attention, shard_fewer_heads},
    {OP_GroupQueryAttention, shard_grouped_query, shard_fewer_heads},
    {OP_MultiHeadAttention, shard_multi_head, shard_fewer_heads},
};

const struct shard_rule *shard_rule_of(const struct node *n)
{
    static const struct shard_rule any = {OP_none, whole, NULL}, all = {OP_none, elementwise, NULL};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++)
        if (rules[i].op == (enum op)n->op)
            return &rules[i];
    return op_has((enum op)n->op, T_ELEMENTWISE) || op_table[n->op]->fn != 0 || n->op == OP_Identity ? &all : &any;
}
