#include <string.h>

#include "tools/coverage/coverage.h"

static const struct {
    const char *op, *reason, *text;
} hints[] = {
#define REWRITE(name, pass, when, rounds, op, reason, what) {op, reason, "--apply-rewrites OUT.onnx does it: " what},
#include "tools/rewrite/rewrites.def"
#undef REWRITE
#define HINT(op, reason, text) {op, reason, text},
#include "tools/coverage/hints.def"
#undef HINT
};

const char *coverage_hint(const struct cov_row *r, int target)
{
    const struct cov_use *u = &r->use[target];
    if (u->n[COV_HOST] + u->n[COV_BAD] == 0)
        return NULL;
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (hints[i].reason && (strcmp(hints[i].op, "*") == 0 || strcmp(hints[i].op, r->op) == 0) &&
            strstr(u->reason ? u->reason : "", hints[i].reason))
            return hints[i].text;
    return NULL;
}
