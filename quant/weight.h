/* Codes of constant weights. An algorithm is a row of weights.def and a function; all of them choose scales (and zero
 * points) per tensor, channel or group, in the scale type of the graph, and codes whose decoding is
 * (code - zero) * scale. */
#ifndef QUANT_WEIGHT_H
#define QUANT_WEIGHT_H

#include "ir/quantiser.h"

/* NULL: done; else why not. `out` is allocated in `a` by the caller of the algorithm. */
typedef const char *quant_weight_fn(const struct quant_operand *o, const struct quant_matrix *w,
                                    struct quant_codes *out, struct arena *a);
struct quant_weight_row {
    const char *name;
    unsigned needs; /* enum quant_statistic */
    const char *what;
    quant_weight_fn *run;
};
const struct quant_weight_row *quant_weight_find(const char *name); /* NULL: none of this name */

/* Runs o->by ("minmax" when NULL). `out` and its arrays are in `a`. NULL: done; else why not. */
const char *quant_encode_weight(const struct quant_operand *o, const struct quant_matrix *w, struct quant_codes *out,
                                struct arena *a);

/* One scale's part of a weight: rows x cols elements, `stride` apart between rows. */
struct quant_span {
    const float *data;
    int64_t rows, cols, stride;
};
struct quant_scale {
    float scale;
    int zero;
};
/* The scale and zero point that cover [lo, hi], which is widened to hold 0; scale in `scale_type`. */
struct quant_scale quant_cover(const struct quant_operand *o, enum dtype scale_type, double lo, double hi);
/* The code of x: integers are rounded half to even and saturate, small floats as ONNX's saturating Cast. */
int quant_code(const struct quant_operand *o, struct quant_scale s, float x);
float quant_decode(const struct quant_operand *o, struct quant_scale s, int code);

/* Largest finite magnitude of a code: 127 for int8 (symmetric), 448 for E4M3. */
double quant_most(enum dtype codes);

#endif
