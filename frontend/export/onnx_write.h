/* Writing ONNX models: a module of core operators becomes a file that other tools read.
 *
 * The module is one as imported, or after passes that keep to core operators (fold_constants, dce, cse, inline_control,
 * recover_*, lower_*). Names of inputs, outputs, nodes and open dimensions stay. Operators of ours are written as the
 * operators of ONNX they stand for (twins.def); layouts and caches of a target have no form in ONNX and are refused. */
#ifndef FRONTEND_EXPORT_ONNX_WRITE_H
#define FRONTEND_EXPORT_ONNX_WRITE_H

#include "ir/graph.h"

struct onnx_write_options {
    int64_t external_limit; /* bytes of constants that go into the model file itself; beyond it they go to OUT.data
                               beside it. 0: 1 GiB */
};

/* Both files are complete or absent. Errors are reported to the module's diag. */
NPUC_MUST_CHECK enum npuc_status onnx_write(const struct module *m, const char *path,
                                            const struct onnx_write_options *o);

#endif
