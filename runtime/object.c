/* Objects: values that are no tensor of numbers of known rank (text, sequences, optionals, any rank). An object is one
 * block of host memory with everything in it, owned by its tensor in the session; emulated GM never sees it. */
#include "runtime/rt.h"

#include "base/size.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NESTING = 8 }; /* sequences within optionals within ... */

/* Together; what a run keeps in lists must not take the machine down. */
#define OBJECTS_MAX  ((int64_t)16 << 30)
#define OBJECT_ALIGN 64

struct rt_object {
    struct k_tensor value;
    int64_t size; /* of the block, this header included */
};

bool rt_is_object(const npurt_session *s, int32_t tensor)
{
    return s->plan->tensors.data[tensor].kind == PT_OBJECT;
}

/* ---- one block for everything ---- */

static bool add(int64_t *total, int64_t n, int64_t size)
{
    int64_t bytes;
    return size_mul(n, size, &bytes) && bytes <= OBJECTS_MAX &&
           size_add(*total, size_align(bytes, OBJECT_ALIGN), total) && *total <= OBJECTS_MAX;
}

/* Bytes behind v; false when they are too many, or v is nested too deeply. */
static bool measure(const struct k_tensor *v, int depth, int64_t *total)
{
    const int64_t n = k_count(v);
    int64_t bytes;
    if (depth > MAX_NESTING)
        return false;
    if (v->kind != K_TENSOR) {
        bool fits = add(total, n, (int64_t)sizeof *v);
        for (int64_t i = 0; fits && i < n; i++)
            fits = measure((const struct k_tensor *)v->data + i, depth + 1, total);
        return fits;
    }
    if (v->dtype != DT_STRING)
        return dtype_bytes(v->dtype, n, &bytes) && add(total, bytes, 1);
    bool fits = add(total, n, (int64_t)sizeof(struct k_string));
    int64_t text = 0;
    for (int64_t i = 0; fits && i < n; i++)
        fits = size_add(text, ((const struct k_string *)v->data)[i].len, &text) && size_add(text, 1, &text);
    return fits && add(total, text, 1);
}

static void *take(uint8_t **at, int64_t size)
{
    void *p = *at;
    *at += size_align(size, OBJECT_ALIGN);
    return p;
}

static void copy_text(struct k_string *to, const struct k_string *from, int64_t n, uint8_t **at)
{
    uint8_t *text = *at;
    for (int64_t i = 0; i < n; i++) {
        to[i] = (struct k_string){(const char *)text, from[i].len};
        if (from[i].len)
            memcpy(text, from[i].text, (size_t)from[i].len);
        text[from[i].len] = 0;
        text += from[i].len + 1;
    }
    (void)take(at, text - *at);
}

static void copy(struct k_tensor *to, const struct k_tensor *from, uint8_t **at)
{
    const int64_t n = k_count(from);
    int64_t bytes = 0;
    *to = *from;
    if (from->kind != K_TENSOR) {
        to->size = n * (int64_t)sizeof *to;
        to->data = take(at, to->size);
        for (int64_t i = 0; i < n; i++)
            copy((struct k_tensor *)to->data + i, (const struct k_tensor *)from->data + i, at);
    } else if (from->dtype == DT_STRING) {
        to->size = n * (int64_t)sizeof(struct k_string);
        to->data = take(at, to->size);
        copy_text(to->data, from->data, n, at);
    } else if (dtype_bytes(from->dtype, n, &bytes)) {
        to->size = bytes;
        to->data = take(at, bytes);
        if (bytes)
            memcpy(to->data, from->data, (size_t)bytes);
    }
}

/* ---- does a value belong into an object of the plan? ---- */

static bool all_of_type(const struct k_tensor *v, enum dtype t, int depth)
{
    bool fits = depth <= MAX_NESTING;
    if (v->kind == K_TENSOR)
        return fits && v->dtype == t;
    for (int64_t i = 0; fits && i < k_count(v); i++)
        fits = all_of_type((const struct k_tensor *)v->data + i, t, depth + 1);
    return fits;
}

static bool has_dims(const npurt_session *s, const struct plan_tensor *t, const struct k_tensor *v)
{
    bool fits = v->rank == t->rank;
    for (int i = 0; fits && i < v->rank; i++) {
        int64_t dim;
        fits = !rt_value(s, t->dims[i], &dim) || dim == v->dims[i];
    }
    return fits;
}

/* sizes: those that are known count too. */
static enum npuc_status check_type(npurt_session *s, int32_t tensor, const struct k_tensor *v, bool sizes)
{
    static const enum k_kind kinds[] = {
        [PO_TENSOR] = K_TENSOR, [PO_ANY_RANK] = K_TENSOR, [PO_SEQUENCE] = K_SEQUENCE, [PO_OPTIONAL] = K_OPTIONAL};
    static const char *const names[] = {"a tensor", "a tensor", "a sequence", "an optional value"};
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    const bool kind = v->kind == kinds[t->axis] || t->axis == PO_OPTIONAL;
    if (kind && all_of_type(v, (enum dtype)t->dtype, 0) &&
        (t->axis != PO_TENSOR || (sizes ? has_dims(s, t, v) : v->rank == t->rank)))
        return NPUC_OK;
    const char *rank = t->axis == PO_TENSOR ? arena_printf(&s->scratch, " with %d dimensions", t->rank) : "";
    return rt_fail(s, sizes ? D_RUN_FAULT : D_INPUT_BINDING, "'%s' must be %s of type %s%s, its value is %s of type %s",
                   rt_name(s, t->name), names[t->axis], dtype_table[t->dtype].name, rank ? rank : "",
                   v->kind == K_TENSOR     ? "a tensor"
                   : v->kind == K_SEQUENCE ? "a sequence"
                                           : "an optional value",
                   dtype_table[v->dtype].name);
}

/* ---- reading and writing ---- */

static void drop(npurt_session *s, int32_t tensor)
{
    struct rt_tensor *r = &s->tensors[tensor];
    s->object_total -= r->object ? r->object->size : 0;
    free(r->object);
    r->object = NULL;
    r->size = 0;
}

static enum npuc_status store(npurt_session *s, int32_t tensor, const struct k_tensor *v, bool sizes)
{
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    struct rt_tensor *r = &s->tensors[tensor];
    struct k_tensor value = *v;
    if (t->axis == PO_OPTIONAL && v->kind != K_OPTIONAL) /* a value that is there */
        value = (struct k_tensor){.kind = K_OPTIONAL,
                                  .dtype = v->dtype,
                                  .rank = 1,
                                  .dims = {1},
                                  .data = (void *)(uintptr_t)v,
                                  .size = sizeof *v};
    int64_t size = size_align((int64_t)sizeof(struct rt_object), OBJECT_ALIGN);
    const int64_t header = size, before = r->object ? r->object->size : 0;
    const enum npuc_status st = check_type(s, tensor, &value, sizes);
    if (st != NPUC_OK)
        return st;
    if (!measure(&value, 0, &size) || s->object_total - before + size > OBJECTS_MAX)
        return rt_fail(s, D_LIMIT, "'%s': sequences, text and optional values take more than %lld bytes",
                       rt_name(s, t->name), (long long)OBJECTS_MAX);
    struct rt_object *o = aligned_alloc(OBJECT_ALIGN, (size_t)size_align(size, OBJECT_ALIGN));
    if (!o)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory: %lld bytes", (long long)size);
    uint8_t *at = (uint8_t *)o + header;
    o->size = size;
    copy(&o->value, &value, &at);
    o->value.dtype = (enum dtype)t->dtype; /* of an empty optional nobody has said it */
    drop(s, tensor);
    s->object_total += size;
    r->object = o;
    r->size = size - header;
    r->known = true;
    return NPUC_OK;
}

enum npuc_status rt_object_write(npurt_session *s, int32_t tensor, const struct k_tensor *v)
{
    return store(s, tensor, v, true);
}

enum npuc_status rt_object_read(npurt_session *s, int32_t tensor, struct k_tensor *out)
{
    const struct rt_tensor *r = &s->tensors[tensor];
    if (!r->object)
        return rt_fail(s, D_RUN_FAULT, "'%s' has no value when it is needed",
                       rt_name(s, s->plan->tensors.data[tensor].name));
    *out = r->object->value;
    return NPUC_OK;
}

enum npuc_status rt_object_move(npurt_session *s, int32_t from, int32_t to)
{
    const struct plan_tensor *f = &s->plan->tensors.data[from], *t = &s->plan->tensors.data[to];
    struct rt_tensor *rf = &s->tensors[from], *rt = &s->tensors[to];
    if (from == to)
        return NPUC_OK;
    if (!rf->object || f->axis != t->axis || f->dtype != t->dtype || t->axis == PO_TENSOR)
        return rf->object ? rt_object_write(s, to, &rf->object->value)
                          : rt_fail(s, D_RUN_FAULT, "'%s' has no value when it is needed", rt_name(s, f->name));
    drop(s, to);
    rt->object = rf->object;
    rt->size = rf->size;
    rt->known = true;
    rf->object = NULL;
    rf->size = 0;
    return NPUC_OK;
}

void rt_objects_free(npurt_session *s)
{
    for (int64_t i = 0; s->tensors && i < s->plan->tensors.len; i++)
        free(s->tensors[i].object);
}

/* ---- the user's view ---- */

_Static_assert(sizeof(struct npurt_string) == sizeof(struct k_string), "text is handed over as it is");
_Static_assert(offsetof(struct npurt_string, size) == offsetof(struct k_string, len), "text is handed over as it is");

/* Takes v apart into k_tensors over the user's bytes; NULL when it makes no sense. */
static const char *from_user(npurt_session *s, const struct npurt_tensor *v, int depth, struct k_tensor *out)
{
    int64_t n = 1;
    *out = (struct k_tensor){.dtype = dtype_from_onnx(v->dtype), .rank = v->rank};
    if (depth > MAX_NESTING || v->kind < NPURT_TENSOR || v->kind > NPURT_OPTIONAL)
        return "is of an unknown kind";
    if (v->rank < 0 || v->rank > K_MAX_RANK || (v->kind != NPURT_TENSOR && v->rank != 1))
        return "has a rank that its kind cannot have";
    for (int i = 0; i < v->rank; i++) {
        out->dims[i] = v->dims[i];
        if (!size_mul(n, v->dims[i], &n) || n > (int64_t)1 << 40)
            return "has a size that makes no sense";
    }
    if (n > 0 && !v->data)
        return "has no data";
    out->data = (void *)(uintptr_t)v->data;
    if (v->kind == NPURT_TENSOR)
        return out->dtype == DT_NONE ? "has an unknown element type" : NULL;
    out->kind = v->kind == NPURT_SEQUENCE ? K_SEQUENCE : K_OPTIONAL;
    if (out->kind == K_OPTIONAL && n > 1)
        return "is an optional of more than one value";
    struct k_tensor *elements = ARENA_ARRAY(&s->scratch, struct k_tensor, n + 1);
    if (!elements)
        return "does not fit into host memory";
    out->data = elements;
    const char *fault = NULL;
    for (int64_t i = 0; !fault && i < n; i++)
        fault = from_user(s, (const struct npurt_tensor *)v->data + i, depth + 1, &elements[i]);
    return fault;
}

enum npuc_status rt_object_set(npurt_session *s, int input, const struct npurt_tensor *v)
{
    const int32_t tensor = s->entry->inputs[input];
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    struct k_tensor k;
    const char *fault = from_user(s, v, 0, &k);
    if (fault)
        return rt_fail(s, D_INPUT_BINDING, "input '%s' %s", rt_name(s, t->name), fault);
    const enum npuc_status st = store(s, tensor, &k, false); /* sizes are compared when all inputs are there */
    if (st != NPUC_OK)
        return st;
    s->inputs[input] = (struct rt_input){
        .set = true, .dtype = (enum dtype)t->dtype, .rank = t->rank, .data = s->tensors[tensor].object};
    memcpy(s->inputs[input].dims, k.dims, sizeof s->inputs[input].dims);
    return NPUC_OK;
}

static bool to_user(npurt_session *s, const struct k_tensor *v, struct npurt_tensor *out)
{
    static const uint8_t nothing[8] = {0};
    *out = (struct npurt_tensor){.dtype = dtype_table[v->dtype].onnx,
                                 .rank = v->rank,
                                 .data = v->size ? v->data : nothing,
                                 .size = v->size,
                                 .kind = (int)v->kind};
    memcpy(out->dims, v->dims, (size_t)v->rank * sizeof *v->dims);
    if (v->kind == K_TENSOR)
        return true;
    const int64_t n = k_count(v);
    struct npurt_tensor *elements = ARENA_ARRAY(&s->views, struct npurt_tensor, n + 1);
    bool done = elements != NULL;
    for (int64_t i = 0; done && i < n; i++)
        done = to_user(s, (const struct k_tensor *)v->data + i, &elements[i]);
    out->data = elements;
    out->size = n * (int64_t)sizeof *elements;
    return done;
}

enum npuc_status rt_object_get(npurt_session *s, int32_t tensor, struct npurt_tensor *out)
{
    static const int kinds[] = {NPURT_TENSOR, NPURT_TENSOR, NPURT_SEQUENCE, NPURT_OPTIONAL};
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    struct k_tensor v;
    *out = (struct npurt_tensor){.dtype = dtype_table[t->dtype].onnx, .kind = kinds[t->axis]};
    if (!(s->mode & NPURT_DATA))
        return NPUC_OK;
    const enum npuc_status st = rt_object_read(s, tensor, &v);
    if (st != NPUC_OK)
        return st;
    arena_free(&s->views);
    return to_user(s, &v, out) ? NPUC_OK : rt_fail(s, D_HOST_MEMORY, "out of host memory");
}
