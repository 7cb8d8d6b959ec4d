/* Caches of which only a sliding window is read keep that: the last rows, in pages that a sequence takes in turn.
 *
 *   func @main(%past: f16[b,2,p,64] cache(2, 4096), ...) {
 *     %present = CacheAppend %past, %new {axis=2} : f16[b,2,t,64] cache(2, 4096)
 *     %s = FusedMatMul %q, %present;  %m = Where %keep, %s, -inf;  ...
 * becomes, where %keep hides what is 512 rows back or more and no call brings more than 512 new ones,
 *   func @main(%past: f16[b,2,p,64] cache(2, 4096, 256, 1024, 512), ...) {
 *     %present = CacheAppend %past, %new {axis=2} : f16[b,2,t,64] cache(2, 4096, 256, 1024, 512)
 *     %rows = TransData %present {layout="ND"} : f16[b,2,t,64];  %s = FusedMatMul %q, %rows;  ...
 *
 * Dims and values stay what they are. Rows that are gone show newer ones, which the mask hides as it hid the old: their
 * scores become -inf and their probabilities zero. Requirements: (1) a cache of the model's interface that grows, one
 * axis of sequences in front of the rows, which are not codes; (2) each reader is a product of queries with it or of
 * their probabilities, and between the two a mask hides what lies further back, counted from where the new rows are
 * appended; (3) calls are known to have no more new rows than there is room for, or the runtime refuses them; (4) the
 * ring is smaller than the cache; (5) runs once, before page_caches. Left alone: masks that add finite numbers. */
#include "ir/band.h"
#include "kernels/attend_chunks.h"
#include "passes/paged.h"

#define MAX_MEMBERS 32

struct reader {
    struct node *nodes[MAX_MEMBERS]; /* between the products */
    int n;
    struct node *last; /* the second product */
};

static bool is_product(const struct node *n)
{
    return n->op == OP_MatMul || n->op == OP_FusedMatMul;
}

static bool is_between(const struct node *n)
{
    const enum op_class c = op_table[n->op]->cls;
    return n->n_out == 1 && (c == CLS_ELEMENTWISE || c == CLS_REDUCE || c == CLS_NORM || n->op == OP_Cast ||
                             n->op == OP_Identity || op_has((enum op)n->op, T_VIEW));
}

/* Everything that is made of the scores, up to one product. */
static bool collect(struct node *first, struct reader *r)
{
    *r = (struct reader){.nodes = {first}, .n = 1};
    for (int i = 0; i < r->n; i++)
        for_each_use (u, &r->nodes[i]->out[0]) {
            struct node *n = u->user;
            bool known = n == r->last;
            for (int k = 0; !known && k < r->n; k++)
                known = r->nodes[k] == n;
            if (n->graph != first->graph || (n == r->last && u != &n->in[0]))
                return false;
            if (known)
                continue;
            if (is_product(n) && u == &n->in[0] && !r->last)
                r->last = n;
            else if (is_between(n) && r->n < MAX_MEMBERS)
                r->nodes[r->n++] = n;
            else
                return false;
        }
    return r->last != NULL;
}

/* The rows that the new ones begin behind. */
struct begin {
    expr past;                /* all sequences the same; */
    const struct value *data; /* not NULL: a number for each */
};

/* The band that the user leaves of scores. */
static struct ir_band hidden_by(struct ir_ctx *cx, const struct use *scores, expr keys)
{
    const struct node *n = scores->user;
    const struct type *t = n->out[0].type;
    const struct value *kept;
    struct ir_band band, none = {.has_last = false};
    if (t->rank < 2 || t->dims[t->rank - 1] != keys)
        return none;
    if (ir_read_choice(cx, n, t->dims[t->rank - 2], &kept, &band))
        return kept == scores->value && scores != &n->in[0] ? band : none;
    if (n->op == OP_Add)
        return ir_read_bias(cx, node_in(n, scores == &n->in[0]), t->dims[t->rank - 2]);
    return none;
}

/* Rows up to a row's own that it sees, 0: that is not known. The mask stands behind operators that work on single
 * scores. */
static int64_t window_of(struct pass_ctx *px, const struct reader *r, const struct begin *at)
{
    struct ir_ctx *cx = px->cx;
    const struct value *v = &r->nodes[0]->out[0];
    const expr keys = v->type->dims[v->type->rank - 1];
    while (value_has_one_use(v)) {
        const struct node *n = v->uses->user;
        int64_t back;
        const struct ir_band b = hidden_by(cx, v->uses, keys);
        const expr first = b.has_first ? b.first : EXPR_INVALID;
        if (b.has_first && b.first_data == at->data &&
            expr_is_const(&cx->exprs, expr_sub(&cx->exprs, at->data ? expr_const(&cx->exprs, 0) : at->past, first),
                          &back) &&
            back >= 0 && back < INT32_MAX)
            return back + 1;
        const bool single = op_table[n->op]->cls == CLS_ELEMENTWISE || n->op == OP_Cast || n->op == OP_Identity ||
                            op_has((enum op)n->op, T_VIEW);
        if (n->n_out != 1 || !single)
            return 0;
        v = &n->out[0];
    }
    return 0;
}

/* The window of the products that read `present`, as keys or as values; 0: one of them sees more. */
static int64_t window_of_readers(struct pass_ctx *px, struct value *present, const struct begin *at)
{
    int64_t widest = 0;
    for_each_use (u, present) {
        struct node *n = u->user;
        struct reader r;
        if (n->op == OP_Yield)
            continue;
        if (!is_product(n) || u != &n->in[1] || n->graph != present->graph)
            return 0;
        int64_t window = collect(n, &r) ? window_of(px, &r, at) : 0;
        for (struct node *first = n->graph->first; !window && first && first != n; first = first->next)
            if (is_product(first) && collect(first, &r) && r.last == n)
                window = window_of(px, &r, at);
        if (!window)
            return 0;
        widest = window > widest ? window : widest;
    }
    return widest;
}

/* The ring of a cache, 0: it stays as it is. */
static int64_t ring_of(struct pass_ctx *px, struct value *past, int64_t *window)
{
    struct ir_ctx *cx = px->cx;
    struct expr_pool *x = &cx->exprs;
    const struct node *n = cache_append_of(past);
    const int axis = past->type->layout.axis;
    const int64_t room = px->options.cache_ring > 0 ? px->options.cache_ring : PASS_RING_ROOM;
    int64_t capacity;
    const struct begin at = {past->type->dims[axis], node_in(n, 2) ? ir_numbers(cx, node_in(n, 2)) : NULL};
    if (!expr_is_const(x, past->type->layout.capacity, &capacity) || (node_in(n, 2) && !at.data) ||
        (px->options.cache_ring < 0 && !expr_proves_le(x, node_in(n, 1)->type->dims[axis], expr_const(x, room))))
        return 0;
    *window = window_of_readers(px, &cache_append_of(past)->out[0], &at);
    const int64_t rows = *window + room - 1, ring = (rows + ATTEND_CHUNK - 1) / ATTEND_CHUNK * ATTEND_CHUNK;
    return *window > 0 && ring < capacity ? ring : 0;
}

enum npuc_status ring_caches(struct pass_ctx *px, struct graph *g)
{
    enum npuc_status s = NPUC_OK;
    if (px->options.cache_ring == 0 || g->owner)
        return NPUC_OK;
    for (int32_t i = 0; s == NPUC_OK && i < g->n_inputs; i++) {
        struct value *past = g->inputs[i];
        int64_t window;
        const int64_t ring = cache_can_page(past) ? ring_of(px, past, &window) : 0;
        if (ring == 0 || !ir_may_rewrite(px->cx))
            continue;
        struct layout l = past->type->layout;
        l.page = ATTEND_CHUNK;
        l.ring = ring;
        l.window = window;
        s = cache_set_pages(px, past, l, "rows of a sequence lie in a ring");
        pass_count(px, STAT_ring_caches_rings, 1);
    }
    return s;
}
