/* Printing: the least parentheses that the parser needs. Within a sum positive terms come first; within a product one
 * division or modulus comes first ("(seq + 15)//16*16"), since those bind to the left. */
#include "base/expr_priv.h"

#include <stdio.h>
#include <string.h>

enum level { LEVEL_COMPARE, LEVEL_SUM, LEVEL_PRODUCT, LEVEL_PRIMARY };

struct printer {
    const struct expr_pool *p;
    struct arena *arena;
    VEC(char) text;
};

static void put(struct printer *w, const char *s)
{
    for (; *s; s++)
        vec_push(w->arena, &w->text, *s);
}

static void put_magnitude(struct printer *w, int64_t v)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", v < 0 ? -(unsigned long long)v : (unsigned long long)v);
    put(w, digits);
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("_.:$", c));
}

/* Can the parser read this name bare? */
static bool is_plain_name(const char *s, int64_t len)
{
    if (len == 0 || !is_name_char(s[0]) || (s[0] >= '0' && s[0] <= '9'))
        return false;
    for (int64_t i = 1; i < len; i++) {
        const bool letter_next = i + 1 < len && is_name_char(s[i + 1]) && !(s[i + 1] >= '0' && s[i + 1] <= '9');
        if (!is_name_char(s[i]) && !(s[i] == '-' && letter_next))
            return false;
    }
    return true;
}

static void put_symbol(struct printer *w, int64_t symbol)
{
    const sym name = w->p->symbols.data[symbol].name;
    const char *s = str_text(w->p->strings, name);
    const int64_t len = str_len(w->p->strings, name);
    if (is_plain_name(s, len)) {
        put(w, s);
        return;
    }
    put(w, "\"");
    put(w, str_escape(w->arena, s, len, INT64_MAX - 1));
    put(w, "\"");
}

static void print(struct printer *w, expr e, enum level level);

static bool is_division(const struct expr_pool *p, expr atom)
{
    const enum expr_op op = (enum expr_op)expr_at(p, atom)->op;
    return op == EXPR_FLOORDIV || op == EXPR_MOD;
}

static void print_division(struct printer *w, expr e)
{
    const struct expr_node *n = expr_at(w->p, e);
    print(w, n->arg[0], LEVEL_PRODUCT);
    put(w, n->op == EXPR_FLOORDIV ? "//" : " % ");
    print(w, n->arg[1], LEVEL_PRIMARY);
}

/* |coef| * term, with `parens` around a leading division (after a minus sign, which binds tighter). */
static void print_term(struct printer *w, expr term, int64_t coef, bool parens)
{
    const expr *atoms;
    const int32_t n = term_atoms(w->p, &term, &atoms);
    const bool plain = coef == 1 || coef == -1;
    int32_t first = 0;
    while (first < n && !is_division(w->p, atoms[first]))
        first++;
    /* "x % 2*2" would be right, but nobody reads it so */
    parens = parens || (first < n && expr_at(w->p, atoms[first])->op == EXPR_MOD && (n > 1 || !plain));
    if (first < n) {
        put(w, parens ? "(" : "");
        print_division(w, atoms[first]);
        put(w, parens ? ")" : "");
    } else if (!plain) {
        put_magnitude(w, coef);
    }
    bool some = first < n || !plain;
    for (int32_t i = 0; i < n; i++) {
        if (i == first)
            continue;
        put(w, some ? "*" : "");
        print(w, atoms[i], LEVEL_PRIMARY);
        some = true;
    }
    if (first < n && !plain) {
        put(w, "*");
        put_magnitude(w, coef);
    }
}

static void print_terms(struct printer *w, const struct expr_node *n, bool negative, bool *some)
{
    for (int32_t i = 0; i < n->n; i++) {
        if ((n->coef[i] < 0) != negative)
            continue;
        if (negative)
            put(w, *some ? " - " : "-");
        else
            put(w, *some ? " + " : "");
        print_term(w, n->arg[i], n->coef[i], negative && !*some);
        *some = true;
    }
}

/* Positive terms, negative ones, the constant; "5 - x" when nothing else is positive. */
static void print_sum(struct printer *w, const struct expr_node *n)
{
    bool some = false;
    print_terms(w, n, false, &some);
    const bool leads = !some && n->value > 0;
    if (leads) {
        put_magnitude(w, n->value);
        some = true;
    }
    print_terms(w, n, true, &some);
    if (n->value && !leads) {
        put(w, n->value < 0 ? " - " : " + ");
        put_magnitude(w, n->value);
    }
}

static void print_call(struct printer *w, const char *name, const struct expr_node *n)
{
    put(w, name);
    for (int32_t i = 0; i < n->n; i++) {
        put(w, i ? ", " : "(");
        print(w, n->arg[i], LEVEL_COMPARE);
    }
    put(w, ")");
}

static void print_compare(struct printer *w, const struct expr_node *n)
{
    print(w, n->arg[0], LEVEL_SUM);
    put(w, n->op == EXPR_EQ ? " == " : n->op == EXPR_LT ? " < " : " <= ");
    print(w, n->arg[1], LEVEL_SUM);
}

static enum level level_of(const struct expr_node *n)
{
    switch ((enum expr_op)n->op) {
    case EXPR_CONST: return n->value < 0 ? LEVEL_SUM : LEVEL_PRIMARY;
    case EXPR_SUM: return n->n == 1 && n->value == 0 ? LEVEL_PRODUCT : LEVEL_SUM;
    case EXPR_PROD:
    case EXPR_FLOORDIV:
    case EXPR_MOD: return LEVEL_PRODUCT;
    case EXPR_EQ:
    case EXPR_LT:
    case EXPR_LE: return LEVEL_COMPARE;
    default: return LEVEL_PRIMARY;
    }
}

static void print_bare(struct printer *w, expr e)
{
    const struct expr_node *n = expr_at(w->p, e);
    switch ((enum expr_op)n->op) {
    case EXPR_CONST:
        put(w, n->value < 0 ? "-" : "");
        put_magnitude(w, n->value);
        break;
    case EXPR_SYM: put_symbol(w, n->value); break;
    case EXPR_SUM: print_sum(w, n); break;
    case EXPR_PROD:
    case EXPR_FLOORDIV:
    case EXPR_MOD: print_term(w, e, 1, false); break;
    case EXPR_MIN: print_call(w, "min", n); break;
    case EXPR_MAX: print_call(w, "max", n); break;
    case EXPR_SELECT: print_call(w, "select", n); break;
    default: print_compare(w, n); break;
    }
}

static void print(struct printer *w, expr e, enum level level)
{
    const bool parens = level_of(expr_at(w->p, e)) < level;
    put(w, parens ? "(" : "");
    print_bare(w, e);
    put(w, parens ? ")" : "");
}

const char *expr_text(const struct expr_pool *p, expr e, struct arena *a)
{
    if (!e)
        return "invalid";
    struct printer w = {.p = p, .arena = a};
    print(&w, e, LEVEL_COMPARE);
    vec_push(a, &w.text, 0);
    return w.text.data;
}
