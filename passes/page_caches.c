/* Caches in pages: rows of a sequence lie in pages of a pool that all sequences share, found by a block table.
 *
 *   func @main(%past: f16[b,2,p,64] cache(2, 2048), ...) {
 *     %present = CacheAppend %past, %new {axis=2} : f16[b,2,t,64] cache(2, 2048);  %y = MatMul %q, %present
 * becomes, with pages of 128 rows,
 *   func @main(%past: f16[b,2,p,64] cache(2, 2048, 128), ...) {
 *     %present = CacheAppend %past, %new {axis=2} : f16[b,2,t,64] cache(2, 2048, 128)
 *     %rows = TransData %present {layout="ND"} : f16[b,2,t,64];  %y = MatMul %q, %rows
 *
 * Dims and values stay what they are: pages are a storage order, in which rows have no constant stride, so readers get
 * dense rows. The capacity becomes a whole number of pages. Requirements: (1) a cache of the model's interface that
 * grows, one axis of sequences in front of the rows; (2) all such caches agree in that axis and in the capacity, for
 * they share one table; (3) runs once, after caches have got their final types. Left alone: caches of codes, and those
 * of a size that the model fixes. */
#include "passes/paged.h"

struct node *cache_append_of(const struct value *past)
{
    struct node *n = past->uses && value_has_one_use(past) ? past->uses->user : NULL;
    return n && n->op == OP_CacheAppend && node_in(n, 0) == past ? n : NULL;
}

bool cache_can_page(const struct value *past)
{
    const struct type *t = past->type;
    return t->kind == TYPE_TENSOR && t->layout.kind == LAYOUT_CACHE && !t->layout.page && t->layout.axis > 0 &&
           t->dims[t->layout.axis] != t->layout.capacity && cache_append_of(past);
}

/* Do both find their rows by the same table? */
static bool share_table(const struct type *a, const struct type *b)
{
    return a->dims[0] == b->dims[0] && a->layout.capacity == b->layout.capacity;
}

enum npuc_status cache_set_pages(struct pass_ctx *px, struct value *past, struct layout l, const char *why)
{
    struct ir_ctx *cx = px->cx;
    struct node *n = cache_append_of(past);
    past->type = type_with_layout(cx, past->type, l);
    ir_set_int(n, "capacity", 0); /* that of the operand's layout */
    enum npuc_status s = ir_infer(n);
    if (s != NPUC_OK)
        return s;
    struct builder b = n->next ? ir_at(n->next) : ir_at(n);
    struct value *present = &n->out[0];
    struct node *rows = ir_new(&b, OP_TransData, 1, &present, 1);
    ir_set_str(rows, "layout", "ND");
    ir_set_str(rows, "why", why);
    rows->loc = n->loc;
    s = ir_infer(rows);
    for_each_node_safe(r, n->graph)
    {
        for (int i = 0; s == NPUC_OK && i < r->n_in; i++)
            if (r->in[i].value == present && r != rows && r->op != OP_Yield)
                ir_set_input(r, i, &rows->out[0]);
    }
    if (s == NPUC_OK && !rows->out[0].uses)
        ir_erase(rows);
    return s;
}

static enum npuc_status make_paged(struct pass_ctx *px, struct value *past)
{
    struct expr_pool *x = &px->cx->exprs;
    struct layout l = past->type->layout;
    const expr page = expr_const(x, px->options.cache_page);
    l.page = px->options.cache_page;
    l.capacity = expr_mul(x, expr_ceildiv(x, l.capacity, page), page);
    pass_count(px, STAT_page_caches_paged, 1);
    return cache_set_pages(px, past, l, "rows of a sequence lie in pages");
}

enum npuc_status page_caches(struct pass_ctx *px, struct graph *g)
{
    const struct type *first = NULL;
    enum npuc_status s = NPUC_OK;
    if (px->options.cache_page <= 0 || g->owner)
        return NPUC_OK;
    for (int32_t i = 0; s == NPUC_OK && i < g->n_inputs; i++) {
        struct value *past = g->inputs[i];
        if (!cache_can_page(past) || (first && !share_table(first, past->type)) || !ir_may_rewrite(px->cx))
            continue;
        first = first ? first : past->type;
        s = make_paged(px, past);
    }
    return s;
}
