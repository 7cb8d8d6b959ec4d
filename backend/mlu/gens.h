/* Prototypes of the generators in gens.def and their table. */
#ifndef BACKEND_MLU_GENS_H
#define BACKEND_MLU_GENS_H

#include "backend/vector/gens.h"

#define GEN(nm)                                                                                                        \
    bool gen_##nm##_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason);      \
    enum npuc_status gen_##nm##_emit(struct emit *e, struct node *n);
#define GEN_ROWS(nm)                                                                                                   \
    GEN(nm)                                                                                                            \
    bool gen_##nm##_rows(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct row_use *out);
#define GEN_LINES(nm) GEN_ROWS(nm)
#include "backend/mlu/gens.def"
#undef GEN_LINES
#undef GEN_ROWS
#undef GEN

/* clusters.c: one copy of node n for each cluster that has images; false: it takes all clusters. */
bool mlu_clusters(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct machine_part *out);

extern const struct gen mlu_gens[]; /* ended by a row without name */

#endif
