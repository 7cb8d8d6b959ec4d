/* Steps on the host: operator kernels and tensors of sizes. */
#include "runtime/rt.h"

#include "base/size.h"

#include <string.h>

/* ---- attributes: converted once per step, they live with the session ---- */

static const struct k_string *convert_strings(npurt_session *s, const struct plan_attr *a)
{
    struct k_string *out = ARENA_ARRAY(&s->arena, struct k_string, a->len + 1);
    for (int64_t i = 0; out && i < a->len; i++)
        out[i] = (struct k_string){str_text(&s->plan->strings, a->v.strings[i]),
                                   str_len(&s->plan->strings, a->v.strings[i])};
    return out;
}

static const struct k_tensor *convert_tensor(npurt_session *s, int32_t tensor)
{
    struct k_tensor *out = ARENA_NEW(&s->arena, struct k_tensor);
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    if (!out || !rt_dims(s, t, out->dims))
        return NULL;
    out->dtype = (enum dtype)t->dtype;
    out->rank = t->rank;
    out->data = s->tensors[tensor].data;
    out->size = s->tensors[tensor].size;
    return out;
}

static bool convert_attr(npurt_session *s, const struct plan_attr *a, struct k_attr *out)
{
    *out =
        (struct k_attr){.name = str_text(&s->plan->strings, a->name), .kind = (enum k_attr_kind)a->kind, .len = a->len};
    switch ((enum k_attr_kind)a->kind) {
    case K_ATTR_INT: out->v.i = a->v.i; return true;
    case K_ATTR_FLOAT: out->v.f = a->v.f; return true;
    case K_ATTR_STRING:
        out->v.s = str_text(&s->plan->strings, a->v.s);
        out->len = str_len(&s->plan->strings, a->v.s);
        return true;
    case K_ATTR_INTS: out->v.ints = a->v.ints; return true;
    case K_ATTR_FLOATS: out->v.floats = a->v.floats; return true;
    case K_ATTR_STRINGS: out->v.strings = convert_strings(s, a); return out->v.strings != NULL;
    case K_ATTR_TENSOR: out->v.tensor = convert_tensor(s, a->v.tensor); return out->v.tensor != NULL;
    }
    return false;
}

static const struct k_attr *attributes(npurt_session *s, const struct plan_step *step)
{
    const int64_t number = step - s->plan->steps.data;
    if (s->attrs[number])
        return s->attrs[number];
    struct k_attr *out = ARENA_ARRAY(&s->arena, struct k_attr, step->n_attrs + 1);
    for (int32_t i = 0; out && i < step->n_attrs; i++)
        if (!convert_attr(s, &step->attrs[i], &out[i]))
            return NULL;
    return s->attrs[number] = out;
}

/* ---- operands ---- */

enum npuc_status rt_operand(npurt_session *s, int32_t tensor, struct k_tensor *out)
{
    if (rt_is_object(s, tensor))
        return rt_object_read(s, tensor, out);
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    const struct rt_tensor *r = &s->tensors[tensor];
    if (!r->known && t->kind == PT_ALIAS) { /* a view whose place changed */
        const enum npuc_status st = rt_place_late(s, tensor);
        if (st != NPUC_OK)
            return st;
    }
    *out = (struct k_tensor){.dtype = (enum dtype)t->dtype, .rank = t->rank};
    const bool sized = rt_dims(s, t, out->dims);
    if (sized && !r->known && t->kind == PT_ALIAS)
        return rt_fail(s, D_RUN_FAULT, "'%s' does not have the sizes of the tensor that it views", rt_name(s, t->name));
    if (!sized || !r->known)
        return rt_fail(s, D_RUN_FAULT, "the shape of tensor '%s' is not known when it is needed", rt_name(s, t->name));
    if (!dtype_bytes(out->dtype, k_count(out), &out->size))
        return rt_fail(s, D_RUN_FAULT, "tensor '%s' has no size", rt_name(s, t->name));
    if (!rt_is_dense(s, tensor)) {
        out->data = arena_alloc(&s->scratch, out->size + 1, 64);
        return out->data ? rt_dense(s, tensor, out->data, true) : rt_fail(s, D_HOST_MEMORY, "out of host memory");
    }
    if (out->size > r->size || (!r->data && out->size > 0))
        return rt_fail(s, D_RUN_FAULT, "tensor '%s' %s", rt_name(s, t->name),
                       r->data ? "is larger than its storage" : "has no data in this plan");
    static uint8_t nothing[8];
    out->data = r->data ? r->data : nothing;
    return NPUC_OK;
}

/* Output storage that is known beforehand is offered to the kernel. */
static void offer_output(npurt_session *s, int32_t tensor, struct k_tensor *out)
{
    const struct rt_tensor *r = &s->tensors[tensor];
    *out = (struct k_tensor){.dtype = (enum dtype)s->plan->tensors.data[tensor].dtype};
    if (!r->known || !r->data || r->read_only || !rt_is_dense(s, tensor) || rt_is_object(s, tensor))
        return;
    out->data = r->data;
    out->size = r->size;
}

static enum npuc_status bind_symbols(npurt_session *s, const struct plan_step *step, const struct k_tensor *out)
{
    for (int32_t i = 0; i < step->n_binds; i++) {
        const int32_t *b = &step->binds[3 * i]; /* output, axis, symbol */
        if (b[0] >= step->n_out || b[1] >= out[b[0]].rank)
            return rt_fail(s, D_RUN_FAULT, "operator %s gives no dimension %d of output %d", rt_name(s, step->op), b[1],
                           b[0]);
        const enum npuc_status st =
            rt_rebind(s, b[2], out[b[0]].dims[b[1]], arena_printf(&s->scratch, "operator %s", rt_name(s, step->op)));
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

enum npuc_status rt_result(npurt_session *s, int32_t tensor, const struct k_tensor *out, const char *what)
{
    if (rt_is_object(s, tensor))
        return rt_object_write(s, tensor, out);
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    int64_t dims[NPURT_MAX_RANK];
    const enum npuc_status st = rt_place_late(s, tensor);
    if (st != NPUC_OK)
        return st;
    const struct rt_tensor *r = &s->tensors[tensor];
    if (!rt_dims(s, t, dims) || !r->known || out->kind != K_TENSOR || out->rank != t->rank ||
        out->dtype != (enum dtype)t->dtype)
        return rt_fail(s, D_RUN_FAULT, "%s gives another type than '%s' has", what, rt_name(s, t->name));
    for (int32_t i = 0; i < t->rank; i++)
        if (dims[i] != out->dims[i])
            return rt_fail(s, D_RUN_FAULT, "%s: axis %d of '%s' is %lld, expected %lld", what, i, rt_name(s, t->name),
                           (long long)out->dims[i], (long long)dims[i]);
    int64_t bytes;
    if (!dtype_bytes(out->dtype, k_count(out), &bytes) || r->read_only)
        return rt_fail(s, D_RUN_FAULT, "%s writes '%s', which may not be written", what, rt_name(s, t->name));
    if (!rt_is_dense(s, tensor))
        return rt_dense(s, tensor, out->data, false);
    if (bytes > r->size)
        return rt_fail(s, D_RUN_FAULT, "%s: '%s' needs %lld bytes and has %lld", what, rt_name(s, t->name),
                       (long long)bytes, (long long)r->size);
    if (out->data != r->data && bytes > 0)
        memcpy(r->data, out->data, (size_t)bytes);
    return NPUC_OK;
}

static enum npuc_status call(npurt_session *s, const struct plan_step *step, struct k_call *c, struct k_tensor *in)
{
    const struct k_op *op = k_op_find(c->op);
    const struct k_tensor **list = ARENA_ARRAY(&s->scratch, const struct k_tensor *, step->n_in + 1);
    if (!op || !list)
        return op ? rt_fail(s, D_HOST_MEMORY, "out of host memory")
                  : rt_fail(s, D_RUN_FAULT, "no host operator '%s'", rt_name(s, step->op));
    for (int32_t i = 0; i < step->n_in; i++) {
        if (step->tensors[i] < 0)
            continue;
        const enum npuc_status st = rt_operand(s, step->tensors[i], &in[i]);
        if (st != NPUC_OK)
            return st;
        list[i] = &in[i];
    }
    c->in = list;
    for (int32_t i = 0; i < step->n_out; i++)
        if (step->tensors[step->n_in + i] >= 0)
            offer_output(s, step->tensors[step->n_in + i], &c->out[i]);
    if (!k_op_takes(c->op, c->n_in, list))
        return rt_fail(s, D_RUN_FAULT,
                       "node '%s': operator %s takes no text, complex number, sequence or optional value",
                       rt_source(s, step), rt_name(s, step->op));
    const enum npuc_status st = op->fn(c);
    return st == NPUC_OK ? st
                         : rt_fail(s, st == NPUC_E_NOMEM ? D_HOST_MEMORY : D_RUN_FAULT, "node '%s' (%s): %s",
                                   rt_source(s, step), rt_name(s, step->op), c->error);
}

/* Elements of the largest operand whose size is known; 0 when there is none. */
static int64_t most_elements(const npurt_session *s, const struct plan_step *step)
{
    int64_t most = 0;
    for (int32_t i = 0; i < step->n_in; i++) {
        int64_t dims[NPURT_MAX_RANK], n = 1;
        const struct plan_tensor *t = step->tensors[i] < 0 ? NULL : &s->plan->tensors.data[step->tensors[i]];
        bool known = t && t->rank >= 0 && rt_dims(s, t, dims);
        for (int32_t d = 0; known && d < t->rank; d++)
            known = size_mul(n, dims[d], &n);
        most = known && n > most ? n : most;
    }
    return most;
}

/* The size assumed for the one dimension that an operator tells and nothing bounds: operators that select (NonZero,
 * Unique, NonMaxSuppression ...) give at most one result per element. */
static int64_t assumed_size(const npurt_session *s, const struct plan_step *step, const struct expr_symbol *y)
{
    const int64_t most = step->kind == PS_HOST && step->n_binds == 1 ? most_elements(s, step) : 0;
    return y->range.max >= INT32_MAX && most > 1 && most >= y->range.min ? most : y->range.max;
}

/* Without data the dimensions that this operator would tell are taken as large as they can be. */
enum npuc_status rt_assume(npurt_session *s, const struct plan_step *step)
{
    for (int32_t i = 0; i < step->n_binds; i++) {
        const struct expr_symbol *y = &s->plan->exprs.symbols.data[step->binds[3 * i + 2]];
        if (s->symbol_known[step->binds[3 * i + 2]])
            continue;
        const int64_t size = assumed_size(s, step, y);
        if (size == INT64_MAX)
            return rt_fail(s, D_INPUT_BINDING, "dimension %s depends on data and has no bound; give its value",
                           rt_name(s, y->name));
        const enum npuc_status st = rt_rebind(s, step->binds[3 * i + 2], size, "the largest size");
        if (st != NPUC_OK)
            return st;
    }
    for (int32_t i = 0; i < step->n_out; i++) {
        const enum npuc_status st =
            step->tensors[step->n_in + i] >= 0 ? rt_place_late(s, step->tensors[step->n_in + i]) : NPUC_OK;
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

enum npuc_status rt_host(npurt_session *s, const struct plan_step *step)
{
    if (!(s->mode & NPURT_DATA))
        return rt_assume(s, step);
    struct k_tensor *in = ARENA_ARRAY(&s->scratch, struct k_tensor, step->n_in + 1);
    struct k_tensor *out = ARENA_ARRAY(&s->scratch, struct k_tensor, step->n_out + 1);
    const struct k_attr *attrs = attributes(s, step);
    if (!in || !out || !attrs)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    struct k_call c = {.op = str_text(&s->plan->strings, step->op),
                       .n_in = step->n_in,
                       .out = out,
                       .n_out = step->n_out,
                       .attrs = attrs,
                       .n_attrs = step->n_attrs,
                       .arena = &s->scratch,
                       .pool = s->pool};
    enum npuc_status st = call(s, step, &c, in);
    if (st == NPUC_OK)
        st = bind_symbols(s, step, out);
    for (int32_t i = 0; st == NPUC_OK && i < step->n_out; i++)
        if (step->tensors[step->n_in + i] >= 0)
            st = rt_result(s, step->tensors[step->n_in + i], &out[i],
                           arena_printf(&s->scratch, "operator %s", rt_name(s, step->op)));
    return st;
}

/* Symbols from the elements of a tensor; places beyond 31 bits mean the same as the largest one. */
static enum npuc_status read_contents(npurt_session *s, const struct plan_step *step)
{
    struct k_tensor in = {0};
    if (!(s->mode & NPURT_DATA))
        return rt_assume(s, step);
    enum npuc_status st = rt_operand(s, step->tensors[0], &in);
    for (int32_t i = 0; st == NPUC_OK && i < step->n_binds; i++) {
        const int32_t *b = &step->binds[3 * i]; /* 0, element, symbol */
        const struct expr_range r = s->plan->exprs.symbols.data[b[2]].range;
        int64_t v = b[1] < k_count(&in) ? k_get_i64(&in, b[1]) : INT64_MIN;
        if (r.min == -INT32_MAX && b[1] < k_count(&in))
            v = v < r.min ? r.min : v > r.max ? r.max : v;
        if (v < r.min || v > r.max)
            return rt_fail(s, D_RUN_FAULT, "element %d of '%s' is %lld, expected %lld..%lld", b[1],
                           rt_name(s, s->plan->tensors.data[step->tensors[0]].name), (long long)v, (long long)r.min,
                           (long long)r.max);
        st = rt_rebind(s, b[2], v, "an operand");
    }
    return st;
}

enum npuc_status rt_sizes(npurt_session *s, const struct plan_step *step)
{
    if (step->n_in == 1)
        return read_contents(s, step);
    const int32_t tensor = step->tensors[step->n_in];
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    enum npuc_status st = rt_place_late(s, tensor);
    if (st != NPUC_OK || !(s->mode & NPURT_DATA))
        return st;
    struct k_tensor out = {.dtype = (enum dtype)t->dtype,
                           .rank = 1,
                           .dims = {step->n_params},
                           .data = s->tensors[tensor].data,
                           .size = s->tensors[tensor].size};
    int64_t bytes;
    if (!dtype_bytes(out.dtype, step->n_params, &bytes) || bytes > out.size || s->tensors[tensor].read_only ||
        !dtype_is_integer(out.dtype))
        return rt_fail(s, D_RUN_FAULT, "sizes do not fit into '%s'", rt_name(s, t->name));
    for (int32_t i = 0; i < step->n_params; i++) {
        int64_t v;
        if (!rt_value(s, step->params[i], &v))
            return rt_fail(s, D_RUN_FAULT, "a size in '%s' is not known when it is needed", rt_name(s, t->name));
        k_set_i64(&out, i, v);
    }
    return NPUC_OK;
}
