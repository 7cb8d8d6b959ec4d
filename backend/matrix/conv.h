/* Convolutions: windows over up to three spatial axes of x [batch][group*cin][spatial]:
 * y[b][g*cout + m][position] = sum over k of w[g*cout + m][k] * element k of the window at the position, with k
 * ascending over (kernel position, channel) (kernels/conv.h). Rows of the product are output channels, columns
 * positions, so that results are written as they are stored. */
#ifndef BACKEND_MATRIX_CONV_H
#define BACKEND_MATRIX_CONV_H

#include "backend/backend.h"

enum { CONV_AXES = 3 };

/* A convolution without tensors. Sizes are ir expressions, in elements. Fewer spatial axes use the last ones. */
struct conv {
    enum dtype in, out; /* of the operands, of the result */
    struct value *x, *w, *bias, *y;
    struct value *lines; /* x lies in memory as the packed map does, as this value: [batch][cin/c0][spatial][c0]; for
                          * units of rows [batch][spatial][channels] */
    bool out_lines;      /* so does y */
    bool constant;       /* w is stored in the order of L1: [group][position][cin/c0][cout][c0] */
    bool transposed;     /* w is [channel][out of the group][position], positions backwards */
    bool relu;
    struct value *slope; /* PRelu in the place of relu: numbers of type `out`, one per channel unless one_slope, when it
                          * is slope_number; NULL: none. Units of rows alone */
    bool one_slope;
    float slope_number;
    bool uniform; /* `scale` has one number for all channels: `factor` */
    float factor;
    struct value *scale;     /* f32 per channel, for sums of integers: the result is f32(sum) * scale + bias (f32), then
                              * narrowed, then relu; NULL: none. Units of rows alone */
    struct conv_tail {       /* behind scaled sums, on values of type `out` */
        struct value *added; /* of the shape of y: sum + added, or added + sum when added_left; NULL: none */
        bool added_left, relu;   /* relu: behind the addition */
        struct value *y, *codes; /* results: the float; integers of it, or NULL; one may be all that is seen */
        float factor, low, high; /* codes = low <= round(float * factor) <= high */
    } tail;
    bool direct; /* every window is one element and the next one its neighbour: x is the right operand as it is */
    int64_t group, cin, cout; /* channels of one group */
    int64_t kernel[CONV_AXES], stride[CONV_AXES], dilation[CONV_AXES];
    int64_t step[CONV_AXES]; /* elements of x stand so far apart, zeros between */
    expr batch, size[CONV_AXES], out_size[CONV_AXES], before[CONV_AXES];
};

/* The pattern, or false with *reason set when it is a convolution. */
bool conv_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct conv *out,
                const char **reason);
/* The same of a convolution in a region of vector operators, whose first result says where it is stored. */
bool conv_match_within(const struct machine *m, struct ir_ctx *cx, const struct node *fused, const struct node *conv,
                       struct conv *out, const char **reason);
/* Elements of x under `windows` windows and `taps` kernel positions of an axis. */
static inline int64_t conv_under(const struct conv *p, int axis, int64_t windows, int64_t taps)
{
    return ((windows - 1) * p->stride[axis] + (taps - 1) * p->dilation[axis]) / p->step[axis] + 1;
}
/* Multiply-accumulates, over the plan's symbols. */
expr conv_macs(struct emit *e, const struct conv *p);

#endif
