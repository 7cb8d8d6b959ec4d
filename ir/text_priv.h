/* Pieces of the text form shared by the printer's files and by the parser's. */
#ifndef IR_TEXT_PRIV_H
#define IR_TEXT_PRIV_H

#include "ir/text.h"

#define IR_INLINE_BYTES     64 /* larger constants are printed by hash */
#define IR_MAX_NESTING      64 /* bodies within bodies */
#define IR_MAX_TYPE_NESTING 8

struct text {
    struct arena *a;
    VEC(char) buf;
};
void text_put(struct text *t, const char *s);
void text_printf(struct text *t, const char *fmt, ...) NPUC_PRINTF(2, 3);
void text_string(struct text *t, const char *s, int64_t len);   /* in quotes, escaped */
void text_name(struct text *t, const struct ir_ctx *cx, sym s); /* bare where possible, else in quotes */
void text_float(struct text *t, float f);
void text_type(struct text *t, const struct ir_ctx *cx, const struct type *type);
void text_tensor(struct text *t, const struct ir_ctx *cx, const struct type *type, const struct blob *b);
static inline bool is_bare_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}
extern const char *const layout_names[LAYOUT_COUNT];
extern const char *const place_names[4];

/* A parser works on characters; the first error is reported and stops it. */
struct parser {
    struct ir_ctx *cx;
    struct module *m;
    const char *text;
    int64_t len, pos;
    const struct ir_blobs *blobs;
    enum npuc_status status; /* NPUC_OK until the first error */
    int depth;
    int wrapped; /* within how many seq( and opt( */
};
bool parse_fail(struct parser *p, const char *fmt, ...) NPUC_PRINTF(2, 3); /* always false */
void parse_space(struct parser *p);
char parse_peek(struct parser *p);                      /* next character after space, 0 at the end */
bool parse_accept(struct parser *p, const char *token); /* words are not split: "in" does not match "input" */
bool parse_expect(struct parser *p, const char *token);
bool parse_word(struct parser *p, const char **word, int64_t *len); /* false without an error when there is none */
bool parse_string(struct parser *p, sym *s);
bool parse_name(struct parser *p, sym *s); /* bare or in quotes */
bool parse_int(struct parser *p, int64_t *v);
bool parse_float(struct parser *p, float *v);
bool parse_type(struct parser *p, const struct type **t);
bool parse_tensor(struct parser *p, struct attr *a);
bool parse_attr_value(struct parser *p, int kind, struct attr *a); /* all kinds but ATTR_GRAPH */

#endif
