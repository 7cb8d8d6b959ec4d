/* Plans of language models by the roles of their inputs (npurt_input_role). */
#ifndef TOOLS_ROLES_H
#define TOOLS_ROLES_H

#include "base/compiler.h"
#include "npuc/npurt.h"

/* Does the plan have KV caches and token inputs whose roles are all known? */
bool plan_is_language_model(const npurt_plan *p);
/* Shapes of one call: `rows` new tokens after `past`, without data (mode clock). Status and message as the runtime
 * gives them. */
enum npuc_status role_shapes(npurt_plan *p, npurt_session *s, int64_t batch, int64_t past, int64_t rows);

#endif
