#include "tools/origin.h"

#include <string.h>

struct reading {
    float *rows;
    int64_t count, times;
};
struct quant_origin {
    struct compilation c;
    struct map by_node; /* id of a product's node -> place in products + 1 */
    int64_t n;
    struct reading *readings; /* of sources, in this run */
    struct arena *run;
};

/* ---- products */

/* The same walk as the one that found the products: the n-th here is the n-th there. */
static const struct quant_product *note_product(void *user, const struct node *n, const char *name)
{
    struct quantization *q = user;
    struct quant_origin *o = q->origin;
    if (o->n < q->products.len && strcmp(q->products.data[o->n].name, name) == 0)
        map_put(&o->by_node, n->id, (uint64_t)o->n + 1);
    o->n++;
    return NULL;
}

enum npuc_status origin_open(struct quantization *q)
{
    static const struct pass_step step = {PASS_apply_recipe, NULL};
    const struct quantiser notes = {.user = q, .product = note_product};
    const struct pass_run run = {0};
    struct quant_origin *o = ARENA_NEW(q->arena, struct quant_origin);
    struct pass_ctx px;
    compilation_init(&o->c);
    o->c.diag = q->c.diag;
    o->c.options = q->c.options;
    map_init(&o->by_node, q->arena);
    o->readings = ARENA_ARRAY(q->arena, struct reading, q->sources.len + 1);
    q->origin = o;
    enum npuc_status s = compilation_import(&o->c, q->ask.model);
    if (s != NPUC_OK)
        return s;
    pass_ctx_init(&px, o->c.module, NULL);
    px.options.quantiser = &notes;
    s = pass_run_all(&px, &step, 1, &run);
    pass_ctx_free(&px);
    return s;
}

void origin_close(struct quantization *q)
{
    if (q->origin)
        compilation_free(&q->origin->c);
    q->origin = NULL;
}

/* ---- runs */

static enum npuc_status keep_reading(void *user, const struct node *n, const struct k_tensor *const *in)
{
    struct quantization *q = user;
    struct quant_origin *o = q->origin;
    const uint64_t *at = map_find(&o->by_node, n->id);
    if (!at)
        return NPUC_OK;
    const int64_t product = (int64_t)*at - 1, source = q->products.data[product].source;
    if (source >= q->last)
        return NPUC_E_CANCELLED;
    if (source < q->first || q->sources.data[source].products.data[0] != product)
        return NPUC_OK;
    struct reading *r = &o->readings[source];
    r->times++;
    r->count = k_count(in[0]);
    r->rows = ARENA_ARRAY(o->run, float, r->count + 1);
    for (int64_t i = 0; in[0]->dtype != DT_F32 && i < r->count; i++)
        r->rows[i] = (float)k_get_f64(in[0], i);
    if (in[0]->dtype == DT_F32)
        memcpy(r->rows, in[0]->data, (size_t)r->count * sizeof *r->rows);
    return NPUC_OK;
}

enum npuc_status origin_run(struct quantization *q, int64_t run, struct arena *a)
{
    struct quant_origin *o = q->origin;
    const struct ir_watch watch = {.node = keep_reading, .user = q};
    o->run = a;
    memset(o->readings, 0, (size_t)q->sources.len * sizeof *o->readings);
    const enum npuc_status s = calib_run(&q->data, run, &o->c.cx, o->c.module->funcs.data[0], &watch);
    return s == NPUC_E_CANCELLED ? NPUC_OK : s;
}

const float *origin_rows(const struct quantization *q, int64_t source, int64_t count)
{
    const struct reading *r = &q->origin->readings[source];
    return r->times == 1 && r->count == count ? r->rows : NULL;
}
