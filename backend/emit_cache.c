/* KV caches: an input with cache layout is a view of a persistent buffer; CacheAppend writes its new rows behind the
 * valid ones, and its result is another view of the same bytes. */
#include "backend/emit_priv.h"

/* The buffer itself: dims with the capacity on the padded axis, so that every view lies within it. */
static int32_t cache_tensor(struct emitter *em, const struct value *v)
{
    struct emit *e = &em->e;
    expr dims[IR_MAX_RANK];
    for (int i = 0; i < v->type->rank; i++)
        dims[i] = i == v->type->layout.axis ? v->type->layout.capacity : v->type->dims[i];
    const struct type *full = type_tensor(e->cx, v->type->dtype, v->type->rank, dims);
    const char *name = arena_printf(e->arena, "cache:%s", str_text(&e->cx->strings, v->name));
    for (int32_t i = 0; e->plan->entries.len && i < e->plan->entries.data[0].n_caches; i++) {
        const int32_t old = e->plan->entries.data[0].caches[i].tensor;
        if (e->plan->tensors.data[old].name == str_internz(&e->plan->strings, name))
            return old; /* of the first gear; cache_input compares the shapes */
    }
    return tensor_new(e, PT_CACHE, full, str_internz(&e->plan->strings, name));
}

enum npuc_status cache_input(struct emitter *em, struct value *v)
{
    struct emit *e = &em->e;
    const int32_t store = cache_tensor(em, v);
    for (int i = 0; i < v->type->rank; i++)
        if (i != v->type->layout.axis && emit_expr(e, v->type->dims[i]) != e->plan->tensors.data[store].dims[i])
            return diag_error(e->cx->diag, &(struct diag_loc){.file = e->cx->file, .index = -1}, D_USAGE,
                              arena_printf(e->arena,
                                           "gears change the shape of cache %s; give that dimension one size or a "
                                           "range, or --kv-capacity 0",
                                           str_text(&e->cx->strings, v->name)));
    const int32_t view = tensor_alias(e, store, v->type, emit_sym(e, v->name));
    const struct plan_cache c = {.tensor = store,
                                 .input = emit_sym(e, v->name),
                                 .in_tensor = view,
                                 .out_tensor = view,
                                 .axis = (int8_t)v->type->layout.axis,
                                 .grows = v->type->dims[v->type->layout.axis] != v->type->layout.capacity,
                                 .past = emit_expr(e, v->type->dims[v->type->layout.axis])};
    e->tensor_of[v->id] = view;
    map_put(&em->cache_of, v->id, (uint64_t)em->caches.len);
    vec_push(e->arena, &em->caches, c);
    return NPUC_OK;
}

enum npuc_status cache_append(struct emitter *em, struct node *n)
{
    struct emit *e = &em->e;
    struct value *past = node_in(n, 0), *present = node_out(n, 0);
    const uint64_t *known = past ? map_find(&em->cache_of, past->id) : NULL;
    if (!known || present->type->layout.kind != LAYOUT_CACHE)
        return node_error(e->cx, n, D_VERIFY, "a cache is appended to that is no input of the model");
    struct plan_cache *c = &em->caches.data[*known];
    const int32_t view = tensor_alias(e, c->tensor, present->type, emit_sym(e, present->name));
    e->tensor_of[present->id] = view;
    map_put(&em->cache_of, present->id, *known);
    c->output = emit_sym(e, present->name);
    c->out_tensor = view;
    c->present = emit_expr(e, present->type->dims[c->axis]);
    return NPUC_OK;
}
