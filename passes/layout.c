/* Layouts: a value stored with gaps or in blocks meets a consumer that needs it dense; a TransData goes between.
 *
 *   %p = CacheAppend %past, %new : f32[b,2,t,16] cache        Reshape on the host or as a view needs dense rows
 *   %r = Reshape %p, %dims
 * becomes
 *   %d = TransData %p {layout="ND"} : f32[b,2,t,16];  %r = Reshape %d, %dims
 *
 * Consumers on the NPU were asked with the layout their operands have (place), so they take it. Weights of matrix
 * products are stored in FRACTAL_NZ by the backend at compile time and need no node. Requirements: (1) runs after
 * place; nodes that get a dense operand are placed again; (2) one TransData per value serves all its consumers; (3)
 * TransData of a TransData is the first operand where layouts cancel. */
#include "passes/pass.h"

static bool takes_any_layout(const struct node *n)
{
    return n->op == OP_Yield || n->op == OP_CacheAppend || n->op == OP_TransData || n->place == PLACE_NPU ||
           (n->op == OP_CacheDecode && n->place == PLACE_FREE);
}

static struct value *dense(struct pass_ctx *px, struct value *v, struct map *made, const struct node *reader)
{
    uint64_t *known = map_find(made, v->id);
    if (known)
        return (struct value *)(uintptr_t)*known;
    struct builder b = v->def && v->def->next ? ir_at(v->def->next) : ir_at(v->graph->first);
    struct node *n = ir_new(&b, OP_TransData, 1, &v, 1);
    ir_set_str(n, "layout", "ND");
    ir_set_str(n, "why",
               arena_printf(&px->arena, "%s reads dense rows%s", op_table[reader->op]->name,
                            reader->place == PLACE_HOST ? " on the host" : ""));
    if (ir_infer(n) != NPUC_OK)
        return NULL;
    n->place = PLACE_NPU;
    n->loc = v->def ? v->def->loc : n->loc;
    map_put(made, v->id, (uint64_t)(uintptr_t)&n->out[0]);
    pass_count(px, STAT_layout_inserted, 1);
    return &n->out[0];
}

static enum npuc_status make_dense(struct pass_ctx *px, struct node *n, struct map *made)
{
    for (int i = 0; i < n->n_in; i++) {
        struct value *v = n->in[i].value;
        if (!v || v->type->kind != TYPE_TENSOR || v->type->layout.kind == LAYOUT_ND || !ir_may_rewrite(px->cx))
            continue;
        struct value *d = dense(px, v, made, n);
        if (!d)
            return NPUC_E_INTERNAL;
        ir_set_input(n, i, d);
    }
    return ir_infer(n);
}

static void cancel_pair(struct pass_ctx *px, struct node *n)
{
    struct node *before = n->in[0].value->def;
    if (before && before->op == OP_TransData && before->in[0].value->type == n->out[0].type && ir_may_rewrite(px->cx))
        ir_replace_all(&n->out[0], before->in[0].value);
}

enum npuc_status layout(struct pass_ctx *px, struct graph *g)
{
    struct map made;
    map_init(&made, &px->arena);
    for_each_node_safe(n, g)
    {
        if (n->op == OP_TransData)
            cancel_pair(px, n);
        bool blocked = false;
        for (int i = 0; i < n->n_in; i++)
            blocked = blocked || (n->in[i].value && n->in[i].value->type->kind == TYPE_TENSOR &&
                                  n->in[i].value->type->layout.kind != LAYOUT_ND);
        if (!blocked || takes_any_layout(n))
            continue;
        enum npuc_status s = make_dense(px, n, &made);
        if (s != NPUC_OK)
            return s;
    }
    ir_dce(g);
    return place(px, g);
}
