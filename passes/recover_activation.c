/* Activations spelled out by exporters become one operator each.
 *
 *   %s = Sigmoid %x;  %y = Mul %x, %s                                          becomes  %y = Swish %x
 *   %s = Sigmoid (Mul %x, 1.702);  %y = Mul %x, %s                             becomes  %y = Swish %x {alpha=1.702}
 *   %y = 0.5 * x * (1 + Erf(x / sqrt 2))            in any order of factors    becomes  %y = Gelu %x
 *   %y = 0.5 * x * (1 + Tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))               becomes  %y = GeluTanh %x
 *
 * Requirements: (1) constants agree up to their rounding to f16, since exporters store them in the model's type; (2)
 * the result has the type of x: no constant widens it; (3) every rewrite replaces the last Mul of a pattern by an
 * operator of no pattern, so it terminates. The formulas are those of kernels/formula.def; factors in another order,
 * and intermediate results in 16 bits, round differently in the last bit. Left alone: an activation multiplied by
 * something else before its own factor 0.5 comes in. */
#include "passes/match.h"

static const double sqrt_half = 0.70710678118654752, sqrt_2_by_pi = 0.79788456080286536, cubic = 0.044715;

struct activation {
    enum op op;
    struct value *x;
    double alpha; /* of Swish */
};

/* The value t with v = 1 + t, where t is the result of `op`; its operand. */
static struct value *one_plus(const struct value *v, enum op op)
{
    struct value *t;
    double one;
    const struct node *n = match_with_scalar(v, OP_Add, &t, &one) && one == 1.0 ? match_def(t, op) : NULL;
    return n ? node_in(n, 0) : NULL;
}

/* Swish: x * sigmoid(alpha * x) */
static bool match_swish(struct node *n, struct activation *a)
{
    for (int i = 0; i < 2; i++) {
        struct value *x = node_in(n, i);
        const struct node *gate = match_def(node_in(n, 1 - i), OP_Sigmoid);
        struct value *arg = gate ? node_in(gate, 0) : NULL;
        a->alpha = 1.0;
        if (arg && arg != x)
            arg = match_scaled(arg, &a->alpha);
        if (arg && arg == x) {
            a->x = x;
            return true;
        }
    }
    return false;
}

/* x from sqrt(2/pi) * (x + 0.044715 * x^3) */
static struct value *tanh_argument(struct value *v)
{
    double scale;
    const struct node *sum = match_def(match_scaled(v, &scale), OP_Add);
    if (!sum || !match_near(scale, sqrt_2_by_pi))
        return NULL;
    for (int i = 0; i < 2; i++) {
        struct value *x = node_in(sum, i);
        struct factors f;
        if (match_factors(node_in(sum, 1 - i), x, &f) && match_near(f.c, cubic) && f.n == 3 && f.v[0] == x &&
            f.v[1] == x && f.v[2] == x)
            return x;
    }
    return NULL;
}

/* x from x / sqrt 2 */
static struct value *erf_argument(struct value *v)
{
    double scale;
    struct value *x = match_scaled(v, &scale);
    return match_near(scale, sqrt_half) ? x : NULL;
}

/* n = 0.5 * x * (1 + fn(..x..)): the factor with fn says what x is, then nothing else may be left. */
static bool match_gelu(struct node *n, struct activation *a, enum op fn, struct value *(*argument)(struct value *v))
{
    struct factors all;
    if (!match_factors(&n->out[0], NULL, &all) || !match_near(all.c, 0.5))
        return false;
    for (int i = 0; i < all.n; i++) {
        struct value *arg = one_plus(all.v[i], fn), *x = arg ? argument(arg) : NULL;
        struct factors f;
        if (!x || !match_factors(&n->out[0], x, &f) || f.n != 2 || !match_near(f.c, 0.5))
            continue;
        a->x = x;
        return (f.v[0] == x && f.v[1] == all.v[i]) || (f.v[1] == x && f.v[0] == all.v[i]);
    }
    return false;
}

static bool match_gelu_erf(struct node *n, struct activation *a)
{
    return match_gelu(n, a, OP_Erf, erf_argument);
}

static bool match_gelu_tanh(struct node *n, struct activation *a)
{
    return match_gelu(n, a, OP_Tanh, tanh_argument);
}

/* All patterns end in a Mul. */
static const struct {
    enum op op;
    bool (*match)(struct node *n, struct activation *a);
} rules[] = {
    {OP_Swish, match_swish},
    {OP_Gelu, match_gelu_erf},
    {OP_GeluTanh, match_gelu_tanh},
};

static bool match(struct node *n, struct activation *a)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++) {
        *a = (struct activation){.op = rules[i].op, .alpha = 1.0};
        if (rules[i].match(n, a) && a->x->type == n->out[0].type && dtype_is_float(a->x->type->dtype))
            return true;
    }
    return false;
}

enum npuc_status recover_activation(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct activation a;
        if (n->op != OP_Mul || !match(n, &a) || !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        struct node *made = ir_new(&b, a.op, 1, &a.x, 1);
        if (a.op == OP_Swish)
            ir_set_float(made, "alpha", (float)a.alpha);
        const enum npuc_status s = ir_infer(made);
        if (s != NPUC_OK)
            return s;
        pass_count(px, STAT_recover_activation_absorbed, match_replace(px, n, made));
        pass_count(px, STAT_recover_activation_recovered, 1);
    }
    return NPUC_OK;
}
