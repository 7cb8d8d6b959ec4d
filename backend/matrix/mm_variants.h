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
typedef enum npuc_status mm_emit_fn(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label);
/* The launches of `emit` for p where `is` holds and for q where it does not. */
NPUC_MUST_CHECK enum npuc_status mm_emit_either(struct emit *e, expr is, const struct mm *p, const struct mm *q,
                                                const struct mm_tensors *t, const char *label, mm_emit_fn *emit);
/* Those of p; where its products have one row each and members of the batch share b, the rows of these are those of one
 * product: a step of many sequences with a matrix for each head reads every matrix once. */
NPUC_MUST_CHECK enum npuc_status mm_emit_single_rows(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                                     const char *label, mm_emit_fn *emit);
/* Emits the product: one launch, or one per part of the sizes when they are not known. */
NPUC_MUST_CHECK enum npuc_status mm_emit_forms(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                               const char *label, const struct mm_forms *f);

#endif
