/* Views of values over iteration dimensions, for generators that build vector regions by hand. */
#ifndef BACKEND_VECTOR_VIEWS_H
#define BACKEND_VECTOR_VIEWS_H

#include "backend/vector/vregion.h"

/* The storage of a value as a view over its own dimensions; a scalar is one element. The value is `view_plain`. */
void view_own(struct emit *e, struct value *v, struct vr_view *out);
/* A dense tensor of whole bytes up to 64 bits, with strides that are known: what the DMA moves. */
bool view_plain(struct ir_ctx *cx, const struct value *v, const char **reason);
/* Row-major view of a plan tensor of these dimensions. */
struct vr_view view_dense(struct emit *e, int32_t tensor, enum dtype t, int rank, const expr *dims);
/* Element `at` of a tensor for every iteration. */
struct vr_view view_element(struct emit *e, struct value *v, expr at);
/* dst = src over `rank` dims, as one launch. */
NPUC_MUST_CHECK enum npuc_status view_copy(struct emit *e, int rank, const expr *dims, const struct vr_view *dst,
                                           const struct vr_view *src, const char *label);
/* Rows of a cache that CacheAppend n writes, over the dimensions of its operand: behind the valid ones, or at the
 * positions given per batch entry. */
void view_appended(struct emit *e, struct node *n, struct vr_view *out);
/* A size as an integer value of type t that is the same everywhere in the region. */
int view_size(struct vr *r, enum dtype t, expr size);
/* b where cond, else c; of the type of b. */
int view_where(struct vr *r, int cond, int b, int c);
/* Product of dims [from, to). */
expr view_product(struct expr_pool *x, const expr *dims, int from, int to);
/* Attribute `axis` or another, brought into [0, rank). */
int view_axis(const struct node *n, const char *attr, int64_t otherwise, int rank);

#endif
