/* Attention operators of com.microsoft as the core Attention. */
#ifndef FRONTEND_ATTEND_H
#define FRONTEND_ATTEND_H

#include "frontend/expand.h"

struct attend {
    struct value *q, *k, *v;       /* [B, heads, rows, size]; k and v may have fewer heads */
    struct value *past_k, *past_v; /* put in front; or NULL */
    struct value *valid;           /* int64 [B]: keys that count, of buffers with room for more; or NULL */
    struct value *bias;            /* added to the scores, broadcast to [B, heads, rows, total]; or NULL */
    bool causal;
    float scale; /* 0: 1 / sqrt(size) */
    float softcap;
    int64_t window;              /* keys in sight of a query, itself included; 0: all */
    struct value *keys, *values; /* results: what was attended to */
    struct value *scores;        /* result when asked for: the probabilities, [B, heads, rows, total] */
    bool want_scores;
};
struct value *attend(struct builder *b, struct attend *a); /* [B, heads, rows, size of v] */

struct value *attend_split(struct builder *b, struct value *x, int64_t heads); /* [B,S,N*H] -> [B,N,S,H] */
struct value *attend_join(struct builder *b, struct value *x);                 /* and back */
/* x [.., width], cut into parts of the last dim. */
NPUC_MUST_CHECK bool attend_parts(struct builder *b, struct value *x, int n, const int64_t *width, struct value **out);
/* float32 [B, 1, 1 or rows, total] of `filter` where the mask, input i of any of its forms, hides a key, else 0. past:
 * keys before the new ones. */
struct value *attend_mask(struct import *im, struct onode *n, int i, expr batch, expr rows, expr total, expr past,
                          float filter);
struct value *attend_hidden(struct builder *b, struct value *kept, float filter); /* bool to such a term */
struct value *attend_both(struct builder *b, struct value *x,
                          struct value *y); /* x + y in float32; either may be NULL */
/* New rows [B, N, S, H] written into the buffer from row `first` (int64 [B]) on. */
struct value *attend_write(struct builder *b, struct value *buffer, struct value *rows, struct value *first);

#endif
