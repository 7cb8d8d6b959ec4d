/* Caches in pages: one pool per cache, [pages, .., rows of a page, ..], and one block table for all of them,
 * i32[sequences, pages of a sequence]. Page 0 is nobody's: sequences of a batch that have fewer rows than a call takes
 * leave there what only fills them up. A ring has no table: its pool is as many pages for each sequence. */
#include "backend/emit_priv.h"

static expr pages_of(const struct emit *e, const struct type *t)
{
    struct expr_pool *x = &e->cx->exprs;
    if (t->layout.ring)
        return expr_mul_const(x, t->dims[0], t->layout.ring / t->layout.page);
    const int64_t given = e->options ? e->options->cache_pool : 0;
    const expr width = expr_floordiv(x, t->layout.capacity, expr_const(x, t->layout.page));
    return expr_add(x, given ? expr_const(x, given) : expr_mul(x, t->dims[0], width), expr_const(x, 1));
}

enum npuc_status paged_cache(struct emitter *em, struct value *past, struct plan_cache *out)
{
    struct emit *e = &em->e;
    struct expr_pool *x = &e->cx->exprs;
    const struct type *t = past->type;
    const struct layout *l = &t->layout;
    const expr width = expr_floordiv(x, l->capacity, expr_const(x, l->page));
    expr dims[IR_MAX_RANK];
    for (int i = 0; i < t->rank; i++)
        dims[i] = i == l->axis ? expr_const(x, l->page) : t->dims[i];
    dims[0] = pages_of(e, t);
    const struct type *pool = type_tensor(e->cx, t->dtype, t->rank, dims),
                      *table = type_tensor(e->cx, DT_I32, 2, (const expr[]){t->dims[0], width});
    const char *name = str_text(&e->cx->strings, past->name);
    *out = (struct plan_cache){.tensor = cache_store(e, arena_printf(e->arena, "cache:%s", name), pool),
                               .in_tensor = cache_interface(em, PT_INPUT, past),
                               .axis = (int8_t)l->axis,
                               .grows = true,
                               .past = emit_expr(e, t->dims[l->axis]),
                               .scales = -1,
                               .turn = -1,
                               .back = -1,
                               .page = l->page,
                               .table = l->ring ? -1 : cache_store(e, "pages", table),
                               .ring = l->ring,
                               .window = l->window};
    out->out_tensor = out->in_tensor;
    e->tensor_of[past->id] = out->in_tensor;
    if (l->ring)
        expr_is_const(x, l->capacity, &out->capacity);
    return out->tensor >= 0 && (out->table >= 0 || l->ring) ? NPUC_OK : cache_of_gears(e, name, "--kv-page 0");
}

struct emit_pages emit_pages(struct emit *e, const struct value *v)
{
    struct emitter *em = emitter_of(e);
    const uint64_t *known = map_find(&em->cache_of, v->id);
    const struct plan_cache *c = known ? &em->caches.data[*known] : NULL;
    return c && c->page ? (struct emit_pages){c->tensor, c->table, pages_of(e, v->type)}
                        : (struct emit_pages){-1, -1, EXPR_INVALID};
}
