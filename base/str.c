/* The interner and the one escaper for text that comes from files. */
#include "base/str.h"

#include "base/str_priv.h"

#include <stdio.h>
#include <string.h>

void strtab_init(struct strtab *t, struct arena *a)
{
    *t = (struct strtab){.arena = a};
    map_init(&t->by_hash, a);
    (void)str_intern(t, "", 0);
}

sym str_intern(struct strtab *t, const char *text, int64_t len)
{
    const uint64_t hash = map_hash_bytes(text, len);
    const uint64_t *first = map_find(&t->by_hash, hash);
    for (uint32_t s = first ? (uint32_t)*first + 1 : 0; s; s = t->next.data[s - 1]) {
        const struct str_entry *e = &t->entries.data[s - 1];
        if (e->len == len && !memcmp(e->text, text, (size_t)len))
            return s - 1;
    }
    NPUC_ASSERT(t->entries.len < UINT32_MAX - 1);
    const sym s = (sym)t->entries.len;
    const struct str_entry entry = {arena_strndup(t->arena, text, len), len};
    vec_push(t->arena, &t->entries, entry);
    vec_push(t->arena, &t->next, first ? (uint32_t)*first + 1 : 0);
    map_put(&t->by_hash, hash, s);
    return s;
}

sym str_internz(struct strtab *t, const char *text)
{
    return str_intern(t, text, (int64_t)strlen(text));
}

const char *str_text(const struct strtab *t, sym s)
{
    NPUC_ASSERT((int64_t)s < t->entries.len);
    return t->entries.data[s].text;
}

int64_t str_len(const struct strtab *t, sym s)
{
    NPUC_ASSERT((int64_t)s < t->entries.len);
    return t->entries.data[s].len;
}

/* Bytes of the well-formed, printable UTF-8 sequence at p, or 0. Refused: overlong forms, surrogates, C1 controls,
 * line separators and the marks that reorder text on a terminal. */
static int utf8_len(const uint8_t *p, int64_t left)
{
    const int n = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
    if (!n || p[0] >= 0xf5 || left < n)
        return 0;
    uint32_t c = p[0] & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const bool reorders = (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f;
    const bool bad = c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || c < 0xa0 || reorders;
    return bad ? 0 : n;
}

/* One unit of output for the text at p: fills `out` (at most 5 bytes), returns the bytes of input it stands for. */
static int escape_one(char out[5], const uint8_t *p, int64_t left, bool quotes)
{
    const char *named = *p ? strchr("n\nt\tr\r", *p) : NULL;
    const int n = *p >= 0x80 ? utf8_len(p, left) : 1;
    memset(out, 0, 5);
    if (*p >= 0x80 && n) {
        memcpy(out, p, (size_t)n);
        return n;
    }
    if (named && *p < 0x20)
        snprintf(out, 5, "\\%c", named[-1]);
    else if (*p < 0x20 || *p >= 0x7f)
        snprintf(out, 5, "\\x%02x", *p);
    else if (quotes && (*p == '"' || *p == '\'' || *p == '\\'))
        snprintf(out, 5, "\\%c", *p);
    else
        out[0] = (char)*p;
    return 1;
}

int64_t str_escape_to(char *out, int64_t cap, const char *text, int64_t len, bool quotes)
{
    const uint8_t *p = (const uint8_t *)text;
    int64_t n = 0, cut = 0; /* cut: where "..." fits */
    for (int64_t i = 0; i < len;) {
        char unit[5];
        i += escape_one(unit, p + i, len - i, quotes);
        const int64_t add = (int64_t)strlen(unit);
        if (n + add >= cap) {
            snprintf(out + cut, (size_t)(cap - cut), "...");
            return (int64_t)strlen(out);
        }
        memcpy(out + n, unit, (size_t)add);
        n += add;
        if (n + 3 < cap)
            cut = n;
    }
    out[n] = 0;
    return n;
}

const char *str_escape(struct arena *a, const char *text, int64_t len, int64_t max)
{
    const int64_t most = len < INT64_MAX / 8 ? 4 * len : INT64_MAX / 2;
    const int64_t cap = (most < max ? most : max) + 1;
    char *out = arena_alloc(a, cap < 4 ? 4 : cap, 1);
    if (out)
        (void)str_escape_to(out, cap, text, len, true);
    return out;
}
