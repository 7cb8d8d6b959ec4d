/* Reading ONNX models: a file becomes a module of core operators.
 *
 * The file is mapped, scanned within limits (scan.h), unpacked without its weights, and translated (docs: README.md).
 * Weights stay in the mapped files: blobs of the module point into them, so struct onnx_model lives longer than the
 * module. */
#ifndef FRONTEND_ONNX_H
#define FRONTEND_ONNX_H

#include "ir/graph.h"

struct onnx_options {
    bool allow_missing_data;   /* external files may be absent: their weights become blobs without data */
    const void *bytes;         /* the model itself, kept by the caller; NULL: it is read from the path */
    int64_t n_bytes;           /* of it */
    bool survey;               /* report what cannot be imported and go on: see Unsupported in ir/ops/region.def */
    int64_t max_file_size;     /* bytes of the .onnx file; 0: 2 GiB, protobuf's own limit */
    int64_t max_unpacked_size; /* bytes of host memory for the unpacked structure; 0: 96 MiB + 32 x file size */
    int64_t max_inlined;       /* nodes made by inlining functions; 0: 200,000 */
};

struct onnx_info {
    const char *producer, *producer_version; /* as in the file, not escaped */
    int64_t ir_version;
    int64_t n_opsets;
    struct onnx_opset {
        const char *domain; /* "" for ai.onnx */
        int64_t version;
    } * opsets;
    int64_t n_nodes; /* nodes in the file, those of subgraphs and functions included */
    int64_t n_functions;
    int64_t n_params, param_size;              /* elements and bytes of the initializers */
    int64_t n_external, external_size;         /* tensors kept outside the file and their bytes */
    int64_t n_unsupported;                     /* Unsupported nodes made by a survey */
    int64_t n_missing;                         /* tensors whose external file is absent */
    const char *missing_tensor, *missing_file; /* the first of them, as in the file; NULL */
};

struct onnx_model;

/* Imports `path`. *keep is set first, also when the import fails; the caller closes it after the module's last use.
 * Everything wrong is reported to cx->diag; the status is the first error's. */
NPUC_MUST_CHECK enum npuc_status onnx_import(struct ir_ctx *cx, const char *path, const struct onnx_options *o,
                                             struct onnx_model **keep, struct module **out);
void onnx_close(struct onnx_model *model); /* NULL is allowed */
const struct onnx_info *onnx_info(const struct onnx_model *model);

/* A file with a single TensorProto (input and output samples as ONNX keeps them, .pb): its type and bytes, in `a`.
 * Strings and external data are refused. */
struct onnx_tensor {
    enum dtype dtype;
    int rank;
    const int64_t *dims;
    const void *data;
    int64_t size;
};
NPUC_MUST_CHECK enum npuc_status onnx_read_tensor(struct arena *a, const char *path, struct diag *d,
                                                  struct onnx_tensor *out);

#endif
