/* Entries: a plan with gears has one per combination of the sizes that it was compiled for; the sizes of a run choose
 * it. Only the tensors of the chosen entry have places. */
#include "runtime/rt.h"

#include <string.h>

static const struct plan_fixed *fixed_in(const struct plan_entry *e, int64_t symbol)
{
    for (int32_t i = 0; i < e->n_fixed; i++)
        if (e->fixed[i].symbol == symbol)
            return &e->fixed[i];
    return NULL;
}

static bool seen_before(const npurt_session *s, int64_t entry, int64_t symbol, int64_t value)
{
    for (int64_t i = 0; i < entry; i++)
        if (fixed_in(&s->plan->entries.data[i], symbol)->value == value)
            return true;
    return false;
}

const char *rt_gears_text(npurt_session *s, int64_t symbol)
{
    const char *text = "";
    if (s->plan->entries.len < 2 || !fixed_in(s->entry, symbol))
        return NULL;
    for (int64_t i = 0; i < s->plan->entries.len; i++) {
        const int64_t value = fixed_in(&s->plan->entries.data[i], symbol)->value;
        if (!seen_before(s, i, symbol, value))
            text = arena_printf(&s->scratch, "%s%s%lld", text, *text ? ", " : "", (long long)value);
    }
    return text;
}

bool rt_is_gear(const npurt_session *s, int64_t symbol, int64_t value)
{
    if (!fixed_in(s->entry, symbol))
        return true;
    return seen_before(s, s->plan->entries.len, symbol, value);
}

void rt_learn_fixed(npurt_session *s)
{
    for (int64_t i = 0; i < s->plan->exprs.symbols.len; i++) {
        const struct expr_range r = s->plan->exprs.symbols.data[i].range;
        if (r.min == r.max && r.min >= 0) {
            s->symbol[i] = r.min;
            s->symbol_known[i] = true;
        }
    }
    for (int32_t i = 0; i < s->entry->n_fixed; i++) {
        const struct plan_fixed *f = &s->entry->fixed[i];
        bool same = true;
        for (int64_t k = 0; k < s->plan->entries.len; k++)
            same = same && fixed_in(&s->plan->entries.data[k], f->symbol)->value == f->value;
        if (!same)
            continue;
        s->symbol[f->symbol] = f->value;
        s->symbol_known[f->symbol] = true;
    }
}

static void use(npurt_session *s, int32_t tensor)
{
    if (tensor < 0)
        return;
    s->in_entry[tensor] = true;
    s->in_entry[s->tensors[tensor].root] = true;
}

/* Symbols that appear in no dimension of an input are told by host steps; the others must be known before the run. */
void rt_enter(npurt_session *s, const struct plan_entry *e)
{
    const struct plan *p = s->plan;
    s->entry = e;
    s->bound = s->placed = false;
    memset(s->in_entry, 0, (size_t)p->tensors.len * sizeof *s->in_entry);
    memset(s->late_symbol, 0, (size_t)p->exprs.symbols.len * sizeof *s->late_symbol);
    for (int64_t i = 0; i < p->tensors.len; i++) /* those that no step touches belong to all, they have no bytes */
        if (p->entries.len < 2 || p->tensors.data[i].kind == PT_WEIGHT)
            s->in_entry[i] = true;
    for (int64_t i = 0; i < p->steps.len; i++) /* those of all entries: each has its own */
        for (int32_t b = 0; b < p->steps.data[i].n_binds; b++)
            s->late_symbol[p->steps.data[i].binds[3 * b + 2]] = true;
    for (int32_t i = 0; i < e->n_inputs; i++)
        use(s, e->inputs[i]);
    for (int32_t i = 0; i < e->n_outputs; i++)
        use(s, e->outputs[i]);
    for (int32_t i = 0; i < e->n_caches; i++) {
        use(s, e->caches[i].in_tensor);
        use(s, e->caches[i].out_tensor);
    }
    for (int32_t i = 0; i < e->n_steps; i++) {
        const struct plan_step *step = &p->steps.data[e->first_step + i];
        for (int32_t t = 0; t < step->n_in + step->n_out; t++)
            use(s, step->tensors[t]);
    }
}

static bool fits(const npurt_session *s, const struct plan_entry *e)
{
    for (int32_t i = 0; i < e->n_fixed; i++)
        if (s->symbol[e->fixed[i].symbol] != e->fixed[i].value)
            return false;
    return true;
}

enum npuc_status rt_choose_entry(npurt_session *s)
{
    const struct plan *p = s->plan;
    const char *sizes = "";
    for (int32_t i = 0; p->entries.len > 1 && i < s->entry->n_fixed; i++) {
        const int32_t symbol = s->entry->fixed[i].symbol;
        const char *name = rt_name(s, p->exprs.symbols.data[symbol].name);
        if (!s->symbol_known[symbol])
            return rt_fail(s, D_INPUT_BINDING,
                           "dimension %s (gears %s) is not known from the inputs given; give its input or its value",
                           name, rt_gears_text(s, symbol));
        sizes = arena_printf(&s->scratch, "%s%s%s = %lld", sizes, i ? ", " : "", name, (long long)s->symbol[symbol]);
    }
    if (p->entries.len < 2 || fits(s, s->entry))
        return NPUC_OK;
    for (int64_t i = 0; i < p->entries.len; i++)
        if (fits(s, &p->entries.data[i])) {
            rt_enter(s, &p->entries.data[i]);
            return NPUC_OK;
        }
    return rt_fail(s, D_INPUT_BINDING, "the plan has no gear with %s", sizes);
}
