/* The Ascend family's numbers from the target file, and the view of them that passes get. */
#include "backend/ascend/gens.h"

#include <string.h>

static int64_t whole(const struct target *t, enum target_key k)
{
    return (int64_t)target_num(t, k);
}

enum npuc_status machine_init(struct machine *m, const struct target *t, struct diag *d)
{
    static const struct {
        uint8_t space, size, align; /* enum tile_space, enum target_key */
    } spaces[] = {
        {TS_L1, TK_L1_SIZE, TK_L1_ALIGN},    {TS_L0A, TK_L0A_SIZE, TK_L0A_ALIGN}, {TS_L0B, TK_L0B_SIZE, TK_L0B_ALIGN},
        {TS_L0C, TK_L0C_SIZE, TK_L0C_ALIGN}, {TS_BT, TK_BT_SIZE, TK_BT_ALIGN},    {TS_UB, TK_UB_SIZE, TK_UB_ALIGN},
    };
    if (strcmp(t->family, "ascend") != 0)
        return diag_error(d, NULL, D_UNSUPPORTED, "targets of this family have no code generator yet; choose an ascend target");
    *m = (struct machine){.target = t};
    m->n_cube = (int32_t)whole(t, TK_CORES_CUBE);
    m->n_vector = (int32_t)whole(t, TK_CORES_VECTOR);
    m->vector_per_cube = (int32_t)whole(t, TK_CORES_VECTOR_PER_CUBE);
    m->mixed = target_num(t, TK_CORES_MIXED) > 0;
    m->unified = target_num(t, TK_CORES_UNIFIED) > 0;
    m->c0_bytes = whole(t, TK_FRACTAL_C0);
    m->gm_bytes = whole(t, TK_GM_SIZE);
    m->size[TS_GM] = m->gm_bytes;
    m->align[TS_GM] = whole(t, TK_GM_ALIGN);
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(spaces); i++) {
        m->size[spaces[i].space] = whole(t, (enum target_key)spaces[i].size);
        m->align[spaces[i].space] = whole(t, (enum target_key)spaces[i].align);
    }
    return NPUC_OK;
}

static bool supports(const struct target_info *t, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    *reason = "no kernel for this operator";
    for (const struct gen *g = backend_gens(t->machine); g->name; g++) {
        const char *why = NULL;
        if (g->match(t->machine, cx, n, &why))
            return true;
        if (why)
            *reason = why;
    }
    return false;
}

static struct layout weight_layout(const struct target_info *t, enum dtype dtype)
{
    const struct machine *m = t->machine;
    const int size = dtype_size(dtype);
    return (struct layout){.kind = LAYOUT_NZ_T, .c0 = size > 0 ? (int)m->c0_bytes / size : 0};
}

void backend_target_info(const struct machine *m, struct target_info *out)
{
    *out = (struct target_info){.name = m->target->id, .supports = supports, .weight_layout = weight_layout, .machine = m};
    out->row_elems = m->size[TS_UB] / (4 * (int64_t)sizeof(float)); /* a row, its result and their second halves */
    out->has_mac[DT_F32] = target_num(m->target, TK_MAC_F32) > 0;
    out->has_mac[DT_F16] = target_num(m->target, TK_MAC_F16) > 0;
    out->has_mac[DT_BF16] = target_num(m->target, TK_MAC_BF16) > 0;
    out->has_mac[DT_I8] = target_num(m->target, TK_MAC_I8) > 0;
}
