/* RegexFullMatch: patterns of RE2 translated to POSIX extended expressions, which the C library matches in time linear
 * in the text for what RE2 can say. Text is UTF-8, matched byte by byte in the C locale: a character beyond ASCII is a
 * group of bytes. What has no translation (Unicode classes, flags other than i and s) is refused by name. */
#include <locale.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/op.h"

enum { MAX_REPEAT = 1000, MAX_GROUPS = 100, MAX_WEIGHT = 100000 };

/* Any character beyond ASCII: a first byte and what follows it. */
#define WIDE_CHARACTER "[\xc2-\xf4][\x80-\xbf]+"

struct translation {
    const char *at, *end;
    char *out;
    int64_t len, room;
    const char *fault;
    bool ignore_case, dot_all;
    bool atom;                      /* something stands before that a repetition may follow */
    int64_t weight[MAX_GROUPS + 1]; /* how many atoms the group of this depth has when repetitions are written out */
    int64_t last;                   /* of them, the last atom's */
    int depth;
};

static void put(struct translation *t, const char *s, int64_t n)
{
    if (t->len + n >= t->room) {
        t->fault = "it is too long";
        return;
    }
    memcpy(t->out + t->len, s, (size_t)n);
    t->len += n;
}
static void puts_to(struct translation *t, const char *s)
{
    put(t, s, (int64_t)strlen(s));
}
static void atom_done(struct translation *t, int64_t weight)
{
    t->atom = true;
    t->last = weight;
    t->weight[t->depth] += weight;
    if (t->weight[t->depth] > MAX_WEIGHT)
        t->fault = "its repetitions are too large";
}
static bool accept(struct translation *t, const char *s)
{
    const size_t n = strlen(s);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, s, n) != 0)
        return false;
    t->at += n;
    return true;
}

static void put_byte(struct translation *t, uint8_t b)
{
    const char c = (char)b;
    if (b == 0)
        t->fault = "it holds a zero byte";
    if (strchr(".[]()*+?{}|^$\\", c))
        puts_to(t, "\\");
    put(t, &c, 1);
}

/* A character as its bytes of UTF-8. */
static void put_code(struct translation *t, uint32_t u)
{
    char b[4];
    int n = 0;
    if (u < 0x80) {
        put_byte(t, (uint8_t)u);
        return;
    }
    if (u > 0x10ffff)
        t->fault = "it names a character that does not exist";
    if (u < 0x800) {
        b[n++] = (char)(0xc0 | u >> 6);
    } else {
        if (u < 0x10000) {
            b[n++] = (char)(0xe0 | u >> 12);
        } else {
            b[n++] = (char)(0xf0 | (u >> 18 & 7));
            b[n++] = (char)(0x80 | (u >> 12 & 0x3f));
        }
        b[n++] = (char)(0x80 | (u >> 6 & 0x3f));
    }
    b[n++] = (char)(0x80 | (u & 0x3f));
    puts_to(t, "(");
    put(t, b, n);
    puts_to(t, ")");
}

/* The next character of the pattern, more than one byte beyond ASCII. */
static uint32_t next_code(struct translation *t)
{
    const uint8_t b = (uint8_t)*t->at++;
    const int more = b >= 0xf0 ? 3 : b >= 0xe0 ? 2 : b >= 0xc2 ? 1 : 0;
    if (b < 0x80)
        return b;
    if (!more || t->end - t->at < more) {
        t->fault = "it is not UTF-8";
        t->at = t->end;
        return 0;
    }
    uint32_t u = b & (0x3fu >> more);
    for (int i = 0; i < more; i++)
        u = u << 6 | (*t->at++ & 0x3fu);
    return u;
}

/* \x41, \x{1f600}, \n ...: a character, or -1 when c is no such escape. */
static int64_t escaped_code(struct translation *t, char c)
{
    static const char letters[] = "ntrfva", codes[] = "\n\t\r\f\v\a";
    const char *known = c ? strchr(letters, c) : NULL;
    if (known)
        return codes[known - letters];
    if (c != 'x')
        return ((uint8_t)c < 0x80 && c > ' ' && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z')) ? c
                                                                                                                  : -1;
    const bool braces = accept(t, "{");
    int64_t u = 0;
    int digits = 0;
    for (; t->at < t->end && digits < (braces ? 6 : 2); digits++, t->at++) {
        const char *hex = "0123456789abcdef",
                   *d = *t->at ? strchr(hex, *t->at >= 'A' && *t->at <= 'F' ? *t->at | 32 : *t->at) : NULL;
        if (!d)
            break;
        u = u * 16 + (d - hex);
    }
    if (digits == 0 || (!braces && digits < 2) || (braces && !accept(t, "}")))
        t->fault = "it has an escape \\x without digits";
    return u;
}

/* ---- classes: ASCII as a set, characters beyond it one by one */

struct class_set {
    bool has[128], negated;
    uint32_t wide[32];
    int n_wide;
};

static void add_range(struct translation *t, struct class_set *s, uint32_t a, uint32_t b)
{
    if (a > b)
        t->fault = "a range of a class is empty";
    for (uint32_t u = a; u <= b && u < 128; u++)
        s->has[u] = true;
    if (b < 128)
        return;
    const uint32_t first = a < 128 ? 128 : a;
    if (b - first >= (uint32_t)(NPUC_ARRAY_LEN(s->wide) - s->n_wide)) {
        t->fault = "a class has too many characters beyond ASCII";
        return;
    }
    for (uint32_t u = first; u <= b; u++)
        s->wide[s->n_wide++] = u;
}

/* \d \s \w and POSIX names, as ASCII sets (as RE2 has them). */
static bool add_named(struct class_set *s, const char *name)
{
    static const struct {
        const char *name, *ranges; /* pairs */
    } rows[] = {
        {"d", "09"},          {"s", "\t\n\f\r  "},  {"w", "09AZ__az"},           {"alnum", "09AZaz"}, {"alpha", "AZaz"},
        {"ascii", "\1\x7f"},  {"blank", "\t\t  "},  {"cntrl", "\1\x1f\x7f\x7f"}, {"digit", "09"},     {"graph", "!~"},
        {"lower", "az"},      {"print", " ~"},      {"punct", "!/:@[`{~"},       {"space", "\t\r  "}, {"upper", "AZ"},
        {"word", "09AZ__az"}, {"xdigit", "09AFaf"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name)) {
            for (const char *r = rows[i].ranges; *r; r += 2)
                for (int c = r[0]; c <= r[1]; c++)
                    s->has[c] = true;
            return true;
        }
    return false;
}

/* A bracket expression over the set, special characters where POSIX takes them as themselves: "]" first, "^" not first,
 * "-" first or last. */
static void put_bracket(struct translation *t, const bool want[128])
{
    const int64_t from = t->len;
    puts_to(t, want[']'] ? "[]" : "[");
    for (int c = 1; c < 128; c++)
        if (want[c] && !strchr("]^-[", c))
            put(t, &(const char){(char)c}, 1);
    puts_to(t, want['['] ? "[" : "");
    if (t->len > from + 1)
        puts_to(t, want['^'] ? want['-'] ? "^-]" : "^]" : want['-'] ? "-]" : "]");
    else if (want['-'])
        puts_to(t, want['^'] ? "-^]" : "-]");
    else {
        t->len = from;
        puts_to(t, "\\^");
    }
}

static void put_class(struct translation *t, const struct class_set *s)
{
    bool want[128] = {false}, any = false;
    for (int c = 1; c < 128; c++) {
        want[c] = s->has[c] != s->negated;
        any |= want[c];
    }
    if ((!any && !s->n_wide && !s->negated) || (s->negated && s->n_wide)) {
        t->fault = "it has a class that matches nothing, or excludes characters beyond ASCII";
        return;
    }
    puts_to(t, "(");
    if (any)
        put_bracket(t, want);
    for (int i = 0; i < s->n_wide; i++) {
        puts_to(t, any || i ? "|" : "");
        put_code(t, s->wide[i]);
    }
    if (s->negated)
        puts_to(t, any ? "|" WIDE_CHARACTER : WIDE_CHARACTER);
    puts_to(t, ")");
    atom_done(t, 1);
}

static uint32_t class_item(struct translation *t, struct class_set *s, bool *is_set)
{
    *is_set = false;
    if (!accept(t, "\\"))
        return next_code(t);
    const char c = t->at < t->end ? *t->at++ : 0;
    const char name[2] = {c, 0};
    *is_set = add_named(s, name);
    const int64_t u = *is_set ? 0 : escaped_code(t, c);
    if (u < 0)
        t->fault = "it has an escape in a class that is not supported";
    return u < 0 ? 0 : (uint32_t)u;
}

static void translate_class(struct translation *t)
{
    struct class_set s = {.negated = accept(t, "^")};
    for (bool first = true; !t->fault; first = false) {
        if (t->at >= t->end) {
            t->fault = "a class has no end";
            return;
        }
        if (!first && accept(t, "]"))
            break;
        if (accept(t, "[:")) {
            char name[8] = {0};
            for (size_t i = 0; i < sizeof name - 1 && t->at < t->end && *t->at >= 'a' && *t->at <= 'z'; i++)
                name[i] = *t->at++;
            if (!accept(t, ":]") || !add_named(&s, name))
                t->fault = "it names an unknown class";
            continue;
        }
        bool is_set;
        const uint32_t a = class_item(t, &s, &is_set);
        uint32_t b = a;
        if (is_set)
            continue;
        if (t->end - t->at >= 2 && t->at[0] == '-' && t->at[1] != ']') {
            t->at++;
            b = class_item(t, &s, &is_set);
        }
        add_range(t, &s, a, b);
    }
    if (!t->fault)
        put_class(t, &s);
}

/* ---- everything else */

static void translate_escape(struct translation *t)
{
    const char c = t->at < t->end ? *t->at++ : 0;
    struct class_set s = {.negated = c >= 'A' && c <= 'Z'};
    const char name[2] = {(char)(c | 32), 0};
    if (c && strchr("dDsSwW", c) && add_named(&s, name)) {
        put_class(t, &s);
    } else if (c == 'b' || c == 'B') {
        put(t, (const char[]){'\\', c}, 2);
        t->atom = false;
    } else if (c == 'A' || c == 'z') {
        puts_to(t, c == 'A' ? "^" : "$");
        t->atom = false;
    } else {
        const int64_t u = escaped_code(t, c);
        if (u < 0)
            t->fault = "it has an escape that is not supported";
        else
            put_code(t, (uint32_t)u);
        atom_done(t, 1);
    }
}

/* (?:, (?P<name>, (?i), (?s) at the beginning. */
static void open_group(struct translation *t, bool at_start)
{
    bool flags = false;
    if (accept(t, "?")) {
        if (accept(t, "P<") || accept(t, "<")) {
            while (t->at < t->end && *t->at != '>')
                t->at++;
            if (!accept(t, ">"))
                t->fault = "a group's name has no end";
        } else if (!accept(t, ":")) {
            for (flags = true; t->at < t->end && (*t->at == 'i' || *t->at == 's'); t->at++)
                *(*t->at == 'i' ? &t->ignore_case : &t->dot_all) = true;
            if (!at_start || !accept(t, ")"))
                t->fault = "it has flags that are not supported";
        }
    }
    if (flags)
        return;
    if (t->depth == MAX_GROUPS) {
        t->fault = "its groups are nested too deeply";
        return;
    }
    t->weight[++t->depth] = 0;
    t->atom = false;
    puts_to(t, "(");
}

static bool number(struct translation *t, int64_t *n)
{
    int digits = 0;
    for (*n = 0; t->at < t->end && *t->at >= '0' && *t->at <= '9' && digits < 5; digits++)
        *n = *n * 10 + (*t->at++ - '0');
    return digits > 0;
}

/* {n}, {n,}, {n,m}; anything else is a brace as such. */
static bool repeat_counts(struct translation *t, int64_t *times)
{
    const char *from = t->at;
    int64_t a, b;
    bool fits = number(t, &a);
    b = a;
    if (fits && accept(t, ",") && !number(t, &b))
        b = a > 0 ? a : 1;
    if (!fits || !accept(t, "}")) {
        t->at = from;
        return false;
    }
    if (a > MAX_REPEAT || b > MAX_REPEAT || b < a)
        t->fault = "its repetitions are too large";
    puts_to(t, "{");
    put(t, from, t->at - from);
    *times = b > 1 ? b : 1;
    return true;
}

static void translate_repeat(struct translation *t, char c, int64_t times)
{
    if (!t->atom)
        t->fault = "it repeats nothing";
    if (c != '{')
        put(t, &c, 1);
    (void)accept(t, "?"); /* which match is found first does not matter when all of the text must match */
    atom_done(t, t->last * (times - 1));
    t->atom = false;
}

static void translate_one(struct translation *t)
{
    const bool at_start = t->len == 0;
    const char c = *t->at;
    int64_t times = 1;
    if ((uint8_t)c >= 0x80) {
        put_code(t, next_code(t));
        atom_done(t, 1);
        return;
    }
    t->at++;
    if (c == '\\') {
        translate_escape(t);
    } else if (c == '[') {
        translate_class(t);
    } else if (c == '(') {
        open_group(t, at_start);
    } else if (c == ')') {
        if (t->depth == 0) {
            t->fault = "a group is closed that was not opened";
            return;
        }
        puts_to(t, ")");
        const int64_t inner = t->weight[t->depth--];
        atom_done(t, inner + 1);
    } else if (c == '.') {
        struct class_set s = {.negated = true};
        s.has['\n'] = !t->dot_all;
        put_class(t, &s);
    } else if (c == '*' || c == '+' || c == '?' || (c == '{' && repeat_counts(t, &times))) {
        translate_repeat(t, c, times);
    } else if (c == '|' || c == '^' || c == '$') {
        put(t, &c, 1);
        t->atom = false;
    } else {
        put_byte(t, (uint8_t)c);
        atom_done(t, 1);
    }
}

static enum npuc_status compile(struct k_call *c, const struct k_attr *pattern, regex_t *re)
{
    const int64_t room = 200 * pattern->len + 16; /* a class is the longest translation of one character */
    struct translation t = {.at = pattern->v.s, .end = pattern->v.s + pattern->len, .room = room};
    if (pattern->len > 1 << 16)
        return k_fail(c, NPUC_E_LIMIT, "the pattern has more than 65536 bytes");
    t.out = k_scratch(c, room, 1);
    if (!t.out)
        return k_no_memory(c);
    puts_to(&t, "");
    while (t.at < t.end && !t.fault)
        translate_one(&t);
    if (!t.fault && t.depth)
        t.fault = "a group has no end";
    if (t.fault)
        return k_fail(c, NPUC_E_UNSUPPORTED, "the pattern cannot be used: %s", t.fault);
    t.out[t.len] = 0;
    if (regcomp(re, t.out, REG_EXTENDED | (t.ignore_case ? REG_ICASE : 0)) != 0)
        return k_fail(c, NPUC_E_INVALID, "the pattern is no regular expression");
    return NPUC_OK;
}

static enum npuc_status match_all(struct k_call *c, const regex_t *re)
{
    const struct k_tensor *x = c->in[0];
    const struct k_string *s = x->data;
    bool *y = k_out(c, 0, DT_BOOL, x->rank, x->dims);
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0; i < k_count(x); i++) {
        regmatch_t m = {.rm_so = 0, .rm_eo = (regoff_t)s[i].len};
        if (s[i].len > INT32_MAX)
            return k_fail(c, NPUC_E_LIMIT, "a text of more than 2 GiB");
        /* POSIX finds the longest of the leftmost matches, so a full match is found when there is one. */
        y[i] = regexec(re, s[i].text, 1, &m, REG_STARTEND) == 0 && m.rm_so == 0 && m.rm_eo == (regoff_t)s[i].len;
    }
    return NPUC_OK;
}

enum npuc_status k_op_regex_full_match(struct k_call *c)
{
    const struct k_attr *pattern = k_attr_find(c, "pattern");
    if (!k_has(c, 1, 1) || c->in[0]->dtype != DT_STRING || !pattern || pattern->kind != K_ATTR_STRING)
        return k_fail(c, NPUC_E_INVALID, "it needs a tensor of strings and a pattern");
    regex_t re;
    const locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain)
        return k_fail(c, NPUC_E_NOMEM, "out of memory");
    const locale_t before = uselocale(plain);
    enum npuc_status s = compile(c, pattern, &re);
    if (s == NPUC_OK) {
        s = match_all(c, &re);
        regfree(&re);
    }
    uselocale(before);
    freelocale(plain);
    return s;
}
