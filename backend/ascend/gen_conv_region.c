/* Convolutions of integers with vector operators behind them as one kernel of cube and vector cores. */
#include "backend/ascend/conv.h"
#include "backend/ascend/gens.h"

bool gen_conv_region_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct conv p;
    struct conv_region r;
    if (!conv_region_match(m, cx, n, &p, &r, reason))
        return false;
    if (conv_choose_tile(m, cx, &p, NULL).m > 0)
        return true;
    *reason = "a row of windows does not fit on chip";
    return false;
}

enum npuc_status gen_conv_region_emit(struct emit *e, struct node *n)
{
    struct conv p;
    struct conv_region r;
    const char *why = NULL;
    if (!conv_region_match(e->m, e->cx, n, &p, &r, &why))
        return node_error(e->cx, n, D_VERIFY, "a convolution was placed on the matrix unit that it cannot do: %s",
                          why ? why : "");
    struct conv_tensors t = {.x = -1, .y = -1, .bias = -1, .region = &r};
    if (p.direct || p.lines)
        t.x = emit_tensor(e, p.lines ? p.lines : p.x);
    else if (conv_pack(e, &p, &t.x) != NPUC_OK)
        return NPUC_E_UNSUPPORTED;
    t.w = p.constant ? emit_conv_weight(e, p.w, p.in, p.group, p.transposed) : emit_tensor(e, p.w);
    return conv_emit(e, &p, &t, "ConvVector");
}
