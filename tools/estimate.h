/* Timing a model or plan without data: shared by `npuc estimate` and `npuc check`. */
#ifndef TOOLS_ESTIMATE_H
#define TOOLS_ESTIMATE_H

#include "compiler/compile.h"
#include "tools/session.h"

/* Compiles `model` without weights and opens the result as a session in mode clock. */
bool estimate_model(struct compilation *c, const char *model, struct session *s, int *exit_code);
/* Opens a plan in mode clock with changed constants. */
bool estimate_plan(const char *path, const struct args *a, struct session *s, int *exit_code);

#endif
