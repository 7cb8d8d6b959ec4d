/* Conversions of layouts that a plan still does: what each moves, what it costs, why it is there. */
#ifndef TOOLS_CONVERSIONS_H
#define TOOLS_CONVERSIONS_H

#include <jansson.h>
#include <stdio.h>

#include "tools/args.h"
#include "tools/session.h"

struct conversion {
    const char *tensor, *dims, *from, *to, *node, *kernel, *why;
    int64_t bytes; /* read and written */
    int64_t count;
    double us, cycles;
};
struct conversions {
    VEC(struct conversion) list; /* the longest first */
    int64_t count, bytes;
    double us, cycles, total_us; /* of the whole run, too */
};
/* Of the session's last run in mode clock or both. */
void conversions_of(struct conversions *c, const struct session *s, struct arena *a);
/* "3 layout conversions left, 1.2 MiB, 2.1 % of the time"; "no layout conversions". */
const char *conversions_line(const struct conversions *c, struct arena *a);
void conversions_table(const struct conversions *c, FILE *f, struct arena *a);
json_t *conversions_json(const struct conversions *c);

/* npuc inspect --what conversions: a plan at the sizes that -D gives, others as assume.h has them. */
int conversions_print(const char *plan, const struct args *a, bool json);
/* The line about a plan, timed at assumed sizes; NULL: it cannot be read. */
const char *conversions_of_file(const char *plan, struct arena *a);

#endif
