/* Reports of a run: tables for people, JSON for programs. */
#ifndef TOOLS_REPORT_H
#define TOOLS_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "npuc/npurt.h"

/* Times on the target by kernel, busy shares, memory and host operators. `title` follows the target's name. */
void report_print(FILE *f, const struct npurt_report *r, const char *title);
/* Totals in a few lines, without the table. */
void report_summary(FILE *f, const struct npurt_report *r);
json_t *report_json(const struct npurt_report *r);
/* Busy microseconds of each unit, mean over the cores used, summed over launches: mac, vec, mte1, mte2, mte3, fixp,
 * scalar. Where a launch uses both kinds of cores, mte2 and scalar are those of the cube cores. */
json_t *report_pipes(const struct npurt_report *r);

#endif
