/* The smallest complete family: machines whose vector cores add, subtract and multiply f32 tensors of equal shape, and
 * whose host does everything else. Copy the folder to start a new family.
 *
 * What it shows: a family row, a generator with `match` and `emit`, a tile program with symbolic size, parameters,
 * buffers that the scheduler overlaps. What it leaves: see backend/ascend. */
#include "backend/backend.h"
#include "kernels/vec.h"

#define TILE_ELEMS 2048 /* per tile: 3 operands x 2 slots x 8 KiB of UB */

/* ---- generator ------------------------------------------------------------------------------------------- */

static int formula_of(const struct node *n)
{
    return n->op == OP_Add ? K_FN_Add : n->op == OP_Sub ? K_FN_Sub : n->op == OP_Mul ? K_FN_Mul : 0;
}

/* NULL reason: not this generator's kind. Otherwise the constraint, in words for `npuc check`. */
static bool add_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    (void)cx;
    if (!formula_of(n))
        return false;
    const struct type *x = node_in(n, 0)->type, *y = node_in(n, 1)->type;
    *reason = "only two dense f32 tensors of equal shape";
    return x == y && x->kind == TYPE_TENSOR && x->dtype == DT_F32 && x->rank >= 0 && x->layout.kind == LAYOUT_ND;
}

/* Tile t of n: load both operands, compute, store. Written as if executed serially: the scheduler adds the flags. */
static void add_tile(struct tile_builder *b, const int32_t buf[3], expr t, expr n, int fn)
{
    struct expr_pool *p = &b->k->exprs;
    const expr zero = expr_const(p, 0), one = expr_const(p, 1), tile = expr_const(p, TILE_ELEMS);
    const expr off = expr_mul(p, t, tile), len = expr_min(p, tile, expr_sub(p, n, off));
    tile_note(b, "one tile: load, compute, store");
    for (int32_t i = 0; i < 2; i++)
        TILE(b, LOAD, buf[i], zero, i, off, DT_F32, one, one, one, len, zero, zero, zero, one, zero, zero, zero, one);
    TILE(b, VEC, fn, DT_F32, one, len, buf[2], zero, zero, buf[0], zero, zero, 1, buf[1], zero, zero, 1, -1, zero, zero,
         0, 0, 0, 0);
    TILE(b, STORE, 2, off, buf[2], zero, DT_F32, one, one, one, len, zero, zero, zero, one, zero, zero, zero, one);
}

static enum npuc_status add_emit(struct emit *e, struct node *n)
{
    static const char *const names[3] = {"x", "y", "z"};
    struct tile_kernel *k = tile_kernel_new(e->arena, &e->plan->strings, "binary");
    struct tile_builder b = {.k = k, .arena = e->arena};
    struct kparams params = {.e = e, .k = k};
    struct expr_pool *p = &k->exprs;
    const expr len = kparam(&params, "len", type_count(e->cx, n->out[0].type));
    int32_t buf[3],
        tensors[3] = {emit_tensor(e, node_in(n, 0)), emit_tensor(e, node_in(n, 1)), emit_tensor(e, &n->out[0])};
    tile_params_done(k);
    for (int i = 0; i < 3; i++)
        tile_tensor(k, e->arena, names[i], DT_F32, i < 2, i == 2);
    const expr tiles = expr_ceildiv(p, len, expr_const(p, TILE_ELEMS)), one = expr_const(p, 1);
    k->blocks = expr_max(p, one, expr_min(p, tiles, expr_const(p, e->m->n_vector)));
    tile_section_begin(&b, TCORE_VECTOR);
    for (int i = 0; i < 3; i++)
        buf[i] = tile_buf(&b, names[i], TS_UB, DT_F32, 2, TILE_ELEMS * 4);
    const expr block = expr_sym(p, k->sym_block);
    const expr i = tile_loop(&b, "i", expr_ceildiv(p, expr_sub(p, tiles, block), k->blocks));
    add_tile(&b, buf, expr_add(p, block, expr_mul(p, i, k->blocks)), len, formula_of(n));
    tile_end(&b);
    return emit_launch(e, k, tensors, params.bound, EXPR_INVALID, op_table[n->op]->name);
}

/* ---- family ---------------------------------------------------------------------------------------------- */

static struct layout plain_layout(const struct target_info *t, enum dtype dtype)
{
    (void)t;
    (void)dtype;
    return (struct layout){.kind = LAYOUT_ND};
}

static void target_info(const struct machine *m, struct target_info *out)
{
    out->weight_layout = plain_layout;
    out->row_elems = m->size[TS_UB] / (4 * (int64_t)sizeof(float));
}

static const struct gen gens[] = {
    {"add", add_match, add_emit},
    {NULL, NULL, NULL},
};

extern const struct family family_template;
const struct family family_template = {.name = "template", .gens = gens, .target_info = target_info};
