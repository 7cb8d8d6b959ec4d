/* The sizes of a product as a space of variants: extents are chosen anew where m, n, k or the batch are not known. */
#ifndef BACKEND_MATRIX_MM_VARIANTS_H
#define BACKEND_MATRIX_MM_VARIANTS_H

#include "backend/matrix/mm.h"
#include "backend/variants.h"

/* How a family writes a product: forms are its tiles, of form_size bytes. */
struct mm_forms {
    int64_t form_size;
    void (*choose)(struct emit *e, const struct mm *p, const struct mm_sizes *s, void *form);
    double (*cycles)(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const void *form);
    enum npuc_status (*launch)(struct emit *e, const struct mm *p, const struct mm_tensors *t, const void *form,
                               const char *label);
};
/* Emits the product: one launch, or one per part of the sizes when they are not known. */
NPUC_MUST_CHECK enum npuc_status mm_emit_forms(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                               const char *label, const struct mm_forms *f);

#endif
