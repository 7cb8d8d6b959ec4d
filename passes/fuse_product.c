/* Fuses the elementwise operators behind a product, or a convolution of integers, into one Fused "matmul_vector"
 * region, where the target has one kernel for it: vector cores work on a tile of the result while the matrix unit goes
 * on with the next.
 *
 *   %m = MatMulInteger %x, %w : i32[m,n];  %f = Cast %m : f32[m,n];  %y = Mul %f, %scale : f32[m,n]
 * becomes
 *   %y = Fused %x, %w, %scale {kind="matmul_vector" body=(...) { MatMulInteger; Cast; Mul; Yield }} : f32[m,n]
 *
 * The product may be a region of fuse_matmul. Members are the users of its result, their users and so on: a DAG. So
 * are other products of the same left operand that only members read, and what stands between: gate and up projections
 * with the activation and the product of both are one region.
 * Requirements: (1) members have the shape of the result and are operators that the target's vector generator takes
 * one by one; (2) the product's result is seen by members alone; (3) no operand of a member depends on another one by
 * a way around the region; (4) at most MAX_MEMBERS members, MAX_TENSORS operands and results; (5) the target takes the
 * region as a whole, else the nodes stay as they were; (6) runs after fuse_matmul, which takes what needs no vector
 * core, and before fuse_vector. Left alone: members that feed a reduction over rows - that kernel takes them along as
 * it reads them - and regions of nothing but casts. */
#include "passes/pass.h"

#define MAX_MEMBERS 24
#define MAX_TENSORS 12
#define MAX_RESULTS 8
#define MAX_DISTANCE                                                                                                   \
    512 /* nodes between the product and its last member: what is farther off is another part of the model */

#define MAX_DEPTH 4 /* operators between another product and the members */

struct region {
    struct pass_ctx *px;
    struct node *product;
    struct node *nodes[MAX_MEMBERS]; /* in the order of the graph; the first is the product */
    int64_t n;
    struct map seen;  /* node id -> MEMBER, AROUND */
    int64_t pending;  /* uses of members' results that have not been visited */
    bool works, fits; /* more than casts; all users of the product are members, nothing reduces */
};
enum { MEMBER = 1, AROUND, LEFT }; /* AROUND: depends on a member without being one; LEFT: neither, looked at */

/* A region of fuse_matmul around a matrix product; others are around convolutions. */
static bool has_product(const struct graph *body)
{
    for_each_node (n, body)
        if (op_table[n->op]->cls == CLS_MATMUL)
            return true;
    return false;
}

static bool is_product(const struct pass_ctx *px, const struct node *n)
{
    const bool plain = n->op == OP_ConvInteger || n->op == OP_MatMul || n->op == OP_FusedMatMul || n->op == OP_Gemm ||
                       n->op == OP_MatMulInteger || n->op == OP_ScaledMatMul;
    const bool region = n->op == OP_Fused &&
                        node_attr_str(n, "kind", 0) == str_internz(&px->cx->strings, "matmul_epilogue") &&
                        has_product(node_region(n, 0));
    return (plain || region) && n->place == PLACE_NPU && n->n_out == 1 && n->out[0].type->rank >= 1;
}

static int64_t count_uses(const struct value *v)
{
    int64_t n = 0;
    for_each_use (u, v)
        n++;
    return n;
}

static bool may_join(const struct region *r, const struct node *n)
{
    const struct target_info *t = r->px->target;
    return r->n < MAX_MEMBERS && n->place == PLACE_NPU && n->n_out == 1 && op_table[n->op]->cls == CLS_ELEMENTWISE &&
           type_same_dims(n->out[0].type, r->product->out[0].type) && (!t->in_region || t->in_region(t, r->px->cx, n));
}

static void visit(struct region *r, struct node *n)
{
    int64_t from_members = 0;
    bool around = false, of_product = false;
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = node_in(n, i);
        const uint64_t *s = v && v->def ? map_find(&r->seen, v->def->id) : NULL;
        from_members += s && *s == MEMBER;
        around = around || (s && *s == AROUND);
        of_product = of_product || (s && v->def == r->product);
    }
    around = around || op_table[n->op]->cls == CLS_CONTROL; /* its bodies may read anything */
    r->pending -= from_members;
    if (from_members == 0 && !around)
        return;
    if (from_members > 0 && !around && may_join(r, n)) {
        r->nodes[r->n++] = n;
        r->pending += count_uses(&n->out[0]);
        r->works = r->works || (n->op != OP_Cast && n->op != OP_CastLike);
        r->fits = r->fits && !value_used_in_body(&n->out[0]);
        map_put(&r->seen, n->id, MEMBER);
        return;
    }
    r->fits = r->fits && !of_product && !(from_members > 0 && op_has((enum op)n->op, T_REDUCE));
    map_put(&r->seen, n->id, AROUND);
}

/* Operands and results are few enough. */
static bool few_tensors(struct region *r)
{
    struct map operands;
    int64_t results = 0;
    map_init(&operands, &r->px->arena);
    for (int64_t k = 0; k < r->n; k++) {
        const struct node *n = r->nodes[k];
        for (int i = 0; i < n->n_in; i++) {
            const struct value *v = node_in(n, i);
            const uint64_t *s = v && v->def ? map_find(&r->seen, v->def->id) : NULL;
            if (v && !(s && *s == MEMBER) && !ir_moves_in(v))
                map_put(&operands, v->id, 1);
        }
        bool leaves = false;
        for_each_use (u, &n->out[0]) {
            const uint64_t *s = map_find(&r->seen, u->user->id);
            leaves = leaves || !s || *s != MEMBER;
        }
        results += leaves;
    }
    return results >= 1 && results <= MAX_RESULTS && results + (int64_t)operands.len <= MAX_TENSORS;
}

static bool collect(struct pass_ctx *px, struct node *product, struct region *r)
{
    *r = (struct region){.px = px, .product = product, .nodes = {product}, .n = 1, .fits = true};
    r->pending = count_uses(&product->out[0]);
    if (r->pending == 0 || value_used_in_body(&product->out[0]))
        return false;
    map_init(&r->seen, &px->arena);
    map_put(&r->seen, product->id, MEMBER);
    int64_t left = MAX_DISTANCE;
    for (struct node *n = product->next; n && r->pending > 0 && r->fits && left > 0; n = n->next, left--)
        visit(r, n);
    /* What is beyond the distance may be a user of the product: then it is none of the members. */
    for_each_use (u, &product->out[0]) {
        const uint64_t *s = map_find(&r->seen, u->user->id);
        r->fits = r->fits && s && *s == MEMBER;
    }
    return r->fits && r->works && few_tensors(r);
}

/* ---- other products of the same operand --------------------------------------------------------------------- */

static bool only_members_read(const struct region *r, const struct value *v)
{
    for_each_use (u, v) {
        const uint64_t *s = u->user->graph == v->graph ? map_find(&r->seen, u->user->id) : NULL;
        if (!s || *s != MEMBER)
            return false;
    }
    return true;
}

/* Takes in what makes v, where that is a product of the same left operand or operators on one. Recursion is bounded by
 * depth. */
static bool pull(struct region *r, const struct value *v, int depth)
{
    struct node *n = v ? v->def : NULL;
    if (!n || depth == 0 || n->graph != r->product->graph || map_find(&r->seen, n->id) || n->n_out != 1 ||
        r->n == MAX_MEMBERS || !only_members_read(r, v))
        return false;
    const bool peer = is_product(r->px, n) && node_in(n, 0) == node_in(r->product, 0) &&
                      type_same_dims(v->type, r->product->out[0].type);
    if (!peer && !may_join(r, n))
        return false;
    map_put(&r->seen, n->id, MEMBER);
    bool any = peer;
    for (int i = 0; i < n->n_in && !peer; i++)
        any = pull(r, node_in(n, i), depth - 1) || any;
    if (any)
        r->n++;
    else
        map_put(&r->seen, n->id, LEFT);
    return any;
}

/* Adds them; false when there are none. */
static bool pull_peers(struct region *r)
{
    const int64_t first = r->n;
    for (int64_t k = 1; k < first; k++)
        for (int i = 0; i < r->nodes[k]->n_in; i++)
            (void)pull(r, node_in(r->nodes[k], i), MAX_DEPTH);
    if (r->n == first)
        return false;
    r->n = 0;
    for_each_node (n, r->product->graph) {
        const uint64_t *s = map_find(&r->seen, n->id);
        if (s && *s == MEMBER)
            r->nodes[r->n++] = n;
    }
    return true;
}

/* Without them: the members as they were. */
static void drop_peers(struct region *r, const struct region *before)
{
    r->n = before->n;
    for (int64_t i = 0; i < r->n; i++)
        r->nodes[i] = before->nodes[i];
}

static bool try_fuse(struct region *r)
{
    struct pass_ctx *px = r->px;
    const char *reason = NULL;
    struct node *fused = ir_fuse(px->cx, r->nodes, r->n, r->nodes[r->n - 1], "matmul_vector");
    if (px->target->supports(px->target, px->cx, fused, &reason)) {
        fused->place = PLACE_NPU;
        pass_count(px, STAT_fuse_product_regions, 1);
        pass_count(px, STAT_fuse_product_fused, r->n);
        return true;
    }
    ir_unfuse(fused);
    pass_count(px, STAT_fuse_product_kept, 1);
    return false;
}

static void fuse(struct region *r)
{
    const struct region alone = *r;
    if (pull_peers(r) && try_fuse(r))
        return;
    drop_peers(r, &alone);
    (void)try_fuse(r);
}

enum npuc_status fuse_product(struct pass_ctx *px, struct graph *g)
{
    struct region r;
    bool tried = false;
    VEC(struct node *) products = {0}; /* found first: fusing moves the nodes behind one */
    if (!px->target)
        return NPUC_OK;
    for_each_node (n, g)
        if (is_product(px, n))
            vec_push(&px->arena, &products, n);
    for (int64_t i = 0; i < products.len; i++) {
        const struct arena_mark mark = arena_mark(&px->arena);
        if (products.data[i]->graph == g && collect(px, products.data[i], &r) && ir_may_rewrite(px->cx)) {
            tried = true;
            fuse(&r);
        }
        arena_release(&px->arena, mark);
    }
    if (tried) /* what is refused stands together, too, behind users of its results */
        ir_sort(g);
    return NPUC_OK;
}
