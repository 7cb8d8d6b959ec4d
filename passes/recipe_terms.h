/* What a recipe does to the operands of a product beside coding them: y = x W becomes (x / smooth) R  times
 * R' (smooth W), plus correct (ir/quantiser.h). */
#ifndef PASSES_RECIPE_TERMS_H
#define PASSES_RECIPE_TERMS_H

#include "ir/quantiser.h"
#include "passes/pass.h"

/* Does the form change operands before they are coded? */
bool recipe_turns(const struct quant_product *form);
bool recipe_turns_alike(const struct quant_product *a, const struct quant_product *b);
/* What a product multiplies: rows [channels][k] of a weight, whose `group` input channels have k / group elements each
 * (k of no convolution), in `groups` groups of output channels. Factors are for the channels of one group, all alike,
 * or of all of them. */
struct recipe_rows {
    int64_t channels, k, group, groups;
    bool conv;
};
/* Why the form's vectors do not fit; NULL: they do. */
const char *recipe_turn_refusal(const struct quant_product *form, const struct recipe_rows *w);
/* Rows of a weight, in place. False: no memory. */
NPUC_MUST_CHECK bool recipe_turn_weight(struct pass_ctx *px, const struct quant_product *form, float *rows,
                                        const struct recipe_rows *w);
/* The input x of product n of this form as its codes are made of it; nodes go where b inserts. `alone`: all that read x
 * want it smoothed like this, so the factors may go into what makes it; *folded: they did. NULL after an error. */
struct value *recipe_turn_input(struct pass_ctx *px, struct builder *b, struct node *n,
                                const struct quant_product *form, bool alone, bool *folded);
/* Adds form->correct to n's result. */
NPUC_MUST_CHECK enum npuc_status recipe_correct(struct pass_ctx *px, struct node *n, const struct quant_product *form);

#endif
