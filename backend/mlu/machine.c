/* The MLU family: its generators and what passes get to know of its machines. */
#include "backend/mlu/gens.h"

const struct gen mlu_gens[] = {
#define GEN(nm)      {.name = #nm, .match = gen_##nm##_match, .emit = gen_##nm##_emit},
#define GEN_ROWS(nm) {.name = #nm, .match = gen_##nm##_match, .emit = gen_##nm##_emit, .rows = gen_##nm##_rows},
#define GEN_LINES(nm)                                                                                                  \
    {.name = #nm, .match = gen_##nm##_match, .emit = gen_##nm##_emit, .lines = true, .rows = gen_##nm##_rows},
#include "backend/mlu/gens.def"
#include "backend/vector/gens.def"
#undef GEN_LINES
#undef GEN_ROWS
#undef GEN
    {.name = NULL},
};

/* Lines of channels: rows of the tensor unit. */
static struct layout map_layout(const struct target_info *t, enum dtype dtype)
{
    (void)t;
    return (struct layout){.kind = dtype_size(dtype) > 0 ? LAYOUT_NHWC : LAYOUT_ND};
}

static void target_info(const struct machine *m, struct target_info *out)
{
    vector_target_info(m, out);
    out->whole_precision = true; /* as MagicMind's force_float16 */
    out->map_layout = map_layout;
}

extern const struct family family_mlu;
const struct family family_mlu = {.name = "mlu",
                                  .gens = mlu_gens,
                                  .copy = vector_copy,
                                  .number = vector_number,
                                  .target_info = target_info,
                                  .part = mlu_clusters};
