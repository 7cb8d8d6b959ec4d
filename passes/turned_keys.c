/* Keys of a cache of codes are turned, and queries with them:
 *
 *   %present = CacheAppend %past, %new {axis=2 capacity=C} : f32[b,2,t,16] cache
 *   %s = FusedMatMul %q, %present {transB=1}
 * becomes
 *   %m = MatMul %new, turn;  %present = CacheAppend %past, %m {axis=2 capacity=C}
 *   %r = MatMul %q, back';   %s = FusedMatMul %r, %present {transB=1}
 * where turn and back, its inverse, are constants [2,16,16]: the sums are those of the model but for rounding. Rows
 * that enter or leave the model are turned by the runtime (CacheEncode, CacheDecode). Requirements: (1) called by
 * code_caches for a cache that it is about to code; (2) every product of the cache is one of queries with as many heads
 * as it has, below casts at most: each gets turned queries; (3) a cast is read by products alone, since an output of
 * the model is turned back and they are not. Anything else leaves the keys as they are. */
#include "passes/turned_keys.h"

#include <string.h>

typedef enum npuc_status product_fn(void *user, struct node *product);

static bool is_product(const struct use *u)
{
    const struct node *n = u->user;
    return (n->op == OP_MatMul || n->op == OP_FusedMatMul) && u == &n->in[1] && node_attr_int(n, "transB", 0) != 0 &&
           node_attr_int(n, "transA", 0) == 0;
}

/* Are there as many heads of queries? */
static bool fits_heads(const struct node *product, const struct type *keys)
{
    const struct type *q = node_in(product, 0)->type;
    return q->rank == keys->rank && q->dims[q->rank - 3] == keys->dims[keys->rank - 3] &&
           q->dims[q->rank - 1] == keys->dims[keys->rank - 1];
}

/* Counts products; below 0: something else reads v. */
static int64_t count_products(const struct value *v, bool is_cast)
{
    int64_t count = 0;
    for_each_use (u, v) {
        const struct node *n = u->user;
        if (n->op == OP_Yield && !is_cast)
            continue;
        const bool narrows = n->op == OP_Cast && !is_cast && dtype_is_float(n->out[0].type->dtype);
        const int64_t more = narrows                                   ? count_products(&n->out[0], true)
                             : is_product(u) && fits_heads(n, v->type) ? 1
                                                                       : -1;
        if (more < 0)
            return -1;
        count += more;
    }
    return count;
}

/* fn on each product that reads v. */
static enum npuc_status each_product(const struct value *v, product_fn *fn, void *user)
{
    enum npuc_status s = NPUC_OK;
    for (struct use *u = v->uses; s == NPUC_OK && u; u = u->next) {
        if (u->user->op == OP_Cast)
            s = each_product(&u->user->out[0], fn, user);
        else if (u->user->op != OP_Yield)
            s = fn(user, u->user);
    }
    return s;
}

bool turned_keys_possible(const struct ir_ctx *cx, const struct value *present, int64_t axis, struct turned_keys *t)
{
    const struct type *k = present->type;
    *t = (struct turned_keys){0};
    return k->rank >= 3 && axis == k->rank - 2 && expr_is_const(&cx->exprs, k->dims[k->rank - 3], &t->heads) &&
           expr_is_const(&cx->exprs, k->dims[k->rank - 1], &t->size) && t->heads > 0 && t->size > 0 &&
           count_products(present, false) > 0;
}

struct note {
    const struct quantiser *q;
    const char *input;
};

static enum npuc_status note_product(void *user, struct node *product)
{
    const struct note *n = user;
    n->q->keys(n->q->user, n->input, product);
    return NPUC_OK;
}

void turned_keys_note(const struct quantiser *q, const char *input, const struct value *present)
{
    struct note n = {q, input};
    (void)each_product(present, note_product, &n);
}

/* ---- turning */

static struct value *matrices(struct builder *b, const struct quant_turn *by, const float *data)
{
    const int64_t dims[3] = {by->heads, by->size, by->size};
    return ir_const(b, DT_F32, 3, dims, data, by->heads * by->size * by->size * (int64_t)sizeof *data);
}

/* x times the matrices, in the type of x. */
static struct value *multiplied(struct builder *b, struct value *x, struct value *m)
{
    struct value *typed = m ? ir_cast(b, m, x->type->dtype) : NULL;
    return typed ? ir_op2(b, OP_MatMul, x, typed) : NULL;
}

struct turning {
    struct pass_ctx *px;
    const struct quant_turn *by;
    float *across; /* the matrices of back, transposed */
};

static enum npuc_status turn_queries(void *user, struct node *product)
{
    const struct turning *t = user;
    struct builder b = ir_at(product);
    struct value *q = multiplied(&b, node_in(product, 0), matrices(&b, t->by, t->across));
    if (!q)
        return pass_failure(t->px);
    ir_set_input(product, 0, q);
    return NPUC_OK;
}

enum npuc_status turned_keys_make(struct pass_ctx *px, struct node *append, const struct quant_turn *by,
                                  struct turned_keys *t)
{
    struct builder b = ir_at(append);
    const int64_t n = by->size;
    struct turning turning = {px, by, ARENA_ARRAY(&px->arena, float, by->heads *n *n)};
    if (!turning.across)
        return NPUC_E_NOMEM;
    for (int64_t h = 0; h < by->heads; h++)
        for (int64_t i = 0; i < n * n; i++)
            turning.across[h * n * n + i] = by->back[h * n * n + i % n * n + i / n];
    t->turn = matrices(&b, by, by->turn);
    t->back = matrices(&b, by, by->back);
    struct value *rows = t->turn && t->back ? multiplied(&b, node_in(append, 1), t->turn) : NULL;
    if (!rows)
        return pass_failure(px);
    ir_set_input(append, 1, rows);
    const enum npuc_status s = each_product(&append->out[0], turn_queries, &turning);
    if (s == NPUC_OK)
        pass_count(px, STAT_code_caches_turned, 1);
    return s;
}
