/* The instruction table, generated from plan/insn.def, and what follows from a row alone: the unit that executes an
 * instruction and the buffers it touches. */
#include "plan/tile.h"

#define B(x)  {#x, TF_BUF},
#define BO(x) {#x, TF_BUF_OPT},
#define T(x)  {#x, TF_TENSOR},
#define TO(x) {#x, TF_TENSOR_OPT},
#define E(x)  {#x, TF_EXPR},
#define I(x)  {#x, TF_INT},
#define D(x)  {#x, TF_DTYPE},
#define F(x)  {#x, TF_FLOAT},
#define U(x)  {#x, TF_UNIT},
#define FN(x) {#x, TF_FN},
#define V(x)  {#x, TF_VAR},

#define INSN(nm, number, cls, list) static const struct tile_field row_##nm[] = {list{NULL, TF_INT}};
#include "plan/insn.def"
#undef INSN
#define INSN(nm, number, cls, list)                                                                                    \
    _Static_assert(NPUC_ARRAY_LEN(row_##nm) - 1 <= TILE_MAX_ARGS, "too many fields: " #nm);                            \
    _Static_assert((number) > 0 && (number) < TILE_OP_END, "number out of range: " #nm);
#include "plan/insn.def"
#undef INSN

const struct tile_insn_info tile_insn_table[TILE_OP_END] = {
#define INSN(nm, number, cls, list) [number] = {#nm, TC_##cls, (int)NPUC_ARRAY_LEN(row_##nm) - 1, row_##nm},
#include "plan/insn.def"
#undef INSN
};

enum tile_unit tile_insn_unit(const struct tile_section *s, const struct tile_insn *in)
{
    static const enum tile_unit unit_of[] = {
        [TC_CTRL] = TU_S,   [TC_GM_IN] = TU_MTE2, [TC_GM_OUT] = TU_MTE3, [TC_L0_IN] = TU_MTE1,
        [TC_MATRIX] = TU_M, [TC_FIX] = TU_FIX,    [TC_VECTOR] = TU_V,    [TC_CLUSTER] = TU_FIX,
    };
    (void)s; /* both kinds of core map classes to units alike */
    return unit_of[tile_insn_table[in->op].cls];
}

bool tile_arg_is_expr(const struct tile_insn *in, int i)
{
    const struct tile_field *f = tile_insn_table[in->op].fields;
    if (f[i].kind != TF_EXPR)
        return false;
    return in->op != TILE_VEC || f[i - 1].kind != TF_BUF_OPT || in->arg[i - 1] >= 0;
}

/* The one convention about buffers: an instruction that brings data to on-chip memory or computes writes its first
 * buffer field and reads the others; one that stores reads all; control touches none. */
void tile_insn_access(const struct tile_insn *in, struct tile_access *out)
{
    static const bool writes_first[] = {
        [TC_GM_IN] = true, [TC_L0_IN] = true, [TC_MATRIX] = true, [TC_VECTOR] = true, [TC_CLUSTER] = true};
    /* These also read what they write: accumulation. Products only when their init is 0, which may not be known here.
     */
    static const bool reads_first[TILE_OP_END] = {
        [TILE_MAC] = true, [TILE_MAC_MX] = true, [TILE_MAC_ROWS] = true, [TILE_RED_ADD] = true};
    static const int8_t keeps[TILE_OP_END] = {[TILE_MAC_OUT] = 3}; /* number of a field that is read and written too */
    const struct tile_insn_info *row = &tile_insn_table[in->op];
    *out = (struct tile_access){0};
    if (row->cls == TC_CTRL)
        return;
    bool first = row->cls < NPUC_ARRAY_LEN(writes_first) && writes_first[row->cls];
    for (int i = 0; i < row->n_fields; i++) {
        const enum tile_field_kind kind = row->fields[i].kind;
        if ((kind != TF_BUF && kind != TF_BUF_OPT) || in->arg[i] < 0)
            continue;
        if (first || (i > 0 && i == keeps[in->op]))
            out->writes[out->n_writes++] = in->arg[i];
        if (!first || reads_first[in->op])
            out->reads[out->n_reads++] = in->arg[i];
        first = false;
    }
}
