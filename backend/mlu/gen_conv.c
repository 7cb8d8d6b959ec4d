/* Convolutions on the tensor unit. */
#include "backend/mlu/gens.h"

bool gen_mlu_conv_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    (void)cx;
    (void)n;
    (void)reason;
    return false;
}
enum npuc_status gen_mlu_conv_emit(struct emit *e, struct node *n)
{
    return node_error(e->cx, n, D_VERIFY, "none");
}
