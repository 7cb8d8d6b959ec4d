/* The generators of the family in the order of gens.def. */
#include "backend/ascend/gens.h"

const struct gen ascend_gens[] = {
#define GEN(nm) {#nm, gen_##nm##_match, gen_##nm##_emit},
#include "backend/ascend/gens.def"
#undef GEN
    {NULL, NULL, NULL},
};
const int64_t n_ascend_gens = NPUC_ARRAY_LEN(ascend_gens) - 1;

const struct gen *backend_gens(const struct machine *m)
{
    (void)m; /* one family so far; machine_init refuses the others */
    return ascend_gens;
}
