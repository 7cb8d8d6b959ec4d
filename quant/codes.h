/* Codes of weights in a data file: NODE.codes, NODE.scales and, where codes have zero points, NODE.zeros.
 *   codes   U8 [channels][bytes of a row], packed low bits first
 *   scales  F32 [channels][groups]; [1][1] for one scale
 *   zeros   I16, as scales */
#ifndef QUANT_CODES_H
#define QUANT_CODES_H

#include "ir/quantiser.h"
#include "quant/store.h"

/* NULL: done, `out` is in `a`; else why not. Sizes are held against those of the weight, codes and scales against what
 * the format can mean. */
const char *quant_load_codes(struct quant_store *s, const char *node, const struct quant_operand *o,
                             const struct quant_matrix *w, struct quant_codes *out, struct arena *a);
/* false without memory in `a`, which is for scratch. */
NPUC_MUST_CHECK bool quant_save_codes(struct quant_store_writer *s, const char *node, const struct quant_operand *o,
                                      const struct quant_matrix *w, const struct quant_codes *codes, struct arena *a);

#endif
