#include "tools/rewrite/verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "ir/eval.h"
#include "tools/assume.h"

/* ---- random inputs ---- */

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545F4914F6CDD1Du >> 11; /* 53 bits */
}

static bool passes_on(enum op op)
{
    return op == OP_Cast || op == OP_Identity || op == OP_Reshape || op == OP_Squeeze || op == OP_Unsqueeze ||
           op == OP_Transpose || op == OP_Slice || op == OP_Expand;
}

/* Integers are drawn from [0, this): rows of a table that they index, else 2, which masks, indices and sizes can be. */
static int64_t integer_range(const struct ir_ctx *cx, const struct value *v, int depth)
{
    int64_t range = 0;
    for_each_use (u, v) {
        const struct node *n = u->user;
        int64_t here = 0;
        if (n->op == OP_Gather && node_in(n, 1) == v && n->in[0].value->type->rank > 0) {
            const struct type *t = n->in[0].value->type;
            const int64_t axis = node_attr_int(n, "axis", 0);
            expr_is_const(&cx->exprs, t->dims[axis < 0 ? axis + t->rank : axis], &here);
        } else if (depth > 0 && passes_on((enum op)n->op) && node_in(n, 0) == v) {
            here = integer_range(cx, &n->out[0], depth - 1);
        }
        range = here > 0 && (range == 0 || here < range) ? here : range;
    }
    return range;
}

static void fill(const struct ir_ctx *cx, const struct value *v, struct k_tensor *t, uint64_t seed)
{
    uint64_t state = seed * 0x9E3779B97F4A7C15u + v->id + 1;
    const int64_t n = k_count(t), known = integer_range(cx, v, 4), range = known > 0 ? known : 2;
    for (int64_t i = 0; i < n; i++) {
        const uint64_t r = next(&state);
        if (dtype_is_float(t->dtype))
            k_set_f64(t, i, (double)r * 0x1p-52 - 1);
        else
            k_set_i64(t, i, (int64_t)(r % (uint64_t)(t->dtype == DT_BOOL ? 2 : range)));
    }
}

/* false: an input has no plain tensor type, or its size exceeds what memory holds. */
static bool make_input(const struct ir_ctx *cx, const struct value *v, const int64_t *symbols, uint64_t seed,
                       struct arena *a, struct k_tensor *t)
{
    const struct type *y = v->type;
    const enum dtype_class c = dtype_table[y->dtype].cls;
    *t = (struct k_tensor){.dtype = y->dtype, .rank = y->rank};
    if (y->kind != TYPE_TENSOR || y->rank < 0 || c == DTC_TEXT || c == DTC_COMPLEX)
        return false;
    int64_t n = 1;
    for (int i = 0; i < y->rank; i++)
        if (!expr_eval(&cx->exprs, y->dims[i], symbols, &t->dims[i]) || !size_mul(n, t->dims[i], &n))
            return false;
    if (!dtype_bytes(y->dtype, n, &t->size) || t->size > INT64_C(1) << 31)
        return false;
    t->data = arena_zalloc(a, t->size + 1);
    fill(cx, v, t, seed);
    return true;
}

/* What a model needs of its sizes is not known: the first of these that it runs with. Small ones come first, so that a
 * comparison takes no minutes; images must often be multiples of what their network divides them by. */
static const struct attempt {
    int64_t most, multiple;
} attempts[] = {{32, 1}, {32, 32}, {224, 32}, {INT32_MAX, 1}};

/* Sizes of open dimensions: what their names say, within the attempt's limits and their ranges. */
static const int64_t *choose_sizes(const struct graph *g, const struct attempt *t, struct arena *a)
{
    const struct ir_ctx *cx = g->module->cx;
    int64_t *v = ARENA_ARRAY(a, int64_t, cx->exprs.symbols.len + 1);
    for (int64_t i = 0; i < cx->exprs.symbols.len; i++) {
        const struct expr_symbol *y = &cx->exprs.symbols.data[i];
        const char *name = str_text(&cx->strings, y->name);
        const int64_t most = y->range.max < t->most ? y->range.max : t->most;
        const int64_t size = assume_size(name, y->range.min, most < y->range.min ? y->range.min : most, 1);
        const int64_t multiple = y->range.multiple > 1 || size == 1 ? y->range.multiple : t->multiple;
        v[i] = multiple > 1 ? (size + multiple - 1) / multiple * multiple : size;
        if (v[i] > y->range.max)
            v[i] = size;
    }
    return v;
}

static const char *sizes_text(const struct graph *g, const int64_t *symbols, struct arena *a)
{
    const struct ir_ctx *cx = g->module->cx;
    const char *text = "";
    for (int32_t s = 0; s < (int32_t)cx->exprs.symbols.len; s++) {
        bool used = false;
        for (int32_t i = 0; i < g->n_inputs && !used; i++)
            for (int k = 0; g->inputs[i]->type->kind == TYPE_TENSOR && k < g->inputs[i]->type->rank; k++)
                used = used || expr_uses_symbol(&cx->exprs, g->inputs[i]->type->dims[k], s);
        if (used)
            text = arena_printf(a, "%s%s%s = %lld", text, *text ? ", " : "",
                                str_text(&cx->strings, cx->exprs.symbols.data[s].name), (long long)symbols[s]);
    }
    return text;
}

/* ---- evaluation ---- */

static void keep_line(void *user, const char *line)
{
    snprintf(user, 1024, "%s", line);
}

/* Messages of an attempt are kept, not printed. */
static enum npuc_status quiet_eval(const struct graph *g, const struct k_tensor *in, struct k_tensor *out,
                                   struct arena *a, char line[1024])
{
    struct ir_ctx *cx = g->module->cx;
    struct diag *kept = cx->diag, quiet;
    diag_init(&quiet, keep_line, line);
    cx->diag = &quiet;
    const enum npuc_status s = ir_eval(cx, g, in, out, a);
    cx->diag = kept;
    return s;
}

/* ---- comparison ---- */

double verify_tolerance(enum dtype t, bool exact)
{
    if (exact)
        return 0;
    return t == DT_F32 || t == DT_F64 ? 1e-5 : t == DT_F16 ? 0x1p-9 : t == DT_BF16 ? 0x1p-6 : 0;
}

static bool same_text(const struct k_tensor *x, const struct k_tensor *y)
{
    const struct k_string *s = x->data, *t = y->data;
    for (int64_t i = 0; i < k_count(x); i++)
        if (s[i].len != t[i].len || memcmp(s[i].text, t[i].text, (size_t)s[i].len) != 0)
            return false;
    return true;
}

static bool same_shape(const struct k_tensor *x, const struct k_tensor *y)
{
    return x->kind == y->kind && x->dtype == y->dtype && x->rank == y->rank &&
           memcmp(x->dims, y->dims, sizeof *x->dims * (size_t)x->rank) == 0;
}

static bool same_floats(const struct k_tensor *x, const struct k_tensor *y, bool exact, struct verification *v)
{
    double scale = 0, most = 0;
    for (int64_t i = 0; i < k_count(x); i++) {
        const double p = k_get_f64(x, i), q = k_get_f64(y, i);
        if (isfinite(p))
            scale = fmax(scale, fabs(p));
        if (p != q && !(isnan(p) && isnan(q)))
            most = fmax(most, isfinite(p) && isfinite(q) ? fabs(p - q) : (double)INFINITY);
    }
    const double rel = most == 0   ? 0
                       : scale > 0 ? most / scale
                                   : (double)INFINITY,
                 allowed = verify_tolerance(x->dtype, exact);
    v->abs = fmax(v->abs, most);
    if (rel >= v->rel) {
        v->rel = rel;
        v->tolerance = allowed;
    }
    return rel <= allowed;
}

static bool same(const struct k_tensor *x, const struct k_tensor *y, bool exact, struct verification *v)
{
    if (!same_shape(x, y))
        return false;
    if (x->kind != K_TENSOR) {
        const struct k_tensor *p = x->data, *q = y->data;
        for (int64_t i = 0; i < x->dims[0]; i++)
            if (!same(&p[i], &q[i], exact, v))
                return false;
        return true;
    }
    if (x->dtype == DT_STRING)
        return same_text(x, y);
    if (dtype_is_float(x->dtype))
        return same_floats(x, y, exact, v);
    return x->size == y->size && (x->size == 0 || memcmp(x->data, y->data, (size_t)x->size) == 0);
}

/* ---- one set, all sets ---- */

struct pair {
    const struct graph *before, *after;
    bool exact;
    struct arena *text;
};
enum outcome { SAME, DIFFERENT /* or no sizes would help */, NOT_RUN };

static enum outcome compare_set(const struct pair *p, uint64_t seed, const int64_t *symbols, struct arena *a,
                                struct verification *v)
{
    const int32_t n_in = p->before->n_inputs, n_out = graph_yield(p->before)->n_in;
    struct k_tensor *in = ARENA_ARRAY(a, struct k_tensor, n_in + 1);
    struct k_tensor *x = ARENA_ARRAY(a, struct k_tensor, n_out + 1), *y = ARENA_ARRAY(a, struct k_tensor, n_out + 1);
    const struct ir_ctx *cx = p->before->module->cx;
    char line[1024] = "";
    for (int32_t i = 0; i < n_in; i++)
        if (!make_input(cx, p->before->inputs[i], symbols, seed, a, &in[i])) {
            v->failure = arena_printf(p->text, "no input can be made up for '%s'",
                                      str_text(&cx->strings, p->before->inputs[i]->name));
            return NOT_RUN;
        }
    const enum npuc_status s = quiet_eval(p->before, in, x, a, line);
    if (s != NPUC_OK) {
        v->failure = arena_printf(p->text, "the model cannot be run on random inputs: %s", line);
        return s == NPUC_E_LIMIT ? DIFFERENT : NOT_RUN;
    }
    if (quiet_eval(p->after, in, y, a, line) != NPUC_OK) {
        v->failure = arena_printf(p->text, "the rewritten model fails: %s", line);
        return DIFFERENT;
    }
    for (int32_t i = 0; i < n_out; i++)
        if (!same(&x[i], &y[i], p->exact, v)) {
            v->failure = arena_printf(p->text, "output '%s' differs by up to %.3g, relative %.3g, allowed %.3g",
                                      str_text(&cx->strings, graph_yield(p->before)->in[i].value->name), v->abs, v->rel,
                                      v->tolerance);
            return DIFFERENT;
        }
    return SAME;
}

bool verify_same(const struct graph *before, const struct graph *after, bool exact, struct arena *a,
                 struct verification *v)
{
    const struct pair p = {before, after, exact, a};
    struct arena scratch;
    arena_init(&scratch, NULL);
    scratch.on_oom = before->module->cx->arena.on_oom;
    enum outcome o = NOT_RUN;
    for (size_t k = 0; k < NPUC_ARRAY_LEN(attempts) && o == NOT_RUN; k++) {
        const int64_t *symbols = choose_sizes(before, &attempts[k], a);
        *v = (struct verification){.tolerance = verify_tolerance(DT_F32, exact),
                                   .sizes = sizes_text(before, symbols, a)};
        o = SAME;
        for (int seed = 1; seed <= VERIFY_SETS && o == SAME; seed++) {
            o = compare_set(&p, (uint64_t)seed, symbols, &scratch, v);
            v->sets += o == SAME;
            arena_free(&scratch);
        }
    }
    arena_free(&scratch);
    return o == SAME;
}
