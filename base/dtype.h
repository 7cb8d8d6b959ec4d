/* Element types of tensors and their static properties. */
#ifndef BASE_DTYPE_H
#define BASE_DTYPE_H

#include "base/compiler.h"

enum dtype {
    DT_NONE = 0,
#define DTYPE(e, ...) DT_##e,
#include "base/dtype.def"
#undef DTYPE
    DT_COUNT
};
enum dtype_class { DTC_NONE, DTC_FLOAT, DTC_INT, DTC_UINT, DTC_BOOLEAN, DTC_COMPLEX, DTC_TEXT };

struct dtype_info {
    const char *name; /* as in IR text */
    int bits;         /* storage bits of one element; sub-byte types are packed low bits first */
    int onnx;         /* TensorProto.DataType */
    const char *npy;  /* numpy descr, or NULL where numpy has no such type */
    enum dtype_class cls;
};
extern const struct dtype_info dtype_table[DT_COUNT];

enum dtype dtype_from_onnx(int64_t number); /* DT_NONE when unknown */
enum dtype dtype_from_name(const char *name, int64_t len);
enum dtype dtype_from_npy(const char *descr);
/* Bytes of n packed elements; false on overflow. */
NPUC_MUST_CHECK bool dtype_bytes(enum dtype t, int64_t n, int64_t *out);
static inline bool dtype_is_float(enum dtype t)
{
    return dtype_table[t].cls == DTC_FLOAT;
}
static inline bool dtype_is_integer(enum dtype t)
{
    return dtype_table[t].cls == DTC_INT || dtype_table[t].cls == DTC_UINT;
}
static inline int dtype_size(enum dtype t)
{
    return dtype_table[t].bits / 8;
} /* 0 for sub-byte types */

#endif
