/* Tables for people: columns as wide as their longest cell, as text or as Markdown. */
#ifndef TOOLS_TABLE_H
#define TOOLS_TABLE_H

#include <stdio.h>

#include "base/arena.h"
#include "base/vec.h"

struct table {
    struct arena *arena;
    int n_columns;
    const char *align;      /* a letter per column: l or r */
    VEC(const char *) cell; /* row by row, the heading first; NULL is empty */
};
void table_init(struct table *t, struct arena *a, const char *align);
void table_put(struct table *t, const char *text); /* the next cell; the text is not copied */
/* Two blanks between columns; nothing behind the last cell of a row. */
void table_text(const struct table *t, FILE *f);
void table_markdown(const struct table *t, FILE *f);

#define BYTES_TEXT 24
const char *bytes_text(char buf[BYTES_TEXT], double bytes); /* "512 B", "1.5 MiB"; buf */

#endif
