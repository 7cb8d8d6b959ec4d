/* The support matrix for people (text, Markdown) and programs (JSON; docs/operators.md describes the fields). */
#ifndef TOOLS_OPS_PRINT_H
#define TOOLS_OPS_PRINT_H

#include <jansson.h>

#include "tools/ops/support.h"

void ops_print_text(const struct ops_matrix *m);
void ops_print_markdown(const struct ops_matrix *m);
json_t *ops_json(const struct ops_matrix *m);

/* A set of element types in few words: "float int8..64"; families are in docs/operators.md. */
const char *types_text(struct arena *a, type_set types);

#endif
