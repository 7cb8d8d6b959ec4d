/* Conv, ConvTranspose and ConvInteger on the matrix unit: a pass of the vector cores puts x into lines of channels,
 * then the product gathers the windows. A convolution of one element per window reads x as it is; one whose x is
 * stored in lines needs no pass. */
#include "backend/ascend/conv.h"
#include "backend/ascend/gens.h"

bool gen_conv_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct conv p;
    if (!conv_match(m, cx, n, &p, reason) || (p.group > 1 && p.cin == 1 && p.cout == 1 && (p.lines || p.out_lines)))
        return false;
    if (conv_choose_tile(m, cx, &p, NULL).m > 0)
        return true;
    *reason = "a row of windows does not fit on chip";
    return false;
}

bool gen_conv_takes_lines(const struct machine *m, struct ir_ctx *cx, const struct node *n, const struct value *x)
{
    struct conv p;
    const char *reason = NULL;
    return conv_match(m, cx, n, &p, &reason) && p.x == x && p.w != x && p.lines &&
           conv_choose_tile(m, cx, &p, NULL).m > 0;
}

static int32_t bias_tensor(struct emit *e, const struct conv *p, bool *column)
{
    *column = p->bias && (value_const(p->bias) || weight_is_cast(p->bias));
    if (!p->bias)
        return -1;
    if (!*column)
        return emit_tensor(e, p->bias);
    struct value *v = value_const(p->bias) ? p->bias : node_in(p->bias->def, 0);
    return emit_conv_weight(e, v, p->in, 1, false);
}

enum npuc_status gen_conv_emit(struct emit *e, struct node *n)
{
    struct conv p;
    const char *why = NULL;
    if (!conv_match(e->m, e->cx, n, &p, &why))
        return node_error(e->cx, n, D_VERIFY, "a convolution was placed on the matrix unit that it cannot do: %s",
                          why ? why : "");
    struct conv_tensors t = {.x = -1};
    if (p.direct || p.lines)
        t.x = emit_tensor(e, p.lines ? p.lines : p.x);
    const enum npuc_status st = p.direct || p.lines ? NPUC_OK : conv_pack(e, &p, &t.x);
    if (st != NPUC_OK)
        return st;
    t.w = p.constant ? emit_conv_weight(e, p.w, p.in, p.group, p.transposed) : emit_tensor(e, p.w);
    t.bias = bias_tensor(e, &p, &t.bias_column);
    t.y = emit_tensor(e, p.y);
    return conv_emit(e, &p, &t, n->op == OP_Fused ? "FusedConv" : op_table[n->op]->name);
}
