/* The Ascend family: its generators and what passes get to know of its machines. */
#include "backend/ascend/gens.h"

/* Maps as L1 holds them: blocks of channels. */
static struct layout map_layout(const struct target_info *t, enum dtype dtype)
{
    const struct machine *m = t->machine;
    const int size = dtype_size(dtype);
    return size == 1 || size == 2 || size == 4 ? (struct layout){.kind = LAYOUT_NC1HWC0, .c0 = (int)m->c0_bytes / size}
                                               : (struct layout){.kind = LAYOUT_ND};
}

static bool takes_lines(const struct target_info *t, struct ir_ctx *cx, const struct node *n, const struct value *x)
{
    return gen_conv_takes_lines(t->machine, cx, n, x);
}

static void target_info(const struct machine *m, struct target_info *out)
{
    vector_target_info(m, out);
    out->map_layout = map_layout;
    out->takes_lines = takes_lines;
}

extern const struct family family_ascend;
const struct family family_ascend = {
    .name = "ascend", .gens = ascend_gens, .copy = vector_copy, .number = vector_number, .target_info = target_info};
