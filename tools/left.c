#include "tools/left.h"

#include <string.h>

#include "base/size.h"

enum { LEAST_WEIGHT = 256 }; /* elements; less than that are tables of angles and the like */

static bool is_weight(const struct quantization *q, const struct value *v)
{
    int64_t count = 1, size;
    while (v && v->def && (v->def->op == OP_Cast || v->def->op == OP_Transpose))
        v = node_in(v->def, 0);
    if (!v || !value_const(v) || v->type->rank < 2 || !dtype_is_float(v->type->dtype))
        return false;
    for (int i = 0; i < v->type->rank; i++)
        if (!expr_is_const(&q->c.cx.exprs, v->type->dims[i], &size) || !size_mul(count, size, &count))
            return false;
    return count >= LEAST_WEIGHT;
}

static int weight_of(const struct quantization *q, const struct node *n)
{
    int i = 0;
    while (i < n->n_in && !is_weight(q, node_in(n, i)))
        i++;
    return i;
}

static const char *why_left(const struct quantization *q, const struct node *n, int weight)
{
    const bool plain = n->op == OP_MatMul || n->op == OP_FusedMatMul || n->op == OP_Gemm;
    if (plain && weight == 0)
        return "its weight is the left operand: it stays as it is";
    if (plain && node_in(n, 1)->type->rank > 2)
        return "its weight is several matrices: it stays as it is";
    if (plain)
        return "its left operand is transposed: it stays as it is";
    return arena_printf(q->arena, "weights of %s get no codes: it stays as it is",
                        str_text(&q->c.cx.strings, n->loc->op_type));
}

static void note(struct quantization *q, const struct graph *g)
{
    for_each_node (n, g) {
        for_each_region(r, n) note(q, r);
        if (!(op_table[n->op]->traits & T_MAC) || !n->loc || n->loc->n < 1 || quantize_found(q, n))
            continue;
        const int weight = weight_of(q, n);
        if (weight == n->n_in)
            continue;
        const char *name = str_text(&q->c.cx.strings, n->loc->names[0]);
        const struct quant_entry e = {.name = arena_strndup(q->arena, name, (int64_t)strlen(name)),
                                      .keep = why_left(q, n, weight)};
        vec_push(q->arena, &q->left, e);
    }
}

void left_note(struct quantization *q)
{
    for (int64_t i = 0; i < q->c.module->funcs.len; i++)
        note(q, q->c.module->funcs.data[i]);
}
