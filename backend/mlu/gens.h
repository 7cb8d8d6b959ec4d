/* Prototypes of the generators in gens.def and their table. */
#ifndef BACKEND_MLU_GENS_H
#define BACKEND_MLU_GENS_H

#include "backend/vector/gens.h"

#define GEN(nm)                                                                                                        \
    bool gen_##nm##_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason);      \
    enum npuc_status gen_##nm##_emit(struct emit *e, struct node *n);
#include "backend/mlu/gens.def"
#undef GEN

/* clusters.c: the machine as the launches of node n see it, when they take fewer clusters than there are. */
bool mlu_clusters(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct machine *out);

extern const struct gen mlu_gens[]; /* ended by a row without name */

#endif
