/* Which bytes of GM are in L2: lines in chunks of 64, the least recently used chunk is evicted when the lines held
 * exceed the cache. Cores are walked in turns of some bytes each, which is about the order in which they run, so that
 * operands that several cores read are found where one of them has left them, and streams larger than the cache are
 * not.
 *
 * Addresses decide: tensors that share bytes share lines. Only shares of bytes are taken from here, not the fate of
 * single reads: cores that ask for the same line at the same time all wait for it. */
#include "runtime/emu/clock_priv.h"

#include "base/size.h"

#include <math.h>
#include <stdlib.h>

#define LINES    64
#define FARTHEST ((int64_t)1 << 60) /* bytes: no tensor is as long */

struct chunk {
    uint64_t held, dirty; /* bit per line */
    int64_t used;         /* time of the last use */
    bool seen;
};
struct use { /* counts as long as the chunk was not used again */
    int64_t time;
    int32_t chunk;
};
struct region { /* GM between two addresses that tensors of the launch cover */
    int64_t lo, hi;
    int32_t first; /* its first chunk */
    bool warm;
    int64_t ahead; /* address up to which it is warm; then: chunks */
};
/* Reads that found everything, or brought it, and writes: the same again within a part of the cache's size of new lines
 * finds everything. A part of a quarter moves a product's time by one percent, one of a 32nd by nothing. When all of
 * the launch's memory fits, that is for ever. */
#define RECENT_BITS 14
#define RECENT_PART 32
struct recent {
    uint64_t key;
    int64_t entered; /* bytes that had entered the cache by then */
};
struct clock_l2 {
    const struct emu_launch *launch;
    int64_t line, capacity, used, entered;
    struct clock_written written;
    int64_t kept;         /* bytes that reads brought in */
    int64_t recent_bytes; /* for so many new bytes a move stays recent */
    int shift;            /* line = 1 << shift: the largest power of two within the target's line */
    struct recent *recent;
    struct clock_traffic *traffic; /* per tensor */
    struct region *regions;
    int32_t *region_of; /* per tensor */
    bool *bypass;       /* per tensor: reads leave nothing here */
    int32_t n_regions, n_chunks;
    struct chunk *chunks;
    int64_t time;     /* uses of chunks so far */
    struct use *uses; /* in their order; NULL: nothing is ever evicted */
    int64_t n_uses, first_use, max_uses;
};

void clock_l2_free(struct clock_l2 *c)
{
    if (!c)
        return;
    free(c->traffic);
    free(c->regions);
    free(c->region_of);
    free(c->bypass);
    free(c->chunks);
    free(c->uses);
    free(c->recent);
    free(c);
}

/* Regions of all tensors, those that overlap made one. */
static void merge_regions(struct clock_l2 *c, int64_t n)
{
    for (int64_t t = 0; t < n; t++) {
        const struct emu_tensor *x = &c->launch->tensors[t];
        struct region r = {x->address, x->address + (x->size > 0 ? x->size : 1), 0, x->warm, x->address + x->ahead};
        for (int32_t i = 0; i < c->n_regions;) {
            struct region *o = &c->regions[i];
            if (o->hi <= r.lo || r.hi <= o->lo) {
                i++;
                continue;
            }
            const struct region *low = o->lo < r.lo ? o : &r;
            r = (struct region){low->lo, o->hi > r.hi ? o->hi : r.hi, 0, r.warm || o->warm, low->ahead};
            *o = c->regions[--c->n_regions];
            i = 0;
        }
        c->regions[c->n_regions++] = r;
    }
}

static bool number_chunks(struct clock_l2 *c, int64_t n)
{
    int64_t chunks = 0;
    const int64_t chunk = c->line * LINES;
    c->recent_bytes = c->capacity / RECENT_PART;
    for (int32_t i = 0; i < c->n_regions; i++) {
        struct region *r = &c->regions[i];
        r->lo -= r->lo % c->line;
        r->ahead = (r->ahead - r->lo) / chunk; /* whole chunks */
        r->first = (int32_t)chunks;
        chunks += size_ceil_div(r->hi - r->lo, chunk);
        if (chunks >= INT32_MAX)
            return false;
    }
    for (int64_t t = 0; t < n; t++)
        for (int32_t i = 0; i < c->n_regions; i++)
            if (c->launch->tensors[t].address >= c->regions[i].lo && c->launch->tensors[t].address < c->regions[i].hi)
                c->region_of[t] = i;
    c->n_chunks = (int32_t)chunks;
    if (chunks * chunk <= c->capacity)
        c->recent_bytes = INT64_MAX;
    c->chunks = calloc((size_t)chunks + 1, sizeof *c->chunks);
    c->max_uses = 2 * (chunks + 1);
    if (c->recent_bytes < INT64_MAX)
        c->uses = malloc((size_t)c->max_uses * sizeof *c->uses);
    return c->chunks && (c->uses || c->recent_bytes == INT64_MAX);
}

static void find_bypasses(struct clock_l2 *c, int64_t n)
{
    const struct tile_kernel *k = c->launch->kernel;
    for (int64_t t = 0; t < n; t++) {
        const expr e = k->tensors.data[t].bypass;
        int64_t v = 0;
        c->bypass[t] = e && expr_eval(&k->exprs, e, c->launch->params, &v) && v != 0;
    }
}

struct clock_l2 *clock_l2_new(const struct emu_launch *l)
{
    struct clock_l2 *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    const int64_t n = l->kernel->tensors.len;
    c->launch = l;
    while (c->shift < 30 && ((int64_t)2 << c->shift) <= (int64_t)target_num(l->target, TK_L2_LINE))
        c->shift++;
    c->line = (int64_t)1 << c->shift;
    c->capacity = (int64_t)target_num(l->target, TK_L2_SIZE);
    c->traffic = calloc((size_t)n + 1, sizeof *c->traffic);
    c->regions = calloc((size_t)n + 1, sizeof *c->regions);
    c->region_of = calloc((size_t)n + 1, sizeof *c->region_of);
    c->bypass = calloc((size_t)n + 1, sizeof *c->bypass);
    c->recent = calloc((size_t)1 << RECENT_BITS, sizeof *c->recent);
    if (c->recent && c->traffic && c->regions && c->region_of && c->bypass) {
        find_bypasses(c, n);
        merge_regions(c, n);
        if (number_chunks(c, n))
            return c;
    }
    clock_l2_free(c);
    return NULL;
}

/* Sums of bits in parallel: without the processor's own instruction, which not all have, three times as fast as a
 * call. */
static int count_bits(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (int)(v * 0x0101010101010101u >> 56);
}

static bool counts(const struct clock_l2 *c, const struct use *u)
{
    const struct chunk *x = &c->chunks[u->chunk];
    return x->held && x->used == u->time;
}

/* At most one use of each chunk counts: half of the room is free then. */
static NPUC_NOINLINE void drop_uses(struct clock_l2 *c)
{
    int64_t n = 0;
    for (int64_t i = c->first_use; i < c->n_uses; i++)
        if (counts(c, &c->uses[i]))
            c->uses[n++] = c->uses[i];
    c->n_uses = n;
    c->first_use = 0;
}

static void use(struct clock_l2 *c, struct chunk *x)
{
    x->used = ++c->time;
    if (!c->uses)
        return;
    if (c->n_uses == c->max_uses)
        drop_uses(c);
    c->uses[c->n_uses++] = (struct use){c->time, (int32_t)(x - c->chunks)};
}

/* The least recently used chunk. */
static struct chunk *oldest(struct clock_l2 *c)
{
    while (!counts(c, &c->uses[c->first_use]))
        c->first_use++;
    return &c->chunks[c->uses[c->first_use].chunk];
}

static void evict(struct clock_l2 *c, const struct chunk *keep)
{
    while (c->used > c->capacity) {
        struct chunk *x = oldest(c);
        if (x == keep)
            return;
        c->used -= count_bits(x->held) * c->line;
        x->held = x->dirty = 0;
    }
}

/* Lines of a chunk; returns the lines that were not there. `past`: and do not come in either. */
static int touch_chunk(struct clock_l2 *c, struct chunk *x, uint64_t lines, bool warm, bool past)
{
    const bool fill = warm && !x->seen;
    if (past && !fill)
        return count_bits(lines & ~x->held);
    const uint64_t now = fill ? ~(uint64_t)0 : lines, new = now & ~x->held;
    use(c, x);
    x->seen = true;
    if (!new)
        return 0;
    x->held |= now;
    const int n = count_bits(new);
    c->used += n * c->line;
    c->entered += n * c->line;
    evict(c, x);
    return fill ? 0 : n;
}

static uint64_t bits(int64_t from, int64_t to)
{
    const uint64_t below = to >= LINES ? ~(uint64_t)0 : ((uint64_t)1 << to) - 1;
    return below & ~(((uint64_t)1 << from) - 1);
}

/* One move's lines: those of neighbouring rows in one chunk are gathered before the chunk is looked at. */
struct touches {
    struct clock_l2 *cache;
    const struct region *region;
    bool write, past;
    struct chunk *chunks; /* of the region */
    int64_t chunk;
    uint64_t lines;
    int64_t missed; /* lines that were not there */
};

static void touch_gathered(struct touches *x)
{
    struct clock_l2 *c = x->cache;
    struct chunk *k = &x->chunks[x->chunk];
    const uint64_t lines = x->lines;
    x->lines = 0;
    if (!lines)
        return;
    x->missed += touch_chunk(c, k, lines, x->region->warm || x->chunk < x->region->ahead, x->past);
    if (x->write && (lines & ~k->dirty)) {
        const int64_t new = count_bits(lines & ~k->dirty) * c->line;
        c->written.bytes += new;
        c->written.warm += x->region->warm ? new : 0;
        k->dirty |= lines;
    }
}

/* Lines [line, end) of the region. */
static void touch(struct touches *x, int64_t line, int64_t end)
{
    while (line < end) {
        const int64_t chunk = line / LINES, stop = (chunk + 1) * LINES < end ? (chunk + 1) * LINES : end;
        if (chunk != x->chunk)
            touch_gathered(x);
        x->chunk = chunk;
        x->lines |= bits(line % LINES, stop - chunk * LINES);
        line = stop;
    }
}

/* Runs within a line, of which all that a chunk has to do with are there: most of a product's reads. Returns how many
 * of the n runs were like that; the last chunk's lines are left to gather. */
static int64_t touch_held(struct touches *x, int64_t at, int64_t run, int64_t n, int64_t step)
{
    struct chunk *const chunks = x->chunks;
    const int shift = x->cache->shift;
    const int64_t line = x->cache->line, room = line - run;
    int64_t i = 0, chunk = x->chunk;
    uint64_t lines = x->lines;
    for (; i < n && (at & (line - 1)) <= room; i++, at += step) {
        const int64_t next = at >> shift;
        if (next / LINES != chunk) {
            if (lines & ~chunks[chunk].held)
                break;
            if (lines)
                use(x->cache, &chunks[chunk]);
            chunk = next / LINES;
            lines = 0;
        }
        lines |= (uint64_t)1 << next % LINES;
    }
    x->chunk = chunk;
    x->lines = lines;
    return i;
}

/* n runs of bytes, `step` apart; at: of the first, from the region's begin. */
static void touch_runs(struct touches *x, int64_t at, int64_t run, int64_t n, int64_t step)
{
    const int shift = x->cache->shift;
    while (n > 0) {
        const int64_t held = x->write || x->past ? 0 : touch_held(x, at, run, n, step);
        at += held * step;
        n -= held;
        if (n > 0)
            touch(x, at >> shift, ((at + run - 1) >> shift) + 1);
        at += step;
        n--;
    }
}

void clock_l2_reach(const struct clock_span *span, struct clock_reach *r)
{
    struct clock_span *s = &r->span;
    *s = *span;
    r->last = 0;
    for (int i = 0; i < 4; i++) {
        if (s->gm[i] == 0)
            s->n[i] = 1;
        int64_t far = 0;
        const int64_t step = s->gm[i] < 0 ? -s->gm[i] : s->gm[i];
        if (r->last < 0 || !size_mul(s->n[i] - 1, step, &far) || far > FARTHEST) {
            r->last = -1;
            return;
        }
        s->off -= s->gm[i] < 0 ? far : 0;
        r->last += far;
        s->gm[i] = step;
    }
}

static bool is_within(const struct clock_reach *r, int64_t size)
{
    return r->last >= 0 && r->span.off >= 0 && r->span.off <= size && r->last <= size - r->span.size - r->span.off;
}

/* Bytes that one step of the innermost dimensions covers without a gap of a line: every line between is touched. */
static int64_t run_of(struct clock_span *s, int64_t line)
{
    int64_t run = s->size;
    for (int i = 3; i >= 0 && (s->n[i] == 1 || s->gm[i] < run + line); i--) {
        run += (s->n[i] - 1) * s->gm[i];
        s->n[i] = 1;
    }
    return run;
}

static uint64_t key_of(const struct clock_span *s)
{
    const int64_t v[] = {s->tensor, s->off,   s->size,  s->n[0],  s->n[1], s->n[2],
                         s->n[3],   s->gm[0], s->gm[1], s->gm[2], s->gm[3]};
    uint64_t h = 0;
    for (int i = 0; i < NPUC_ARRAY_LEN(v); i++) {
        h = (h ^ (uint64_t)v[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h | 1;
}

static bool is_recent(struct clock_l2 *c, const struct clock_span *s, bool write)
{
    const uint64_t key = key_of(s) ^ (uint64_t)write << 1;
    struct recent *r = &c->recent[key >> (64 - RECENT_BITS)];
    const bool found = r->key == key && c->entered - r->entered < c->recent_bytes;
    if (!found)
        *r = (struct recent){key, c->entered};
    return found;
}

/* The lines of a move that they are looked at for. */
static void touch_span(struct clock_l2 *c, struct clock_span s, bool write, bool past)
{
    const struct emu_tensor *t = &c->launch->tensors[s.tensor];
    const int64_t run = run_of(&s, c->line), *n = s.n, *step = s.gm;
    const int in = n[3] > 1 ? 3 : n[2] > 1 ? 2 : n[1] > 1 ? 1 : 0; /* the innermost dimension that steps */
    const int64_t inner = n[in];
    s.n[in] = 1;
    const struct region *r = &c->regions[c->region_of[s.tensor]];
    struct touches x = {.cache = c, .region = r, .write = write, .past = past, .chunks = c->chunks + r->first};
    const int64_t at = t->address + s.off - r->lo;
    for (int64_t i = 0; i < n[0]; i++)
        for (int64_t j = 0; j < n[1]; j++)
            for (int64_t k = 0; k < n[2]; k++)
                touch_runs(&x, at + i * step[0] + j * step[1] + k * step[2], run, inner, step[in]);
    touch_gathered(&x);
    c->traffic[s.tensor].missed += write ? 0 : x.missed * c->line;
    c->kept += write || past ? 0 : x.missed * c->line;
}

bool clock_l2_move(struct clock_l2 *c, const struct clock_reach *r, int64_t bytes, bool write)
{
    const int32_t tensor = r->span.tensor;
    if (!is_within(r, c->launch->tensors[tensor].size))
        return false;
    struct clock_traffic *sum = &c->traffic[tensor];
    *(write ? &sum->written : &sum->read) += bytes;
    const bool past = c->bypass[tensor] && !write;
    if (past || !is_recent(c, &r->span, write))
        touch_span(c, r->span, write, past);
    return true;
}

const struct clock_traffic *clock_l2_traffic(const struct clock_l2 *c, int32_t tensor)
{
    return &c->traffic[tensor];
}

struct clock_written clock_l2_written(const struct clock_l2 *c)
{
    return c->written;
}

int64_t clock_l2_kept(const struct clock_l2 *c)
{
    return c->kept;
}
