/* Times of what devices tell each other over their links: equations of docs/clock.md, constants of the target. */
#ifndef RUNTIME_COMM_H
#define RUNTIME_COMM_H

#include "targets/target.h"

enum comm_kind { COMM_NONE, COMM_ALL_GATHER, COMM_ALL_REDUCE, COMM_ALL_TO_ALL, COMM_SEND };

enum comm_kind comm_of(const char *op); /* COMM_NONE: no collective */
/* Has the target links, for so many devices? If not, *why says so. */
bool comm_reaches(const struct target *t, int64_t devices, const char **why);
/* Microseconds among `ranks` devices, launch included. bytes: the operand of one device (ALL_GATHER: the part that it
 * has; SEND: to one other device). 0 for one device. */
double comm_us(const struct target *t, enum comm_kind kind, int64_t ranks, double bytes);

#endif
