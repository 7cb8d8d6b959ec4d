#include "tools/analysis/variant.h"

#include <math.h>
#include <string.h>

#include "ir/eval.h"
#include "tools/model_args.h"

const char *const variant_part_names[PART_COUNT] = {"all", "weights", "inputs", "caches"};

int64_t product_place(const struct product_list *l, const char *name)
{
    const uint64_t *at = map_find(&l->by_name, map_hash_bytes(name, (int64_t)strlen(name)));
    return at ? (int64_t)*at - 1 : -1;
}

const struct graph *variant_graph(const struct variant *v)
{
    return v->c.module->funcs.data[0];
}

/* ---- the recipe's part */

static const struct quant_product *filtered(struct variant *v, const struct quant_product *form)
{
    struct quant_product *part = ARENA_NEW(&v->c.arena, struct quant_product);
    *part = *form;
    if (v->want.part == PART_WEIGHTS)
        part->input.codes = DT_NONE;
    if (v->want.part == PART_INPUTS)
        part->weight.codes = DT_NONE;
    return part->input.codes == DT_NONE && part->weight.codes == DT_NONE ? NULL : part;
}

static const struct quant_product *ask(void *user, const struct node *n, const char *name)
{
    struct variant *v = user;
    struct product_list *l = (struct product_list *)(uintptr_t)v->list;
    int64_t at = product_place(l, name);
    if (!v->products) {
        vec_push(l->arena, &l->names, arena_strndup(l->arena, name, (int64_t)strlen(name)));
        at = l->names.len - 1;
        map_put(&l->by_name, map_hash_bytes(name, (int64_t)strlen(name)), (uint64_t)at + 1);
    } else if (at >= 0) {
        v->products[at] = (struct variant_product){n, n};
    }
    const struct quantiser *base = v->want.base;
    if (!base || at < 0 || v->want.part == PART_CACHES || (v->want.on && !v->want.on[at]))
        return NULL;
    const struct quant_product *form = base->product(base->user, n, name);
    form = form ? filtered(v, form) : NULL;
    v->n_coded += form != NULL;
    return form;
}

static const char *encode(void *user, const char *name, const struct quant_operand *o, const struct quant_matrix *w,
                          struct quant_codes *out, struct arena *a)
{
    struct variant *v = user;
    return v->want.base->encode(v->want.base->user, name, o, w, out, a);
}

static const struct quant_operand *ask_cache(void *user, const char *input, bool keys)
{
    const struct variant *v = user;
    return v->want.base->cache(v->want.base->user, input, keys);
}

static const struct quant_turn *ask_turn(void *user, const char *input)
{
    const struct variant *v = user;
    return v->want.base->turn(v->want.base->user, input);
}

/* The passes up to the one that applies the recipe, as compile runs them. */
static enum npuc_status apply(struct variant *v)
{
    const enum pass_id until = v->want.caches ? PASS_code_caches : PASS_apply_recipe;
    int64_t n, used = 0;
    const struct pass_step *steps = pass_pipeline(&n);
    const struct pass_run run = {0};
    while (used < n && steps[used].id != until)
        used++;
    pass_ctx_init(&v->c.px, v->c.module, v->want.caches ? &v->c.info : NULL);
    v->c.has_px = true;
    v->c.px.options.cache_capacity = v->c.options.cache_capacity;
    v->filter.cache = v->want.caches && v->want.base->cache ? ask_cache : NULL;
    v->filter.turn = v->want.caches && v->want.base->turn ? ask_turn : NULL;
    v->c.px.options.quantiser = &v->filter;
    return pass_run_all(&v->c.px, steps, used + 1, &run);
}

/* ---- finding products again */

/* A correction is an Add of a constant that the recipe put behind the product, its only user. */
static const struct node *end_of(const struct variant *v, const struct node *n)
{
    const struct use *u = n->out[0].uses;
    const bool added = u && !u->next && u->user->op == OP_Add && u->user->id >= v->n_model_nodes;
    return added && (value_const(node_in(u->user, 0)) || value_const(node_in(u->user, 1))) ? u->user : n;
}

/* Nodes of another model by the names of the products; it came with its own operands, quantised or not. */
static void find_by_name(struct variant *v, const struct graph *g)
{
    for_each_node (n, g) {
        const bool product = n->op == OP_MatMul || n->op == OP_Gemm || n->op == OP_Conv || n->op == OP_FusedMatMul;
        const char *name = n->loc && n->loc->n > 0 ? str_text(&v->c.cx.strings, n->loc->names[0]) : "";
        const int64_t at = product ? product_place(v->list, name) : -1;
        if (at >= 0)
            v->products[at] = (struct variant_product){n, n};
        for_each_region(r, n) find_by_name(v, r);
    }
}

static bool find_all(struct variant *v, const char *model, int *exit_code)
{
    enum npuc_status s = NPUC_OK;
    if (v->list->names.len == 0) { /* the first model: who is asked for becomes the list */
        s = apply(v);
        pass_ctx_free(&v->c.px);
        v->c.has_px = false;
    }
    if (s == NPUC_OK && v->list->names.len == 0)
        s = diag_error_text(
            &v->c.diag, &(struct diag_loc){.file = model, .index = -1}, D_UNSUPPORTED,
            "the model has no MatMul, Gemm or Conv with a constant weight: there is nothing to compare");
    v->products = ARENA_ARRAY(&v->c.arena, struct variant_product, v->list->names.len + 1);
    if (s == NPUC_OK && v->want.other)
        find_by_name(v, variant_graph(v));
    else if (s == NPUC_OK)
        s = apply(v);
    for (int64_t i = 0; s == NPUC_OK && !v->want.caches && i < v->list->names.len; i++)
        if (v->products[i].n) {
            v->products[i].end = end_of(v, v->products[i].n);
            map_put(&v->by_end, v->products[i].end->id, (uint64_t)i + 1);
        }
    *exit_code = diag_exit_code(s);
    return s == NPUC_OK;
}

bool variant_open(struct variant *v, const char *model, const struct args *a, struct product_list *list,
                  const struct variant_want *want, int *exit_code)
{
    *v = (struct variant){.want = *want, .list = list};
    compilation_init(&v->c);
    map_init(&v->by_end, &v->c.arena);
    v->filter = (struct quantiser){.user = v, .product = ask, .encode = encode, .apart = true};
    if (!model_args(a, &v->c, exit_code))
        return false;
    v->c.options.recipe = NULL;
    const enum npuc_status s = compilation_import(&v->c, model);
    *exit_code = diag_exit_code(s);
    if (s != NPUC_OK)
        return false;
    v->n_model_nodes = v->c.module->n_nodes;
    return find_all(v, model, exit_code);
}

void variant_close(struct variant *v)
{
    compilation_free(&v->c);
}

/* ---- one product by itself */

struct slice {
    struct variant *v;
    const struct node *plain;
    const struct k_tensor *const *in;
    struct map done; /* value id -> struct k_tensor */
    struct arena *arena;
    struct clipping *clipped;
};

/* Elements outside of what the codes reach: those whose code is an extreme and which lie beyond half a step of it. */
static void count_clipped(struct slice *s, const struct node *n, const struct k_tensor *const *in,
                          const struct k_tensor *codes)
{
    const double scale = k_count(in[1]) == 1 ? k_get_f64(in[1], 0) : 0;
    const double zero = in[2] ? k_get_f64(in[2], 0) : 0;
    const int bits = dtype_table[codes->dtype].bits;
    const bool wide = dtype_table[codes->dtype].cls == DTC_UINT;
    const double least = wide ? 0 : -ldexp(1, bits - 1), most = least + ldexp(1, bits) - 1;
    if (n->op != OP_QuantizeLinear || scale <= 0 || dtype_is_float(codes->dtype))
        return;
    s->clipped->of += k_count(in[0]);
    for (int64_t i = 0; i < k_count(in[0]); i++) {
        const double q = k_get_f64(in[0], i) / scale + zero;
        s->clipped->n += q < least - 0.5 || q > most + 0.5;
    }
}

static const struct k_tensor *slice_value(struct slice *s, const struct value *v, int depth);

static const struct k_tensor *keep(struct slice *s, const struct value *v, const struct k_tensor *t)
{
    struct k_tensor *to = ARENA_NEW(s->arena, struct k_tensor);
    *to = *t;
    map_put(&s->done, v->id, (uint64_t)(uintptr_t)to);
    return to;
}

static bool slice_node(struct slice *s, const struct node *n, int depth)
{
    const struct k_tensor **in = ARENA_ARRAY(s->arena, const struct k_tensor *, n->n_in + 3);
    struct k_tensor *out = ARENA_ARRAY(s->arena, struct k_tensor, n->n_out + 1);
    if (depth > 64 || node_region(n, 0))
        return false;
    for (int i = 0; i < n->n_in; i++)
        if (node_in(n, i) && !(in[i] = slice_value(s, node_in(n, i), depth + 1)))
            return false;
    if (ir_eval_node(&s->v->c.cx, n, in, NULL, out, s->arena) != NPUC_OK)
        return false;
    if (n->n_out > 0 && n->n_in > 1)
        count_clipped(s, n, in, &out[0]);
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i))
            keep(s, &n->out[i], &out[i]);
    return true;
}

static const struct k_tensor *slice_value(struct slice *s, const struct value *v, int depth)
{
    const uint64_t *done = map_find(&s->done, v->id);
    struct k_tensor t;
    if (done)
        return (const struct k_tensor *)(uintptr_t)*done;
    for (int i = 0; i < s->plain->n_in; i++)
        if (node_in(s->plain, i) && node_in(s->plain, i)->id == v->id)
            return s->in[i];
    const struct blob *b = value_const(v);
    if (b)
        return blob_tensor(&s->v->c.cx, v->type, b, &t) ? keep(s, v, &t) : NULL;
    if (!v->def || !slice_node(s, v->def, depth))
        return NULL;
    done = map_find(&s->done, v->id);
    return done ? (const struct k_tensor *)(uintptr_t)*done : NULL;
}

bool variant_local(struct variant *v, int64_t place, const struct node *plain, const struct k_tensor *const *in,
                   struct variant_result *out, struct arena *arena)
{
    const struct variant_product *p = &v->products[place];
    struct slice s = {.v = v, .plain = plain, .in = in, .arena = arena, .clipped = &out->clipped};
    out->clipped = (struct clipping){0};
    map_init(&s.done, arena);
    const struct k_tensor *t = p->n && p->n->id == plain->id ? slice_value(&s, &p->end->out[0], 0) : NULL;
    if (t)
        out->y = *t;
    return t != NULL;
}
