/* NumPy .npy files: one dense little-endian array per file. */
#ifndef TOOLS_NPY_H
#define TOOLS_NPY_H

#include "base/diag.h"
#include "kernels/tensor.h"

/* Reads versions 1 to 3, C or Fortran order (the latter is turned). Data is copied into `a`. Errors are reported. */
NPUC_MUST_CHECK enum npuc_status npy_read(const char *path, struct arena *a, struct diag *d, struct k_tensor *out);
/* As npy_read on bytes in memory; `path` is for messages. */
NPUC_MUST_CHECK enum npuc_status npy_parse(const char *path, const uint8_t *bytes, int64_t size, struct arena *a,
                                           struct diag *d, struct k_tensor *out);
/* Writes version 1.0, atomically. Types that numpy lacks are an error. */
NPUC_MUST_CHECK enum npuc_status npy_write(const char *path, const struct k_tensor *t, struct diag *d);
/* What stands behind the header: the tensor's bytes; text as UTF-32 of one width, in `a`. */
const void *npy_data(const struct k_tensor *t, struct arena *a, int64_t *size);
int64_t npy_text_width(const struct k_tensor *t); /* code points of the longest text, at least 1 */
/* Elements of t (its dims are set) from UTF-32 of `width` code points each; false when there are too few bytes. */
bool npy_text_read(const uint8_t *bytes, int64_t size, int64_t width, struct arena *a, struct k_tensor *t);
/* The header of t, padded as .npy wants it; text in `a`, NULL for a type that numpy lacks. */
const char *npy_header(const struct k_tensor *t, struct arena *a, int64_t *len);

#endif
