/* Scaled dot-product attention on dense float operands, and the layout steps around it. The arithmetic, step by step:
 *   score = sum over h ascending of fma(q, k); times scale; softcap * tanh(score / softcap) when softcap > 0; plus bias
 *   e = exp(score - max of the row); p = e / (64-lane sum of e); y = sum over all keys ascending of fma(p, v)
 * Everything is float; a result is rounded to the model's type once, at the end. A row whose bias is -inf everywhere
 * gives p = 0. */
#ifndef KERNELS_ATTEND_H
#define KERNELS_ATTEND_H

#include "kernels/op.h"

struct k_attend {
    int64_t batch, heads, kv_heads, seq, keys, head, v_head;
    const float *q, *k, *v; /* [batch][heads][seq][head], [batch][kv_heads][keys][head], [..][v_head] */
    float *y;               /* [batch][heads][seq][v_head] */
    enum dtype type;        /* of the model's operands */
    float scale, softcap;
    const float *sink; /* per head a logit that joins the softmax without a value, or NULL */
    /* Writes the additive mask of one row: `keys` values. NULL: none. */
    void (*bias)(const void *arg, const int64_t at[3], float *row); /* at: batch, head, row */
    const void *bias_arg;
    float *qk;   /* scores as [batch][heads][seq][keys], or NULL */
    int qk_mode; /* 0 scaled, 1 after softcap, 2 after bias, 3 probabilities */
};
enum npuc_status k_attend(struct k_call *c, const struct k_attend *a);

/* Additive mask of shape up to 4 (right-aligned to batch, head, seq, keys), as float. */
struct k_mask {
    const float *data;
    int64_t stride[3]; /* batch, head, row; 0 = broadcast */
    int64_t len;       /* keys it covers; further ones are -inf */
};
/* false with the error set. A bool mask becomes 0 and -inf. */
NPUC_MUST_CHECK bool k_mask_of(struct k_call *c, struct k_mask *m, const struct k_tensor *t);
/* The same; the most negative finite number of the mask's type masks like -inf, so that a row of nothing else gives
 * zeros (as ai.onnx Attention in onnxruntime). */
NPUC_MUST_CHECK bool k_mask_strict(struct k_call *c, struct k_mask *m, const struct k_tensor *t);
void k_mask_row(const struct k_mask *m, const int64_t at[3], float *row, int64_t keys);

/* [batch][seq][heads][head] (a slice of rows `pitch` floats apart) to [batch][heads][seq][head] in the arena. */
struct k_heads {
    int64_t batch, seq, heads, head, pitch;
};
float *k_split_heads(struct k_call *c, const struct k_heads *h, const float *x);
void k_merge_heads(const struct k_heads *h, float *y, const float *x); /* the inverse, dense */
/* Rounds floats to type t and back. */
void k_round_to(enum dtype t, float *x, int64_t n);

#endif
