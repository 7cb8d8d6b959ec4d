/* Matrix products as an MLU core runs them: rows of a in NRAM, rows of b in WRAM, sums in NRAM. */
#ifndef BACKEND_MLU_PRODUCT_H
#define BACKEND_MLU_PRODUCT_H

#include "backend/matrix/mm.h"

/* Extents of a tile of the result and of a block of K. */
struct product_tile {
    int64_t m, n, k;
    int32_t slots; /* of the rings of operands */
};

struct product_tile product_choose_tile(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                                        const struct tiling *w);
/* Emits the product: one launch, or one for at most 16 rows and one for more when m is not known. */
NPUC_MUST_CHECK enum npuc_status product_emit(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                              const char *label);

#endif
