/* Models that hold codes: a recipe written into one, and read from one (npuc quantize --export-qdq, --from). */
#ifndef TOOLS_QDQ_H
#define TOOLS_QDQ_H

#include "compiler/compile.h"

/* The model with its products as the recipe says, as ONNX: QuantizeLinear and DequantizeLinear around operands, the
 * rest as it was. Recipe: c's option. */
NPUC_MUST_CHECK enum npuc_status qdq_export(struct compilation *c, const char *model, const char *out);

struct qdq_request {
    const char *model, *recipe;
    const char *plain; /* also the model without its codes; NULL: not written */
};
/* What a model that holds codes (QDQ, QLinear operators, MatMulNBits, integer products) says, as a recipe and its data
 * file. *products: how many it has. */
NPUC_MUST_CHECK enum npuc_status qdq_read(struct compilation *c, const struct qdq_request *r, int64_t *products);

#endif
