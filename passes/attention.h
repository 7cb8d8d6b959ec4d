/* Attention in one form: what the attention operators of all dialects are brought to before they become matrix products
 * and a masked softmax. Shared by lower_attention.c (reading operators) and attention_expand.c (writing the products).
 */
#ifndef PASSES_ATTENTION_H
#define PASSES_ATTENTION_H

#include "passes/pass.h"

struct attention {
    struct builder *b;
    struct value *q, *k, *v; /* [batch, heads, rows, size]; k and v with their own number of heads, cache included */
    struct value *bias;      /* float, added to the scores; broadcast to [batch, heads, rows, total]; may be NULL */
    struct value *keep;      /* bool, false: masked; broadcast likewise; may be NULL */
    struct value *sink; /* one more score per head, [1, heads, 1, 1] or scalar, that takes probability but has no value;
                           or NULL */
    float scale, softcap; /* softcap 0: none */
    enum dtype score;     /* type of the scores: DT_F32, or literally that of q */
    enum dtype soft;      /* type of the softmax's steps */
    /* [4], filled if not NULL: scores scaled, after softcap, after bias and mask, probabilities */
    struct value **stage;
    bool split_scale; /* sqrt(scale) is on q and on k each, as ONNX's function body has it */
};
/* [batch, heads, rows, size of v]; NULL after a reported error. */
struct value *attention_expand(const struct attention *a);

/* exp(x - max) / sum over `axis`, rounded to the type of x after each step. */
struct value *softmax_steps(struct builder *b, struct value *x, int64_t axis);

/* Writes softmax and second product of a fused region as one SoftmaxMatMul; false where it finds none, the region then
 * being as good as before but perhaps with unused nodes. */
bool attention_chunks(struct graph *body);

/* Helpers of both files */
struct value *heads_split(struct builder *b, struct value *x, expr heads); /* [B,S,N*H] -> [B,N,S,H] */
struct value *heads_join(struct builder *b, struct value *x);              /* [B,N,S,H] -> [B,S,N*H] */
struct value *value_dims(struct builder *b, struct value *x, int rank,
                         const expr *dims); /* Reshape, or x when it fits */
/* int64 [rows] of first + 0, 1, ..: `first` a scalar value or NULL for 0. */
struct value *positions(struct builder *b, expr rows);

#endif
