/* The operator table: rows of kernels/formula.def and ir/ops/all.def under their enum. */
#include "ir/op.h"

#include "kernels/tensor.h"

#include <stdio.h>
#include <string.h>

#define FORMULA(number, nm, ...) extern const struct op_def op_##nm;
#include "kernels/formula.def"
#undef FORMULA
#define OP(nm, ...) extern const struct op_def op_##nm;
#include "ir/ops/all.def"

const struct op_def *const op_table[OP_count] = {
#define FORMULA(number, nm, ...) [OP_##nm] = &op_##nm,
#include "kernels/formula.def"
#undef FORMULA
#define OP(nm, ...) [OP_##nm] = &op_##nm,
#include "ir/ops/all.def"
};

_Static_assert(OP_count <= UINT16_MAX, "node.op is 16 bits");

bool op_runs_on_host(enum op op)
{
    const struct op_def *d = op_table[op];
    return k_op_find(d->kernel ? d->kernel : d->name) != NULL;
}

enum op op_by_name(const char *name)
{
    for (int op = OP_none + 1; op < OP_count; op++)
        if (strcmp(op_table[op]->name, name) == 0)
            return (enum op)op;
    return OP_none;
}

/* Operators of com.microsoft that share a name with one of ai.onnx carry the suffix _ms. */
enum op op_find(const char *domain, const char *name)
{
    if (strcmp(domain, "ai.onnx") == 0)
        domain = "";
    char suffixed[128];
    const int n = snprintf(suffixed, sizeof suffixed, "%s_ms", name);
    const bool has_suffixed = strcmp(domain, "com.microsoft") == 0 && n > 0 && n < (int)sizeof suffixed;
    for (int op = OP_none + 1; op < OP_count; op++) {
        const struct op_def *d = op_table[op];
        if (strcmp(d->domain, domain) != 0)
            continue;
        if (strcmp(d->name, name) == 0 || (has_suffixed && strcmp(d->name, suffixed) == 0))
            return (enum op)op;
    }
    return OP_none;
}
