/* Operators: one row per operator in ir/ops/<family>.def (formula operators: one row in kernels/formula.def), hooks
 * beside the row in the same-named .c file. Nothing else lists operators. */
#ifndef IR_OP_H
#define IR_OP_H

#include "base/dtype.h"
#include "npuc/status.h"
#include "kernels/attend_chunks.h" /* values of the attribute `empty` of SoftmaxMatMul */

enum op {
    OP_none = 0,
#define FORMULA(number, nm, ...) OP_##nm,
#include "kernels/formula.def"
#undef FORMULA
#define OP(nm, ...) OP_##nm,
#include "ir/ops/all.def"
    OP_count
};

/* The class picks the kernel generator (DESIGN section 3). */
enum op_class {
    CLS_FREE /* no work: views, Constant, Yield */,
    CLS_ELEMENTWISE,
    CLS_MATMUL,
    CLS_CONV,
    CLS_REDUCE,
    CLS_NORM,
    CLS_ATTENTION,
    CLS_MOVE,
    CLS_WINDOW,
    CLS_SORT,
    CLS_RECURRENT,
    CLS_CONTROL,
    CLS_FUSED,
    CLS_HOST
};

enum op_trait {
    T_ELEMENTWISE = 1 << 0,
    T_COMMUTATIVE = 1 << 1,
    T_MAC = 1 << 2,
    T_MOVE = 1 << 3,
    T_REDUCE = 1 << 4,
    T_SIDE_EFFECT = 1 << 5,
    T_VARIADIC_IN = 1 << 6,
    T_VARIADIC_OUT = 1 << 7,
    T_VIEW = 1 << 8 /* output is input 0 with other dims */,
    T_SHAPE_DATA = 1 << 9 /* output content may be known expressions: infer sets elems */,
    T_TERMINATOR = 1 << 10,
    T_REGION = 1 << 11,
    T_NONDETERMINISTIC = 1 << 12,
    T_DATA_SHAPE = 1 << 13 /* output size depends on input data: fresh symbols */,
    T_APART =
        1 << 14 /* elements of different places on axis 0 never meet; of products, where axis 0 is rows or batch */,
    T_ALONG = 1 << 15 /* elements meet along attribute `axis`, or from it on: on axis 0 only when it names that */
};

/* Attribute schema: kind, name and default; a sentinel with name NULL ends the array. */
struct attr_def {
    const char *name;
    int kind; /* enum attr_kind */
    bool required;
    bool has_default;
    int64_t i;     /* default of INT; of INTS: every element */
    float f;       /* default of FLOAT */
    const char *s; /* default of STRING */
};

struct ir_ctx;
struct node;
struct value;
struct cost {
    double macs, alu, bytes_in, bytes_out; /* evaluated for given symbol values by the caller */
};

struct op_def {
    const char *name; /* ONNX name (core operator: newest opset's meaning) */
    const char
        *domain; /* "" or "com.microsoft" (names are unique over both, save those ending in _ms), "npuc" for our own */
    int since;   /* opset whose meaning the hooks implement */
    int16_t min_in, max_in, n_out, n_attrs;
    enum op_class cls;
    uint32_t traits;
    const struct attr_def *attrs;
    /* Types (and known elems) of all outputs from those of the inputs; reports and fails on a contradiction.
     * Total: unknown sizes become fresh symbols. */
    enum npuc_status (*infer)(struct ir_ctx *cx, struct node *n);
    /* An existing value equal to output 0 (x+0, Transpose of identity ...), or NULL. Creates nothing. May be NULL. */
    struct value *(*fold)(struct ir_ctx *cx, struct node *n);
    /* Schema checks beyond arity and attribute kinds. May be NULL. */
    enum npuc_status (*legal)(struct ir_ctx *cx, struct node *n);
    /* Work for given symbol values; default counts one ALU operation per output element plus bytes. May be NULL. */
    void (*cost)(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c);
    const char *kernel; /* name in kernels' table when it differs from `name`; "" = has no kernel */
    int fn;             /* enum k_fn for formula operators, else 0 */
};

extern const struct op_def *const op_table[OP_count];
bool op_runs_on_host(enum op op);                      /* is there a kernel, or is the operator a view? */
enum op op_find(const char *domain, const char *name); /* OP_none when unknown; "ai.onnx" is "" */
enum op op_by_name(const char *name);                  /* in any domain, as IR text spells it */
/* Of the first min_in inputs Loop may lack its count and condition, and the attention operators of com.microsoft keys
 * and values that stand between others. */
static inline bool op_needs_input(const struct op_def *d, int i)
{
    const bool gaps = (d->traits & T_REGION) || (d->cls == CLS_ATTENTION && *d->domain && i > 0);
    return i < d->min_in && !gaps;
}
static inline bool op_has(enum op op, uint32_t trait)
{
    return (op_table[op]->traits & trait) != 0;
}

#endif
