/* Two plans on the same inputs: how far apart their outputs are. */
#ifndef TOOLS_ANALYSIS_PLANS_H
#define TOOLS_ANALYSIS_PLANS_H

#include "tools/args.h"

/* The command's two words are plans, its --input options what both run on. Prints a line per output of the first, or
 * JSON. 0, or an exit code after a message. */
int plans_compare(struct args *a);

#endif
