/* Shared parts of the infer, fold and cost hooks; see infer.h. */
#include "ir/ops/infer.h"

#include "base/size.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool infer_has(const struct node *n, int i)
{
    const struct value *v = node_in(n, i);
    return v && v->type && v->type->kind != TYPE_NONE;
}

enum npuc_status infer_begin(struct ir_ctx *cx, const struct node *n)
{
    const struct op_def *d = op_table[n->op];
    if (d->max_in >= 0 && n->n_in > d->max_in)
        return node_error(cx, n, D_ARITY, "%s has %d inputs, expected at most %d", d->name, n->n_in, d->max_in);
    for (int i = 0; i < n->n_in || i < d->min_in; i++) {
        if (!infer_has(n, i)) {
            if (i < d->min_in || d->max_in < 0)
                return node_error(cx, n, D_ARITY, "input %d of %s is missing, expected at least %d inputs", i, d->name,
                                  d->min_in);
            continue;
        }
        if (n->in[i].value->type->kind != TYPE_TENSOR)
            return node_error(cx, n, D_TYPE_MISMATCH,
                              "input %d of %s is a sequence or optional value, expected a tensor", i, d->name);
    }
    return NPUC_OK;
}

struct shape infer_shape(const struct node *n, int i)
{
    struct shape s = SHAPE_UNKNOWN;
    if (!infer_has(n, i) || n->in[i].value->type->kind != TYPE_TENSOR)
        return s;
    const struct type *t = n->in[i].value->type;
    s.rank = t->rank;
    for (int k = 0; k < t->rank; k++)
        s.d[k] = t->dims[k];
    return s;
}

enum dtype infer_dtype(const struct node *n, int i)
{
    return infer_has(n, i) ? n->in[i].value->type->dtype : DT_NONE;
}

enum npuc_status infer_rank_error(struct ir_ctx *cx, const struct node *n, int i, const char *expected)
{
    return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has type %s, expected %s", i,
                      type_text(cx, n->in[i].value->type), expected);
}

enum npuc_status infer_same_dtype(struct ir_ctx *cx, const struct node *n, int a, int b)
{
    if (!infer_has(n, a) || !infer_has(n, b) || infer_dtype(n, a) == infer_dtype(n, b))
        return NPUC_OK;
    return node_error(cx, n, D_TYPE_MISMATCH, "input %d has element type %s, expected %s as input %d has", b,
                      dtype_table[infer_dtype(n, b)].name, dtype_table[infer_dtype(n, a)].name, a);
}

enum npuc_status infer_dtype_is(struct ir_ctx *cx, const struct node *n, int i, enum dtype a, enum dtype b)
{
    const enum dtype t = infer_dtype(n, i);
    if (t == DT_NONE || t == a || t == b)
        return NPUC_OK;
    if (a == b)
        return node_error(cx, n, D_TYPE_MISMATCH, "input %d has element type %s, expected %s", i, dtype_table[t].name,
                          dtype_table[a].name);
    return node_error(cx, n, D_TYPE_MISMATCH, "input %d has element type %s, expected %s or %s", i, dtype_table[t].name,
                      dtype_table[a].name, dtype_table[b].name);
}

enum npuc_status infer_is_factor(struct ir_ctx *cx, const struct node *n, int i)
{
    return infer_dtype(n, i) == DT_I16 ? NPUC_OK : infer_dtype_is(cx, n, i, DT_I8, DT_U8);
}

enum npuc_status infer_is_float(struct ir_ctx *cx, const struct node *n, int i)
{
    const enum dtype t = infer_dtype(n, i);
    if (t == DT_NONE || dtype_is_float(t))
        return NPUC_OK;
    return node_error(cx, n, D_TYPE_MISMATCH, "input %d has element type %s, expected a float type", i,
                      dtype_table[t].name);
}

bool infer_wants(const struct node *n, int i)
{
    return i < n->n_out;
}

/* No machine in sight holds a tensor of a tebibyte; such sizes are mistakes or attacks. */
#define MAX_TENSOR_BITS ((int64_t)1 << 43)

static bool is_too_large(struct ir_ctx *cx, enum dtype t, const struct shape *s)
{
    int64_t bits = dtype_table[t].bits > 0 ? dtype_table[t].bits : 64, d;
    bool over = false;
    for (int k = 0; k < s->rank; k++) {
        if (!expr_is_const(&cx->exprs, s->d[k], &d))
            d = expr_range_of(&cx->exprs, s->d[k]).min > 0 ? 1 : 0; /* an open size may be the smallest */
        if (d == 0)
            return false;
        over = over || !size_mul(bits, d, &bits) || bits > MAX_TENSOR_BITS;
        bits = over ? 1 : bits;
    }
    return over;
}

enum npuc_status infer_out(struct ir_ctx *cx, struct node *n, int i, enum dtype t, const struct shape *s)
{
    if (!infer_wants(n, i))
        return NPUC_OK;
    for (int k = 0; k < s->rank; k++)
        if (s->d[k] == EXPR_INVALID)
            return node_error(cx, n, D_LIMIT, "size of axis %d of output %d does not fit in 64 bits", k, i);
    if (is_too_large(cx, t, s))
        return node_error(cx, n, D_LIMIT, "output %d would be larger than 1 TiB: %s", i,
                          type_text(cx, type_tensor(cx, t, s->rank, s->d)));
    struct value *v = &n->out[i];
    const struct type *old = v->type;
    v->elems = NULL;
    v->n_elems = 0;
    if (old && old->kind == TYPE_TENSOR && old->dtype == t && old->rank == s->rank &&
        (s->rank <= 0 || memcmp(old->dims, s->d, sizeof(expr) * (size_t)s->rank) == 0))
        return NPUC_OK;
    v->type = type_tensor(cx, t, s->rank, s->d);
    return NPUC_OK;
}

enum npuc_status infer_out_unknown(struct ir_ctx *cx, struct node *n, int i, enum dtype t)
{
    /* A better type of an earlier run stays. */
    if (!infer_wants(n, i))
        return NPUC_OK;
    const struct type *old = n->out[i].type;
    if (old && old->kind == TYPE_TENSOR && old->dtype == t)
        return NPUC_OK;
    return infer_out(cx, n, i, t, &SHAPE_UNKNOWN);
}

enum npuc_status infer_out_shaped(struct ir_ctx *cx, struct node *n, int i, int k, enum dtype t)
{
    const struct shape s = infer_shape(n, k);
    return s.rank < 0 ? infer_out_unknown(cx, n, i, t) : infer_out(cx, n, i, t, &s);
}

enum npuc_status infer_out_like(struct ir_ctx *cx, struct node *n, int i, int k)
{
    const struct shape s = infer_shape(n, k);
    if (s.rank < 0)
        return infer_out_unknown(cx, n, i, infer_dtype(n, k));
    const enum npuc_status st = infer_out(cx, n, i, infer_dtype(n, k), &s);
    infer_pass_elems(cx, n, i, k);
    return st;
}

expr infer_fresh(struct ir_ctx *cx, const struct node *n, int i, int axis)
{
    const struct type *old = i < n->n_out ? n->out[i].type : NULL;
    if (old && old->kind == TYPE_TENSOR && axis < old->rank)
        return old->dims[axis];
    char name[32];
    do {
        snprintf(name, sizeof name, "_d%d", (int)cx->n_fresh++);
    } while (expr_symbol_find(&cx->exprs, str_internz(&cx->strings, name)) >= 0);
    const struct expr_range any_size = {.min = 0, .max = INT32_MAX, .multiple = 1};
    return expr_sym(&cx->exprs, expr_symbol_new(&cx->exprs, str_internz(&cx->strings, name), any_size));
}

struct shape infer_fresh_shape(struct ir_ctx *cx, const struct node *n, int i, int rank)
{
    struct shape s = {.rank = rank};
    for (int k = 0; k < rank; k++)
        s.d[k] = infer_fresh(cx, n, i, k);
    return s;
}

bool infer_tracks(enum dtype t)
{
    return t == DT_I64 || t == DT_I32 || t == DT_BOOL;
}

void infer_set_elems(struct ir_ctx *cx, struct node *n, int i, const expr *e, int64_t len)
{
    if (!infer_wants(n, i) || len < 0 || len > INFER_MAX_ELEMS || n->out[i].type->rank > 1 || n->out[i].type->rank < 0)
        return;
    bool any = len == 0;
    for (int64_t k = 0; k < len; k++)
        any |= e[k] != EXPR_INVALID;
    if (!any || !infer_tracks(n->out[i].type->dtype) || type_const_count(cx, n->out[i].type) != len)
        return;
    n->out[i].elems = arena_copy(&cx->arena, e, (len ? len : 1) * (int64_t)sizeof *e);
    n->out[i].n_elems = len;
}

bool infer_elems(struct ir_ctx *cx, const struct node *n, int i, expr *e, int64_t *len)
{
    if (!infer_has(n, i) || n->in[i].value->type->kind != TYPE_TENSOR)
        return false;
    *len = value_n_elems(cx, n->in[i].value);
    if (*len < 0 || *len > INFER_MAX_ELEMS)
        return false;
    for (int64_t k = 0; k < *len; k++)
        e[k] = value_elem(cx, n->in[i].value, k);
    return true;
}

void infer_pass_elems(struct ir_ctx *cx, struct node *n, int i, int k)
{
    expr e[INFER_MAX_ELEMS];
    int64_t len;
    if (!infer_tracks(infer_dtype(n, k)) || !infer_wants(n, i) || n->out[i].type->rank > 1)
        return;
    if (infer_elems(cx, n, k, e, &len) || (infer_has(n, k) && infer_follow(cx, n->in[k].value, e, &len)))
        infer_set_elems(cx, n, i, e, len);
}

bool infer_ints(struct ir_ctx *cx, const struct node *n, int i, int64_t *v, int64_t *len)
{
    expr e[INFER_MAX_ELEMS];
    if (!infer_elems(cx, n, i, e, len))
        return false;
    for (int64_t k = 0; k < *len; k++)
        if (!e[k] || !expr_is_const(&cx->exprs, e[k], &v[k]))
            return false;
    return true;
}

int64_t infer_len(struct ir_ctx *cx, const struct node *n, int i)
{
    const struct shape s = infer_shape(n, i);
    int64_t len;
    return s.rank == 0 ? 1 : s.rank == 1 && expr_is_const(&cx->exprs, s.d[0], &len) ? len : -1;
}

enum npuc_status infer_axis(struct ir_ctx *cx, const struct node *n, const char *what, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return node_error(cx, n, D_SHAPE_MISMATCH, "%s is %lld, expected %d..%d for rank %d", what, (long long)axis,
                          -rank, rank - 1, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return NPUC_OK;
}

enum npuc_status infer_axis_attr(struct ir_ctx *cx, const struct node *n, const char *attr, int rank, int *out)
{
    return infer_axis(cx, n, attr, node_attr_int(n, attr, 0), rank, out);
}

enum npuc_status infer_dtype_attr(struct ir_ctx *cx, const struct node *n, const char *attr, enum dtype otherwise,
                                  enum dtype *out)
{
    const int64_t number = node_attr_int(n, attr, 0);
    *out = number == 0 ? otherwise : dtype_from_onnx(number);
    if (*out == DT_NONE)
        return node_error(cx, n, D_ATTRIBUTE, "attribute '%s' is %lld, expected the number of an ONNX element type",
                          attr, (long long)number);
    return NPUC_OK;
}

bool infer_attr_is(struct ir_ctx *cx, const struct node *n, const char *attr, const char *value)
{
    return strcmp(str_text(&cx->strings, node_attr_str(n, attr, 0)), value) == 0;
}

enum npuc_status infer_attr_in(struct ir_ctx *cx, const struct node *n, const char *attr, const char *words)
{
    const char *s = str_text(&cx->strings, node_attr_str(n, attr, 0));
    const size_t len = strlen(s);
    for (const char *w = words; len && *w; w += strcspn(w, " "), w += *w == ' ')
        if (strncmp(w, s, len) == 0 && (w[len] == ' ' || w[len] == 0))
            return NPUC_OK;
    return node_error(cx, n, D_ATTRIBUTE, "attribute '%s' is '%s', expected one of: %s", attr,
                      str_escape(&cx->scratch, s, (int64_t)len, 60), words);
}

struct value *same_type_fold(struct ir_ctx *cx, struct node *n)
{
    (void)cx;
    struct value *x = node_in(n, 0);
    if (!x || !n->out[0].type || x->type != n->out[0].type || x->type->rank < 0)
        return NULL;
    return x;
}

bool infer_const_is(const struct value *v, double x)
{
    if (!v || !v->type || !value_const(v) || v->type->rank < 0)
        return false;
    const int64_t count = type_const_count(v->graph->module->cx, v->type);
    for (int64_t i = 0; i < count; i++) {
        double e;
        if (i >= 4096 || !value_const_f64(v, i, &e) || e != x || (signbit(e) != 0) != (signbit(x) != 0))
            return false;
    }
    return count > 0;
}

double cost_dim(struct ir_ctx *cx, const struct value *v, int axis, const int64_t *symbols)
{
    int64_t d;
    if (!v || v->type->kind != TYPE_TENSOR)
        return 0;
    if (axis < 0)
        axis += v->type->rank;
    if (axis < 0 || axis >= v->type->rank || !expr_eval(&cx->exprs, v->type->dims[axis], symbols, &d))
        return 1;
    return (double)d;
}

double cost_count(struct ir_ctx *cx, const struct value *v, const int64_t *symbols)
{
    if (!v || !v->type || v->type->kind != TYPE_TENSOR)
        return 0;
    double n = 1;
    for (int i = 0; i < v->type->rank; i++)
        n *= cost_dim(cx, v, i, symbols);
    return n;
}

void cost_bytes(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    *c = (struct cost){0};
    for (int i = 0; i < n->n_in; i++)
        if (infer_has(n, i))
            c->bytes_in += cost_count(cx, n->in[i].value, symbols) * dtype_table[infer_dtype(n, i)].bits / 8;
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i))
            c->bytes_out += cost_count(cx, &n->out[i], symbols) * dtype_table[n->out[i].type->dtype].bits / 8;
}
