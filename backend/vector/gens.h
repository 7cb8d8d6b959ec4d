/* Prototypes of the generators in gens.def, and of those beside them that a family puts among its own. */
#ifndef BACKEND_VECTOR_GENS_H
#define BACKEND_VECTOR_GENS_H

#include "backend/backend.h"

#define GEN(nm)                                                                                                        \
    bool gen_##nm##_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason);      \
    enum npuc_status gen_##nm##_emit(struct emit *e, struct node *n);
GEN(depthwise) /* before a family's convolutions */
GEN(lines)
#include "backend/vector/gens.def"
#undef GEN
bool gen_lines_rows(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct row_use *out);

enum npuc_status vector_copy(struct emit *e, int32_t from, int32_t to, const struct type *t, bool *done);
enum npuc_status vector_number(struct emit *e, int32_t to, enum dtype dtype, expr number, bool *done);
/* Other generators take single elementwise operators that the one of regions does not know. */
bool vector_in_region(const struct target_info *t, struct ir_ctx *cx, const struct node *n);
/* What passes should know of any machine with vector and matrix units. */
void vector_target_info(const struct machine *m, struct target_info *out);

#endif
