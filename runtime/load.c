/* Opening plans and answering what is in them. */
#include "runtime/rt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keeps the first line: later ones follow from it. */
static void keep_line(void *user, const char *line)
{
    npurt_plan *p = user;
    if (!p->error[0])
        snprintf(p->error, sizeof p->error, "%s", line);
}

static enum npuc_status no_memory(npurt_plan *p)
{
    snprintf(p->error, sizeof p->error, "out of host memory");
    return NPUC_E_NOMEM;
}

static struct npurt_dim describe_dim(npurt_plan *p, expr e)
{
    const struct expr_range r = expr_range_of(&p->plan.exprs, e);
    return (struct npurt_dim){expr_text(&p->plan.exprs, e, &p->arena), r.min == INT64_MIN ? 0 : r.min, r.max};
}

static bool describe_value(npurt_plan *p, int32_t tensor, struct npurt_value *out)
{
    const struct plan_tensor *t = &p->plan.tensors.data[tensor];
    struct npurt_dim *dims = ARENA_ARRAY(&p->arena, struct npurt_dim, t->rank + 1);
    for (int32_t i = 0; dims && i < t->rank; i++)
        dims[i] = describe_dim(p, t->dims[i]);
    static const int kinds[] = {NPURT_TENSOR, NPURT_TENSOR, NPURT_SEQUENCE, NPURT_OPTIONAL};
    *out = (struct npurt_value){.name = str_text(&p->plan.strings, t->name),
                                .dtype = dtype_table[t->dtype].onnx,
                                .rank = t->rank,
                                .dims = dims};
    if (t->kind == PT_OBJECT) {
        out->kind = kinds[t->axis];
        out->rank = t->axis == PO_TENSOR ? t->rank : -1;
    }
    return dims != NULL;
}

static void mark_caches(npurt_plan *p, const struct plan_entry *e)
{
    for (int32_t c = 0; c < e->n_caches; c++) {
        for (int32_t i = 0; i < e->n_inputs; i++)
            p->inputs[i].cache |= p->plan.tensors.data[e->inputs[i]].name == e->caches[c].input;
        for (int32_t i = 0; i < e->n_outputs; i++)
            p->outputs[i].cache |= p->plan.tensors.data[e->outputs[i]].name == e->caches[c].output;
    }
}

static enum npuc_status describe(npurt_plan *p)
{
    const struct plan_entry *e = &p->plan.entries.data[0];
    const int64_t n_symbols = p->plan.exprs.symbols.len;
    p->inputs = ARENA_ARRAY(&p->arena, struct npurt_value, e->n_inputs + 1);
    p->outputs = ARENA_ARRAY(&p->arena, struct npurt_value, e->n_outputs + 1);
    p->symbols = ARENA_ARRAY(&p->arena, struct npurt_dim, n_symbols + 1);
    if (!p->inputs || !p->outputs || !p->symbols)
        return no_memory(p);
    for (int32_t i = 0; i < e->n_inputs; i++) {
        if (!describe_value(p, e->inputs[i], &p->inputs[i]))
            return no_memory(p);
        p->inputs[i].optional = e->input_optional && e->input_optional[i];
    }
    for (int32_t i = 0; i < e->n_outputs; i++)
        if (!describe_value(p, e->outputs[i], &p->outputs[i]))
            return no_memory(p);
    for (int64_t i = 0; i < n_symbols; i++) {
        const struct expr_symbol *s = &p->plan.exprs.symbols.data[i];
        p->symbols[i] = (struct npurt_dim){str_text(&p->plan.strings, s->name), s->range.min, s->range.max};
    }
    mark_caches(p, e);
    return NPUC_OK;
}

static enum npuc_status read_target(npurt_plan *p, struct diag *d)
{
    const int64_t n = p->plan.target.len;
    const char **keys = ARENA_ARRAY(&p->arena, const char *, n + 1),
               **values = ARENA_ARRAY(&p->arena, const char *, n + 1);
    if (!keys || !values)
        return no_memory(p);
    for (int64_t i = 0; i < n; i++) {
        keys[i] = str_text(&p->plan.strings, p->plan.target.data[i].key);
        values[i] = str_text(&p->plan.strings, p->plan.target.data[i].value);
    }
    const enum npuc_status s =
        target_from_pairs(&p->target, str_text(&p->plan.strings, p->plan.target_name), n, keys, values, d);
    p->has_target = s == NPUC_OK;
    if (s != NPUC_OK) { /* the message knows the key but not the file */
        const char *why = arena_strndup(&p->arena, p->error, (int64_t)strlen(p->error));
        snprintf(p->error, sizeof p->error, "%.500s: %.500s", p->path, why ? why : "out of host memory");
    }
    return s;
}

enum npuc_status npurt_plan_open(const char *path, npurt_plan **plan)
{
    npurt_plan *p = *plan = calloc(1, sizeof *p);
    if (!p)
        return NPUC_E_NOMEM;
    arena_init(&p->arena, NULL);
    p->path = arena_strndup(&p->arena, path, (int64_t)strlen(path));
    struct diag d;
    diag_init(&d, keep_line, p);
    plan_init(&p->plan);
    enum npuc_status s = plan_read(&p->plan, path, &d);
    if (s == NPUC_OK)
        s = read_target(p, &d);
    if (s == NPUC_OK && p->plan.entries.len == 0) {
        snprintf(p->error, sizeof p->error, "%.1000s: the plan has no entry point", path);
        s = NPUC_E_INVALID;
    }
    return s == NPUC_OK ? describe(p) : s;
}

void npurt_plan_close(npurt_plan *p)
{
    if (!p)
        return;
    plan_free(&p->plan);
    if (p->has_target)
        target_free(&p->target);
    arena_free(&p->arena);
    free(p);
}

const char *npurt_plan_error(const npurt_plan *p)
{
    return p ? p->error : "out of host memory";
}

const char *npurt_plan_target(const npurt_plan *p)
{
    return str_text(&p->plan.strings, p->plan.target_name);
}

int npurt_plan_inputs(const npurt_plan *p)
{
    return p->plan.entries.data[0].n_inputs;
}

int npurt_plan_outputs(const npurt_plan *p)
{
    return p->plan.entries.data[0].n_outputs;
}

const struct npurt_value *npurt_plan_input(const npurt_plan *p, int i)
{
    return i >= 0 && i < npurt_plan_inputs(p) ? &p->inputs[i] : NULL;
}

const struct npurt_value *npurt_plan_output(const npurt_plan *p, int i)
{
    return i >= 0 && i < npurt_plan_outputs(p) ? &p->outputs[i] : NULL;
}

int npurt_plan_symbols(const npurt_plan *p)
{
    return (int)p->plan.exprs.symbols.len;
}

const struct npurt_dim *npurt_plan_symbol(const npurt_plan *p, int i)
{
    return i >= 0 && i < npurt_plan_symbols(p) ? &p->symbols[i] : NULL;
}
