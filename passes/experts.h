/* Parts of recover_moe. */
#ifndef PASSES_EXPERTS_H
#define PASSES_EXPERTS_H

#include "passes/match.h"

/* The TopK whose places `index` holds, element by element in their order: each is below *experts, `*top` of a token
 * follow each other and differ. NULL: something else. */
const struct node *expert_choice(const struct value *index, int64_t *experts, int64_t *top);
/* Sums over experts that are computed one by one (recover_experts.c). */
enum npuc_status recover_experts(struct pass_ctx *px, struct graph *g);

#endif
