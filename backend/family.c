/* The families, and what is common to all: finding the family of a target, reading its memories, asking its generators.
 */
#include "backend/emit_priv.h"

#include <math.h>
#include <string.h>

#define FAMILY(nm) extern const struct family family_##nm;
#include "backend/families.def"
#undef FAMILY

static const struct family *const families[] = {
#define FAMILY(nm) &family_##nm,
#include "backend/families.def"
#undef FAMILY
};

/* The number, 0 for an absent one. */
static int64_t whole(const struct target *t, enum target_key k)
{
    const double v = target_num(t, k);
    return isnan(v) ? 0 : (int64_t)v;
}

static void read_numbers(struct machine *m)
{
    static const struct {
        uint8_t space, size, align; /* enum tile_space, enum target_key */
    } spaces[] = {
        {TS_GM, TK_GM_SIZE, TK_GM_ALIGN},         {TS_L1, TK_L1_SIZE, TK_L1_ALIGN},
        {TS_L0A, TK_L0A_SIZE, TK_L0A_ALIGN},      {TS_L0B, TK_L0B_SIZE, TK_L0B_ALIGN},
        {TS_L0C, TK_L0C_SIZE, TK_L0C_ALIGN},      {TS_BT, TK_BT_SIZE, TK_BT_ALIGN},
        {TS_UB, TK_UB_SIZE, TK_UB_ALIGN},         {TS_L0A_MX, TK_L0MX_SIZE, TK_L0MX_ALIGN},
        {TS_L0B_MX, TK_L0MX_SIZE, TK_L0MX_ALIGN},
    };
    const struct target *t = m->target;
    m->n_cube = (int32_t)whole(t, TK_CORES_CUBE);
    m->n_vector = (int32_t)whole(t, TK_CORES_VECTOR);
    m->vector_per_cube = (int32_t)whole(t, TK_CORES_VECTOR_PER_CUBE);
    m->mixed = target_num(t, TK_CORES_MIXED) > 0;
    m->unified = target_num(t, TK_CORES_UNIFIED) > 0;
    m->mac_rows = target_num(t, TK_MAC_ROWS) > 0;
    m->c0_bytes = whole(t, TK_FRACTAL_C0);
    m->gm_bytes = whole(t, TK_GM_SIZE);
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(spaces); i++) {
        m->size[spaces[i].space] = whole(t, (enum target_key)spaces[i].size);
        m->align[spaces[i].space] = whole(t, (enum target_key)spaces[i].align);
    }
}

enum npuc_status machine_init(struct machine *m, const struct target *t, struct diag *d)
{
    *m = (struct machine){.target = t};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(families); i++)
        if (strcmp(families[i]->name, t->family) == 0)
            m->family = families[i];
    const struct diag_loc where = {.node = t->id, .index = -1};
    if (!m->family)
        return diag_error(d, &where, D_UNSUPPORTED,
                          "this family of targets has no kernel generators; `npuc targets` lists the others");
    read_numbers(m);
    /* weights in fractals are packed, and the emulated unit reads them, in this one form */
    if (!m->mac_rows && (m->c0_bytes != 32 || target_num(t, TK_FRACTAL_ROWS) != 16))
        return diag_error(d, &where, D_UNSUPPORTED,
                          "fractals have 16 rows of 32 B: fractal.rows = 16, fractal.c0 = 32 B");
    return NPUC_OK;
}

/* Why the node cannot run on any core whatever it computes, or NULL. */
static const char *host_only(const struct node *n)
{
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        const struct value *v = i < n->n_in ? n->in[i].value : &n->out[i - n->n_in];
        if (!v || !type_is_object(v->type))
            continue;
        return v->type->kind != TYPE_TENSOR  ? "sequences and optional values live on the host"
               : v->type->dtype == DT_STRING ? "text lives on the host"
                                             : "the rank of a value is not known before it runs";
    }
    return NULL;
}

const struct gen *find_gen(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const char *never = host_only(n);
    if (never) {
        *reason = never;
        return NULL;
    }
    for (const struct gen *g = m->family->gens; g->name; g++) {
        const char *why = NULL;
        if (g->match(m, cx, n, &why))
            return g;
        if (why)
            *reason = why;
    }
    return NULL;
}

static bool supports(const struct target_info *t, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    *reason = "no kernel for this operator";
    return find_gen(t->machine, cx, n, reason) != NULL;
}

void backend_target_info(const struct machine *m, struct target_info *out)
{
    *out = (struct target_info){.name = m->target->id, .supports = supports, .machine = m};
    m->family->target_info(m, out);
}
