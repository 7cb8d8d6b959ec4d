/* The template family: its generators and what passes get to know of its machines. */
#include "backend/vector/gens.h"

#define GEN(nm)                                                                                                        \
    bool gen_##nm##_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason);      \
    enum npuc_status gen_##nm##_emit(struct emit *e, struct node *n);
#include "backend/template/gens.def"
#undef GEN

static const struct gen gens[] = {
#define GEN(nm) {.name = #nm, .match = gen_##nm##_match, .emit = gen_##nm##_emit},
#include "backend/template/gens.def"
#include "backend/vector/gens.def"
#undef GEN
    {.name = NULL},
};

static void target_info(const struct machine *m, struct target_info *out)
{
    vector_target_info(m, out);
}

extern const struct family family_template;
const struct family family_template = {
    .name = "template", .gens = gens, .copy = vector_copy, .number = vector_number, .target_info = target_info};
