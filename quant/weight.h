/* Codes of constant weights. An algorithm is a row of weights.def and a function; all of them choose scales (and zero
 * points) per tensor, channel or group, in the scale type of the graph, and codes whose decoding is
 * (code - zero) * scale. */
#ifndef QUANT_WEIGHT_H
#define QUANT_WEIGHT_H

#include "ir/quantiser.h"

struct quant_scale {
    float scale;
    int zero;
};
struct quant_fit;  /* quant/fit.h */
struct quant_task; /* quant/encode.h */
struct quant_weight_row {
    const char *name;
    unsigned needs; /* enum quant_statistic */
    const char *what;
    struct quant_scale (*fit)(const struct quant_fit *part); /* the scale of a part */
    /* Scales and codes of the whole weight. NULL: codes to nearest, part by part. It returns why not, NULL: done. */
    const char *(*choose)(const struct quant_task *t);
};
const struct quant_weight_row *quant_weight_find(const char *name); /* NULL: none of this name */
const struct quant_weight_row *quant_weights(int64_t *n);
/* The algorithm for codes of a type when nobody names one; with_data: statistics can be had. Errors of integers of
 * eight bits are below those of an input that has codes, too: only alone they are worth the work. */
const char *quant_weight_default(enum dtype codes, bool coded_input, bool with_data);
/* Does it take no longer than reading its codes would? NULL is "minmax". */
bool quant_weight_is_quick(const char *by);

/* Runs o->by ("minmax" when NULL). `out` and its arrays are in `a`. NULL: done; else why not. */
const char *quant_encode_weight(const struct quant_operand *o, const struct quant_matrix *w, struct quant_codes *out,
                                struct arena *a);

/* One scale's part of a weight: rows x cols elements, `stride` apart between rows. */
struct quant_span {
    const float *data;
    int64_t rows, cols, stride;
};
/* The scale and zero point that cover [lo, hi], which is widened to hold 0; scale in `scale_type`. */
struct quant_scale quant_cover(const struct quant_operand *o, enum dtype scale_type, double lo, double hi);
/* The code of x: integers are rounded half to even and saturate, small floats as ONNX's saturating Cast. */
int quant_code(const struct quant_operand *o, struct quant_scale s, float x);
/* The same for n elements. */
void quant_codes_of(const struct quant_operand *o, struct quant_scale s, const float *x, int64_t n, int16_t *to);
float quant_decode(const struct quant_operand *o, struct quant_scale s, int code);

/* Smallest and largest code of an integer type. */
int quant_least_code(enum dtype codes);
int quant_greatest_code(enum dtype codes);
/* v as a scale: rounded to its type; 1 when that would lose what it scales. */
float quant_usable_scale(enum dtype scale_type, double v);

/* What a symmetric scale maps the largest element to (formats.def): 127 for int8, 448 for E4M3. */
double quant_most(enum dtype codes);

#endif
