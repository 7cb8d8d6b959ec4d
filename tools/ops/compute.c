/* Does the host compute the example? The reference interpreter runs it: its kernels are the host's. Inputs are zeros,
 * and where an operator cannot do with those (a step of Range, the length of a cache) ones. */
#include "ir/eval.h"
#include "tools/ops/support.h"

enum { OPEN_SIZE = 4 }; /* of every symbolic dim */

/* A sequence holds the same tensor twice. */
static bool fill(struct trial *t, const struct type *type, const int64_t *symbols, int value, struct k_tensor *out)
{
    struct arena *a = &t->arena;
    if (type->kind == TYPE_SEQUENCE || type->kind == TYPE_OPTIONAL) {
        const bool many = type->kind == TYPE_SEQUENCE;
        struct k_tensor *of = ARENA_ARRAY(a, struct k_tensor, 2);
        *out = (struct k_tensor){.dtype = type->elem->dtype, .rank = 1, .dims = {many ? 2 : 1}, .data = of};
        out->size = out->dims[0] * (int64_t)sizeof *of;
        out->kind = many ? K_SEQUENCE : K_OPTIONAL;
        const bool ok = fill(t, type->elem, symbols, value, of);
        of[1] = of[0];
        return ok;
    }
    *out = (struct k_tensor){.dtype = type->dtype, .rank = type->rank};
    for (int i = 0; i < type->rank; i++)
        if (type->dims[i] == EXPR_INVALID)
            out->dims[i] = OPEN_SIZE;
        else if (!expr_eval(&t->cx.exprs, type->dims[i], symbols, &out->dims[i]))
            return false;
    const int64_t n = k_count(out);
    if (type->dtype == DT_STRING) {
        struct k_string *text = ARENA_ARRAY(a, struct k_string, n + 1);
        for (int64_t i = 0; i < n; i++)
            text[i] = (struct k_string){"0", 1};
        out->data = text;
        out->size = n * (int64_t)sizeof *text;
        return true;
    }
    if (!dtype_bytes(type->dtype, n, &out->size))
        return false;
    out->data = arena_zalloc(a, out->size + 16);
    const enum dtype_class cls = dtype_table[type->dtype].cls;
    for (int64_t i = 0; i < n && value && cls != DTC_COMPLEX; i++)
        k_set_i64(out, i, value);
    return true;
}

static bool computes(struct trial *t, int value)
{
    const struct graph *g = t->module->funcs.data[0];
    const int64_t n_symbols = t->cx.exprs.symbols.len;
    int64_t *symbols = ARENA_ARRAY(&t->arena, int64_t, n_symbols + 1);
    for (int64_t i = 0; i < n_symbols; i++)
        symbols[i] = OPEN_SIZE;
    struct k_tensor *in = ARENA_ARRAY(&t->arena, struct k_tensor, g->n_inputs + 1);
    struct k_tensor *out = ARENA_ARRAY(&t->arena, struct k_tensor, (int64_t)graph_yield(g)->n_in + 1);
    for (int i = 0; i < g->n_inputs; i++)
        if (!fill(t, g->inputs[i]->type, symbols, value, &in[i]))
            return false;
    return ir_eval(&t->cx, g, in, out, &t->arena) == NPUC_OK;
}

bool trial_computes(struct trial *t)
{
    if (computes(t, 0))
        return true;
    const enum npuc_status first = t->diag.first;
    if (first == NPUC_E_UNSUPPORTED || !computes(t, 1))
        return false;
    t->error[0] = '\0';
    return true;
}
