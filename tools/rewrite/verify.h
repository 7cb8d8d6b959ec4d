/* Do two graphs compute the same? Both run in the reference interpreter on random inputs. */
#ifndef TOOLS_REWRITE_VERIFY_H
#define TOOLS_REWRITE_VERIFY_H

#include "ir/graph.h"

enum { VERIFY_SETS = 3 }; /* seeds 1 to 3 */

struct verification {
    int sets;            /* that were compared */
    double abs, rel;     /* largest difference; relative: to the largest magnitude in the same result */
    double tolerance;    /* allowed relative difference, of the type whose difference was largest */
    const char *sizes;   /* "batch = 1, seq = 32"; "" */
    const char *failure; /* why they are not the same, or could not be compared; NULL */
};

/* The allowed difference relative to a result's largest magnitude: 1e-5 in f32 and f64, one in the last two bits of
 * narrower floats, 0 for everything else and for exact rewrites. */
double verify_tolerance(enum dtype t, bool exact);

/* `before` and `after` are main graphs with the same inputs, each of a context of its own. Text is put into `a`. */
bool verify_same(const struct graph *before, const struct graph *after, bool exact, struct arena *a,
                 struct verification *v);

#endif
