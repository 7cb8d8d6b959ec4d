/* Vector operators behind a product: which regions, and the vector cores' part of the kernel.
 *
 * The region's iteration space is the product's: batch, m, n. Operands and results are views over it; the product's
 * result is a view of the workspace that follows the tile. A tile is cut into pieces that fit into UB; with few rows
 * the columns are halved, so that both vector cores have work. Every element goes through the steps of the separate
 * kernels, in the type that the product's result has in the graph, hence the bits. */
#include "backend/ascend/matmul.h"
#include "backend/vector/lower.h"
#include "base/size.h"

#define WORKSPACE_SLOTS 2 /* one being stored, one being read: more gain nothing by the clock and take L2 */
#define FEW_ROWS        16
#define PITCH_UNIT      64 /* elements: whole blocks of 32 bytes for all types, whole rows of lanes */

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static struct value *outside(const struct node *fused, struct value *v)
{
    return v && !v->def ? node_in(fused, (int)v->index) : v;
}

static bool is_tail(const struct mm_tail *t, const struct node *n)
{
    for (int i = 0; i < t->n_products; i++)
        if (n == t->products[i])
            return false;
    return n->op != OP_Constant && n->op != OP_Yield;
}

/* ---- views -------------------------------------------------------------------------------------------------- */

/* Closes groups of size one from group *at downwards: they are not among the axes. */
static void skip_ones(struct ir_ctx *cx, const struct mm *p, int *at, expr *stride)
{
    while (*at >= 0 && expr_is_one(&cx->exprs, *at == p->n_batch ? p->m : p->batch[*at]))
        stride[(*at)--] = expr_const(&cx->exprs, 0);
}

/* Strides of a value that broadcasts to the result (type c) over the product's dimensions: batch, m, n. False when an
 * axis is walked that these do not tell apart. */
static bool view_strides(struct ir_ctx *cx, const struct mm *p, const struct type *c, const struct value *v,
                         expr stride[IR_MAX_RANK])
{
    struct expr_pool *x = &cx->exprs;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1);
    expr own[IR_MAX_RANK], size = one, first = zero;
    const int lead = c->rank - v->type->rank;
    int at = p->n_batch; /* dimension of the product being put together, from the last before n */
    if (v->type->kind != TYPE_TENSOR || lead < 0 || !value_strides(cx, v, own))
        return false;
    for (int i = c->rank - 1; i >= 0; i--) {
        const bool absent = i < lead || expr_is_one(x, v->type->dims[i - lead]);
        if (!absent && v->type->dims[i - lead] != c->dims[i])
            return false;
        const expr s = absent ? zero : own[i - lead];
        if (i == c->rank - 1) {
            stride[p->n_batch + 1] = s;
            continue;
        }
        if (expr_is_one(x, c->dims[i]))
            continue;
        if (size == one)
            skip_ones(cx, p, &at, stride);
        if (at < 0 || (size != one && s != expr_mul(x, first, size)))
            return false;
        first = size == one ? s : first;
        size = expr_mul(x, size, c->dims[i]);
        if (size != (at == p->n_batch ? p->m : p->batch[at]))
            continue;
        stride[at--] = first;
        size = one;
    }
    skip_ones(cx, p, &at, stride);
    return at < 0 && size == one;
}

/* ---- match -------------------------------------------------------------------------------------------------- */

/* Is operand i only an example of a type? */
static bool is_read(const struct node *n, int i)
{
    return node_in(n, i) && !(i == 1 && n->op == OP_CastLike);
}

static bool check_member(struct ir_ctx *cx, const struct mm *p, const struct mm_tail *t, const struct node *n,
                         const char **reason)
{
    expr stride[IR_MAX_RANK];
    const struct type *c = t->products[0]->out[0].type;
    if (n->n_out != 1 || op_has((enum op)n->op, T_REDUCE) || op_table[n->op]->cls != CLS_ELEMENTWISE ||
        !type_same_dims(n->out[0].type, c))
        return refuse(reason, "operators behind a product that do not work element by element");
    if (!lower_check(cx, n, reason))
        return false;
    for (int i = 0; i < n->n_in; i++) {
        struct value *v = node_in(n, i);
        if (!is_read(n, i) || (v->def && v->def->op != OP_Constant))
            continue;
        if (!view_strides(cx, p, c, outside(t->fused, v), stride))
            return refuse(reason, "an operand behind a product whose storage does not follow the product's rows");
    }
    return true;
}

/* The products of the region: the first, and peers of the same shape. */
static bool find_products(const struct machine *m, struct ir_ctx *cx, const struct node *fused, struct mm *p,
                          struct mm_tail *t, const char **reason)
{
    struct mm q;
    for_each_node (n, node_region(fused, 0)) {
        if (n->op != OP_Fused && op_table[n->op]->cls != CLS_MATMUL)
            continue;
        if (t->n_products == MM_MAX_GROUP || n->n_out != 1 || !mm_match(m, cx, n, &q, reason))
            return false;
        if (t->n_products == 0)
            *p = q;
        else if (!mm_is_peer(cx, p, &q) || p->n != q.n || !type_same_dims(t->products[0]->out[0].type, n->out[0].type))
            return refuse(reason, "products that share no operand");
        else
            t->peers[t->n_products - 1] = q;
        t->products[t->n_products++] = n;
    }
    p->peers = t->peers;
    p->n_peers = t->n_products - 1;
    return t->n_products > 0;
}

static bool check_results(struct ir_ctx *cx, const struct mm *p, const struct mm_tail *t, const char **reason)
{
    expr stride[IR_MAX_RANK];
    const struct node *yield = graph_yield(node_region(t->fused, 0));
    for (int i = 0; i < t->fused->n_out; i++) {
        const struct value *v = node_in(yield, i);
        if (!v->def || !is_tail(t, v->def) || v->def->graph != yield->graph)
            return refuse(reason, "a product whose own result is seen beside that of operators behind it");
        if (!view_strides(cx, p, t->products[0]->out[0].type, &t->fused->out[i], stride))
            return refuse(reason, "a result behind a product whose storage does not follow the product's rows");
    }
    return t->fused->n_out <= VR_MAX_OUTPUTS;
}

bool mm_tail_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct mm *p, struct mm_tail *tail,
                   const char **reason)
{
    if (n->op != OP_Fused || node_attr_str(n, "kind", 0) != str_internz(&cx->strings, MM_TAIL_KIND))
        return false;
    if (!m->mixed || m->vector_per_cube != 2 || m->n_vector < 2 * m->n_cube)
        return refuse(reason, "the target does not run matrix and vector cores in one kernel");
    const struct graph *g = node_region(n, 0);
    *tail = (struct mm_tail){.fused = n, .slots = WORKSPACE_SLOTS};
    if (!find_products(m, cx, n, p, tail, reason))
        return false;
    p->tail = tail;
    if (p->n_batch + 2 > IR_MAX_RANK)
        return refuse(reason, "a product of too many dimensions");
    for_each_node (k, g)
        if (is_tail(tail, k) && !check_member(cx, p, tail, k, reason))
            return false;
    return check_results(cx, p, tail, reason);
}

/* ---- the region --------------------------------------------------------------------------------------------- */

static void take_operand(struct lower *l, const struct mm *p, const struct mm_tail *t, struct value *v)
{
    double number;
    struct value *o = outside(t->fused, v);
    if (map_find(&l->value, v->id) || (type_const_count(l->cx, v->type) == 1 && value_const_f64(v, 0, &number)))
        return; /* made by a member, or an immediate */
    struct vr_view view = {
        .tensor = emit_tensor(l->r.e, o), .dtype = o->type->dtype, .offset = expr_const(&l->cx->exprs, 0)};
    if (view_strides(l->cx, p, t->products[0]->out[0].type, o, view.stride))
        map_put(&l->value, v->id, (uint64_t)vr_input(&l->r, &view));
}

static void lower_members(struct lower *l, const struct mm *p, const struct mm_tail *t)
{
    for_each_node (n, node_region(t->fused, 0)) {
        if (!is_tail(t, n))
            continue;
        for (int i = 0; i < n->n_in; i++)
            if (is_read(n, i))
                take_operand(l, p, t, node_in(n, i));
        map_put(&l->value, n->out[0].id, (uint64_t)lower_node(l, n));
    }
}

/* The first views are the products' tiles in the workspace, one behind the other; rows and columns are those of the
 * whole result, see mm_tail_tile. */
static struct lower *lower_tail(struct emit *e, const struct mm *p, int32_t workspace, const struct mm_tile *size)
{
    struct expr_pool *x = &e->cx->exprs;
    const struct mm_tail *t = p->tail;
    struct lower *l = ARENA_NEW(e->arena, struct lower);
    space_init(e->cx, &l->sp, p->n_batch + 2);
    for (int i = 0; i < p->n_batch; i++)
        l->sp.shape[i] = p->batch[i];
    l->sp.shape[p->n_batch] = p->m;
    l->sp.shape[p->n_batch + 1] = p->n;
    lower_begin(l, e);
    struct vr_view tile = {.tensor = workspace, .dtype = p->out, .offset = expr_const(x, 0)};
    for (int i = 0; i < p->n_batch; i++)
        tile.stride[i] = expr_const(x, 0);
    tile.stride[p->n_batch] = expr_const(x, size->n);
    tile.stride[p->n_batch + 1] = expr_const(x, 1);
    for (int i = 0; i < t->n_products; i++) {
        tile.offset = expr_const(x, i * size->m * size->n);
        map_put(&l->value, t->products[i]->out[0].id, (uint64_t)vr_input(&l->r, &tile));
    }
    lower_members(l, p, t);
    const struct node *yield = graph_yield(node_region(t->fused, 0));
    for (int i = 0; i < t->fused->n_out; i++) {
        struct value *v = &t->fused->out[i];
        struct vr_view view = {.tensor = emit_tensor(e, v), .dtype = v->type->dtype, .offset = expr_const(x, 0)};
        if (view_strides(e->cx, p, t->products[0]->out[0].type, v, view.stride))
            vr_output(&l->r, lower_operand(l, node_in(yield, i)), &view);
    }
    vr_classify(&l->r);
    return l;
}

struct mm_tail_code *mm_tail_open(struct emit *e, const struct mm *p, const struct mm_tile *t, int32_t workspace,
                                  struct kparams *params)
{
    struct mm_tail_code *c = ARENA_NEW(e->arena, struct mm_tail_code);
    struct vr_form *f = &c->f;
    struct expr_pool *x = &params->k->exprs;
    f->r = &lower_tail(e, p, workspace, t)->r;
    const int64_t wide = t->m > FEW_ROWS ? t->n : size_ceil_div(t->n, 2);
    f->max_rows = size_min(vr_row_limit(f->r, false), t->m);
    f->cap = vr_capacity(f->r, false, f->max_rows);
    if (f->r->overflow || f->cap < PITCH_UNIT) {
        (void)node_error(e->cx, e->node, D_UNSUPPORTED,
                         "a region behind a product needs more buffers than UB holds (%lld bytes)",
                         (long long)e->m->size[TS_UB]);
        return NULL;
    }
    const int64_t cols = size_min(size_align(wide, PITCH_UNIT), f->cap), half = size_ceil_div(t->m, 2);
    const int64_t rows = size_min(size_min(f->cap / cols, f->max_rows), t->m > FEW_ROWS ? half : t->m);
    f->cap = cols * rows;
    f->max_rows = rows;
    c->cols = expr_const(x, cols);
    c->rows = expr_const(x, rows);
    c->pitch = t->n;
    c->n_tiles = p->tail->n_products;
    f->k = params->k;
    f->p = *params;
    vr_declare_params(f);
    *params = f->p;
    vr_declare_tensors(f);
    f->cols = f->dims[f->r->rank - 1];
    f->pitch = c->cols;
    return c;
}

/* Batch member number `index` as indices of the outer dimensions. */
static void locate_outer(struct vr_form *f, expr index)
{
    struct expr_pool *x = &f->k->exprs;
    for (int d = f->r->rank - 3; d >= 0; d--) {
        const expr size = expr_max(x, expr_const(x, 1), f->dims[d]);
        f->outer[d] = d == 0 ? index : expr_mod(x, index, size);
        index = expr_floordiv(x, index, size);
    }
}

void mm_tail_tile(struct mm_tail_code *c, const struct mm_tail_tile *t)
{
    struct vr_form *f = &c->f;
    struct expr_pool *x = &f->k->exprs;
    const expr two = expr_const(x, 2), sub = expr_sym(x, f->k->sym_sub), one = expr_const(x, 1);
    locate_outer(f, t->batch);
    for (int i = 0; i < c->n_tiles; i++) /* the first views */
        f->base[i] = expr_sub(x, expr_sub(x, t->slot, expr_mul_const(x, t->m0, c->pitch)), t->n0);
    const expr across = expr_max(x, one, expr_ceildiv(x, t->in, c->cols)), down = expr_ceildiv(x, t->im, c->rows);
    tile_note(&f->b, "every second piece of the tile");
    const expr turns = expr_ceildiv(x, expr_sub(x, expr_mul(x, across, down), sub), two);
    const expr i = expr_add(x, sub, expr_mul(x, tile_loop(&f->b, "piece", turns), two));
    const expr r = expr_mul(x, expr_floordiv(x, i, across), c->rows), k = expr_mul(x, expr_mod(x, i, across), c->cols);
    f->row0 = expr_add(x, t->m0, r);
    f->col0 = expr_add(x, t->n0, k);
    f->n_rows = expr_min(x, c->rows, expr_sub(x, t->im, r));
    f->n_cols = expr_min(x, c->cols, expr_sub(x, t->in, k));
    vr_code_tile(f);
    tile_end(&f->b);
}
