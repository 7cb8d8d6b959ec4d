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
void text_line(struct text *t);                      /* ends the line, without trailing blanks */
void text_column(struct text *t, int column);        /* blanks up to a column, at least one */
const char *text_done(struct text *t);
/* Names as printed: "L1", "mte2". The unit and space names are also what reports use. */
extern const char *const tile_space_name[TS_COUNT];
extern const char *const tile_unit_name[TU_COUNT];
/* The expression; in brackets when it is more than one word. */
void text_expr(struct text *t, const struct expr_pool *p, expr e);
const char *text_sym(struct text *t, const struct strtab *strings, sym s); /* escaped */

#endif
