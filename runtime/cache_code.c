/* Caches of codes at the interface: a past of floats that is given becomes codes and scales in the two buffers, a
 * present that is asked for becomes floats again. kernels/cache_code.h says how rows are coded. */
#include "runtime/rt.h"

#include "base/pool.h"
#include "base/size.h"
#include "kernels/cache_code.h"
#include "kernels/vec.h"

#include <stdlib.h>
#include <string.h>

struct rows {
    struct k_cache_form f;
    enum dtype type;     /* of the floats */
    const uint8_t *from; /* dense floats to code; NULL: to decode */
    uint8_t *to;         /* dense floats decoded */
    uint8_t *codes, *scales;
    struct rt_runs code_runs, scale_runs;
    int64_t per_run;         /* rows */
    const float *turn;       /* a matrix per head that rows of floats are multiplied by; NULL: none */
    int64_t heads, per_head; /* rows of a head in a row */
    float *work;             /* per worker: 4 rows */
};

/* Row i by the matrix of its head, into the row behind it; the row itself without matrices. */
static float *turned(const struct rows *j, int64_t i, float *x)
{
    const int64_t n = j->f.size;
    if (!j->turn)
        return x;
    k_cache_turn(x, j->turn + i / j->per_head % j->heads * n * n, n, x + n);
    return x + n;
}

static void do_row(void *arg, int64_t i, int worker)
{
    const struct rows *j = arg;
    const int64_t run = i / j->per_run, row = i % j->per_run, size = j->f.size, float_size = size * dtype_size(j->type);
    float *x = j->work + worker * 4 * size;
    uint8_t *codes = j->codes + run * j->code_runs.stride + row * k_cache_row(&j->f),
            *scales = j->scales + run * j->scale_runs.stride + row * k_cache_scales(&j->f) * dtype_size(j->f.scale);
    if (j->from) {
        k_cast(DT_F32, x, j->type, j->from + i * float_size, size, true);
        x = turned(j, i, x);
        k_cache_encode(&j->f, x, codes, scales, x + size);
    } else {
        k_cache_decode(&j->f, codes, scales, x);
        x = turned(j, i, x);
        k_cast(j->type, j->to + i * float_size, DT_F32, x, size, true);
    }
}

/* Is the run within the buffer that the tensor shows? */
static bool lies_within(const npurt_session *s, int32_t tensor, const struct rt_runs *r)
{
    const struct rt_tensor *x = &s->tensors[tensor];
    int64_t span;
    return x->data && size_mul(r->outer - 1, r->stride, &span) &&
           size_in(span, r->bytes, s->tensors[x->root].size - (x->data - s->tensors[x->root].data));
}

static bool read_form(const npurt_session *s, const struct plan_cache *c, struct k_cache_form *f)
{
    const struct plan_tensor *codes = &s->plan->tensors.data[c->tensor],
                             *scales = &s->plan->tensors.data[s->entry->caches[c->scales].tensor];
    int64_t row, n;
    if (!expr_is_const(&s->plan->exprs, codes->dims[codes->rank - 1], &row) ||
        !expr_is_const(&s->plan->exprs, scales->dims[scales->rank - 1], &n))
        return false;
    const int64_t size = row * (dtype_table[c->code].bits == 4 ? 2 : 1), groups = n / (c->shifted ? 2 : 1);
    *f = k_cache_form_of((enum dtype)c->code, c->shifted, size, size / groups, (enum dtype)scales->dtype);
    return true;
}

/* The matrices for rows of the view `codes`; the plan's verifier has held their sizes to the cache. */
static bool read_turn(const npurt_session *s, const struct plan_cache *c, int32_t codes, struct rows *j)
{
    const int32_t t = j->from ? c->turn : c->back;
    const struct plan_tensor *view = &s->plan->tensors.data[codes];
    int64_t dims[NPURT_MAX_RANK];
    if (t < 0)
        return true;
    if (!rt_dims(s, view, dims))
        return false;
    j->turn = (const float *)(const void *)s->tensors[t].data;
    j->heads = dims[view->rank - 3];
    j->per_head = dims[view->rank - 2];
    return j->turn && j->heads > 0 && j->per_head > 0;
}

/* All rows that the views `codes` and `scales` show, from or to the dense floats of j. */
static enum npuc_status each_row(npurt_session *s, const struct plan_cache *c, int32_t codes, int32_t scales,
                                 struct rows *j)
{
    if (!read_form(s, c, &j->f) || !rt_find_runs(s, codes, &j->code_runs) || !rt_find_runs(s, scales, &j->scale_runs))
        return rt_fail(s, D_RUN_FAULT, "the cache of '%s' has no known size", rt_name(s, c->input));
    j->per_run = j->code_runs.bytes / k_cache_row(&j->f);
    if (j->code_runs.outer == 0 || j->per_run == 0)
        return NPUC_OK;
    if (!lies_within(s, codes, &j->code_runs) || !lies_within(s, scales, &j->scale_runs) ||
        j->scale_runs.outer != j->code_runs.outer ||
        j->scale_runs.bytes != j->per_run * k_cache_scales(&j->f) * dtype_size(j->f.scale))
        return rt_fail(s, D_RUN_FAULT, "the cache of '%s' lies outside of its buffers", rt_name(s, c->input));
    if (!read_turn(s, c, codes, j))
        return rt_fail(s, D_RUN_FAULT, "the cache of '%s' has no matrices to turn its rows by", rt_name(s, c->input));
    j->codes = s->tensors[codes].data;
    j->scales = s->tensors[scales].data;
    j->work = malloc((size_t)(pool_threads(s->pool) * 4 * j->f.size) * sizeof *j->work);
    if (!j->work)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    pool_for(s->pool, j->code_runs.outer * j->per_run, do_row, j);
    free(j->work);
    return NPUC_OK;
}

enum npuc_status rt_cache_encode(npurt_session *s, const struct plan_cache *c, enum dtype type, const void *given)
{
    struct rows j = {.type = type, .from = given};
    return each_row(s, c, c->in_tensor, s->entry->caches[c->scales].in_tensor, &j);
}

enum npuc_status rt_cache_decode(npurt_session *s, const struct plan_cache *c, enum dtype type, void *out)
{
    struct rows j = {.type = type, .to = out};
    return each_row(s, c, c->out_tensor, s->entry->caches[c->scales].out_tensor, &j);
}
