/* Prototypes of the generators in gens.def and their table. */
#ifndef BACKEND_ASCEND_GENS_H
#define BACKEND_ASCEND_GENS_H

#include "backend/vector/gens.h"

#define GEN(nm)                                                                                                        \
    bool gen_##nm##_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason);      \
    enum npuc_status gen_##nm##_emit(struct emit *e, struct node *n);
#include "backend/ascend/gens.def"
#undef GEN

extern const struct gen ascend_gens[]; /* ended by a row without name */

/* A convolution whose map x is a view of a value that lies in lines of channels already. */
bool gen_conv_takes_lines(const struct machine *m, struct ir_ctx *cx, const struct node *n, const struct value *x);

#endif
