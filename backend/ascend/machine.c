/* The Ascend family: its generators and what passes get to know of its machines. */
#include "backend/ascend/gens.h"

static struct layout weight_layout(const struct target_info *t, enum dtype dtype)
{
    const struct machine *m = t->machine;
    const int size = dtype_size(dtype);
    return (struct layout){.kind = LAYOUT_NZ_T, .c0 = size > 0 ? (int)m->c0_bytes / size : 0};
}

/* Other generators take single elementwise operators that the one of regions does not know. */
static bool in_region(const struct target_info *t, struct ir_ctx *cx, const struct node *n)
{
    const char *why = NULL;
    return gen_vector_match(t->machine, cx, n, &why);
}

static bool takes_lines(const struct target_info *t, struct ir_ctx *cx, const struct node *n, const struct value *x)
{
    return gen_conv_takes_lines(t->machine, cx, n, x);
}

static void target_info(const struct machine *m, struct target_info *out)
{
    out->weight_layout = weight_layout;
    out->in_region = in_region;
    out->takes_lines = takes_lines;
    out->row_elems = m->size[TS_UB] / (4 * (int64_t)sizeof(float)); /* a row, its result and their second halves */
    out->has_mac[DT_F32] = target_num(m->target, TK_MAC_F32) > 0;
    out->has_mac[DT_F16] = target_num(m->target, TK_MAC_F16) > 0;
    out->has_mac[DT_BF16] = target_num(m->target, TK_MAC_BF16) > 0;
    out->has_mac[DT_I8] = target_num(m->target, TK_MAC_I8) > 0;
}

extern const struct family family_ascend;
const struct family family_ascend = {
    .name = "ascend", .gens = ascend_gens, .copy = ascend_copy, .target_info = target_info};
