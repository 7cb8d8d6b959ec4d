/* Binding: symbols from the shapes of inputs, then the value of every expression of the plan.
 *
 * A dimension that is a symbol gives it directly; then sums with one unknown symbol are solved, until nothing changes;
 * at last every dimension of every given input is compared with what its expression says. */
#include "runtime/rt.h"

#include "base/size.h"

#include <string.h>

/* ---- expressions: operands precede their users, so one pass in order evaluates all ---- */

static bool eval_terms(const npurt_session *s, const struct expr_node *n, int64_t *out)
{
    int64_t acc = n->op == EXPR_SUM ? n->value : 1;
    for (int32_t i = 0; i < n->n; i++) {
        int64_t x = s->value[n->arg[i]];
        if (n->op == EXPR_SUM ? __builtin_mul_overflow(x, n->coef[i], &x) || __builtin_add_overflow(acc, x, &acc)
                              : __builtin_mul_overflow(acc, x, &acc))
            return false;
    }
    *out = acc;
    return true;
}

static bool divide(enum expr_op op, int64_t a, int64_t b, int64_t *out)
{
    if (b == 0 || (a == INT64_MIN && b == -1))
        return false;
    const int64_t q = a / b, r = a % b;
    const bool adjust = r != 0 && (r < 0) != (b < 0);
    *out = op == EXPR_FLOORDIV ? q - adjust : adjust ? r + b : r;
    return true;
}

static bool eval_node(const npurt_session *s, const struct expr_node *n, int64_t *out)
{
    const int64_t a = n->n > 0 ? s->value[n->arg[0]] : 0, b = n->n > 1 ? s->value[n->arg[1]] : 0;
    switch ((enum expr_op)n->op) {
    case EXPR_CONST: *out = n->value; return true;
    case EXPR_SYM: *out = s->symbol[n->value]; return s->symbol_known[n->value];
    case EXPR_SUM:
    case EXPR_PROD: return eval_terms(s, n, out);
    case EXPR_FLOORDIV:
    case EXPR_MOD: return divide((enum expr_op)n->op, a, b, out);
    case EXPR_MIN: *out = a < b ? a : b; return true;
    case EXPR_MAX: *out = a > b ? a : b; return true;
    case EXPR_EQ: *out = a == b; return true;
    case EXPR_LT: *out = a < b; return true;
    case EXPR_LE: *out = a <= b; return true;
    case EXPR_SELECT: break; /* evaluated by the caller: one branch may be unknown */
    }
    return false;
}

static bool operands_known(const npurt_session *s, const struct expr_node *n)
{
    for (int32_t i = 0; n->op != EXPR_CONST && n->op != EXPR_SYM && i < n->n; i++)
        if (!s->value_known[n->arg[i]])
            return false;
    return true;
}

static void evaluate(npurt_session *s, expr e)
{
    const struct expr_node *n = &s->plan->exprs.nodes.data[e];
    if (n->op == EXPR_SELECT) {
        const bool cond = s->value_known[n->arg[0]];
        const expr branch = cond ? n->arg[s->value[n->arg[0]] != 0 ? 1 : 2] : EXPR_INVALID;
        s->value_known[e] = cond && s->value_known[branch];
        s->value[e] = s->value[branch];
        return;
    }
    s->value_known[e] = operands_known(s, n) && eval_node(s, n, &s->value[e]);
}

void rt_evaluate(npurt_session *s)
{
    for (int64_t e = 1; e < s->plan->exprs.nodes.len; e++)
        evaluate(s, (expr)e);
}

bool rt_value(const npurt_session *s, expr e, int64_t *out)
{
    if (e <= 0 || e >= s->plan->exprs.nodes.len || !s->value_known[e])
        return false;
    *out = s->value[e];
    return true;
}

bool rt_dims(const npurt_session *s, const struct plan_tensor *t, int64_t *dims)
{
    for (int32_t i = 0; i < t->rank; i++)
        if (i >= NPURT_MAX_RANK || !rt_value(s, t->dims[i], &dims[i]) || dims[i] < 0)
            return false;
    return t->rank <= NPURT_MAX_RANK;
}

/* ---- symbols that steps bind ---- */

static bool uses_marked(const struct expr_node *n, const bool *marked, int32_t symbol)
{
    if (n->op == EXPR_CONST || n->op == EXPR_SYM)
        return n->op == EXPR_SYM && n->value == symbol;
    for (int32_t i = 0; i < n->n; i++)
        if (marked[n->arg[i]])
            return true;
    return false;
}

/* Found once per symbol: a loop binds its symbols again in every turn. */
static const struct rt_dependents *dependents_of(npurt_session *s, int32_t symbol)
{
    const struct expr_pool *p = &s->plan->exprs;
    if (s->dependents[symbol])
        return s->dependents[symbol];
    const struct arena_mark mark = arena_mark(&s->scratch);
    bool *marked = ARENA_ARRAY(&s->scratch, bool, p->nodes.len + 1);
    expr *exprs = ARENA_ARRAY(&s->scratch, expr, p->nodes.len + 1);
    int32_t *tensors = ARENA_ARRAY(&s->scratch, int32_t, s->plan->tensors.len + 1);
    struct rt_dependents d = {0}, *out = ARENA_NEW(&s->arena, struct rt_dependents);
    if (marked && exprs && tensors && out) {
        for (int64_t e = 1; e < p->nodes.len; e++)
            if ((marked[e] = uses_marked(&p->nodes.data[e], marked, symbol)))
                exprs[d.n_exprs++] = (expr)e;
        for (int64_t i = 0; i < s->plan->tensors.len; i++) {
            const struct plan_tensor *t = &s->plan->tensors.data[i];
            if (marked[t->size] || (t->kind == PT_ALIAS && marked[t->base_offset]))
                tensors[d.n_tensors++] = (int32_t)i;
        }
        d.exprs = arena_copy(&s->arena, exprs, d.n_exprs * (int64_t)sizeof *exprs);
        d.tensors = arena_copy(&s->arena, tensors, d.n_tensors * (int64_t)sizeof *tensors);
        *out = d;
        s->dependents[symbol] = out;
    }
    arena_release(&s->scratch, mark);
    return s->dependents[symbol];
}

enum npuc_status rt_rebind(npurt_session *s, int32_t symbol, int64_t value, const char *what)
{
    const struct expr_symbol *y = &s->plan->exprs.symbols.data[symbol];
    if (value < y->range.min || value > y->range.max)
        return rt_fail(s, D_RUN_FAULT, "%s makes %s = %lld, which the plan was not compiled for", what,
                       rt_name(s, y->name), (long long)value);
    if (s->symbol_known[symbol] && s->symbol[symbol] == value)
        return NPUC_OK;
    s->symbol[symbol] = value;
    s->symbol_known[symbol] = true;
    const struct rt_dependents *d = dependents_of(s, symbol);
    if (!d || (d->n_exprs && !d->exprs) || (d->n_tensors && !d->tensors))
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    for (int32_t i = 0; i < d->n_exprs; i++)
        evaluate(s, d->exprs[i]);
    for (int32_t i = 0; i < d->n_tensors; i++)
        s->tensors[d->tensors[i]].known = false;
    return NPUC_OK;
}

/* ---- symbols of inputs ---- */

static const char *text_of(npurt_session *s, expr e)
{
    return expr_text(&s->plan->exprs, e, &s->scratch);
}

static const char *range_text(npurt_session *s, struct expr_range r)
{
    if (r.min == r.max)
        return arena_printf(&s->scratch, "%lld", (long long)r.min);
    return r.max == INT64_MAX ? arena_printf(&s->scratch, "%lld and more", (long long)r.min)
                              : arena_printf(&s->scratch, "%lld..%lld", (long long)r.min, (long long)r.max);
}

static enum npuc_status learn(npurt_session *s, int64_t symbol, int64_t value, const char *where)
{
    const struct expr_symbol *y = &s->plan->exprs.symbols.data[symbol];
    const char *gears = rt_is_gear(s, symbol, value) ? NULL : rt_gears_text(s, symbol);
    if (gears)
        return rt_fail(s, D_INPUT_BINDING,
                       "%s makes %s = %lld, but the plan has gears for %s = %s: pad to one of them or compile for this "
                       "size",
                       where, rt_name(s, y->name), (long long)value, rt_name(s, y->name), gears);
    if (value < y->range.min || value > y->range.max)
        return rt_fail(s, D_INPUT_BINDING, "%s makes %s = %lld, but the plan was compiled for %s", where,
                       rt_name(s, y->name), (long long)value, range_text(s, y->range));
    if (y->range.multiple > 1 && value % y->range.multiple != 0)
        return rt_fail(s, D_INPUT_BINDING, "%s makes %s = %lld, but the plan was compiled for multiples of %lld", where,
                       rt_name(s, y->name), (long long)value, (long long)y->range.multiple);
    s->symbol[symbol] = value;
    s->symbol_known[symbol] = true;
    s->told_by[symbol] = s->telling;
    return NPUC_OK;
}

/* A dimension of an input as the model says it. */
static expr dim_of(const npurt_session *s, int32_t input, int32_t axis)
{
    const struct plan_shape *shape = s->entry->shapes ? &s->entry->shapes[input] : NULL;
    return shape && shape->n ? shape->dims[axis] : s->plan->tensors.data[s->entry->inputs[input]].dims[axis];
}

static const char *axis_text(npurt_session *s, int32_t input, int32_t axis)
{
    const struct plan_tensor *t = &s->plan->tensors.data[s->entry->inputs[input]];
    return arena_printf(&s->scratch, "input '%s' (axis %d, %s)", rt_name(s, t->name), axis,
                        text_of(s, dim_of(s, input, axis)));
}

/* A dimension e that is `value`: the one unknown symbol in it, if it can be told. */
static enum npuc_status solve(npurt_session *s, expr e, int64_t value, const char *where, bool *changed)
{
    const struct expr_node *n = &s->plan->exprs.nodes.data[e];
    if (n->op == EXPR_SYM && !s->symbol_known[n->value]) {
        *changed = true;
        return learn(s, n->value, value, where);
    }
    if (n->op != EXPR_SUM)
        return NPUC_OK;
    int64_t rest = n->value, unknown = -1;
    for (int32_t i = 0; i < n->n; i++) {
        int64_t x = s->value[n->arg[i]];
        if (!s->value_known[n->arg[i]]) {
            if (unknown >= 0 || s->plan->exprs.nodes.data[n->arg[i]].op != EXPR_SYM)
                return NPUC_OK;
            unknown = i;
        } else if (__builtin_mul_overflow(x, n->coef[i], &x) || __builtin_add_overflow(rest, x, &rest)) {
            return NPUC_OK;
        }
    }
    int64_t left;
    if (unknown < 0 || __builtin_sub_overflow(value, rest, &left) || left % n->coef[unknown] != 0)
        return NPUC_OK; /* known anyway, or a contradiction that the comparison will report */
    *changed = true;
    return learn(s, s->plan->exprs.nodes.data[n->arg[unknown]].value, left / n->coef[unknown], where);
}

static bool is_empty(const struct rt_input *in)
{
    for (int k = 0; in->set && k < in->rank; k++)
        if (in->dims[k] == 0)
            return true;
    return false;
}

/* One round over the given inputs; only_symbols: dimensions that are a symbol alone. Inputs without elements tell what
 * the others leave open: decoders with a branch for the first step take empty caches there, whatever the sizes. */
static enum npuc_status learn_from_inputs(npurt_session *s, bool only_symbols, bool empty, bool *changed)
{
    const struct expr_pool *p = &s->plan->exprs;
    for (int32_t i = 0; i < s->entry->n_inputs; i++) {
        if (is_empty(&s->inputs[i]) != empty)
            continue;
        const struct plan_tensor *t = &s->plan->tensors.data[s->entry->inputs[i]];
        for (int32_t k = 0; s->inputs[i].set && k < t->rank; k++) {
            const expr dim = dim_of(s, i, k);
            const struct expr_node *n = &p->nodes.data[dim];
            if (n->op == EXPR_CONST || (only_symbols && n->op != EXPR_SYM) ||
                (n->op == EXPR_SYM && s->symbol_known[n->value]))
                continue;
            s->telling = i;
            const enum npuc_status st = solve(s, dim, s->inputs[i].dims[k], axis_text(s, i, k), changed);
            s->telling = -1;
            if (st != NPUC_OK)
                return st;
        }
    }
    return NPUC_OK;
}

static int32_t input_of_cache(const npurt_session *s, const struct plan_cache *c)
{
    for (int32_t i = 0; i < s->entry->n_inputs; i++)
        if (s->plan->tensors.data[s->entry->inputs[i]].name == c->input)
            return i;
    return -1;
}

static enum npuc_status learn_from_caches(npurt_session *s, bool *changed)
{
    for (int32_t i = 0; i < s->entry->n_caches; i++) {
        const struct plan_cache *c = &s->entry->caches[i];
        const int32_t input = input_of_cache(s, c);
        if (!c->input || (input >= 0 && s->inputs[input].set) || !c->grows || c->past == EXPR_INVALID)
            continue;
        const enum npuc_status st = solve(s, c->past, s->cache_length, "the length of the cache", changed);
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

static enum npuc_status learn_symbols(npurt_session *s)
{
    enum npuc_status st = NPUC_OK;
    bool changed = false;
    for (int64_t i = 0; st == NPUC_OK && i < s->plan->exprs.symbols.len; i++) {
        s->symbol_known[i] = false;
        s->symbol[i] = s->told_by[i] = -1;
        const struct expr_range r = s->plan->exprs.symbols.data[i].range;
        if (s->user_symbol[i] >= 0) {
            st = learn(s, i, s->user_symbol[i], "the option");
        } else if (r.min == r.max) { /* the model leaves no other size */
            s->symbol[i] = r.min;
            s->symbol_known[i] = true;
        }
    }
    rt_learn_fixed(s);
    for (int empty = 0; st == NPUC_OK && empty < 2; empty++)
        st = learn_from_inputs(s, true, empty, &changed);
    rt_evaluate(s);
    if (st == NPUC_OK)
        st = learn_from_caches(s, &changed);
    do {
        changed = false;
        rt_evaluate(s);
        for (int empty = 0; st == NPUC_OK && empty < 2; empty++)
            st = learn_from_inputs(s, false, empty, &changed);
    } while (st == NPUC_OK && changed);
    return st;
}

/* ---- checks ---- */

static bool has_branches(const npurt_session *s)
{
    for (int32_t i = 0; i < s->entry->n_steps; i++)
        if (s->plan->steps.data[s->entry->first_step + i].kind == PS_IF)
            return true;
    return false;
}

static const char *expected_text(npurt_session *s, expr dim, int64_t want)
{
    const struct expr_range r = expr_range_of(&s->plan->exprs, dim);
    const bool one = r.min == r.max;
    if (s->plan->exprs.nodes.data[dim].op == EXPR_CONST)
        return arena_printf(&s->scratch, "%lld", (long long)want);
    return arena_printf(&s->scratch, "%s = %lld%s%s%s", text_of(s, dim), (long long)want, one ? "" : " (",
                        one ? "" : range_text(s, r), one ? "" : ")");
}

/* The other input whose shape told a symbol of the dimension. */
static const char *teller(npurt_session *s, expr dim, int32_t input)
{
    for (int64_t i = 0; i < s->plan->exprs.symbols.len; i++) {
        const int32_t from = s->told_by[i];
        if (from >= 0 && from != input && expr_uses_symbol(&s->plan->exprs, dim, (int32_t)i))
            return arena_printf(&s->scratch, " as input '%s' has it",
                                rt_name(s, s->plan->tensors.data[s->entry->inputs[from]].name));
    }
    return "";
}

static enum npuc_status check_input(npurt_session *s, int32_t i)
{
    const struct plan_tensor *t = &s->plan->tensors.data[s->entry->inputs[i]];
    struct rt_input *in = &s->inputs[i];
    in->void_given = false;
    for (int32_t k = 0; k < t->rank; k++) {
        int64_t want;
        const expr dim = dim_of(s, i, k);
        if (!rt_value(s, dim, &want))
            return rt_fail(s, D_INPUT_BINDING, "%s cannot be told from the inputs", axis_text(s, i, k));
        if (want == in->dims[k])
            continue;
        if (in->dims[k] == 0 && has_branches(s) && rt_cache_of_input(s, i) < 0) {
            in->void_given = true;
            continue;
        }
        return rt_fail(s, D_INPUT_BINDING, "input '%s': axis %d is %lld, expected %s%s", rt_name(s, t->name), k,
                       (long long)in->dims[k], expected_text(s, dim, want), teller(s, dim, i));
    }
    return NPUC_OK;
}

/* May the input be left out since a cache holds it? Not where a model of fixed sizes always has as many past rows:
 * which of those that a run left are the next one's is the caller's business. */
static bool holds_past(const npurt_session *s, int32_t i)
{
    const int c = rt_cache_of_input(s, i);
    const struct plan_cache *k = c >= 0 ? &s->entry->caches[c] : NULL;
    int64_t past, present;
    return k && !(k->grows && k->past != EXPR_INVALID && k->present != EXPR_INVALID &&
                  expr_is_const(&s->plan->exprs, k->past, &past) &&
                  expr_is_const(&s->plan->exprs, k->present, &present) && past < present);
}

static enum npuc_status check_missing(npurt_session *s, int32_t i)
{
    const struct plan_tensor *t = &s->plan->tensors.data[s->entry->inputs[i]];
    if (s->inputs[i].set ? s->inputs[i].data != NULL : holds_past(s, i) || t->data_size > 0)
        return NPUC_OK;
    int64_t dims[NPURT_MAX_RANK], n = 1;
    const bool known = rt_dims(s, t, dims);
    for (int32_t k = 0; known && k < t->rank; k++)
        n = n != 0 && dims[k] == 0 ? 0 : n;
    if (!(s->mode & NPURT_DATA) || (known && n == 0 && s->inputs[i].set))
        return NPUC_OK;
    return rt_fail(s, D_INPUT_BINDING, "input '%s' is not given; it is %s[%d dimensions]", rt_name(s, t->name),
                   dtype_table[t->dtype].name, t->rank);
}

static enum npuc_status check_caches(npurt_session *s)
{
    for (int32_t i = 0; i < s->entry->n_caches; i++) {
        const struct plan_cache *c = &s->entry->caches[i];
        int64_t capacity, present;
        if (!c->input || !rt_cache_capacity(s, c, &capacity) || c->present == EXPR_INVALID ||
            !rt_value(s, c->present, &present))
            continue;
        if (present > capacity)
            return rt_fail(s, D_LIMIT,
                           "the cache of '%s' holds %lld rows and %lld are needed; compile with a larger --kv-capacity",
                           rt_name(s, c->input), (long long)capacity, (long long)present);
    }
    return NPUC_OK;
}

static enum npuc_status check_symbols(npurt_session *s)
{
    for (int64_t i = 0; i < s->plan->exprs.symbols.len; i++) {
        if (s->symbol_known[i] || s->late_symbol[i])
            continue;
        const struct expr_symbol *y = &s->plan->exprs.symbols.data[i];
        return rt_fail(s, D_INPUT_BINDING,
                       "dimension %s (%s) is not known from the inputs given; give its input or its value",
                       rt_name(s, y->name), range_text(s, y->range));
    }
    return NPUC_OK;
}

enum npuc_status rt_bind(npurt_session *s)
{
    const size_t n = (size_t)s->plan->exprs.symbols.len;
    enum npuc_status st = learn_symbols(s);
    if (st == NPUC_OK)
        st = rt_choose_entry(s);
    for (int32_t i = 0; st == NPUC_OK && i < s->entry->n_inputs; i++)
        if (s->inputs[i].set)
            st = check_input(s, i);
    if (st == NPUC_OK)
        st = check_symbols(s);
    for (int32_t i = 0; st == NPUC_OK && i < s->entry->n_inputs; i++)
        st = check_missing(s, i);
    if (st == NPUC_OK)
        st = check_caches(s);
    if (n && (st != NPUC_OK || memcmp(s->bound_symbol, s->symbol, n * sizeof *s->symbol) != 0))
        s->bound = false;
    if (n)
        memcpy(s->bound_symbol, s->symbol, n * sizeof *s->symbol);
    return st;
}
