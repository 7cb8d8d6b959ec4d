/* The memory map of a plan: where tensors lie in global memory for given sizes, how much of each memory on chip the
 * kernels take. */
#ifndef TOOLS_MEMORY_H
#define TOOLS_MEMORY_H

#include <stdbool.h>

#include "tools/args.h"

int memory_map(const char *plan, const struct args *a, bool json); /* exit code */

#endif
