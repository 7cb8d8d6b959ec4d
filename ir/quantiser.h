/* What quantisation asks of a graph: for each product with a constant weight, how its operands are coded. Whoever knows
 * a recipe fills a struct quantiser (quant/recipe.h); the pass apply_recipe writes it into the graph. */
#ifndef IR_QUANTISER_H
#define IR_QUANTISER_H

#include "base/arena.h"
#include "base/dtype.h"
#include "npuc/status.h"

/* real = (code - zero) * scale; what shares a scale: all elements, an output channel of a weight, a row of an
 * activation (its last axis), or `group` elements along K of an output channel or a row. */
enum quant_per { QUANT_PER_TENSOR, QUANT_PER_CHANNEL, QUANT_PER_TOKEN, QUANT_PER_GROUP };
/* What a symmetric scale of integers divides the largest magnitude by, of 8 bits: 127; 128; 128 when the element of the
 * largest magnitude is negative, else 127. */
enum quant_divisor { QUANT_DIVISOR_MOST, QUANT_DIVISOR_FULL, QUANT_DIVISOR_SIDE };
struct quant_operand {
    enum dtype codes; /* DT_NONE: the operand stays as it is */
    enum quant_per per;
    int64_t group;
    /* Of the scales of groups: DT_NONE: the graph's float type; F8E8M0; F8E4M3FN times one number of the tensor; U8
     * times one of the channel, so that codes times scales are bytes. */
    enum dtype scales;
    bool ceil;    /* powers of two as scales: no element exceeds the largest code; else as OCP MX has it */
    bool cast;    /* activations: the scale is 1 */
    double most;  /* what a symmetric scale maps the largest element to */
    bool shifted; /* codes have a zero point; else 0 is coded as 0 */
    bool dynamic; /* activations: the scale is that of the values at run time */
    double scale; /* of an activation that is not dynamic */
    int64_t zero; /* likewise */
    bool data;    /* of a weight: its codes are in the recipe's data file */
    bool away;    /* halves are rounded away from zero; else to even */
    bool narrow;  /* signed codes leave out the least: -127 to 127 */
    enum quant_divisor divisor;
    const char *by; /* how the numbers were found; a name of quant/ */
};
struct quant_vector {
    const float *data; /* NULL: there is none */
    int64_t n;
};
enum quant_rotation { QUANT_UNROTATED, QUANT_HADAMARD };
/* y = x W becomes (x / smooth) H  times  H' (smooth W), both operands coded then, plus correct. smooth: [k] or, of a
 * convolution, [input channels of a group]; H orthogonal of length k; correct: [channels]. */
struct quant_product {
    struct quant_operand input, weight;
    struct quant_vector smooth, correct;
    enum quant_rotation rotate;
};

/* Rows of the keys of a head are multiplied by turn[head] before they are coded, those of queries by the transpose of
 * back[head], so that their products stay: back = turn^-1. f32 [heads][size][size]. */
struct quant_turn {
    const float *turn, *back;
    int64_t heads, size;
};

struct quant_statistics; /* quant/statistics.h */
/* A weight as a matrix: [channels][k], k all that is summed up for an output channel. */
struct quant_matrix {
    const float *data;
    int64_t channels, k;
    enum dtype scale_type; /* what scales are rounded to before codes are chosen: the graph's, or the operand's own */
    const struct quant_statistics
        *seen; /* of what it is multiplied with, after smooth and rotate; NULL: nothing known */
};
struct quant_codes {
    int16_t *codes; /* [channels][k]: integers, or the bits of a small float */
    float *scales;  /* [channels][groups]; one for QUANT_PER_TENSOR */
    int16_t *zeros; /* likewise; NULL: none */
    int64_t groups;
};

struct node;
struct quantiser {
    void *user;
    /* How rows of the KV cache of that input are coded, which holds keys or others: per token, or in groups along the
     * last axis; NULL: they are not. Asked when a cache may be coded, so the recipe's lines count as used. */
    const struct quant_operand *(*cache)(void *user, const char *input, bool keys);
    /* Matrices for the keys of that cache, or NULL: they are coded as they are. May be absent. */
    const struct quant_turn *(*turn)(void *user, const char *input);
    /* When set: told of each product of queries (its left operand) and keys of a cache that could be turned. */
    void (*keys)(void *user, const char *input, const struct node *product);
    /* Asked for every product with a constant weight: how n, which comes from the ONNX node of that name, is coded;
     * NULL: it stays as it is. */
    const struct quant_product *(*product)(void *user, const struct node *n, const char *name);
    /* Codes of its weight, in `a`. An error is reported by the caller with the returned text; NULL: fine. */
    const char *(*encode)(void *user, const char *name, const struct quant_operand *o, const struct quant_matrix *w,
                          struct quant_codes *out, struct arena *a);
    /* When set: a look at the weight, as the model has it, of each product for which product() gave a form without
     * codes for the weight. NULL: fine, else why not, as for encode. */
    const char *(*look)(void *user, const char *name, const struct quant_matrix *w);
    bool apart; /* factors of smoothing stay beside the product: what makes its input keeps its values (comparisons) */
};

/* The other way (passes/strip_codes.c): told of every product that multiplies codes. False: it stays as it is.
 * `size`: channels, k and the type of the scales; its data is NULL. */
struct quant_reader {
    void *user;
    bool (*product)(void *user, const char *name, const struct quant_product *form, const struct quant_matrix *size,
                    const struct quant_codes *codes);
};

#endif
