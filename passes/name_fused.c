/* Regions that equal a vendor's fused operator carry its name, so that reports speak the language of the vendor's
 * profiler.
 *
 *   %s, %n = Fused %x, %r, %w {kind="vector" body=(...) { Add; RMSNormalization; Yield }}
 * becomes the same with name="AddRmsNorm".
 *
 * The table below lists operators of CANN (aclnn names without prefix) by their chains of operators.
 * Requirements: (1) the whole region is the chain, each member using the one before; (2) nothing but the attribute
 * changes. Left alone: regions that hold more; their name is their kind. */
#include <string.h>

#include "passes/pass.h"

static const struct {
    const char *kind, *ops, *name; /* ops: in order, separated by blanks; NULL: any */
} names[] = {
    {"attention", NULL, "FusedInferAttentionScore"},
    {"matmul_epilogue", "FusedMatMul Add Relu", "FusedMatmul"},
    {"matmul_epilogue", "Gemm Relu", "FusedMatmul"},
    {"matmul_epilogue", "MatMul Add Relu", "FusedMatmul"},
    {"matmul_epilogue", "MatMul Relu", "FusedMatmul"},
    {"vector", "Add LayerNormalization", "AddLayerNorm"},
    {"vector", "Add RMSNormalization", "AddRmsNorm"},
    {"vector", "Add RMSNormalization Cast", "AddRmsNormCast"},
    {"vector", "Gelu Mul", "GeGlu"},
    {"vector", "GeluTanh Mul", "GeGlu"},
    {"vector", "Sigmoid Mul Mul", "SwiGlu"},
    {"vector", "Swish Mul", "SwiGlu"},
};

static bool uses_result(const struct node *n, const struct node *of)
{
    return node_in(n, 0) == &of->out[0] ||
           (op_has((enum op)n->op, T_COMMUTATIVE) && n->n_in == 2 && node_in(n, 1) == &of->out[0]);
}

/* Is the region the chain of operators, and nothing else? */
static bool is_chain(const struct graph *body, const char *ops)
{
    const struct node *before = NULL;
    for_each_node (n, body) {
        if (n->op == OP_Constant)
            continue;
        if (n->op == OP_Yield)
            return *ops == '\0';
        const char *name = op_table[n->op]->name;
        const size_t len = strlen(name);
        if (strncmp(ops, name, len) != 0 || (ops[len] != ' ' && ops[len] != '\0') ||
            (before && !uses_result(n, before)))
            return false;
        ops += len + (ops[len] == ' ');
        before = n;
    }
    return false;
}

static const char *name_of(const struct node *n, const char *kind)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(names); i++)
        if (strcmp(names[i].kind, kind) == 0 && (!names[i].ops || is_chain(node_region(n, 0), names[i].ops)))
            return names[i].name;
    return NULL;
}

enum npuc_status name_fused(struct pass_ctx *px, struct graph *g)
{
    for_each_node (n, g) {
        const sym kind = n->op == OP_Fused ? node_attr_str(n, "kind", 0) : 0;
        const char *name = kind ? name_of(n, str_text(&px->cx->strings, kind)) : NULL;
        if (!name || node_attr_str(n, "name", 0) == str_internz(&px->cx->strings, name) || !ir_may_rewrite(px->cx))
            continue;
        ir_set_str(n, "name", name);
        pass_count(px, STAT_name_fused_named, 1);
    }
    return NPUC_OK;
}
