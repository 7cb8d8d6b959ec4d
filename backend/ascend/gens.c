/* The generators of the family in the order of gens.def, those of vector cores behind them. */
#include "backend/ascend/gens.h"

const struct gen ascend_gens[] = {
#define GEN(nm) {#nm, gen_##nm##_match, gen_##nm##_emit},
#include "backend/ascend/gens.def"
#include "backend/vector/gens.def"
#undef GEN
    {NULL, NULL, NULL},
};
