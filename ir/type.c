/* Interned types. A type is found by a hash of its parts and then by comparing them, so that equal types are one
 * object per context. */
#include "ir/type.h"

#include <string.h>

#include "ir/graph.h"

struct type_entry {
    struct type type; /* first: a pointer to it is a pointer to the entry */
    struct type_entry *next;
};

static bool quant_equal(const struct quant *a, const struct quant *b)
{
    if (!a || !b)
        return a == b;
    return a->scale_dtype == b->scale_dtype && a->axis == b->axis && a->block == b->block && a->has_zero == b->has_zero;
}

static bool type_equal(const struct type *a, const struct type *b)
{
    if (a->kind != b->kind || a->dtype != b->dtype || a->rank != b->rank || a->elem != b->elem)
        return false;
    if (a->layout.kind != b->layout.kind || a->layout.c0 != b->layout.c0 || a->layout.axis != b->layout.axis ||
        a->layout.capacity != b->layout.capacity || a->layout.page != b->layout.page ||
        a->layout.ring != b->layout.ring || a->layout.window != b->layout.window)
        return false;
    if (a->rank > 0 && memcmp(a->dims, b->dims, sizeof(expr) * (size_t)a->rank) != 0)
        return false;
    return quant_equal(a->quant, b->quant);
}

static uint64_t type_hash(const struct type *t)
{
    int64_t part[15 + IR_MAX_RANK] = {
        t->kind,        t->dtype,           t->rank,        t->layout.kind, t->layout.c0,
        t->layout.axis, t->layout.capacity, t->layout.page, t->layout.ring, t->layout.window};
    int64_t n = 10;
    if (t->quant) {
        part[n++] = t->quant->scale_dtype;
        part[n++] = t->quant->axis;
        part[n++] = t->quant->block;
    }
    if (t->elem)
        part[n++] = t->elem->kind * 64 + t->elem->dtype;
    for (int i = 0; i < t->rank; i++)
        part[n++] = t->dims[i];
    return map_hash_bytes(part, n * (int64_t)sizeof part[0]);
}

const struct type *type_intern(struct ir_ctx *cx, const struct type *t)
{
    NPUC_ASSERT(t->rank <= IR_MAX_RANK);
    const uint64_t hash = type_hash(t);
    const uint64_t *slot = map_find(&cx->types, hash);
    struct type_entry *chain = slot ? (struct type_entry *)(uintptr_t)*slot : NULL;
    for (struct type_entry *e = chain; e; e = e->next)
        if (type_equal(&e->type, t))
            return &e->type;
    struct type_entry *e = ARENA_NEW(&cx->arena, struct type_entry);
    e->type = *t;
    e->type.dims = NULL;
    if (t->rank > 0)
        e->type.dims = arena_copy(&cx->arena, t->dims, (int64_t)sizeof(expr) * t->rank);
    if (t->quant)
        e->type.quant = arena_copy(&cx->arena, t->quant, (int64_t)sizeof *t->quant);
    e->next = chain;
    map_put(&cx->types, hash, (uint64_t)(uintptr_t)e);
    vec_push(&cx->arena, &cx->type_list, &e->type);
    return &e->type;
}

const struct type *type_tensor(struct ir_ctx *cx, enum dtype t, int rank, const expr *dims)
{
    return type_intern(cx,
                       &(struct type){.kind = TYPE_TENSOR, .dtype = t, .rank = rank, .dims = rank > 0 ? dims : NULL});
}

const struct type *type_with_dtype(struct ir_ctx *cx, const struct type *t, enum dtype dt)
{
    struct type with = *t;
    with.dtype = dt;
    return type_intern(cx, &with);
}

const char *const layout_words[LAYOUT_COUNT] = {
    [LAYOUT_ND] = "ND",
    [LAYOUT_NZ] = "NZ",
    [LAYOUT_NZ_T] = "NZ_T",
    [LAYOUT_NC1HWC0] = "NC1HWC0",
    [LAYOUT_FRACTAL_Z] = "FRACTAL_Z",
    [LAYOUT_NHWC] = "NHWC",
    [LAYOUT_CACHE] = "CACHE",
};

/* Channels are the bytes of a map of one position, in whole blocks where there are any. */
static bool is_row_of_channels(const struct ir_ctx *cx, const struct type *t)
{
    int64_t size;
    if (t->rank < 3 ||
        (t->layout.kind != LAYOUT_ND && t->layout.kind != LAYOUT_NHWC && t->layout.kind != LAYOUT_NC1HWC0))
        return false;
    for (int i = 2; i < t->rank; i++)
        if (!expr_is_one(&cx->exprs, t->dims[i]))
            return false;
    return t->layout.kind != LAYOUT_NC1HWC0 ||
           (expr_is_const(&cx->exprs, t->dims[1], &size) && size % t->layout.c0 == 0);
}

bool type_same_dims(const struct type *a, const struct type *b)
{
    if (a->kind != TYPE_TENSOR || b->kind != TYPE_TENSOR || a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

bool type_lies_alike(const struct ir_ctx *cx, const struct type *a, const struct type *b)
{
    return a == b || (is_row_of_channels(cx, a) && is_row_of_channels(cx, b));
}

const struct type *type_with_layout(struct ir_ctx *cx, const struct type *t, struct layout l)
{
    struct type with = *t;
    with.layout = l;
    return type_intern(cx, &with);
}

const struct type *type_none(struct ir_ctx *cx)
{
    return type_intern(cx, &(struct type){.kind = TYPE_NONE});
}

/* Sizes that are no numbers may differ from one element to the next. */
static const struct type *type_opened(struct ir_ctx *cx, const struct type *t)
{
    expr dims[IR_MAX_RANK];
    int64_t size;
    if (t->kind != TYPE_TENSOR)
        return t;
    for (int i = 0; i < t->rank; i++)
        dims[i] = t->dims[i] && expr_is_const(&cx->exprs, t->dims[i], &size) ? t->dims[i] : EXPR_INVALID;
    return type_tensor(cx, t->dtype, t->rank, dims);
}

const struct type *type_join(struct ir_ctx *cx, const struct type *a, const struct type *b)
{
    if (a == b)
        return a;
    if (a->kind == TYPE_NONE || b->kind == TYPE_NONE)
        return a->dtype != b->dtype ? NULL : type_opened(cx, a->kind == TYPE_NONE ? b : a);
    if (a->kind != b->kind && (a->kind == TYPE_OPTIONAL || b->kind == TYPE_OPTIONAL)) {
        const struct type *opt = a->kind == TYPE_OPTIONAL ? a : b, *elem = type_join(cx, opt->elem, opt == a ? b : a);
        return elem ? type_intern(cx, &(struct type){.kind = TYPE_OPTIONAL, .elem = elem}) : NULL;
    }
    if (a->kind != b->kind)
        return NULL;
    if (a->kind != TYPE_TENSOR) {
        const struct type *elem = type_join(cx, a->elem, b->elem);
        return elem ? type_intern(cx, &(struct type){.kind = a->kind, .elem = elem}) : NULL;
    }
    expr dims[IR_MAX_RANK];
    if (a->dtype != b->dtype)
        return NULL;
    for (int i = 0; i < a->rank && a->rank == b->rank; i++)
        dims[i] = a->dims[i] == b->dims[i] ? a->dims[i] : EXPR_INVALID;
    return type_tensor(cx, a->dtype, a->rank == b->rank ? a->rank : -1, dims);
}

bool type_is_object(const struct type *t)
{
    return t->kind == TYPE_SEQUENCE || t->kind == TYPE_OPTIONAL ||
           (t->kind == TYPE_TENSOR && (t->rank < 0 || t->dtype == DT_STRING));
}

expr type_count(struct ir_ctx *cx, const struct type *t)
{
    if (t->kind != TYPE_TENSOR || t->rank < 0)
        return EXPR_INVALID;
    expr count = expr_const(&cx->exprs, 1);
    for (int i = 0; i < t->rank; i++)
        count = expr_mul(&cx->exprs, count, t->dims[i]);
    return count;
}

bool type_is_static(const struct ir_ctx *cx, const struct type *t)
{
    if (t->kind != TYPE_TENSOR || t->rank < 0)
        return false;
    int64_t dim;
    for (int i = 0; i < t->rank; i++)
        if (!expr_is_const(&cx->exprs, t->dims[i], &dim))
            return false;
    return true;
}

int64_t type_const_count(const struct ir_ctx *cx, const struct type *t)
{
    if (t->kind != TYPE_TENSOR || t->rank < 0)
        return -1;
    int64_t count = 1, dim;
    for (int i = 0; i < t->rank; i++)
        if (!expr_is_const(&cx->exprs, t->dims[i], &dim) || dim < 0 || __builtin_mul_overflow(count, dim, &count))
            return -1;
    return count;
}
