/* Vector generator: elementwise operators, casts, reductions and normalisations over rows, alone or as a Fused "vector"
 * region.
 *
 * The iteration space is the broadcast shape of the region. For a single operator that reduces, the reduced axes
 * (neighbours) are moved to the end and merged into the row, so any axis works; a Fused region reduces over the last
 * axis only, keeping it with size one. What an operator means in vector values is a row of `lowerings`; formula
 * operators need none. */
#include <math.h>

#include "backend/vector/blocked.h"
#include "backend/vector/gens.h"
#include "backend/vector/lower.h"

/* How an operator becomes region values. */
struct lowering {
    enum op op;
    bool (*check)(struct ir_ctx *cx, const struct node *n, const char **reason); /* NULL: always */
    int (*lower)(struct lower *l, struct node *n);                               /* value of output 0 */
};

static bool vector_type(const struct type *t, const char **reason)
{
    bool bytes = t->kind == TYPE_TENSOR && dtype_table[t->dtype].bits >= 8 && dtype_table[t->dtype].bits <= 64;
    enum dtype_class c = dtype_table[t->dtype].cls;
    if (bytes && t->dtype != DT_F64 && c != DTC_COMPLEX && c != DTC_TEXT)
        return true;
    *reason = t->dtype == DT_F64 ? "the vector unit has no 64-bit floats"
                                 : "the vector unit has no form for this element type";
    return false;
}

/* ---- shapes ---- */

/* Widens the space's shape by a value's shape; false where sizes are not known to agree. */
static bool space_join(struct ir_ctx *cx, struct space *s, const struct type *t, const char **reason)
{
    for (int i = 0; i < t->rank; i++) {
        expr *d = &s->shape[s->rank - t->rank + i];
        if (expr_is_one(&cx->exprs, *d))
            *d = t->dims[i];
        else if (*d != t->dims[i] && !expr_is_one(&cx->exprs, t->dims[i])) {
            *reason = "operand sizes are not known to agree before run time";
            return false;
        }
    }
    return true;
}

static struct value *reduced_input(const struct node *n)
{
    return node_in(n, 0);
}

/* The axes a reducing operator works on; false when they are not neighbours or not known. */
static bool reduction_axes(struct ir_ctx *cx, const struct node *n, int *first, int *last)
{
    int rank = reduced_input(n)->type->rank;
    if (op_table[n->op]->cls == CLS_NORM) {
        int64_t axis = node_attr_int(n, "axis", -1);
        *first = (int)(axis < 0 ? axis + rank : axis);
        *last = rank - 1;
        return rank > 0;
    }
    if (node_attr(n, "axis")) {
        int64_t axis = node_attr_int(n, "axis", -1);
        *first = *last = (int)(axis < 0 ? axis + rank : axis);
        return rank > 0;
    }
    struct value *axes = node_in(n, 1);
    int64_t n_axes = axes ? value_n_elems(cx, axes) : 0;
    if (!axes || n_axes == 0) {
        *first = 0;
        *last = rank - 1;
        return rank > 0 && node_attr_int(n, "noop_with_empty_axes", 0) == 0;
    }
    bool hit[IR_MAX_RANK] = {false};
    for (int64_t i = 0; i < n_axes; i++) {
        int64_t a;
        if (!expr_is_const(&cx->exprs, value_elem(cx, axes, i), &a) || a < -rank || a >= rank)
            return false;
        hit[a < 0 ? a + rank : a] = true;
    }
    for (*first = 0; !hit[*first]; ++*first)
        ;
    for (*last = *first; *last + 1 < rank && hit[*last + 1]; ++*last)
        ;
    return *last - *first + 1 == n_axes;
}

static bool reduces(const struct node *n)
{
    return op_has(n->op, T_REDUCE);
}

static struct graph *region_of(const struct node *n)
{
    return n->op == OP_Fused ? node_attr(n, "body")->v.graph : NULL;
}

/* Is operand i walked? Axes and examples of a type are not. */
static bool is_walked(const struct node *n, int i)
{
    return node_in(n, i) && !(i == 1 && (n->op == OP_CastLike || (reduces(n) && op_table[n->op]->cls != CLS_NORM)));
}

static bool node_space(struct ir_ctx *cx, const struct node *n, struct space *s, const char **reason)
{
    for (int i = 0; i < n->n_in; i++) {
        if (is_walked(n, i) && !space_join(cx, s, node_in(n, i)->type, reason))
            return false;
    }
    return reduces(n) || space_join(cx, s, n->out[0].type, reason);
}

static int widest_rank(const struct node *n)
{
    int rank = 0;
    for (int i = 0; i < n->n_in; i++)
        if (is_walked(n, i) && node_in(n, i)->type->rank > rank)
            rank = node_in(n, i)->type->rank;
    return rank;
}

void space_init(struct ir_ctx *cx, struct space *s, int rank)
{
    *s = (struct space){.rank = rank, .red_first = rank - 1, .red_last = rank - 1};
    for (int i = 0; i < rank; i++)
        s->shape[i] = expr_const(&cx->exprs, 1);
}

static bool make_space(struct ir_ctx *cx, const struct node *n, struct space *s, const char **reason)
{
    struct graph *g = region_of(n);
    int rank = widest_rank(n);
    const int64_t c0 = blocked_c0(n);
    if (!g) {
        space_init(cx, s, rank);
        if (reduces(n) && !reduction_axes(cx, n, &s->red_first, &s->red_last)) {
            *reason = "the reduced axes are no neighbours, or not known before run time";
            return false;
        }
        s->c0 = c0;
        return node_space(cx, n, s, reason);
    }
    for (int i = 0; i < n->n_out; i++)
        rank = n->out[i].type->rank > rank ? n->out[i].type->rank : rank;
    space_init(cx, s, rank);
    s->c0 = c0;
    for_each_node (m, g) {
        int first, last;
        if (m->op == OP_Yield || m->op == OP_Constant)
            continue;
        if (reduces(m) && (c0 || !reduction_axes(cx, m, &first, &last) || first != last ||
                           last != reduced_input(m)->type->rank - 1)) {
            *reason = "a fused reduction must be over the last axis";
            return false;
        }
        if (!node_space(cx, m, s, reason))
            return false;
    }
    return true;
}

/* ---- views ---- */

/* Strides of a value over the iteration dimensions: axes outside the row, then the row as one. `t` is right-aligned. */
static bool space_view(struct lower *l, struct value *v, struct vr_view *out)
{
    struct expr_pool *x = &l->cx->exprs;
    const struct space *s = &l->sp;
    expr strides[IR_MAX_RANK], zero = expr_const(x, 0), axis_stride[IR_MAX_RANK];
    if (s->c0) {
        blocked_view(l, v, out);
        return true;
    }
    if (!value_strides(l->cx, v, strides))
        return false;
    for (int i = 0; i < s->rank; i++) {
        int j = i - (s->rank - v->type->rank);
        axis_stride[i] = j < 0 || expr_is_one(&l->cx->exprs, v->type->dims[j]) ? zero : strides[j];
    }
    *out = (struct vr_view){.tensor = emit_tensor(l->r.e, v), .dtype = v->type->dtype, .offset = zero};
    int d = 0;
    for (int i = 0; i < s->rank; i++)
        if (i < s->red_first || i > s->red_last)
            out->stride[d++] = axis_stride[i];
    out->stride[d] = zero;
    for (int i = s->red_last; s->rank > 0 && i >= s->red_first; i--) {
        if (expr_is_one(&l->cx->exprs, s->shape[i]))
            continue;
        if (out->stride[d] == zero)
            out->stride[d] = axis_stride[i];
    }
    return true;
}

/* Can the row axes of this value be walked with one stride? */
static bool row_contiguous(struct ir_ctx *cx, const struct space *s, const struct value *v)
{
    struct expr_pool *x = &cx->exprs;
    expr strides[IR_MAX_RANK], inner = EXPR_INVALID;
    bool any = false, all = true;
    if (!value_strides(cx, v, strides))
        return false;
    for (int i = s->red_last; s->rank > 0 && i >= s->red_first; i--) {
        int j = i - (s->rank - v->type->rank);
        if (expr_is_one(&cx->exprs, s->shape[i]))
            continue;
        bool absent = j < 0 || expr_is_one(&cx->exprs, v->type->dims[j]);
        any = any || !absent;
        all = all && !absent;
        if (absent)
            continue;
        if (inner != EXPR_INVALID && strides[j] != inner)
            return false;
        inner = expr_mul(x, strides[j], s->shape[i]);
    }
    return !any || all;
}

/* A value of the region: an immediate, an input view, or what an earlier node made. */
int lower_operand(struct lower *l, struct value *v)
{
    uint64_t *known = map_find(&l->value, v->id);
    if (known)
        return (int)*known;
    int64_t count = type_const_count(l->cx, v->type);
    double number;
    int made;
    if (count == 1 && value_const_f64(v, 0, &number) && ((double)(float)number == number || isnan(number))) {
        made = vr_imm(&l->r, v->type->dtype, (float)number);
    } else {
        struct vr_view view;
        if (!space_view(l, v, &view))
            return 0;
        made = vr_input(&l->r, &view);
    }
    map_put(&l->value, v->id, (uint64_t)made);
    return made;
}

static int arg(struct lower *l, struct node *n, int i)
{
    return lower_operand(l, node_in(n, i));
}

/* ---- operators ---- */

static int lower_formula(struct lower *l, struct node *n)
{
    const struct op_def *d = op_table[n->op];
    int a[3] = {-1, -1, -1};
    float param[3] = {0};
    for (int i = 0; i < n->n_in; i++)
        a[i] = arg(l, n, i);
    for (int i = 0; i < d->n_attrs && i < 3; i++)
        param[i] = n->attrs[i].kind == ATTR_FLOAT ? n->attrs[i].v.f : (float)n->attrs[i].v.i;
    enum dtype t = node_in(n, n->op == OP_Where ? 1 : 0)->type->dtype;
    return vr_vec(&l->r, (enum k_fn)d->fn, t, a, param);
}

/* A conversion has no immediates: a number is loaded like any other operand. */
static int loaded(struct lower *l, struct value *v)
{
    const int a = lower_operand(l, v);
    struct vr_view view;
    if (l->r.values[a].kind != VR_IMM)
        return a;
    return space_view(l, v, &view) ? vr_input(&l->r, &view) : 0;
}

static int lower_cast(struct lower *l, struct node *n)
{
    return vr_cast_as(&l->r, n->out[0].type->dtype, loaded(l, node_in(n, 0)), node_attr_int(n, "saturate", 1) != 0);
}

/* The type of CastLike's second operand decides, not its elements. */
static bool check_cast(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    *reason = "the vector unit rounds to the nearest power of two alone";
    return n->out[0].type->dtype != DT_F8E8M0 ||
           node_attr_str(n, "round_mode", 0) == str_internz(&cx->strings, "nearest");
}

static int f32_of(struct lower *l, int v)
{
    return dtype_is_float(l->r.values[v].dtype) ? vr_cast(&l->r, DT_F32, v) : v;
}

/* Elements of a row as an immediate or, when symbolic, as a per-call scalar from the sizes tensor: here always by Div
 * with a broadcast of the count; symbolic counts are refused by check_mean. */
static int row_count(struct lower *l)
{
    int64_t n = 1, v;
    for (int i = l->sp.red_first; i <= l->sp.red_last; i++)
        n *= expr_is_const(&l->cx->exprs, l->sp.shape[i], &v) ? v : 0;
    return vr_imm(&l->r, DT_F32, (float)n);
}

static bool row_is_constant(struct ir_ctx *cx, const struct node *n)
{
    int first, last;
    int64_t v;
    if (!reduction_axes(cx, n, &first, &last))
        return false;
    for (int i = first; i <= last; i++)
        if (!expr_is_const(&cx->exprs, reduced_input(n)->type->dims[i], &v))
            return false;
    return true;
}

static bool check_mean(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    if (row_is_constant(cx, n) && dtype_is_float(node_in(n, 0)->type->dtype))
        return true;
    *reason = "a mean needs a row length known at compile time and float elements";
    return false;
}

static bool check_norm(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    *reason = "only the first output is computed on the vector unit";
    return check_mean(cx, n, reason) && !node_out(n, 1) && !node_out(n, 2) && node_attr_int(n, "stash_type", 1) == 1;
}

/* The reduced operators in terms of k_red, with an optional formula on the result. */
struct reduction {
    enum op op;
    enum k_red red;
    enum k_fn after;
    bool mean;
};
static const struct reduction reductions[] = {
    {OP_ReduceSum, K_RED_SUM, K_FN_none, false},   {OP_ReduceMean, K_RED_SUM, K_FN_none, true},
    {OP_ReduceMax, K_RED_MAX, K_FN_none, false},   {OP_ReduceMin, K_RED_MIN, K_FN_none, false},
    {OP_ReduceProd, K_RED_PROD, K_FN_none, false}, {OP_ReduceSumSquare, K_RED_SUMSQ, K_FN_none, false},
    {OP_ReduceL1, K_RED_ABSSUM, K_FN_none, false}, {OP_ReduceL2, K_RED_SUMSQ, K_FN_Sqrt, false},
    {OP_ReduceLogSum, K_RED_SUM, K_FN_Log, false},
};

static int lower_reduce(struct lower *l, struct node *n)
{
    const struct reduction *d = reductions;
    while (d->op != (enum op)n->op)
        d++;
    int v = vr_reduce(&l->r, d->red, f32_of(l, loaded(l, node_in(n, 0))));
    if (d->mean)
        v = vr_vec2(&l->r, K_FN_Div, v, row_count(l));
    if (d->after != K_FN_none)
        v = vr_vec1(&l->r, d->after, v);
    return vr_cast(&l->r, n->out[0].type->dtype, v);
}

static bool check_reduce(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    enum dtype t = node_in(n, 0)->type->dtype;
    if (t == DT_BOOL || (n->op == OP_ReduceMean && !dtype_is_float(t)) ||
        (n->op == OP_ReduceL2 && !dtype_is_float(t)) || (n->op == OP_ReduceLogSum && !dtype_is_float(t))) {
        *reason = "this reduction of integers or bool has no vector form";
        return false;
    }
    return n->op != OP_ReduceMean || check_mean(cx, n, reason);
}

static int lower_softmax(struct lower *l, struct node *n)
{
    int x = f32_of(l, loaded(l, node_in(n, 0)));
    int e = vr_vec1(&l->r, K_FN_Exp, vr_vec2(&l->r, K_FN_Sub, x, vr_reduce(&l->r, K_RED_MAX, x)));
    int y = vr_vec2(&l->r, K_FN_Div, e, vr_reduce(&l->r, K_RED_SUM, e));
    return vr_cast(&l->r, n->out[0].type->dtype, y);
}

static int lower_log_softmax(struct lower *l, struct node *n)
{
    int x = f32_of(l, loaded(l, node_in(n, 0)));
    int d = vr_vec2(&l->r, K_FN_Sub, x, vr_reduce(&l->r, K_RED_MAX, x));
    int s = vr_vec1(&l->r, K_FN_Log, vr_reduce(&l->r, K_RED_SUM, vr_vec1(&l->r, K_FN_Exp, d)));
    return vr_cast(&l->r, n->out[0].type->dtype, vr_vec2(&l->r, K_FN_Sub, d, s));
}

static bool check_float(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    *reason = "needs float elements";
    return dtype_is_float(node_in(n, 0)->type->dtype);
}

/* v / sqrt(mean of squares + epsilon), rounded to the type of x, then in the type of the result. */
static int rms_of(struct lower *l, struct node *n, int v)
{
    int ms = vr_vec2(&l->r, K_FN_Div, vr_reduce(&l->r, K_RED_SUMSQ, v), row_count(l));
    int eps = vr_imm(&l->r, DT_F32, node_attr_float(n, "epsilon", 1e-5f));
    int inv = vr_vec1(&l->r, K_FN_Rsqrt, vr_vec2(&l->r, K_FN_Add, ms, eps));
    int y = vr_cast(&l->r, node_in(n, 0)->type->dtype, vr_vec2(&l->r, K_FN_Mul, v, inv));
    return vr_cast(&l->r, n->out[0].type->dtype, y);
}

static int lower_rms_norm(struct lower *l, struct node *n)
{
    int y = rms_of(l, n, f32_of(l, loaded(l, node_in(n, 0))));
    return vr_vec2(&l->r, K_FN_Mul, y, arg(l, n, 1));
}

static int lower_layer_norm(struct lower *l, struct node *n)
{
    int x = f32_of(l, loaded(l, node_in(n, 0)));
    int d = vr_vec2(&l->r, K_FN_Sub, x, vr_vec2(&l->r, K_FN_Div, vr_reduce(&l->r, K_RED_SUM, x), row_count(l)));
    int y = vr_vec2(&l->r, K_FN_Mul, rms_of(l, n, d), arg(l, n, 1));
    return node_in(n, 2) ? vr_vec2(&l->r, K_FN_Add, y, arg(l, n, 2)) : y;
}

static const struct lowering lowerings[] = {
    {OP_SwiGLU, lower_check_swiglu, lower_swiglu},
    {OP_Cast, check_cast, lower_cast},
    {OP_CastLike, check_cast, lower_cast},
    {OP_Sum, lower_check_sum, lower_sum},
    {OP_Mean, lower_check_sum, lower_sum},
    {OP_Softmax, check_float, lower_softmax},
    {OP_LogSoftmax, check_float, lower_log_softmax},
    {OP_RMSNormalization, check_norm, lower_rms_norm},
    {OP_LayerNormalization, check_norm, lower_layer_norm},
    {OP_ReduceSum, check_reduce, lower_reduce},
    {OP_ReduceMean, check_reduce, lower_reduce},
    {OP_ReduceMax, check_reduce, lower_reduce},
    {OP_ReduceMin, check_reduce, lower_reduce},
    {OP_ReduceProd, check_reduce, lower_reduce},
    {OP_ReduceSumSquare, check_reduce, lower_reduce},
    {OP_ReduceL1, check_reduce, lower_reduce},
    {OP_ReduceL2, check_reduce, lower_reduce},
    {OP_ReduceLogSum, check_reduce, lower_reduce},
};

static const struct lowering *find_lowering(const struct node *n)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(lowerings); i++)
        if (lowerings[i].op == (enum op)n->op)
            return &lowerings[i];
    return NULL;
}

/* ---- the generator ---- */

static bool operand_types(const struct node *n, const char **reason)
{
    for (int i = 0; i < n->n_in; i++)
        if (is_walked(n, i) && !vector_type(node_in(n, i)->type, reason))
            return false;
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i) && !vector_type(n->out[i].type, reason))
            return false;
    return true;
}

static bool check_node(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const struct lowering *low = find_lowering(n);
    int fn = op_table[n->op]->fn;
    if (!low && fn == K_FN_none)
        return false;
    if (!operand_types(n, reason))
        return false;
    if (low)
        return !low->check || low->check(cx, n, reason);
    for (int i = 0; i < n->n_in; i++)
        if (!node_in(n, i))
            return false;
    *reason = "the vector unit has no form of this operator for the element type";
    return n->n_in == k_fn_info((enum k_fn)fn)->arity &&
           k_fn_supports((enum k_fn)fn, node_in(n, n->op == OP_Where ? 1 : 0)->type->dtype);
}

/* All tensors of a node must be walkable over the space. */
static bool views_fit(struct ir_ctx *cx, const struct node *n, const struct space *s, const char **reason)
{
    *reason = "an operand's storage cannot be walked row by row";
    for (int i = 0; i < n->n_in; i++) {
        if (is_walked(n, i) && !row_contiguous(cx, s, node_in(n, i)))
            return false;
    }
    return true;
}

bool space_add(struct ir_ctx *cx, struct space *s, const struct node *n, const char **reason)
{
    return node_space(cx, n, s, reason) && views_fit(cx, n, s, reason);
}

bool lower_check(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    int first, last;
    if (!check_node(cx, n, reason))
        return false;
    if (!reduces(n))
        return true;
    *reason = "a fused reduction must be over the last axis";
    return reduction_axes(cx, n, &first, &last) && first == last && last == reduced_input(n)->type->rank - 1 &&
           node_attr_int(n, "keepdims", 1) != 0;
}

bool gen_vector_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    struct graph *g = region_of(n);
    struct space s;
    if (n->op == OP_Fused) {
        if (node_attr_str(n, "kind", 0) != str_internz(&cx->strings, "vector"))
            return false;
        for_each_node (k, g)
            if (k->op != OP_Yield && k->op != OP_Constant && !check_node(cx, k, reason))
                return false;
    } else if (!check_node(cx, n, reason)) {
        return false;
    }
    if (!make_space(cx, n, &s, reason) || (s.c0 && (reduces(n) || n->out[0].type->rank != s.rank)))
        return false;
    return s.c0 ? blocked_fits(cx, n, &s, reason) : views_fit(cx, n, &s, reason);
}

int lower_node(struct lower *l, struct node *n)
{
    const struct lowering *low = find_lowering(n);
    return low ? low->lower(l, n) : lower_formula(l, n);
}

void lower_begin(struct lower *l, struct emit *e)
{
    l->cx = e->cx;
    map_init(&l->value, e->arena);
    struct expr_pool *x = &l->cx->exprs;
    const struct space *s = &l->sp;
    expr dims[IR_MAX_RANK], row = expr_const(x, 1);
    int d = 0;
    for (int i = 0; i < s->rank; i++) {
        if (i < s->red_first || i > s->red_last)
            dims[d++] = s->shape[i];
        else
            row = expr_mul(x, row, s->shape[i]);
    }
    dims[d++] = row;
    if (s->c0) {
        blocked_dims(l->cx, s, dims);
        d = s->rank + 1;
    }
    vr_init(&l->r, e, d, dims);
}

/* View of an output. A reduced one may lack the reduced axes: its strides follow from the dimensions it has. */
static void output_view(struct lower *l, struct value *v, bool reduced, struct vr_view *out)
{
    struct expr_pool *x = &l->cx->exprs;
    const struct space *s = &l->sp;
    if (!reduced || v->type->rank == s->rank) {
        space_view(l, v, out);
        return;
    }
    expr stride = expr_const(x, 1);
    *out = (struct vr_view){.tensor = emit_tensor(l->r.e, v), .dtype = v->type->dtype, .offset = expr_const(x, 0)};
    out->stride[l->r.rank - 1] = expr_const(x, 0);
    for (int d = l->r.rank - 2; d >= 0; d--) {
        out->stride[d] = expr_is_one(&l->cx->exprs, l->r.dims[d]) ? expr_const(x, 0) : stride;
        stride = expr_mul(x, stride, l->r.dims[d]);
    }
}

static enum npuc_status emit_region(struct lower *l, struct node *n, struct graph *g)
{
    struct vr_view view;
    struct node *yield = graph_yield(g);
    for (int i = 0; i < g->n_inputs; i++)
        map_put(&l->value, g->inputs[i]->id, (uint64_t)lower_operand(l, node_in(n, i)));
    for_each_node (m, g) {
        if (m->op == OP_Yield || m->op == OP_Constant)
            continue;
        map_put(&l->value, m->out[0].id, (uint64_t)lower_node(l, m));
    }
    for (int i = 0; i < n->n_out; i++) {
        output_view(l, &n->out[i], false, &view);
        vr_output(&l->r, lower_operand(l, node_in(yield, i)), &view);
    }
    return NPUC_OK;
}

enum npuc_status gen_vector_emit(struct emit *e, struct node *n)
{
    struct graph *g = region_of(n);
    struct lower *l = ARENA_NEW(e->arena, struct lower);
    const char *reason = "";
    if (!make_space(e->cx, n, &l->sp, &reason))
        return node_error(e->cx, n, D_UNSUPPORTED, "%s", reason);
    lower_begin(l, e);
    if (g) {
        enum npuc_status s = emit_region(l, n, g);
        return s != NPUC_OK ? s : vr_launch(&l->r, "vector", "Fused");
    }
    struct vr_view view;
    int v = lower_node(l, n);
    output_view(l, &n->out[0], reduces(n), &view);
    vr_output(&l->r, v, &view);
    return vr_launch(&l->r, "vector", op_table[n->op]->name);
}
