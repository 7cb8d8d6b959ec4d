/* What devices that share a model tell each other (passes/shard.c); kernels/op_comm.c says what they compute. */
#include "ir/ops/infer.h"

static enum npuc_status begin(struct ir_ctx *cx, const struct node *n)
{
    const int64_t ranks = node_attr_int(n, "ranks", 0);
    const enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK && (ranks < 1 || ranks > 65536))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'ranks' is %lld, expected 1 to 65536", (long long)ranks);
    return s;
}

static enum npuc_status all_reduce_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = begin(cx, n);
    return s == NPUC_OK ? infer_out_like(cx, n, 0, 0) : s;
}

static enum npuc_status all_gather_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin(cx, n);
    struct shape x = infer_shape(n, 0);
    int axis;
    if (s == NPUC_OK && x.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (s == NPUC_OK)
        s = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    if (s != NPUC_OK)
        return s;
    x.d[axis] = expr_mul_const(&cx->exprs, x.d[axis], node_attr_int(n, "ranks", 1));
    return infer_out(cx, n, 0, infer_dtype(n, 0), &x);
}

#include "ir/ops/rows.h"

#include "ir/ops/comm.def"
