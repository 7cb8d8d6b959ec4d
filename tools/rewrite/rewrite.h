/* npuc check --apply-rewrites: a model rewritten so that more of it runs on the NPU, verified, and written. */
#ifndef TOOLS_REWRITE_REWRITE_H
#define TOOLS_REWRITE_REWRITE_H

#include "tools/coverage/coverage.h"
#include "tools/rewrite/verify.h"

struct rewritten { /* one rewrite that found something */
    const char *name, *what;
    VEC(const char *) nodes; /* names in the file */
};
struct rewriting {
    const char *out;
    VEC(struct rewritten) applied;
    const char *fixed; /* dimensions that -D and --shape fixed; NULL: none */
    struct verification check;
    const char *refused;          /* why nothing was written; NULL: it was */
    const struct coverage *after; /* of what was written */
};

/* Rewrites v's model (whose coverage is known) and writes it to `out`. Exit code: 0 written, 1 not written, `refused`
 * says why; else that of an error that was printed. */
int rewrite_model(const struct coverage *v, const struct args *a, const char *out, struct rewriting *r);
void rewriting_print(const struct coverage *v, const struct rewriting *r, bool markdown);
json_t *rewriting_json(const struct rewriting *r);

#endif
