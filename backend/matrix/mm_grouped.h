/* Products whose rows choose their matrix: which rows belong to which is known when the kernel runs. The rows are in
 * the order of matrices; every core walks the groups and takes its share of the tiles of each, so nothing is read of a
 * matrix that no row asks for. */
#ifndef BACKEND_MATRIX_MM_GROUPED_H
#define BACKEND_MATRIX_MM_GROUPED_H

#include "backend/matrix/mm_dims.h"
#include "backend/matrix/mm_variants.h"

/* Within a kernel. */
struct mm_groups {
    const struct mm *p;
    expr rows, expected;  /* of all groups; groups that have rows when no data say so */
    int32_t index, ends;  /* tensors */
    expr which, first, n; /* of the open group: its matrix, its first row, its rows */
    expr round, rounds;   /* of the open tile among those of this core in the group, of all these */
};

/* What of a GroupedMatMul with sorted rows the matrix unit does. */
bool mm_match_grouped(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct mm *out,
                      const char **reason);
/* Matrices of a token among those of one device: a part of one where ranks are many. */
static inline double mm_share(const struct mm *p)
{
    return (double)p->top / (double)(p->ranks > 0 ? p->ranks : 1);
}
/* Matrices that rows / share tokens are expected to choose, `share` different ones each, if all are as likely:
 * groups * (1 - (1 - share / groups)^tokens). */
double mm_expected_groups(int64_t groups, double share, double rows);
/* The launches of `emit` for few rows and for many, of which one walks rows and one walks matrices. */
NPUC_MUST_CHECK enum npuc_status mm_emit_by_rows(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                                 const char *label, mm_emit_fn *emit);

void mm_groups_declare(struct mm_groups *g, const struct mm *p, struct kparams *params); /* parameters */
void mm_groups_tensors(struct mm_groups *g, struct tile_kernel *k, struct arena *a);     /* index, ends */
/* Opens the loop over groups, then over this core's tiles of the group, of which there are ceil(n / tile_m) x columns;
 * returns the number of the tile. Ends both with tile_end. Sets the kernel's blocks, at most `cores`. */
expr mm_groups_open(struct mm_groups *g, struct tile_builder *b, int64_t cores, int64_t tile_m, expr columns);

#endif
