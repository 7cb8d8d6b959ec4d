/* Block scales of a product: from memory to L1 as rows of kb/block bytes (columns where K is not along the rows of
 * storage), from there beside L0A and L0B. Codes of 4 bits count two to an element of K; K is a multiple of the block.
 */
#include "backend/ascend/matmul.h"
#include "base/size.h"

int64_t mm_scale_row(const struct mm *p, int64_t kb)
{
    return p->block ? size_ceil_div(kb * mm_pack(p), p->block) : 0;
}

int64_t mm_scale_l0(const struct mm *p, int64_t rows, int64_t k0)
{
    return size_align(rows, 16) * size_align(mm_scale_row(p, k0), 2);
}

/* Elements of K (or offsets of codes) as scales; exact, for blocks begin with a scale. */
static expr scales(struct tile_builder *b, const struct mm *p, expr k)
{
    struct expr_pool *x = &b->k->exprs;
    return expr_floordiv(x, expr_mul_const(x, k, mm_pack(p)), expr_const(x, p->block));
}

void mm_scale_load(struct tile_builder *b, const struct mm *p, const struct mm_scale_side *s, const struct mm_span_k *k,
                   int64_t kb)
{
    struct expr_pool *x = &b->k->exprs;
    const expr z = expr_const(x, 0), one = expr_const(x, 1), at = scales(b, p, k->at), n = scales(b, p, k->len);
    const expr base = scales(b, p, s->off), row = expr_mul_const(x, s->row, mm_pack(p)), all = scales(b, p, k->all);
    tile_note(b, "block scales");
    if (s->k_major) {
        const expr off = expr_add(x, base, expr_add(x, expr_mul(x, at, row), s->first));
        TILE(b, LOAD, s->l1, z, s->tensor, off, DT_F8E8M0, one, one, n, s->count, z, z, row, one, z, z,
             expr_const(x, s->extent), one);
    } else {
        const expr off = expr_add(x, base, expr_add(x, expr_mul(x, s->first, all), at));
        TILE(b, LOAD, s->l1, z, s->tensor, off, DT_F8E8M0, one, one, s->count, n, z, z, all, one, z, z,
             expr_const(x, mm_scale_row(p, kb)), one);
    }
}

void mm_scale_copy(struct tile_builder *b, const struct mm *p, const struct mm_scale_side *s, const struct mm_span_k *k,
                   int64_t kb)
{
    struct expr_pool *x = &b->k->exprs;
    const expr one = expr_const(x, 1), row = expr_const(x, s->k_major ? 1 : mm_scale_row(p, kb)),
               col = s->k_major ? expr_const(x, s->extent) : one;
    TILE(b, COPY_MX, s->l0, s->l1, expr_mul(x, scales(b, p, k->at), col), row, col, s->count, scales(b, p, k->len));
}
