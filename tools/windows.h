/* Windows of a convolution in the graph, at the sizes of a run. */
#ifndef TOOLS_WINDOWS_H
#define TOOLS_WINDOWS_H

#include "ir/graph.h"
#include "kernels/window.h"

/* Positions of its kernel; 1 of other operators. */
int64_t windows_taps(const struct node *n);
/* Of conv on x with that weight; false: they do not fit each other. */
NPUC_MUST_CHECK bool windows_of(const struct node *conv, const struct k_tensor *x, const struct k_tensor *weight,
                                struct k_window *w);

#endif
