/* Factors and rotations that make inputs of products easier to code, chosen by the error that codes of input and weight
 * leave in the output, and the scale of the input with them. */
#ifndef QUANT_EQUALISE_H
#define QUANT_EQUALISE_H

#include "ir/quantiser.h"
#include "quant/statistics.h"

struct pool;

/* One of the products that read an input: some of its output channels stand for all. */
enum { QUANT_FACE_CHANNELS = 128 };
struct quant_face {
    const struct quant_operand *weight;
    enum dtype scale_type;
    int64_t channels, n, k; /* of the weight; those kept; elements of one */
    float *w;               /* [n][k], as the model has them */
    float *top;             /* [k]: largest magnitude over all channels */
};
/* Keeps what is needed of a weight; false without memory. Under `taps` positions of a kernel (1: no convolution), rows
 * of the weight being [input channel][tap], each position counts as an output of its own, which the rows of the
 * channels make: errors of the positions add up in squares. */
NPUC_MUST_CHECK bool quant_face_make(struct quant_face *f, const struct quant_matrix *w, int64_t taps,
                                     const struct quant_operand *o, struct arena *a);

/* What may be done to an input: a bit per row of equalise.def. */
enum quant_equaliser {
#define EQUALISER(nm, ...) QUANT_EQUALISER_##nm,
#include "quant/equalise.def"
#undef EQUALISER
    QUANT_EQUALISERS
};
/* "smooth,rotate" as bits; -1: a word is no row of equalise.def. */
int quant_equalisers_read(const char *text);

/* The outcome. An error is that of the output relative to the output, squared: the mean over the sampled rows has a
 * share of 7/8 in it, the worst of the rows with the largest elements one of 1/8, for a single row may decide what a
 * model says (a first token that all others attend to). */
struct quant_equalised {
    float *smooth; /* [k]; NULL: none */
    enum quant_rotation rotate;
    double after;         /* error with what was chosen */
    double before, added; /* of codes of the input alone, the weight exact: as it is, covered by its scale; as chosen */
    double alpha, clip;   /* strength of smoothing; part of the range that the scale covers */
    double scale;         /* of an input with a fixed scale */
    int64_t zero;
};
/* The best of what `allowed` permits for an input of that form (any codes, any way to get a scale), and its scale.
 * Needs QUANT_ROWS. False: there is no memory, or nothing is known of the input. */
NPUC_MUST_CHECK bool quant_equalise(const struct quant_statistics *s, const struct quant_operand *input,
                                    const struct quant_face *faces, int64_t n_faces, unsigned allowed,
                                    struct quant_equalised *out, struct arena *a);
/* Statistics of the input as it is after that. False: no memory. */
NPUC_MUST_CHECK bool quant_statistics_turn(struct quant_statistics *s, const float *smooth, enum quant_rotation rotate,
                                           struct arena *a);

#endif
