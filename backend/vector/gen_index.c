/* Gather and scatter by computed places: GatherElements, GatherND, ScatterElements, ScatterND, TensorScatter,
 * ReverseSequence. The vector cores turn indices into row numbers of the data (first launch), the DMA moves the rows.
 * An index out of range becomes a row number out of range, which ends the run. */
#include <string.h>

#include "backend/vector/gens.h"
#include "backend/vector/rows.h"
#include "backend/vector/views.h"

struct mover {
    enum op op;
    bool (*check)(struct ir_ctx *cx, const struct node *n, const char **reason); /* NULL: always */
    enum npuc_status (*emit)(struct emit *e, struct node *n);
};

/* The rows that places count, and the temporary the places go to. */
struct places {
    struct vr r;
    int32_t tensor;
    struct vr_view out;
    expr strides[IR_MAX_RANK]; /* of the part of a place that the position alone gives */
    expr n_rows;
};

static struct places *places_begin(struct emit *e, int rank, const expr *dims, expr n_rows)
{
    struct places *p = ARENA_NEW(e->arena, struct places);
    vr_init(&p->r, e, rank, dims);
    p->tensor = emit_temp(e, "rows", DT_I64, rank, dims);
    p->out = view_dense(e, p->tensor, DT_I64, rank, dims);
    p->n_rows = n_rows;
    for (int i = 0; i < IR_MAX_RANK; i++)
        p->strides[i] = expr_const(emit_pool(e), 0);
    return p;
}

static int base_of(struct places *p)
{
    return vr_iota(&p->r, DT_I64, expr_const(emit_pool(p->r.e), 0), p->strides);
}

/* An index of an axis of size dim, negative ones counted from the end. *valid: within the axis, and *valid before. */
static int index_value(struct places *p, const struct vr_view *view, expr dim, int *valid)
{
    struct vr *r = &p->r;
    const int index = vr_cast(r, DT_I64, vr_input(r, view)), zero = vr_imm(r, DT_I64, 0),
              size = view_size(r, DT_I64, dim);
    const int place = view_where(r, vr_vec2(r, K_FN_Less, index, zero), vr_vec2(r, K_FN_Add, index, size), index);
    const int ok =
        vr_vec2(r, K_FN_And, vr_vec2(r, K_FN_GreaterOrEqual, place, zero), vr_vec2(r, K_FN_Less, place, size));
    *valid = *valid < 0 ? ok : vr_vec2(r, K_FN_And, *valid, ok);
    return place;
}

static int scaled(struct places *p, int v, expr by)
{
    return vr_vec2(&p->r, K_FN_Mul, v, view_size(&p->r, DT_I64, by));
}

static enum npuc_status places_end(struct places *p, int place, int valid, const char *label)
{
    struct vr *r = &p->r;
    if (valid >= 0)
        place = view_where(r, valid, place, view_size(r, DT_I64, p->n_rows));
    vr_output(r, place, &p->out);
    return vr_launch(r, "places", label);
}

static const char *label_of(const struct node *n)
{
    return op_table[n->op]->name;
}

static enum npuc_status gather(struct emit *e, struct node *n, const struct places *p, expr n_index, expr row_len)
{
    const struct gather_rows g = {.data = emit_tensor(e, node_in(n, 0)),
                                  .index = p->tensor,
                                  .out = emit_tensor(e, &n->out[0]),
                                  .dtype = node_in(n, 0)->type->dtype,
                                  .index_dtype = DT_I64,
                                  .outer = expr_const(emit_pool(e), 1),
                                  .n_rows = p->n_rows,
                                  .n_index = n_index,
                                  .row_len = row_len};
    return emit_gather_rows(e, &g, label_of(n));
}

/* The data first, then the updates at their places. */
static enum npuc_status scatter(struct emit *e, struct node *n, int updates, const struct places *p, enum k_fn fn,
                                expr n_index, expr row_len)
{
    struct vr_view src, dst;
    const struct type *t = n->out[0].type;
    view_own(e, node_in(n, 0), &src);
    view_own(e, &n->out[0], &dst);
    const enum npuc_status s = view_copy(e, t->rank, t->dims, &dst, &src, label_of(n));
    const struct scatter_rows g = {.out = dst.tensor,
                                   .index = p->tensor,
                                   .updates = emit_tensor(e, node_in(n, updates)),
                                   .dtype = t->dtype,
                                   .fn = fn,
                                   .n_rows = p->n_rows,
                                   .n_index = n_index,
                                   .row_len = row_len};
    return s == NPUC_OK ? emit_scatter_rows(e, &g, label_of(n)) : s;
}

/* ---- GatherElements, ScatterElements: element by element ---- */

static enum npuc_status element_places(struct emit *e, struct node *n, struct places **out)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *data = node_in(n, 0)->type, *index = node_in(n, 1)->type;
    const int axis = view_axis(n, "axis", 0, data->rank);
    struct places *p = places_begin(e, index->rank, index->dims, view_product(x, data->dims, 0, data->rank));
    struct vr_view view;
    int valid = -1;
    for (int i = 0; i < data->rank; i++)
        if (i != axis)
            p->strides[i] = view_product(x, data->dims, i + 1, data->rank);
    view_own(e, node_in(n, 1), &view);
    const int at = index_value(p, &view, data->dims[axis], &valid);
    const int place =
        vr_vec2(&p->r, K_FN_Add, base_of(p), scaled(p, at, view_product(x, data->dims, axis + 1, data->rank)));
    *out = p;
    return places_end(p, place, valid, label_of(n));
}

static expr count_of(struct emit *e, const struct type *t)
{
    return view_product(emit_pool(e), t->dims, 0, t->rank);
}

static enum npuc_status emit_gather_elements(struct emit *e, struct node *n)
{
    struct places *p;
    const enum npuc_status s = element_places(e, n, &p);
    return s == NPUC_OK ? gather(e, n, p, count_of(e, node_in(n, 1)->type), expr_const(emit_pool(e), 1)) : s;
}

static enum k_fn reduction_of(struct ir_ctx *cx, const struct node *n)
{
    static const struct {
        const char *name;
        enum k_fn fn;
    } rows[] = {{"none", K_FN_Identity}, {"add", K_FN_Add}, {"mul", K_FN_Mul}, {"max", K_FN_Max}, {"min", K_FN_Min}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (node_attr_str(n, "reduction", 0) == str_internz(&cx->strings, rows[i].name))
            return rows[i].fn;
    return K_FN_Identity;
}

static enum npuc_status emit_scatter_elements(struct emit *e, struct node *n)
{
    struct places *p;
    const enum npuc_status s = element_places(e, n, &p);
    return s == NPUC_OK ? scatter(e, n, 2, p, reduction_of(e->cx, n), count_of(e, node_in(n, 1)->type),
                                  expr_const(emit_pool(e), 1))
                        : s;
}

static bool check_scatter(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const enum k_fn fn = reduction_of(cx, n);
    const enum dtype t = node_in(n, 0)->type->dtype;
    *reason = "the vector unit has no form of this reduction for the element type";
    return view_plain(cx, node_in(n, 2), reason) && (fn == K_FN_Identity || (k_fn_supports(fn, t) && t != DT_F64));
}

/* ---- GatherND, ScatterND: slices ---- */

/* The number of indices of a tuple; false when it is not constant. */
static bool depth_of(struct ir_ctx *cx, const struct node *n, int64_t *depth)
{
    const struct type *t = node_in(n, 1)->type;
    return t->rank >= 1 && expr_is_const(&cx->exprs, t->dims[t->rank - 1], depth) && *depth >= 0 &&
           *depth <= node_in(n, 0)->type->rank && *depth <= 8;
}

static bool check_nd(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    int64_t depth;
    *reason = "the length of an index tuple is not known at compile time, or above 8";
    if (!depth_of(cx, n, &depth))
        return false;
    return n->op != OP_ScatterND || check_scatter(cx, n, reason);
}

static enum npuc_status slice_places(struct emit *e, struct node *n, struct places **out, expr *row_len)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *data = node_in(n, 0)->type, *index = node_in(n, 1)->type;
    const int batch = (int)node_attr_int(n, "batch_dims", 0), lead = index->rank - 1;
    int64_t depth = 0;
    if (!depth_of(e->cx, n, &depth))
        return node_error(e->cx, n, D_UNSUPPORTED, "the length of an index tuple is not known");
    const int end = batch + (int)depth; /* axes of the data that a place covers */
    struct places *p = places_begin(e, lead, index->dims, view_product(x, data->dims, 0, end));
    struct vr_view own, view;
    int valid = -1;
    for (int i = 0; i < batch; i++)
        p->strides[i] = view_product(x, data->dims, i + 1, end);
    int place = base_of(p);
    view_own(e, node_in(n, 1), &own);
    for (int k = 0; k < depth; k++) {
        view = own;
        view.offset = expr_mul_const(x, own.stride[lead], k);
        view.stride[lead] = expr_const(x, 0);
        const int at = index_value(p, &view, data->dims[batch + k], &valid);
        place = vr_vec2(&p->r, K_FN_Add, place, scaled(p, at, view_product(x, data->dims, batch + k + 1, end)));
    }
    *row_len = view_product(x, data->dims, end, data->rank);
    *out = p;
    return places_end(p, place, valid, label_of(n));
}

static enum npuc_status emit_gather_nd(struct emit *e, struct node *n)
{
    struct places *p;
    expr row_len;
    const struct type *index = node_in(n, 1)->type;
    const enum npuc_status s = slice_places(e, n, &p, &row_len);
    return s == NPUC_OK ? gather(e, n, p, view_product(emit_pool(e), index->dims, 0, index->rank - 1), row_len) : s;
}

static enum npuc_status emit_scatter_nd(struct emit *e, struct node *n)
{
    struct places *p;
    expr row_len;
    const struct type *index = node_in(n, 1)->type;
    const enum npuc_status s = slice_places(e, n, &p, &row_len);
    return s == NPUC_OK ? scatter(e, n, 2, p, reduction_of(e->cx, n),
                                  view_product(emit_pool(e), index->dims, 0, index->rank - 1), row_len)
                        : s;
}

/* ---- TensorScatter: rows of a cache from a position per batch entry, around its end in circular mode ---- */

static bool check_tensor_scatter(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    return view_plain(cx, node_in(n, 1), reason);
}

static enum npuc_status emit_tensor_scatter(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *data = node_in(n, 0)->type, *add = node_in(n, 1)->type;
    struct value *first = node_in(n, 2);
    const int axis = view_axis(n, "axis", -2, data->rank);
    struct places *p = places_begin(e, axis + 1, add->dims, view_product(x, data->dims, 0, axis + 1));
    struct vr *r = &p->r;
    const expr zero = expr_const(x, 0), rows = data->dims[axis];
    expr count[IR_MAX_RANK];
    for (int i = 0; i < IR_MAX_RANK; i++)
        count[i] = i == axis ? expr_const(x, 1) : zero;
    int at = vr_iota(r, DT_I64, zero, count);
    const int size = view_size(r, DT_I64, rows), none = vr_imm(r, DT_I64, 0);
    if (first) {
        struct vr_view start = view_element(e, first, zero);
        start.stride[0] = expr_const(x, 1);
        at = vr_vec2(r, K_FN_Add, at, vr_cast(r, DT_I64, vr_input(r, &start)));
    }
    const int positive = vr_vec2(r, K_FN_GreaterOrEqual, at, none);
    if (node_attr_str(n, "mode", 0) == str_internz(&e->cx->strings, "circular"))
        at = view_where(r, positive, vr_vec2(r, K_FN_FMod, at, size), at);
    const int valid = vr_vec2(r, K_FN_And, positive, vr_vec2(r, K_FN_Less, at, size));
    for (int i = 0; i < axis; i++)
        p->strides[i] = view_product(x, data->dims, i + 1, axis + 1);
    const enum npuc_status s = places_end(p, vr_vec2(r, K_FN_Add, base_of(p), at), valid, label_of(n));
    return s == NPUC_OK ? scatter(e, n, 1, p, K_FN_Identity, view_product(x, add->dims, 0, axis + 1),
                                  view_product(x, data->dims, axis + 1, data->rank))
                        : s;
}

/* ---- ReverseSequence: the first entries of each batch in reverse ---- */

static enum npuc_status emit_reverse(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *t = node_in(n, 0)->type;
    const int time = (int)node_attr_int(n, "time_axis", 0), batch = 1 - time;
    struct places *p = places_begin(e, 2, t->dims, view_product(x, t->dims, 0, 2));
    struct vr *r = &p->r;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1);
    expr step[IR_MAX_RANK], back[IR_MAX_RANK];
    for (int i = 0; i < IR_MAX_RANK; i++)
        step[i] = back[i] = zero;
    step[time] = one;
    back[time] = expr_const(x, -1);
    struct vr_view lens = view_element(e, node_in(n, 1), zero);
    lens.stride[batch] = one;
    const int at = vr_iota(r, DT_I64, zero, step), len = vr_cast(r, DT_I64, vr_input(r, &lens));
    const int mirrored = vr_vec2(r, K_FN_Add, len, vr_iota(r, DT_I64, expr_const(x, -1), back));
    const int from = view_where(r, vr_vec2(r, K_FN_Less, at, len), mirrored, at);
    p->strides[batch] = batch == 0 ? t->dims[1] : one;
    const int place = vr_vec2(r, K_FN_Add, base_of(p), scaled(p, from, time == 0 ? t->dims[1] : one));
    const enum npuc_status s = places_end(p, place, -1, label_of(n));
    return s == NPUC_OK ? gather(e, n, p, view_product(x, t->dims, 0, 2), view_product(x, t->dims, 2, t->rank)) : s;
}

static const struct mover movers[] = {
    {OP_GatherElements, NULL, emit_gather_elements}, {OP_ScatterElements, check_scatter, emit_scatter_elements},
    {OP_GatherND, check_nd, emit_gather_nd},         {OP_ScatterND, check_nd, emit_scatter_nd},
    {OP_ReverseSequence, NULL, emit_reverse},        {OP_TensorScatter, check_tensor_scatter, emit_tensor_scatter},
};

static const struct mover *find_mover(const struct node *n)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(movers); i++)
        if (movers[i].op == (enum op)n->op)
            return &movers[i];
    return NULL;
}

static bool dense(const struct node *n, const char **reason)
{
    *reason = "the places of rows are those of dense tensors";
    for (int i = 0; i < n->n_in; i++)
        if (node_in(n, i) && node_in(n, i)->type->layout.kind != LAYOUT_ND)
            return false;
    return true;
}

bool gen_index_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const struct mover *mv = find_mover(n);
    (void)m;
    if (!mv)
        return false;
    if (!view_plain(cx, node_in(n, 0), reason) || !view_plain(cx, &n->out[0], reason) || !dense(n, reason) ||
        node_in(n, 0)->type->rank < 1)
        return false;
    return !mv->check || mv->check(cx, n, reason);
}

enum npuc_status gen_index_emit(struct emit *e, struct node *n)
{
    return find_mover(n)->emit(e, n);
}
