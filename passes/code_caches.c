/* KV caches as a recipe wants them coded.
 *
 *   func @main(%past: f32[b,2,p,16] cache, ..) {
 *     %present = CacheAppend %past, %new {axis=2 capacity=C} : f32[b,2,t,16] cache
 *     %s = FusedMatMul %q, %present {transB=1}
 *     Yield %s, %present }
 * becomes, for int8 with a scale per row,
 *   func @main(%past: f32[b,2,p,16], ..) {
 *     %c0, %s0 = CacheEncode %past {axis=2 capacity=C code=3} : i8[b,2,p,16] cache, f16[b,2,p,1] cache
 *     %c1, %s1 = CacheAppendCoded %c0, %s0, %new {axis=2 code=3} : i8[b,2,t,16] cache, f16[b,2,t,1] cache
 *     %k = CacheDecode %c1, %s1 {code=3} : f32[b,2,t,16];   %s = FusedMatMul %q, %k {transB=1}
 *     %present = CacheDecode %c1, %s1 {code=3};             Yield %s, %present }
 *
 * CacheEncode is no step: the persistent buffers hold codes, the runtime codes a past that is given and decodes a
 * present that is asked for. Where the recipe has matrices for keys, new rows and queries are multiplied by them
 * (turned_keys.c), and the runtime does likewise with a past and a present. Every reader has a CacheDecode of its own,
 * so that it may become part of its kernel. Requirements: (1) runs after kv_cache, which makes the appends, and after
 * the passes that choose types: casts around a cache disappear, since codes are made from any float and decoded to any;
 * (2) rows lie along the last axis, and their length is known; (3) a CacheAppend of the interface is replaced, so it
 * terminates. Left alone: caches along the last axis and those whose rows have no even length for packed codes. */
#include "ir/cache_code.h"
#include "passes/match.h"
#include "passes/turned_keys.h"

/* What the nodes of a cache have in common. */
struct coding {
    struct builder *b;
    const struct quant_operand *form;
    int64_t axis;
    struct value *turn, *back; /* matrices for rows at the interface; NULL: none */
};

static void set_code(const struct coding *c, struct node *n)
{
    ir_set_int(n, "code", dtype_table[c->form->codes].onnx);
    ir_set_int(n, "zero", c->form->shifted);
}

static struct node *encoded(const struct coding *c, struct value *past, int64_t capacity)
{
    struct value *in[2] = {past, c->turn};
    struct node *n = ir_new(c->b, OP_CacheEncode, c->turn ? 2 : 1, in, 2);
    set_code(c, n);
    ir_set_int(n, "axis", c->axis);
    ir_set_int(n, "capacity", capacity);
    ir_set_int(n, "group", c->form->per == QUANT_PER_GROUP ? c->form->group : 0);
    return ir_infer(n) == NPUC_OK ? n : NULL;
}

/* The value before casts to wider floats. */
static struct value *narrowest(struct value *v)
{
    while (v->def && v->def->op == OP_Cast && dtype_is_float(node_in(v->def, 0)->type->dtype) &&
           dtype_size(node_in(v->def, 0)->type->dtype) < dtype_size(v->type->dtype))
        v = node_in(v->def, 0);
    return v;
}

static struct node *appended(const struct coding *c, const struct node *old, struct node *past)
{
    struct value *in[5] = {&past->out[0], &past->out[1], narrowest(node_in(old, 1)), node_in(old, 2), node_in(old, 3)};
    struct node *n = ir_new(c->b, OP_CacheAppendCoded, in[4] ? 5 : in[3] ? 4 : 3, in, 2);
    set_code(c, n);
    ir_set_int(n, "axis", c->axis);
    return ir_infer(n) == NPUC_OK ? n : NULL;
}

static struct value *decoded(const struct coding *c, struct node *cache, enum dtype to, struct value *back)
{
    struct builder b = *c->b;
    struct value *in[3] = {&cache->out[0], &cache->out[1], back};
    struct node *n = ir_new(&b, OP_CacheDecode, back ? 3 : 2, in, 1);
    set_code(c, n);
    ir_set_int(n, "to", dtype_table[to].onnx);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

/* Is the use a cast to a narrower float, which decoding does as well? */
static bool is_narrowing(const struct use *u)
{
    const struct node *n = u->user;
    return n->op == OP_Cast && dtype_is_float(n->out[0].type->dtype) &&
           dtype_size(n->out[0].type->dtype) <= dtype_size(node_in(n, 0)->type->dtype);
}

/* Every use of `present` reads a CacheDecode of its own. */
static bool read_decoded(const struct coding *c, struct value *present, struct node *cache)
{
    const sym name = present->name;
    for (struct use *u = present->uses, *next; u; u = next) {
        next = u->next;
        struct node *user = u->user;
        const bool cast = is_narrowing(u);
        struct value *v = decoded(c, cache, cast ? user->out[0].type->dtype : present->type->dtype,
                                  user->op == OP_Yield ? c->back : NULL);
        if (!v)
            return false;
        if (cast) {
            v->def->loc = user->loc;
            ir_replace_all(&user->out[0], v);
            ir_erase(user);
            continue;
        }
        if (user->op == OP_Yield)
            v->name = name;
        ir_set_input(user, (int)(u - user->in), v);
        if (user->op != OP_Yield && ir_infer(user) != NPUC_OK) /* it may have passed on the layout */
            return false;
    }
    return true;
}

/* Does it append to a cache of the interface? */
static bool is_append(const struct node *n)
{
    const struct value *past = node_in(n, 0);
    return n->op == OP_CacheAppend && past && !past->def && past->graph == n->graph &&
           past->type->layout.kind == LAYOUT_CACHE && value_has_one_use(past);
}

/* Keys are the right operand of a product that sums along their rows; values are summed over the rows. */
static bool holds_keys(const struct value *v)
{
    for_each_use (u, v) {
        const struct node *n = u->user;
        const bool product = n->op == OP_MatMul || n->op == OP_FusedMatMul;
        if (product && u == &n->in[1] && node_attr_int(n, "transB", 0) != 0)
            return true;
        if (n->op == OP_Cast && v->def && v->def->op != OP_Cast && holds_keys(&n->out[0]))
            return true;
    }
    return false;
}

static bool takes(const struct pass_ctx *px, const struct node *n, const struct quant_operand *form, int64_t *axis)
{
    const struct type *t = n->out[0].type;
    int64_t size;
    *axis = t->layout.axis;
    return *axis < t->rank - 1 && expr_is_const(&px->cx->exprs, t->dims[t->rank - 1], &size) &&
           k_cache_takes(form->codes, form->shifted, size);
}

/* The past as the interface shows it. Sizes that only the new rows tell are those of the cache, too. */
static const struct type *plain_type(struct ir_ctx *cx, const struct type *past, const struct type *present,
                                     int64_t axis)
{
    expr dims[IR_MAX_RANK];
    for (int i = 0; i < past->rank; i++)
        dims[i] = i == axis ? past->dims[i] : present->dims[i];
    return type_tensor(cx, past->dtype, past->rank, dims);
}

/* By the recipe's matrices for this cache, if it has any. */
static enum npuc_status turn_keys(struct pass_ctx *px, struct node *n, int64_t axis, struct turned_keys *t)
{
    const struct quantiser *q = px->options.quantiser;
    const char *input = str_text(&px->cx->strings, node_in(n, 0)->name);
    const struct quant_turn *by = q->turn ? q->turn(q->user, input) : NULL;
    if (!by)
        return NPUC_OK;
    if (!turned_keys_possible(px->cx, &n->out[0], axis, t))
        return node_error(px->cx, n, D_UNSUPPORTED,
                          "the recipe turns keys of '%s', which others than products of queries read; take its line "
                          "turn = data away",
                          input);
    if (by->heads != t->heads || by->size != t->size)
        return node_error(px->cx, n, D_SHAPE_MISMATCH,
                          "the recipe turns keys of '%s' by %lld matrices of %lld by %lld; expected %lld of %lld by "
                          "%lld: was it made for another model?",
                          input, (long long)by->heads, (long long)by->size, (long long)by->size, (long long)t->heads,
                          (long long)t->size, (long long)t->size);
    return turned_keys_make(px, n, by, t);
}

static enum npuc_status code_cache(struct pass_ctx *px, struct node *n, const struct quant_operand *form, int64_t axis)
{
    struct builder b = ir_at(n);
    struct value *past = node_in(n, 0);
    const struct layout l = past->type->layout;
    const bool grows = past->type->dims[axis] != l.capacity;
    int64_t capacity = 0;
    if (grows && !expr_is_const(&px->cx->exprs, l.capacity, &capacity))
        return NPUC_E_INTERNAL;
    struct turned_keys t = {0};
    enum npuc_status s = turn_keys(px, n, axis, &t);
    if (s != NPUC_OK)
        return s;
    const struct coding c = {&b, form, axis, t.turn, t.back};
    past->type = plain_type(px->cx, past->type, n->out[0].type, axis);
    struct node *first = encoded(&c, past, capacity), *cache = first ? appended(&c, n, first) : NULL;
    if (!cache || !read_decoded(&c, &n->out[0], cache))
        return pass_failure(px);
    ir_erase(n);
    pass_count(px, STAT_code_caches_coded, 1);
    return NPUC_OK;
}

static const struct quant_operand *form_of(const struct pass_ctx *px, const struct node *append)
{
    const struct quantiser *q = px->options.quantiser;
    return q->cache(q->user, str_text(&px->cx->strings, node_in(append, 0)->name), holds_keys(&append->out[0]));
}

enum npuc_status code_caches(struct pass_ctx *px, struct graph *g)
{
    const struct quantiser *q = px->options.quantiser;
    if (!q || !q->cache || g->owner)
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        int64_t axis;
        struct turned_keys keys;
        if (q->keys && is_append(n) && turned_keys_possible(px->cx, &n->out[0], n->out[0].type->layout.axis, &keys))
            turned_keys_note(q, str_text(&px->cx->strings, node_in(n, 0)->name), &n->out[0]);
        const struct quant_operand *form = is_append(n) ? form_of(px, n) : NULL;
        if (!form || !takes(px, n, form, &axis) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = code_cache(px, n, form, axis);
        if (s != NPUC_OK)
            return s;
    }
    ir_dce(g);
    return NPUC_OK;
}
