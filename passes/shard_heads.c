/* Rules of operators that have heads: these are divided, and the caches with them. */
#include "passes/shard.h"

static struct expr_pool *pool(const struct shard_node *c)
{
    return &c->s->px->cx->exprs;
}

static const struct type *type_of(const struct shard_node *c, int i)
{
    return node_in(c->n, i)->type;
}

static bool is_one(const struct shard_node *c, expr e)
{
    return expr_is_one(pool(c), e);
}

/* Operand i [batch, heads, rows, size] or [batch, rows, heads * size] and its heads. */
static int heads_axis(const struct shard_node *c, int i)
{
    return type_of(c, i)->rank == 4 ? 1 : 2;
}

static bool by_heads(const struct shard_node *c, int i, struct cut *x)
{
    *x = shard_cut(c, i);
    return node_in(c->n, i) && x->kind == CUT_SPLIT && x->axis == heads_axis(c, i);
}

void shard_rotary(struct shard_node *c)
{
    struct cut x;
    const int64_t heads = node_attr_int(c->n, "num_heads", 0);
    if (!by_heads(c, 0, &x) || (type_of(c, 0)->rank == 3 && heads == 0) ||
        (heads > 0 && !shard_divides(c, &x, expr_const(pool(c), heads), "heads")))
        return;
    c->want[0] = x;
    c->out[0] = x;
}

/* An attribute that counts heads. */
static void fewer(struct node *n, const char *name, int64_t ways)
{
    const int64_t heads = node_attr_int(n, name, 0);
    if (heads > 0)
        ir_set_int(n, name, heads / ways);
}

enum npuc_status shard_fewer_heads(struct shard_node *c)
{
    const int64_t k = c->want[node_in(c->n, 1) ? 1 : 0].ways;
    if (c->want[0].kind != CUT_SPLIT)
        return NPUC_OK;
    fewer(c->n, "num_heads", c->want[0].ways);
    fewer(c->n, "q_num_heads", c->want[0].ways);
    fewer(c->n, "kv_num_heads", k);
    return NPUC_OK;
}

static expr heads_of(const struct shard_node *c, int i, const char *attr)
{
    return type_of(c, i)->rank == 4 ? type_of(c, i)->dims[1] : expr_const(pool(c), node_attr_int(c->n, attr, 1));
}

/* Query, key and value by heads, key heads perhaps over fewer devices, which then have the same ones; a single key head
 * is whole on all. */
static bool attention_operands(struct shard_node *c, const char *q_heads, const char *k_heads, struct cut x[3])
{
    const bool packed = !node_in(c->n, 1);
    if (!by_heads(c, 0, &x[0]))
        return false;
    if (packed)
        x[1] = x[2] = x[0];
    const expr hq = heads_of(c, 0, q_heads),
               hk = packed ? expr_const(pool(c), node_attr_int(c->n, k_heads, 1)) : heads_of(c, 1, k_heads);
    for (int i = 1; i < 3 && !packed; i++)
        if (!by_heads(c, i, &x[i]) && !(x[i].kind == CUT_WHOLE && is_one(c, hk))) {
            shard_lower(c, x[0].seed, 1, "key or value of its attention is not divided");
            return false;
        }
    if (!shard_divides(c, &x[0], hq, "heads") || !shard_divides(c, &x[1], hk, "key heads") ||
        !shard_divides(c, &x[2], hk, "key heads"))
        return false;
    if (x[0].ways % x[1].ways != 0 || x[1].ways != x[2].ways) {
        shard_lower(c, x[0].seed, x[1].ways, "its keys are divided over fewer devices");
        shard_lower(c, x[1].seed, x[2].ways, "its values are divided over fewer devices");
        shard_lower(c, x[2].seed, x[1].ways, "its keys are divided over fewer devices");
        return false;
    }
    for (int i = 0; i < 3; i++)
        if (node_in(c->n, i))
            c->want[i] = x[i];
    return true;
}

/* Of a mask or bias: axis `axis` where it has all heads. */
static void want_heads(struct shard_node *c, int i, int axis, const struct cut *x)
{
    if (x->kind == CUT_SPLIT && node_in(c->n, i) && axis >= 0 && axis < type_of(c, i)->rank &&
        !is_one(c, type_of(c, i)->dims[axis]))
        c->want[i] = shard_split(axis, x);
}

static void results(struct shard_node *c, const struct cut x[3], int first_axis)
{
    c->out[0] = shard_split(first_axis, &x[0]);
    for (int i = 1; i < c->n->n_out && i < 3 && x[1].kind == CUT_SPLIT; i++)
        c->out[i] = shard_split(1, &x[1]);
    if (c->n->n_out > 3)
        c->out[3] = shard_split(1, &x[0]);
}

void shard_attention(struct shard_node *c)
{
    struct cut x[3];
    if (!attention_operands(c, "q_num_heads", "kv_num_heads", x))
        return;
    if (node_in(c->n, 3))
        want_heads(c, 3, type_of(c, 3)->rank - 3, &x[0]);
    want_heads(c, 4, 1, &x[1]);
    want_heads(c, 5, 1, &x[1]);
    results(c, x, heads_axis(c, 0));
}

void shard_grouped_query(struct shard_node *c)
{
    struct cut x[3];
    if (!attention_operands(c, "num_heads", "kv_num_heads", x))
        return;
    want_heads(c, 3, 1, &x[1]);
    want_heads(c, 4, 1, &x[1]);
    want_heads(c, 10, 1, &x[0]);
    want_heads(c, 11, 0, &x[0]);
    results(c, x, 2);
}

void shard_multi_head(struct shard_node *c)
{
    struct cut x[3];
    if (!node_in(c->n, 1) || !node_in(c->n, 2) || !attention_operands(c, "num_heads", "num_heads", x))
        return;
    want_heads(c, 3, 0, &x[0]);
    want_heads(c, 5, 1, &x[0]);
    want_heads(c, 6, 1, &x[1]);
    want_heads(c, 7, 1, &x[1]);
    results(c, x, 2);
}
