/* The elementwise operators of kernels/formula.def as operators of the IR: broadcasting, content of shape tensors,
 * neutral elements. Definitions are generated from the table; a new formula needs nothing here. */
#include "ir/ops/infer.h"
#include "kernels/vec.h"

/* ---- content: formulas on known integer expressions; EXPR_INVALID = not expressible */

typedef expr elem_fn(struct expr_pool *p, const expr *x);

static bool non_negative(const struct expr_pool *p, expr e)
{
    return expr_range_of(p, e).min >= 0;
}
static expr e_identity(struct expr_pool *p, const expr *x)
{
    (void)p;
    return x[0];
}
static expr e_abs(struct expr_pool *p, const expr *x)
{
    return non_negative(p, x[0]) ? x[0] : expr_max(p, x[0], expr_mul_const(p, x[0], -1));
}
static expr e_neg(struct expr_pool *p, const expr *x)
{
    return expr_mul_const(p, x[0], -1);
}
static expr e_sign(struct expr_pool *p, const expr *x)
{
    const expr zero = expr_const(p, 0);
    return expr_sub(p, expr_cmp(p, EXPR_LT, zero, x[0]), expr_cmp(p, EXPR_LT, x[0], zero));
}
static expr e_not(struct expr_pool *p, const expr *x)
{
    return expr_sub(p, expr_const(p, 1), x[0]);
}
static expr e_add(struct expr_pool *p, const expr *x)
{
    return expr_add(p, x[0], x[1]);
}
static expr e_sub(struct expr_pool *p, const expr *x)
{
    return expr_sub(p, x[0], x[1]);
}
static expr e_mul(struct expr_pool *p, const expr *x)
{
    return expr_mul(p, x[0], x[1]);
}
/* Integer division truncates: the floor form agrees when both signs are known to be plus; constants are exact. */
static expr e_div(struct expr_pool *p, const expr *x)
{
    int64_t a, b;
    const bool cb = expr_is_const(p, x[1], &b);
    if (cb && b == 1)
        return x[0];
    if (cb && b == -1)
        return expr_mul_const(p, x[0], -1);
    if (cb && b != 0 && expr_is_const(p, x[0], &a))
        return expr_const(p, a / b);
    return non_negative(p, x[0]) && expr_range_of(p, x[1]).min > 0 ? expr_floordiv(p, x[0], x[1]) : EXPR_INVALID;
}
static expr e_mod(struct expr_pool *p, const expr *x)
{
    int64_t b;
    const bool sure = expr_range_of(p, x[1]).min > 0 || (expr_is_const(p, x[1], &b) && b != 0 && b != -1);
    return sure ? expr_mod(p, x[0], x[1]) : EXPR_INVALID;
}
static expr e_fmod(struct expr_pool *p, const expr *x)
{
    return non_negative(p, x[0]) && expr_range_of(p, x[1]).min > 0 ? expr_mod(p, x[0], x[1]) : EXPR_INVALID;
}
static expr e_max(struct expr_pool *p, const expr *x)
{
    return expr_proves_le(p, x[0], x[1]) ? x[1] : expr_proves_le(p, x[1], x[0]) ? x[0] : expr_max(p, x[0], x[1]);
}
static expr e_min(struct expr_pool *p, const expr *x)
{
    return expr_proves_le(p, x[0], x[1]) ? x[0] : expr_proves_le(p, x[1], x[0]) ? x[1] : expr_min(p, x[0], x[1]);
}
static expr e_clip(struct expr_pool *p, const expr *x)
{
    const expr low[2] = {x[0], x[1]};
    const expr high[2] = {e_max(p, low), x[2]};
    return e_min(p, high);
}
static expr e_and(struct expr_pool *p, const expr *x)
{
    return expr_mul(p, x[0], x[1]);
}
static expr e_or(struct expr_pool *p, const expr *x)
{
    return expr_max(p, x[0], x[1]);
}
static expr e_lt(struct expr_pool *p, const expr *x)
{
    const expr one = expr_const(p, 1);
    if (expr_proves_le(p, expr_add(p, x[0], one), x[1]))
        return one;
    return expr_proves_le(p, x[1], x[0]) ? expr_const(p, 0) : expr_cmp(p, EXPR_LT, x[0], x[1]);
}
static expr e_le(struct expr_pool *p, const expr *x)
{
    const expr swapped[2] = {x[1], x[0]};
    const expr less = e_lt(p, swapped);
    int64_t c;
    return expr_is_const(p, less, &c) ? expr_const(p, !c) : expr_cmp(p, EXPR_LE, x[0], x[1]);
}
static expr e_gt(struct expr_pool *p, const expr *x)
{
    const expr swapped[2] = {x[1], x[0]};
    return e_lt(p, swapped);
}
static expr e_ge(struct expr_pool *p, const expr *x)
{
    const expr swapped[2] = {x[1], x[0]};
    return e_le(p, swapped);
}
static expr e_equal(struct expr_pool *p, const expr *x)
{
    const expr one = expr_const(p, 1), d = expr_sub(p, x[0], x[1]);
    if (x[0] == x[1])
        return one;
    const struct expr_range r = d ? expr_range_of(p, d) : (struct expr_range){INT64_MIN, INT64_MAX, 1};
    return r.min > 0 || r.max < 0 ? expr_const(p, 0) : expr_cmp(p, EXPR_EQ, x[0], x[1]);
}
static expr e_xor(struct expr_pool *p, const expr *x)
{
    const expr same = e_equal(p, x);
    return same ? e_not(p, &same) : EXPR_INVALID;
}
static expr e_where(struct expr_pool *p, const expr *x)
{
    int64_t c;
    if (expr_is_const(p, x[0], &c))
        return x[c ? 1 : 2];
    return x[1] == x[2] ? x[1] : expr_select(p, x[0], x[1], x[2]);
}

static elem_fn *const elem_fns[K_FN_end] = {
    [K_FN_Identity] = e_identity, [K_FN_Abs] = e_abs,           [K_FN_Neg] = e_neg,     [K_FN_Sign] = e_sign,
    [K_FN_Not] = e_not,           [K_FN_Add] = e_add,           [K_FN_Sub] = e_sub,     [K_FN_Mul] = e_mul,
    [K_FN_Div] = e_div,           [K_FN_Mod] = e_mod,           [K_FN_FMod] = e_fmod,   [K_FN_Max] = e_max,
    [K_FN_Min] = e_min,           [K_FN_Clip] = e_clip,         [K_FN_And] = e_and,     [K_FN_Or] = e_or,
    [K_FN_Xor] = e_xor,           [K_FN_Equal] = e_equal,       [K_FN_Less] = e_lt,     [K_FN_LessOrEqual] = e_le,
    [K_FN_Greater] = e_gt,        [K_FN_GreaterOrEqual] = e_ge, [K_FN_Where] = e_where,
};

static void formula_elems(struct ir_ctx *cx, struct node *n, elem_fn *fn, int arity)
{
    expr in[3][INFER_MAX_ELEMS], out[INFER_MAX_ELEMS];
    int64_t len[3], n_out = 1;
    for (int i = 0; i < arity; i++) {
        if (!infer_tracks(infer_dtype(n, i)) || !infer_elems(cx, n, i, in[i], &len[i]))
            return;
        if (len[i] != 1)
            n_out = len[i];
    }
    for (int i = 0; i < arity; i++)
        if (len[i] != 1 && len[i] != n_out)
            return;
    for (int64_t k = 0; k < n_out; k++) {
        expr x[3] = {EXPR_INVALID};
        bool known = true;
        for (int i = 0; i < arity; i++) {
            x[i] = in[i][len[i] == 1 ? 0 : k];
            known &= x[i] != EXPR_INVALID;
        }
        int64_t c;
        if (fn == e_where && x[0] && expr_is_const(&cx->exprs, x[0], &c)) /* the other branch may be unknown */
            out[k] = x[c ? 1 : 2];
        else
            out[k] = known ? fn(&cx->exprs, x) : EXPR_INVALID;
    }
    infer_set_elems(cx, n, 0, out, n_out);
}

/* ---- types */

/* Where's condition is bool, all other operands have one type that the formula can compute. */
static enum npuc_status formula_dtypes(struct ir_ctx *cx, const struct node *n, const struct k_fn_info *f)
{
    const int first = n->op == OP_Where ? 1 : 0;
    enum npuc_status s = first ? infer_dtype_is(cx, n, 0, DT_BOOL, DT_BOOL) : NPUC_OK;
    for (int i = first + 1; i < f->arity && s == NPUC_OK; i++)
        s = infer_same_dtype(cx, n, first, i);
    const bool text = infer_dtype(n, first) == DT_STRING && (n->op == OP_Equal || n->op == OP_Where); /* by kernel */
    if (s == NPUC_OK && n->op != OP_Identity && !text &&
        !k_fn_supports((enum k_fn)op_table[n->op]->fn, infer_dtype(n, first)))
        return node_error(cx, n, D_TYPE_MISMATCH, "input %d has element type %s, which %s does not take", first,
                          dtype_table[infer_dtype(n, first)].name, f->name);
    return s;
}

static enum npuc_status formula_infer(struct ir_ctx *cx, struct node *n)
{
    const struct op_def *d = op_table[n->op];
    const struct k_fn_info *f = k_fn_info((enum k_fn)d->fn);
    if (n->op == OP_Identity && infer_has(n, 0) && n->in[0].value->type->kind != TYPE_TENSOR && n->n_out == 1) {
        n->out[0].type = n->in[0].value->type;
        return NPUC_OK;
    }
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = formula_dtypes(cx, n, f);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    for (int i = 1; i < f->arity; i++) {
        const struct shape x = infer_shape(n, i);
        if (!infer_broadcast(cx, &out, &x, &out))
            return node_error(cx, n, D_SHAPE_MISMATCH,
                              "input %d has type %s, which does not broadcast with input 0 of type %s", i,
                              type_text(cx, n->in[i].value->type), type_text(cx, n->in[0].value->type));
    }
    const enum dtype t = f->result == K_RESULT_BOOL ? DT_BOOL : infer_dtype(n, f->arity - 1);
    s = out.rank < 0 ? infer_out_unknown(cx, n, 0, t) : infer_out(cx, n, 0, t, &out);
    elem_fn *fn = elem_fns[d->fn];
    if (s == NPUC_OK && fn && out.rank >= 0 && out.rank <= 1)
        formula_elems(cx, n, fn, f->arity);
    return s;
}

/* ---- neutral elements */

/* Operand `operand` equal to `neutral` everywhere gives the other operand. For floats x + 0 is not x (x = -0), but
 * x + -0 is; integers have one zero. */
struct neutral {
    enum op op;
    int operand;
    double value, whole; /* for floats, for integers and bool */
};
static const struct neutral neutrals[] = {
    {OP_Add, 0, -0.0, 0}, {OP_Add, 1, -0.0, 0}, {OP_Sub, 1, 0.0, 0},     {OP_Mul, 0, 1, 1},        {OP_Mul, 1, 1, 1},
    {OP_Div, 1, 1, 1},    {OP_And, 0, 1, 1},    {OP_And, 1, 1, 1},       {OP_Or, 0, 0, 0},         {OP_Or, 1, 0, 0},
    {OP_Xor, 0, 0, 0},    {OP_Xor, 1, 0, 0},    {OP_BitwiseOr, 1, 0, 0}, {OP_BitwiseXor, 1, 0, 0},
};

static struct value *formula_fold(struct ir_ctx *cx, struct node *n)
{
    (void)cx;
    const struct type *t = n->out[0].type;
    struct value *x = node_in(n, 0), *y = node_in(n, 1);
    if (n->op == OP_Identity)
        return x;
    const bool self_inverse = n->op == OP_Neg || n->op == OP_Not || n->op == OP_BitwiseNot;
    if (self_inverse && x->def && x->def->op == n->op && node_in(x->def, 0)->type == t)
        return node_in(x->def, 0);
    const bool idempotent = n->op == OP_Max || n->op == OP_Min || n->op == OP_And || n->op == OP_Or;
    if (idempotent && x == y && x->type == t)
        return x;
    if (n->op == OP_Where) {
        if (y == node_in(n, 2) && y->type == t)
            return y;
        struct value *picked = infer_const_is(x, 1) ? y : infer_const_is(x, 0) ? node_in(n, 2) : NULL;
        return picked && picked->type == t ? picked : NULL;
    }
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(neutrals); i++) {
        const struct neutral *m = &neutrals[i];
        if (m->op != n->op)
            continue;
        struct value *rest = m->operand ? x : y;
        if (rest->type == t &&
            infer_const_is(m->operand ? y : x, dtype_is_float(rest->type->dtype) ? m->value : m->whole))
            return rest;
    }
    return NULL;
}

static void formula_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, &n->out[0], symbols) * k_fn_info((enum k_fn)op_table[n->op]->fn)->alu;
}

/* ---- definitions. Names that are ours alone do not exist for files: OWN_<Name> moves them to the domain npuc. */

#define OWN_FMod                   ~, "npuc"
#define OWN_GeluTanh               ~, "npuc"
#define OWN_BitShiftLeft           ~, "npuc"
#define OWN_BitShiftRight          ~, "npuc"
#define OWN_Rsqrt                  ~, "npuc"
#define OWN_Binade                 ~, "npuc"
#define OWN_Fma                    ~, "npuc"
#define SECOND(first, second, ...) second
#define DOMAIN_OF(...)             SECOND(__VA_ARGS__, "", ~)

#define TRAITS_0           T_ELEMENTWISE | T_SHAPE_DATA
#define TRAITS_1           T_ELEMENTWISE | T_SHAPE_DATA | T_COMMUTATIVE
#define A_FLOAT(nm, value) {.name = #nm, .kind = ATTR_FLOAT, .has_default = true, .f = (value)},
#define A_INT(nm, value)   {.name = #nm, .kind = ATTR_INT, .has_default = true, .i = (value)},
#define P0
#define P1(a, x)             A_FLOAT(a, x)
#define P2(a, x, b, y)       A_FLOAT(a, x) A_FLOAT(b, y)
#define P3(a, x, b, y, c, z) A_FLOAT(a, x) A_FLOAT(b, y) A_FLOAT(c, z)
#define I2(a, x, b, y)       A_INT(a, x) A_INT(b, y)

#define FORMULA(number, nm, arity, result, types, params, alu, commutes, real, whole)                                  \
    static const struct attr_def nm##_attrs[] = {params{.name = NULL}};                                                \
    extern const struct op_def op_##nm;                                                                                \
    const struct op_def op_##nm = {.name = #nm,                                                                        \
                                   .domain = DOMAIN_OF(OWN_##nm),                                                      \
                                   .since = 28,                                                                        \
                                   .min_in = (arity),                                                                  \
                                   .max_in = (arity),                                                                  \
                                   .n_out = 1,                                                                         \
                                   .n_attrs = (int16_t)(NPUC_ARRAY_LEN(nm##_attrs) - 1),                               \
                                   .cls = CLS_ELEMENTWISE,                                                             \
                                   .traits = (uint32_t)(TRAITS_##commutes),                                            \
                                   .attrs = nm##_attrs,                                                                \
                                   .infer = formula_infer,                                                             \
                                   .fold = formula_fold,                                                               \
                                   .cost = formula_cost,                                                               \
                                   .fn = K_FN_##nm};
#include "kernels/formula.def"
