/* Strings: constants, joining, splitting, normalising. Text is UTF-8; elements of results may share the bytes of
 * operands. */
#include <string.h>

#include "base/size.h"
#include "kernels/op.h"

/* Input i is a tensor of strings; false with the error set. */
static bool is_text(struct k_call *c, int i)
{
    const struct k_tensor *t = k_in(c, i);
    if (t && t->kind == K_TENSOR && t->dtype == DT_STRING)
        return true;
    k_fail(c, NPUC_E_INVALID, "input %d must be a tensor of strings", i);
    return false;
}

/* A tensor of strings written down in attributes: `strings` in row-major order, `dims`. */
enum npuc_status k_op_constant(struct k_call *c)
{
    const struct k_attr *text = k_attr_find(c, "strings"), *dims = k_attr_find(c, "dims");
    int64_t n = 1;
    bool fits = text && dims && text->kind == K_ATTR_STRINGS && dims->kind == K_ATTR_INTS && dims->len <= K_MAX_RANK;
    for (int64_t i = 0; fits && i < dims->len; i++)
        fits = size_mul(n, dims->v.ints[i], &n);
    if (!k_has(c, 0, 1) || !fits || n != text->len)
        return k_fail(c, NPUC_E_INVALID, "strings and dims do not fit each other");
    struct k_string *y = k_out(c, 0, DT_STRING, (int)dims->len, dims->v.ints);
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0; i < n; i++)
        y[i] = text->v.strings[i];
    return NPUC_OK;
}

/* ---- StringConcat */

struct joining {
    struct k_call *c;
    struct k_string *y;
    const struct k_string *a, *b;
    bool failed;
};
static void join_one(void *arg, const int64_t *offset)
{
    struct joining *j = arg;
    const struct k_string a = j->a[offset[1]], b = j->b[offset[2]];
    int64_t len;
    char *text = size_add(a.len, b.len, &len) ? arena_alloc(j->c->arena, len + 1, 1) : NULL;
    j->failed |= !text;
    if (!text)
        return;
    if (a.len)
        memcpy(text, a.text, (size_t)a.len);
    if (b.len)
        memcpy(text + a.len, b.text, (size_t)b.len);
    text[len] = 0;
    j->y[offset[0]] = (struct k_string){text, len};
}

enum npuc_status k_op_string_concat(struct k_call *c)
{
    struct k_nd d = {.n = 3};
    if (!k_has(c, 2, 1) || !is_text(c, 0) || !is_text(c, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *a = c->in[0], *b = c->in[1];
    if (!k_broadcast(a->rank, a->dims, b->rank, b->dims, &d.rank, d.dims))
        return k_fail(c, NPUC_E_INVALID, "the inputs do not broadcast");
    struct joining j = {c, k_out(c, 0, DT_STRING, d.rank, d.dims), a->data, b->data, false};
    if (!j.y)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    k_nd_broadcast(&d, 1, a);
    k_nd_broadcast(&d, 2, b);
    k_nd_each(&d, 0, join_one, &j);
    return j.failed ? k_no_memory(c) : NPUC_OK;
}

/* ---- StringSplit */

static bool is_blank(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

/* The pieces of s, at most `most` cuts (negative: any number); counts them and, unless `to` is NULL, writes them.
 * Without a delimiter runs of white space separate, also before the first and behind the last piece. */
static int64_t pieces(struct k_string s, struct k_string delimiter, int64_t most, struct k_string *to)
{
    int64_t n = 0, at = 0, cut;
    for (;; n++) {
        int64_t next;
        if (!delimiter.len) {
            while (at < s.len && is_blank(s.text[at]))
                at++;
            if (at == s.len)
                return n;
            for (cut = at; cut < s.len && !is_blank(s.text[cut]);)
                cut++;
            next = cut;
        } else {
            for (cut = at; cut + delimiter.len <= s.len && memcmp(s.text + cut, delimiter.text, (size_t)delimiter.len);)
                cut++;
            if (cut + delimiter.len > s.len)
                cut = s.len;
            next = cut + delimiter.len;
        }
        if (n == most)
            cut = s.len;
        if (to)
            to[n] = (struct k_string){s.text + at, cut - at};
        if (cut == s.len && (delimiter.len || n == most))
            return n + 1;
        at = next;
    }
}

enum npuc_status k_op_string_split(struct k_call *c)
{
    if (!k_has(c, 1, 2) || !is_text(c, 0))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const struct k_attr *given = k_attr_find(c, "delimiter");
    const struct k_string delimiter = given ? (struct k_string){given->v.s, given->len} : (struct k_string){"", 0};
    const int64_t most = k_attr_int(c, "maxsplit", -1), count = k_count(x);
    const struct k_string *s = x->data;
    int64_t widest = 0, dims[K_MAX_RANK + 1];
    if (x->rank >= K_MAX_RANK)
        return k_fail(c, NPUC_E_LIMIT, "rank %d", x->rank);
    int64_t *n = k_out(c, 1, DT_I64, x->rank, x->dims);
    if (!n)
        return k_no_memory(c);
    for (int64_t i = 0; i < count; i++) {
        n[i] = pieces(s[i], delimiter, most, NULL);
        widest = n[i] > widest ? n[i] : widest;
    }
    memcpy(dims, x->dims, sizeof x->dims);
    dims[x->rank] = widest;
    struct k_string *y = k_out(c, 0, DT_STRING, x->rank + 1, dims);
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0; i < count; i++) {
        pieces(s[i], delimiter, most, y + i * widest);
        for (int64_t k = n[i]; k < widest; k++)
            y[i * widest + k] = (struct k_string){"", 0};
    }
    return NPUC_OK;
}

/* ---- StringNormalizer */

/* Upper and lower case of one code point where the two lie at a fixed distance: ASCII, Latin-1, Greek, Cyrillic, and
 * the pairs of Latin Extended-A and Additional, Cyrillic supplements. Others are left as they are. */
static uint32_t change_case(uint32_t u, bool upper)
{
    static const struct {
        uint32_t first, last; /* upper case */
        int32_t step;         /* to lower case; 1: pairs that begin at even numbers, -1: at odd ones */
    } rows[] = {
        {'A', 'Z', 32},      {0xc0, 0xd6, 32},    {0xd8, 0xde, 32},   {0x100, 0x12f, 1},  {0x132, 0x137, 1},
        {0x139, 0x148, -1},  {0x14a, 0x177, 1},   {0x179, 0x17e, -1}, {0x391, 0x3a1, 32}, {0x3a3, 0x3ab, 32},
        {0x400, 0x40f, 80},  {0x410, 0x42f, 32},  {0x460, 0x481, 1},  {0x48a, 0x4bf, 1},  {0x4d0, 0x52f, 1},
        {0x1e00, 0x1e95, 1}, {0x1ea0, 0x1eff, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const uint32_t a = rows[i].first, b = rows[i].last;
        if (rows[i].step > 1) {
            if (!upper && u >= a && u <= b)
                return u + (uint32_t)rows[i].step;
            if (upper && u >= a + (uint32_t)rows[i].step && u <= b + (uint32_t)rows[i].step)
                return u - (uint32_t)rows[i].step;
        } else if (u >= a && u <= b) {
            const uint32_t odd = rows[i].step < 0;
            return upper ? u - ((u ^ odd) & 1) : u + (~(u ^ odd) & 1);
        }
    }
    return u;
}

/* Case changes within one and within two bytes; what those rows do to three-byte letters keeps three. */
static struct k_string with_case(struct k_call *c, struct k_string s, bool upper)
{
    char *y = arena_alloc(c->arena, s.len + 1, 1);
    if (!y)
        return (struct k_string){NULL, 0};
    for (int64_t i = 0; i < s.len;) {
        const uint8_t b = (uint8_t)s.text[i];
        const int n = b < 0x80                                 ? 1
                      : b >= 0xc2 && b < 0xe0 && i + 1 < s.len ? 2
                      : b >= 0xe0 && b < 0xf0 && i + 2 < s.len ? 3
                                                               : 0;
        const uint32_t second = n > 1 ? s.text[i + 1] & 0x3f : 0, third = n > 2 ? s.text[i + 2] & 0x3f : 0;
        const uint32_t u = n == 1 ? b : n == 2 ? (b & 0x1fu) << 6 | second : (b & 0xfu) << 12 | second << 6 | third;
        const uint32_t v = n ? change_case(u, upper) : 0;
        if (n == 1)
            y[i] = (char)v;
        if (n == 2) {
            y[i] = (char)(0xc0 | v >> 6);
            y[i + 1] = (char)(0x80 | (v & 0x3f));
        }
        if (n == 3) {
            y[i] = (char)(0xe0 | v >> 12);
            y[i + 1] = (char)(0x80 | (v >> 6 & 0x3f));
            y[i + 2] = (char)(0x80 | (v & 0x3f));
        }
        if (n == 0)
            y[i] = s.text[i];
        i += n ? n : 1;
    }
    y[s.len] = 0;
    return (struct k_string){y, s.len};
}

static bool is_stop(const struct k_attr *stops, struct k_string s)
{
    for (int64_t i = 0; stops && i < stops->len; i++)
        if (stops->v.strings[i].len == s.len && !memcmp(stops->v.strings[i].text, s.text, (size_t)s.len))
            return true;
    return false;
}

struct normalizer {
    const char *action;
    bool exact; /* stop words are compared as written */
    const struct k_attr *stops;
};

static bool normalizer_new(struct k_call *c, struct normalizer *z)
{
    const struct k_attr *given = k_attr_find(c, "stopwords");
    z->action = k_attr_str(c, "case_change_action", "NONE");
    z->exact = k_attr_int(c, "is_case_sensitive", 0) != 0;
    z->stops = given && given->kind == K_ATTR_STRINGS ? given : NULL;
    if (!z->stops || z->exact)
        return true;
    struct k_attr *folded = k_scratch(c, 1, (int64_t)sizeof *folded);
    struct k_string *text = k_scratch(c, given->len, (int64_t)sizeof *text);
    bool done = folded && text;
    for (int64_t i = 0; done && i < given->len; i++) {
        text[i] = with_case(c, given->v.strings[i], false);
        done = text[i].text != NULL;
    }
    if (!done)
        return false;
    *folded = *given;
    folded->v.strings = text;
    z->stops = folded;
    return true;
}

enum npuc_status k_op_string_normalizer(struct k_call *c)
{
    struct normalizer z;
    if (!k_has(c, 1, 1) || !is_text(c, 0))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    if (x->rank < 1 || x->rank > 2 || (x->rank == 2 && x->dims[0] != 1))
        return k_fail(c, NPUC_E_INVALID, "input must have shape [C] or [1, C]");
    const int64_t n = k_count(x);
    struct k_string *kept = k_scratch(c, n + 1, (int64_t)sizeof *kept);
    if (!kept || !normalizer_new(c, &z))
        return k_no_memory(c);
    int64_t len = 0;
    const struct k_string *s = x->data;
    for (int64_t i = 0; i < n; i++) {
        const struct k_string plain = z.exact ? s[i] : with_case(c, s[i], false);
        if (!plain.text && s[i].len)
            return k_no_memory(c);
        if (is_stop(z.stops, plain))
            continue;
        kept[len] = strcmp(z.action, "NONE") ? with_case(c, s[i], !strcmp(z.action, "UPPER")) : s[i];
        if (!kept[len++].text && s[i].len)
            return k_no_memory(c);
    }
    if (len == 0)
        kept[len++] = (struct k_string){"", 0};
    const int64_t dims[2] = {x->rank == 2 ? 1 : len, len};
    struct k_string *y = k_out(c, 0, DT_STRING, x->rank, dims);
    if (!y)
        return k_no_memory(c);
    memcpy(y, kept, (size_t)len * sizeof *y);
    return NPUC_OK;
}
