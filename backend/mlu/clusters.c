/* How many clusters a kernel takes: what MagicMind's networks show in their logged utilisation of the chip
 * (cluster-seconds used over cluster-seconds there were).
 *
 * An image stays on the cores of one cluster: n images on C clusters are m = ceil(n / C) for each of ceil(n / m), so
 * that what one kernel leaves is on the cluster that the next one runs on, and no cluster waits for another. A kernel
 * is divided over all clusters where that cannot pay:
 *   - its weights exceed the WRAM of a cluster: one way to memory would stream them at a fraction of the bandwidth;
 *   - its products take one cluster longer than cluster.split for one image;
 *   - a convolution of integers along three axes; one of floats never is, whatever its weights and its time;
 *   - a product of two activations, or with more rows per image than ROWS: rows, not images, are its parallelism;
 *   - a depthwise convolution of one image, which is all vector work;
 *   - maps that no product makes or reads are more than the SRAM of a cluster, and the clusters that have images have
 *     less than memory's bandwidth;
 *   - the number of images is not known at compile time.
 * Normalisation of instances takes one core for each image: networks full of it show a core or two at work. */
#include "backend/mlu/gens.h"
#include "base/size.h"

#include <math.h>

enum { ROWS = 64, RANK_3D = 5 };

/* The product or convolution of a node, in a region or alone. */
struct heavy {
    const struct node *node;    /* NULL: none */
    const struct value *weight; /* as the graph around the region sees it */
};

static bool is_heavy(const struct node *n)
{
    const enum op_class cls = op_table[n->op]->cls;
    return cls == CLS_MATMUL || cls == CLS_CONV;
}

static const struct value *outside(const struct node *outer, const struct node *inner, int i)
{
    const struct value *v = node_in(inner, i);
    const bool is_input = v && outer != inner && !v->def && v->graph == inner->graph;
    return is_input ? node_in(outer, (int)v->index) : v;
}

static struct heavy heavy_of(const struct node *n)
{
    struct heavy h = {is_heavy(n) ? n : NULL, NULL};
    if (n->op == OP_Fused)
        for_each_node (k, node_region(n, 0))
            h.node = !h.node && is_heavy(k) ? k : h.node;
    if (h.node)
        h.weight = outside(n, h.node, 1);
    return h;
}

static bool is_constant(const struct value *v)
{
    while (v && v->def && (v->def->op == OP_Cast || v->def->op == OP_Transpose || v->def->op == OP_TransData))
        v = node_in(v->def, 0);
    return v && value_const(v);
}

static bool known(const struct ir_ctx *cx, expr e, int64_t *v)
{
    return expr_is_const(&cx->exprs, e, v) && *v > 0;
}

/* Rows of a product's result for one image. */
static double rows_of(const struct ir_ctx *cx, const struct node *n)
{
    const struct type *t = n->out[0].type;
    double rows = 1;
    int64_t d;
    for (int i = 1; i < t->rank - 1; i++)
        rows *= known(cx, t->dims[i], &d) ? (double)d : (double)INFINITY;
    return rows;
}

static bool is_depthwise(const struct ir_ctx *cx, const struct node *n)
{
    const struct value *w = node_in(n, 1);
    int64_t channels;
    return op_table[n->op]->cls == CLS_CONV && w && w->type->rank > 2 && node_attr_int(n, "group", 1) > 1 &&
           known(cx, w->type->dims[1], &channels) && channels == 1;
}

/* Seconds that the products of one image take the tensor units of one cluster. */
static double cluster_time(const struct machine *m, struct ir_ctx *cx, const struct heavy *h, double images,
                           double cores)
{
    static const struct {
        enum dtype t;
        enum target_key rate;
    } rates[] = {
        {DT_F32, TK_MAC_F32}, {DT_F16, TK_MAC_F16}, {DT_BF16, TK_MAC_BF16}, {DT_I8, TK_MAC_I8}, {DT_I16, TK_MAC_I16}};
    struct cost c = {0};
    if (!op_table[h->node->op]->cost)
        return 0;
    op_table[h->node->op]->cost(cx, h->node, NULL, &c);
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rates); i++)
        if (rates[i].t == h->weight->type->dtype)
            return (double)c.macs / images / cores / target_num(m->target, rates[i].rate) /
                   target_num(m->target, TK_CLOCK);
    return 0;
}

static bool is_split(const struct machine *m, struct ir_ctx *cx, const struct node *n, int64_t images, int32_t cores)
{
    const struct heavy h = heavy_of(n);
    if (!h.node || !h.weight)
        return false;
    const bool conv = op_table[h.node->op]->cls == CLS_CONV;
    const int64_t count = type_const_count(cx, h.weight->type);
    for (int i = 0; i < h.node->n_in + h.node->n_out; i++) {
        const struct value *v = i < h.node->n_in ? node_in(h.node, i) : node_out(h.node, i - h.node->n_in);
        if (v && type_const_count(cx, v->type) < 0)
            return true;
    }
    if (conv && h.weight->type->rank == RANK_3D)
        return !dtype_is_float(h.weight->type->dtype);
    const double weights = (double)count * (double)dtype_size(h.weight->type->dtype);
    return count < 0 || !is_constant(h.weight) || weights > (double)(cores * m->size[TS_L0B]) ||
           (!conv && rows_of(cx, h.node) > ROWS) || (images == 1 && is_depthwise(cx, h.node)) ||
           cluster_time(m, cx, &h, (double)images, cores) > target_num(m->target, TK_CLUSTER_SPLIT);
}

/* Does a kernel without products read and write more of one image than the SRAM of a cluster holds? Then nothing stays
 * there, and while the clusters with images have less of the bandwidth than memory gives, all of them take part. */
static bool passes_memory(const struct machine *m, struct ir_ctx *cx, const struct node *n, int64_t images)
{
    const double busy = (double)images * target_num(m->target, TK_CLUSTER_BANDWIDTH);
    double bytes = 0;
    if (heavy_of(n).node || n->op == OP_InstanceNormalization || busy >= target_num(m->target, TK_HBM_BANDWIDTH))
        return false;
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        const struct value *v = i < n->n_in ? node_in(n, i) : node_out(n, i - n->n_in);
        const int64_t count = v && !is_constant(v) ? type_const_count(cx, v->type) : 0;
        bytes += count > 0 ? (double)count * (double)dtype_size(v->type->dtype) : 0;
    }
    return bytes / (double)images > (double)m->size[TS_L1];
}

bool mlu_clusters(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct machine_part *out)
{
    const int32_t cores = (int32_t)target_num(m->target, TK_CORES_CLUSTER), all = m->n_cube / (cores > 0 ? cores : 1);
    const struct type *t = n->n_out > 0 && node_out(n, 0) ? n->out[0].type : NULL;
    int64_t images;
    if (all < 2 || !t || t->kind != TYPE_TENSOR || t->rank < 2 || !known(cx, t->dims[0], &images) ||
        is_split(m, cx, n, images, cores) || passes_memory(m, cx, n, images))
        return false;
    const int64_t each = size_ceil_div(images, all);
    *out = (struct machine_part){.m = *m, .copies = (int32_t)size_ceil_div(images, each)};
    out->m.n_cube = out->m.n_vector = n->op == OP_InstanceNormalization && each < cores ? (int32_t)each : cores;
    return true;
}
