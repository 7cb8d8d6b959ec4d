/* Examples: the smallest useful node of an operator, as text, and the ONNX model it stands for.
 *
 *   inputs   "T[1,8,6,6], T[4,8,3,3]=0, _, i64[2]={1,3}"
 *   attrs    "axis=1, mode='linear', dtype=T, alpha=0.5, pads=[1,1], value=T[1]=0, body={f32[2]: Relu(b0), Neg(a0)}"
 *
 * An input is an element type and dims (names are symbolic dims), "seq(T[2])" or "opt(T[2])"; _ is an absent one. A
 * constant stands behind "=": one number for all elements, or all of them. A body has inputs b0, b1, ... and every node
 * of it is a result; a0, a1, ... are the inputs of the node itself. T is replaced by an element type; as the value of
 * an attribute it is ONNX's number of the type. */
#ifndef TOOLS_OPS_EXAMPLE_H
#define TOOLS_OPS_EXAMPLE_H

#include "base/dtype.h"
#include "frontend/export/pb.h"

struct example {
    const char *domain, *op;
    int opset; /* of the domain; 0: the newest */
    const char *inputs;
    int n_out;
    const char *attrs;
};
/* The rows of examples.def for an operator are together; the first of them or NULL, and their number. */
const struct example *example_find(const char *domain, const char *op, int *n);
/* Appends the model to *out, which reads e as long as it lives; false with *why when the text is not of the form above.
 */
bool example_model(const struct example *e, enum dtype t, int newest_opset, struct pb *out, const char **why);

#endif
