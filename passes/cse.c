/* Common subexpressions: of two nodes with the same operator, operands and attributes the later one goes.
 *
 *   %a = Less %i, %j : bool[seq,total]
 *   %b = Less %i, %j : bool[seq,total]
 *   Yield %a, %b          becomes  Yield %a, %a
 *
 * Exporters repeat mask and rotary subgraphs per layer; here they become one.
 * Requirements: (1) nodes with side effects, bodies or random results stay; (2) operands are compared by identity, so
 * one walk in order finds chains; (3) constants are equal when type and bytes are (small ones) or the blob is. */
#include "passes/pass.h"

static bool mergeable(const struct node *n)
{
    return !op_has((enum op)n->op, T_SIDE_EFFECT | T_REGION | T_NONDETERMINISTIC | T_DATA_SHAPE | T_TERMINATOR) &&
           n->n_out > 0;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    return (h ^ v) * 0x9e3779b97f4a7c15ull;
}

static uint64_t hash_node(const struct node *n)
{
    uint64_t h = mix(n->op, (uint64_t)n->n_in * 64 + n->n_out);
    for (int i = 0; i < n->n_in; i++)
        h = mix(h, n->in[i].value ? n->in[i].value->id + 1u : 0u);
    for (int i = 0; i < n->n_out; i++) {
        const struct type *t = n->out[i].type;
        h = mix(h, (uint64_t)t->dtype * 64 + (uint64_t)(t->rank + 1));
        for (int k = 0; k < t->rank; k++)
            h = mix(h, (uint64_t)t->dims[k]);
    }
    for (int i = 0; i < op_table[n->op]->n_attrs; i++) {
        const struct attr *a = &n->attrs[i];
        int64_t size;
        const void *p = attr_payload(a, &size);
        h = mix(h, size > 0 ? map_hash_bytes(p, size) : a->kind == ATTR_INT ? (uint64_t)a->v.i : (uint64_t)a->kind);
        if (a->kind == ATTR_TENSOR && a->v.t.blob->data && a->v.t.blob->size <= IR_SMALL_CONSTANT)
            h = mix(h, map_hash_bytes(a->v.t.blob->data, a->v.t.blob->size));
    }
    return h;
}

static bool same_node(const struct node *a, const struct node *b)
{
    if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out)
        return false;
    for (int i = 0; i < a->n_in; i++)
        if (a->in[i].value != b->in[i].value)
            return false;
    for (int i = 0; i < a->n_out; i++)
        if (a->out[i].type != b->out[i].type)
            return false;
    return node_same_attrs(a, b);
}

/* The first node equal to n, or NULL after n has been noted. Different nodes of one hash stand under successive hashes.
 */
static struct node *first_equal(struct map *seen, struct node *n)
{
    uint64_t h = hash_node(n);
    for (uint64_t *known; (known = map_find(seen, h)) != NULL; h = mix(h, 1)) {
        struct node *first = (struct node *)(uintptr_t)*known;
        if (same_node(first, n))
            return first;
    }
    map_put(seen, h, (uint64_t)(uintptr_t)n);
    return NULL;
}

/* A result of the function keeps the Identity that gives it its name, although another result has the same value. */
static bool replace_node(struct node *n, struct node *with)
{
    bool used = false;
    for (int i = 0; i < n->n_out; i++) {
        ir_replace_all(&n->out[i], &with->out[i]);
        used = used || n->out[i].uses;
    }
    if (!used)
        ir_erase(n);
    return !used;
}

enum npuc_status cse(struct pass_ctx *px, struct graph *g)
{
    struct map seen;
    map_init(&seen, &px->arena);
    for_each_node_safe(n, g)
    {
        struct node *first = mergeable(n) ? first_equal(&seen, n) : NULL;
        if (first && ir_may_rewrite(px->cx) && replace_node(n, first))
            pass_count(px, STAT_cse_merged, 1);
    }
    return NPUC_OK;
}
