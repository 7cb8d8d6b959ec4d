/* A growing text in an arena, for the printers of this folder. */
#ifndef PLAN_TEXT_PRIV_H
#define PLAN_TEXT_PRIV_H

#include "base/expr.h"
#include "plan/tile.h"

struct text {
    struct arena *arena;
    VEC(char) s;
    int64_t line; /* where the current line starts */
};
void text_add(struct text *t, const char *fmt, ...) NPUC_PRINTF(2, 3);
void text_line(struct text *t);               /* ends the line, without trailing blanks */
void text_column(struct text *t, int column); /* blanks up to a column, at least one */
const char *text_done(struct text *t);
/* The expression; in brackets when it is more than one word. */
void text_expr(struct text *t, const struct expr_pool *p, expr e);
const char *text_sym(struct text *t, const struct strtab *strings, sym s); /* escaped */

/* plan/expr_short.c: names for expressions that a kernel holds several times; by node of the kernel's pool: its uses,
 * the expression itself in `pool`, and the name that stands for it there, or 0. */
struct expr_short {
    const struct expr_pool *from;
    struct expr_pool pool;
    int32_t *uses;
    expr *whole, *name;
    int32_t n_names;
};
struct expr_short *expr_short_new(const struct tile_kernel *k, struct arena *a);

#endif
