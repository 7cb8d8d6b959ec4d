/* IR as text (docs/ir.md): printing, parsing, verification. print(parse(t)) == t for canonical t. */
#ifndef IR_TEXT_H
#define IR_TEXT_H

#include "ir/graph.h"

/* Appends to *out (in `a`). Blobs up to 64 bytes are inline, larger ones by hash and size. */
void ir_print(const struct module *m, struct arena *a, const char **text, int64_t *len);

/* Contents of the large blobs: the side file of a text. */
struct ir_blobs {
    const uint8_t *data; /* the file's bytes; blobs point into it */
    int64_t size;
    struct map by_hash; /* hash -> offset of the record */
};
/* The side file of a module: every large blob with data once. */
void ir_blobs_print(const struct module *m, struct arena *a, const uint8_t **data, int64_t *size);
NPUC_MUST_CHECK enum npuc_status ir_blobs_open(struct ir_ctx *cx, const uint8_t *data, int64_t size,
                                               struct ir_blobs *b);
/* The bytes with this hash and size, or NULL. */
const void *ir_blobs_find(const struct ir_blobs *b, uint64_t hash, int64_t size);

/* blobs may be NULL: large blobs are then declared without data. The text may go away after the call. */
NPUC_MUST_CHECK enum npuc_status ir_parse_with(struct ir_ctx *cx, const char *text, int64_t len,
                                               const struct ir_blobs *blobs, struct module **out);
NPUC_MUST_CHECK enum npuc_status ir_parse(struct ir_ctx *cx, const char *text, int64_t len, struct module **out);

/* Checks order, use lists both ways, arity, attribute kinds, infer(inputs) == stored types, region rules, layouts.
 * The message names `after` (a pass), node, input, expected, found. Status NPUC_E_INTERNAL on a finding. */
NPUC_MUST_CHECK enum npuc_status ir_verify(const struct module *m, const char *after);

#endif
