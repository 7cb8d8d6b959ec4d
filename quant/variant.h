/* Vendors' rules for symmetric scales and rounding, by name. Rows: variants.def. */
#ifndef QUANT_VARIANT_H
#define QUANT_VARIANT_H

#include "ir/quantiser.h"

struct quant_variant {
    const char *name, *what;
    enum quant_divisor divisor;
    bool narrow, away;
};
const struct quant_variant *quant_variant_find(const char *name); /* NULL: there is none of this name */
/* Operands of integers take the rule as far as it means something for them. */
void quant_variant_set(const struct quant_variant *v, struct quant_product *form);

#endif
