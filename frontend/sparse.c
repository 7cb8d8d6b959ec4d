/* SparseTensorProto: made dense at import, within a limit. Indices are one row-major position or one coordinate per
 * axis for each value, in ascending order without repeats (ONNX asks for it, and it shows what is damaged). */
#include <inttypes.h>
#include <string.h>

#include "base/size.h"
#include "frontend/priv.h"

struct sparse {
    const Onnx__SparseTensorProto *pb;
    struct tensor_in values, indices;
    int64_t n_values, n_dense;
};

static int64_t dense_at(const struct sparse *s, int64_t i)
{
    const int64_t *index = s->indices.blob->data;
    if (s->indices.type->rank == 1)
        return index[i];
    const int64_t rank = (int64_t)s->pb->n_dims;
    int64_t at = 0;
    for (int64_t k = 0; k < rank; k++) {
        const int64_t c = index[i * rank + k];
        if (c < 0 || c >= s->pb->dims[k])
            return -1;
        at = at * s->pb->dims[k] + c; /* below n_dense, which is representable */
    }
    return at;
}

static enum npuc_status check_parts(struct import *im, struct sparse *s, sym name)
{
    const struct type *v = s->values.type, *x = s->indices.type;
    if (!s->values.blob->data || !s->indices.blob->data)
        return tensor_fail(im, name, "the data of a sparse tensor is missing");
    if (v->rank != 1 || v->dtype == DT_STRING || dtype_size(v->dtype) == 0)
        return tensor_fail(im, name, "values of a sparse tensor are one-dimensional and of whole bytes, found %s",
                           type_text(im->cx, v));
    s->n_values = type_const_count(im->cx, v);
    int64_t n_index = 0, want = s->n_values;
    if (x->rank == 2 && !size_mul(want, (int64_t)s->pb->n_dims, &want))
        want = -1;
    n_index = type_const_count(im->cx, x);
    if (x->dtype != DT_I64 || (x->rank != 1 && x->rank != 2) || n_index != want)
        return tensor_fail(im, name, "sparse tensor has %" PRId64 " values, but its indices are %s", s->n_values,
                           type_text(im->cx, x));
    return NPUC_OK;
}

static enum npuc_status fill(struct import *im, const struct sparse *s, sym name, uint8_t *data)
{
    const size_t size = (size_t)dtype_size(s->values.type->dtype);
    int64_t last = -1;
    for (int64_t i = 0; i < s->n_values; i++) {
        const int64_t at = dense_at(s, i);
        if (at < 0 || at >= s->n_dense || at <= last)
            return tensor_fail(im, name,
                               "sparse index %" PRId64 " is outside of the dims or not greater than the one before", i);
        memcpy(data + (size_t)at * size, (const uint8_t *)s->values.blob->data + (size_t)i * size, size);
        last = at;
    }
    return NPUC_OK;
}

static enum npuc_status densify(struct import *im, struct sparse *s, sym name, struct tensor_in *out)
{
    expr dims[IR_MAX_RANK];
    for (size_t i = 0; i < s->pb->n_dims; i++)
        dims[i] = expr_const(&im->cx->exprs, s->pb->dims[i]);
    out->type = type_tensor(im->cx, s->values.type->dtype, (int)s->pb->n_dims, dims);
    struct blob *blob = ARENA_NEW(&im->m->arena, struct blob);
    if (!dtype_bytes(out->type->dtype, s->n_dense, &blob->size) || blob->size > IMPORT_MAX_DENSE)
        return name_fail(im, name, D_LIMIT, "sparse tensor of more than %" PRId64 " bytes when dense",
                         (int64_t)IMPORT_MAX_DENSE);
    uint8_t *data = arena_alloc(&im->m->arena, blob->size + 1, 64);
    memset(data, 0, (size_t)blob->size);
    blob->data = data;
    blob->origin = name;
    out->blob = blob;
    return fill(im, s, name, data);
}

enum npuc_status sparse_import(struct import *im, const Onnx__SparseTensorProto *t, sym name, struct tensor_in *out)
{
    struct sparse s = {.pb = t};
    if (!t->values || !t->indices)
        return tensor_fail(im, name, "a sparse tensor needs values and indices");
    enum npuc_status st = tensor_import(im, t->values, name, &s.values);
    if (st == NPUC_OK)
        st = tensor_import(im, t->indices, name, &s.indices);
    if (st == NPUC_OK)
        st = check_parts(im, &s, name);
    if (st != NPUC_OK)
        return st;
    if (t->n_dims > IR_MAX_RANK)
        return name_fail(im, name, D_LIMIT, "tensor has %zu dims, the limit is %d", t->n_dims, IR_MAX_RANK);
    if (!dims_count(t->dims, (int64_t)t->n_dims, &s.n_dense))
        return tensor_fail(im, name, "a dim is negative or the size of the dims overflows");
    return densify(im, &s, name, out);
}
