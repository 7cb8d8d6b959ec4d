/* Losses over class scores: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss. Scores [N, C, d...], labels [N,
 * d...]; computed in float (double for f64), rounded to the element type at the end. A label equal to ignore_index
 * counts neither in the sum nor in the sum of weights. The log probabilities of SoftmaxCrossEntropyLoss have the type
 * of the scores, as has what is summed. */
#include <string.h>

#include "kernels/recipe.h"

static rval ignored(struct recipe *r, rval labels, rval *safe)
{
    const struct k_attr *a = k_attr_find(r->c, "ignore_index");
    *safe = labels;
    if (!a)
        return NULL;
    const rval zero = r_real(r, DT_I64, 0), which = r_real(r, DT_I64, (double)a->v.i);
    const rval mask = r2(r, "Equal", labels, which);
    *safe = r3(r, "Where", mask, zero, labels);
    return mask;
}

/* p: scores as log probabilities, of the type to compute in. */
static rval loss_of(struct recipe *r, rval p, rval labels, rval weight)
{
    const char *how = k_attr_str(r->c, "reduction", "mean");
    const enum dtype t = r_type(r, p);
    rval safe;
    const rval mask = ignored(r, r_cast(r, labels, DT_I64), &safe);
    const rval index = r_unsqueeze(r, safe, 1);
    const rval picked = r_node(r, "GatherElements", 2, (rval[]){p, index}, 1, (struct k_attr[]){r_int("axis", 1)});
    rval loss = r1(r, "Neg", r_squeeze(r, picked, 1)), w = NULL;
    if (weight)
        w = r2(r, "Gather", r_cast(r, weight, t), safe);
    if (mask && !w)
        w = r3(r, "Where", mask, r_real(r, t, 0), r_real(r, t, 1));
    else if (mask)
        w = r3(r, "Where", mask, r_real(r, t, 0), w);
    if (w)
        loss = r2(r, "Mul", loss, w);
    if (strcmp(how, "none") == 0)
        return loss;
    if (strcmp(how, "sum") == 0 || w) {
        const rval sum = r_sum(r, loss, NULL, 0, false);
        return strcmp(how, "sum") == 0 ? sum : r2(r, "Div", sum, r_sum(r, w, NULL, 0, false));
    }
    return r_attr1(r, "ReduceMean", loss, r_int("keepdims", 0));
}

static bool operands(struct recipe *r)
{
    if (r->in[0] && r->in[1] && r_rank(r, r->in[0]) >= 2)
        return true;
    r_fail(r, "scores of two or more dims and labels are needed");
    return false;
}

enum npuc_status recipe_nll_loss(struct recipe *r)
{
    if (!operands(r))
        return r->status;
    const enum dtype t = r_type(r, r->in[0]);
    r->out[0] = r_cast(r, loss_of(r, r_cast(r, r->in[0], r_wide(t)), r->in[1], r->in[2]), t);
    return r->status;
}

enum npuc_status recipe_cross_entropy(struct recipe *r)
{
    if (!operands(r))
        return r->status;
    const enum dtype t = r_type(r, r->in[0]);
    const rval p = r_attr1(r, "LogSoftmax", r->in[0], r_int("axis", 1));
    r->out[1] = p;
    r->out[0] = r_cast(r, loss_of(r, r_cast(r, p, r_wide(t)), r->in[1], r->in[2]), t);
    return r->status;
}
