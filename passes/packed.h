/* Constant weights as MatMulNBits stores them: codes and scales in the order [N, K] in blocks along K. */
#ifndef PASSES_PACKED_H
#define PASSES_PACKED_H

#include "passes/pass.h"

struct packed {
    const struct type *type;                   /* of the codes as the model has them */
    const struct blob *codes, *scales, *zeros; /* zeros NULL: none */
    enum dtype scale_type;                     /* of the model's scales, and of those stored */
    enum dtype value_type;                     /* of what is dequantised */
    struct value *unit; /* a number that all scales are multiples of, or one of a column; NULL: 1 */
    int bits;
    bool k_first; /* stored [k, n] */
    int64_t k, n;
    enum { PACKED_ONE, PACKED_PER_COLUMN, PACKED_BLOCKED } kind;
    int64_t scale_block, scale_blocks; /* PACKED_BLOCKED: codes along K per scale, scales along K */
    int64_t block, blocks;             /* of the result */
    bool absent;                       /* only sizes are known: the model was read without its data */
};

/* The right operand of a product, [K, N] or [N, K] when `trans`, through transposes of its two axes: DequantizeLinear
 * of constant codes by constant scales, or a Cast of constant small floats. False: of another form. */
bool packed_read(struct ir_ctx *cx, struct value *v, bool trans, struct packed *w);
/* Is each code less its zero point times its scale a signed byte? Scales are whole numbers then. */
bool packed_is_bytes(const struct packed *w);
/* x times the weight plus the bias (NULL: none), whatever w->unit is; `wide`: the result is f32 though x is not. NULL
 * after a reported error. */
struct node *packed_product(struct pass_ctx *px, struct builder *b, const struct packed *w, struct value *x,
                            struct value *bias, bool wide);

#endif
