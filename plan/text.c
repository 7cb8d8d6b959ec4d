/* Text building for the disassembler and `npuc inspect`. */
#include "plan/text_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MAX_BYTES = 200 };

static bool text_reserve(struct text *t, int64_t more)
{
    if (t->s.len + more + 1 <= t->s.cap)
        return true;
    const int64_t cap = 2 * t->s.cap + more + 256;
    char *data = ARENA_ARRAY(t->arena, char, cap);
    if (!data)
        return false;
    if (t->s.len)
        memcpy(data, t->s.data, (size_t)t->s.len);
    t->s.data = data;
    t->s.cap = cap;
    return true;
}

void text_add(struct text *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    const int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && text_reserve(t, n)) {
        vsnprintf(t->s.data + t->s.len, (size_t)n + 1, fmt, again);
        t->s.len += n;
    }
    va_end(again);
}

void text_line(struct text *t)
{
    while (t->s.len > t->line && t->s.data[t->s.len - 1] == ' ')
        t->s.len--;
    text_add(t, "\n");
    t->line = t->s.len;
}

void text_column(struct text *t, int column)
{
    const int64_t missing = column - (t->s.len - t->line);
    text_add(t, "%*s", missing > 1 ? (int)missing : 1, "");
}

const char *text_done(struct text *t)
{
    if (!text_reserve(t, 0))
        return "";
    t->s.data[t->s.len] = 0;
    return t->s.data;
}

void text_expr(struct text *t, const struct expr_pool *p, expr e)
{
    const char *s = e > 0 && e < p->nodes.len ? expr_text(p, e, t->arena) : "?";
    if (!s)
        return;
    text_add(t, strchr(s, ' ') ? "(%s)" : "%s", s);
}

const char *text_sym(struct text *t, const struct strtab *strings, sym s)
{
    const char *name = str_escape(t->arena, str_text(strings, s), str_len(strings, s), NAME_MAX_BYTES);
    return name ? name : "";
}
