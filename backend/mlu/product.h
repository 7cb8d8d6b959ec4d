/* Matrix products as an MLU core runs them: rows of a in NRAM, rows of b in WRAM, sums in NRAM. */
#ifndef BACKEND_MLU_PRODUCT_H
#define BACKEND_MLU_PRODUCT_H

#include "backend/matrix/mm.h"
#include "backend/mlu/items.h"

/* Extents of a tile of the result and of a block of K, and who brings b. */
struct product_tile {
    int64_t m, n, k;              /* 0: nothing fits */
    int32_t slots, b_slots, sums; /* of the rings of a, of b, of sums */
    struct mlu_lanes on;          /* with runs a tile of b stays in WRAM while rows of a pass by: K is one block */
};

struct product_tile product_choose_tile(const struct machine *m, const struct ir_ctx *cx, const struct mm *p,
                                        const struct mm_sizes *s, const struct tiling *w);
/* What a tile takes: ranks candidates. */
double product_cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                      const struct product_tile *t);
/* Emits the product: one launch, or one per part of the sizes when they are not known. */
NPUC_MUST_CHECK enum npuc_status product_emit(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                              const char *label);

#endif
