/* KV caches: an input with cache layout is a view of a persistent buffer; CacheAppend writes its new rows behind the
 * valid ones, and its result is another view of the same bytes. A cache of codes is two such buffers, codes and scales;
 * the input and the output themselves have no bytes: the runtime codes the one and decodes the other. */
#include "backend/emit_priv.h"
#include "ir/cache_code.h"

int32_t cache_store(struct emit *e, const char *name, const struct type *t)
{
    const sym text = str_internz(&e->plan->strings, name);
    int32_t old = 0;
    while (old < e->plan->tensors.len &&
           (e->plan->tensors.data[old].kind != PT_CACHE || e->plan->tensors.data[old].name != text))
        old++;
    if (old == e->plan->tensors.len)
        return tensor_new(e, PT_CACHE, t, text);
    for (int i = 0; i < t->rank; i++)
        if (emit_expr(e, t->dims[i]) != e->plan->tensors.data[old].dims[i])
            return -1;
    return old;
}

enum npuc_status cache_of_gears(struct emit *e, const char *name, const char *option)
{
    return diag_error(e->cx->diag, &(struct diag_loc){.file = e->cx->file, .index = -1}, D_USAGE,
                      arena_printf(e->arena,
                                   "gears change the shape of cache %s; give that dimension one size or a range, or %s",
                                   name, option));
}

/* The buffer of one piece: dims with the capacity on the padded axis, so that every view lies within it. */
static const struct type *whole_type(struct emit *e, const struct type *t)
{
    expr dims[IR_MAX_RANK];
    for (int i = 0; i < t->rank; i++)
        dims[i] = i == t->layout.axis ? t->layout.capacity : t->dims[i];
    return type_tensor(e->cx, t->dtype, t->rank, dims);
}

/* Value v, a cache before the run, is a view of the buffer of that name. */
static enum npuc_status add_cache(struct emitter *em, struct value *v, const char *name)
{
    struct emit *e = &em->e;
    if (v->type->layout.page) {
        struct plan_cache paged;
        const enum npuc_status st = paged_cache(em, v, &paged);
        map_put(&em->cache_of, v->id, (uint64_t)em->caches.len);
        vec_push(e->arena, &em->caches, paged);
        return st;
    }
    const int32_t store = cache_store(e, arena_printf(e->arena, "cache:%s", name), whole_type(e, v->type));
    if (store < 0)
        return cache_of_gears(e, name, "--kv-capacity 0");
    const int32_t view = tensor_alias(e, store, v->type, emit_sym(e, v->name));
    const struct plan_cache c = {.tensor = store,
                                 .in_tensor = view,
                                 .out_tensor = view,
                                 .axis = (int8_t)v->type->layout.axis,
                                 .grows = v->type->dims[v->type->layout.axis] != v->type->layout.capacity,
                                 .past = emit_expr(e, v->type->dims[v->type->layout.axis]),
                                 .scales = -1,
                                 .turn = -1,
                                 .back = -1,
                                 .table = -1};
    e->tensor_of[v->id] = view;
    map_put(&em->cache_of, v->id, (uint64_t)em->caches.len);
    vec_push(e->arena, &em->caches, c);
    return NPUC_OK;
}

enum npuc_status cache_input(struct emitter *em, struct value *v)
{
    const enum npuc_status st = add_cache(em, v, str_text(&em->e.cx->strings, v->name));
    if (st == NPUC_OK)
        em->caches.data[em->caches.len - 1].input = emit_sym(&em->e, v->name);
    return st;
}

bool is_coded_cache(const struct value *v)
{
    return !v->def && value_has_one_use(v) && v->uses->user->op == OP_CacheEncode;
}

/* The buffers of the cache whose past is operand 0. */
enum npuc_status cache_encode(struct emitter *em, struct node *n)
{
    struct emit *e = &em->e;
    const struct value *past = node_in(n, 0);
    const char *name = str_text(&e->cx->strings, past->name);
    struct k_cache_form f;
    if (!cache_form(e->cx, n, &f) || !is_coded_cache(past))
        return node_error(e->cx, n, D_VERIFY, "a cache of codes that is no input of the model");
    enum npuc_status st = add_cache(em, &n->out[0], name);
    if (st == NPUC_OK)
        st = add_cache(em, &n->out[1], arena_printf(e->arena, "%s/scales", name));
    if (st != NPUC_OK)
        return st;
    struct plan_cache *c = &em->caches.data[em->caches.len - 2];
    c->input = emit_sym(e, past->name);
    c->code = (uint8_t)f.code;
    c->shifted = f.shifted;
    c->scales = (int32_t)em->caches.len - 1;
    if (node_in(n, 1))
        c->turn = emit_tensor(e, node_in(n, 1));
    return NPUC_OK;
}

/* The result `present` of an append is the cache `past` after the run. */
static enum npuc_status append(struct emitter *em, const struct node *n, int past_in, struct value *present)
{
    const bool coded = n->op == OP_CacheAppendCoded;
    struct value *past = node_in(n, past_in);
    struct emit *e = &em->e;
    const uint64_t *known = past ? map_find(&em->cache_of, past->id) : NULL;
    if (!known || present->type->layout.kind != LAYOUT_CACHE)
        return node_error(e->cx, n, D_VERIFY, "a cache is appended to that is no input of the model");
    struct plan_cache *c = &em->caches.data[*known];
    const int32_t view = c->page ? cache_interface(em, PT_OUTPUT, present)
                                 : tensor_alias(e, c->tensor, present->type, emit_sym(e, present->name));
    e->tensor_of[present->id] = view;
    map_put(&em->cache_of, present->id, *known);
    if (!coded)
        c->output = emit_sym(e, present->name);
    c->out_tensor = view;
    c->placed = node_in(n, coded ? 3 : 2) != NULL;
    c->present = emit_expr(e, present->type->dims[c->axis]);
    return NPUC_OK;
}

enum npuc_status cache_append(struct emitter *em, struct node *n)
{
    if (n->op == OP_CacheAppend)
        return append(em, n, 0, node_out(n, 0));
    const enum npuc_status st = append(em, n, 0, &n->out[0]);
    return st == NPUC_OK ? append(em, n, 1, &n->out[1]) : st;
}

/* What made rows [batch, head, position, column]: behind heads split off and turned, where it stands on
 * [batch, position, heads * columns]. Nothing else reads what lies between. */
static struct node *made_by(const struct value *rows)
{
    struct node *turn = value_has_one_use(rows) ? rows->def : NULL;
    if (!turn || turn->op != OP_Transpose || turn->place != PLACE_FREE)
        return turn;
    const struct attr *perm = node_attr(turn, "perm");
    const struct value *split = node_in(turn, 0), *whole = split->def ? node_in(split->def, 0) : NULL;
    if (!perm || perm->v.ints[0] != 0 || perm->v.ints[1] != 2 || perm->v.ints[3] != 3 || !whole ||
        split->def->op != OP_Reshape || !value_has_one_use(split) || !value_has_one_use(whole))
        return NULL;
    const bool same = whole->type->rank == 3 && split->type->rank == 4 &&
                      split->type->dims[0] == whole->type->dims[0] && split->type->dims[1] == whole->type->dims[1];
    return same ? whole->def : NULL;
}

struct node *emit_appended(const struct node *n)
{
    const struct value *past = node_in(n, 0), *rows = n->op == OP_CacheAppend ? node_in(n, 1) : NULL;
    const struct layout *l = rows ? &n->out[0].type->layout : NULL;
    if (!l || l->kind != LAYOUT_CACHE || l->page || l->axis != 2 || n->out[0].type->rank != 4 ||
        n->place != PLACE_NPU || !value_has_one_use(past))
        return NULL;
    struct node *made = made_by(rows);
    return made && made->op == OP_RotaryEmbedding && made->place == PLACE_NPU && made->graph == n->graph ? made : NULL;
}

bool emit_is_appended(const struct node *n)
{
    const struct node *at = n;
    for (int hops = 0; hops < 3 && at->n_out == 1 && value_has_one_use(&at->out[0]); hops++) {
        at = at->out[0].uses->user;
        if (at->op == OP_CacheAppend) {
            const struct node *made = emit_appended(at);
            for (const struct value *v = node_in(at, 1); made && v->def; v = node_in(v->def, 0))
                if (v->def == made || v->def == n)
                    return v->def == n;
            return false;
        }
    }
    return false;
}

/* The present of a cache of codes: an output without bytes. */
enum npuc_status cache_decode(struct emitter *em, struct node *n)
{
    struct emit *e = &em->e;
    const uint64_t *known = map_find(&em->cache_of, node_in(n, 0)->id);
    if (!known)
        return node_error(e->cx, n, D_VERIFY, "a cache of codes is decoded that is no input of the model");
    em->caches.data[*known].output = emit_sym(e, n->out[0].name);
    if (node_in(n, 2))
        em->caches.data[*known].back = emit_tensor(e, node_in(n, 2));
    e->tensor_of[n->out[0].id] = cache_interface(em, PT_OUTPUT, &n->out[0]);
    return NPUC_OK;
}

int32_t cache_interface(struct emitter *em, enum plan_tensor_kind kind, const struct value *v)
{
    struct emit *e = &em->e;
    const struct type *plain = type_with_layout(e->cx, v->type, (struct layout){.kind = LAYOUT_ND});
    const int32_t t = tensor_new(e, kind, plain, emit_sym(e, v->name));
    e->plan->tensors.data[t].size = expr_const(&e->plan->exprs, 0);
    return t;
}
