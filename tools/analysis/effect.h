/* What a change of a model does to its outputs, over runs. */
#ifndef TOOLS_ANALYSIS_EFFECT_H
#define TOOLS_ANALYSIS_EFFECT_H

#include "base/vec.h"
#include "ir/graph.h"
#include "quant/distance.h"
#include "tools/calib.h"

/* Which of a model's outputs count, and how. */
struct outputs {
    const struct graph *g;
    int n;
    const char **names;
    bool *counts; /* floats, all where there are none; a language model's logits alone */
    int words;    /* logits over a vocabulary; -1: there are none */
    bool text;    /* and the runs are texts: each row predicts the next token */
};
void outputs_find(struct outputs *o, const struct graph *g, const struct calib *data, struct arena *a);

struct effect {
    struct arena *arena;
    struct metric_error *errors; /* [outputs] */
    VEC(double) kl;              /* of each row of logits */
    int64_t agree, predicted;
    double nats, nats_before; /* of predicted tokens */
};
/* What is left of it. */
struct effect_summary {
    double noise;              /* mean of the counted outputs' sum (y - x)^2 / sum x^2 */
    double kl, kl99, kl_most;  /* of logits, in nats */
    double agreement;          /* share of rows with the same likeliest word */
    double perplexity, change; /* of the text, and against the model as it is: 0.01 is 1 % more */
    double drop; /* what a search limits: of logits exp(kl) - 1, by which the perplexity of text that the model
                   writes itself rises; else sqrt(noise) */
};
void effect_init(struct effect *e, const struct outputs *o, struct arena *a);
/* x: the model's outputs, y: those of the changed one; `ids` of the run, or NULL. False when shapes differ. */
NPUC_MUST_CHECK bool effect_add(struct effect *e, const struct outputs *o, const struct k_tensor *x,
                                const struct k_tensor *y, const struct k_tensor *ids);
struct effect_summary effect_summarise(struct effect *e, const struct outputs *o);

#endif
