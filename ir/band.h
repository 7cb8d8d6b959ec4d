/* Which keys the rows of a mask keep, from how the mask is computed: comparisons of the key's number with the row's, or
 * several of them joined. */
#ifndef IR_BAND_H
#define IR_BAND_H

#include "ir/graph.h"

/* Row r keeps keys r + first to r + last at most. A bound from data counts from a number per sequence besides,
 * r + data[sequence] + first: `data` is an integer tensor with one dimension, in memory; NULL: there is none. */
struct ir_band {
    bool has_first, has_last;
    expr first, last;
    struct value *first_data, *last_data;
};

/* Of `keep`, a mask [.., rows, keys]; what is not understood leaves the band as wide as it is. */
struct ir_band ir_read_keep(struct ir_ctx *cx, const struct value *keep, expr rows);
/* Of Where(keep, kept, -inf) or Where(hide, -inf, kept): false for another node. */
bool ir_read_choice(struct ir_ctx *cx, const struct node *n, expr rows, const struct value **kept,
                    struct ir_band *band);
/* Of what is added to scores [.., rows, keys]: minus infinity hides a key. */
struct ir_band ir_read_bias(struct ir_ctx *cx, const struct value *bias, expr rows);
/* Both bounds of `by` hold, too. */
void ir_band_narrow(struct ir_ctx *cx, struct ir_band *b, const struct ir_band *by);
/* The value as the graph around a region sees it, or as the region that computes it does, behind casts of integers. */
const struct value *ir_origin(const struct value *v);
/* The tensor in memory of one integer per sequence that v shows in another shape or type; NULL: none. */
struct value *ir_numbers(struct ir_ctx *cx, const struct value *v);
bool ir_is_minus_infinity(const struct value *v);

#endif
