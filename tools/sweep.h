/* Times of a model over a grid of sizes: compiled once per target, sizes bound anew for each point, launches that were
 * timed before are not timed again. A point has the times that npuc estimate gives for it alone. */
#ifndef TOOLS_SWEEP_H
#define TOOLS_SWEEP_H

#include <stdio.h>

#include "base/vec.h"
#include "tools/json.h"
#include "tools/session.h"
#include "tools/spread.h"

struct sweep_axis {
    const char *name; /* batch, seq of a language model; else a dimension of the plan */
    VEC(int64_t) sizes;
};
#define SWEEP_AXES 4
struct sweep_point {
    int64_t size[SWEEP_AXES];
    double first_us; /* language models: to the first token, a prefill of seq tokens; else one call */
    double step_us;  /* language models: one decode step after it; else 0 */
    double weights, caches, activations; /* bytes; caches: of the tokens alone, whatever their capacity */
    bool continued;                      /* first_us follows from smaller prefills, see sweep_run */
};
struct sweep_target {
    const char *name;
    double gm; /* bytes of global memory */
    VEC(struct sweep_point) points;
};
struct sweep {
    struct arena *arena;
    const char *model;
    bool language; /* a language model: axes 0 and 1 are batch and seq */
    int n_axes;
    struct sweep_axis axis[SWEEP_AXES];
    VEC(struct sweep_target) targets;
    const struct spread *spread; /* devices; bytes and `gm` are those of one */
    double gm;                   /* memory of the target that comes next, in bytes; 0: what its session says */
    int64_t exact;               /* tokens of the largest prefill that is timed; INT64_MAX: all are */
    double seconds;              /* that it took on this host */
};

/* Reads the --sweep options. false after a message. */
bool sweep_read(struct sweep *w, const struct args *a, int *exit_code);
int64_t sweep_largest(const struct sweep *w, const char *name, int64_t otherwise);
/* Times all points with the session, which is in mode clock; appends a target. 0, or an exit code after a message.
 *
 * All processors of this host work, each with a session of its own; a launch that one has timed the others know.
 * Prefills of more than `exact` tokens of a language model are continued from timed ones of up to four times as many: a
 * line in the tokens for products, and a part of batch * seq^2 for attention beside it. */
int sweep_run(struct sweep *w, struct session *s, const char *target);

double sweep_need(const struct sweep_point *p); /* bytes of global memory */
/* Sequences of a point, new tokens of its prefill. */
int64_t sweep_batch(const struct sweep *w, const struct sweep_point *p);
int64_t sweep_tokens(const struct sweep *w, const struct sweep_point *p);

/* sweep_report.c, sweep_plot.c: what came out, on stdout or in a file that --csv, --html, --svg name. */
void sweep_table(const struct sweep *w);
json_t *sweep_json(const struct sweep *w);
bool sweep_files(const struct sweep *w, const struct args *a, int *exit_code);
void sweep_svg(const struct sweep *w, FILE *f);
void sweep_escape(FILE *f, const char *s); /* text of HTML and SVG */

#endif
