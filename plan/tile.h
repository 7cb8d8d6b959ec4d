/* Tile programs: the instruction set of the emulated machine (DESIGN section 6) as data.
 *
 * A kernel runs on `blocks` blocks. A block is one cube core (AIC), one vector core (AIV), or in a mixed kernel one
 * cube core and two vector cores. Each kind of core has its own program (section): a flat list of instructions with
 * LOOP/IF nesting. Operands are expressions over the kernel's parameters, the block number, the vector core's number in
 * its block, loop variables, results of SLOAD and LET. Buffers are rings of equal slots in one memory space; an
 * instruction names a buffer and means its current slot.
 *
 * Executing the instructions of a section in program order is always a correct execution of that core (units only
 * overlap as far as flags allow); the data observer does just that, the clock observer computes when each unit would
 * have done it. */
#ifndef PLAN_TILE_H
#define PLAN_TILE_H

#include "base/diag.h"
#include "base/dtype.h"
#include "base/expr.h"

enum tile_op {
    TILE_none = 0,
#define INSN(nm, number, ...) TILE_##nm = number,
#include "plan/insn.def"
#undef INSN
    TILE_OP_END = 80
};
enum tile_class { TC_CTRL, TC_GM_IN, TC_GM_OUT, TC_L0_IN, TC_MATRIX, TC_FIX, TC_VECTOR, TC_CLUSTER };
/* Units of a core. ORDER(unit): plan format. */
enum tile_unit { TU_S, TU_MTE2, TU_MTE3, TU_MTE1, TU_M, TU_FIX, TU_V, TU_COUNT };
enum tile_space { TS_GM, TS_L1, TS_L0A, TS_L0B, TS_L0C, TS_BT, TS_UB, TS_L0A_MX, TS_L0B_MX, TS_COUNT };
enum tile_core { TCORE_CUBE, TCORE_VECTOR, TCORE_COUNT };
enum tile_field_kind {
    TF_BUF,
    TF_BUF_OPT,
    TF_TENSOR,
    TF_TENSOR_OPT,
    TF_EXPR,
    TF_INT,
    TF_DTYPE,
    TF_FLOAT,
    TF_UNIT,
    TF_FN,
    TF_VAR
};

#define TILE_MAX_ARGS     24
#define TILE_NEAREST      2  /* CAST: to the nearest integers */
#define TILE_MAX_EVENTS   8  /* flags per (source, destination) pair of units */
#define TILE_MAX_CLUSTERS 64 /* that share one load */
#define TILE_MAX_XEVENTS  16 /* flags between the cores of a block */

struct tile_insn {
    uint16_t op;
    uint16_t line;              /* index into kernel->notes + 1; 0: none */
    int32_t arg[TILE_MAX_ARGS]; /* in the order of the row's fields */
};
struct tile_field {
    const char *name;
    enum tile_field_kind kind;
};
struct tile_insn_info {
    const char *name;
    enum tile_class cls;
    int n_fields;
    const struct tile_field *fields;
};
extern const struct tile_insn_info tile_insn_table[TILE_OP_END]; /* name NULL: no such instruction */

/* Argument numbers by name: TILE_ARG_LOAD_dst_off ... */
#define B(x)  TF_X(x)
#define BO(x) TF_X(x)
#define T(x)  TF_X(x)
#define TO(x) TF_X(x)
#define E(x)  TF_X(x)
#define I(x)  TF_X(x)
#define D(x)  TF_X(x)
#define F(x)  TF_X(x)
#define U(x)  TF_X(x)
#define FN(x) TF_X(x)
#define V(x)  TF_X(x)
/* One struct of int32_t per instruction: struct tile_LOAD { int32_t dst, dst_off, ...; }; read it by casting insn->arg.
 */
#define TF_X(x) int32_t x;
#define INSN(nm, number, cls, fields)                                                                                  \
    struct tile_##nm {                                                                                                 \
        fields char end_;                                                                                              \
    };
#include "plan/insn.def"
#undef INSN
#undef TF_X
#undef B
#undef BO
#undef T
#undef TO
#undef E
#undef I
#undef D
#undef F
#undef U
#undef FN
#undef V
#define TILE_AS(nm, insn) ((const struct tile_##nm *)(const void *)(insn)->arg)

struct tile_buf {
    sym name;
    uint8_t space; /* enum tile_space */
    uint8_t dtype; /* main element type, for printing */
    int32_t slots;
    int64_t slot_size; /* bytes, a multiple of the space's alignment */
    int64_t base;      /* byte offset of slot 0 in the space; -1 until the scheduler has placed it */
};
struct tile_tensor {
    sym name;
    uint8_t dtype;
    bool is_input, is_output; /* both: updated in place */
    expr bypass;              /* over parameters: not 0 when reads leave nothing in L2; EXPR_INVALID: they always do */
};
struct tile_section {
    enum tile_core core;
    VEC(struct tile_insn) code;
    VEC(struct tile_buf) bufs; /* each core kind has its own memories */
};
struct tile_kernel {
    sym name;               /* e.g. "matmul_f32" */
    struct expr_pool exprs; /* symbols: parameters 0..n_params-1, then "block", "sub", then variables */
    int32_t n_params;
    int32_t sym_block, sym_sub;
    VEC(struct tile_tensor) tensors;
    expr blocks; /* number of blocks, over parameters only; at most what the target has */
    struct tile_section section[TCORE_COUNT];
    bool has[TCORE_COUNT]; /* both: mixed 1 cube : 2 vector */
    VEC(sym) notes;        /* comments for the disassembly */
};

/* Does it load for clusters (LOADC)? Its blocks are then neighbours. */
bool tile_shares_loads(const struct tile_kernel *k);

/* ---- building (backend) ---- */
struct tile_builder {
    struct tile_kernel *k;
    struct arena *arena;
    struct tile_section *at; /* section being written */
    uint16_t note;
};
struct tile_kernel *tile_kernel_new(struct arena *a, struct strtab *strings, const char *name);
expr tile_param(struct tile_kernel *k, const char *name, struct expr_range r); /* before any variable */
void tile_params_done(struct tile_kernel *k);                                  /* creates block and sub */
int32_t tile_tensor(struct tile_kernel *k, struct arena *a, const char *name, enum dtype t, bool is_in, bool is_out);
void tile_section_begin(struct tile_builder *b, enum tile_core core);
int32_t tile_buf(struct tile_builder *b, const char *name, enum tile_space s, enum dtype t, int32_t slots,
                 int64_t slot_size);
/* Appends one instruction with its fields in row order; n is checked against the row. */
void tile_emit(struct tile_builder *b, enum tile_op op, int n, const int32_t *args);
#define TILE(b, nm, ...)                                                                                               \
    tile_emit((b), TILE_##nm, (int)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), (const int32_t[]){__VA_ARGS__})
/* LOOP with a fresh variable; returns the variable as expression. */
expr tile_loop(struct tile_builder *b, const char *name, expr count);
/* LET: the expression's value under a name. Expressions have a largest size (EXPR_MAX_WEIGHT), names do not. */
expr tile_let(struct tile_builder *b, const char *name, expr value);
/* Symbol number for an SLOAD result, fresh even when the name is taken. */
int32_t tile_var(struct tile_builder *b, const char *name, struct expr_range r);
void tile_end(struct tile_builder *b); /* ENDLOOP or ENDIF of the innermost open one */
void tile_if(struct tile_builder *b, expr cond);
void tile_note(struct tile_builder *b, const char *text); /* for the following instructions */
int32_t tile_float_bits(float f);

/* What an instruction reads and writes on chip: for scheduling and hazard checks. At most 6 buffers. */
struct tile_access {
    int32_t n_reads, n_writes;
    int32_t reads[6], writes[3];
};
void tile_insn_access(const struct tile_insn *in, struct tile_access *out);
/* Does its first field name a variable that it gives a value? */
static inline bool tile_insn_defines(int op)
{
    return op == TILE_LOOP || op == TILE_SLOAD || op == TILE_LET;
}
/* Is field `i` an expression of the kernel? Every E field is, but the offset of an absent operand of VEC: float bits
 * stand there. */
bool tile_arg_is_expr(const struct tile_insn *in, int i);
enum tile_unit tile_insn_unit(const struct tile_section *s, const struct tile_insn *in); /* TU_S for control */
/* Order-independent identity of a kernel's content (programs, buffers, expressions). */
uint64_t tile_kernel_hash(const struct tile_kernel *k);
/* Disassembly as in LOOKS.md, into a. */
const char *tile_kernel_text(const struct tile_kernel *k, struct arena *a);
/* The same with the family's names for units and memories (plan/names.def). */
const char *tile_kernel_text_of(const struct tile_kernel *k, const char *family, struct arena *a);

#endif
