/* The generators of the family in the order of gens.def, those of vector cores behind them. */
#include "backend/ascend/gens.h"

const struct gen ascend_gens[] = {
#define GEN(nm) {.name = #nm, .match = gen_##nm##_match, .emit = gen_##nm##_emit},
#include "backend/ascend/gens.def"
#include "backend/vector/gens.def"
#undef GEN
    {.name = NULL},
};
