/* Integer expressions over named symbols: dimensions, loop bounds, addresses, guards.
 *
 * An expression is an id into a pool; equal values have equal ids as far as canonicalisation sees it. The normal
 * form is a sum of (coefficient x product of atoms), terms sorted; an atom is a symbol or one of the non-linear
 * operators below. So a+b == b+a, 2*(a+1) == 2*a+2, x-x == 0; ceil(8*x/4) == 2*x.
 * Semantics: 64-bit integers, floor division and modulus (sign of the divisor), as Python's // and %.
 * Overflow while folding constants, division by constant zero and expressions beyond EXPR_MAX_WEIGHT leave
 * EXPR_INVALID, and so does every operation on it; evaluation reports overflow. Simplification keeps the value wherever
 * the unsimplified form has one (x//x is 1). Symbol ranges are used: do not widen a range after use, narrowing is fine.
 * Constants beyond int64 never occur. Alternatives refused: opaque strings (no arithmetic), affine-only
 * forms (seq*heads and ceil(s/16)*16 are needed). */
#ifndef BASE_EXPR_H
#define BASE_EXPR_H

#include "base/str.h"

typedef int32_t expr; /* 0 is EXPR_INVALID */
#define EXPR_INVALID ((expr)0)

enum {
    EXPR_MAX_WEIGHT = 2048, /* nodes of an expression written as a tree; bounds time and recursion everywhere */
    EXPR_MAX_TERMS = 256,   /* terms of a sum */
    EXPR_MAX_DEGREE = 16    /* atoms of a product */
};

enum expr_op {
    EXPR_CONST,    /* value */
    EXPR_SYM,      /* symbol number */
    EXPR_SUM,      /* value + sum of coefficient[i] * term[i]; term: atom or EXPR_PROD */
    EXPR_PROD,     /* product of at least two atoms */
    EXPR_FLOORDIV, /* a // b */
    EXPR_MOD,      /* a % b */
    EXPR_MIN,
    EXPR_MAX,
    EXPR_EQ,
    EXPR_LT,
    EXPR_LE,    /* 0 or 1 */
    EXPR_SELECT /* a != 0 ? b : c */
};

struct expr_range {
    int64_t min, max; /* INT64_MIN / INT64_MAX: unknown */
    int64_t multiple; /* value is a multiple of this, >= 1 */
};
struct expr_symbol {
    sym name;
    struct expr_range range;
};
struct expr_node {
    uint8_t op;
    int32_t weight; /* nodes of the tree */
    int32_t n;      /* operands (SUM and PROD: any number, else 0..3) */
    int64_t value;  /* CONST, SYM; constant part of SUM */
    const expr *arg;
    const int64_t *coef;     /* SUM only, n of them */
    struct expr_range range; /* from the ranges of its operands; multiple 0: the value is 0 */
};
struct expr_pool {
    struct arena *arena;
    struct strtab *strings;
    VEC(struct expr_node) nodes; /* [0] is the invalid one */
    VEC(struct expr_symbol) symbols;
    struct map index; /* hash -> chain head */
    VEC(int32_t) chain;
    struct map by_name; /* sym -> symbol number */
    bool proving;       /* a proof is under way: simplification starts no other */
};

/* The arena must have on_oom set. */
void expr_pool_init(struct expr_pool *p, struct arena *a, struct strtab *strings);
int32_t expr_symbol_new(struct expr_pool *p, sym name,
                        struct expr_range r); /* symbol number; an existing name is found */
/* Narrows a symbol's range; what is known of existing expressions follows. */
void expr_symbol_narrow(struct expr_pool *p, int32_t symbol, struct expr_range r);
int32_t expr_symbol_find(const struct expr_pool *p, sym name); /* -1 when absent */

expr expr_const(struct expr_pool *p, int64_t v);
expr expr_sym(struct expr_pool *p, int32_t symbol);
expr expr_add(struct expr_pool *p, expr a, expr b);
expr expr_sub(struct expr_pool *p, expr a, expr b);
expr expr_mul(struct expr_pool *p, expr a, expr b);
expr expr_mul_const(struct expr_pool *p, expr a, int64_t c);
expr expr_floordiv(struct expr_pool *p, expr a, expr b);
expr expr_ceildiv(struct expr_pool *p, expr a, expr b); /* (a + b - 1) // b */
expr expr_mod(struct expr_pool *p, expr a, expr b);
expr expr_min(struct expr_pool *p, expr a, expr b);
expr expr_max(struct expr_pool *p, expr a, expr b);
expr expr_align(struct expr_pool *p, expr a, int64_t to);
expr expr_cmp(struct expr_pool *p, enum expr_op op, expr a, expr b); /* EQ, LT, LE */
expr expr_select(struct expr_pool *p, expr c, expr a, expr b);
expr expr_subst(struct expr_pool *p, expr e, const expr *by_symbol, int32_t n); /* symbol i -> by_symbol[i], if set */

/* The node as it is (operands are copied), for readers of stored pools: operands must exist, sums and products must
 * have the normal form's shape. EXPR_INVALID when too large. */
expr expr_intern(struct expr_pool *p, const struct expr_node *n);

bool expr_is_const(const struct expr_pool *p, expr e, int64_t *value);
static inline bool expr_is_one(const struct expr_pool *p, expr e)
{
    int64_t value;
    return expr_is_const(p, e, &value) && value == 1;
}
struct expr_range expr_range_of(const struct expr_pool *p, expr e); /* conservative */
/* a <= b for all symbol values in range? true = proven. */
bool expr_proves_le(struct expr_pool *p, expr a, expr b);
bool expr_divisible(const struct expr_pool *p, expr e, int64_t by); /* proven */
bool expr_uses_symbol(const struct expr_pool *p, expr e, int32_t symbol);

/* Value with symbol i = values[i]; false on overflow or division by zero. */
NPUC_MUST_CHECK bool expr_eval(const struct expr_pool *p, expr e, const int64_t *values, int64_t *out);

/* Text: "past + seq", "2*seq*batch + 1", "(seq + 15)//16*16", "min(a, b)", "select(c, a, b)", "a < b".
 * Also read: max, mod(a, b), align(a, 16), floor(a/b), ceil(a/b) ("ceiling"; a/b alone must divide exactly), any case
 * of function names. A name is letters, digits, '_', '.', ':', '$' and '-' directly between name characters before a
 * letter (so "batch-size" is one name, "n-1" a difference), or any text in double quotes with str_escape's escapes.
 * Printing and parsing round-trip. The parser makes unknown names into symbols with range `fresh`; a text that is
 * no expression gives EXPR_INVALID (dim_param callers then use the whole text as one symbol name). */
const char *expr_text(const struct expr_pool *p, expr e, struct arena *a);
expr expr_parse(struct expr_pool *p, const char *text, int64_t len, struct expr_range fresh);

#endif
