/* Bytes of tensors. Emulated GM holds, from address 0: weights, caches, then the pool of inputs, outputs and
 * temporaries, placed by lifetime. The pool is placed anew only when a tensor outgrows its reservation; from the second
 * placement on reservations have room to grow, so that a decode step whose attention scores get longer by one does not
 * place again. */
#include "runtime/rt.h"

#include "base/size.h"
#include "plan/memory.h"

#include <stdlib.h>
#include <string.h>

#define GM_ALIGN 512

static bool in_pool(const npurt_session *s, int64_t i)
{
    const struct plan_tensor *t = &s->plan->tensors.data[i];
    return s->in_entry[i] && (t->kind == PT_TEMP || t->kind == PT_OUTPUT || t->kind == PT_INPUT);
}

/* At most 1/8 more: sizes with three significant bits. */
static int64_t roomy(int64_t size)
{
    int64_t unit = GM_ALIGN;
    while (unit < INT64_MAX / 32 && unit * 16 < size)
        unit *= 2;
    return size > INT64_MAX - unit ? size : size_align(size, unit);
}

/* The user's bytes are as many as the shape says; programs are held to the size that the plan declares. */
static bool input_fits(const npurt_session *s, const struct plan_tensor *t, int64_t size)
{
    int64_t dims[NPURT_MAX_RANK], n = 1, bytes;
    bool known = rt_dims(s, t, dims);
    for (int32_t i = 0; known && i < t->rank; i++)
        known = size_mul(n, dims[i], &n);
    return !known || (dtype_bytes((enum dtype)t->dtype, n, &bytes) && size <= bytes);
}

static enum npuc_status measure(npurt_session *s)
{
    for (int64_t i = 0; i < s->plan->tensors.len; i++) {
        const struct plan_tensor *t = &s->plan->tensors.data[i];
        struct rt_tensor *r = &s->tensors[i];
        r->known = s->in_entry[i] && rt_value(s, t->size, &r->size);
        if (r->known && (r->size < 0 || r->size > (int64_t)1 << 48))
            return rt_fail(s, D_LIMIT, "tensor '%s' would have %lld bytes", rt_name(s, t->name), (long long)r->size);
        if (r->known && t->kind == PT_INPUT && !input_fits(s, t, r->size))
            return rt_fail(s, D_RUN_FAULT, "input '%s' has a size of %lld bytes in the plan, more than its shape",
                           rt_name(s, t->name), (long long)r->size);
    }
    return NPUC_OK;
}

static bool fits(const npurt_session *s)
{
    for (int64_t i = 0; s->placed && i < s->plan->tensors.len; i++)
        if (in_pool(s, i) && s->tensors[i].known && s->tensors[i].size > s->placed_size[i])
            return false;
    return s->placed;
}

static bool reserve_pool(npurt_session *s)
{
    if (!(s->mode & NPURT_DATA) || s->pool_size <= s->pool_room)
        return true;
    free(s->pool_data);
    s->pool_room = 0;
    s->pool_data = aligned_alloc(GM_ALIGN, (size_t)size_align(s->pool_size, GM_ALIGN));
    if (!s->pool_data)
        return false;
    s->pool_room = s->pool_size;
    return true;
}

/* Memory is given out in units of GM_ALIGN: the bound on live bytes counts them too. */
static struct mem_item lifetime(const npurt_session *s, int64_t i)
{
    const struct plan_tensor *t = &s->plan->tensors.data[i];
    const int32_t first = s->entry->first_step, last = first + s->entry->n_steps;
    struct mem_item m = {.size = s->placed ? roomy(s->tensors[i].size) : size_align(s->tensors[i].size, GM_ALIGN),
                         .first = first,
                         .last = last};
    if (t->kind == PT_TEMP && t->first >= first && t->last >= t->first && t->last <= last) {
        m.first = t->first;
        m.last = t->last;
    }
    return m;
}

static enum npuc_status place_pool(npurt_session *s)
{
    const struct arena_mark mark = arena_mark(&s->scratch);
    const int64_t n = s->plan->tensors.len;
    struct mem_item *items = ARENA_ARRAY(&s->scratch, struct mem_item, n + 1);
    int64_t n_items = 0;
    for (int64_t i = 0; items && i < n; i++) {
        s->placed_size[i] = -1;
        if (in_pool(s, i) && s->tensors[i].known) {
            items[n_items] = lifetime(s, i);
            s->placed_size[i] = items[n_items++].size;
        }
    }
    const struct mem_result m = items ? mem_place(items, n_items, GM_ALIGN, &s->scratch) : (struct mem_result){-1, 0};
    for (int64_t i = 0, k = 0; m.peak >= 0 && i < n; i++)
        if (s->placed_size[i] >= 0)
            s->pool_offset[i] = items[k++].offset;
    arena_release(&s->scratch, mark);
    s->pool_size = m.peak;
    s->pool_lower_bound = m.lower_bound;
    s->placed = true;
    if (m.peak >= 0)
        return NPUC_OK;
    s->placed = false;
    return rt_fail(s, D_HOST_MEMORY, "out of host memory");
}

static enum npuc_status check_capacity(npurt_session *s)
{
    const double gm = s->has_target ? target_num(&s->target, TK_GM_SIZE) : 0;
    int64_t caches = 0;
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        caches += s->caches[i].size;
    const double need = (double)s->weights_size + (double)caches + (double)s->pool_size;
    return gm > 0 && need > gm ? rt_too_little(s, gm, caches) : NPUC_OK;
}

/* Roots first: aliases follow when all of them have bytes. */
static void point_roots(npurt_session *s, int64_t pool_address)
{
    for (int64_t i = 0; i < s->plan->tensors.len; i++) {
        struct rt_tensor *r = &s->tensors[i];
        if (!in_pool(s, i))
            continue;
        if (s->placed_size[i] >= 0 && r->known) {
            r->data = s->pool_data && s->mode & NPURT_DATA ? s->pool_data + s->pool_offset[i] : NULL;
            r->address = pool_address + s->pool_offset[i];
            r->read_only = false;
        } else {
            r->data = NULL; /* its size is told by a host step */
            r->known = false;
        }
    }
}

/* Inputs are used where the user has them, unless they are not even aligned for their type. */
static void point_inputs(npurt_session *s)
{
    for (int32_t i = 0; i < s->entry->n_inputs; i++) {
        const struct plan_tensor *t = &s->plan->tensors.data[s->entry->inputs[i]];
        struct rt_tensor *r = &s->tensors[s->entry->inputs[i]];
        const uint8_t *given = s->inputs[i].set ? s->inputs[i].data : NULL;
        if (s->inputs[i].set && s->inputs[i].void_given) {
            r->data = NULL; /* a branch that reads it is told so */
            continue;
        }
        if (!given && t->data_size > 0 && s->plan->weights)
            given = s->plan->weights + t->data_offset;
        if (t->kind != PT_INPUT || !(s->mode & NPURT_DATA) || !r->known || !given)
            continue;
        if ((uintptr_t)given % 16 != 0 && r->data) {
            memcpy(r->data, given, (size_t)r->size);
            continue;
        }
        memcpy(&r->data, &given, sizeof given); /* never written: read_only */
        r->read_only = true;
    }
}

/* A view whose size, offset or root is not known has no place yet. */
static enum npuc_status point_view(npurt_session *s, int32_t i)
{
    const struct plan_tensor *t = &s->plan->tensors.data[i];
    struct rt_tensor *r = &s->tensors[i];
    const struct rt_tensor *root = &s->tensors[r->root];
    int64_t offset;
    r->known = rt_value(s, t->size, &r->size) && rt_value(s, t->base_offset, &offset) && offset >= 0 && root->known;
    if (!r->known)
        return NPUC_OK;
    if (!size_in(offset, r->size, root->size)) {
        r->known = false;
        return rt_fail(s, D_RUN_FAULT, "view '%s' of %lld bytes at %lld lies outside of its tensor of %lld bytes",
                       rt_name(s, t->name), (long long)r->size, (long long)offset, (long long)root->size);
    }
    r->data = root->data ? root->data + offset : NULL;
    r->address = root->address + offset;
    r->read_only = root->read_only;
    return NPUC_OK;
}

static enum npuc_status point_aliases(npurt_session *s)
{
    enum npuc_status st = NPUC_OK;
    for (int64_t i = 0; st == NPUC_OK && i < s->plan->tensors.len; i++)
        if (s->plan->tensors.data[i].kind == PT_ALIAS && s->in_entry[i])
            st = point_view(s, (int32_t)i);
    return st;
}

/* After a root got another place. A view that does not fit has sizes of the turn before; its use will tell. */
static void point_views(npurt_session *s, int32_t root)
{
    char kept[sizeof s->error];
    memcpy(kept, s->error, sizeof kept);
    for (int32_t v = s->tensors[root].next_view; v >= 0; v = s->tensors[v].next_view)
        if (point_view(s, v) != NPUC_OK)
            memcpy(s->error, kept, sizeof kept);
}

enum npuc_status rt_place(npurt_session *s)
{
    enum npuc_status st = NPUC_OK;
    if (!s->bound) {
        st = measure(s);
        if (st == NPUC_OK)
            st = rt_cache_place(s);
        if (st == NPUC_OK && !fits(s))
            st = place_pool(s);
        if (st == NPUC_OK)
            st = check_capacity(s);
        if (st == NPUC_OK && !reserve_pool(s)) {
            s->placed = false;
            st = rt_fail(s, D_HOST_MEMORY, "out of host memory: %lld bytes for activations", (long long)s->pool_size);
        }
        s->bound = st == NPUC_OK;
    }
    if (st != NPUC_OK)
        return st;
    int64_t address = s->weights_address_end;
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        address += size_align(s->caches[i].size, GM_ALIGN);
    address += size_align(4 * s->pages.sequences * s->pages.width, GM_ALIGN);
    point_roots(s, address);
    point_inputs(s);
    return point_aliases(s);
}

/* ---- tensors whose size is told by steps ---- */

static enum npuc_status own_storage(npurt_session *s, struct rt_tensor *root, bool keep)
{
    const double gm = s->has_target ? target_num(&s->target, TK_GM_SIZE) : 0;
    int64_t room = roomy(root->size + 1);
    if (root->own && root->own_size >= root->size)
        return NPUC_OK;
    if (keep && root->own_size < room && room < INT64_MAX / 2)
        room = size_align(root->size + root->size / 2 + 1, GM_ALIGN);
    const int64_t total = s->own_total - root->own_size + room;
    if (gm > 0 && (double)(s->weights_address_end + s->pool_size + total) > gm)
        return rt_fail(s, D_MEMORY_FULL,
                       "%lld bytes are needed for tensors of which steps tell the size, and %s has %.0f",
                       (long long)(s->weights_address_end + s->pool_size + total), s->target.name, gm);
    uint8_t *fresh = aligned_alloc(GM_ALIGN, (size_t)size_align(room, GM_ALIGN));
    if (!fresh)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory: %lld bytes", (long long)root->size);
    if (keep && root->own)
        memcpy(fresh, root->own, (size_t)root->own_size);
    free(root->own);
    root->own = fresh;
    root->own_size = room;
    s->own_total = total;
    return NPUC_OK;
}

static enum npuc_status place_root(npurt_session *s, int32_t i, bool keep)
{
    struct rt_tensor *root = &s->tensors[i];
    const struct plan_tensor *t = &s->plan->tensors.data[i];
    root->known = rt_value(s, t->size, &root->size);
    if (t->kind == PT_INPUT && root->known && root->size > 0)
        return rt_fail(s, D_INPUT_BINDING, "input '%s' is given without elements, but the branch that runs reads it",
                       rt_name(s, t->name));
    if (!root->known || root->size < 0 || root->size > (int64_t)1 << 48 || t->kind == PT_CACHE)
        return rt_fail(s, D_RUN_FAULT, "the size of tensor '%s' is not known when it is needed", rt_name(s, t->name));
    if (s->mode & NPURT_DATA) {
        const enum npuc_status st = own_storage(s, root, keep);
        if (st != NPUC_OK)
            return st;
    }
    root->data = s->mode & NPURT_DATA ? root->own : NULL;
    root->address = s->weights_address_end + s->pool_size; /* beyond everything placed: late tensors share a place */
    root->read_only = false;
    point_views(s, i);
    return NPUC_OK;
}

enum npuc_status rt_place_late(npurt_session *s, int32_t tensor)
{
    const int32_t i = s->tensors[tensor].root;
    const struct rt_tensor *root = &s->tensors[i];
    if (rt_is_object(s, tensor))
        return NPUC_OK;
    if (!root->known || (!root->data && s->mode & NPURT_DATA)) {
        const enum npuc_status st = place_root(s, i, false);
        if (st != NPUC_OK)
            return st;
    }
    return i == tensor || s->tensors[tensor].known ? NPUC_OK : point_view(s, tensor);
}

enum npuc_status rt_place_grown(npurt_session *s, int32_t tensor)
{
    const int32_t i = s->tensors[tensor].root;
    const bool late = s->placed_size[i] < 0 && !s->tensors[i].known;
    const enum npuc_status st = late ? place_root(s, i, true) : NPUC_OK;
    return st == NPUC_OK ? rt_place_late(s, tensor) : st;
}

bool rt_exchange(npurt_session *s, int32_t from, int32_t to, int64_t size)
{
    struct rt_tensor *f = &s->tensors[from], *t = &s->tensors[to], kept;
    const bool placed = s->placed_size[from] >= 0;
    int64_t wanted;
    if (f == t || f->root != from || t->root != to || f->read_only || t->read_only || f->size != size ||
        s->placed_size[to] != s->placed_size[from] || !rt_value(s, s->plan->tensors.data[to].size, &wanted) ||
        wanted != size || (placed && (!f->known || !t->known)) || (!placed && f->data != f->own))
        return false;
    kept = *t;
    t->data = f->data;
    t->address = f->address;
    t->own = f->own;
    t->own_size = f->own_size;
    t->size = size;
    t->known = true;
    f->data = placed ? kept.data : kept.own;
    f->address = placed ? kept.address : f->address;
    f->own = kept.own;
    f->own_size = kept.own_size;
    f->known = placed;
    point_views(s, to);
    point_views(s, from);
    return true;
}

void rt_memory_free(npurt_session *s)
{
    for (int64_t i = 0; s->tensors && i < s->plan->tensors.len; i++)
        free(s->tensors[i].own);
    for (int32_t i = 0; s->caches && i < s->entry->n_caches; i++)
        free(s->caches[i].data);
    rt_pages_free(s);
    rt_rings_free(s);
    rt_objects_free(s);
    free(s->pool_data);
    free(s->out.data);
}
