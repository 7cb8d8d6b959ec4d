/* Building a vector region and bringing its iteration space into the smallest form: dimensions of size one go,
 * neighbours that every view walks contiguously become one. What is left is outer dimensions, one row dimension,
 * columns. */
#include "backend/vector/vregion_priv.h"

#include <math.h>

void vr_init(struct vr *r, struct emit *e, int rank, const expr *dims)
{
    *r = (struct vr){.e = e, .rank = rank};
    for (int i = 0; i < rank; i++)
        r->dims[i] = dims[i];
    if (rank == 0) {
        r->rank = 1;
        r->dims[0] = expr_const(&e->cx->exprs, 1);
    }
}

static int add_value(struct vr *r, struct vr_value v)
{
    if (r->n_values == VR_MAX_VALUES) {
        r->overflow = true;
        return 0;
    }
    r->values[r->n_values] = v;
    return r->n_values++;
}

static bool same_view(const struct vr *r, const struct vr_view *a, const struct vr_view *b)
{
    if (a->tensor != b->tensor || a->dtype != b->dtype || a->offset != b->offset || a->indexed || b->indexed)
        return false;
    for (int i = 0; i < r->rank; i++)
        if (a->stride[i] != b->stride[i])
            return false;
    return true;
}

int vr_input(struct vr *r, const struct vr_view *view)
{
    for (int i = 0; i < r->n_values; i++)
        if (r->values[i].kind == VR_INPUT && same_view(r, &r->views[r->values[i].view], view))
            return i;
    if (r->n_views == VR_MAX_VALUES) {
        r->overflow = true;
        return 0;
    }
    r->views[r->n_views] = *view;
    return add_value(
        r, (struct vr_value){.kind = VR_INPUT, .dtype = view->dtype, .arg = {-1, -1, -1}, .view = r->n_views++});
}

int vr_iota(struct vr *r, enum dtype t, expr offset, const expr *strides)
{
    struct vr_view w = {.tensor = -1, .dtype = t, .offset = offset};
    for (int i = 0; i < r->rank; i++)
        w.stride[i] = strides[i];
    if (r->n_views == VR_MAX_VALUES) {
        r->overflow = true;
        return 0;
    }
    r->views[r->n_views] = w;
    return add_value(r, (struct vr_value){.kind = VR_IOTA, .dtype = t, .arg = {-1, -1, -1}, .view = r->n_views++});
}

int vr_imm(struct vr *r, enum dtype t, float v)
{
    return add_value(r, (struct vr_value){.kind = VR_IMM, .dtype = t, .arg = {-1, -1, -1}, .imm = v, .cls = VC_ONE});
}

int vr_vec(struct vr *r, enum k_fn fn, enum dtype op_dtype, const int arg[3], const float param[3])
{
    const struct k_fn_info *info = k_fn_info(fn);
    struct vr_value v = {.kind = VR_VEC, .op = fn, .op_dtype = op_dtype, .arg = {-1, -1, -1}};
    v.dtype = info->result == K_RESULT_BOOL ? DT_BOOL : op_dtype;
    for (int i = 0; i < info->arity; i++)
        v.arg[i] = arg[i];
    for (int i = 0; i < 3; i++)
        v.param[i] = param ? param[i] : 0.0f;
    return add_value(r, v);
}

int vr_vec1(struct vr *r, enum k_fn fn, int a)
{
    return vr_vec(r, fn, r->values[a].dtype, (const int[3]){a, -1, -1}, NULL);
}

int vr_vec2(struct vr *r, enum k_fn fn, int a, int b)
{
    return vr_vec(r, fn, r->values[a].dtype, (const int[3]){a, b, -1}, NULL);
}

int vr_cast(struct vr *r, enum dtype to, int a)
{
    if (r->values[a].dtype == to)
        return a;
    return add_value(
        r, (struct vr_value){.kind = VR_CAST, .dtype = to, .op_dtype = r->values[a].dtype, .arg = {a, -1, -1}});
}

int vr_cast_as(struct vr *r, enum dtype to, int a, bool saturate)
{
    const int v = vr_cast(r, to, a);
    if (v != a)
        r->values[v].wraps = !saturate;
    return v;
}

int vr_reduce(struct vr *r, enum k_red op, int a)
{
    return add_value(
        r,
        (struct vr_value){
            .kind = VR_RED, .op = op, .dtype = r->values[a].dtype, .op_dtype = r->values[a].dtype, .arg = {a, -1, -1}});
}

void vr_output(struct vr *r, int value, const struct vr_view *view)
{
    if (r->n_outputs == VR_MAX_OUTPUTS) {
        r->overflow = true;
        return;
    }
    r->outputs[r->n_outputs++] = (struct vr_output){.value = value, .view = *view};
}

bool vr_view_of(struct vr *r, struct value *v, struct vr_view *out)
{
    struct ir_ctx *cx = r->e->cx;
    expr strides[IR_MAX_RANK], zero = expr_const(&cx->exprs, 0);
    int rank = v->type->rank;
    int extra = rank - r->rank; /* leading dimensions of size one */
    if (!value_strides(cx, v, strides))
        return false;
    *out = (struct vr_view){.tensor = emit_tensor(r->e, v), .dtype = v->type->dtype, .offset = zero};
    for (int i = 0; i < r->rank; i++) {
        int j = i + extra;
        int64_t size;
        bool one = j < 0 || (expr_is_const(&cx->exprs, v->type->dims[j], &size) && size == 1);
        out->stride[i] = one ? zero : strides[j];
    }
    return true;
}

/* ---- normal form ---- */

static bool has_reduction(const struct vr *r)
{
    for (int i = 0; i < r->n_values; i++)
        if (r->values[i].kind == VR_RED)
            return true;
    return false;
}

static struct vr_view *view_at(struct vr *r, int i)
{
    return i < r->n_views ? &r->views[i] : &r->outputs[i - r->n_views].view;
}

static void drop_dim(struct vr *r, int d)
{
    for (int i = d; i + 1 < r->rank; i++)
        r->dims[i] = r->dims[i + 1];
    for (int v = 0; v < r->n_views + r->n_outputs; v++)
        for (int i = d; i + 1 < r->rank; i++)
            view_at(r, v)->stride[i] = view_at(r, v)->stride[i + 1];
    r->rank--;
}

/* Do all views walk dimensions d and d+1 as one? */
static bool mergeable(struct vr *r, int d)
{
    struct expr_pool *x = &r->e->cx->exprs;
    for (int v = 0; v < r->n_views + r->n_outputs; v++) {
        const struct vr_view *w = view_at(r, v);
        if (w->stride[d] != expr_mul(x, w->stride[d + 1], r->dims[d + 1]))
            return false;
    }
    return true;
}

static bool has_index(struct vr *r)
{
    for (int v = 0; v < r->n_views + r->n_outputs; v++)
        if (view_at(r, v)->indexed)
            return true;
    return false;
}

/* A dimension of size one before the last, so that dimension 0 is an outer one. */
static void insert_row_dim(struct vr *r)
{
    int d = r->rank - 1;
    r->dims[d + 1] = r->dims[d];
    r->dims[d] = expr_const(&r->e->cx->exprs, 1);
    for (int v = 0; v < r->n_views + r->n_outputs; v++) {
        struct vr_view *w = view_at(r, v);
        w->stride[d + 1] = w->stride[d];
        w->stride[d] = expr_const(&r->e->cx->exprs, 0);
    }
    r->rank++;
}

/* Makes dimension d the last one. */
static void move_last(struct vr *r, int d)
{
    const expr dim = r->dims[d];
    for (int i = d; i + 1 < r->rank; i++)
        r->dims[i] = r->dims[i + 1];
    r->dims[r->rank - 1] = dim;
    for (int v = 0; v < r->n_views + r->n_outputs; v++) {
        struct vr_view *w = view_at(r, v);
        const expr stride = w->stride[d];
        for (int i = d; i + 1 < r->rank; i++)
            w->stride[i] = w->stride[i + 1];
        w->stride[r->rank - 1] = stride;
    }
}

/* Rows run where results are neighbours and, if there are operands, those of one are, too: channels of NHWC. */
static void turn_rows(struct vr *r)
{
    const expr one = expr_const(&r->e->cx->exprs, 1);
    if (r->has_red || r->keeps_first || r->planes || r->n_outputs < 1 || r->outputs[0].view.stride[r->rank - 1] == one)
        return;
    for (int d = 0; d + 1 < r->rank; d++) {
        bool read = r->n_views == 0;
        for (int v = 0; v < r->n_views; v++)
            read |= r->views[v].stride[d] == one;
        if (read && r->outputs[0].view.stride[d] == one) {
            move_last(r, d);
            return;
        }
    }
}

static bool used_once(const struct vr *r, int value)
{
    int n = 0;
    for (int i = 0; i < r->n_values; i++)
        for (int a = 0; a < 3; a++)
            n += r->values[i].arg[a] == value;
    for (int o = 0; o < r->n_outputs; o++)
        n += r->outputs[o].value == value;
    return n == 1;
}

static const struct vr_value *formula(const struct vr *r, int i, enum k_fn fn)
{
    const struct vr_value *v = i >= 0 ? &r->values[i] : NULL;
    return v && v->kind == VR_VEC && v->op == (int)fn ? v : NULL;
}

/* cast(clip(round(v), low, high)) to bytes: the conversion itself rounds to the nearest and goes no further than the
 * type. Ends within the type are whole numbers, so that rounding may come behind them. */
static void merge_rounding(struct vr *r, struct vr_value *cast)
{
    const int at = cast->arg[0];
    struct vr_value *clip = formula(r, at, K_FN_Clip) ? &r->values[at] : NULL;
    const struct vr_value *round = clip ? formula(r, clip->arg[0], K_FN_Round) : NULL;
    const float least = cast->dtype == DT_U8 ? 0 : -128, most = cast->dtype == DT_U8 ? 255 : 127;
    if (!round || !used_once(r, at))
        return;
    const struct vr_value *low = &r->values[clip->arg[1]], *high = &r->values[clip->arg[2]];
    if (low->kind != VR_IMM || high->kind != VR_IMM || !(low->imm <= high->imm) || low->imm != rintf(low->imm) ||
        high->imm != rintf(high->imm) || low->imm > most || high->imm < least)
        return;
    cast->nearest = true;
    if (low->imm <= least && high->imm >= most)
        cast->arg[0] = round->arg[0];
    else
        clip->arg[0] = round->arg[0];
    if (cast->arg[0] == at && high->imm >= most) {
        clip->op = K_FN_Max;
        clip->arg[2] = -1;
    }
}

static void merge_roundings(struct vr *r)
{
    for (int i = 0; i < r->n_values; i++) {
        struct vr_value *v = &r->values[i];
        const bool bytes = v->dtype == DT_I8 || v->dtype == DT_U8,
                   wide = v->op_dtype == DT_F32 || v->op_dtype == DT_F16 || v->op_dtype == DT_BF16;
        if (v->kind == VR_CAST && bytes && wide && v->arg[0] >= 0)
            merge_rounding(r, v);
    }
}

void vr_normalise(struct vr *r)
{
    struct expr_pool *x = &r->e->cx->exprs;
    int64_t size;
    merge_roundings(r);
    r->has_red = has_reduction(r);
    r->keeps_first = has_index(r);
    int stop = r->keeps_first ? 1 : 0;
    for (int d = r->rank - 1; d >= stop; d--) {
        bool last = d == r->rank - 1;
        if (r->rank > 1 && !(last && r->has_red) && expr_is_const(x, r->dims[d], &size) && size == 1)
            drop_dim(r, d);
    }
    turn_rows(r);
    for (int d = r->rank - 2; d >= stop; d--) {
        if ((d == r->rank - 2 && r->has_red) || !mergeable(r, d))
            continue;
        expr merged = expr_mul(x, r->dims[d], r->dims[d + 1]);
        drop_dim(r, d); /* keeps the strides of d + 1 */
        r->dims[d] = merged;
    }
    while (r->keeps_first && r->rank < 3)
        insert_row_dim(r);
}

static enum vr_class view_class(const struct vr *r, const struct vr_view *v)
{
    expr zero = expr_const(&r->e->cx->exprs, 0);
    bool col = v->stride[r->rank - 1] != zero;
    bool row = r->rank > 1 && v->stride[r->rank - 2] != zero;
    row = row || (r->planes && v->stride[r->rank - 3] != zero);
    if (r->rank == 1)
        return col ? VC_FULL : VC_ONE;
    return col ? (row ? VC_FULL : VC_ROW) : (row ? VC_COL : VC_ONE);
}

static enum vr_class join(enum vr_class a, enum vr_class b)
{
    if (a == b || b == VC_ONE)
        return a;
    return a == VC_ONE ? b : VC_FULL;
}

void vr_classify(struct vr *r)
{
    for (int i = 0; i < r->n_values; i++) {
        struct vr_value *v = &r->values[i];
        v->level = 0;
        if (v->kind == VR_INPUT || v->kind == VR_IOTA)
            v->cls = view_class(r, &r->views[v->view]);
        if (v->kind == VR_INPUT || v->kind == VR_IOTA || v->kind == VR_IMM)
            continue;
        v->cls = VC_ONE;
        for (int a = 0; a < 3 && v->arg[a] >= 0; a++) {
            const struct vr_value *w = &r->values[v->arg[a]];
            v->cls = join(v->cls, w->cls);
            v->level = w->level > v->level ? w->level : v->level;
        }
        if (v->kind == VR_RED) {
            v->level++;
            v->cls = VC_COL;
        }
    }
}
