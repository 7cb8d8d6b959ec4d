/* The table of rules and what the rules share. */
#include <string.h>

#include "frontend/rules.h"

static const struct rule {
    const char *domain, *op;
    int64_t from, to;
    rule_fn *fn;
} rules[] = {
#define RULE(domain, op, from, to, fn) {domain, op, from, to, rule_##fn},
#include "frontend/rules.def"
#undef RULE
};

bool rules_have(const char *domain, const char *op)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++)
        if (strcmp(rules[i].domain, domain) == 0 && strcmp(rules[i].op, op) == 0)
            return true;
    return false;
}

const char *rules_refusal(const char *domain, const char *op)
{
    static const struct {
        const char *domain, *op, *why;
    } refused[] = {
#define REFUSED(domain, op, why) {domain, op, why},
#include "frontend/refused.def"
#undef REFUSED
    };
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(refused); i++)
        if (strcmp(refused[i].domain, domain) == 0 && (*refused[i].op == '*' || strcmp(refused[i].op, op) == 0))
            return refused[i].why;
    return NULL;
}

enum npuc_status opset_apply(struct import *im, struct onode *n)
{
    const int64_t version = n->version ? n->version : 1; /* a domain that the model forgot to import */
    if (!n->domain && version < 6)
        onode_drop(im, n, "consumed_inputs"); /* an optimisation hint of the first opsets */
    enum npuc_status s = NPUC_OK;
    for (int64_t i = 0; s == NPUC_OK && !n->done && i < NPUC_ARRAY_LEN(rules); i++) {
        const struct rule *r = &rules[i];
        if (version >= r->from && version <= r->to && strcmp(r->op, sym_text(im, n->op)) == 0 &&
            strcmp(r->domain, sym_text(im, n->domain)) == 0)
            s = r->fn(im, n);
    }
    return s;
}

enum npuc_status onode_done(struct import *im, struct onode *n, struct value *v)
{
    if (!v)
        return im->cx->diag->first != NPUC_OK ? im->cx->diag->first : NPUC_E_INTERNAL;
    onode_bind(im, n, 0, v);
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i] && !map_find(&n->scope->names, n->out[i]))
            return onode_no_output(im, n, i);
    n->done = true;
    return NPUC_OK;
}

enum npuc_status onode_no_output(struct import *im, const struct onode *n, int i)
{
    return onode_fail(im, n, D_UNSUPPORTED, "output %d of %s is not supported", i, sym_text(im, n->op));
}

enum npuc_status onode_needs(struct import *im, const struct onode *n, int count)
{
    for (int i = 0; i < count; i++)
        if (!onode_in(n, i))
            return onode_fail(im, n, D_ARITY, "has %d inputs, required input %d is missing", n->n_in, i);
    return NPUC_OK;
}
