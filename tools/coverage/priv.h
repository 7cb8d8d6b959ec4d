/* Within `npuc check`: one target's compilation on the way into the coverage. */
#ifndef TOOLS_COVERAGE_PRIV_H
#define TOOLS_COVERAGE_PRIV_H

#include "compiler/compile.h"
#include "tools/coverage/coverage.h"

struct survey {
    struct coverage *v;
    struct compilation *c;
    int t;                  /* number of the target */
    bool placed;            /* the passes went through: places are known */
    const int64_t *symbols; /* assumed sizes, per symbol of the imported graph */
    struct ir_claims claims;
};

struct cov_node *survey_node(struct survey *s, const char *name); /* NULL: none of the file */
/* time.c: compiles as far as the model allows; what is complete is timed without data. */
void survey_time(struct survey *s, const struct args *a);

#endif
