/* The sizes of a product as a space of variants: extents are chosen anew where m, n, k or the batch are not known. */
#ifndef BACKEND_MATRIX_MM_VARIANTS_H
#define BACKEND_MATRIX_MM_VARIANTS_H

#include "backend/matrix/mm.h"
#include "backend/variants.h"

struct mm_axes {
    struct mm_sizes known; /* sizes that are no axis */
    int batch, m, n, k;    /* axes, -1: known */
};
void mm_axes(const struct emit *e, const struct mm *p, struct variant_space *s, struct mm_axes *out);
struct mm_sizes mm_sizes_at(const struct mm_axes *x, const double *at);

#endif
