/* Cast and CastLike where a type has less than a byte: dense runs of elements, unpacked, converted and packed in UB. */
#include "backend/vector/gens.h"
#include "backend/vector/packed.h"
#include "backend/vector/views.h"
#include "base/size.h"

#define RUN_UNIT 64 /* elements: whole bytes of every type */

bool packed_type(enum dtype t)
{
    return dtype_table[t].bits > 0 && dtype_table[t].bits < 8;
}

bool packed_number(enum dtype t)
{
    const enum dtype_class c = dtype_table[t].cls;
    return dtype_table[t].bits > 0 && dtype_table[t].bits <= 64 && t != DT_F64 && c != DTC_COMPLEX && c != DTC_TEXT;
}

static expr bytes_of(struct expr_pool *x, enum dtype t, expr n)
{
    return expr_ceildiv(x, expr_mul_const(x, n, dtype_table[t].bits), expr_const(x, 8));
}

static int64_t run_bytes(enum dtype t, int64_t n)
{
    return size_align(n * dtype_table[t].bits / 8, 64);
}

/* One row from or to memory: bytes for packed types. */
struct run {
    expr offset, n;
    enum dtype unit;
};
static struct run run_of(struct expr_pool *x, enum dtype t, expr first, expr n)
{
    if (!packed_type(t))
        return (struct run){first, n, t};
    return (struct run){bytes_of(x, t, first), bytes_of(x, t, n), DT_U8};
}

enum npuc_status emit_packed_cast(struct emit *e, const struct packed_cast *c, const char *label)
{
    struct kparams p;
    struct tile_builder b;
    struct tile_kernel *k = emit_kernel(e, "cast_packed", &b, &p);
    struct expr_pool *x = &k->exprs;
    const expr n = kparam(&p, "n", c->n), one = expr_const(x, 1), zero = expr_const(x, 0);
    const expr cores = expr_const(x, e->m->n_vector);
    const int64_t per_element = dtype_table[c->from].bits + dtype_table[c->to].bits; /* two slots each, in bits / 2 */
    int64_t cap = (e->m->size[TS_UB] - 1024) * 4 / per_element / RUN_UNIT * RUN_UNIT;
    if (e->tiling && e->tiling->cols > 0 && e->tiling->cols < cap)
        cap = size_align(e->tiling->cols, RUN_UNIT);
    tile_params_done(k);
    const int32_t in = tile_tensor(k, e->arena, "in", c->from, true, false);
    const int32_t out = tile_tensor(k, e->arena, "out", c->to, false, true);
    const expr even = expr_align(x, expr_ceildiv(x, n, cores), RUN_UNIT);
    const expr len = expr_max(x, expr_const(x, RUN_UNIT), expr_min(x, even, expr_const(x, cap)));
    const expr n_tiles = expr_ceildiv(x, n, len);
    k->blocks = expr_max(x, one, expr_min(x, cores, n_tiles));
    tile_section_begin(&b, TCORE_VECTOR);
    const int32_t src = tile_buf(&b, "src", TS_UB, c->from, 2, run_bytes(c->from, cap));
    const int32_t dst = tile_buf(&b, "dst", TS_UB, c->to, 2, run_bytes(c->to, cap));
    const expr i = tile_loop(&b, "i", expr_ceildiv(x, expr_sub(x, n_tiles, expr_sym(x, k->sym_block)), k->blocks));
    const expr first = expr_mul(x, expr_add(x, expr_sym(x, k->sym_block), expr_mul(x, i, k->blocks)), len);
    const expr count = expr_min(x, len, expr_sub(x, n, first));
    const struct run from = run_of(x, c->from, first, count), to = run_of(x, c->to, first, count);
    TILE(&b, LOAD, src, zero, in, from.offset, (int32_t)from.unit, one, one, one, from.n, zero, zero, zero, one, zero,
         zero, zero, one);
    TILE(&b, CASTP, (int32_t)c->to, (int32_t)c->from, count, dst, zero, src, zero, c->saturate);
    TILE(&b, STORE, out, to.offset, dst, zero, (int32_t)to.unit, one, one, one, to.n, zero, zero, zero, one, zero, zero,
         zero, one);
    tile_end(&b);
    return emit_launch(e, k, (const int32_t[]){c->in, c->out}, p.bound, EXPR_INVALID, label);
}

bool gen_cast_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    (void)cx;
    if (n->op != OP_Cast && n->op != OP_CastLike)
        return false;
    const struct type *from = node_in(n, 0)->type, *to = n->out[0].type;
    if (!packed_type(from->dtype) && !packed_type(to->dtype))
        return false;
    *reason = "the vector unit unpacks and packs dense numbers of up to 64 bits, no 64-bit floats or powers of two";
    return packed_number(from->dtype) && packed_number(to->dtype) && to->dtype != DT_F8E8M0 && from->rank >= 0 &&
           from->layout.kind == LAYOUT_ND && to->layout.kind == LAYOUT_ND;
}

enum npuc_status gen_cast_emit(struct emit *e, struct node *n)
{
    const struct type *t = n->out[0].type;
    const struct packed_cast c = {.in = emit_tensor(e, node_in(n, 0)),
                                  .out = emit_tensor(e, &n->out[0]),
                                  .from = node_in(n, 0)->type->dtype,
                                  .to = t->dtype,
                                  .saturate = node_attr_int(n, "saturate", 1) != 0,
                                  .n = view_product(&e->cx->exprs, t->dims, 0, t->rank)};
    return emit_packed_cast(e, &c, op_table[n->op]->name);
}
