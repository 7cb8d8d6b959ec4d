/* Keys that are turned before they are coded: q k' = (q back') (k turn)' where back = turn^-1, so that a matrix may be
 * chosen for each head under which the codes of k cost the product least. For code_caches. */
#ifndef PASSES_TURNED_KEYS_H
#define PASSES_TURNED_KEYS_H

#include "passes/pass.h"

struct turned_keys {
    int64_t heads, size; /* of the cache: [.., heads, rows, size] */
    struct value *back;  /* constant f32 [heads, size, size]; NULL: nothing was turned */
    struct value *turn;
};
/* Is `present`, the result of an append along `axis`, read by nothing but products of queries with it and the outputs
 * of the graph? Fills heads and size. */
bool turned_keys_possible(const struct ir_ctx *cx, const struct value *present, int64_t axis, struct turned_keys *t);
/* Tells q->keys of the products that read such keys. */
void turned_keys_note(const struct quantiser *q, const char *input, const struct value *present);
/* Multiplies the new rows of `append` (operand 1) and the queries of all products of its result; the constants are in
 * *t then. */
NPUC_MUST_CHECK enum npuc_status turned_keys_make(struct pass_ctx *px, struct node *append, const struct quant_turn *by,
                                                  struct turned_keys *t);

#endif
