/* The table of operator kernels: structural operators from ops.def, then every formula under its own name. A structural
 * row wins over a formula of the same name (Gelu reads an attribute first). */
#include <string.h>

#include "kernels/op.h"

#define FORMULA(number, nm, ...)                                                                                       \
    static enum npuc_status op_##nm(struct k_call *c)                                                                  \
    {                                                                                                                  \
        return k_elementwise(c, K_FN_##nm);                                                                            \
    }
#include "kernels/formula.def"
#undef FORMULA

static const struct k_op table[] = {
#define KOP(name, fn) {#name, fn},
#include "kernels/ops.def"
#undef KOP
#define FORMULA(number, nm, ...) {#nm, op_##nm},
#include "kernels/formula.def"
#undef FORMULA
};

const struct k_op *k_op_list(int64_t *n)
{
    *n = NPUC_ARRAY_LEN(table);
    return table;
}
const struct k_op *k_op_find(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(table); i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}

enum { TEXT = 1, LISTS = 2, COMPLEX = 4 };
static const struct {
    const char *name;
    int takes;
} beyond_numbers[] = {
#define KTAKES(name, what) {#name, what},
#include "kernels/ops_text.def"
#undef KTAKES
};

static int beyond(const struct k_tensor *t)
{
    if (t->kind != K_TENSOR)
        return LISTS;
    const enum dtype_class cls = dtype_table[t->dtype].cls;
    return cls == DTC_TEXT ? TEXT : cls == DTC_COMPLEX ? COMPLEX : 0;
}

bool k_op_takes(const char *name, int n_in, const struct k_tensor *const *in)
{
    int wanted = 0, takes = 0;
    for (int i = 0; i < n_in; i++)
        wanted |= in[i] ? beyond(in[i]) : 0;
    for (int64_t i = 0; wanted && i < NPUC_ARRAY_LEN(beyond_numbers); i++)
        if (!strcmp(beyond_numbers[i].name, name))
            takes = beyond_numbers[i].takes;
    return (wanted & ~takes) == 0;
}
