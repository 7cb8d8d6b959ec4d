#include "runtime/emu/hazard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRANULE    32
#define COMPONENTS (EMU_BLOCK_CORES * TU_COUNT) /* of a vector clock: every unit of every core of the block */
#define QUEUE      16                           /* cross-core flags count to 15 */
#define GM_SLOTS   ((uint64_t)1 << 18)          /* remembered granules of GM; all are forgotten when it gets full */

struct clock {
    uint32_t at[COMPONENTS];
};
struct shadow { /* of 32 bytes of a scratchpad; units of one core */
    uint32_t write_time, read_time[TU_COUNT];
    uint8_t write_unit;
};
struct gm_shadow {                    /* of 32 bytes of GM */
    uint64_t key;                     /* address / 32 */
    uint32_t generation;              /* of the block; 0 free */
    uint32_t write_time, write_bytes; /* bytes: one bit each */
    uint32_t read_time[COMPONENTS], read_bytes[COMPONENTS];
    uint8_t writer;
};
struct flag {
    bool set;
    struct clock clock;
};
struct cross {
    struct clock clock[QUEUE];
    uint32_t put, taken;
};
struct core_state {
    struct clock unit[TU_COUNT];
    struct flag flag[TU_COUNT][TU_COUNT][TILE_MAX_EVENTS];
    struct shadow *shadow[TS_COUNT];
    uint8_t *valid[TS_COUNT];
    enum tile_unit now; /* unit of the instruction being executed */
    bool used;
};
struct emu_hazard {
    struct core_state core[EMU_BLOCK_CORES];
    struct cross to_vector[EMU_SUBS][TILE_MAX_XEVENTS], to_cube[EMU_SUBS][TILE_MAX_XEVENTS];
    int64_t size[TS_COUNT];
    struct gm_shadow *gm;
    uint64_t gm_used;
    uint32_t generation;
    const char *why;
    int other; /* component, -1 none */
    bool other_wrote;
};

static const char *const unit_names[TU_COUNT] = {"S", "MTE2", "MTE3", "MTE1", "M", "FIX", "V"};

static int component(int core, enum tile_unit u)
{
    return core * TU_COUNT + (int)u;
}

static void join(struct clock *a, const struct clock *b)
{
    for (int i = 0; i < COMPONENTS; i++)
        if (b->at[i] > a->at[i])
            a->at[i] = b->at[i];
}

struct emu_hazard *emu_hazard_new(const int64_t size[TS_COUNT])
{
    struct emu_hazard *h = calloc(1, sizeof *h);
    bool ok = h != NULL;
    if (h)
        h->gm = calloc(GM_SLOTS, sizeof *h->gm);
    for (int c = 0; ok && c < EMU_BLOCK_CORES; c++)
        for (int s = TS_GM + 1; ok && s < TS_COUNT; s++) {
            h->size[s] = size[s];
            h->core[c].shadow[s] = calloc((size_t)(size[s] / GRANULE + 1), sizeof(struct shadow));
            h->core[c].valid[s] = calloc((size_t)size[s] + 1, 1);
            ok = h->core[c].shadow[s] && h->core[c].valid[s];
        }
    if (ok && h->gm)
        return h;
    emu_hazard_free(h);
    return NULL;
}

void emu_hazard_free(struct emu_hazard *h)
{
    for (int c = 0; h && c < EMU_BLOCK_CORES; c++)
        for (int s = 0; s < TS_COUNT; s++) {
            free(h->core[c].shadow[s]);
            free(h->core[c].valid[s]);
        }
    if (h)
        free(h->gm);
    free(h);
}

static void forget_gm(struct emu_hazard *h)
{
    if (++h->generation == 0) { /* wrapped: old entries would look fresh */
        memset(h->gm, 0, (size_t)GM_SLOTS * sizeof *h->gm);
        h->generation = 1;
    }
    h->gm_used = 0;
}

void emu_hazard_start(struct emu_hazard *h)
{
    for (int c = 0; c < EMU_BLOCK_CORES; c++) {
        struct core_state *k = &h->core[c];
        memset(k->flag, 0, sizeof k->flag);
        memset(k->unit, 0, sizeof k->unit);
        for (int s = TS_GM + 1; k->used && s < TS_COUNT; s++) {
            memset(k->shadow[s], 0, (size_t)(h->size[s] / GRANULE + 1) * sizeof(struct shadow));
            memset(k->valid[s], 0, (size_t)h->size[s]);
        }
        k->used = false;
    }
    memset(h->to_vector, 0, sizeof h->to_vector);
    memset(h->to_cube, 0, sizeof h->to_cube);
    forget_gm(h);
}

/* The scalar unit issues in program order: what it has waited for holds for everything issued later. */
void emu_hazard_issue(struct emu_hazard *h, int core, enum tile_unit unit)
{
    struct core_state *k = &h->core[core];
    k->used = true;
    k->now = unit;
    if (unit != TU_S)
        join(&k->unit[unit], &k->unit[TU_S]);
    k->unit[unit].at[component(core, unit)]++;
}

void emu_hazard_barrier(struct emu_hazard *h)
{
    struct clock all = {{0}};
    for (int c = 0; c < EMU_BLOCK_CORES; c++)
        for (int u = 0; u < TU_COUNT; u++)
            join(&all, &h->core[c].unit[u]);
    for (int c = 0; c < EMU_BLOCK_CORES; c++)
        for (int u = 0; u < TU_COUNT; u++)
            h->core[c].unit[u] = all;
}

static bool race(struct emu_hazard *h, const char *why, int other, bool other_wrote)
{
    h->why = why;
    h->other = other;
    h->other_wrote = other_wrote;
    return false;
}

void emu_hazard_why(const struct emu_hazard *h, char *text, size_t cap)
{
    if (h->other < 0)
        snprintf(text, cap, "%s", h->why);
    else
        snprintf(text, cap, "%s of the same bytes by unit %s of core %d is not ordered with it by any flag",
                 h->other_wrote ? "a write" : "a read", unit_names[h->other % TU_COUNT], h->other / TU_COUNT);
}

static bool check_shadow(struct emu_hazard *h, int core, struct shadow *s, bool write)
{
    struct core_state *k = &h->core[core];
    const struct clock *now = &k->unit[k->now];
    const int writer = component(core, (enum tile_unit)s->write_unit);
    if (s->write_time > now->at[writer])
        return race(h, "race", writer, true);
    for (int u = 0; write && u < TU_COUNT; u++)
        if (s->read_time[u] > now->at[component(core, (enum tile_unit)u)])
            return race(h, "race", component(core, (enum tile_unit)u), false);
    const uint32_t time = now->at[component(core, k->now)];
    if (write) {
        s->write_time = time;
        s->write_unit = (uint8_t)k->now;
    } else {
        s->read_time[k->now] = time;
    }
    return true;
}

bool emu_hazard_access(struct emu_hazard *h, int core, enum tile_space s, int64_t at, int64_t bytes, bool write)
{
    struct core_state *k = &h->core[core];
    if (bytes <= 0)
        return true;
    for (int64_t g = at / GRANULE; g <= (at + bytes - 1) / GRANULE; g++)
        if (!check_shadow(h, core, &k->shadow[s][g], write))
            return false;
    if (write)
        memset(k->valid[s] + at, 1, (size_t)bytes);
    else if (memchr(k->valid[s] + at, 0, (size_t)bytes))
        return race(h, "reads bytes that nothing has written", -1, false);
    return true;
}

static struct gm_shadow *find_gm(struct emu_hazard *h, uint64_t key)
{
    if (h->gm_used > GM_SLOTS / 4 * 3)
        forget_gm(h);
    uint64_t at = key * 0x9e3779b97f4a7c15u >> 40 & (GM_SLOTS - 1);
    while (h->gm[at].generation == h->generation && h->gm[at].key != key)
        at = (at + 1) & (GM_SLOTS - 1);
    struct gm_shadow *s = &h->gm[at];
    if (s->generation != h->generation) {
        *s = (struct gm_shadow){.key = key, .generation = h->generation};
        h->gm_used++;
    }
    return s;
}

/* GM is shared by neighbours that own single bytes of a granule, so the bytes of each access are remembered. */
static bool check_gm(struct emu_hazard *h, int core, struct gm_shadow *s, uint32_t bytes, bool write)
{
    const struct core_state *k = &h->core[core];
    const struct clock *now = &k->unit[k->now];
    const int me = component(core, k->now);
    if (s->write_bytes & bytes && s->write_time > now->at[s->writer])
        return race(h, "race", s->writer, true);
    for (int u = 0; write && u < COMPONENTS; u++)
        if (s->read_bytes[u] & bytes && s->read_time[u] > now->at[u])
            return race(h, "race", u, false);
    if (write) {
        s->write_bytes = s->writer == me && s->write_time == now->at[me] ? s->write_bytes | bytes : bytes;
        s->write_time = now->at[me];
        s->writer = (uint8_t)me;
    } else {
        s->read_bytes[me] = s->read_time[me] == now->at[me] ? s->read_bytes[me] | bytes : bytes;
        s->read_time[me] = now->at[me];
    }
    return true;
}

bool emu_hazard_gm(struct emu_hazard *h, int core, uint64_t at, int64_t bytes, bool write)
{
    const uint64_t end = at + (uint64_t)bytes;
    while (at < end) {
        const uint64_t stop = (at / GRANULE + 1) * GRANULE < end ? (at / GRANULE + 1) * GRANULE : end;
        const uint32_t mask = (uint32_t)((((uint64_t)1 << (stop - at)) - 1) << (at % GRANULE));
        if (!check_gm(h, core, find_gm(h, at / GRANULE), mask, write))
            return false;
        at = stop;
    }
    return true;
}

/* The flag that SET or WAIT names; NULL after a fault. */
static struct flag *flag_of(struct emu_data *d, struct emu_op *op)
{
    const struct emu_SET *a = EMU_ARGS(SET, op);
    _Static_assert(sizeof(struct emu_SET) == sizeof(struct emu_WAIT), "SET and WAIT share their operands");
    const int64_t event = a->event + (a->buf >= 0 ? op->slot[EMU_FIELD(SET, buf)] : 0);
    if (event < 0 || event >= TILE_MAX_EVENTS) {
        emu_fault(d, op, "event %lld of %s -> %s is out of range", (long long)event, unit_names[a->src],
                  unit_names[a->dst]);
        return NULL;
    }
    return &d->hazard->core[d->hazard_core].flag[a->src][a->dst][event];
}

bool emu_do_set(struct emu_data *d, struct emu_op *op)
{
    const struct emu_SET *a = EMU_ARGS(SET, op);
    struct flag *f = d->hazard ? flag_of(d, op) : NULL;
    if (!f)
        return !d->hazard;
    if (f->set)
        return emu_fault(d, op, "flag %s -> %s, event %lld is set twice", unit_names[a->src], unit_names[a->dst],
                         (long long)a->event);
    struct core_state *k = &d->hazard->core[d->hazard_core];
    join(&k->unit[a->src], &k->unit[TU_S]);
    f->set = true;
    f->clock = k->unit[a->src];
    return true;
}

bool emu_do_wait(struct emu_data *d, struct emu_op *op)
{
    const struct emu_SET *a = EMU_ARGS(SET, op);
    struct flag *f = d->hazard ? flag_of(d, op) : NULL;
    if (!f)
        return !d->hazard;
    if (!f->set)
        return emu_fault(d, op, "waits for flag %s -> %s, event %lld, which is not set", unit_names[a->src],
                         unit_names[a->dst], (long long)a->event);
    f->set = false;
    join(&d->hazard->core[d->hazard_core].unit[a->dst], &f->clock);
    return true;
}

static bool put(struct cross *x, const struct clock *c)
{
    if (x->put - x->taken >= QUEUE - 1)
        return false;
    x->clock[x->put++ % QUEUE] = *c;
    return true;
}

/* Hazard core 0 is the cube core, 1 and 2 the vector cores of the block. */
bool emu_do_xset(struct emu_data *d, struct emu_op *op)
{
    const struct emu_XSET *a = EMU_ARGS(XSET, op);
    struct emu_hazard *h = d->hazard;
    if (!h)
        return true;
    struct core_state *k = &h->core[d->hazard_core];
    join(&k->unit[a->unit], &k->unit[TU_S]);
    const struct clock *c = &k->unit[a->unit];
    const bool ok = d->hazard_core > 0 ? put(&h->to_cube[d->hazard_core - 1][a->event], c)
                                       : put(&h->to_vector[0][a->event], c) && put(&h->to_vector[1][a->event], c);
    return ok || emu_fault(d, op, "cross-core event %lld is set more than %d times before a wait", (long long)a->event,
                           QUEUE - 1);
}

bool emu_do_xwait(struct emu_data *d, struct emu_op *op)
{
    const struct emu_XSET *a = EMU_ARGS(XSET, op);
    struct emu_hazard *h = d->hazard;
    if (!h)
        return true;
    struct cross *from[2] = {&h->to_cube[0][a->event], &h->to_cube[1][a->event]};
    if (d->hazard_core > 0)
        from[0] = &h->to_vector[d->hazard_core - 1][a->event];
    for (int i = 0; i < (d->hazard_core > 0 ? 1 : 2); i++) {
        join(&h->core[d->hazard_core].unit[a->unit], &from[i]->clock[from[i]->taken % QUEUE]);
        from[i]->taken++;
    }
    return true;
}

/* The first flag still set, as (source, destination, event), or false. */
static bool left_set(const struct core_state *k, int *src, int *dst, int *event)
{
    for (*src = 0; *src < TU_COUNT; ++*src)
        for (*dst = 0; *dst < TU_COUNT; ++*dst)
            for (*event = 0; *event < TILE_MAX_EVENTS; ++*event)
                if (k->flag[*src][*dst][*event].set)
                    return true;
    return false;
}

bool emu_hazard_finish(const struct emu_hazard *h, int core)
{
    int src, dst, event;
    return !left_set(&h->core[core], &src, &dst, &event);
}

void emu_hazard_left(const struct emu_hazard *h, int core, char *text, size_t cap)
{
    int src, dst, event;
    if (left_set(&h->core[core], &src, &dst, &event))
        snprintf(text, cap, "flag %s -> %s, event %d is still set at the end of the program", unit_names[src],
                 unit_names[dst], event);
}
