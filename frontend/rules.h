/* Rules that turn operators of any opset and dialect into core operators; the rows are in rules.def. */
#ifndef FRONTEND_RULES_H
#define FRONTEND_RULES_H

#include "frontend/priv.h"

typedef enum npuc_status rule_fn(struct import *im, struct onode *n);
bool rules_have(const char *domain, const char *op);
/* What to do about an operator that is known and refused (refused.def), or NULL. */
const char *rules_refusal(const char *domain, const char *op);

#define RULE(domain, op, from, to, fn) rule_fn rule_##fn;
#include "frontend/rules.def"
#undef RULE

/* Input i, or NULL. */
static inline struct value *onode_in(const struct onode *n, int i)
{
    return i < n->n_in ? n->in[i] : NULL;
}
static inline bool onode_wants(const struct onode *n, int i)
{
    return i < n->n_out && n->out[i];
}
/* Binds output 0 and ends the node; v NULL: an error was reported. */
enum npuc_status onode_done(struct import *im, struct onode *n, struct value *v);
/* Reports an output or input that the rule does not handle. */
enum npuc_status onode_no_output(struct import *im, const struct onode *n, int i);
enum npuc_status onode_needs(struct import *im, const struct onode *n, int count); /* first `count` inputs present? */

#endif
