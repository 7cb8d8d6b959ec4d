/* The leaves of the parser: space, words, names, numbers, types, constant tensors, attribute values. */
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/text_priv.h"
#include "kernels/tensor.h"

bool parse_fail(struct parser *p, const char *fmt, ...)
{
    if (p->status != NPUC_OK)
        return false;
    int64_t line = 1, column = 1;
    for (int64_t i = 0; i < p->pos && i < p->len; i++) {
        column = p->text[i] == '\n' ? 1 : column + 1;
        line += p->text[i] == '\n';
    }
    char message[512];
    const int n = snprintf(message, sizeof message, "line %" PRId64 ", column %" PRId64 ": ", line, column);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message + n, sizeof message - (size_t)n, fmt, ap);
    va_end(ap);
    const struct diag_loc where = {.file = p->cx->file, .index = -1};
    p->status = diag_error_text(p->cx->diag, &where, D_IR_SYNTAX, message);
    return false;
}

/* Comments run from ';' to the end of the line. */
void parse_space(struct parser *p)
{
    while (p->pos < p->len) {
        const char c = p->text[p->pos];
        if (c == ';')
            while (p->pos < p->len && p->text[p->pos] != '\n')
                p->pos++;
        else if (c == ' ' || c == '\n' || c == '\t' || c == '\r')
            p->pos++;
        else
            return;
    }
}

char parse_peek(struct parser *p)
{
    parse_space(p);
    return p->pos < p->len ? p->text[p->pos] : '\0';
}

bool parse_accept(struct parser *p, const char *token)
{
    parse_space(p);
    const int64_t n = (int64_t)strlen(token);
    if (p->len - p->pos < n || memcmp(p->text + p->pos, token, (size_t)n) != 0)
        return false;
    if (isalpha((unsigned char)token[n - 1]) && p->pos + n < p->len && is_bare_char(p->text[p->pos + n]))
        return false;
    p->pos += n;
    return true;
}

bool parse_expect(struct parser *p, const char *token)
{
    if (parse_accept(p, token))
        return true;
    const char c = parse_peek(p);
    if (!c)
        return parse_fail(p, "expected '%s', found the end of the text", token);
    if (isprint((unsigned char)c))
        return parse_fail(p, "expected '%s', found '%c'", token, c);
    return parse_fail(p, "expected '%s', found byte 0x%02x", token, (unsigned)(unsigned char)c);
}

bool parse_word(struct parser *p, const char **word, int64_t *len)
{
    parse_space(p);
    *word = p->text + p->pos;
    const int64_t from = p->pos;
    while (p->pos < p->len && is_bare_char(p->text[p->pos]))
        p->pos++;
    *len = p->pos - from;
    return *len > 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One escaped character after the backslash. */
static bool parse_escape(struct parser *p, char *c)
{
    const char kind = p->pos < p->len ? p->text[p->pos++] : '\0';
    *c = kind;
    if (kind == 'n')
        *c = '\n';
    else if (kind == 'x' && p->len - p->pos >= 2 && hex_digit(p->text[p->pos]) >= 0 &&
             hex_digit(p->text[p->pos + 1]) >= 0) {
        *c = (char)(hex_digit(p->text[p->pos]) << 4 | hex_digit(p->text[p->pos + 1]));
        p->pos += 2;
    } else if (kind != '"' && kind != '\\')
        return parse_fail(p, "unknown escape in a string");
    return true;
}

bool parse_string(struct parser *p, sym *s)
{
    if (!parse_expect(p, "\""))
        return false;
    const struct arena_mark mark = arena_mark(&p->cx->scratch);
    VEC(char) out = {0};
    bool ok = true;
    while (ok && p->pos < p->len && p->text[p->pos] != '"' && p->text[p->pos] != '\n') {
        char c = p->text[p->pos++];
        if (c == '\\')
            ok = parse_escape(p, &c);
        if (ok)
            vec_push(&p->cx->scratch, &out, c);
    }
    if (ok && (p->pos == p->len || p->text[p->pos] != '"'))
        ok = parse_fail(p, "the string has no end on this line");
    p->pos++;
    if (ok)
        *s = str_intern(&p->cx->strings, out.len ? out.data : "", out.len);
    arena_release(&p->cx->scratch, mark);
    return ok;
}

bool parse_name(struct parser *p, sym *s)
{
    if (parse_peek(p) == '"')
        return parse_string(p, s);
    const char *word;
    int64_t len;
    if (!parse_word(p, &word, &len))
        return parse_fail(p, "expected a name");
    *s = str_intern(&p->cx->strings, word, len);
    return true;
}

/* The characters of a number, terminated, in `s`. */
static bool number_text(struct parser *p, const char *more, char s[64])
{
    parse_space(p);
    int n = 0;
    while (p->pos < p->len && n < 63 && (isdigit((unsigned char)p->text[p->pos]) || strchr(more, p->text[p->pos])) &&
           p->text[p->pos])
        s[n++] = p->text[p->pos++];
    s[n] = '\0';
    return n > 0 || parse_fail(p, "expected a number");
}

bool parse_int(struct parser *p, int64_t *v)
{
    char s[64], *end;
    if (!number_text(p, "-", s))
        return false;
    /* unsigned 64-bit constants wrap into the same bits */
    const unsigned long long u = strtoull(s, &end, 10);
    long long i;
    memcpy(&i, &u, sizeof i);
    *v = s[0] == '-' ? strtoll(s, NULL, 10) : (int64_t)i;
    return (*end == '\0' && s[0]) || parse_fail(p, "'%s' is not an integer", s);
}

static bool parse_double(struct parser *p, double *v)
{
    char s[64], *end;
    if (!number_text(p, "+-.einfa", s))
        return false;
    *v = strtod(s, &end);
    return *end == '\0' || parse_fail(p, "'%s' is not a number", s);
}

bool parse_float(struct parser *p, float *v)
{
    char s[64], *end;
    if (!number_text(p, "+-.einfa", s))
        return false;
    *v = strtof(s, &end);
    return *end == '\0' || parse_fail(p, "'%s' is not a number", s);
}

/* ---- types */

/* An expression up to a comma or the closing bracket `close` that is not within parentheses or quotes. */
static bool parse_dim(struct parser *p, char close, expr *e)
{
    parse_space(p);
    const int64_t from = p->pos;
    int depth = 0;
    for (; p->pos < p->len && p->text[p->pos] != '\n'; p->pos++) {
        const char c = p->text[p->pos];
        if (c == '"') {
            do
                p->pos += p->text[p->pos] == '\\' ? 2 : 1;
            while (p->pos < p->len && p->text[p->pos] != '"');
            continue;
        }
        if (depth == 0 && (c == ',' || c == close))
            break;
        depth += (c == '(') - (c == ')');
    }
    if (p->pos > p->len)
        p->pos = p->len;
    const struct expr_range fresh = {.min = 0, .max = INT64_MAX, .multiple = 1};
    *e = expr_parse(&p->cx->exprs, p->text + from, p->pos - from, fresh);
    if (*e == EXPR_INVALID)
        return parse_fail(p, "'%.*s' is not a size", (int)(p->pos - from < 100 ? p->pos - from : 100), p->text + from);
    return true;
}

/* [, page [, ring, window]] of a cache. */
static bool parse_pages(struct parser *p, struct layout *l)
{
    if (!parse_accept(p, ","))
        return true;
    if (!parse_int(p, &l->page))
        return false;
    return !parse_accept(p, ",") || (parse_int(p, &l->ring) && parse_expect(p, ",") && parse_int(p, &l->window));
}

static bool parse_layout(struct parser *p, struct layout *l)
{
    for (int k = LAYOUT_ND + 1; k < LAYOUT_COUNT; k++) {
        if (!parse_accept(p, layout_names[k]))
            continue;
        l->kind = (enum layout_kind)k;
        int64_t number = 0;
        if (k == LAYOUT_CACHE) {
            if (!parse_expect(p, "(") || !parse_int(p, &number) || !parse_expect(p, ",") ||
                !parse_dim(p, ')', &l->capacity) || !parse_pages(p, l) || !parse_expect(p, ")"))
                return false;
            l->axis = (int)number;
        } else if (k != LAYOUT_NHWC && parse_accept(p, "(")) {
            if (!parse_int(p, &number) || !parse_expect(p, ")"))
                return false;
            l->c0 = (int)number;
        }
        return true;
    }
    return true;
}

static bool parse_dtype(struct parser *p, enum dtype *t)
{
    const char *word;
    int64_t len;
    if (!parse_word(p, &word, &len))
        return parse_fail(p, "expected a type");
    *t = dtype_from_name(word, len);
    if (*t == DT_NONE && !(len == 3 && memcmp(word, "any", 3) == 0))
        return parse_fail(p, "unknown element type '%.*s'", (int)(len < 60 ? len : 60), word);
    return true;
}

static bool parse_quant(struct parser *p, struct quant *q)
{
    int64_t axis;
    if (!parse_expect(p, "(") || !parse_dtype(p, &q->scale_dtype) || !parse_expect(p, ",") || !parse_int(p, &axis) ||
        !parse_expect(p, ",") || !parse_int(p, &q->block))
        return false;
    q->axis = (int)axis;
    q->has_zero = parse_accept(p, ",") && parse_accept(p, "zero");
    return parse_expect(p, ")");
}

static bool parse_dims(struct parser *p, struct type *t, expr dims[IR_MAX_RANK])
{
    t->dims = dims;
    if (!parse_expect(p, "["))
        return false;
    if (parse_accept(p, "*")) {
        t->rank = -1;
        return parse_expect(p, "]");
    }
    while (parse_peek(p) != ']') {
        if (t->rank == IR_MAX_RANK)
            return parse_fail(p, "more than %d dimensions", IR_MAX_RANK);
        if (t->rank && !parse_expect(p, ","))
            return false;
        if (p->wrapped > 0 && parse_accept(p, "?"))
            dims[t->rank++] = EXPR_INVALID; /* elements of a sequence may differ */
        else if (!parse_dim(p, ']', &dims[t->rank++]))
            return false;
    }
    return parse_expect(p, "]");
}

static bool parse_wrapped(struct parser *p, enum type_kind kind, const struct type **t)
{
    if (++p->depth > IR_MAX_TYPE_NESTING)
        return parse_fail(p, "types are nested too deeply");
    struct type wrapped = {.kind = kind};
    p->wrapped++;
    if (!parse_type(p, &wrapped.elem) || !parse_expect(p, ")"))
        return false;
    p->wrapped--;
    p->depth--;
    *t = type_intern(p->cx, &wrapped);
    return true;
}

bool parse_type(struct parser *p, const struct type **t)
{
    if (parse_accept(p, "none")) {
        struct type none = {.kind = TYPE_NONE};
        const char *word;
        int64_t len;
        if (p->wrapped > 0 && parse_peek(p) != ')' &&
            (!parse_word(p, &word, &len) || !(none.dtype = dtype_from_name(word, len))))
            return parse_fail(p, "unknown element type");
        *t = type_intern(p->cx, &none);
        return true;
    }
    if (parse_accept(p, "seq("))
        return parse_wrapped(p, TYPE_SEQUENCE, t);
    if (parse_accept(p, "opt("))
        return parse_wrapped(p, TYPE_OPTIONAL, t);
    struct type parsed = {.kind = TYPE_TENSOR};
    expr dims[IR_MAX_RANK];
    if (!parse_dtype(p, &parsed.dtype) || !parse_dims(p, &parsed, dims) || !parse_layout(p, &parsed.layout))
        return false;
    struct quant quant = {0};
    if (parse_accept(p, "quant")) {
        if (!parse_quant(p, &quant))
            return false;
        parsed.quant = &quant;
    }
    *t = type_intern(p->cx, &parsed);
    return true;
}

/* ---- constant tensors */

static bool parse_strings_data(struct parser *p, int64_t count, struct blob *b)
{
    struct k_string *s = ARENA_ARRAY(&p->m->arena, struct k_string, count ? count : 1);
    for (int64_t i = 0; i < count; i++) {
        sym text;
        if ((i && !parse_expect(p, ",")) || !parse_string(p, &text))
            return false;
        s[i] = (struct k_string){str_text(&p->cx->strings, text), str_len(&p->cx->strings, text)};
    }
    b->data = s;
    b->size = count * (int64_t)sizeof *s;
    return parse_expect(p, "]");
}

static bool parse_elements(struct parser *p, const struct type *t, int64_t count, struct blob *b)
{
    if (t->dtype == DT_STRING)
        return parse_strings_data(p, count, b);
    if (!dtype_bytes(t->dtype, count, &b->size) || b->size > IR_INLINE_BYTES)
        return parse_fail(p, "constants of more than %d bytes are not written in line", IR_INLINE_BYTES);
    struct k_tensor k = {.dtype = t->dtype, .rank = 1, .dims = {count}, .size = b->size};
    k.data = arena_zalloc(&p->m->arena, b->size + 1);
    b->data = k.data;
    for (int64_t i = 0; i < count; i++) {
        double real = 0;
        int64_t whole = 0;
        if (i && !parse_expect(p, ","))
            return false;
        if (dtype_is_float(t->dtype)) {
            if (!parse_double(p, &real))
                return false;
            k_set_f64(&k, i, real);
        } else {
            if (!parse_int(p, &whole))
                return false;
            k_set_i64(&k, i, whole);
        }
    }
    return parse_expect(p, "]");
}

/* x"00ff": raw bytes. */
static bool parse_hex(struct parser *p, struct blob *b)
{
    uint8_t *bytes = arena_zalloc(&p->m->arena, IR_INLINE_BYTES + 1);
    b->data = bytes;
    while (p->len - p->pos >= 2 && hex_digit(p->text[p->pos]) >= 0 && hex_digit(p->text[p->pos + 1]) >= 0) {
        if (b->size == IR_INLINE_BYTES)
            return parse_fail(p, "constants of more than %d bytes are not written in line", IR_INLINE_BYTES);
        bytes[b->size++] = (uint8_t)(hex_digit(p->text[p->pos]) << 4 | hex_digit(p->text[p->pos + 1]));
        p->pos += 2;
    }
    return parse_expect(p, "\"");
}

static bool parse_blob(struct parser *p, struct blob *b)
{
    const char *word;
    int64_t len;
    if (!parse_word(p, &word, &len))
        return parse_fail(p, "expected the hash of a blob or 'none'");
    char hash[17] = {0}, *end = hash;
    if (len == 16)
        memcpy(hash, word, 16);
    b->hash = strtoull(hash, &end, 16);
    if (!(len == 4 && memcmp(word, "none", 4) == 0) && (len != 16 || *end))
        return parse_fail(p, "'%.*s' is not a hash of 16 hexadecimal digits", (int)(len < 40 ? len : 40), word);
    if (!parse_expect(p, ",") || !parse_int(p, &b->size) || !parse_expect(p, ")"))
        return false;
    if (b->size < 0)
        return parse_fail(p, "a blob cannot have %" PRId64 " bytes", b->size);
    b->data = len == 16 ? ir_blobs_find(p->blobs, b->hash, b->size) : NULL;
    return true;
}

static bool check_size(struct parser *p, const struct type *t, int64_t count, const struct blob *b)
{
    int64_t need;
    if (t->dtype == DT_STRING || t->layout.kind != LAYOUT_ND)
        return true;
    if (!dtype_bytes(t->dtype, count, &need))
        return parse_fail(p, "the constant is too large");
    return b->size == need || parse_fail(p, "the constant has %" PRId64 " bytes, its type %" PRId64, b->size, need);
}

bool parse_tensor(struct parser *p, struct attr *a)
{
    struct blob *b = ARENA_NEW(&p->m->arena, struct blob);
    const struct type *t;
    if (!parse_type(p, &t))
        return false;
    const int64_t count = type_const_count(p->cx, t);
    if (count < 0)
        return parse_fail(p, "a constant needs known sizes, found %s", type_text(p->cx, t));
    bool ok;
    if (parse_accept(p, "["))
        ok = (t->dtype != DT_STRING || count <= p->len) && parse_elements(p, t, count, b);
    else if (parse_accept(p, "x\""))
        ok = parse_hex(p, b);
    else
        ok = parse_expect(p, "blob(") && parse_blob(p, b);
    if (!ok || (parse_accept(p, "from") && !parse_string(p, &b->origin)))
        return parse_fail(p, "the constant is incomplete");
    *a = (struct attr){.kind = ATTR_TENSOR, .v.t = {t, b}};
    return check_size(p, t, count, b);
}

/* ---- attribute values */

static bool parse_list(struct parser *p, int kind, struct attr *a)
{
    VEC(int64_t) ints = {0};
    VEC(float) floats = {0};
    VEC(sym) strings = {0};
    struct arena *arena = &p->m->arena;
    if (!parse_expect(p, "["))
        return false;
    for (; parse_peek(p) != ']'; a->len++) {
        int64_t i = 0;
        float f = 0;
        sym s = 0;
        if (a->len && !parse_expect(p, ","))
            return false;
        if (!(kind == ATTR_INTS ? parse_int(p, &i) : kind == ATTR_FLOATS ? parse_float(p, &f) : parse_string(p, &s)))
            return false;
        vec_push(arena, &ints, i);
        vec_push(arena, &floats, f);
        vec_push(arena, &strings, s);
    }
    if (kind == ATTR_INTS)
        a->v.ints = ints.data;
    else if (kind == ATTR_FLOATS)
        a->v.floats = floats.data;
    else
        a->v.strings = strings.data;
    return parse_expect(p, "]");
}

bool parse_attr_value(struct parser *p, int kind, struct attr *a)
{
    *a = (struct attr){.kind = (enum attr_kind)kind};
    switch (kind) {
    case ATTR_INT: return parse_int(p, &a->v.i);
    case ATTR_FLOAT: return parse_float(p, &a->v.f);
    case ATTR_STRING: return parse_string(p, &a->v.s);
    case ATTR_INTS:
    case ATTR_FLOATS:
    case ATTR_STRINGS: return parse_list(p, kind, a);
    case ATTR_TENSOR: return parse_tensor(p, a);
    case ATTR_TYPE: return parse_type(p, &a->v.type);
    default: return parse_fail(p, "attribute of unknown kind");
    }
}
