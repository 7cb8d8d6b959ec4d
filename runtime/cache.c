/* KV caches: persistent buffers of capacity rows. Rows [0, length) are valid. */
#include "runtime/rt.h"

#include "base/size.h"
#include "plan/format.h"

#include <stdlib.h>
#include <string.h>

static const char magic[16] = "npuc-kv-cache-3";

static const struct plan_cache *cache_at(const npurt_session *s, int32_t i)
{
    return &s->entry->caches[i];
}

int rt_cache_of_input(const npurt_session *s, int input)
{
    for (int32_t c = 0; c < s->entry->n_caches; c++)
        if (s->plan->tensors.data[s->entry->inputs[input]].name == cache_at(s, c)->input)
            return c;
    return -1;
}

/* Products of the dims before and after the padded axis. */
static bool row_shape(const npurt_session *s, const struct plan_cache *c, int64_t *outer, int64_t *inner)
{
    const struct plan_tensor *t = &s->plan->tensors.data[c->page ? c->in_tensor : c->tensor];
    *outer = 1;
    *inner = dtype_size((enum dtype)t->dtype);
    for (int32_t i = 0; i < t->rank; i++) {
        int64_t d;
        int64_t *of = i < c->axis ? outer : inner;
        if (i != c->axis && (!rt_value(s, t->dims[i], &d) || !size_mul(*of, d, of)))
            return false;
    }
    return *inner > 0;
}

bool rt_cache_capacity(const npurt_session *s, const struct plan_cache *c, int64_t *rows)
{
    if (c->ring) {
        *rows = c->capacity;
        return true;
    }
    const struct plan_tensor *t = &s->plan->tensors.data[c->page ? c->table : c->tensor];
    const int axis = c->page ? 1 : c->axis;
    return axis < t->rank && rt_value(s, t->dims[axis], rows) && size_mul(*rows, c->page ? c->page : 1, rows);
}

uint8_t *rt_cache_row(const npurt_session *s, int32_t i, int64_t outer, int64_t row, int64_t *n)
{
    const struct rt_cache *c = &s->caches[i];
    const struct rt_pages *p = &s->pages;
    if (!c->page) {
        *n = c->capacity - row;
        return c->data + (outer * c->capacity + row) * c->inner;
    }
    const int64_t sequence = outer / c->runs, j = row / c->page, own = c->ring / c->page;
    const int64_t page = own ? sequence * own + j % own : p->table[sequence * p->width + j];
    *n = c->page - row % c->page;
    return c->data + ((page * c->runs + outer % c->runs) * c->page + row % c->page) * c->inner;
}

void rt_cache_get(const npurt_session *s, int32_t i, int64_t first, int64_t rows, uint8_t *dense)
{
    const struct rt_cache *c = &s->caches[i];
    for (int64_t o = 0; o < c->outer; o++)
        for (int64_t row = first, n; row < rows; row += n) {
            const uint8_t *at = rt_cache_row(s, i, o, row, &n);
            n = n < rows - row ? n : rows - row;
            memcpy(dense + (o * (rows - first) + row - first) * c->inner, at, (size_t)(n * c->inner));
        }
}

void rt_cache_set(const npurt_session *s, int32_t i, int64_t first, int64_t rows, const uint8_t *dense)
{
    const struct rt_cache *c = &s->caches[i];
    for (int64_t o = 0; o < c->outer; o++)
        for (int64_t row = first, n; row < rows; row += n) {
            uint8_t *at = rt_cache_row(s, i, o, row, &n);
            n = n < rows - row ? n : rows - row;
            memcpy(at, dense + (o * (rows - first) + row - first) * c->inner, (size_t)(n * c->inner));
        }
}

int32_t rt_paged_output(const npurt_session *s, const struct plan_tensor *t)
{
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        if (cache_at(s, i)->page && cache_at(s, i)->output == t->name)
            return i;
    return -1;
}

/* Runs of a sequence; 0: unknown. */
static int64_t runs_of(const npurt_session *s, const struct plan_cache *c)
{
    const struct plan_tensor *t = &s->plan->tensors.data[c->tensor];
    int64_t runs = 1, d;
    for (int k = 1; k < c->axis; k++)
        if (!rt_value(s, t->dims[k], &d) || d < 1 || !size_mul(runs, d, &runs))
            return 0;
    return runs;
}

/* Are runs whole sequences, and has a ring room for all of theirs? */
static bool pages_fit(const struct rt_cache *c, int64_t size)
{
    int64_t bytes;
    return c->runs > 0 && c->outer % c->runs == 0 &&
           (!c->ring || (size_mul(c->outer, c->ring, &bytes) && size_mul(bytes, c->inner, &bytes) && bytes <= size));
}

/* Grows a cache's storage; the rows keep their meaning only when their shape stays. */
static enum npuc_status place(npurt_session *s, int32_t i, int64_t *address)
{
    const struct plan_tensor *t = &s->plan->tensors.data[cache_at(s, i)->tensor];
    struct rt_tensor *r = &s->tensors[cache_at(s, i)->tensor];
    struct rt_cache *c = &s->caches[i];
    int64_t outer, inner, capacity;
    if (!r->known || !row_shape(s, cache_at(s, i), &outer, &inner) || !rt_cache_capacity(s, cache_at(s, i), &capacity))
        return rt_fail(s, D_INPUT_BINDING, "the size of cache '%s' is not known from the inputs given",
                       rt_name(s, t->name));
    if (c->size && (outer != c->outer || inner != c->inner) && s->cache_length > 0)
        return rt_fail(s, D_INPUT_BINDING,
                       "the cache of '%s' holds %lld sequences, now there are %lld; truncate it first",
                       rt_name(s, cache_at(s, i)->input), (long long)c->outer, (long long)outer);
    if (s->mode & NPURT_DATA && (!c->data || r->size > c->size)) {
        uint8_t *fresh = aligned_alloc(512, (size_t)size_align(r->size + 1, 512));
        if (!fresh)
            return rt_fail(s, D_HOST_MEMORY, "out of host memory: %lld bytes for a cache", (long long)r->size);
        memset(fresh, 0, (size_t)r->size);
        if (c->data)
            memcpy(fresh, c->data, (size_t)c->size);
        free(c->data);
        c->data = fresh;
    }
    *c = (struct rt_cache){.data = c->data,
                           .size = r->size > c->size ? r->size : c->size,
                           .address = *address,
                           .outer = outer,
                           .inner = inner,
                           .capacity = capacity,
                           .page = cache_at(s, i)->page,
                           .runs = runs_of(s, cache_at(s, i)),
                           .ring = cache_at(s, i)->ring};
    if (c->page && !pages_fit(c, r->size))
        return rt_fail(s, D_RUN_FAULT, "'%s' does not hold the rows of its sequences", rt_name(s, t->name));
    r->data = c->data;
    r->address = *address;
    *address += size_align(c->size, 512);
    return NPUC_OK;
}

enum npuc_status rt_cache_place(npurt_session *s)
{
    int64_t address = s->weights_address_end;
    enum npuc_status st = NPUC_OK;
    for (int32_t i = 0; st == NPUC_OK && i < s->entry->n_caches; i++)
        st = place(s, i, &address);
    return st == NPUC_OK ? rt_pages_place(s, &address) : st;
}

/* A past value that the user gives replaces what the cache holds; the rest of a cache is zero, as a padded tensor's
 * would be. */
enum npuc_status rt_cache_load(npurt_session *s)
{
    for (int32_t i = 0; i < s->entry->n_inputs; i++) {
        const int c = rt_cache_of_input(s, i);
        if (c < 0 || !s->inputs[i].set || !s->inputs[i].data)
            continue;
        const uint8_t *given = s->inputs[i].data;
        uint8_t *source;
        if (cache_at(s, c)->code) {
            const enum npuc_status st = rt_cache_encode(s, cache_at(s, c), s->inputs[i].dtype, given);
            if (st != NPUC_OK)
                return st;
            continue;
        }
        if (cache_at(s, c)->page) {
            int64_t past;
            if (rt_value(s, cache_at(s, c)->past, &past))
                rt_cache_set(s, c, 0, past, given);
            continue;
        }
        memcpy(&source, &given, sizeof source); /* only read */
        const int32_t view = cache_at(s, c)->in_tensor;
        enum npuc_status st = NPUC_OK;
        if (rt_is_dense(s, view) && s->tensors[view].data)
            memcpy(s->tensors[view].data, given, (size_t)s->tensors[view].size);
        else
            st = rt_dense(s, view, source, false);
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

/* ---- public ---- */

int64_t npurt_cache_length(const npurt_session *s)
{
    return s->cache_length;
}

int64_t npurt_cache_capacity(const npurt_session *s)
{
    const struct plan_cache *c = s->entry->n_caches ? cache_at(s, 0) : NULL;
    if (c && c->ring)
        return c->capacity;
    const struct plan_tensor *t = c ? &s->plan->tensors.data[c->page ? c->table : c->tensor] : NULL;
    const int axis = c && !c->page ? c->axis : 1;
    int64_t n = 0;
    return t && axis < t->rank && expr_is_const(&s->plan->exprs, t->dims[axis], &n) ? n * (c->page ? c->page : 1) : 0;
}

enum npuc_status npurt_cache_truncate(npurt_session *s, int64_t length)
{
    if (length < 0 || length > s->cache_length)
        return rt_fail(s, D_USAGE, "cannot truncate a cache of %lld rows to %lld", (long long)s->cache_length,
                       (long long)length);
    const enum npuc_status st = rt_rings_check(s, s, length);
    if (st != NPUC_OK)
        return st;
    s->cache_length = length;
    for (int64_t b = 0; length == 0 && b < s->n_written; b++)
        s->written[b] = 0;
    rt_pages_release(s, length);
    return NPUC_OK;
}

/* Saved: the header, the rows that sequences with rings had, then each cache's valid rows, run by run. */
struct header {
    char magic[16];
    uint64_t plan; /* whose caches they are */
    int64_t n_caches, length;
    int64_t n_written; /* sequences, whose rt_rings follow: i64 rows that each had */
};
struct cache_header {
    int64_t outer, inner, first, rows; /* rows [first, rows) follow */
};

/* The checksum over all bytes of the plan. */
static uint64_t identity(const npurt_session *s)
{
    uint64_t hash = 0;
    if (s->plan->map.data && s->plan->map.size >= PLAN_HEADER_SIZE)
        memcpy(&hash, s->plan->map.data + PLAN_AT_HEADER_HASH, sizeof hash);
    return hash;
}

static void keep_first(void *user, const char *line)
{
    npurt_session *s = user;
    strncpy(s->error, line, sizeof s->error - 1);
}

/* Sequences whose runs are `outer`; 0: unknown. */
static int64_t sequences_of(const npurt_session *s, int32_t i, int64_t outer)
{
    const struct plan_cache *c = cache_at(s, i);
    const struct plan_tensor *t = &s->plan->tensors.data[c->tensor];
    int64_t runs = 1, d;
    for (int k = 1; k < c->axis; k++)
        if (!expr_is_const(&s->plan->exprs, t->dims[k], &d) || d < 1 || !size_mul(runs, d, &runs))
            return 0;
    return outer % runs == 0 ? outer / runs : 0;
}

static int64_t capacity_of(const struct rt_cache *c)
{
    return c->outer > 0 && c->inner > 0 ? c->capacity : 0;
}

/* Rows of run `outer`, written to w. */
static void put_run(const npurt_session *s, int32_t i, int64_t outer, const struct cache_header *h,
                    struct file_writer *w)
{
    for (int64_t row = h->first, n; row < h->rows; row += n) {
        const uint8_t *at = rt_cache_row(s, i, outer, row, &n);
        n = n < h->rows - row ? n : h->rows - row;
        file_writer_put(w, at, n * s->caches[i].inner);
    }
}

/* From there on `rows` rows are all that a ring has, each place once; all rows of another cache. */
static int64_t first_slot(const struct rt_cache *c, int64_t rows)
{
    return c->ring && rows > c->ring ? rows - c->ring : 0;
}

enum npuc_status npurt_cache_save(npurt_session *s, const char *path)
{
    struct diag d;
    diag_init(&d, keep_first, s);
    struct header h = {
        .plan = identity(s), .n_caches = s->entry->n_caches, .length = s->cache_length, .n_written = s->n_written};
    memcpy(h.magic, magic, sizeof magic);
    struct file_writer *w = malloc(sizeof *w);
    if (!w)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    enum npuc_status st = file_writer_open(w, path, &d);
    if (st != NPUC_OK) {
        free(w);
        return st;
    }
    file_writer_put(w, &h, (int64_t)sizeof h);
    if (s->n_written > 0)
        file_writer_put(w, s->written, s->n_written * (int64_t)sizeof *s->written);
    for (int32_t i = 0; i < s->entry->n_caches; i++) {
        const struct rt_cache *c = &s->caches[i];
        const int64_t rows = cache_at(s, i)->grows ? s->cache_length : capacity_of(c);
        const struct cache_header ch = {c->outer, c->inner, c->data ? first_slot(c, rows) : 0, c->data ? rows : 0};
        file_writer_put(w, &ch, (int64_t)sizeof ch);
        for (int64_t o = 0; c->data && o < c->outer; o++)
            put_run(s, i, o, &ch, w);
    }
    st = file_writer_commit(w, &d);
    if (st != NPUC_OK)
        file_writer_abort(w);
    free(w);
    return st;
}

/* Rows of memory for each run: the capacity, or those of as many pages as the pool has, at least. */
static bool rows_of_pool(const npurt_session *s, int32_t i, const struct cache_header *h, int64_t rows, int64_t *all)
{
    const struct plan_cache *c = cache_at(s, i);
    const struct plan_tensor *t = &s->plan->tensors.data[c->tensor];
    const int64_t sequences = sequences_of(s, i, h->outer);
    int64_t pages;
    *all = rows;
    if (c->ring)
        *all = c->ring;
    if (!c->page || c->ring)
        return true;
    if (sequences < 1)
        return false;
    if (!expr_is_const(&s->plan->exprs, t->dims[0], &pages))
        pages = sequences * (rows / c->page) + 1;
    return size_mul(pages, c->page, all) && size_add(*all, sequences - 1, all) && (*all /= sequences, true);
}

/* Storage before the first run: sized for the rows to come, grown when bound. */
static enum npuc_status make_room(npurt_session *s, int32_t i, const struct cache_header *h)
{
    struct rt_cache *c = &s->caches[i];
    const int64_t rows = npurt_cache_capacity(s), sequences = sequences_of(s, i, h->outer);
    int64_t row, all;
    if (c->data || h->outer <= 0 || h->inner <= 0)
        return NPUC_OK;
    if (cache_at(s, i)->page && sequences < 1)
        return rt_fail(s, D_INPUT_FILE, "the saved cache has another shape");
    if (!rows_of_pool(s, i, h, rows, &all) || rows < h->rows || !size_mul(h->outer, h->inner, &row) ||
        !size_mul(row, all, &c->size) || c->size > (int64_t)1 << 48)
        return rt_fail(s, D_INPUT_FILE, "the cache has %lld rows, this plan's %lld", (long long)h->rows,
                       (long long)rows);
    c->data = aligned_alloc(512, (size_t)size_align(c->size + 1, 512));
    if (!c->data) {
        c->size = 0;
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    }
    memset(c->data, 0, (size_t)c->size);
    c->outer = h->outer;
    c->inner = h->inner;
    c->capacity = rows;
    c->page = cache_at(s, i)->page;
    c->ring = cache_at(s, i)->ring;
    c->runs = sequences > 0 ? h->outer / sequences : 0;
    s->bound = false;
    return NPUC_OK;
}

/* Cache i from *at on; `write` false: only looked at. */
static enum npuc_status restore_one(npurt_session *s, int32_t i, const struct file_map *m, int64_t *at, bool write)
{
    struct rt_cache *c = &s->caches[i];
    struct cache_header ch;
    int64_t bytes, row;
    if (!size_in(*at, (int64_t)sizeof ch, m->size))
        return rt_fail(s, D_INPUT_FILE, "the saved cache ends early");
    memcpy(&ch, m->data + *at, sizeof ch);
    *at += (int64_t)sizeof ch;
    if (ch.rows < 0 || ch.first < 0 || ch.first > ch.rows || !size_mul(ch.rows - ch.first, ch.inner, &row) ||
        !size_mul(row, ch.outer, &bytes) || !size_in(*at, bytes, m->size))
        return rt_fail(s, D_INPUT_FILE, "the saved cache ends early");
    if (bytes == 0)
        return NPUC_OK;
    enum npuc_status st = make_room(s, i, &ch);
    if (st != NPUC_OK)
        return st;
    if (ch.outer != c->outer || ch.inner != c->inner || ch.rows > capacity_of(c))
        return rt_fail(s, D_INPUT_FILE, "the saved cache has another shape");
    if (ch.first > 0 && (!c->ring || ch.rows - ch.first > c->ring))
        return rt_fail(s, D_INPUT_FILE, "the saved cache lacks rows");
    if (write && c->page && !c->ring)
        st = rt_pages_hold(s, sequences_of(s, i, ch.outer), ch.rows);
    if (st != NPUC_OK)
        return st;
    if (write)
        rt_cache_set(s, i, ch.first, ch.rows, m->data + *at);
    *at += bytes;
    return NPUC_OK;
}

static enum npuc_status restore_written(npurt_session *s, const struct file_map *m, int64_t n)
{
    const enum npuc_status st = rt_rings_note(s, NULL, n);
    if (st == NPUC_OK)
        memcpy(s->written, m->data + sizeof(struct header), (size_t)n * sizeof *s->written);
    return st;
}

enum npuc_status npurt_cache_restore(npurt_session *s, const char *path)
{
    struct diag d;
    struct file_map m;
    struct header h;
    diag_init(&d, keep_first, s);
    enum npuc_status st = file_map_open(&m, path, &d);
    if (st != NPUC_OK)
        return st;
    int64_t at = (int64_t)sizeof h;
    if (m.size >= at)
        memcpy(&h, m.data, sizeof h);
    if (m.size < at || memcmp(h.magic, magic, sizeof magic) != 0)
        st = rt_fail(s, D_INPUT_FILE, "%s holds no caches that npuc saved", path);
    else if (h.n_written < 0 || h.n_written > (m.size - at) / (int64_t)sizeof *s->written)
        st = rt_fail(s, D_INPUT_FILE, "the saved cache ends early");
    else if (h.plan != identity(s) || h.n_caches != s->entry->n_caches || h.length < 0)
        st = rt_fail(s, D_INPUT_FILE,
                     "%s holds the caches of another plan; what a model computed for them is of no use to this one",
                     path);
    for (int write = 0; write < 2; write++) { /* what is refused leaves the caches as they are */
        at = (int64_t)sizeof h + h.n_written * (int64_t)sizeof *s->written;
        for (int32_t i = 0; st == NPUC_OK && i < s->entry->n_caches; i++)
            st = restore_one(s, i, &m, &at, write);
    }
    if (st == NPUC_OK)
        st = restore_written(s, &m, h.n_written);
    file_map_close(&m);
    if (st == NPUC_OK)
        s->cache_length = h.length;
    return st;
}

/* Rows of cache i of `from`, as many as `to` is to have. */
static enum npuc_status fork_one(npurt_session *to, const npurt_session *from, int32_t i, int64_t length)
{
    const struct rt_cache *a = &from->caches[i];
    struct rt_cache *b = &to->caches[i];
    const int64_t rows = cache_at(to, i)->grows ? length : capacity_of(a);
    const struct cache_header h = {a->outer, a->inner, first_slot(a, rows), rows};
    if (!a->data || rows == 0)
        return NPUC_OK;
    const enum npuc_status st = make_room(to, i, &h);
    if (st != NPUC_OK)
        return st;
    if (a->outer != b->outer || a->inner != b->inner || rows > capacity_of(b))
        return rt_fail(to, D_USAGE, "the caches have another shape: %lld sequences, here %lld", (long long)a->outer,
                       (long long)b->outer);
    const enum npuc_status held =
        b->page && !b->ring ? rt_pages_hold(to, sequences_of(to, i, a->outer), rows) : NPUC_OK;
    for (int64_t o = 0; held == NPUC_OK && o < a->outer; o++)
        for (int64_t row = h.first, n, m; row < rows; row += n) {
            uint8_t *at = rt_cache_row(to, i, o, row, &m);
            const uint8_t *in = rt_cache_row(from, i, o, row, &n);
            n = n < m ? n : m;
            n = n < rows - row ? n : rows - row;
            memcpy(at, in, (size_t)(n * a->inner));
        }
    return held;
}

enum npuc_status npurt_cache_fork(npurt_session *to, const npurt_session *from, int64_t length)
{
    enum npuc_status st = NPUC_OK;
    if (to->owner != from->owner && (identity(to) != identity(from) || !identity(to)))
        return rt_fail(to, D_USAGE, "caches of another plan cannot be taken over");
    if (length < 0 || length > from->cache_length)
        return rt_fail(to, D_USAGE, "cannot take over %lld rows of a cache of %lld", (long long)length,
                       (long long)from->cache_length);
    st = rt_rings_check(to, from, length);
    for (int32_t i = 0; st == NPUC_OK && to != from && i < to->entry->n_caches; i++)
        st = fork_one(to, from, i, length);
    if (st == NPUC_OK && to != from)
        st = rt_rings_note(to, length > 0 ? from->written : NULL, from->n_written);
    if (st == NPUC_OK)
        to->cache_length = length;
    return st;
}
