/* A language model's plan driven by token ids: its inputs are filled by their roles (npurt_run_tokens), call by call,
 * on the KV caches of the plan. What generate and perplexity share. */
#ifndef TOOLS_LM_H
#define TOOLS_LM_H

#include "base/vec.h"
#include "tools/session.h"

struct lm {
    struct session s;
    struct arena *arena;
    const char *logits; /* name of the output that holds them */
    int64_t vocab;      /* of it; 0: only a call tells */
};
struct lm_ids {
    VEC(int64_t) list;
};

/* Ids separated by commas, or a .npy file of integers, appended to `ids`. false after a message that names `option`. */
bool lm_read_ids(const char *text, const char *option, struct arena *a, struct lm_ids *ids, int *exit_code);
/* Are all tokens of the vocabulary, as far as it is known? 0, or an exit code after a message. */
int lm_check_tokens(const struct lm *lm, const int64_t *tokens, int64_t n);
/* Opens the plan and finds its logits; `default_mode` as for session_open. The caller closes lm->s in any case. */
bool lm_open(struct lm *lm, const struct args *a, int default_mode, int *exit_code);
bool lm_open_timed(struct lm *lm, const struct args *a, int default_mode, int *exit_code); /* mode clock is fine too */
/* Runs `rows` tokens that follow `past` tokens in the caches. 0, or an exit code after a message: tokens outside of the
 * vocabulary are refused, nothing has run then. */
int lm_step(struct lm *lm, const int64_t *tokens, int64_t past, int64_t rows);
/* Logits of the last call: [rows][vocabulary], rows those of the call or 1 where the model gives the last alone. Valid
 * until the next call. 0, or an exit code after a message. */
struct lm_logits {
    struct npurt_tensor t;
    int64_t rows, vocab;
};
int lm_take_logits(struct lm *lm, struct lm_logits *out);
float lm_logit(const struct lm_logits *l, int64_t row, int64_t token);
int lm_fail(const struct lm *lm, const char *text, const char *what); /* prints both; the exit code of "unsupported" */

#endif
