/* What inputs of language models are for, by their names; also for models that are no plans yet. */
#ifndef RUNTIME_ROLES_H
#define RUNTIME_ROLES_H

#include "npuc/npurt.h"

enum npurt_role rt_role_of_name(const char *name); /* of an input that is no cache */

#endif
