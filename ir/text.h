/* IR as text (docs/ir.md): printing, parsing, verification. print(parse(t)) == t for canonical t. */
#ifndef IR_TEXT_H
#define IR_TEXT_H

#include "ir/graph.h"

/* Appends to *out (in `a`). Blobs up to 64 bytes are inline, larger ones by hash and size. */
void ir_print(const struct module *m, struct arena *a, const char **text, int64_t *len);
NPUC_MUST_CHECK enum npuc_status ir_parse(struct ir_ctx *cx, const char *text, int64_t len, struct module **out);

/* Checks order, use lists both ways, arity, attribute kinds, infer(inputs) == stored types, region rules, layouts.
 * The message names `after` (a pass), node, input, expected, found. Status NPUC_E_INTERNAL on a finding. */
NPUC_MUST_CHECK enum npuc_status ir_verify(const struct module *m, const char *after);

#endif
