/* Plan emission: the module's main function, node by node in order, becomes tensors and steps.
 *
 * Views cost nothing: their result is an alias. Integer tensors whose elements are known expressions become sizes.
 * Other nodes go to the first generator that takes them, or to the host with the reason. A graph result that is
 * computed by a node is written in place; one that is an input, a constant or a second name of another result is
 * copied. */
#include "backend/emit_priv.h"

#include <string.h>

/* ---- nodes ------------------------------------------------------------------------------------------------ */

/* A Transpose placed as free is a view that consumers walk with its strides (place). */
static bool is_view(const struct node *n)
{
    return op_has((enum op)n->op, T_VIEW) || n->op == OP_Identity ||
           ((n->op == OP_Transpose || n->op == OP_TransData) && n->place == PLACE_FREE);
}

/* Can the node's result be the bytes of its input? */
static bool view_of_input(const struct emitter *em, const struct node *n)
{
    const struct value *x = node_in(n, 0), *y = node_out(n, 0);
    const bool dense = x && y && x->type->layout.kind == LAYOUT_ND && y->type->layout.kind == LAYOUT_ND;
    return is_view(n) && (dense || n->op == OP_TransData) && x->type->kind == TYPE_TENSOR &&
           type_is_bound(em, y->type) && !type_is_object(x->type) && !type_is_object(y->type);
}

/* All bytes of a tensor as another type. Where nothing proves that the type takes as many, the view has a place only
 * for those sizes for which it does: a target of Reshape that comes at run time may hold another number of elements. */
static int32_t whole_view(struct emit *e, int32_t of, const struct type *t, sym name)
{
    const int32_t out = tensor_alias(e, of, t, name);
    if (out == of)
        return out;
    struct expr_pool *p = &e->plan->exprs;
    struct plan_tensor *view = &e->plan->tensors.data[out];
    const expr size = e->plan->tensors.data[of].size;
    if (view->size != size)
        view->base_offset =
            expr_select(p, expr_cmp(p, EXPR_EQ, view->size, size), view->base_offset, expr_const(p, -1));
    return out;
}

static enum npuc_status emit_view(struct emitter *em, const struct node *n, struct value *of)
{
    struct emit *e = &em->e;
    struct value *y = node_out(n, 0);
    const int32_t x = emit_tensor(e, of);
    if (e->tensor_of[y->id] < 0)
        e->tensor_of[y->id] = whole_view(e, x, y->type, emit_sym(e, y->name));
    else if (e->plan->tensors.data[e->tensor_of[y->id]].kind == PT_OUTPUT &&
             e->plan->tensors.data[x].base != e->tensor_of[y->id])
        return emit_copy(e, whole_view(e, x, y->type, emit_sym(e, y->name)), e->tensor_of[y->id], y->type,
                         "the result is another view of an input or result");
    return NPUC_OK;
}

static bool is_blocked(const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->layout.kind == LAYOUT_NC1HWC0;
}

/* The value whose bytes a node between a map in blocks and its dimensions in memory shows (place); NULL: no such node.
 */
static struct value *shown_blocks(const struct node *n)
{
    struct value *x = n->n_in > 0 && n->n_out > 0 && n->place == PLACE_FREE ? node_in(n, 0) : NULL;
    if (!x || !x->def || !node_out(n, 0))
        return NULL;
    if (n->op == OP_Reshape && is_blocked(node_out(n, 0)))
        return node_in(x->def, 0);
    return n->op == OP_Transpose && x->def->op == OP_Reshape && is_blocked(node_in(x->def, 0)) ? node_in(x->def, 0)
                                                                                               : NULL;
}

bool is_shown(const struct value *v)
{
    return v->def && (is_view(v->def) ? v->type->layout.kind != LAYOUT_ND : shown_blocks(v->def) != NULL);
}

static bool outputs_are_bound(const struct emitter *em, const struct node *n)
{
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i) && !type_is_bound(em, node_out(n, i)->type))
            return false;
    return true;
}

/* Known to have no elements, all of them: nothing to compute. */
static bool outputs_are_empty(const struct emitter *em, const struct node *n)
{
    bool empty = n->n_out > 0;
    for (int i = 0; i < n->n_out && empty; i++) {
        const struct type *t = node_out(n, i) ? n->out[i].type : NULL;
        empty = t && t->kind == TYPE_TENSOR && !type_is_object(t) && t->rank >= 0 && t->layout.kind == LAYOUT_ND;
        bool zero = false;
        int64_t size;
        for (int k = 0; empty && k < t->rank; k++)
            zero |= expr_is_const(&em->e.cx->exprs, t->dims[k], &size) && size == 0;
        empty = empty && zero;
    }
    return empty;
}

static enum npuc_status emit_region(struct emitter *em, struct node *n);

/* The generator's launches, on the part of the machine that the family gives them. */
static enum npuc_status emit_on_cores(struct emit *e, const struct gen *g, struct node *n)
{
    const struct machine *all = e->m;
    struct machine_part part = {.copies = 0};
    if (!all->family->part)
        return g->emit(e, n);
    if (!all->family->part(all, e->cx, n, &part)) {
        e->copies = PLAN_APART;
        const enum npuc_status st = g->emit(e, n);
        e->copies = 0;
        return st;
    }
    const bool divides = part.copies > 0 && emit_divides(e, n, part.copies);
    if (!divides) { /* tiles in turn, on as many cores */
        part.m.n_cube *= part.copies > 1 ? part.copies : 1;
        part.m.n_vector *= part.copies > 1 ? part.copies : 1;
    }
    e->m = &part.m;
    const enum npuc_status s = divides ? emit_copies(e, g, n, part.copies) : g->emit(e, n);
    e->m = all;
    return s;
}

static enum npuc_status emit_work(struct emitter *em, struct node *n)
{
    struct emit *e = &em->e;
    if (n->op == OP_If || n->op == OP_Loop)
        return n->op == OP_If ? emit_if(em, n) : emit_loop(em, n);
    const char *reason = "no kernel for this operator";
    if (outputs_are_empty(em, n))
        return NPUC_OK;
    if (n->place != PLACE_HOST && outputs_are_bound(em, n)) {
        const struct gen *g = find_gen(e->m, e->cx, n, &reason);
        if (g)
            return emit_on_cores(e, g, n);
    }
    if (n->op == OP_Fused)
        return emit_region(em, n);
    if (!n->reason)
        n->reason =
            str_internz(&e->cx->strings, outputs_are_bound(em, n) ? reason : "the result's size depends on data");
    return emit_host(e, n);
}

/* Why a node that moves all elements to other places is there. */
static const char *why_converted(const struct emitter *em, const struct node *n)
{
    const struct strtab *strings = &em->e.cx->strings;
    const char *why = n->op == OP_TransData ? str_text(strings, node_attr_str(n, "why", 0)) : "";
    const char *from = n->loc ? str_text(strings, n->loc->op_type) : "";
    if (why[0])
        return why;
    if (n->op == OP_TransData || !from[0] || strcmp(from, op_table[OP_Transpose]->name) == 0)
        return n->op == OP_Transpose ? "an operator of the model" : "the graph says so";
    return arena_printf(em->e.arena, "a step of %s", from);
}

enum npuc_status emit_node(struct emitter *em, struct node *n)
{
    if (n->op == OP_Constant && type_is_object(n->out[0].type))
        return emit_text(&em->e, n);
    if (n->op == OP_Constant || op_has((enum op)n->op, T_TERMINATOR))
        return NPUC_OK;
    if (n->op == OP_TransData && value_const(node_in(n, 0)))
        return NPUC_OK; /* its consumer stores the constant in that layout */
    if (n->n_out == 1 && weight_is_cast(&n->out[0]) && em->e.tensor_of[n->out[0].id] < 0)
        return NPUC_OK; /* stored in that type when first used */
    em->e.node = n;
    if (n->op == OP_Contents)
        return emit_contents(&em->e, n);
    if (shown_blocks(n))
        return emit_view(em, n, shown_blocks(n));
    if (n->op == OP_Reshape && n->place == PLACE_FREE && is_blocked(node_in(n, 0)))
        return NPUC_OK; /* the Transpose behind it shows the map */
    if (view_of_input(em, n))
        return emit_view(em, n, node_in(n, 0));
    if (has_known_elems(em, n)) { /* mostly shapes that nobody reads: computed when a step asks for the tensor */
        if (em->e.tensor_of[node_out(n, 0)->id] >= 0)
            emit_sizes(&em->e, n);
        return NPUC_OK;
    }
    if (is_part_of_input(em, n))
        return emit_parts(em, n);
    if (n->op == OP_CacheEncode)
        return cache_encode(em, n);
    if (emit_is_appended(n))
        return NPUC_OK; /* its reader writes it */
    if (n->op == OP_CacheDecode && n->place == PLACE_FREE)
        return cache_decode(em, n);
    if (n->op == OP_CacheAppendCoded ||
        (n->op == OP_CacheAppend && node_out(n, 0)->type->layout.kind == LAYOUT_CACHE)) {
        const enum npuc_status st = cache_append(em, n);
        if (st != NPUC_OK)
            return st;
    }
    const int64_t first = em->e.plan->steps.len;
    const enum npuc_status st = emit_work(em, n);
    if (st == NPUC_OK && (n->op == OP_TransData || n->op == OP_Transpose))
        emit_say_why(&em->e, first, why_converted(em, n));
    return st;
}

/* A Fused node that no generator takes: its nodes one by one, on the tensors of its operands and results. */
static enum npuc_status emit_region(struct emitter *em, struct node *n)
{
    struct emit *e = &em->e;
    struct graph *g = node_region(n, 0);
    for (int32_t i = 0; i < g->n_inputs; i++)
        e->tensor_of[g->inputs[i]->id] = emit_tensor(e, node_in(n, i));
    const struct node *yield = graph_yield(g);
    for (int i = 0; i < yield->n_in; i++) {
        const struct value *inner = node_in(yield, i);
        struct value *outer = node_out(n, i);
        if (outer && inner->def && inner->graph == g && e->tensor_of[inner->id] < 0)
            e->tensor_of[inner->id] = emit_tensor(e, outer);
    }
    for_each_node (x, g) {
        const enum npuc_status st = emit_node(em, x);
        if (st != NPUC_OK)
            return st;
    }
    e->node = n;
    for (int i = 0; i < yield->n_in; i++) { /* results that are operands, or given twice */
        const int32_t from = emit_tensor(e, node_in(yield, i)),
                      to = node_out(n, i) ? emit_tensor(e, node_out(n, i)) : -1;
        const enum npuc_status st = to >= 0 && to != from ? emit_copy(e, from, to, node_in(yield, i)->type,
                                                                      "result of a fused region given twice")
                                                          : NPUC_OK;
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

/* ---- inputs and outputs ----------------------------------------------------------------------------------- */

/* The input's shape in the model's own dimensions. */
static struct plan_shape shape_of(struct emitter *em, int32_t input)
{
    const struct backend_options *o = em->e.options;
    const struct type *t = o && input < o->n_shapes ? o->shapes[input] : NULL;
    const struct type *now = em->graph->inputs[input]->type;
    if (!t || t->kind != TYPE_TENSOR || now->kind != TYPE_TENSOR || t->rank != now->rank || t->rank < 1)
        return (struct plan_shape){0};
    expr *dims = ARENA_ARRAY(&em->e.plan->arena, expr, t->rank);
    for (int i = 0; i < t->rank; i++)
        dims[i] = emit_expr(&em->e, t->dims[i]);
    return (struct plan_shape){t->rank, dims};
}

/* Gears set the same objects: text and sequences stay where they are when the entry changes. */
static int32_t input_tensor(struct emitter *em, struct value *v, int32_t input)
{
    const struct plan *p = em->e.plan;
    if (p->entries.len && input < p->entries.data[0].n_inputs && type_is_object(v->type))
        return p->entries.data[0].inputs[input];
    return tensor_new(&em->e, PT_INPUT, v->type, emit_sym(&em->e, v->name));
}

static void emit_fixed(struct emitter *em)
{
    const struct backend_options *o = em->e.options;
    struct plan_fixed *fixed = o && o->n_fixed ? ARENA_ARRAY(&em->e.plan->arena, struct plan_fixed, o->n_fixed) : NULL;
    for (int32_t i = 0; fixed && i < o->n_fixed; i++) {
        const expr e = emit_expr(&em->e, expr_sym(&em->e.cx->exprs, o->fixed[i]));
        fixed[i] = (struct plan_fixed){(int32_t)em->e.plan->exprs.nodes.data[e].value, o->sizes[i]};
    }
    em->entry->n_fixed = fixed ? o->n_fixed : 0;
    em->entry->fixed = fixed;
}

static enum npuc_status emit_inputs(struct emitter *em)
{
    struct emit *e = &em->e;
    const struct graph *g = em->graph;
    int32_t *inputs = ARENA_ARRAY(&e->plan->arena, int32_t, g->n_inputs);
    uint8_t *optional = ARENA_ARRAY(&e->plan->arena, uint8_t, g->n_inputs);
    struct plan_shape *shapes = ARENA_ARRAY(&e->plan->arena, struct plan_shape, g->n_inputs);
    emit_fixed(em);
    for (int32_t i = 0; i < g->n_inputs; i++) {
        struct value *v = g->inputs[i];
        bind_type_symbols(em, v->type);
        if (v->type->layout.kind == LAYOUT_CACHE) {
            const enum npuc_status st = cache_input(em, v);
            if (st != NPUC_OK)
                return st;
        } else {
            e->tensor_of[v->id] = is_coded_cache(v) ? cache_interface(em, PT_INPUT, v) : input_tensor(em, v, i);
        }
        shapes[i] = shape_of(em, i);
        inputs[i] = e->tensor_of[v->id];
    }
    em->entry->inputs = inputs;
    em->entry->input_optional = optional;
    em->entry->shapes = shapes;
    em->entry->n_inputs = g->n_inputs;
    return NPUC_OK;
}

struct value *computed_value(struct value *v)
{
    if (v->def && shown_blocks(v->def) && !is_blocked(v))
        return shown_blocks(v->def)->def ? shown_blocks(v->def) : NULL;
    while (v->def && is_view(v->def) && node_in(v->def, 0) && !type_is_object(node_in(v->def, 0)->type) &&
           !type_is_object(v->type))
        v = node_in(v->def, 0);
    return v->def && v->def->op != OP_Constant && v->type->kind == TYPE_TENSOR && v->type->layout.kind == LAYOUT_ND
               ? v
               : NULL;
}

/* Does whoever knows the sizes of w know those of v? A view of other sizes is only made where they are known. */
static bool sizes_follow(const struct emitter *em, const struct value *v, const struct value *w)
{
    const struct expr_pool *p = &em->e.cx->exprs;
    for (int32_t s = 0; s < p->symbols.len; s++) {
        bool needed = false, known = false;
        for (int i = 0; i < v->type->rank; i++)
            needed = needed || expr_uses_symbol(p, v->type->dims[i], s);
        for (int i = 0; needed && i < w->type->rank; i++)
            known = known || expr_uses_symbol(p, w->type->dims[i], s);
        if (needed && !known && (s >= em->bound.len || !em->bound.data[s]))
            return false;
    }
    return true;
}

static void claim_output(struct emitter *em, struct value *v)
{
    struct emit *e = &em->e;
    const bool coded = v->def->op == OP_CacheDecode && v->def->place == PLACE_FREE;
    if (v->type->layout.kind == LAYOUT_CACHE || coded || e->tensor_of[v->id] >= 0)
        return;
    struct value *w = computed_value(v);
    const int32_t out = tensor_new(e, PT_OUTPUT, v->type, emit_sym(e, v->name));
    e->tensor_of[v->id] = out;
    if (w && w != v && e->tensor_of[w->id] < 0 && sizes_follow(em, v, w))
        e->tensor_of[w->id] = whole_view(e, out, w->type, emit_sym(e, w->name));
}

/* The tensor that the entry returns for result v: its own, a cache view, or a copy of something that has another name.
 */
static enum npuc_status finish_output(struct emitter *em, struct value *v)
{
    struct emit *e = &em->e;
    const int32_t t = emit_tensor(e, v);
    int32_t out = t;
    bool taken = e->plan->tensors.data[t].kind != PT_OUTPUT && v->type->layout.kind != LAYOUT_CACHE;
    if (e->plan->tensors.data[t].kind == PT_OBJECT)
        taken = !v->def || e->plan->tensors.data[t].name != emit_sym(e, v->name);
    for (int64_t i = 0; i < em->outputs.len; i++)
        taken |= em->outputs.data[i] == t;
    if (taken)
        out = tensor_new(e, PT_OUTPUT, v->type, emit_sym(e, v->name));
    vec_push(e->arena, &em->outputs, out);
    return taken ? emit_copy(e, t, out, v->type, "the result is an input, a constant or another result") : NPUC_OK;
}

static enum npuc_status emit_graph(struct emitter *em)
{
    const struct node *yield = graph_yield(em->graph);
    enum npuc_status st = emit_inputs(em);
    for (int i = 0; i < yield->n_in && st == NPUC_OK; i++)
        if (node_in(yield, i)->def && node_in(yield, i)->def->op != OP_Constant)
            claim_output(em, node_in(yield, i));
    emit_claim_parts(em);
    emit_mark_near(em);
    for_each_node (n, em->graph) {
        if (st != NPUC_OK)
            return st;
        struct node *last = emit_bands(em, n, &st);
        if (last)
            n = last;
        else
            st = emit_node(em, n);
    }
    em->e.node = NULL;
    for (int i = 0; i < yield->n_in && st == NPUC_OK; i++)
        st = finish_output(em, node_in(yield, i));
    return st;
}

/* ---- entry ------------------------------------------------------------------------------------------------ */

static void emit_target(struct emit *e)
{
    struct plan *p = e->plan;
    const struct target *t = e->m->target;
    p->target_name = str_internz(&p->strings, t->id);
    p->model_name = emit_sym(e, e->module->name);
    const char *const *keys, *const *values;
    const int64_t n = target_to_pairs(t, &e->cx->scratch, &keys, &values);
    for (int64_t i = 0; i < n; i++) {
        const struct plan_pair pair = {str_internz(&p->strings, keys[i]), str_internz(&p->strings, values[i])};
        vec_push(&p->arena, &p->target, pair);
    }
}

static struct emitter *emitter_new(struct ir_ctx *cx, struct module *mod, const struct machine *m, struct plan *out)
{
    struct emitter *em = ARENA_NEW(&mod->arena, struct emitter);
    struct emit *e = &em->e;
    *e = (struct emit){.cx = cx, .module = mod, .m = m, .plan = out, .arena = &mod->arena};
    em->graph = mod->funcs.data[0];
    map_init(&e->kernels, e->arena);
    em->exprs = (struct expr_copier){.from = &cx->exprs, .to = &out->exprs, .symbol = emit_symbol, .user = e};
    map_init(&em->exprs.known, e->arena);
    map_init(&em->sources, e->arena);
    map_init(&em->cache_of, e->arena);
    map_init(&em->variants, e->arena);
    for (int64_t i = 0; i < out->kernels.len; i++)
        map_put(&e->kernels, tile_kernel_hash(out->kernels.data[i]), (uint64_t)i);
    e->tensor_of = ARENA_ARRAY(e->arena, int32_t, mod->n_values);
    for (uint32_t i = 0; i < mod->n_values; i++)
        e->tensor_of[i] = -1;
    e->part_of = ARENA_ARRAY(e->arena, const struct value *, mod->n_values);
    e->line_of = ARENA_ARRAY(e->arena, struct emit_line, mod->n_values);
    return em;
}

enum npuc_status backend_emit(struct ir_ctx *cx, struct module *mod, const struct machine *m,
                              const struct backend_options *o, struct plan *out, struct plan_weight_source *weights)
{
    struct emitter *em = emitter_new(cx, mod, m, out);
    struct plan_entry entry = {.name = str_internz(&out->strings, o && o->name ? o->name : "main"),
                               .first_step = (int32_t)out->steps.len};
    const int64_t first_tensor = out->tensors.len;
    em->entry = &entry;
    em->e.tiling = o ? o->tiling : NULL;
    em->e.options = o;
    if (out->entries.len == 0)
        emit_target(&em->e);
    const enum npuc_status st = emit_graph(em);
    if (st != NPUC_OK)
        return st;
    if (!em->e.tiling || !em->e.tiling->single)
        emit_join(em);
    entry.n_steps = (int32_t)out->steps.len - entry.first_step;
    entry.n_outputs = (int32_t)em->outputs.len;
    entry.outputs = arena_copy(&out->arena, em->outputs.data, em->outputs.len * (int64_t)sizeof(int32_t));
    entry.n_caches = (int32_t)em->caches.len;
    entry.caches = arena_copy(&out->arena, em->caches.data, em->caches.len * (int64_t)sizeof(struct plan_cache));
    vec_push(&out->arena, &out->entries, entry);
    plan_lifetimes(out, &entry, first_tensor, em->e.arena);
    plan_residency(out, &entry, first_tensor, em->e.m, em->e.arena);
    *weights = (struct plan_weight_source){.put = weight_put, .user = &em->e};
    return NPUC_OK;
}
