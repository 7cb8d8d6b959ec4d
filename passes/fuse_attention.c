/* Fuses attention - a product, operators on the rows of its result, a product with their result on the left - into one
 * Fused "attention" region, where the target has one kernel for it.
 *
 *   %s = FusedMatMul %q, %k {transB=1} : f32[b,8,s,t]
 *   %m = Where %keep, %s, %off : f32[b,8,s,t]
 *   %p = Softmax %m : f32[b,8,s,t]
 *   %y = MatMul %p, %v : f32[b,8,s,64]
 * becomes
 *   %y = Fused %q, %k, %keep, %v {kind="attention" body=(...) { FusedMatMul; Where; SoftmaxMatMul; Yield }} :
 * f32[b,8,s,64]
 *
 * Behind it, a Transpose that puts rows in front of heads and a cast of f32 to 16 bits, with the views between, belong
 * to the region where nothing else reads the result and the target's kernel writes it so.
 *
 * Members are the users of the scores, their users and so on up to the second product; masks and other operands enter
 * as inputs. Requirements: (1) every such user is a vector operator or a view on the NPU and all end in that one
 * product, so that no value of the region is seen elsewhere and none of its results comes back; (2) right operands are
 * computed, weights stay with the products that store them in their own form; (3) the target takes the region as a
 * whole, else the nodes stay as they were; (3a) decoders of caches that only these products read belong to it; (4) runs
 * after placement and before fuse_vector, which would take the operators in between; Fused nodes are not fused again.
 * Left alone: products with a column mask on the result, attention whose probabilities leave the model. */
#include "ir/ops/extent.h"
#include "kernels/attend_chunks.h"
#include "passes/attention.h"

#define MAX_MEMBERS 32
#define MAX_TAIL    6

struct members {
    struct node *nodes[MAX_MEMBERS]; /* the first is the product of the scores */
    int64_t n;
    struct node *last; /* the second product */
    bool reduces;
};

static bool is_product(const struct node *n)
{
    return (n->op == OP_MatMul || n->op == OP_FusedMatMul) && n->place == PLACE_NPU && n->in[0].value &&
           n->in[1].value && !value_const(n->in[1].value) && n->out[0].type->rank >= 2;
}

static bool is_view(const struct node *n)
{
    return n->place == PLACE_FREE && op_has((enum op)n->op, T_VIEW);
}

static bool is_row_operator(const struct node *n)
{
    const enum op_class c = op_table[n->op]->cls;
    return n->place == PLACE_NPU && n->n_out == 1 && (c == CLS_ELEMENTWISE || c == CLS_REDUCE || c == CLS_NORM);
}

static bool is_member(const struct members *m, const struct node *n)
{
    for (int64_t i = 0; i < m->n; i++)
        if (m->nodes[i] == n)
            return true;
    return false;
}

/* Takes a user of a member in; false when it ends the attempt. */
static bool take_user(struct members *m, const struct use *u)
{
    struct node *n = u->user;
    if (is_member(m, n) || n == m->last)
        return n != m->last || u == &n->in[0];
    if (is_product(n) && u == &n->in[0] && !m->last) {
        m->last = n;
        return true;
    }
    if ((!is_row_operator(n) && !(is_view(n) && u == &n->in[0])) || m->n == MAX_MEMBERS - 1)
        return false;
    m->reduces = m->reduces || op_has((enum op)n->op, T_REDUCE);
    m->nodes[m->n++] = n;
    return true;
}

static bool collect(struct node *first, struct members *m)
{
    *m = (struct members){.nodes = {first}, .n = 1};
    for (int64_t i = 0; i < m->n; i++)
        for_each_use (u, &m->nodes[i]->out[0])
            if (u->user->graph != first->graph || !take_user(m, u))
                return false;
    return m->last && m->reduces;
}

/* Members in the order of the graph, the second product last. */
static void sort_members(struct members *m)
{
    int64_t n = 0;
    struct members sorted = {.n = 0};
    for (struct node *x = m->last->graph->first; x != m->last; x = x->next)
        if (is_member(m, x))
            sorted.nodes[n++] = x;
    NPUC_ASSERT(n == m->n);
    sorted.nodes[n++] = m->last;
    for (int64_t i = 0; i < n; i++)
        m->nodes[i] = sorted.nodes[i];
    m->n = n;
}

/* Makes rows of a cache: of one of codes, or of one in pages of which chunks of keys are a few; or takes the first
 * columns of rows that lie in one piece, as values that are part of their keys (latent attention). */
static bool makes_rows(struct ir_ctx *cx, const struct node *n)
{
    const struct layout *l = &node_in(n, 0)->type->layout;
    if (n->op == OP_Slice)
        return (l->kind == LAYOUT_ND || (l->kind == LAYOUT_CACHE && !l->page)) && slice_takes_columns(cx, n);
    return n->op == OP_CacheDecode || (n->op == OP_TransData && l->kind == LAYOUT_CACHE && attend_takes_pages(l->page));
}

/* Those who make rows of the right operands that nobody else reads: the kernel reads codes, and pages. */
static void take_decoders(struct ir_ctx *cx, struct members *m)
{
    const struct node *products[] = {m->nodes[0], m->last};
    for (int i = 0; i < 2; i++) {
        struct value *v = node_in(products[i], 1);
        if (v->def && makes_rows(cx, v->def) && v->def->place == PLACE_NPU && v->graph == m->last->graph &&
            value_has_one_use(v) && m->n < MAX_MEMBERS - 1)
            m->nodes[m->n++] = v->def;
    }
}

/* The nodes behind the region that bring its result where and how its reader wants it. */
static int64_t collect_tail(const struct node *fused, struct node *tail[MAX_TAIL])
{
    const struct value *v = &fused->out[0];
    int64_t n = 0, end = 0;
    while (n < MAX_TAIL && value_has_one_use(v)) {
        struct node *u = v->uses->user;
        const bool narrows = u->op == OP_Cast && u->place == PLACE_NPU && v->type->dtype == DT_F32 &&
                             dtype_size(u->out[0].type->dtype) == 2;
        const bool turns = u->op == OP_Transpose && (u->place == PLACE_NPU || u->place == PLACE_FREE);
        if (u->graph != fused->graph || v->uses != &u->in[0] || (!narrows && !turns && !is_view(u)))
            break;
        tail[n++] = u;
        end = narrows || turns ? n : end;
        v = &u->out[0];
    }
    return end;
}

static struct node *fuse_again(struct pass_ctx *px, struct node *const *nodes, int64_t n)
{
    struct node *fused = ir_fuse(px->cx, nodes, n, nodes[n - 1], "attention");
    fused->place = PLACE_NPU;
    return fused;
}

/* Takes the tail into the region, where the target has a kernel for that. */
static void take_tail(struct pass_ctx *px, struct node *fused)
{
    struct node *tail[MAX_TAIL], *nodes[2 * MAX_MEMBERS + MAX_TAIL];
    const int64_t n_tail = collect_tail(fused, tail);
    const char *reason = NULL;
    int64_t n = 0;
    for_each_node (x, node_region(fused, 0)) {
        if (x->op == OP_Yield || x->op == OP_Constant)
            continue;
        if (n == 2 * MAX_MEMBERS)
            return;
        nodes[n++] = x;
    }
    if (n_tail == 0)
        return;
    ir_unfuse(fused);
    for (int64_t i = 0; i < n_tail; i++)
        nodes[n + i] = tail[i];
    struct node *longer = fuse_again(px, nodes, n + n_tail);
    if (px->target->supports(px->target, px->cx, longer, &reason)) {
        pass_count(px, STAT_fuse_attention_tails, 1);
        return;
    }
    ir_unfuse(longer);
    (void)fuse_again(px, nodes, n);
}

static void fuse(struct pass_ctx *px, struct members *m)
{
    const char *reason = NULL;
    take_decoders(px->cx, m);
    sort_members(m);
    struct node *fused = ir_fuse(px->cx, m->nodes, m->n, m->last, "attention");
    struct graph *before = ir_clone_region(node_region(fused, 0), fused);
    if (attention_chunks(node_region(fused, 0)) && px->target->supports(px->target, px->cx, fused, &reason)) {
        fused->place = PLACE_NPU;
        pass_count(px, STAT_fuse_attention_regions, 1);
        pass_count(px, STAT_fuse_attention_fused, m->n);
        take_tail(px, fused);
        return;
    }
    ir_set_graph(fused, "body", before);
    ir_unfuse(fused);
    pass_count(px, STAT_fuse_attention_kept, 1);
}

enum npuc_status fuse_attention(struct pass_ctx *px, struct graph *g)
{
    struct members m;
    VEC(struct node *) products = {0};     /* found first: fusing moves the nodes behind one */
    if (!px->target || px->options.strict) /* chunks round where the model's steps do not */
        return NPUC_OK;
    for_each_node (n, g)
        if (is_product(n))
            vec_push(&px->arena, &products, n);
    for (int64_t i = 0; i < products.len; i++)
        if (products.data[i]->graph == g && collect(products.data[i], &m) && ir_may_rewrite(px->cx))
            fuse(px, &m);
    return NPUC_OK;
}
