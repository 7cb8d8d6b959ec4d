/* Products of two operands that are dequantised, taken apart: codes and scales of both sides, and the scaling of the
 * sums of codes. */
#ifndef PASSES_CODED_H
#define PASSES_CODED_H

#include "passes/pass.h"

/* One operand: its DequantizeLinear and what stands between it and the product. */
struct coded_side {
    struct value *q, *scale, *zero;
    bool turned; /* a rank 2 operand whose axes are exchanged */
    bool rows;   /* a scale per row */
};
struct coded_product {
    struct coded_side x, w;
    bool conv;
};
/* Element types of codes that are taken. */
typedef bool coded_type_fn(enum dtype t);

/* MatMul, Gemm, FusedMatMul or Conv of a left operand with one scale or one per row, and a constant right one with one
 * scale or one per output channel. */
bool coded_match(struct ir_ctx *cx, const struct node *n, coded_type_fn *takes, struct coded_product *p);
/* The left operand alone, of products. */
bool coded_left(struct ir_ctx *cx, const struct value *v, coded_type_fn *takes, struct coded_side *s);
/* What n gives, from the sums of its codes: both scales, the bias, its type. NULL after a reported error. */
struct value *coded_result(struct builder *b, const struct node *n, const struct coded_product *p, struct value *sum);

#endif
