/* Times of launches. Launches that are the same in everything the clock looks at are timed once per session. Which
 * operands are in L2 at launch is computed from the schedule: bytes touched earlier with less than the cache's size of
 * other traffic since. */
#include "runtime/comm.h"
#include "runtime/rt.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define DIRTY_STEPS 16
#define AHEAD_STEPS 64  /* of a tensor */
#define AHEAD_SHARE 0.5 /* of L2 for weights to come: the rest is left to what runs */

static void mark_warm(npurt_session *s, const struct plan_step *step, struct emu_launch *l, struct emu_tensor *t)
{
    const double l2 = target_num(&s->target, TK_L2_SIZE);
    memcpy(t, l->tensors, (size_t)step->n_in * sizeof *t);
    for (int32_t i = 0; i < step->n_in; i++) {
        if (step->tensors[i] < 0)
            continue;
        const struct rt_tensor *root = &s->tensors[s->tensors[step->tensors[i]].root];
        t[i].warm = root->touched >= 0 && s->traffic - root->touched + (double)t[i].size < l2;
    }
    l->tensors = t;
}

/* What earlier launches wrote and L2 still has. In steps of a share of L2, so that launches with about the same are
 * timed once. */
static double dirty_at_launch(const npurt_session *s)
{
    const double step = target_num(&s->target, TK_L2_SIZE) / DIRTY_STEPS;
    return step > 0 ? floor(s->dirty / step + 0.5) * step : 0;
}

static void touch(npurt_session *s, const struct plan_step *step, double bytes)
{
    s->traffic += bytes;
    for (int32_t i = 0; i < step->n_in + step->n_out; i++)
        if (step->tensors[i] >= 0)
            s->tensors[s->tensors[step->tensors[i]].root].touched = s->traffic;
}

/* Weights that a product finds in L2, because memory had nothing else to do before: of what there was time for, in the
 * order in which launches ask. In steps, as above. */
static void take_ahead(npurt_session *s, const struct plan_step *step, const struct emu_launch *l, struct emu_tensor *t)
{
    for (int32_t i = 0; i < step->n_in && l->kernel->has[TCORE_CUBE]; i++) {
        if (step->tensors[i] < 0 || t[i].warm || t[i].size <= 0 ||
            s->plan->tensors.data[s->tensors[step->tensors[i]].root].kind != PT_WEIGHT)
            continue;
        const double share = s->ahead / (double)t[i].size;
        const int64_t parts = share < 1 ? (int64_t)(share * AHEAD_STEPS) : AHEAD_STEPS;
        t[i].ahead = parts < AHEAD_STEPS ? t[i].size / AHEAD_STEPS * parts : t[i].size;
        s->ahead -= (double)t[i].ahead;
    }
}

/* Memory was busy with `bytes` in `us`; what it could have moved beside is weights of later launches (a prefetch that
 * the host queues beside the kernels, one behind the other, and that gives way to them). */
static void give_ahead(npurt_session *s, double us, double bytes)
{
    const double rate = target_num(&s->target, TK_L2_PREFETCH), hbm = target_num(&s->target, TK_HBM_BANDWIDTH);
    const double most = AHEAD_SHARE * target_num(&s->target, TK_L2_SIZE), idle = us * 1e-6 * hbm - bytes;
    if (isnan(rate) || idle <= 0)
        return;
    s->ahead += idle < us * 1e-6 * rate ? idle : us * 1e-6 * rate;
    s->ahead = s->ahead < most ? s->ahead : most;
}

/* What determines the time of a launch. */
static uint64_t launch_hash(npurt_session *s, const struct plan_step *step, const struct emu_launch *l, bool with_dirty)
{
    const int64_t line = (int64_t)target_num(&s->target, TK_L2_LINE);
    const int64_t n = 3 + step->n_params + 3 * (int64_t)step->n_in;
    int64_t *key = ARENA_ARRAY(&s->scratch, int64_t, n);
    if (!key)
        return 0;
    key[0] = step->kernel;
    key[1] = (l->blocks << 16) + (l->copies & 0xffff);
    for (int32_t i = 0; i < step->n_params; i++)
        key[2 + i] = l->params[i];
    for (int32_t i = 0; i < step->n_in; i++) {
        key[2 + step->n_params + 3 * i] = l->tensors[i].size;
        key[3 + step->n_params + 3 * i] = l->tensors[i].ahead;
        key[4 + step->n_params + 3 * i] = l->tensors[i].address % (line > 0 ? line : 1) * 8 +
                                          l->tensors[i].on_chip * 4 + (l->tensors[i].part > 0) * 2 + l->tensors[i].warm;
    }
    key[n - 1] = with_dirty ? (int64_t)l->dirty : -1;
    return map_hash_bytes(key, n * (int64_t)sizeof *key);
}

/* ---- sessions that share ---- */
enum { BUSY, FAILED }; /* instead of a timing: a session is at it, or could not */
struct rt_known {
    pthread_mutex_t lock;
    pthread_cond_t told;
    struct arena arena;
    struct map timings; /* hash -> struct emu_timing, BUSY or FAILED */
};

struct rt_known *rt_known_new(void)
{
    struct rt_known *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->told, NULL);
    arena_init(&k->arena, NULL);
    map_init(&k->timings, &k->arena);
    return k;
}

void rt_known_free(struct rt_known *k)
{
    if (!k)
        return;
    pthread_mutex_destroy(&k->lock);
    pthread_cond_destroy(&k->told);
    arena_free(&k->arena);
    free(k);
}

/* The time of a launch that another session has timed, or times now; false: this one is to time it, and then to tell.
 */
static bool ask_others(struct rt_known *k, uint64_t hash, struct emu_timing *t)
{
    const uint64_t *known;
    pthread_mutex_lock(&k->lock);
    while ((known = map_find(&k->timings, hash)) && *known == BUSY)
        pthread_cond_wait(&k->told, &k->lock);
    const bool found = known && *known != FAILED;
    if (found)
        *t = *(const struct emu_timing *)(uintptr_t)*known;
    else
        map_put(&k->timings, hash, BUSY);
    pthread_mutex_unlock(&k->lock);
    return found;
}

static void tell_others(struct rt_known *k, uint64_t hash, const struct emu_timing *t, bool timed)
{
    pthread_mutex_lock(&k->lock);
    struct emu_timing *copy = timed ? ARENA_NEW(&k->arena, struct emu_timing) : NULL;
    if (copy)
        *copy = *t;
    map_put(&k->timings, hash, copy ? (uint64_t)(uintptr_t)copy : FAILED);
    pthread_cond_broadcast(&k->told);
    pthread_mutex_unlock(&k->lock);
}

/* ---- one launch ---- */
/* Times a launch; one that differs from an earlier one in what L2 has to write back alone is not walked anew. */
static enum npuc_status time_new(npurt_session *s, const struct plan_step *step, struct emu_launch *l,
                                 struct emu_timing *t)
{
    const uint64_t hash = launch_hash(s, step, l, false);
    const uint64_t *known = map_find(&s->counts, hash);
    const struct emu_counted *counted = known ? (const struct emu_counted *)(uintptr_t)*known : NULL;
    l->counted = &counted;
    l->keep = &s->arena;
    const enum npuc_status st = l->blocks > 0 ? emu_run_clock(l, t) : NPUC_OK;
    if (st == NPUC_OK && counted)
        map_put(&s->counts, hash, (uint64_t)(uintptr_t)counted);
    return st;
}

static enum npuc_status time_once(npurt_session *s, const struct plan_step *step, struct emu_launch *l, uint64_t hash,
                                  struct emu_timing *t)
{
    if (!s->sharing)
        return time_new(s, step, l, t);
    if (ask_others(s->sharing, hash, t))
        return NPUC_OK;
    const enum npuc_status st = time_new(s, step, l, t);
    tell_others(s->sharing, hash, t, st == NPUC_OK);
    return st;
}

/* A step in a loop runs several times: its record holds the sums. */
static void add_timing(npurt_session *s, const struct emu_timing *t)
{
    const double hz = target_num(&s->target, TK_CLOCK), cycles = t->cycles + t->launch_cyc;
    struct npurt_step *r = s->note;
    r->cycles += cycles;
    r->us += cycles / hz * 1e6;
    r->launch_us += t->launch_cyc / hz * 1e6;
    r->bound_by = t->bound_by;
    r->gm_read += t->gm_read;
    r->gm_written += t->gm_written;
    r->l2_hit += t->l2_hit;
    r->l2_miss += t->l2_miss;
    for (int c = 0; c < TCORE_COUNT; c++) {
        r->cores[c] = t->cores[c];
        for (int u = 0; u < TU_COUNT; u++)
            r->busy[c][u] += t->unit[c][u].busy_cyc;
    }
    for (int a = 0; a < TS_COUNT; a++) {
        r->peak[a] = t->peak[a] > r->peak[a] ? t->peak[a] : r->peak[a];
        for (int b = 0; b < TS_COUNT; b++)
            r->bytes[a][b] += t->bytes[a][b];
    }
}

enum npuc_status rt_time_launch(npurt_session *s, const struct plan_step *step, struct emu_launch *l)
{
    struct emu_tensor *tensors = ARENA_ARRAY(&s->scratch, struct emu_tensor, step->n_in + 1);
    if (!tensors)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    mark_warm(s, step, l, tensors);
    take_ahead(s, step, l, tensors);
    l->dirty = dirty_at_launch(s);
    const uint64_t hash = launch_hash(s, step, l, true);
    const uint64_t *known = map_find(&s->timings, hash);
    struct emu_timing *t = known ? (struct emu_timing *)(uintptr_t)*known : ARENA_NEW(&s->arena, struct emu_timing);
    if (!t)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    if (!known) {
        for (int32_t i = 0; i < step->n_in; i++)
            tensors[i].data = NULL; /* times must not depend on data */
        const enum npuc_status st = time_once(s, step, l, hash, t);
        if (st != NPUC_OK)
            return rt_fail(s, D_RUN_FAULT, "%s", l->error);
        map_put(&s->timings, hash, (uint64_t)(uintptr_t)t);
    }
    add_timing(s, t);
    const double back = l->dirty + (double)t->gm_written - t->dirty;
    give_ahead(s, (t->cycles + t->launch_cyc) / target_num(&s->target, TK_CLOCK) * 1e6,
               (double)t->l2_miss + (back > 0 ? back : 0));
    s->dirty = t->dirty;
    touch(s, step, (double)t->gm_read + (double)t->gm_written);
    return NPUC_OK;
}

void rt_forget(npurt_session *s)
{
    for (int64_t i = 0; i < s->plan->tensors.len; i++)
        s->tensors[i].touched = -1;
    s->dirty = s->traffic = s->ahead = 0;
    s->placed = false;
}

void rt_time_bytes(npurt_session *s, const struct plan_step *step, double bytes)
{
    const double us = (target_num(&s->target, TK_HOST_CALL) + bytes / target_num(&s->target, TK_HOST_BANDWIDTH)) * 1e6;
    struct npurt_step *r = s->note;
    r->us += us;
    r->cycles += us * 1e-6 * target_num(&s->target, TK_CLOCK);
    r->bound_by = "host";
    give_ahead(s, us, 0);
    touch(s, step, bytes);
}

/* A collective takes the links' time; what it moves passes through memory beside it. */
static void time_collective(npurt_session *s, const struct plan_step *step, enum comm_kind kind)
{
    struct npurt_step *r = s->note;
    int64_t ranks = 1;
    for (int32_t i = 0; i < step->n_attrs; i++)
        if (strcmp(str_text(&s->plan->strings, step->attrs[i].name), "ranks") == 0)
            ranks = step->attrs[i].v.i;
    const double bytes = (double)s->tensors[step->tensors[0]].size, us = comm_us(&s->target, kind, ranks, bytes);
    r->us += us;
    r->cycles += us * 1e-6 * target_num(&s->target, TK_CLOCK);
    r->launch_us += target_num(&s->target, TK_LAUNCH) * 1e6;
    r->bound_by = "link";
    give_ahead(s, us, bytes);
    touch(s, step, 2 * bytes);
}

void rt_time_host(npurt_session *s, const struct plan_step *step)
{
    const enum comm_kind kind = comm_of(str_text(&s->plan->strings, step->op));
    if (kind != COMM_NONE && step->n_in == 1 && step->tensors[0] >= 0) {
        time_collective(s, step, kind);
        return;
    }
    double bytes = 0;
    for (int32_t i = 0; i < step->n_in + step->n_out; i++)
        if (step->tensors[i] >= 0 && s->tensors[step->tensors[i]].known)
            bytes += (double)s->tensors[step->tensors[i]].size;
    rt_time_bytes(s, step, bytes);
}
