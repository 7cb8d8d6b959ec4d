/* Recursive descent with bounded depth. Values are carried as numerator / denominator, so that floor(a/b) and
 * ceil(a/b) as sympy prints them are read; an inexact a/b anywhere else makes the text no expression. A first pass
 * without effects checks the syntax, so that a text that is no expression creates no symbols. */
#include "base/expr_priv.h"

#include <string.h>

enum { MAX_DEPTH = 64, MAX_TEXT = 1 << 20 };

struct ratio {
    expr num, den; /* den EXPR_INVALID: 1 */
};

struct parser {
    struct expr_pool *p;
    const char *at, *end;
    struct expr_range fresh;
    int depth;
    bool failed;
    bool checking; /* the first pass: nothing is built */
};

static struct ratio fail(struct parser *s)
{
    s->failed = true;
    return (struct ratio){EXPR_INVALID, EXPR_INVALID};
}

static struct ratio whole(struct parser *s, expr e)
{
    return e || s->checking ? (struct ratio){e, EXPR_INVALID} : fail(s);
}

static bool space_next(const struct parser *s)
{
    return s->at < s->end && (*s->at == ' ' || *s->at == '\t');
}

/* Takes `token` if it comes next. */
static bool take(struct parser *s, const char *token)
{
    const size_t len = strlen(token);
    while (space_next(s))
        s->at++;
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, token, len) != 0)
        return false;
    s->at += len;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("_.:$", c));
}

/* An expression whose value must be an integer: exact division or none. */
static expr integer(struct parser *s, struct ratio r)
{
    if (s->failed || s->checking)
        return EXPR_INVALID;
    if (!r.den)
        return r.num;
    int64_t by;
    if (expr_is_const(s->p, r.den, &by) && expr_divisible(s->p, r.num, by))
        return expr_floordiv(s->p, r.num, r.den);
    const expr rest = expr_mod(s->p, r.num, r.den);
    if (!expr_is_const(s->p, rest, &by) || by != 0)
        return fail(s).num;
    return expr_floordiv(s->p, r.num, r.den);
}

static struct ratio parse_compare(struct parser *s);
static struct ratio parse_unary(struct parser *s);

enum { FN_MIN, FN_MAX, FN_SELECT, FN_MOD, FN_ALIGN, FN_FLOOR, FN_CEIL };

static const struct {
    const char *name;
    int fn, n_args;
} functions[] = {
    {"min", FN_MIN, 2},     {"max", FN_MAX, 2},     {"select", FN_SELECT, 3}, {"mod", FN_MOD, 2},
    {"align", FN_ALIGN, 2}, {"floor", FN_FLOOR, 1}, {"ceil", FN_CEIL, 1},     {"ceiling", FN_CEIL, 1},
};

static bool same_ignoring_case(const char *a, int64_t len, const char *b)
{
    if ((int64_t)strlen(b) != len)
        return false;
    for (int64_t i = 0; i < len; i++)
        if ((a[i] | 0x20) != b[i])
            return false;
    return true;
}

static expr apply(struct parser *s, int fn, const struct ratio *arg, int n_args)
{
    struct expr_pool *p = s->p;
    expr x[3] = {0};
    if (s->checking || s->failed)
        return EXPR_INVALID;
    if (fn == FN_FLOOR || fn == FN_CEIL) {
        const expr den = arg[0].den ? arg[0].den : expr_const(p, 1);
        return fn == FN_FLOOR ? expr_floordiv(p, arg[0].num, den) : expr_ceildiv(p, arg[0].num, den);
    }
    for (int i = 0; i < n_args; i++)
        x[i] = integer(s, arg[i]);
    switch (fn) {
    case FN_MIN: return expr_min(p, x[0], x[1]);
    case FN_MAX: return expr_max(p, x[0], x[1]);
    case FN_SELECT: return expr_select(p, x[0], x[1], x[2]);
    case FN_MOD: return expr_mod(p, x[0], x[1]);
    default: return expr_mul(p, expr_ceildiv(p, x[0], x[1]), x[1]);
    }
}

static struct ratio parse_call(struct parser *s, const char *name, int64_t len)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(functions); i++) {
        if (!same_ignoring_case(name, len, functions[i].name))
            continue;
        struct ratio arg[3] = {{0}};
        for (int k = 0; k < functions[i].n_args; k++) {
            if (k && !take(s, ","))
                return fail(s);
            arg[k] = parse_compare(s);
            if (s->failed)
                return fail(s);
        }
        return take(s, ")") ? whole(s, apply(s, functions[i].fn, arg, functions[i].n_args)) : fail(s);
    }
    return fail(s);
}

static struct ratio symbol(struct parser *s, const char *name, int64_t len)
{
    if (s->checking || s->failed)
        return (struct ratio){0};
    const sym interned = str_intern(s->p->strings, name, len);
    return whole(s, expr_sym(s->p, expr_symbol_new(s->p, interned, s->fresh)));
}

static struct ratio parse_name(struct parser *s)
{
    const char *start = s->at;
    while (s->at < s->end) {
        const bool joins = *s->at == '-' && s->at + 1 < s->end && is_letter(s->at[1]);
        if (!is_letter(*s->at) && !is_digit(*s->at) && !joins)
            break;
        s->at++;
    }
    const int64_t len = s->at - start;
    if (take(s, "("))
        return parse_call(s, start, len);
    return symbol(s, start, len);
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte after a backslash; -1 when it is no escape. */
static int parse_escape(struct parser *s)
{
    static const char named[] = "n\nt\tr\r";
    if (s->at == s->end)
        return -1;
    const char c = *s->at++;
    const char *known = c ? strchr("ntr", c) : NULL;
    if (known)
        return strchr(named, c)[1];
    if (c == 'x' && s->end - s->at >= 2 && hex_value(s->at[0]) >= 0 && hex_value(s->at[1]) >= 0) {
        s->at += 2;
        return hex_value(s->at[-2]) * 16 + hex_value(s->at[-1]);
    }
    return c == '"' || c == '\'' || c == '\\' ? c : -1;
}

static struct ratio parse_quoted(struct parser *s)
{
    const char *close = s->at; /* past the closing quote */
    while (close < s->end && *close != '"')
        close += *close == '\\' && close + 1 < s->end ? 2 : 1;
    char *name = s->checking ? NULL : arena_alloc(s->p->arena, close - s->at, 1);
    int64_t len = 0;
    while (s->at < close) {
        const char c = *s->at++;
        const int byte = c == '\\' ? parse_escape(s) : (unsigned char)c;
        if (byte < 0)
            return fail(s);
        if (name)
            name[len] = (char)byte;
        len++;
    }
    return take(s, "\"") ? symbol(s, name, len) : fail(s);
}

static struct ratio parse_number(struct parser *s, bool negative)
{
    int64_t v = 0;
    for (; s->at < s->end && is_digit(*s->at); s->at++) {
        const int digit = *s->at - '0';
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, negative ? -digit : digit, &v))
            return fail(s);
    }
    if (s->at < s->end && (is_letter(*s->at)))
        return fail(s);
    return whole(s, s->checking ? EXPR_INVALID : expr_const(s->p, v));
}

static struct ratio parse_primary(struct parser *s)
{
    if (take(s, "(")) {
        const struct ratio r = parse_compare(s);
        return take(s, ")") ? r : fail(s);
    }
    if (take(s, "\""))
        return parse_quoted(s);
    if (s->at < s->end && is_digit(*s->at))
        return parse_number(s, false);
    if (s->at < s->end && is_letter(*s->at))
        return parse_name(s);
    return fail(s);
}

static struct ratio scale(struct parser *s, struct ratio r, int64_t by)
{
    if (s->checking || s->failed)
        return r;
    r.num = expr_mul_const(s->p, r.num, by);
    return r.num ? r : fail(s);
}

static struct ratio parse_unary(struct parser *s)
{
    if (++s->depth > MAX_DEPTH)
        return fail(s);
    struct ratio r;
    if (take(s, "-"))
        r = s->at < s->end && is_digit(*s->at) ? parse_number(s, true) : scale(s, parse_unary(s), -1);
    else
        r = parse_primary(s);
    s->depth--;
    return r;
}

static expr den_of(struct parser *s, struct ratio r)
{
    return r.den ? r.den : expr_const(s->p, 1);
}

static struct ratio ratio_make(struct parser *s, expr num, expr den)
{
    int64_t one;
    if (!num || !den)
        return fail(s);
    if (expr_is_const(s->p, den, &one) && one == 1)
        den = EXPR_INVALID;
    return (struct ratio){num, den};
}

static struct ratio multiply(struct parser *s, struct ratio a, struct ratio b, bool divide)
{
    if (s->checking || s->failed)
        return a;
    const expr b_num = divide ? den_of(s, b) : b.num, b_den = divide ? b.num : den_of(s, b);
    return ratio_make(s, expr_mul(s->p, a.num, b_num), expr_mul(s->p, den_of(s, a), b_den));
}

static struct ratio parse_product(struct parser *s)
{
    struct ratio r = parse_unary(s);
    while (!s->failed) {
        const bool floor = take(s, "//"), mod = !floor && take(s, "%");
        const bool divide = !floor && !mod && take(s, "/");
        if (!floor && !mod && !divide && !take(s, "*"))
            break;
        const struct ratio by = parse_unary(s);
        if (!floor && !mod) {
            r = multiply(s, r, by, divide);
            continue;
        }
        const expr a = integer(s, r), b = integer(s, by);
        if (!s->checking && !s->failed)
            r = whole(s, floor ? expr_floordiv(s->p, a, b) : expr_mod(s->p, a, b));
    }
    return r;
}

static struct ratio add(struct parser *s, struct ratio a, struct ratio b, bool negate)
{
    if (s->checking || s->failed)
        return a;
    const expr x = expr_mul(s->p, a.num, den_of(s, b)), y = expr_mul(s->p, b.num, den_of(s, a));
    const expr num = negate ? expr_sub(s->p, x, y) : expr_add(s->p, x, y);
    return ratio_make(s, num, expr_mul(s->p, den_of(s, a), den_of(s, b)));
}

static struct ratio parse_sum(struct parser *s)
{
    struct ratio r = parse_product(s);
    while (!s->failed) {
        const bool minus = take(s, "-");
        if (!minus && !take(s, "+"))
            break;
        r = add(s, r, parse_product(s), minus);
    }
    return r;
}

static const struct {
    const char *token; /* longer ones first */
    enum expr_op op;
    bool swap;
} comparisons[] = {
    {"==", EXPR_EQ, false}, {"<=", EXPR_LE, false}, {">=", EXPR_LE, true}, {"<", EXPR_LT, false}, {">", EXPR_LT, true},
};

static struct ratio parse_compare(struct parser *s)
{
    struct ratio r = parse_sum(s);
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(comparisons) && !s->failed; i++) {
        if (!take(s, comparisons[i].token))
            continue;
        const struct ratio other = parse_sum(s);
        const expr a = integer(s, r), b = integer(s, other);
        if (s->checking || s->failed)
            return r;
        return whole(s, comparisons[i].swap ? expr_cmp(s->p, comparisons[i].op, b, a)
                                            : expr_cmp(s->p, comparisons[i].op, a, b));
    }
    return r;
}

static expr parse_all(struct parser *s)
{
    const struct ratio r = parse_compare(s);
    (void)take(s, "");
    if (s->at != s->end)
        s->failed = true;
    const expr e = integer(s, r);
    return s->failed ? EXPR_INVALID : e;
}

expr expr_parse(struct expr_pool *p, const char *text, int64_t len, struct expr_range fresh)
{
    if (len <= 0 || len > MAX_TEXT)
        return EXPR_INVALID;
    struct parser check = {.p = p, .at = text, .end = text + len, .fresh = fresh, .checking = true};
    (void)parse_all(&check);
    if (check.failed)
        return EXPR_INVALID;
    const int64_t n_symbols = p->symbols.len;
    struct parser build = {.p = p, .at = text, .end = text + len, .fresh = fresh};
    const expr e = parse_all(&build);
    if (!e)
        p->symbols.len = n_symbols;
    return e;
}
