/* Erases nodes whose results nobody uses, and trims Fused nodes to the operands and results that are used.
 *
 *   %a = Exp %x : f32[4]
 *   %b, %c = Fused %x, %y {body=(%p: f32[4], %q: f32[4]) { %r = Neg %p : f32[4]  %s = Abs %q : f32[4]  Yield %r, %s }}
 *   Yield %b
 * becomes
 *   %b = Fused %x {body=(%p: f32[4]) { %r = Neg %p : f32[4]  Yield %r }}
 *   Yield %b
 *
 * Requirements: (1) nodes with side effects stay, and nodes whose result tells a size that a SizeOf gives; (2) users
 * are visited before what they use, bodies before the operands of their owner, so one round finds everything; (3) the
 * inputs of a function are its interface and stay. Left alone: results and loop-carried values of If, Loop and Scan
 * (their bodies' arity is tied to the operator). */
#include "passes/pass.h"

static int count_used(const struct node *n)
{
    int used = 0;
    for (int i = 0; i < n->n_out; i++)
        used += n->out[i].uses != NULL;
    return used;
}

static int count_read(const struct graph *body)
{
    int read = 0;
    for (int i = 0; i < body->n_inputs; i++)
        read += body->inputs[i]->uses != NULL;
    return read;
}

/* The Yield of a trimmed body hands out the results that are used. */
static void trim_yield(struct node *fused, struct graph *body, int n_out)
{
    struct node *yield = graph_yield(body);
    struct node *with = ir_resized(yield, n_out, 0);
    for (int i = 0, k = 0; i < fused->n_out; i++)
        if (fused->out[i].uses)
            ir_set_input(with, k++, yield->in[i].value);
    ir_erase(yield);
}

static void trim_inputs(struct node *from, struct node *to, struct graph *body)
{
    int kept = 0;
    for (int i = 0; i < body->n_inputs; i++) {
        if (!body->inputs[i]->uses)
            continue;
        ir_set_input(to, kept, from->in[i].value);
        body->inputs[i]->index = (uint32_t)kept;
        body->inputs[kept++] = body->inputs[i];
    }
    body->n_inputs = kept;
}

static void move_results(struct node *from, struct node *to)
{
    for (int i = 0, k = 0; i < from->n_out; i++) {
        struct value *old = &from->out[i];
        if (!old->uses)
            continue;
        struct value *out = &to->out[k++];
        out->type = old->type;
        out->elems = old->elems;
        out->n_elems = old->n_elems;
        out->name = old->name;
        ir_replace_all(old, out);
    }
}

static void trim_fused(struct pass_ctx *px, struct node *n)
{
    struct graph *body = node_region(n, 0);
    const int n_out = count_used(n);
    if (n_out < n->n_out) {
        if (!ir_may_rewrite(px->cx))
            return;
        pass_count(px, STAT_dce_trimmed, n->n_out - n_out);
        trim_yield(n, body, n_out);
        pass_count(px, STAT_dce_erased, ir_dce(body));
    }
    const int n_in = count_read(body);
    if (n_out == n->n_out && (n_in == n->n_in || !ir_may_rewrite(px->cx)))
        return;
    pass_count(px, STAT_dce_trimmed, n->n_in - n_in);
    struct node *with = ir_resized(n, n_in, n_out);
    trim_inputs(n, with, body);
    move_results(n, with);
    ir_erase(n);
}

static void trim_graph(struct pass_ctx *px, struct graph *g)
{
    for (struct node *n = g->last, *prev; n; n = prev) {
        prev = n->prev;
        for_each_region(r, n) trim_graph(px, r);
        if (n->op == OP_Fused && count_used(n) > 0)
            trim_fused(px, n);
    }
}

enum npuc_status dce(struct pass_ctx *px, struct graph *g)
{
    if (!ir_may_rewrite(px->cx))
        return NPUC_OK;
    pass_count(px, STAT_dce_erased, ir_dce(g));
    trim_graph(px, g);
    pass_count(px, STAT_dce_erased, ir_dce(g)); /* what only trimmed operands used */
    return NPUC_OK;
}
