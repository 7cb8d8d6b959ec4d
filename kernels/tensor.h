/* Raw tensors and the calling convention of operator kernels.
 *
 * An operator kernel (`k_op_fn`) is the meaning of one core operator: constant folding, the host side of the runtime,
 * the reference interpreter and the differential tests all call it. It knows no graph, target or allocator beyond
 * the arena it is given. Tensors are dense, row-major; sub-byte types are packed low bits first; strings are
 * `struct k_string`. Kernels accept zero elements and never read beyond what the extents say. */
#ifndef KERNELS_TENSOR_H
#define KERNELS_TENSOR_H

#include "base/arena.h"
#include "base/dtype.h"
#include "npuc/status.h"

#define K_MAX_RANK 16

struct k_string {
    const char *text;
    int64_t len;
};
/* A sequence is an axis of k_tensors: rank 1, dims[0] of them behind data. An optional is the same with 0 or 1 of them.
 * dtype is that of the tensors within. Kernels share elements between operands and results instead of copying them. */
enum k_kind { K_TENSOR, K_SEQUENCE, K_OPTIONAL };
struct k_tensor {
    enum dtype dtype;
    int rank;
    int64_t dims[K_MAX_RANK];
    void *data;   /* never NULL when the tensor has elements */
    int64_t size; /* bytes behind data */
    enum k_kind kind;
};

enum k_attr_kind { K_ATTR_INT, K_ATTR_FLOAT, K_ATTR_STRING, K_ATTR_INTS, K_ATTR_FLOATS, K_ATTR_STRINGS, K_ATTR_TENSOR };
struct k_attr {
    const char *name;
    enum k_attr_kind kind;
    int64_t len; /* elements of INTS, FLOATS, STRINGS; bytes of STRING */
    union {
        int64_t i;
        float f;
        const char *s; /* NUL-terminated */
        const int64_t *ints;
        const float *floats;
        const struct k_string *strings;
        const struct k_tensor *tensor;
    } v;
};

struct pool;
struct k_call {
    const char *op;                   /* name, for messages */
    const struct k_tensor *const *in; /* NULL = absent optional input */
    int n_in;
    struct k_tensor *out;       /* n_out of them; see k_out */
    int n_out;                  /* outputs asked for; trailing ones may be fewer than the operator has */
    const struct k_attr *attrs; /* defaults are filled in by the caller where the schema has them */
    int n_attrs;
    struct arena *arena; /* outputs and scratch */
    struct pool *pool;   /* may be NULL; results do not depend on it */
    char error[256];     /* set when the status is not NPUC_OK */
};
typedef enum npuc_status k_op_fn(struct k_call *c);

struct k_op {
    const char *name; /* core operator, e.g. "Gather" */
    k_op_fn *fn;
};
/* The kernel of a core operator, or NULL. Rows: kernels/ops.def and the formula tables. */
const struct k_op *k_op_find(const char *name);
const struct k_op *k_op_list(int64_t *n); /* all rows; of two with one name the first counts */

/* Does the operator take operands of these kinds: tensors of text, sequences, optionals? Rows: kernels/ops_text.def. */
bool k_op_takes(const char *name, int n_in, const struct k_tensor *const *in);

/* Shapes output i and gives its data: a buffer the caller preset in out[i] when it is large enough, else fresh
 * arena memory. NULL (with c->error set) on overflow or out of memory. */
void *k_out(struct k_call *c, int i, enum dtype t, int rank, const int64_t *dims);
enum npuc_status k_fail(struct k_call *c, enum npuc_status s, const char *fmt, ...) NPUC_PRINTF(3, 4);
const struct k_attr *k_attr_find(const struct k_call *c, const char *name); /* NULL when absent */
int64_t k_attr_int(const struct k_call *c, const char *name, int64_t otherwise);
float k_attr_float(const struct k_call *c, const char *name, float otherwise);
const char *k_attr_str(const struct k_call *c, const char *name, const char *otherwise);

int64_t k_count(const struct k_tensor *t);            /* elements */
int64_t k_stride(const struct k_tensor *t, int axis); /* elements between neighbours on axis */
/* One element as a wide value; the generic path for rare types. */
double k_get_f64(const struct k_tensor *t, int64_t index);
int64_t k_get_i64(const struct k_tensor *t, int64_t index);
void k_set_f64(const struct k_tensor *t, int64_t index, double v);
void k_set_i64(const struct k_tensor *t, int64_t index, int64_t v);
/* numpy broadcasting of two shapes; false when they do not fit. */
bool k_broadcast(int ra, const int64_t *a, int rb, const int64_t *b, int *rank, int64_t *dims);

#endif
