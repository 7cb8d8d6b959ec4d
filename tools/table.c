#include "tools/table.h"

#include <string.h>

void table_init(struct table *t, struct arena *a, const char *align)
{
    *t = (struct table){.arena = a, .n_columns = (int)strlen(align), .align = align};
}

void table_put(struct table *t, const char *text)
{
    vec_push(t->arena, &t->cell, text ? text : "");
}

/* Columns of a terminal: bytes that do not continue a UTF-8 character. */
static int columns(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static int width_of(const struct table *t, int column)
{
    int w = 0;
    for (int64_t i = column; i < t->cell.len; i += t->n_columns) {
        const int c = columns(t->cell.data[i]);
        w = c > w ? c : w;
    }
    return w;
}

static void pad(FILE *f, int n)
{
    for (; n > 0; n--)
        fputc(' ', f);
}

void table_text(const struct table *t, FILE *f)
{
    int *width = ARENA_ARRAY(t->arena, int, t->n_columns + 1);
    for (int k = 0; k < t->n_columns; k++)
        width[k] = width_of(t, k);
    for (int64_t row = 0; row + t->n_columns <= t->cell.len; row += t->n_columns) {
        int last = t->n_columns - 1, gap = 0;
        while (last > 0 && !*t->cell.data[row + last])
            last--;
        for (int k = 0; k <= last; k++) {
            const char *s = t->cell.data[row + k];
            const int blank = width[k] - columns(s);
            pad(f, gap + (t->align[k] == 'r' ? blank : 0));
            fputs(s, f);
            gap = 2 + (t->align[k] == 'r' ? 0 : blank);
        }
        fputc('\n', f);
    }
}

static void markdown_cell(FILE *f, const char *s)
{
    fputs("| ", f);
    for (; *s; s++) {
        if (*s == '|')
            fputc('\\', f);
        fputc(*s, f);
    }
    fputc(' ', f);
}

void table_markdown(const struct table *t, FILE *f)
{
    for (int64_t i = 0; i < t->cell.len; i++) {
        markdown_cell(f, t->cell.data[i]);
        if ((i + 1) % t->n_columns != 0)
            continue;
        fputs("|\n", f);
        for (int k = 0; k < t->n_columns && i + 1 == t->n_columns; k++)
            fputs(t->align[k] == 'r' ? "| ---: " : "| --- ", f);
        fputs(i + 1 == t->n_columns ? "|\n" : "", f);
    }
}

const char *bytes_text(char buf[BYTES_TEXT], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; bytes >= 1024 && u < 4; u++)
        bytes /= 1024;
    snprintf(buf, BYTES_TEXT, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return buf;
}
