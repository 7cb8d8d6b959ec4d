/* Sessions: what lives as long as one, its inputs, a run, its outputs. */
#include "runtime/rt.h"

#include "base/pool.h"
#include "base/size.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors ---- */

static void keep_line(void *user, const char *line)
{
    npurt_session *s = user;
    snprintf(s->error, sizeof s->error, "%s", line);
}

enum npuc_status rt_fail(npurt_session *s, enum diag_code code, const char *fmt, ...)
{
    char text[1024];
    struct diag d;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    diag_init(&d, keep_line, s);
    return diag_error_text(&d, &(struct diag_loc){.file = s->owner->path, .index = -1}, code, text);
}

const char *rt_name(const npurt_session *s, sym name)
{
    struct arena *a = (struct arena *)(uintptr_t)&s->scratch;
    return str_escape(a, str_text(&s->plan->strings, name), str_len(&s->plan->strings, name), 128);
}

const char *rt_source(const npurt_session *s, const struct plan_step *step)
{
    const bool known = step->source >= 0 && s->plan->sources.data[step->source].n > 0;
    return known ? rt_name(s, s->plan->sources.data[step->source].nodes[0]) : "?";
}

/* ---- life ---- */

static bool allocate(npurt_session *s)
{
    const struct plan *p = s->plan;
    struct arena *a = &s->arena;
    const int64_t n_symbols = p->exprs.symbols.len + 1, n_exprs = p->exprs.nodes.len + 1,
                  n_tensors = p->tensors.len + 1;
    s->inputs = ARENA_ARRAY(a, struct rt_input, s->entry->n_inputs + 1);
    s->symbol = ARENA_ARRAY(a, int64_t, n_symbols);
    s->symbol_known = ARENA_ARRAY(a, bool, n_symbols);
    s->late_symbol = ARENA_ARRAY(a, bool, n_symbols);
    s->user_symbol = ARENA_ARRAY(a, int64_t, n_symbols);
    s->bound_symbol = ARENA_ARRAY(a, int64_t, n_symbols);
    s->value = ARENA_ARRAY(a, int64_t, n_exprs);
    s->value_known = ARENA_ARRAY(a, bool, n_exprs);
    s->tensors = ARENA_ARRAY(a, struct rt_tensor, n_tensors);
    s->in_entry = ARENA_ARRAY(a, bool, n_tensors);
    s->told_by = ARENA_ARRAY(a, int32_t, n_symbols);
    s->telling = -1;
    s->placed_size = ARENA_ARRAY(a, int64_t, n_tensors);
    s->pool_offset = ARENA_ARRAY(a, int64_t, n_tensors);
    s->caches = ARENA_ARRAY(a, struct rt_cache, s->entry->n_caches + 1);
    s->attrs = ARENA_ARRAY(a, const struct k_attr *, p->steps.len + 1);
    s->step_names = ARENA_ARRAY(a, const struct npurt_step *, p->steps.len + 1);
    s->dependents = ARENA_ARRAY(a, struct rt_dependents *, n_symbols);
    s->record_of = ARENA_ARRAY(a, int64_t, p->steps.len + 1);
    s->choice = ARENA_ARRAY(a, uint8_t, p->steps.len + 1);
    s->report_steps.data = ARENA_ARRAY(a, struct npurt_step, p->steps.len + 1); /* so that no run allocates */
    s->report_steps.cap = p->steps.len + 1;
    map_init(&s->timings, a);
    map_init(&s->counts, a);
    for (int64_t i = 0; s->user_symbol && i < n_symbols; i++)
        s->user_symbol[i] = -1;
    return s->inputs && s->symbol && s->symbol_known && s->late_symbol && s->user_symbol && s->bound_symbol &&
           s->value && s->value_known && s->tensors && s->placed_size && s->pool_offset && s->caches && s->attrs &&
           s->in_entry && s->told_by && s->step_names && s->report_steps.data && s->dependents && s->record_of &&
           s->choice;
}

int64_t rt_weight_size(const npurt_session *s, const struct plan_tensor *t)
{
    int64_t size = t->data_size;
    if (size < 0 && !expr_is_const(&s->plan->exprs, t->size, &size))
        size = 0;
    return size > 0 && size < (int64_t)1 << 48 ? size : 0;
}

/* Weights stay where the plan is mapped; their emulated addresses follow each other. */
static void map_weights(npurt_session *s)
{
    for (int64_t i = 0; i < s->plan->tensors.len; i++) {
        const struct plan_tensor *t = &s->plan->tensors.data[i];
        struct rt_tensor *r = &s->tensors[i];
        r->touched = -1;
        r->root = (int32_t)i;
        for (int64_t guard = 0; s->plan->tensors.data[r->root].kind == PT_ALIAS && guard < s->plan->tensors.len;
             guard++)
            r->root = s->plan->tensors.data[r->root].base;
        r->next_view = -1;
        if (t->kind != PT_WEIGHT)
            continue;
        const uint8_t *data = s->plan->weights && t->data_size >= 0 ? s->plan->weights + t->data_offset : NULL;
        memcpy(&r->data, &data, sizeof data); /* never written: read_only */
        r->read_only = true;
        r->address = s->weights_size;
        s->weights_size = size_align(s->weights_size + rt_weight_size(s, t), 512);
    }
    s->weights_address_end = s->weights_size;
}

static void link_views(npurt_session *s)
{
    for (int64_t i = s->plan->tensors.len - 1; i >= 0; i--) {
        struct rt_tensor *r = &s->tensors[i], *root = &s->tensors[r->root];
        if (r == root)
            continue;
        r->next_view = root->next_view;
        root->next_view = (int32_t)i;
    }
}

static enum npuc_status copy_target(npurt_session *s, const struct npurt_options *o)
{
    const struct plan *p = s->plan;
    const int64_t n = p->target.len;
    const char **keys = ARENA_ARRAY(&s->arena, const char *, n + 1),
               **values = ARENA_ARRAY(&s->arena, const char *, n + 1);
    struct diag d;
    if (!keys || !values)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    for (int64_t i = 0; i < n; i++) {
        keys[i] = str_text(&p->strings, p->target.data[i].key);
        values[i] = str_text(&p->strings, p->target.data[i].value);
    }
    diag_init(&d, keep_line, s);
    enum npuc_status st = target_from_pairs(&s->target, str_text(&p->strings, p->target_name), n, keys, values, &d);
    s->has_target = st == NPUC_OK;
    for (int i = 0; st == NPUC_OK && i < o->n_target_set; i++)
        st = target_set(&s->target, o->target_set[i], &d);
    return st;
}

enum npuc_status npurt_session_new(npurt_plan *p, const struct npurt_options *o, npurt_session **session)
{
    static const struct npurt_options defaults = {0};
    npurt_session *s = *session = calloc(1, sizeof *s);
    if (!s)
        return NPUC_E_NOMEM;
    s->owner = p;
    s->plan = &p->plan;
    s->entry = &p->plan.entries.data[0];
    s->options = o ? *o : defaults;
    s->mode = s->options.mode ? s->options.mode : NPURT_DATA;
    arena_init(&s->arena, NULL);
    arena_init(&s->scratch, NULL);
    arena_init(&s->views, NULL);
    if (!allocate(s))
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    map_weights(s);
    link_views(s);
    rt_enter(s, s->entry);
    const enum npuc_status st = copy_target(s, &s->options);
    if (st != NPUC_OK)
        return st;
    s->pool = pool_new(s->options.threads);
    s->machine = emu_machine_new(&s->target);
    return s->machine ? NPUC_OK : rt_fail(s, D_HOST_MEMORY, "out of host memory");
}

void npurt_session_free(npurt_session *s)
{
    if (!s)
        return;
    rt_memory_free(s);
    pool_free(s->pool);
    emu_machine_free(s->machine);
    if (s->has_target)
        target_free(&s->target);
    arena_free(&s->views);
    arena_free(&s->scratch);
    arena_free(&s->arena);
    free(s->fed.data);
    free(s);
}

const char *npurt_session_error(const npurt_session *s)
{
    return s ? s->error : "out of host memory";
}

void npurt_cancel(npurt_session *s)
{
    atomic_store(&s->cancel, 1);
}

/* ---- inputs ---- */

int rt_find_input(const npurt_session *s, const char *name)
{
    for (int32_t i = 0; i < s->entry->n_inputs; i++)
        if (strcmp(str_text(&s->plan->strings, s->plan->tensors.data[s->entry->inputs[i]].name), name) == 0)
            return i;
    return -1;
}

static enum npuc_status unknown_input(npurt_session *s, const char *name)
{
    const char *known = "";
    for (int32_t i = 0; i < s->entry->n_inputs && i < 8; i++)
        known = arena_printf(&s->scratch, "%s%s%s", known, i ? ", " : "",
                             rt_name(s, s->plan->tensors.data[s->entry->inputs[i]].name));
    const enum npuc_status st = rt_fail(s, D_INPUT_BINDING, "there is no input '%.100s'; the plan's inputs are %s%s",
                                        name, known, s->entry->n_inputs > 8 ? ", ..." : "");
    return st;
}

enum npuc_status npurt_set_value(npurt_session *s, const char *name, const struct npurt_tensor *v)
{
    const int i = rt_find_input(s, name);
    if (i < 0 || !rt_is_object(s, s->entry->inputs[i])) {
        if (i < 0 || v->kind == NPURT_TENSOR)
            return npurt_set_input(s, name, v->dtype, v->rank, v->dims, v->data);
        return rt_fail(s, D_INPUT_BINDING, "input '%.100s' is a tensor, not a sequence or optional value", name);
    }
    const struct arena_mark mark = arena_mark(&s->scratch);
    const enum npuc_status st = rt_object_set(s, i, v);
    arena_release(&s->scratch, mark);
    return st;
}

enum npuc_status npurt_set_input(npurt_session *s, const char *name, int dtype, int rank, const int64_t *dims,
                                 const void *data)
{
    const struct arena_mark mark = arena_mark(&s->scratch);
    enum npuc_status st = NPUC_OK;
    const int i = rt_find_input(s, name);
    const struct plan_tensor *t = i >= 0 ? &s->plan->tensors.data[s->entry->inputs[i]] : NULL;
    if (t && t->kind == PT_OBJECT) {
        struct npurt_tensor v = {.dtype = dtype, .rank = rank, .data = data};
        for (int k = 0; k < rank && k < NPURT_MAX_RANK; k++)
            v.dims[k] = dims[k];
        return npurt_set_value(s, name, &v);
    }
    if (!t)
        st = unknown_input(s, name);
    else if (dtype != dtype_table[t->dtype].onnx)
        st = rt_fail(s, D_INPUT_BINDING, "input '%.100s' is %s, expected %s", name,
                     dtype_table[dtype_from_onnx(dtype)].name ? dtype_table[dtype_from_onnx(dtype)].name
                                                              : "of unknown type",
                     dtype_table[t->dtype].name);
    else if (rank != t->rank || rank > NPURT_MAX_RANK)
        st = rt_fail(s, D_INPUT_BINDING, "input '%.100s' has %d dimensions, expected %d", name, rank, t->rank);
    for (int k = 0; st == NPUC_OK && k < rank; k++)
        if (dims[k] < 0 || dims[k] > (int64_t)1 << 40)
            st = rt_fail(s, D_INPUT_BINDING, "input '%.100s': axis %d is %lld", name, k, (long long)dims[k]);
    if (st == NPUC_OK) {
        s->inputs[i] = (struct rt_input){.set = true, .dtype = (enum dtype)t->dtype, .rank = rank, .data = data};
        for (int k = 0; k < rank; k++)
            s->inputs[i].dims[k] = dims[k];
    }
    arena_release(&s->scratch, mark);
    return st;
}

enum npuc_status npurt_unset_input(npurt_session *s, const char *name)
{
    const int i = rt_find_input(s, name);
    if (i < 0)
        return unknown_input(s, name);
    s->inputs[i].set = false;
    return NPUC_OK;
}

enum npuc_status npurt_set_symbol(npurt_session *s, const char *name, int64_t value)
{
    for (int64_t i = 0; i < s->plan->exprs.symbols.len; i++)
        if (strcmp(str_text(&s->plan->strings, s->plan->exprs.symbols.data[i].name), name) == 0) {
            s->user_symbol[i] = value;
            return NPUC_OK;
        }
    return rt_fail(s, D_INPUT_BINDING, "the plan has no dimension '%.100s'", name);
}

/* ---- running ---- */

/* After a run the caches hold what the present values say. */
static void advance_caches(npurt_session *s)
{
    for (int32_t i = 0; i < s->entry->n_caches; i++) {
        int64_t present;
        if (s->entry->caches[i].grows && rt_value(s, s->entry->caches[i].present, &present))
            s->cache_length = present;
    }
}

enum npuc_status npurt_run(npurt_session *s)
{
    atomic_store(&s->cancel, 0);
    s->error[0] = 0;
    s->ran = false;
    const struct arena_mark mark = arena_mark(&s->scratch);
    enum npuc_status st = rt_bind(s);
    if (st == NPUC_OK)
        st = rt_place(s);
    if (st == NPUC_OK && s->mode & NPURT_DATA)
        st = rt_rings_take(s, rt_past_is_given(s));
    if (st == NPUC_OK && s->mode & NPURT_DATA)
        st = rt_pages_take(s);
    if (st == NPUC_OK && s->mode & NPURT_DATA)
        st = rt_cache_load(s);
    if (st == NPUC_OK)
        st = rt_dispatch(s);
    if (st == NPUC_OK)
        advance_caches(s);
    s->ran = st == NPUC_OK;
    if (st == NPUC_E_CANCELLED && !s->error[0])
        snprintf(s->error, sizeof s->error, "cancelled");
    arena_release(&s->scratch, mark);
    return st;
}

/* The cache of codes whose present the tensor is; NULL: another output. */
static const struct plan_cache *coded_cache(const npurt_session *s, const struct plan_tensor *t)
{
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        if (s->entry->caches[i].code && s->entry->caches[i].output == t->name)
            return &s->entry->caches[i];
    return NULL;
}

/* Room for an output that lies nowhere as the user sees it. */
static void *out_room(npurt_session *s, int64_t size)
{
    if (size > s->out.size) {
        free(s->out.data);
        s->out.size = 0;
        s->out.data = malloc((size_t)size);
        if (!s->out.data) {
            (void)rt_fail(s, D_HOST_MEMORY, "out of host memory");
            return NULL;
        }
        s->out.size = size;
    }
    return s->out.data;
}

static const void *dense_data(npurt_session *s, int32_t tensor, int64_t size)
{
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    const struct plan_cache *coded = coded_cache(s, t);
    const int32_t paged = rt_paged_output(s, t);
    if (!coded && paged < 0 && rt_is_dense(s, tensor))
        return s->tensors[tensor].data;
    const int64_t first = paged >= 0 ? rt_ring_first(s, &s->entry->caches[paged]) : 0;
    if (first > 0) {
        (void)rt_fail(s, D_USAGE,
                      "'%s' no longer has rows before %lld: its cache keeps what its sliding window reads; ask for the "
                      "other outputs, or compile with --kv-ring 0",
                      rt_name(s, t->name), (long long)first);
        return NULL;
    }
    void *room = out_room(s, size);
    if (!room)
        return NULL;
    if (paged >= 0) {
        const struct rt_cache *c = &s->caches[paged];
        int64_t bytes;
        if (!size_mul(c->outer * c->inner, s->cache_length, &bytes) || bytes != size) {
            (void)rt_fail(s, D_RUN_FAULT, "output '%s' does not have the rows of its cache", rt_name(s, t->name));
            return NULL;
        }
        rt_cache_get(s, paged, 0, s->cache_length, room);
        return room;
    }
    const enum npuc_status st =
        coded ? rt_cache_decode(s, coded, (enum dtype)t->dtype, room) : rt_dense(s, tensor, room, true);
    return st == NPUC_OK ? room : NULL;
}

static enum npuc_status fetch_output(npurt_session *s, int32_t tensor, struct npurt_tensor *out)
{
    static const uint8_t nothing[8] = {0};
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    int64_t n = 1;
    if (t->kind == PT_OBJECT)
        return rt_object_get(s, tensor, out);
    *out = (struct npurt_tensor){.dtype = dtype_table[t->dtype].onnx, .rank = t->rank};
    bool known = rt_dims(s, t, out->dims);
    for (int32_t i = 0; known && i < t->rank; i++)
        known = size_mul(n, out->dims[i], &n);
    if (!known || !dtype_bytes((enum dtype)t->dtype, n, &out->size))
        return rt_fail(s, D_RUN_FAULT, "output '%s' has no known shape", rt_name(s, t->name));
    if (!coded_cache(s, t) && rt_paged_output(s, t) < 0 && rt_is_dense(s, tensor) &&
        (!s->tensors[tensor].known || out->size > s->tensors[tensor].size))
        return rt_fail(s, D_RUN_FAULT, "output '%s' has %lld bytes, its shape needs %lld", rt_name(s, t->name),
                       (long long)s->tensors[tensor].size, (long long)out->size);
    if (!(s->mode & NPURT_DATA))
        return NPUC_OK;
    out->data = out->size ? dense_data(s, tensor, out->size) : nothing;
    if (out->data)
        return NPUC_OK;
    return s->error[0] ? NPUC_E_INVALID : rt_fail(s, D_RUN_FAULT, "output '%s' was not computed", rt_name(s, t->name));
}

enum npuc_status npurt_output(npurt_session *s, const char *name, struct npurt_tensor *out)
{
    if (!s->ran)
        return rt_fail(s, D_USAGE, "there is no finished run to take '%.100s' from", name);
    for (int32_t i = 0; i < s->entry->n_outputs; i++)
        if (strcmp(str_text(&s->plan->strings, s->plan->tensors.data[s->entry->outputs[i]].name), name) == 0) {
            const struct arena_mark mark = arena_mark(&s->scratch);
            const enum npuc_status st = fetch_output(s, s->entry->outputs[i], out);
            arena_release(&s->scratch, mark);
            return st;
        }
    return rt_fail(s, D_USAGE, "the plan has no output '%.100s'", name);
}
