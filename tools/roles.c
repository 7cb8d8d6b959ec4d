#include "tools/roles.h"

bool plan_is_language_model(const npurt_plan *p)
{
    bool cache = false, tokens = false;
    for (int i = 0; i < npurt_plan_inputs(p); i++) {
        const struct npurt_value *v = npurt_plan_input(p, i);
        const int r = npurt_input_role(p, i);
        cache = cache || r == NPURT_ROLE_CACHE;
        tokens = tokens || r == NPURT_ROLE_TOKENS;
        if ((r == NPURT_ROLE_UNKNOWN && !v->optional) || (r != NPURT_ROLE_CACHE && v->rank > 2))
            return false;
    }
    return cache && tokens;
}

/* Columns of an input of a role: tokens and positions have one per new token, masks one per token so far. */
static int64_t columns(int r, int64_t past, int64_t rows)
{
    return r == NPURT_ROLE_MASK ? past + rows : rows;
}

/* The length of a cache is a symbol of its own: the dimension of a cache input that is neither a number nor the batch.
 */
static enum npuc_status set_past(npurt_session *s, const struct npurt_value *v, int64_t batch, int64_t past)
{
    for (int d = 0; d < v->rank; d++) {
        const struct npurt_dim *dim = &v->dims[d];
        if (dim->min == dim->max)
            continue;
        enum npuc_status st = npurt_set_symbol(s, dim->text, d == 0 ? batch : past);
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

enum npuc_status role_shapes(npurt_plan *p, npurt_session *s, int64_t batch, int64_t past, int64_t rows)
{
    for (int i = 0; i < npurt_plan_inputs(p); i++) {
        const struct npurt_value *v = npurt_plan_input(p, i);
        const int r = npurt_input_role(p, i);
        const int64_t dims[2] = {batch, columns(r, past, rows)};
        enum npuc_status st = NPUC_OK;
        if (r == NPURT_ROLE_CACHE)
            st = set_past(s, v, batch, past);
        else if (r != NPURT_ROLE_UNKNOWN)
            st = npurt_set_input(s, v->name, v->dtype, v->rank, dims, NULL);
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}
