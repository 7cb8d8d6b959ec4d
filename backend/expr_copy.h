/* Expressions of one pool written again in another. */
#ifndef BACKEND_EXPR_COPY_H
#define BACKEND_EXPR_COPY_H

#include "base/expr.h"
#include "base/map.h"

struct expr_copier {
    const struct expr_pool *from;
    struct expr_pool *to;
    struct map known;                           /* expression of `from` -> of `to` */
    expr (*symbol)(void *user, int64_t symbol); /* what stands for a symbol of `from` */
    void *user;
};
/* EXPR_INVALID for EXPR_INVALID, and for what would be larger than expressions may be. */
expr expr_copy(struct expr_copier *c, expr e);

#endif
