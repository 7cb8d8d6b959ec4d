/* What passes get to know of a machine whose vector cores run the generators of this folder. */
#include "backend/vector/gens.h"

bool vector_in_region(const struct target_info *t, struct ir_ctx *cx, const struct node *n)
{
    const char *why = NULL;
    return gen_vector_match(t->machine, cx, n, &why);
}

void vector_target_info(const struct machine *m, struct target_info *out)
{
    static const struct {
        uint8_t dtype, rate; /* enum dtype, enum target_key */
    } macs[] = {
        {DT_F32, TK_MAC_F32}, {DT_F16, TK_MAC_F16}, {DT_BF16, TK_MAC_BF16}, {DT_I8, TK_MAC_I8}, {DT_I16, TK_MAC_I16}};
    out->in_region = vector_in_region;
    out->row_elems = m->size[TS_UB] / (4 * (int64_t)sizeof(float)); /* a row, its result and their second halves */
    out->launch_ns = target_launch(m->target, m->n_cube) * 1e9;
    out->bytes_per_ns = target_num(m->target, TK_HBM_BANDWIDTH) / 1e9;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(macs); i++)
        out->has_mac[macs[i].dtype] = target_num(m->target, (enum target_key)macs[i].rate) > 0;
}
