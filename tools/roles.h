/* What the inputs of a language model are for, told by their names and kinds. */
#ifndef TOOLS_ROLES_H
#define TOOLS_ROLES_H

#include "base/compiler.h"
#include "npuc/npurt.h"

enum role { /* npurt.h's, with names for this folder */
            ROLE_TOKENS = NPURT_ROLE_TOKENS,
            ROLE_MASK = NPURT_ROLE_MASK,
            ROLE_POSITIONS = NPURT_ROLE_POSITIONS,
            ROLE_FIRST_ROW = NPURT_ROLE_FIRST_ROW,
            ROLE_VALID_ROWS = NPURT_ROLE_VALID_ROWS,
            ROLE_CACHE = NPURT_ROLE_CACHE,
            ROLE_UNKNOWN = NPURT_ROLE_UNKNOWN
};
enum role role_of_name(const char *name); /* of an input that is no cache */
enum role role_of(const struct npurt_value *v);
/* Does the plan have KV caches and token inputs whose roles are all known? */
bool plan_is_language_model(const npurt_plan *p);
/* Shapes of one call: `rows` new tokens after `past`, without data (mode clock). Status and message as the runtime
 * gives them. */
enum npuc_status role_shapes(npurt_plan *p, npurt_session *s, int64_t batch, int64_t past, int64_t rows);

#endif
