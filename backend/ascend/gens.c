/* The generators of the family in the order of gens.def. */
#include "backend/ascend/gens.h"

const struct gen ascend_gens[] = {
#define GEN(nm) {#nm, gen_##nm##_match, gen_##nm##_emit},
#include "backend/ascend/gens.def"
#undef GEN
    {NULL, NULL, NULL},
};
