/* Steps: launches of tile kernels, and where they come from. */
#include "backend/emit_priv.h"

#include <math.h>

static const char *vendor_name(struct emit *e, const struct node *n)
{
    const sym kind = n->op == OP_Fused ? node_attr_str(n, "kind", 0) : 0;
    const char *name = kind ? str_text(&e->cx->strings, node_attr_str(n, "name", kind)) : NULL;
    return name && !*name ? str_text(&e->cx->strings, kind) : name;
}

static int32_t source_of(struct emit *e, const struct node *n)
{
    struct emitter *em = emitter_of(e);
    struct plan *p = e->plan;
    if (!n || !n->loc || n->loc->n == 0)
        return -1;
    const char *fused = vendor_name(e, n);
    const sym fused_as = fused ? str_internz(&p->strings, fused) : 0;
    /* regions of several kinds may come from one node: an odd factor keeps (place, operator) apart, the name is added
     */
    const uint64_t place = (uint64_t)(uintptr_t)n->loc ^ (uint64_t)n->op << 48;
    const uint64_t key = place * 0x9e3779b97f4a7c15u + fused_as;
    const uint64_t *known = map_find(&em->sources, key);
    if (known)
        return (int32_t)*known;
    sym *nodes = ARENA_ARRAY(&p->arena, sym, n->loc->n);
    for (int32_t i = 0; i < n->loc->n; i++)
        nodes[i] = emit_sym(e, n->loc->names[i]);
    const struct plan_source s = {.label = nodes[0], .n = n->loc->n, .nodes = nodes, .fused_as = fused_as};
    vec_push(&p->arena, &p->sources, s);
    map_put(&em->sources, key, (uint64_t)(p->sources.len - 1));
    return (int32_t)p->sources.len - 1;
}

struct plan_step *step_new(struct emit *e, enum plan_step_kind kind, const struct node *n)
{
    const struct plan_step s = {
        .kind = (uint8_t)kind, .kernel = -1, .source = source_of(e, n), .guard = emit_expr(e, e->guard)};
    vec_push(&e->plan->arena, &e->plan->steps, s);
    return &e->plan->steps.data[e->plan->steps.len - 1];
}

int32_t kernel_number(struct emit *e, struct tile_kernel *k)
{
    const uint64_t hash = tile_kernel_hash(k);
    const uint64_t *known = map_find(&e->kernels, hash);
    if (known)
        return (int32_t)*known;
    vec_push(&e->plan->arena, &e->plan->kernels, k);
    map_put(&e->kernels, hash, (uint64_t)(e->plan->kernels.len - 1));
    return (int32_t)e->plan->kernels.len - 1;
}

static void emit_set_copies(struct emit *e, struct plan_step *s)
{
    uint8_t *divided = e->copies > 0 ? arena_zalloc(&e->plan->arena, s->n_in + 1) : NULL;
    s->copies = e->copies == PLAN_APART && tile_shares_loads(e->plan->kernels.data[s->kernel]) ? 0 : e->copies;
    for (int32_t i = 0; divided && i < s->n_in; i++)
        for (int64_t j = 0; j < e->divided.len; j++)
            divided[i] |= e->divided.data[j] == s->tensors[i];
    s->divided = divided;
}

/* Cores of the part of the machine that the step appended last runs on. */
static void note_cores(struct emit *e, const struct tile_kernel *k)
{
    struct emitter *em = emitter_of(e);
    while (em->cores.len < e->plan->steps.len)
        vec_push(e->arena, &em->cores, 0);
    em->cores.data[em->cores.len - 1] = k->has[TCORE_CUBE] ? e->m->n_cube : e->m->n_vector;
}

enum npuc_status emit_launch(struct emit *e, struct tile_kernel *k, const int32_t *tensors, const expr *params,
                             expr work, const char *label)
{
    const enum npuc_status st = schedule_kernel(e->cx, e->m, k);
    if (st != NPUC_OK) {
        diag_note(e->cx->diag, "while generating code for node %s", node_text(e->cx, e->node));
        return st;
    }
    const int32_t n_tensors = (int32_t)k->tensors.len, n_params = k->n_params;
    const int32_t number = kernel_number(e, k);
    struct plan_step *s = step_new(e, PS_LAUNCH, e->node);
    s->kernel = number;
    s->op = str_internz(&e->plan->strings, label);
    s->n_in = n_tensors;
    s->tensors = arena_copy(&e->plan->arena, tensors, n_tensors * (int64_t)sizeof *tensors);
    s->n_params = n_params;
    s->params = n_params ? arena_copy(&e->plan->arena, params, n_params * (int64_t)sizeof *params) : NULL;
    s->work = work;
    emit_set_copies(e, s);
    note_cores(e, k);
    return NPUC_OK;
}

void emit_say_why(struct emit *e, int64_t first, const char *why)
{
    for (int64_t i = first; i < e->plan->steps.len; i++)
        if (e->plan->steps.data[i].kind == PS_LAUNCH)
            e->plan->steps.data[i].reason = str_internz(&e->plan->strings, why);
}

struct tile_kernel *emit_kernel(struct emit *e, const char *name, struct tile_builder *b, struct kparams *p)
{
    struct tile_kernel *k = tile_kernel_new(e->arena, &e->plan->strings, name);
    *b = (struct tile_builder){.k = k, .arena = e->arena};
    *p = (struct kparams){.e = e, .k = k};
    return k;
}

int64_t size_known(const struct ir_ctx *cx, expr size)
{
    int64_t v;
    return expr_is_const(&cx->exprs, size, &v) ? v : -1;
}

double size_typical(const struct ir_ctx *cx, expr size, double otherwise)
{
    const struct expr_range r = expr_range_of(&cx->exprs, size);
    const double v = r.max == INT64_MAX ? otherwise : fmin(otherwise, (double)r.max);
    return fmax(v, r.min == INT64_MIN ? 1 : fmax(1, (double)r.min));
}

static expr band_param(struct kparams *p, const char *name, int64_t value)
{
    NPUC_ASSERT(p->n < NPUC_ARRAY_LEN(p->bound));
    p->bound[p->n++] = expr_const(&p->e->plan->exprs, value);
    return tile_param(p->k, name, (struct expr_range){0, INT32_MAX, 1});
}

struct kband kparam_band(struct kparams *p, expr batch, expr rows)
{
    const struct emit_band *band = p->e->band;
    if (!band)
        return kband_all(&p->k->exprs, batch, rows);
    return (struct kband){band_param(p, "image", band->image), expr_const(&p->k->exprs, band->images),
                          band_param(p, "row", band->row), band_param(p, "rows", band->rows)};
}

expr kparam(struct kparams *p, const char *name, expr ir)
{
    const struct expr_pool *pool = &p->e->cx->exprs;
    int64_t value = 0;
    if (expr_is_const(pool, ir, &value))
        return expr_const(&p->k->exprs, value);
    const expr bound = emit_expr(p->e, ir);
    for (int32_t i = 0; i < p->n; i++)
        if (p->bound[i] == bound)
            return expr_sym(&p->k->exprs, i);
    NPUC_ASSERT(p->n < NPUC_ARRAY_LEN(p->bound));
    p->bound[p->n++] = bound;
    return tile_param(p->k, name, expr_range_of(pool, ir));
}
