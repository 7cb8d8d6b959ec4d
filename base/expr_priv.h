/* Inner parts of the expression engine: sums of products under construction, order, interning. */
#ifndef BASE_EXPR_PRIV_H
#define BASE_EXPR_PRIV_H

#include "base/expr.h"

/* A sum of coefficient * term + constant, terms in canonical order (greatest first). A term is an atom or an
 * EXPR_PROD. `bad` is sticky: overflow or too many terms. */
struct poly {
    int64_t constant;
    int32_t n;
    bool bad;
    expr term[EXPR_MAX_TERMS];
    int64_t coef[EXPR_MAX_TERMS];
};

static inline const struct expr_node *expr_at(const struct expr_pool *p, expr e)
{
    return &p->nodes.data[e];
}

/* expr.c */
expr expr_make(struct expr_pool *p, enum expr_op op, expr a, expr b); /* interns a binary node as it is */
int expr_compare_atoms(const struct expr_pool *p, expr a, expr b);    /* canonical order, independent of ids */
int expr_compare_terms(const struct expr_pool *p, expr a, expr b);    /* > 0: a is greater, comes first */

/* expr_poly.c */
void poly_from(const struct expr_pool *p, struct poly *y, expr e);
void poly_add_term(const struct expr_pool *p, struct poly *y, expr term, int64_t coef);
void poly_add(const struct expr_pool *p, struct poly *y, const struct poly *x, int64_t factor); /* y += factor * x */
void poly_add_product(struct expr_pool *p, struct poly *y, const struct poly *x, expr term,
                      int64_t coef); /* y += coef * term * x */
void poly_add_constant(struct poly *y, int64_t c);
expr poly_build(struct expr_pool *p, struct poly *y); /* simplifies y on the way */
expr poly_value(struct expr_pool *p, const struct poly *y);
int64_t poly_content(const struct poly *y);         /* gcd of the coefficients; 0 without terms */
void poly_divide_exact(struct poly *y, int64_t by); /* all coefficients and the constant */
int32_t term_atoms(const struct expr_pool *p, const expr *term, const expr **atoms); /* a single atom is *term */
/* Term without one occurrence of the i-th atom; EXPR_INVALID for the empty product. */
expr term_without(struct expr_pool *p, expr term, int32_t i);
/* The term q with q * divisor == term; false when `divisor` is no factor. *q is EXPR_INVALID for 1. */
bool term_divide(struct expr_pool *p, expr term, expr divisor, expr *q);
expr expr_scaled_product(struct expr_pool *p, int64_t c, expr a, expr b); /* c*a*b; EXPR_INVALID operands count as 1 */

/* expr_prove.c */
/* e >= 0 for all symbol values in range, found within `steps`. */
bool expr_proves_nonneg(struct expr_pool *p, expr e, int32_t steps);
enum { EXPR_QUICK_PROOF = 12, EXPR_FULL_PROOF = 300 };

/* Integer helpers. */
int64_t expr_floor_div(int64_t a, int64_t b); /* b != 0, no overflow */
int64_t expr_floor_mod(int64_t a, int64_t b);

/* Range of a node whose operands are in the pool (and have theirs). */
struct expr_range expr_node_range(const struct expr_pool *p, const struct expr_node *n);

#endif
