/* What an instruction's operands may be, as tables: memory spaces by field, and the element types and small integers
 * that fields take. */
#include "plan/tile_rules.h"

#include "kernels/mac.h"
#include "kernels/vec.h"

#include <string.h>

#define SPACE(s) (1U << TS_##s)
#define ANY_OP   (-1)

static const struct {
    int op; /* a row's number, or ANY_OP with a class */
    enum tile_class cls;
    const char *field; /* NULL: every buffer */
    uint32_t spaces;
} space_rules[] = {
    /* the first rule that fits counts */
    {TILE_LOAD_NZ, TC_GM_IN, "dst", SPACE(L1)},
    {TILE_LOAD, TC_GM_IN, "dst", SPACE(L1) | SPACE(UB) | SPACE(L0B)}, /* L0B: where the matrix unit takes rows */
    {ANY_OP, TC_GM_IN, "dst", SPACE(L1) | SPACE(UB)},
    {ANY_OP, TC_GM_IN, "idx", SPACE(UB) | SPACE(L1)},
    {ANY_OP, TC_GM_OUT, NULL, SPACE(UB) | SPACE(L1)},
    {TILE_COPY_L0A, TC_L0_IN, "dst", SPACE(L0A)},
    {TILE_COPY_L0B, TC_L0_IN, "dst", SPACE(L0B)},
    {TILE_COPY_BT, TC_L0_IN, "dst", SPACE(BT)},
    {TILE_COPY_MX, TC_L0_IN, "dst", SPACE(L0A_MX) | SPACE(L0B_MX)},
    {TILE_IM2COL, TC_L0_IN, "dst", SPACE(L0A) | SPACE(L0B)},
    {TILE_COPY_ROWS, TC_L0_IN, "dst", SPACE(L0B) | SPACE(UB)},
    {TILE_WINDOWS, TC_L0_IN, "dst", SPACE(UB)},
    {TILE_COPY_ROWS, TC_L0_IN, "src", SPACE(L1) | SPACE(UB)},
    {TILE_WINDOWS, TC_L0_IN, "src", SPACE(L1) | SPACE(UB)},
    {ANY_OP, TC_L0_IN, "src", SPACE(L1)},
    {TILE_MAC, TC_MATRIX, "c", SPACE(L0C)},
    {TILE_MAC, TC_MATRIX, "a", SPACE(L0A)},
    {TILE_MAC, TC_MATRIX, "b", SPACE(L0B)},
    {TILE_MAC, TC_MATRIX, "bt", SPACE(BT)},
    {TILE_MAC_MX, TC_MATRIX, "c", SPACE(L0C)},
    {TILE_MAC_MX, TC_MATRIX, "a", SPACE(L0A)},
    {TILE_MAC_MX, TC_MATRIX, "b", SPACE(L0B)},
    {TILE_MAC_MX, TC_MATRIX, "a_scale", SPACE(L0A_MX)},
    {TILE_MAC_MX, TC_MATRIX, "b_scale", SPACE(L0B_MX)},
    {TILE_MAC_MX, TC_MATRIX, "bt", SPACE(BT)},
    {TILE_MAC_ROWS, TC_MATRIX, "c", SPACE(UB)},
    {TILE_MAC_ROWS, TC_MATRIX, "a", SPACE(UB)},
    {TILE_MAC_ROWS, TC_MATRIX, "b", SPACE(L0B)},
    {TILE_MAC_OUT, TC_MATRIX, "b", SPACE(L0B)},
    {TILE_MAC_OUT, TC_MATRIX, NULL, SPACE(UB)},
    {ANY_OP, TC_FIX, NULL, SPACE(L0C)},
    {ANY_OP, TC_VECTOR, NULL, SPACE(UB)},
    {ANY_OP, TC_CLUSTER, NULL, SPACE(L1)},
};

uint32_t tile_field_spaces(const struct tile_insn *in, int field)
{
    const struct tile_insn_info *row = &tile_insn_table[in->op];
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(space_rules); i++) {
        const bool op = space_rules[i].op == in->op || (space_rules[i].op == ANY_OP && space_rules[i].cls == row->cls);
        if (op && (!space_rules[i].field || strcmp(space_rules[i].field, row->fields[field].name) == 0))
            return space_rules[i].spaces;
    }
    return row->cls == TC_CTRL ? ~SPACE(GM) : 0;
}

/* ---- values ----------------------------------------------------------------------------------------------- */

static bool is_wide(enum dtype t)
{
    return t == DT_F32 || t == DT_I32;
}
static bool is_index(enum dtype t)
{
    return t == DT_I64 || t == DT_I32;
}
static bool is_mac(enum dtype t)
{
    return k_mac_supports(t);
}
static bool is_mac_row(enum dtype t)
{
    return k_mac_takes_rows(t);
}
static bool is_code(enum dtype t)
{
    return k_mac_takes_scales(t);
}
static bool is_stored(enum dtype t)
{
    return k_dequant_takes(t);
}
static bool is_fractal(enum dtype t)
{
    return dtype_size(t) > 0 || t == DT_F4E2M1;
}
static bool is_scale(enum dtype t)
{
    return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}
/* What the scales of codes are stored in. */
static bool is_scale_code(enum dtype t)
{
    return is_scale(t) || t == DT_F8E8M0 || t == DT_F8E4M3FN || t == DT_U8;
}
static bool is_decoded(enum dtype t)
{
    return is_scale(t) || t == DT_I8;
}
static bool is_whole_bytes(enum dtype t)
{
    return dtype_size(t) > 0;
}
static bool is_real(enum dtype t)
{
    return dtype_size(t) > 0 && dtype_table[t].cls != DTC_COMPLEX && dtype_table[t].cls != DTC_TEXT;
}
static bool is_number(enum dtype t) /* packed ones too */
{
    return dtype_table[t].bits > 0 && dtype_table[t].bits <= 64 && dtype_table[t].cls != DTC_COMPLEX &&
           dtype_table[t].cls != DTC_TEXT;
}
static bool is_counting(enum dtype t)
{
    return t == DT_F32 || (dtype_is_integer(t) && dtype_size(t) > 0);
}

/* Element types; fields without a row take any type of whole bytes. */
static const struct {
    int op;
    const char *field;
    bool (*allowed)(enum dtype t);
} dtype_rules[] = {
    {TILE_SLOAD, "dtype", is_index},      {ANY_OP, "idx_dtype", is_index},
    {TILE_MAC, "dtype", is_mac},          {TILE_FIXP, "from", is_wide},
    {TILE_FIXP, "to", is_real},           {TILE_COPY_BT, "dtype", is_wide},
    {TILE_CAST, "to", is_real},           {TILE_CAST, "from", is_real},
    {TILE_RED_ADD, "dtype", is_real},     {TILE_RED_END, "dtype", is_real},
    {TILE_IOTA, "dtype", is_counting},    {TILE_FILL, "dtype", is_real},
    {TILE_CASTP, "to", is_number},        {TILE_CASTP, "from", is_number},
    {TILE_ORDER, "dtype", is_real},       {TILE_MAC_MX, "dtype", is_code},
    {TILE_MAC_MX, "b_dtype", is_code},    {TILE_COPY_L0A, "dtype", is_fractal},
    {TILE_COPY_L0B, "dtype", is_fractal}, {TILE_MAC_ROWS, "dtype", is_mac_row},
    {TILE_DEQUANT, "to", is_decoded},     {TILE_DEQUANT, "sdtype", is_scale_code},
    {TILE_DEQUANT, "code", is_stored},    {TILE_FIXP_NZ, "from", is_wide},
    {TILE_FIXP_NZ, "to", is_real},        {TILE_MAC_OUT, "dtype", is_mac_row},
    {TILE_MAC_OUT, "to", is_scale},
};
/* Small integers; fields without a row are 0 or 1. */
static const struct {
    int op;
    const char *field;
    int32_t lo, hi;
} int_rules[] = {
    {TILE_SET, "event", 0, TILE_MAX_EVENTS - 1},
    {TILE_WAIT, "event", 0, TILE_MAX_EVENTS - 1},
    {TILE_XSET, "event", 0, TILE_MAX_XEVENTS - 1},
    {TILE_XWAIT, "event", 0, TILE_MAX_XEVENTS - 1},
    {TILE_CAST, "saturate", 0, TILE_NEAREST},
    {TILE_RED_ADD, "op", K_RED_SUM, K_RED_ABSSUM},
    {TILE_RED_END, "op", K_RED_SUM, K_RED_ABSSUM},
    {TILE_FIXP_NZ, "block", 8, 16},
    {TILE_DEQUANT, "block", 1, INT32_MAX},
    {TILE_MAC_MX, "block", 1, INT32_MAX},
    {TILE_DEQUANT, "zero_kind", 0, 2},
    {TILE_DEQUANT, "group", 0, INT32_MAX},
    {TILE_IM2COL, "stride_h", 1, INT32_MAX},
    {TILE_IM2COL, "stride_w", 1, INT32_MAX},
    {TILE_IM2COL, "step_h", 1, INT32_MAX},
    {TILE_IM2COL, "step_w", 1, INT32_MAX},
    {TILE_WINDOWS, "taps_h", 1, INT32_MAX},
    {TILE_WINDOWS, "taps_w", 1, INT32_MAX},
    {TILE_WINDOWS, "dilation_h", 1, INT32_MAX},
    {TILE_WINDOWS, "dilation_w", 1, INT32_MAX},
    {TILE_WINDOWS, "stride_h", 1, INT32_MAX},
    {TILE_WINDOWS, "stride_w", 1, INT32_MAX},
    {TILE_WINDOWS, "step_h", 1, INT32_MAX},
    {TILE_WINDOWS, "step_w", 1, INT32_MAX},
    {TILE_LOADC, "clusters", 1, TILE_MAX_CLUSTERS},
};

static const char *dtype_problem(const struct tile_insn *in, int field)
{
    const enum dtype t = (enum dtype)in->arg[field];
    const char *name = tile_insn_table[in->op].fields[field].name;
    if (in->arg[field] <= DT_NONE || in->arg[field] >= DT_COUNT)
        return "has no element type";
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(dtype_rules); i++)
        if ((dtype_rules[i].op == in->op || dtype_rules[i].op == ANY_OP) && strcmp(dtype_rules[i].field, name) == 0)
            return dtype_rules[i].allowed(t) ? NULL : "does not take this element type";
    return is_whole_bytes(t) ? NULL : "does not take this element type";
}

static const char *int_problem(const struct tile_insn *in, int field)
{
    const char *name = tile_insn_table[in->op].fields[field].name;
    int32_t lo = 0, hi = 1;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(int_rules); i++)
        if (int_rules[i].op == in->op && strcmp(int_rules[i].field, name) == 0) {
            lo = int_rules[i].lo;
            hi = int_rules[i].hi;
        }
    return in->arg[field] >= lo && in->arg[field] <= hi ? NULL : "is out of range";
}

const char *tile_value_problem(const struct tile_insn *in, int field)
{
    const int32_t v = in->arg[field];
    switch (tile_insn_table[in->op].fields[field].kind) {
    case TF_DTYPE: return dtype_problem(in, field);
    case TF_INT: return int_problem(in, field);
    case TF_UNIT: return v >= 0 && v < TU_COUNT ? NULL : "is no unit";
    case TF_FN: return v > 0 && v < K_FN_end && k_fn_info((enum k_fn)v) ? NULL : "is no formula";
    default: return NULL;
    }
}

/* Rules between the fields of one instruction. */
static const char *vec_problem(const struct tile_insn *in)
{
    const struct tile_VEC *v = TILE_AS(VEC, in);
    const struct k_fn_info *fn = k_fn_info((enum k_fn)v->fn);
    const int32_t operand[3] = {v->a, v->b, v->c};
    if (!k_fn_supports((enum k_fn)v->fn, (enum dtype)v->dtype))
        return "the formula does not take this element type";
    for (int i = fn->arity; i < 3; i++)
        if (operand[i] >= 0)
            return "the formula takes fewer operands";
    return NULL;
}

static const char *dequant_problem(const struct tile_insn *in)
{
    const struct tile_DEQUANT *q = TILE_AS(DEQUANT, in);
    if (q->zero_kind != 0 && dtype_is_float((enum dtype)q->code))
        return "small floats have no zero points";
    return (q->zero >= 0) == (q->zero_kind != 0) ? NULL : "zero points do not fit their kind";
}

static const char *cast_problem(const struct tile_insn *in)
{
    const struct tile_CAST *c = TILE_AS(CAST, in);
    if (c->saturate != TILE_NEAREST || ((c->to == DT_I8 || c->to == DT_U8) && is_scale((enum dtype)c->from)))
        return NULL;
    return "the nearest integers are those of 8 bits, of f32, f16 or bf16";
}

static const char *flag_problem(const struct tile_insn *in)
{
    const struct tile_SET *f = TILE_AS(SET, in); /* WAIT has the same fields */
    return f->src != f->dst ? NULL : "a unit does not wait for itself";
}

const char *tile_insn_problem(const struct tile_insn *in)
{
    static const char *(*const rules[TILE_OP_END])(const struct tile_insn *) = {
        [TILE_VEC] = vec_problem,  [TILE_CAST] = cast_problem, [TILE_DEQUANT] = dequant_problem,
        [TILE_SET] = flag_problem, [TILE_WAIT] = flag_problem,
    };
    return rules[in->op] ? rules[in->op](in) : NULL;
}
