/* A dense feature map in the order of L1: [batch*group][cin/c0][plane][c0], channels of each group filled up with zeros
 * to whole lines. For convolutions whose x was not laid that way by the pass layout_maps. */
#include "backend/ascend/conv.h"
#include "backend/vector/blocks.h"

enum npuc_status conv_pack(struct emit *e, const struct conv *p, int32_t *packed)
{
    struct expr_pool *ir = &e->cx->exprs;
    const int64_t c0 = e->m->c0_bytes / dtype_size(p->in);
    const int64_t first = e->plan->steps.len;
    expr plane = expr_const(ir, 1);
    for (int i = 0; i < CONV_AXES; i++)
        plane = expr_mul(ir, plane, p->size[i]);
    const expr maps = expr_mul_const(ir, p->batch, p->group);
    const expr dims[] = {maps, expr_const(ir, p->cin), plane};
    const struct layout blocks = {.kind = LAYOUT_NC1HWC0, .c0 = (int)c0};
    *packed = emit_temp_of(e, "packed map", type_with_layout(e->cx, type_tensor(e->cx, p->in, 3, dims), blocks));
    const struct map_blocks m = {.from = emit_tensor(e, p->x),
                                 .to = *packed,
                                 .dtype = p->in,
                                 .channels = p->cin,
                                 .c0 = c0,
                                 .maps = maps,
                                 .plane = plane};
    const enum npuc_status st = emit_map_blocks(e, &m, "TransData");
    if (st == NPUC_OK)
        emit_say_why(e, first,
                     p->x->def ? "a convolution turns its operand, which lies in ND"
                               : "a convolution turns an input, which lies in ND");
    return st;
}
