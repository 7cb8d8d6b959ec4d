#include "quant/variant.h"

#include <string.h>

static const struct quant_variant rows[] = {
#define VARIANT(nm, dv, nr, aw, wh) {#nm, wh, QUANT_DIVISOR_##dv, nr, aw},
#include "quant/variants.def"
#undef VARIANT
};

const struct quant_variant *quant_variant_find(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

static void set(const struct quant_variant *v, struct quant_operand *o)
{
    const bool by_row = o->per == QUANT_PER_TOKEN, one = o->dynamic && !by_row;
    if (o->codes == DT_NONE || dtype_is_float(o->codes) || one)
        return;
    o->away = v->away;
    o->narrow = v->narrow && dtype_table[o->codes].cls == DTC_INT;
    if (!o->shifted)
        o->divisor = by_row && v->divisor == QUANT_DIVISOR_SIDE ? QUANT_DIVISOR_MOST : v->divisor;
}

void quant_variant_set(const struct quant_variant *v, struct quant_product *form)
{
    if (form->input.per != QUANT_PER_GROUP)
        set(v, &form->input);
    set(v, &form->weight);
}
