/* Tensors in files, as `npuc run` takes and gives them. */
#ifndef TOOLS_TENSOR_IO_H
#define TOOLS_TENSOR_IO_H

#include "tools/npy.h"

/* "FILE.npy", "FILE.npz" (member `name`), "FILE.npz:MEMBER", "FILE.pb" (ONNX TensorProto), or raw little-endian bytes
 * with type and shape: "FILE:f32:1x8". `name` is the graph input. */
NPUC_MUST_CHECK enum npuc_status tensor_read(const char *spec, const char *name, struct arena *a, struct diag *d,
                                             struct k_tensor *out);

enum tensor_format { TENSOR_NPY, TENSOR_PB };
/* One file; the .pb form holds every type exactly. */
NPUC_MUST_CHECK enum npuc_status tensor_write(const char *path, enum tensor_format format, const char *name,
                                              const struct k_tensor *t, struct arena *a, struct diag *d);

#endif
