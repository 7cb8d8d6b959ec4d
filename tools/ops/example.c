/* Example text to ONNX: a recursive descent over the text that writes the messages of onnx.proto as it goes. */
#include "tools/ops/example.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"

enum { MAX_DIMS = 8, MAX_INPUTS = 24 };

/* Fields of onnx.proto. */
enum {
    MODEL_IR_VERSION = 1,
    MODEL_GRAPH = 7,
    MODEL_OPSET = 8,
    OPSET_DOMAIN = 1,
    OPSET_VERSION = 2,
    GRAPH_NODE = 1,
    GRAPH_NAME = 2,
    GRAPH_INITIALIZER = 5,
    GRAPH_INPUT = 11,
    GRAPH_OUTPUT = 12,
    NODE_INPUT = 1,
    NODE_OUTPUT = 2,
    NODE_NAME = 3,
    NODE_OP = 4,
    NODE_ATTRIBUTE = 5,
    NODE_DOMAIN = 7,
    ATTR_NAME = 1,
    ATTR_FLOAT_VALUE = 2,
    ATTR_INT_VALUE = 3,
    ATTR_TEXT_VALUE = 4,
    ATTR_TENSOR_VALUE = 5,
    ATTR_GRAPH_VALUE = 6,
    ATTR_FLOAT_LIST = 7,
    ATTR_INT_LIST = 8,
    ATTR_TEXT_LIST = 9,
    ATTR_TYPE = 20,
    TENSOR_DIMS = 1,
    TENSOR_TYPE = 2,
    TENSOR_TEXT = 6,
    TENSOR_NAME = 8,
    TENSOR_RAW = 9,
    INFO_NAME = 1,
    INFO_TYPE = 2,
    TYPE_TENSOR = 1,
    TYPE_SEQUENCE = 4,
    TYPE_OPTIONAL = 9,
    WRAPPED_TYPE = 1,
    TENSOR_ELEM = 1,
    TENSOR_SHAPE = 2,
    SHAPE_DIM = 1,
    DIM_VALUE = 1,
    DIM_PARAM = 2
};
/* AttributeProto.AttributeType; a list is its element's number and 5. */
enum { KIND_FLOAT = 1, KIND_INT = 2, KIND_TEXT = 3, KIND_TENSOR = 4, KIND_GRAPH = 5, KIND_LIST = 5 };

struct reader {
    struct arena *arena;
    const char *at;
    enum dtype t;
    const char *why; /* the first error */
};
struct tensor {
    enum dtype dtype;
    int rank;
    const char *symbol[MAX_DIMS]; /* NULL: the size is dims[i] */
    int64_t dims[MAX_DIMS];
};

/* ---- reading ---- */

static bool fail(struct reader *r, const char *what)
{
    if (!r->why)
        r->why = arena_printf(r->arena, "%s expected before '%.24s'", what, r->at);
    return false;
}

static bool next_is(struct reader *r, char c)
{
    while (*r->at == ' ')
        r->at++;
    return *r->at == c;
}

static bool accept(struct reader *r, char c)
{
    if (!next_is(r, c))
        return false;
    r->at++;
    return true;
}

static bool expect(struct reader *r, char c)
{
    const char what[] = {'\'', c, '\'', '\0'};
    return accept(r, c) || fail(r, what);
}

static const char *word(struct reader *r)
{
    (void)next_is(r, ' ');
    const char *from = r->at;
    while (isalnum((unsigned char)*r->at) || *r->at == '_')
        r->at++;
    return arena_strndup(r->arena, from, r->at - from);
}

static enum dtype element_type(const struct reader *r, const char *name)
{
    return strcmp(name, "T") == 0 ? r->t : dtype_from_name(name, (int64_t)strlen(name));
}

static bool starts_number(struct reader *r)
{
    return next_is(r, '-') || isdigit((unsigned char)*r->at);
}

static double number(struct reader *r, bool *whole)
{
    char *end;
    const double v = strtod(r->at, &end);
    *whole = true;
    for (; r->at < end; r->at++)
        *whole = *whole && *r->at != '.' && *r->at != 'e';
    return v;
}

static bool read_tensor(struct reader *r, const char *dtype, struct tensor *t)
{
    *t = (struct tensor){.dtype = element_type(r, dtype)};
    if (t->dtype == DT_NONE)
        return fail(r, "an element type");
    if (!expect(r, '['))
        return false;
    for (bool whole; !next_is(r, ']') && t->rank < MAX_DIMS; t->rank++) {
        if (t->rank > 0 && !expect(r, ','))
            return false;
        if (starts_number(r))
            t->dims[t->rank] = (int64_t)number(r, &whole);
        else
            t->symbol[t->rank] = word(r);
    }
    return expect(r, ']');
}

/* ---- types ---- */

static void put_tensor_type(struct pb *w, const struct tensor *t)
{
    struct pb type = {.arena = w->arena}, shape = {.arena = w->arena};
    for (int i = 0; i < t->rank; i++) {
        struct pb dim = {.arena = w->arena};
        if (t->symbol[i])
            pb_text(&dim, DIM_PARAM, t->symbol[i]);
        else
            pb_int(&dim, DIM_VALUE, t->dims[i]);
        pb_message(&shape, SHAPE_DIM, &dim);
    }
    pb_int(&type, TENSOR_ELEM, dtype_table[t->dtype].onnx);
    pb_message(&type, TENSOR_SHAPE, &shape);
    pb_message(w, TYPE_TENSOR, &type);
}

/* The type that begins with `name`, which has been read; *t is its tensor. */
static bool put_type(struct reader *r, const char *name, struct pb *w, struct tensor *t)
{
    const int wrapper = strcmp(name, "seq") == 0 ? TYPE_SEQUENCE : strcmp(name, "opt") == 0 ? TYPE_OPTIONAL : 0;
    if (!wrapper) {
        if (!read_tensor(r, name, t))
            return false;
        put_tensor_type(w, t);
        return true;
    }
    struct pb inner = {.arena = w->arena}, outer = {.arena = w->arena};
    if (!expect(r, '(') || !put_type(r, word(r), &inner, t) || !expect(r, ')'))
        return false;
    pb_message(&outer, WRAPPED_TYPE, &inner);
    pb_message(w, wrapper, &outer);
    return true;
}

/* ---- constants ---- */

static void store(enum dtype t, double v, uint8_t *out)
{
    const float f = (float)v;
    const uint16_t half = t == DT_F16 ? half_f32_to_f16(f) : half_f32_to_bf16(f);
    const int64_t i = dtype_is_float(t) ? 0 : (int64_t)v;
    switch (t) {
    case DT_F32: memcpy(out, &f, sizeof f); break;
    case DT_F64: memcpy(out, &v, sizeof v); break;
    case DT_F16:
    case DT_BF16: memcpy(out, &half, sizeof half); break;
    default: memcpy(out, &i, (size_t)dtype_size(t) <= sizeof i ? (size_t)dtype_size(t) : 0); break;
    }
}

/* The elements behind "=": one for all or "{a,b,...}"; types of parts of a byte and small floats are zero. */
static bool read_elements(struct reader *r, enum dtype t, uint8_t *data, int64_t n)
{
    const bool list = accept(r, '{');
    bool whole;
    double v = 0;
    for (int64_t i = 0; i < n; i++) {
        if ((list || i == 0) && !starts_number(r))
            return fail(r, "a number");
        if (list || i == 0)
            v = number(r, &whole);
        store(t, v, data + i * dtype_size(t));
        if (list && i + 1 < n && !expect(r, ','))
            return false;
    }
    return !list || expect(r, '}');
}

static bool put_constant(struct reader *r, const struct tensor *t, const char *name, struct pb *w)
{
    int64_t n = 1, size;
    for (int i = 0; i < t->rank; i++) {
        n *= t->dims[i];
        pb_int(w, TENSOR_DIMS, t->dims[i]);
    }
    if (!dtype_bytes(t->dtype, n, &size))
        return fail(r, "a smaller tensor");
    uint8_t *data = arena_zalloc(r->arena, size + 8);
    if (n > 0 && !read_elements(r, t->dtype, data, n))
        return false;
    if (n == 0)
        (void)accept(r, '0');
    pb_int(w, TENSOR_TYPE, dtype_table[t->dtype].onnx);
    if (name)
        pb_text(w, TENSOR_NAME, name);
    for (int64_t i = 0; i < n && t->dtype == DT_STRING; i++)
        pb_text(w, TENSOR_TEXT, "");
    if (t->dtype != DT_STRING)
        pb_bytes(w, TENSOR_RAW, data, size);
    return true;
}

/* ---- operands ---- */

/* "type, type=constant, _" up to `stop`: inputs and initializers of graph g, named prefix0, prefix1, ... */
static bool put_operands(struct reader *r, char stop, char prefix, struct pb *g, const char *names[MAX_INPUTS], int *n)
{
    for (*n = 0; !next_is(r, stop) && *n < MAX_INPUTS; ++*n) {
        if (*n > 0 && !expect(r, ','))
            return false;
        names[*n] = "";
        const char *type = word(r);
        if (strcmp(type, "_") == 0)
            continue;
        names[*n] = arena_printf(r->arena, "%c%d", prefix, *n);
        struct pb info = {.arena = r->arena}, of = {.arena = r->arena}, constant = {.arena = r->arena};
        struct tensor t;
        if (!put_type(r, type, &of, &t))
            return false;
        if (accept(r, '=')) {
            if (!put_constant(r, &t, names[*n], &constant))
                return false;
            pb_message(g, GRAPH_INITIALIZER, &constant);
            continue;
        }
        pb_text(&info, INFO_NAME, names[*n]);
        pb_message(&info, INFO_TYPE, &of);
        pb_message(g, GRAPH_INPUT, &info);
    }
    return next_is(r, stop) || fail(r, "the end of the operands");
}

static void put_output(struct pb *g, const char *name)
{
    struct pb info = {.arena = g->arena};
    pb_text(&info, INFO_NAME, name);
    pb_message(g, GRAPH_OUTPUT, &info);
}

/* "type, type: Op(b0), Op(a0,b1)}" */
static bool put_body(struct reader *r, struct pb *g)
{
    const char *names[MAX_INPUTS];
    int n = 0;
    pb_text(g, GRAPH_NAME, "body");
    if (!put_operands(r, ':', 'b', g, names, &n) || !expect(r, ':'))
        return false;
    for (int i = 0; !next_is(r, '}'); i++) {
        struct pb node = {.arena = r->arena};
        if (i > 0 && !expect(r, ','))
            return false;
        pb_text(&node, NODE_OP, word(r));
        if (!expect(r, '('))
            return false;
        while (!next_is(r, ')')) {
            pb_text(&node, NODE_INPUT, word(r));
            if (!accept(r, ',') && !next_is(r, ')'))
                return fail(r, "','");
        }
        const char *result = arena_printf(r->arena, "r%d", i);
        pb_text(&node, NODE_OUTPUT, result);
        pb_message(g, GRAPH_NODE, &node);
        put_output(g, result);
        if (!expect(r, ')'))
            return false;
    }
    return expect(r, '}');
}

/* ---- attributes ---- */

/* A number or 'text' as the field of a single attribute, or of a list. */
static bool put_scalar(struct reader *r, struct pb *w, bool list, int *kind)
{
    if (accept(r, '\'')) {
        const char *from = r->at;
        while (*r->at && *r->at != '\'')
            r->at++;
        pb_bytes(w, list ? ATTR_TEXT_LIST : ATTR_TEXT_VALUE, from, r->at - from);
        *kind = KIND_TEXT;
        return expect(r, '\'');
    }
    if (!starts_number(r))
        return fail(r, "a number or text");
    bool whole;
    const double v = number(r, &whole);
    *kind = whole ? KIND_INT : KIND_FLOAT;
    if (whole)
        pb_int(w, list ? ATTR_INT_LIST : ATTR_INT_VALUE, (int64_t)v);
    else
        pb_float(w, list ? ATTR_FLOAT_LIST : ATTR_FLOAT_VALUE, (float)v);
    return true;
}

static bool put_list(struct reader *r, struct pb *w, int *kind)
{
    for (int i = 0; !next_is(r, ']'); i++)
        if ((i > 0 && !expect(r, ',')) || !put_scalar(r, w, true, kind))
            return false;
    *kind += KIND_LIST;
    return expect(r, ']');
}

/* A type: with dims it is a tensor, alone it is the number of the type. */
static bool put_typed(struct reader *r, struct pb *w, int *kind)
{
    const char *name = word(r);
    *kind = KIND_INT;
    if (!next_is(r, '[')) {
        if (element_type(r, name) == DT_NONE)
            return fail(r, "a value");
        pb_int(w, ATTR_INT_VALUE, dtype_table[element_type(r, name)].onnx);
        return true;
    }
    struct tensor t;
    struct pb constant = {.arena = r->arena};
    *kind = KIND_TENSOR;
    if (!read_tensor(r, name, &t) || !expect(r, '=') || !put_constant(r, &t, NULL, &constant))
        return false;
    pb_message(w, ATTR_TENSOR_VALUE, &constant);
    return true;
}

static bool put_value(struct reader *r, struct pb *w, int *kind)
{
    if (accept(r, '['))
        return put_list(r, w, kind);
    if (accept(r, '{')) {
        struct pb body = {.arena = r->arena};
        *kind = KIND_GRAPH;
        if (!put_body(r, &body))
            return false;
        pb_message(w, ATTR_GRAPH_VALUE, &body);
        return true;
    }
    if (isalpha((unsigned char)*r->at))
        return put_typed(r, w, kind);
    return put_scalar(r, w, false, kind);
}

static bool put_attributes(struct reader *r, struct pb *node)
{
    for (int i = 0; !next_is(r, '\0'); i++) {
        if (i > 0 && !expect(r, ','))
            return false;
        struct pb a = {.arena = r->arena};
        int kind = 0;
        pb_text(&a, ATTR_NAME, word(r));
        if (!expect(r, '=') || !put_value(r, &a, &kind))
            return false;
        pb_int(&a, ATTR_TYPE, kind);
        pb_message(node, NODE_ATTRIBUTE, &a);
    }
    return true;
}

/* ---- models ---- */

static void put_opset(struct pb *w, const char *domain, int version)
{
    struct pb o = {.arena = w->arena};
    pb_text(&o, OPSET_DOMAIN, domain);
    pb_int(&o, OPSET_VERSION, version);
    pb_message(w, MODEL_OPSET, &o);
}

bool example_model(const struct example *e, enum dtype t, int newest_opset, struct pb *out, const char **why)
{
    struct reader r = {.arena = out->arena, .at = e->inputs, .t = t};
    struct pb g = {.arena = r.arena}, node = {.arena = r.arena};
    const char *names[MAX_INPUTS];
    int n = 0;
    bool ok = put_operands(&r, '\0', 'a', &g, names, &n);
    for (int i = 0; i < n; i++)
        pb_text(&node, NODE_INPUT, names[i]);
    r.at = ok ? e->attrs : r.at;
    ok = ok && put_attributes(&r, &node);
    *why = r.why;
    pb_text(&node, NODE_NAME, "n");
    pb_text(&node, NODE_OP, e->op);
    pb_text(&node, NODE_DOMAIN, e->domain);
    for (int i = 0; i < e->n_out; i++) {
        const char *name = arena_printf(r.arena, "y%d", i);
        pb_text(&node, NODE_OUTPUT, name);
        put_output(&g, name);
    }
    pb_text(&g, GRAPH_NAME, "example");
    pb_message(&g, GRAPH_NODE, &node);
    pb_int(out, MODEL_IR_VERSION, 10);
    put_opset(out, "", !e->domain[0] && e->opset ? e->opset : newest_opset);
    if (e->domain[0])
        put_opset(out, e->domain, e->opset ? e->opset : 1);
    pb_message(out, MODEL_GRAPH, &g);
    return ok;
}

static bool is_of(const struct example *e, const char *domain, const char *op)
{
    return strcmp(e->domain, domain) == 0 && strcmp(e->op, op) == 0;
}

const struct example *example_find(const char *domain, const char *op, int *n)
{
    static const struct example examples[] = {
#define EXAMPLE(domain, op, opset, inputs, n_out, attrs) {domain, op, opset, inputs, n_out, attrs},
#include "tools/ops/examples.def"
#undef EXAMPLE
    };
    int64_t i = 0;
    while (i < NPUC_ARRAY_LEN(examples) && !is_of(&examples[i], domain, op))
        i++;
    for (*n = 0; i + *n < NPUC_ARRAY_LEN(examples) && is_of(&examples[i + *n], domain, op);)
        ++*n;
    return *n ? &examples[i] : NULL;
}
