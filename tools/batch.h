/* Prompts that a language model continues together, one call per step for all of them. Where they differ in length the
 * shorter ones are filled up: in front, masked, or behind, where each has rows of its own in the caches (enum
 * npurt_batch). Greedy continuations are those of each prompt alone; with rows of their own all logits have its bits.
 */
#ifndef TOOLS_BATCH_H
#define TOOLS_BATCH_H

#include "tools/lm.h"

struct lm_sequence {
    struct lm_ids tokens; /* prompt and what was generated */
    int64_t n_prompt;
    const char *finish; /* why it ended: "stop", "length", "capacity"; NULL: it goes on */
};
struct lm_batch {
    struct lm *lm;
    struct lm_sequence *list;
    int64_t n, longest; /* sequences; tokens of the longest prompt */
    int64_t held;       /* rows in the caches after the last call */
    bool apart;         /* filled up behind */
    int64_t *ids, *filling, *own;
};

/* Can prompts of these lengths be one batch? */
bool lm_batch_takes(const struct lm *lm, const struct lm_sequence *list, int64_t n);
void lm_batch_init(struct lm_batch *b, struct lm *lm, struct lm_sequence *list, int64_t n);
/* Tokens that all prompts begin with, in whole pages that their caches can share; 0: none, or not such caches. */
int64_t lm_batch_common(const struct lm_batch *b);
/* At most `most` of those first `common` tokens from `start` on, as one sequence; the last of them make it all. */
int lm_batch_read_common(struct lm_batch *b, int64_t common, int64_t start, int64_t most, int64_t *rows);
/* The prompts' tokens from `start` on, at most `most` of each where nothing is filled up in front; how many were run in
 * *rows. 0, or an exit code after a message. */
int lm_batch_read(struct lm_batch *b, int64_t start, int64_t most, int64_t *rows);
/* Did that call, `rows` tokens from `start`, run the last token of prompt i? Then *row is the sequence's row in it. */
bool lm_batch_ends(const struct lm_batch *b, int64_t i, int64_t start, int64_t rows, int64_t *row);
/* The last token of each sequence; those that have ended take part on rows that nobody reads. */
int lm_batch_step(struct lm_batch *b);
/* Is there no room for another token of sequence i? */
bool lm_batch_full(const struct lm_batch *b, int64_t i);
/* The next token of sequence i by the last call's logits; row: of the sequence's in it, < 0 counts from its end. */
int lm_batch_pick(struct lm_batch *b, int64_t i, int64_t row, const struct npurt_sampling *how, int64_t *token);

#endif
