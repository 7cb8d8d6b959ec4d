/* Matchers of passes/match.h. */
#include "passes/match.h"

#include <math.h>

struct node *match_def(const struct value *v, enum op op)
{
    return v && v->def && v->def->op == op ? v->def : NULL;
}

bool match_scalar(const struct value *v, double *out)
{
    return v && value_const(v) && v->type->kind == TYPE_TENSOR && dtype_is_float(v->type->dtype) &&
           type_const_count(v->graph->module->cx, v->type) == 1 && value_const_f64(v, 0, out);
}

bool match_int(const struct value *v, int64_t *out)
{
    if (!v || v->type->rank > 1)
        return false;
    struct ir_ctx *cx = v->graph->module->cx;
    const expr e = value_n_elems(cx, v) == 1 ? value_elem(cx, v, 0) : EXPR_INVALID;
    return e != EXPR_INVALID && expr_is_const(&cx->exprs, e, out);
}

bool match_near(double x, double wanted)
{
    const double f16_rounding = 1.0 / 1024;
    return fabs(x - wanted) <= fabs(wanted) * f16_rounding;
}

bool match_with_scalar(const struct value *v, enum op op, struct value **rest, double *scalar)
{
    const struct node *n = match_def(v, op);
    const int last = n && op_has(op, T_COMMUTATIVE) ? 0 : 1;
    if (!n || n->n_in != 2)
        return false;
    for (int i = 1; i >= last; i--)
        if (match_scalar(node_in(n, i), scalar) && node_in(n, 1 - i)->type == v->type) {
            *rest = node_in(n, 1 - i);
            return true;
        }
    return false;
}

struct value *match_scaled(struct value *v, double *factor)
{
    double c;
    *factor = 1.0;
    for (;;) {
        if (match_with_scalar(v, OP_Mul, &v, &c))
            *factor *= c;
        else if (match_with_scalar(v, OP_Div, &v, &c) && c != 0.0)
            *factor /= c;
        else
            return v;
    }
}

struct value *match_row_mean(const struct value *v)
{
    const struct node *n = match_def(v, OP_ReduceMean);
    int64_t axis;
    if (!n || node_attr_int(n, "keepdims", 1) == 0 || !match_int(node_in(n, 1), &axis))
        return NULL;
    struct value *x = node_in(n, 0);
    if (x->type->rank < 1)
        return NULL;
    return axis == -1 || axis == x->type->rank - 1 ? x : NULL;
}

bool match_same(const struct value *a, const struct value *b)
{
    if (a == b)
        return a != NULL;
    const struct node *x = match_def(a, OP_Cast), *y = match_def(b, OP_Cast);
    return x && y && a->type == b->type && node_in(x, 0) == node_in(y, 0);
}

static bool add_factor(struct factors *f, struct value *v)
{
    if (f->n == NPUC_ARRAY_LEN(f->v))
        return false;
    f->v[f->n++] = v;
    return true;
}

/* x to a whole power of 2 or 3 as factors. */
static bool add_power(struct factors *f, struct value *v, bool *taken)
{
    const struct node *n = match_def(v, OP_Pow);
    double e;
    *taken = n && match_scalar(node_in(n, 1), &e) && (e == 2.0 || e == 3.0) && node_in(n, 0)->type == v->type;
    for (int i = 0; *taken && i < (int)e; i++)
        if (!add_factor(f, node_in(n, 0)))
            return false;
    return true;
}

bool match_factors(struct value *v, const struct value *whole, struct factors *f)
{
    struct value *open[8] = {v}; /* not yet taken apart */
    int n_open = 1;
    *f = (struct factors){.c = 1.0};
    while (n_open > 0) {
        struct value *x = open[--n_open];
        const struct node *mul = x == whole ? NULL : match_def(x, OP_Mul);
        double c;
        bool taken = false;
        if (x != whole && match_scalar(x, &c)) {
            f->c *= c;
            continue;
        }
        if (x != whole && match_with_scalar(x, OP_Div, &open[n_open], &c) && c != 0.0) {
            f->c /= c;
            n_open++;
            continue;
        }
        if (x != whole && !add_power(f, x, &taken))
            return false;
        if (taken)
            continue;
        if (mul && n_open + 2 > (int)NPUC_ARRAY_LEN(open))
            return false;
        if (!mul && !add_factor(f, x))
            return false;
        for (int i = 0; mul && i < 2; i++)
            open[n_open++] = node_in(mul, i);
    }
    return true;
}

/* Erased nodes have no graph. */
static bool is_idle(const struct node *n)
{
    if (!n->graph)
        return false;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i].uses)
            return false;
    return !op_has((enum op)n->op, T_SIDE_EFFECT);
}

/* n goes, then what only n used; `made` is told to come from them. */
static int64_t absorb(struct pass_ctx *px, struct node *n, struct node *made, int depth)
{
    struct value **in = ARENA_ARRAY(&px->arena, struct value *, n->n_in + 1);
    for (int i = 0; i < n->n_in; i++)
        in[i] = node_in(n, i);
    const int n_in = n->n_in;
    int64_t gone = n->op != OP_Constant;
    if (gone)
        made->loc = ir_merge_loc(px->m, made->loc, n->loc);
    ir_erase(n);
    n->graph = NULL;
    for (int i = 0; i < n_in && depth < 64; i++)
        if (in[i] && in[i]->def && in[i]->def != made && is_idle(in[i]->def))
            gone += absorb(px, in[i]->def, made, depth + 1);
    return gone;
}

int64_t match_replace(struct pass_ctx *px, struct node *n, struct node *made)
{
    ir_replace_all(&n->out[0], &made->out[0]);
    return absorb(px, n, made, 0);
}

#define MAX_MOVES 6

/* Operators of vector regions, which cast while they read (fuse_vector). */
static bool is_vector(const struct node *n)
{
    const enum op_class cls = op_table[n->op]->cls;
    return cls == CLS_ELEMENTWISE || cls == CLS_REDUCE || cls == CLS_NORM || n->op == OP_Fused;
}

static bool read_apart(const struct value *v, bool caller, int depth)
{
    if (!v->uses || depth > MAX_MOVES)
        return false;
    for_each_use (u, v) {
        const struct node *n = u->user;
        const bool moves = n->op == OP_Transpose || (op_has((enum op)n->op, T_VIEW) && u == &n->in[0]);
        if (moves ? !read_apart(&n->out[0], caller, depth + 1) : caller ? n->op != OP_Yield : is_vector(n))
            return false;
    }
    return true;
}

bool match_apart(const struct value *v)
{
    return read_apart(v, false, 0);
}

bool match_leaves(const struct value *v)
{
    return read_apart(v, true, 0);
}
