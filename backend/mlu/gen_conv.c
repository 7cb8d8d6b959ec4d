/* Conv, ConvTranspose and ConvInteger on the tensor unit: x is turned to lines of channels, then the product gathers
 * its windows. A convolution of one element per window reads x as it is. */
#include "backend/matrix/conv_walk.h"
#include "backend/mlu/conv.h"
#include "backend/mlu/gens.h"

bool gen_mlu_conv_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct conv p;
    if (!conv_match(m, cx, n, &p, reason))
        return false;
    if (mlu_conv_fits(m, cx, &p))
        return true;
    *reason = "one window does not fit on chip";
    return false;
}

/* Seconds are those of the tensor unit alone. */
bool gen_mlu_conv_rows(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct row_use *out)
{
    struct conv p;
    const char *why = NULL;
    if (!conv_match(m, cx, n, &p, &why) || !p.lines || !p.out_lines || !p.constant || p.transposed ||
        p.kernel[CONV_D] > 1 || p.step[CONV_H] > 1 || p.step[CONV_W] > 1 || n->out[0].type->rank != 4)
        return false;
    const struct type *x = p.lines->type, *y = n->out[0].type;
    const struct mlu_rates r = mlu_rates_of(m, p.in);
    int64_t columns;
    *out = (struct row_use){.windows = p.lines, .same = p.tail.added, .stride = 1, .span = 1};
    if (!expr_is_const(&cx->exprs, x->dims[2], &out->from) || !expr_is_const(&cx->exprs, y->dims[2], &out->rows) ||
        !expr_is_const(&cx->exprs, y->dims[3], &columns))
        return false;
    if (!p.direct) {
        out->stride = p.stride[CONV_H];
        out->span = (p.kernel[CONV_H] - 1) * p.dilation[CONV_H] + 1;
        if (!expr_is_const(&cx->exprs, p.before[CONV_H], &out->before))
            return false;
    }
    const double filters = (double)(p.group * p.cout * p.cin * conv_plane_taps(&p));
    out->weights = filters * dtype_size(p.in);
    out->cycles = filters * (double)(out->rows * columns) / (r.mac * m->n_cube);
    return true;
}

/* A Cast of a constant takes no step: it is done when the bias is stored. */
static int32_t bias_tensor(struct emit *e, const struct conv *p)
{
    if (!p->bias)
        return -1;
    const bool cast = !p->scale && !value_const(p->bias) && weight_is_cast(p->bias);
    return cast ? emit_weight(e, node_in(p->bias->def, 0), WF_CAST, p->in, false) : emit_tensor(e, p->bias);
}

/* Windows of three axes are gathered by IO-DMA, which does not reach the memory of the cluster. */
static void in_memory(struct emit *e, int32_t tensor)
{
    const struct plan_tensor *t = &e->plan->tensors.data[tensor];
    e->plan->tensors.data[t->kind == PT_ALIAS ? t->base : tensor].in_memory = true;
}

enum npuc_status gen_mlu_conv_emit(struct emit *e, struct node *n)
{
    struct conv p;
    const char *why = NULL;
    if (!conv_match(e->m, e->cx, n, &p, &why))
        return node_error(e->cx, n, D_VERIFY, "a convolution was placed on the matrix unit that it cannot do: %s",
                          why ? why : "");
    struct mlu_conv_tensors t = {.bias = bias_tensor(e, &p)};
    if (p.direct || p.lines)
        t.x = emit_tensor(e, p.lines ? p.lines : p.x);
    const enum npuc_status st = p.direct || p.lines ? NPUC_OK : mlu_conv_pack(e, &p, &t.x);
    if (st != NPUC_OK)
        return st;
    if (p.kernel[CONV_D] > 1)
        in_memory(e, t.x);
    t.scale = mlu_conv_by_channel(&p) ? emit_tensor(e, p.scale) : -1;
    t.w = p.constant ? emit_conv_weight(e, p.w, p.in, p.group, p.transposed) : emit_tensor(e, p.w);
    t.slope = p.slope && !p.one_slope ? emit_tensor(e, p.slope) : -1;
    struct value *y = p.scale ? p.tail.y : p.y;
    t.added = p.tail.added ? emit_tensor(e, p.tail.added) : -1;
    /* lines that a neighbour of the band still reads must not be written */
    t.y = y && p.tail.added && !e->band ? emit_tensor_over(e, n, y, p.tail.added) : y ? emit_tensor(e, y) : -1;
    t.codes = p.tail.codes ? emit_tensor(e, p.tail.codes) : -1;
    const int64_t channels = p.group * p.cout;
    t.y_line = y ? emit_line(e, y, channels) : (struct emit_line){0};
    t.codes_line = p.tail.codes ? emit_line(e, p.tail.codes, channels) : (struct emit_line){0};
    return mlu_conv_emit(e, &p, &t, n->op == OP_Fused ? "FusedConv" : op_table[n->op]->name);
}
