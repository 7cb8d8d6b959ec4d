/* A dense feature map in the order of L1: [batch*group][cin/c0][plane][c0], channels of each group filled up with zeros
 * to whole lines. For convolutions whose x was not laid that way by the pass layout_maps. */
#include "backend/ascend/conv.h"
#include "backend/vector/blocks.h"
#include "base/size.h"

enum npuc_status conv_pack(struct emit *e, const struct conv *p, int32_t *packed)
{
    struct expr_pool *ir = &e->cx->exprs;
    const int64_t c0 = e->m->c0_bytes / dtype_size(p->in);
    expr plane = expr_const(ir, 1);
    for (int i = 0; i < CONV_AXES; i++)
        plane = expr_mul(ir, plane, p->size[i]);
    const expr maps = expr_mul_const(ir, p->batch, p->group);
    const expr dims[] = {maps, expr_const(ir, size_ceil_div(p->cin, c0)), plane, expr_const(ir, c0)};
    *packed = emit_temp(e, "packed map", p->in, 4, dims);
    const struct map_blocks m = {.from = emit_tensor(e, p->x),
                                 .to = *packed,
                                 .dtype = p->in,
                                 .channels = p->cin,
                                 .c0 = c0,
                                 .maps = maps,
                                 .plane = plane};
    return emit_map_blocks(e, &m, "TransData");
}
