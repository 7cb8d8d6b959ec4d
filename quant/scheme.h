/* Schemes by name: how a scheme's products are coded. Rows: schemes.def. */
#ifndef QUANT_SCHEME_H
#define QUANT_SCHEME_H

#include "ir/quantiser.h"

struct quant_scheme {
    const char *name, *weight, *input;
    const char *last_weight, *last_input; /* of products that make the outputs; last_weight "": as all others */
    const char *what;
};
const struct quant_scheme *quant_schemes(int64_t *n);
/* "w8a8", "w4a16-g64": operands as recipes write them, in `a`; false: there is no such scheme. An input of "" stays,
 * one that ends in " static" gets its scale from calibration. */
bool quant_scheme_find(const char *name, struct arena *a, struct quant_scheme *out);

/* "kv8": rows of KV caches as recipes write them; NULL: there is no such scheme. */
const char *quant_cache_scheme_find(const char *name);

#endif
