/* Types from the file. A dim_param is read as an expression over symbols ("past + seq"); text that is none becomes one
 * symbol of its own. Sizes that the file leaves open are fresh symbols named after the value and axis. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "frontend/priv.h"

static const struct expr_range any_size = {0, INT32_MAX, 1};

/* A new symbol whose name is `text` with everything but letters, digits and underscores replaced. */
static expr symbol_named(struct import *im, const char *text, int64_t len)
{
    struct ir_ctx *cx = im->cx;
    char name[80];
    int64_t n = 0;
    if (len == 0 || isdigit((unsigned char)text[0]))
        name[n++] = '_';
    for (int64_t i = 0; i < len && n < 64; i++)
        name[n++] = isalnum((unsigned char)text[i]) ? text[i] : '_';
    const int64_t stem = n;
    sym s = str_intern(&cx->strings, name, n);
    for (int k = 2; expr_symbol_find(&cx->exprs, s) >= 0; k++) {
        const char *numbered = arena_printf(&im->tmp, "%.*s_%d", (int)stem, name, k);
        s = str_internz(&cx->strings, numbered);
    }
    return expr_sym(&cx->exprs, expr_symbol_new(&cx->exprs, s, any_size));
}

static bool is_open(const char *text, int64_t len)
{
    return len == 0 || (len == 1 && (*text == '?' || *text == '*')) ||
           (len >= 2 && text[0] == '-' && isdigit((unsigned char)text[1]));
}

static expr dim_from_text(struct import *im, sym text)
{
    const uint64_t *known = map_find(&im->dim_texts, text);
    if (known)
        return (expr)*known;
    struct ir_ctx *cx = im->cx;
    const int64_t len = str_len(&cx->strings, text);
    expr e = expr_parse(&cx->exprs, sym_text(im, text), len, any_size);
    int64_t value;
    if (e == EXPR_INVALID || (expr_is_const(&cx->exprs, e, &value) && value < 0))
        e = symbol_named(im, sym_text(im, text), len);
    map_put(&im->dim_texts, text, (uint64_t)e);
    return e;
}

static enum npuc_status dim_import(struct import *im, const Onnx__TensorShapeProto__Dimension *d, sym name, size_t axis,
                                   expr *out)
{
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && d->dim_value >= 0) {
        *out = expr_const(&im->cx->exprs, d->dim_value);
        return NPUC_OK;
    }
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM) {
        if (d->dim_param.len > IMPORT_MAX_DIM_TEXT)
            return name_fail(im, name, D_LIMIT, "dim %zu has a dim_param of %zu bytes, the limit is %d", axis,
                             d->dim_param.len, IMPORT_MAX_DIM_TEXT);
        const sym text = bytes_sym(im, d->dim_param);
        if (!is_open(sym_text(im, text), (int64_t)d->dim_param.len)) {
            *out = dim_from_text(im, text);
            return NPUC_OK;
        }
    }
    const char *fresh = arena_printf(&im->tmp, "%.40s_d%zu", name ? sym_text(im, name) : "dim", axis);
    *out = symbol_named(im, fresh, (int64_t)strlen(fresh));
    return NPUC_OK;
}

/* within: of elements of a sequence or optional, whose open sizes may differ from one to the next. */
static enum npuc_status tensor_type(struct import *im, const Onnx__TypeProto__Tensor *t, sym name, bool within,
                                    const struct type **out)
{
    const enum dtype dt = dtype_from_onnx(t->has_elem_type ? t->elem_type : 0);
    if (dt == DT_NONE)
        return name_fail(im, name, D_MODEL, "element type is %d, expected one of ONNX's element types (1 to 28)",
                         t->elem_type);
    if (!t->shape) {
        *out = type_tensor(im->cx, dt, -1, NULL);
        return NPUC_OK;
    }
    if (t->shape->n_dim > IR_MAX_RANK)
        return name_fail(im, name, D_LIMIT, "value has %zu dims, the limit is %d", t->shape->n_dim, IR_MAX_RANK);
    expr dims[IR_MAX_RANK];
    for (size_t i = 0; i < t->shape->n_dim; i++) {
        const enum npuc_status s = dim_import(im, t->shape->dim[i], name, i, &dims[i]);
        if (s != NPUC_OK)
            return s;
        int64_t size;
        if (within && !expr_is_const(&im->cx->exprs, dims[i], &size))
            dims[i] = EXPR_INVALID;
    }
    *out = type_tensor(im->cx, dt, (int)t->shape->n_dim, dims);
    return NPUC_OK;
}

enum npuc_status type_import(struct import *im, const Onnx__TypeProto *t, sym name, const struct type **out)
{
    *out = NULL;
    enum type_kind wrap[2 * IMPORT_MAX_DEPTH];
    int depth = 0;
    for (; t; depth++) {
        if (t->value_case == ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE) {
            wrap[depth] = TYPE_SEQUENCE;
            t = t->sequence_type->elem_type;
        } else if (t->value_case == ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE) {
            wrap[depth] = TYPE_OPTIONAL;
            t = t->optional_type->elem_type;
        } else {
            break;
        }
    }
    if (!t || t->value_case == ONNX__TYPE_PROTO__VALUE__NOT_SET)
        return NPUC_OK;
    if (t->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return name_fail(im, name, D_UNSUPPORTED,
                         "value is a map or sparse tensor; only tensors, sequences and optionals are supported");
    enum npuc_status s = tensor_type(im, t->tensor_type, name, depth > 0, out);
    while (s == NPUC_OK && *out && depth > 0)
        *out = type_intern(im->cx, &(struct type){.kind = wrap[--depth], .elem = *out});
    return s;
}

void type_fix_symbol(struct import *im, expr e, int64_t value)
{
    struct expr_pool *p = &im->cx->exprs;
    for (int64_t i = 0; i < p->symbols.len; i++) {
        const struct expr_range r = p->symbols.data[i].range;
        if (expr_sym(p, (int32_t)i) == e && r.min <= value && value <= r.max)
            expr_symbol_narrow(p, (int32_t)i, (struct expr_range){value, value, value > 0 ? value : 1});
    }
}

/* Is every symbol of e a whole dim of some input? Then binding the inputs tells its value. */
static bool is_bound(struct import *im, const struct graph *g, expr e)
{
    struct expr_pool *p = &im->cx->exprs;
    for (int32_t i = 0; i < (int32_t)p->symbols.len; i++) {
        if (!expr_uses_symbol(p, e, i))
            continue;
        const expr whole = expr_sym(p, i);
        bool found = false;
        for (int32_t k = 0; k < g->n_inputs && !found; k++)
            for (int d = 0; d < g->inputs[k]->type->rank && !found; d++)
                found = g->inputs[k]->type->dims[d] == whole;
        if (!found)
            return false;
    }
    return true;
}

void types_close_inputs(struct import *im, struct graph *g)
{
    for (int32_t k = 0; k < g->n_inputs; k++) {
        const struct type *t = g->inputs[k]->type;
        if (t->kind != TYPE_TENSOR || t->rank <= 0)
            continue;
        expr dims[IR_MAX_RANK];
        bool changed = false;
        for (int d = 0; d < t->rank; d++) {
            dims[d] = t->dims[d];
            if (is_bound(im, g, dims[d]))
                continue;
            const char *text = expr_text(&im->cx->exprs, dims[d], &im->tmp);
            const sym key = str_internz(&im->cx->strings, arena_printf(&im->tmp, "%s as one", text));
            const uint64_t *known = map_find(&im->dim_texts, key);
            dims[d] = known ? (expr)*known : symbol_named(im, text, (int64_t)strlen(text));
            map_put(&im->dim_texts, key, (uint64_t)dims[d]);
            changed = true;
        }
        if (changed)
            g->inputs[k]->type = type_tensor(im->cx, t->dtype, t->rank, dims);
    }
}
