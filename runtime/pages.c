/* Pages of caches that have a block table: sequences take them from the pool as they grow and give them back when they
 * are truncated. A page may belong to several sequences that begin alike; who writes to it gets a copy first. Page 0 is
 * nobody's: a table shows it behind a sequence's own pages. */
#include "runtime/rt.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

/* Rings have pages, too, but no table. */
static bool in_table(const struct plan_cache *c)
{
    return c->page && !c->ring;
}

const struct plan_cache *rt_paged_cache(const npurt_session *s)
{
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        if (in_table(&s->entry->caches[i]))
            return &s->entry->caches[i];
    return NULL;
}

static int64_t pages_for(const struct rt_pages *p, int64_t rows)
{
    return rows / p->page + (rows % p->page != 0);
}

static int32_t *column(const struct rt_pages *p, int64_t sequence, int64_t i)
{
    return &p->table[sequence * p->width + i];
}

static void forget(struct rt_pages *p)
{
    free(p->table);
    free(p->held);
    free(p->users);
    *p = (struct rt_pages){0};
}

void rt_pages_free(npurt_session *s)
{
    forget(&s->pages);
}

/* A table for so many sequences, and a pool as the plan says: a constant number of pages, or all they can have. */
static enum npuc_status resize(npurt_session *s, int64_t sequences)
{
    const struct plan_cache *c = rt_paged_cache(s);
    const struct plan_tensor *table = &s->plan->tensors.data[c->table], *pool = &s->plan->tensors.data[c->tensor];
    struct rt_pages *p = &s->pages, made = {.sequences = sequences, .page = c->page};
    int64_t cells = 0;
    if (!expr_is_const(&s->plan->exprs, table->dims[1], &made.width) || made.width < 1 || sequences < 0 ||
        !size_mul(sequences, made.width, &cells) || cells >= INT32_MAX)
        return rt_fail(s, D_LIMIT, "a block table of %lld sequences is too large", (long long)sequences);
    if (!expr_is_const(&s->plan->exprs, pool->dims[0], &made.total))
        made.total = cells + 1;
    if (p->sequences == sequences && p->width == made.width && p->total == made.total && p->page == made.page &&
        p->table)
        return NPUC_OK;
    if (made.total < 1 || made.total > INT32_MAX)
        return rt_fail(s, D_LIMIT, "a pool of %lld pages", (long long)made.total);
    forget(p);
    made.table = calloc((size_t)cells + 1, sizeof *made.table);
    made.held = calloc((size_t)sequences + 1, sizeof *made.held);
    made.users = calloc((size_t)made.total, sizeof *made.users);
    *p = made;
    if (made.table && made.held && made.users)
        return NPUC_OK;
    forget(p);
    return rt_fail(s, D_HOST_MEMORY, "out of host memory");
}

static int64_t page_bytes(const npurt_session *s, int32_t i)
{
    const struct rt_cache *c = &s->caches[i];
    return s->pages.sequences > 0 ? c->outer / s->pages.sequences * c->page * c->inner : 0;
}

enum npuc_status rt_pages_place(npurt_session *s, int64_t *address)
{
    const struct plan_cache *c = rt_paged_cache(s);
    int64_t sequences;
    if (!c)
        return NPUC_OK;
    struct rt_tensor *t = &s->tensors[c->table];
    if (!t->known || !rt_value(s, s->plan->tensors.data[c->table].dims[0], &sequences))
        return rt_fail(s, D_INPUT_BINDING, "the number of sequences is not known from the inputs given");
    const enum npuc_status st = resize(s, sequences);
    if (st != NPUC_OK)
        return st;
    for (int32_t i = 0; i < s->entry->n_caches; i++) {
        const struct plan_cache *k = &s->entry->caches[i];
        int64_t bytes;
        if (in_table(k) &&
            (k->page != c->page || k->table != c->table || (sequences > 0 && s->caches[i].outer % sequences != 0) ||
             !size_mul(page_bytes(s, i), s->pages.total, &bytes) || bytes > s->caches[i].size))
            return rt_fail(s, D_RUN_FAULT, "the pool of '%s' does not fit its block table", rt_name(s, k->input));
    }
    t->data = s->mode & NPURT_DATA ? (uint8_t *)s->pages.table : NULL;
    t->address = *address;
    *address += size_align(t->size, 512);
    return NPUC_OK;
}

/* ---- handing out ---- */

static int32_t free_page(struct rt_pages *p)
{
    for (p->lowest = p->lowest > 1 ? p->lowest : 1; p->lowest < p->total; p->lowest++)
        if (p->users[p->lowest] == 0)
            return (int32_t)p->lowest;
    return 0;
}

static bool take_page(struct rt_pages *p, int32_t *cell)
{
    *cell = free_page(p);
    p->users[*cell] += *cell > 0;
    p->used += *cell > 0;
    return *cell > 0;
}

static void drop_page(struct rt_pages *p, int32_t *cell)
{
    p->used -= --p->users[*cell] == 0;
    p->lowest = *cell < p->lowest ? *cell : p->lowest;
    *cell = 0;
}

static void shrink(struct rt_pages *p, int64_t sequence, int64_t pages)
{
    while (p->held[sequence] > pages)
        drop_page(p, column(p, sequence, --p->held[sequence]));
}

/* A page that others have as well: its bytes in one of the sequence's own. */
static bool separate(npurt_session *s, int32_t *cell)
{
    struct rt_pages *p = &s->pages;
    const int32_t old = *cell;
    if (p->users[old] < 2)
        return true;
    if (!take_page(p, cell)) {
        *cell = old;
        return false;
    }
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        if (in_table(&s->entry->caches[i]) && s->caches[i].data)
            memcpy(s->caches[i].data + *cell * page_bytes(s, i), s->caches[i].data + old * page_bytes(s, i),
                   (size_t)page_bytes(s, i));
    p->users[old]--;
    return true;
}

/* Pages of rows [0, end) of a sequence, of which those from row `begin` on are its own. */
static bool grow(npurt_session *s, int64_t sequence, int64_t begin, int64_t end)
{
    struct rt_pages *p = &s->pages;
    const int64_t pages = pages_for(p, end);
    bool ok = true;
    for (int64_t i = begin / p->page; ok && i < pages && i < p->held[sequence]; i++)
        ok = separate(s, column(p, sequence, i));
    while (ok && p->held[sequence] < pages) {
        ok = take_page(p, column(p, sequence, p->held[sequence]));
        p->held[sequence] += ok;
    }
    return ok;
}

/* Who has what, kept to go back to. */
static bool copy_state(struct rt_pages *p, struct arena *a, struct rt_pages *kept)
{
    *kept = *p;
    kept->table = arena_copy(a, p->table, p->sequences * p->width * (int64_t)sizeof *p->table);
    kept->held = arena_copy(a, p->held, p->sequences * (int64_t)sizeof *p->held);
    kept->users = arena_copy(a, p->users, p->total * (int64_t)sizeof *p->users);
    return kept->table && kept->held && kept->users;
}

static void go_back(struct rt_pages *p, const struct rt_pages *kept)
{
    memcpy(p->table, kept->table, (size_t)(p->sequences * p->width) * sizeof *p->table);
    memcpy(p->held, kept->held, (size_t)p->sequences * sizeof *p->held);
    memcpy(p->users, kept->users, (size_t)p->total * sizeof *p->users);
    p->used = kept->used;
    p->lowest = kept->lowest;
}

/* Have all sequences their pages for those rows, and no others? */
static bool are_taken(const struct rt_pages *p, const int64_t *begins, int64_t begin, int64_t rows)
{
    bool all = true;
    for (int64_t b = 0; all && b < p->sequences; b++) {
        const int64_t from = begins ? begins[b] : begin;
        all = p->held[b] == pages_for(p, from + rows);
        for (int64_t i = from / p->page; all && i < p->held[b]; i++)
            all = p->users[*column(p, b, i)] < 2;
    }
    return all;
}

/* Rows [begins[b], begins[b] + rows) of each sequence are written; begins NULL: from `begin` on. */
static enum npuc_status take(npurt_session *s, const int64_t *begins, int64_t begin, int64_t rows)
{
    struct rt_pages *p = &s->pages, kept;
    int64_t wanted = 0;
    bool ok = true;
    if (are_taken(p, begins, begin, rows))
        return NPUC_OK;
    const struct arena_mark mark = arena_mark(&s->scratch);
    if (!copy_state(p, &s->scratch, &kept)) {
        arena_release(&s->scratch, mark);
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    }
    for (int64_t b = 0; b < p->sequences; b++)
        shrink(p, b, pages_for(p, (begins ? begins[b] : begin) + rows));
    for (int64_t b = 0; b < p->sequences; b++) {
        const int64_t from = begins ? begins[b] : begin;
        wanted += pages_for(p, from + rows);
        ok = ok && grow(s, b, from, from + rows);
    }
    if (!ok)
        go_back(p, &kept);
    arena_release(&s->scratch, mark);
    return ok ? NPUC_OK
              : rt_fail(s, D_LIMIT,
                        "%lld pages of %lld rows are needed for %lld sequences and the pool has %lld, of which %lld "
                        "are in use; "
                        "truncate them, or compile with a larger --kv-pool",
                        (long long)wanted, (long long)p->page, (long long)p->sequences, (long long)p->total - 1,
                        (long long)p->used);
}

bool rt_past_is_given(const npurt_session *s)
{
    for (int32_t i = 0; i < s->entry->n_inputs; i++)
        if (rt_cache_of_input(s, i) >= 0 && s->inputs[i].set && s->inputs[i].data)
            return true;
    return false;
}

enum npuc_status rt_begins_fit(npurt_session *s, int64_t sequences)
{
    if (!s->begins || s->n_begins == sequences)
        return NPUC_OK;
    return rt_fail(s, D_INPUT_BINDING, "tokens of %lld sequences are given, and the caches have %lld",
                   (long long)s->n_begins, (long long)sequences);
}

enum npuc_status rt_pages_take(npurt_session *s)
{
    const struct plan_cache *c = rt_paged_cache(s);
    int64_t past, present;
    if (!c)
        return NPUC_OK;
    if (!rt_value(s, c->past, &past) || !rt_value(s, c->present, &present) || past < 0 || present < past)
        return rt_fail(s, D_INPUT_BINDING, "the rows of the cache '%s' are not known", rt_name(s, c->input));
    const bool given = rt_past_is_given(s);
    const enum npuc_status st = rt_begins_fit(s, s->pages.sequences);
    if (st != NPUC_OK)
        return st;
    return take(s, given ? NULL : s->begins, given ? 0 : past, given ? present : present - past);
}

enum npuc_status rt_pages_hold(npurt_session *s, int64_t sequences, int64_t rows)
{
    if (!rt_paged_cache(s))
        return NPUC_OK;
    struct rt_pages *p = &s->pages, old = *p;
    if (old.sequences != sequences)
        *p = (struct rt_pages){0}; /* what is refused leaves the old table */
    enum npuc_status st = resize(s, sequences);
    st = st == NPUC_OK ? take(s, NULL, 0, rows) : st;
    if (old.sequences == sequences)
        return st;
    forget(st == NPUC_OK ? &old : p);
    if (st != NPUC_OK)
        *p = old;
    return st;
}

void rt_pages_release(npurt_session *s, int64_t rows)
{
    struct rt_pages *p = &s->pages;
    for (int64_t b = 0; p->table && b < p->sequences; b++)
        shrink(p, b, pages_for(p, rows));
}

/* ---- public ---- */

int64_t npurt_cache_pages(const npurt_session *s, int64_t *used)
{
    *used = s->pages.used;
    return s->pages.total > 0 ? s->pages.total - 1 : 0;
}

/* A cache that has neither pages nor a ring, the same rows of all sequences behind each other. */
static const struct plan_cache *whole_cache(const npurt_session *s)
{
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        if (!s->entry->caches[i].page)
            return &s->entry->caches[i];
    return NULL;
}

int64_t npurt_cache_page(const npurt_session *s)
{
    const struct plan_cache *c = rt_paged_cache(s);
    return c && !whole_cache(s) ? c->page : 0;
}

enum npuc_status npurt_cache_spread(npurt_session *s, int64_t sequences)
{
    struct rt_pages *p = &s->pages, one = *p;
    const struct plan_cache *whole = whole_cache(s);
    if (!rt_paged_cache(s) || !p->table || p->sequences != 1)
        return rt_fail(s, D_USAGE, "one sequence in pages can become several; here are %lld%s", (long long)p->sequences,
                       rt_paged_cache(s) ? "" : ", and the plan has no pages (--kv-page)");
    if (whole)
        return rt_fail(s, D_USAGE, "the cache '%s' is in one piece, whose rows sequences cannot share",
                       rt_name(s, whole->input));
    if (sequences < 1)
        return rt_fail(s, D_USAGE, "cannot spread a sequence over %lld", (long long)sequences);
    *p = (struct rt_pages){0};
    enum npuc_status st = resize(s, sequences);
    if (st != NPUC_OK || p->total < one.total) {
        if (st == NPUC_OK)
            forget(p);
        *p = one;
        return st == NPUC_OK ? rt_fail(s, D_LIMIT, "the pool would shrink") : st;
    }
    memcpy(p->users, one.users, (size_t)one.total * sizeof *p->users);
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t i = 0; i < one.held[0]; i++) {
            *column(p, b, i) = one.table[i];
            p->users[one.table[i]] += b > 0;
            p->held[b] = one.held[0];
        }
    p->used = one.used;
    st = rt_rings_spread(s, sequences);
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        s->caches[i].outer *= s->caches[i].page ? sequences : 1;
    s->bound = false;
    forget(&one);
    return st;
}
