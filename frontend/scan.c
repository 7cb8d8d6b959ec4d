/* The bounded scan (scan.h). Two walks over the file by the same code: the first measures the skeleton, the second
 * writes it. Message lengths in the skeleton are varints of fixed width, so that they can be filled in afterwards.
 *
 * A known field number with another wire type is an unknown field, as in protobuf; unknown fields are dropped. Groups
 * are refused. A singular message that comes twice (protobuf would merge the two) is refused: no exporter writes that.
 */
#include "frontend/scan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "frontend/onnx.pb-c.h"

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_GROUP = 3, WIRE_GROUP_END = 4, WIRE_32 = 5 };
enum field_kind {
    F_INT,
    F_F32,
    F_TEXT /* short */,
    F_BYTES,
    F_MSG,
    F_INTS,
    F_F32S,
    F_F64S,
    F_TEXTS,
    F_BYTESS,
    F_MSGS,
    F_RAW
};

struct field {
    uint32_t number;
    enum field_kind kind;
    enum scan_msg child;
    const char *name;
};
#define FIELDS_END                                                                                                     \
    {                                                                                                                  \
        0, F_INT, SCAN_NONE, NULL                                                                                      \
    }

static const struct field model_fields[] = {{1, F_INT, 0, "ir_version"},
                                            {2, F_TEXT, 0, "producer_name"},
                                            {3, F_TEXT, 0, "producer_version"},
                                            {4, F_TEXT, 0, "domain"},
                                            {5, F_INT, 0, "model_version"},
                                            {7, F_MSG, SCAN_GRAPH, "graph"},
                                            {8, F_MSGS, SCAN_OPSET, "opset_import"},
                                            {25, F_MSGS, SCAN_FUNCTION, "functions"},
                                            FIELDS_END};
static const struct field opset_fields[] = {{1, F_TEXT, 0, "domain"}, {2, F_INT, 0, "version"}, FIELDS_END};
static const struct field graph_fields[] = {{1, F_MSGS, SCAN_NODE, "node"},
                                            {2, F_TEXT, 0, "name"},
                                            {5, F_MSGS, SCAN_TENSOR, "initializer"},
                                            {11, F_MSGS, SCAN_VALUE_INFO, "input"},
                                            {12, F_MSGS, SCAN_VALUE_INFO, "output"},
                                            {13, F_MSGS, SCAN_VALUE_INFO, "value_info"},
                                            {15, F_MSGS, SCAN_SPARSE, "sparse_initializer"},
                                            FIELDS_END};
static const struct field node_fields[] = {{1, F_TEXTS, 0, "input"},
                                           {2, F_TEXTS, 0, "output"},
                                           {3, F_TEXT, 0, "name"},
                                           {4, F_TEXT, 0, "op_type"},
                                           {5, F_MSGS, SCAN_ATTRIBUTE, "attribute"},
                                           {7, F_TEXT, 0, "domain"},
                                           {8, F_TEXT, 0, "overload"},
                                           FIELDS_END};
static const struct field attribute_fields[] = {{1, F_TEXT, 0, "name"},
                                                {2, F_F32, 0, "f"},
                                                {3, F_INT, 0, "i"},
                                                {4, F_BYTES, 0, "s"},
                                                {5, F_MSG, SCAN_TENSOR, "t"},
                                                {6, F_MSG, SCAN_GRAPH, "g"},
                                                {7, F_F32S, 0, "floats"},
                                                {8, F_INTS, 0, "ints"},
                                                {9, F_BYTESS, 0, "strings"},
                                                {10, F_MSGS, SCAN_TENSOR, "tensors"},
                                                {11, F_MSGS, SCAN_GRAPH, "graphs"},
                                                {14, F_MSG, SCAN_TYPE, "tp"},
                                                {15, F_MSGS, SCAN_TYPE, "type_protos"},
                                                {20, F_INT, 0, "type"},
                                                {21, F_TEXT, 0, "ref_attr_name"},
                                                {22, F_MSG, SCAN_SPARSE, "sparse_tensor"},
                                                {23, F_MSGS, SCAN_SPARSE, "sparse_tensors"},
                                                FIELDS_END};
static const struct field tensor_fields[] = {{1, F_INTS, 0, "dims"},
                                             {2, F_INT, 0, "data_type"},
                                             {3, F_MSG, SCAN_SEGMENT, "segment"},
                                             {4, F_F32S, 0, "float_data"},
                                             {5, F_INTS, 0, "int32_data"},
                                             {6, F_BYTESS, 0, "string_data"},
                                             {7, F_INTS, 0, "int64_data"},
                                             {8, F_TEXT, 0, "name"},
                                             {9, F_RAW, 0, "raw_data"},
                                             {10, F_F64S, 0, "double_data"},
                                             {11, F_INTS, 0, "uint64_data"},
                                             {13, F_MSGS, SCAN_ENTRY, "external_data"},
                                             {14, F_INT, 0, "data_location"},
                                             FIELDS_END};
static const struct field segment_fields[] = {{1, F_INT, 0, "begin"}, {2, F_INT, 0, "end"}, FIELDS_END};
static const struct field sparse_fields[] = {
    {1, F_MSG, SCAN_TENSOR, "values"}, {2, F_MSG, SCAN_TENSOR, "indices"}, {3, F_INTS, 0, "dims"}, FIELDS_END};
static const struct field entry_fields[] = {{1, F_BYTES, 0, "key"}, {2, F_BYTES, 0, "value"}, FIELDS_END};
static const struct field value_info_fields[] = {{1, F_TEXT, 0, "name"}, {2, F_MSG, SCAN_TYPE, "type"}, FIELDS_END};
static const struct field type_fields[] = {
    {1, F_MSG, SCAN_TYPE_TENSOR, "tensor_type"}, {4, F_MSG, SCAN_TYPE_LIST, "sequence_type"},
    {5, F_MSG, SCAN_TYPE_MAP, "map_type"},       {8, F_MSG, SCAN_TYPE_TENSOR, "sparse_tensor_type"},
    {9, F_MSG, SCAN_TYPE_LIST, "optional_type"}, FIELDS_END};
static const struct field type_tensor_fields[] = {
    {1, F_INT, 0, "elem_type"}, {2, F_MSG, SCAN_SHAPE, "shape"}, FIELDS_END};
static const struct field type_list_fields[] = {{1, F_MSG, SCAN_TYPE, "elem_type"}, FIELDS_END};
static const struct field type_map_fields[] = {
    {1, F_INT, 0, "key_type"}, {2, F_MSG, SCAN_TYPE, "value_type"}, FIELDS_END};
static const struct field shape_fields[] = {{1, F_MSGS, SCAN_DIM, "dim"}, FIELDS_END};
static const struct field dim_fields[] = {{1, F_INT, 0, "dim_value"}, {2, F_BYTES, 0, "dim_param"}, FIELDS_END};
static const struct field function_fields[] = {{1, F_TEXT, 0, "name"},
                                               {4, F_TEXTS, 0, "input"},
                                               {5, F_TEXTS, 0, "output"},
                                               {6, F_TEXTS, 0, "attribute"},
                                               {7, F_MSGS, SCAN_NODE, "node"},
                                               {9, F_MSGS, SCAN_OPSET, "opset_import"},
                                               {10, F_TEXT, 0, "domain"},
                                               {11, F_MSGS, SCAN_ATTRIBUTE, "attribute_proto"},
                                               {12, F_MSGS, SCAN_VALUE_INFO, "value_info"},
                                               {13, F_TEXT, 0, "overload"},
                                               FIELDS_END};

/* unpacked: size of protobuf-c's structure. */
static const struct msg_info {
    const char *name;
    const struct field *fields;
    int64_t unpacked;
} msg_table[SCAN_MSG_COUNT] = {
    [SCAN_MODEL] = {"ModelProto", model_fields, (int64_t)sizeof(Onnx__ModelProto)},
    [SCAN_OPSET] = {"OperatorSetIdProto", opset_fields, (int64_t)sizeof(Onnx__OperatorSetIdProto)},
    [SCAN_GRAPH] = {"GraphProto", graph_fields, (int64_t)sizeof(Onnx__GraphProto)},
    [SCAN_NODE] = {"NodeProto", node_fields, (int64_t)sizeof(Onnx__NodeProto)},
    [SCAN_ATTRIBUTE] = {"AttributeProto", attribute_fields, (int64_t)sizeof(Onnx__AttributeProto)},
    [SCAN_TENSOR] = {"TensorProto", tensor_fields, (int64_t)sizeof(Onnx__TensorProto)},
    [SCAN_SEGMENT] = {"Segment", segment_fields, (int64_t)sizeof(Onnx__TensorProto__Segment)},
    [SCAN_SPARSE] = {"SparseTensorProto", sparse_fields, (int64_t)sizeof(Onnx__SparseTensorProto)},
    [SCAN_ENTRY] = {"StringStringEntryProto", entry_fields, (int64_t)sizeof(Onnx__StringStringEntryProto)},
    [SCAN_VALUE_INFO] = {"ValueInfoProto", value_info_fields, (int64_t)sizeof(Onnx__ValueInfoProto)},
    [SCAN_TYPE] = {"TypeProto", type_fields, (int64_t)sizeof(Onnx__TypeProto)},
    [SCAN_TYPE_TENSOR] = {"TypeProto.Tensor", type_tensor_fields, (int64_t)sizeof(Onnx__TypeProto__Tensor)},
    [SCAN_TYPE_LIST] = {"TypeProto.Sequence", type_list_fields, (int64_t)sizeof(Onnx__TypeProto__Sequence)},
    [SCAN_TYPE_MAP] = {"TypeProto.Map", type_map_fields, (int64_t)sizeof(Onnx__TypeProto__Map)},
    [SCAN_SHAPE] = {"TensorShapeProto", shape_fields, (int64_t)sizeof(Onnx__TensorShapeProto)},
    [SCAN_DIM] = {"Dimension", dim_fields, (int64_t)sizeof(Onnx__TensorShapeProto__Dimension)},
    [SCAN_FUNCTION] = {"FunctionProto", function_fields, (int64_t)sizeof(Onnx__FunctionProto)},
};

#define MEMBER_COST      64      /* protobuf-c's record of a field while it reads a message, rounded up */
#define LENGTH_BYTES     5       /* width of the length varints in the skeleton: protobuf-c reads five */
#define RAW_OFFSET_FIELD 100000u /* raw_offset in onnx.proto; raw_size follows */

struct frame {
    enum scan_msg msg;
    int64_t end;     /* in the file */
    int64_t body_at; /* in the skeleton, behind the length */
    uint32_t seen;   /* singular message fields met, by row */
};
struct scan {
    const uint8_t *p;
    int64_t pos, tag_pos;
    uint8_t *out; /* NULL in the measuring walk */
    int64_t n_out, cap, cost;
    int depth; /* top of the stack */
    struct frame *stack;
    const struct scan_limits *limits;
    struct diag *d;
    const char *file;
    enum npuc_status status;
};

NPUC_PRINTF(2, 3) static bool broken(struct scan *s, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const struct diag_loc loc = {.file = s->file, .index = -1};
    s->status = diag_error(s->d, &loc, D_WIRE, (long long)s->tag_pos, text);
    return false;
}

NPUC_PRINTF(2, 3) static bool over_limit(struct scan *s, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const struct diag_loc loc = {.file = s->file, .index = -1};
    s->status = diag_error(s->d, &loc, D_WIRE_LIMIT, text);
    return false;
}

static bool spend(struct scan *s, int64_t size, const struct field *f)
{
    s->cost += size; /* far from overflow: each step adds at most a few times what the file holds */
    if (s->cost <= s->limits->max_unpacked)
        return true;
    return over_limit(s,
                      "the structure needs more than the limit of %" PRId64 " bytes of memory, at byte %" PRId64
                      " (field '%s' of %s)",
                      s->limits->max_unpacked, s->tag_pos, f->name, msg_table[s->stack[s->depth].msg].name);
}

static bool read_varint(struct scan *s, int64_t end, uint64_t *out)
{
    uint64_t v = 0;
    for (int i = 0; i < 10; i++) {
        if (s->pos >= end)
            return broken(s, "truncated varint");
        const uint8_t b = s->p[s->pos++];
        if (i == 9 && b > 1)
            return broken(s, "varint of more than 64 bits");
        v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (!(b & 0x80)) {
            *out = v;
            return true;
        }
    }
    return broken(s, "varint of more than 10 bytes");
}

static void put_bytes(struct scan *s, const void *p, int64_t n)
{
    if (s->out && n > 0 && n <= s->cap - s->n_out) /* a file that changes between the walks cannot write past the end */
        memcpy(s->out + s->n_out, p, (size_t)n);
    s->n_out += n;
}

static void put_varint(struct scan *s, uint64_t v)
{
    uint8_t b[10];
    int n = 0;
    do {
        b[n] = (uint8_t)(v & 0x7f);
        v >>= 7;
        b[n] |= v ? 0x80 : 0;
        n++;
    } while (v);
    put_bytes(s, b, n);
}

static void put_tag(struct scan *s, uint32_t field, enum wire w)
{
    put_varint(s, (uint64_t)field << 3 | (uint64_t)w);
}

static void put_length_at(struct scan *s, int64_t at, int64_t len)
{
    if (!s->out || s->n_out > s->cap)
        return;
    for (int i = 0; i < LENGTH_BYTES; i++)
        s->out[at + i] = (uint8_t)((len >> (7 * i) & 0x7f) | (i + 1 < LENGTH_BYTES ? 0x80 : 0));
}

/* Elements of a packed field; false when it is malformed. */
static bool count_packed(struct scan *s, const struct field *f, int64_t len, int64_t *n)
{
    if (f->kind != F_INTS) {
        const int64_t size = f->kind == F_F32S ? 4 : 8;
        *n = len / size;
        return len % size == 0 ||
               broken(s, "length %" PRId64 " of packed field '%s' is no multiple of %" PRId64, len, f->name, size);
    }
    int run = 0;
    *n = 0;
    for (int64_t i = 0; i < len; i++) {
        const bool more = (s->p[s->pos + i] & 0x80) != 0;
        if (++run > 10 || (run == 10 && s->p[s->pos + i] > 1))
            return broken(s, "varint of more than 64 bits in packed field '%s'", f->name);
        if (!more) {
            ++*n;
            run = 0;
        }
    }
    return run == 0 || broken(s, "truncated varint in packed field '%s'", f->name);
}

static bool open_message(struct scan *s, const struct field *f, int64_t len)
{
    struct frame *top = &s->stack[s->depth];
    if (f->kind == F_MSG) {
        const uint32_t bit = UINT32_C(1) << (f - msg_table[top->msg].fields);
        if (top->seen & bit)
            return broken(s, "field '%s' of %s is present twice", f->name, msg_table[top->msg].name);
        top->seen |= bit;
    }
    if (s->depth + 1 >= s->limits->max_depth)
        return over_limit(
            s, "nested too deep at byte %" PRId64 " (field '%s'): the limit is %" PRId64 " messages within messages",
            s->tag_pos, f->name, s->limits->max_depth);
    if (!spend(s, msg_table[f->child].unpacked + (f->kind == F_MSGS ? 8 : 0), f))
        return false;
    put_tag(s, f->number, WIRE_BYTES);
    s->n_out += LENGTH_BYTES;
    s->stack[++s->depth] = (struct frame){.msg = f->child, .end = s->pos + len, .body_at = s->n_out};
    return true;
}

static bool is_text(enum field_kind k)
{
    return k == F_TEXT || k == F_TEXTS;
}

/* A length-delimited field that the schema knows; s->pos is at its content. */
static bool take_bytes(struct scan *s, const struct field *f, int64_t len)
{
    if (f->kind == F_MSG || f->kind == F_MSGS)
        return open_message(s, f, len);
    if (f->kind == F_RAW) {
        put_tag(s, RAW_OFFSET_FIELD, WIRE_VARINT);
        put_varint(s, (uint64_t)s->pos);
        put_tag(s, RAW_OFFSET_FIELD + 1, WIRE_VARINT);
        put_varint(s, (uint64_t)len);
        s->pos += len;
        return true;
    }
    int64_t unpacked = len + 24;
    if (f->kind == F_INTS || f->kind == F_F32S || f->kind == F_F64S) {
        int64_t n;
        if (!count_packed(s, f, len, &n))
            return false;
        unpacked = 8 * n;
    } else if (is_text(f->kind) && len > SCAN_MAX_NAME) {
        return over_limit(s, "%s of %s at byte %" PRId64 " has a length of %" PRId64 " bytes, the limit is %d", f->name,
                          msg_table[s->stack[s->depth].msg].name, s->tag_pos, len, SCAN_MAX_NAME);
    }
    if (!spend(s, unpacked, f))
        return false;
    put_tag(s, f->number, WIRE_BYTES);
    put_varint(s, (uint64_t)len);
    put_bytes(s, s->p + s->pos, len);
    s->pos += len;
    return true;
}

static const struct field *find_field(enum scan_msg msg, uint64_t number)
{
    for (const struct field *f = msg_table[msg].fields; f->name; f++)
        if (f->number == number)
            return f;
    return NULL;
}

static bool fits_wire(const struct field *f, enum wire w)
{
    switch (f->kind) {
    case F_INT: return w == WIRE_VARINT;
    case F_F32: return w == WIRE_32;
    case F_INTS: return w == WIRE_VARINT || w == WIRE_BYTES;
    case F_F32S: return w == WIRE_32 || w == WIRE_BYTES;
    case F_F64S: return w == WIRE_64 || w == WIRE_BYTES;
    case F_TEXT:
    case F_BYTES:
    case F_MSG:
    case F_TEXTS:
    case F_BYTESS:
    case F_MSGS:
    case F_RAW: return w == WIRE_BYTES;
    }
    return false;
}

static bool take_varint(struct scan *s, const struct field *f)
{
    uint64_t v;
    if (!read_varint(s, s->stack[s->depth].end, &v))
        return false;
    if (f) {
        put_tag(s, f->number, WIRE_VARINT);
        put_varint(s, v);
    }
    return true;
}

static bool take_fixed(struct scan *s, const struct field *f, enum wire w)
{
    const int64_t size = w == WIRE_32 ? 4 : 8;
    if (!size_in(s->pos, size, s->stack[s->depth].end))
        return broken(s, "truncated number");
    if (f) {
        put_tag(s, f->number, w);
        put_bytes(s, s->p + s->pos, size);
    }
    s->pos += size;
    return true;
}

static bool take_delimited(struct scan *s, const struct field *f, uint64_t number)
{
    const struct frame *top = &s->stack[s->depth];
    uint64_t len;
    if (!read_varint(s, top->end, &len))
        return false;
    if (len > INT64_MAX || !size_in(s->pos, (int64_t)len, top->end))
        return broken(
            s, "length %" PRIu64 " of field %" PRIu64 " (%s) of %s runs past the end, %" PRId64 " bytes are left", len,
            number, f ? f->name : "unknown", msg_table[top->msg].name, top->end - s->pos);
    if (f)
        return take_bytes(s, f, (int64_t)len);
    s->pos += (int64_t)len;
    return true;
}

static bool scan_field(struct scan *s)
{
    const struct frame *top = &s->stack[s->depth];
    s->tag_pos = s->pos;
    uint64_t tag;
    if (!read_varint(s, top->end, &tag))
        return false;
    const uint64_t number = tag >> 3;
    const enum wire w = (enum wire)(tag & 7);
    if (number == 0 || tag > UINT32_MAX)
        return broken(s, "field number %" PRIu64 " in %s", number, msg_table[top->msg].name);
    if (w == WIRE_GROUP || w == WIRE_GROUP_END || w > WIRE_32)
        return broken(s, "wire type %d of field %" PRIu64 " in %s", (int)w, number, msg_table[top->msg].name);
    const struct field *f = find_field(top->msg, number);
    if (f && !fits_wire(f, w))
        f = NULL;
    if (f && !spend(s, MEMBER_COST, f))
        return false;
    if (w == WIRE_VARINT)
        return take_varint(s, f);
    return w == WIRE_BYTES ? take_delimited(s, f, number) : take_fixed(s, f, w);
}

static bool walk(struct scan *s, enum scan_msg root, int64_t size)
{
    s->pos = s->n_out = s->cost = 0;
    s->depth = 0;
    s->stack[0] = (struct frame){.msg = root, .end = size};
    for (;;) {
        const struct frame *top = &s->stack[s->depth];
        if (s->pos < top->end) {
            if (!scan_field(s))
                return false;
        } else if (s->depth == 0) {
            return true;
        } else {
            put_length_at(s, top->body_at - LENGTH_BYTES, s->n_out - top->body_at);
            s->depth--;
        }
    }
}

enum npuc_status scan_message(const uint8_t *data, int64_t size, enum scan_msg root, const struct scan_limits *limits,
                              struct arena *a, struct diag *d, const char *file, struct scan_skeleton *out)
{
    struct frame stack[SCAN_MAX_DEPTH];
    NPUC_ASSERT(limits->max_depth <= SCAN_MAX_DEPTH);
    struct scan s = {.p = data, .stack = stack, .limits = limits, .d = d, .file = file};
    if (!walk(&s, root, size))
        return s.status;
    const int64_t need = s.n_out;
    s.out = arena_alloc(a, need ? need : 1, 1);
    s.cap = need;
    if (!s.out)
        return diag_error(d, NULL, D_HOST_MEMORY);
    if (!walk(&s, root, size))
        return s.status; /* the file changed while it was read */
    if (s.n_out != need) {
        s.tag_pos = 0;
        broken(&s, "the file changed while it was read");
        return s.status;
    }
    *out = (struct scan_skeleton){.data = s.out, .size = s.n_out, .unpacked = s.cost};
    return NPUC_OK;
}
