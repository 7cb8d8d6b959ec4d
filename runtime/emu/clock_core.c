/* The timeline of one core: a recurrence over its instructions in program order, which is a correct order, with every
 * WAIT behind its SET. An instruction is issued when the scalar unit comes to it and its unit's queue has room, and
 * starts when its unit is free; WAIT keeps its unit until the flag is set.
 *
 * Reads of GM stop the walk: how long they take depends on the other cores (clock_fluid.c). */
#include "runtime/emu/clock_priv.h"
#include "runtime/emu/core_walk.h"

#include "kernels/vec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void later(double *t, double than)
{
    if (*t < than)
        *t = than;
}

void clock_core_reset(struct clock_core *c)
{
    c->issue = c->way = 0;
    c->asked = 0;
    c->met = 0;
    c->macs = 0;
    c->move = CLOCK_MOVE_NONE;
    c->cx.gathered = 0;
    for (int u = 0; u < TU_COUNT; u++) {
        c->free[u] = c->done[u] = 0;
        c->idle[u] = true;
        c->place[u] = 0;
        c->full[u] = false;
        c->unit[u] = (struct emu_unit_time){0, 0};
    }
    memset(c->bytes, 0, sizeof c->bytes);
    memset(c->flag, 0, sizeof c->flag);
}

double clock_core_end(const struct clock_core *c)
{
    double end = c->issue;
    for (int u = 0; u < TU_COUNT; u++)
        later(&end, c->free[u]);
    return end;
}

void clock_core_barrier(struct clock_core *c, double at)
{
    c->issue = c->way = at;
    for (int u = 0; u < TU_COUNT; u++) {
        c->free[u] = c->done[u] = at;
        c->idle[u] = true;
    }
}

/* ---- counting: traffic and what decides the times ---- */
static void mix(uint64_t *h, uint64_t v)
{
    *h = (*h ^ v) * 0x9e3779b97f4a7c15u;
    *h ^= *h >> 29;
}

static void mix_span(uint64_t *h, const struct clock_span *s)
{
    mix(h, (uint64_t)s->tensor + 1);
    mix(h, (uint64_t)s->off);
    for (int i = 0; i < 4; i++) {
        mix(h, (uint64_t)s->n[i]);
        mix(h, (uint64_t)s->gm[i]);
        mix(h, (uint64_t)s->chip[i]);
    }
}

static bool leaves_tensor(struct clock_core *c, const struct emu_ins *in, int32_t tensor)
{
    struct emu_launch *l = c->clock->launch;
    const struct strtab *strings = l->kernel->exprs.strings;
    snprintf(l->error, sizeof l->error, "kernel '%.80s', %s core %d.%d: %s leaves the tensor '%.80s' of %lld bytes",
             str_text(strings, l->kernel->name), c->core.id.kind == TCORE_CUBE ? "cube" : "vector", c->core.id.block,
             c->core.id.sub, tile_insn_table[in->op].name, str_text(strings, l->kernel->tensors.data[tensor].name),
             (long long)l->tensors[tensor].size);
    return false;
}

#define OPS_BETWEEN_CHECKS 65536

static bool go_on(struct clock_core *c, const struct emu_launch *l)
{
    if (++c->clock->ops % OPS_BETWEEN_CHECKS == 0 && l->cancelled && l->cancelled(l->cancel_user))
        c->clock->cancelled = true;
    return !c->clock->cancelled;
}

/* A move that would be beyond the core's turn: it waits for the next one. */
static bool is_over(struct clock_core *c, const struct emu_ins *in)
{
    const bool moves = (in->op >= TILE_LOAD && in->op <= TILE_STOREX) || in->op == TILE_LOADC;
    c->suspended = moves && c->asked >= c->clock->quantum;
    return c->suspended;
}

static bool count(struct clock_core *c, const struct emu_ins *in, const struct clock_known *x)
{
    const struct clock_cost *cost = &x->cost;
    mix(&c->hash, (uint64_t)c->core.pc);
    mix(&c->hash, x->hash);
    if (cost->span.tensor < 0)
        return true;
    const bool write = cost->to == TS_GM;
    c->asked += write ? 0 : cost->bytes;
    if (cost->follows)
        return true;
    const int64_t bytes = in->op == TILE_LOADC ? clock_span_bytes(&cost->span) : cost->bytes;
    return clock_l2_move(c->clock->l2, &x->reach, bytes, write) || leaves_tensor(c, in, cost->span.tensor);
}

static enum emu_quick count_quick(void *user, const struct emu_ins *in)
{
    struct clock_core *c = user;
    if (!go_on(c, c->clock->launch) || is_over(c, in))
        return EMU_STOPPED;
    if (in->op >= TILE_LOAD && in->op < TILE_OP_END) {
        const struct clock_known *x = clock_known_find(c, in);
        return !x ? EMU_FETCH : count(c, in, x) ? EMU_PASSED : EMU_STOPPED;
    }
    if (in->op == TILE_SLOAD)
        return EMU_FETCH;
    mix(&c->hash, (uint64_t)c->core.pc);
    if (in->op == CLOCK_MARK)
        for (int i = 0; i < in->n_fields; i++)
            mix(&c->hash, (uint64_t)c->core.values[in->val[i]]);
    return EMU_PASSED;
}

/* What count_quick did not know. */
static bool count_op(void *user, struct emu_launch *l, const struct emu_core_id *id, struct emu_op *op)
{
    struct clock_core *c = user;
    (void)l;
    (void)id;
    const struct emu_ins *in = &c->core.prog->code[c->core.pc];
    if (in->op == TILE_SLOAD) {
        mix(&c->hash, (uint64_t)c->core.pc);
        return true;
    }
    const struct clock_known *x = clock_known_put(c, op);
    if (in->op == TILE_LOADC) {
        mix_span(&c->met, &x->cost.span);
        c->clock->group = c->clock->rates.cluster * EMU_ARGS(LOADC, op)->clusters;
    }
    return count(c, in, x);
}

enum emu_stop clock_core_count(struct clock_core *c)
{
    return emu_core_walk(&c->core, &(struct emu_observer){.user = c, .op = count_op, .quick = count_quick});
}

/* ---- timing ---- */
/* The scalar unit hands an instruction to a unit, when that one's queue has room. */
static void issue(struct clock_core *c, int unit)
{
    const struct clock_rates *r = &c->clock->rates;
    c->issue += r->issue;
    c->unit[TU_S].busy_cyc += r->issue;
    c->unit[TU_S].n_insns++;
    if (unit != TU_S && c->full[unit])
        later(&c->issue, c->start[unit][c->place[unit]]);
}

static void enter(struct clock_core *c, int unit, double start)
{
    if (unit == TU_S)
        return;
    c->start[unit][c->place[unit]] = start;
    if (++c->place[unit] >= c->clock->rates.queue) {
        c->place[unit] = 0;
        c->full[unit] = true;
    }
}

static double start_of(struct clock_core *c, int unit)
{
    if (c->issue > c->free[unit]) {
        c->free[unit] = c->issue;
        c->idle[unit] = true;
    }
    return c->free[unit];
}

static void finish(struct clock_core *c, const struct clock_cost *cost, double start, double busy)
{
    /* data from memory come later by the share of misses */
    const double miss = cost->after_miss > 0 && cost->span.tensor >= 0 ? c->clock->miss[cost->span.tensor] : 0;
    const int u = cost->unit;
    const double length = busy + (c->idle[u] ? cost->head : 0);
    enter(c, u, start);
    c->free[u] = start + length;
    if (cost->from == TS_GM)
        later(&c->way, c->free[u]);
    later(&c->done[u], c->free[u] + cost->after + miss * cost->after_miss);
    c->idle[u] = false;
    c->unit[u].busy_cyc += length;
    c->unit[u].n_insns++;
    c->macs += cost->macs;
    if (cost->bytes)
        c->bytes[cost->from][cost->to] += cost->bytes;
}

/* Share of a read's bytes that come from memory. */
static double missing(const struct clock_core *c, const struct clock_cost *cost)
{
    return cost->from == TS_GM && cost->span.tensor >= 0 ? c->clock->miss[cost->span.tensor] : 0;
}

static bool ask(struct clock_core *c, const struct clock_cost *cost, double start, double miss)
{
    c->cost = *cost;
    c->move = CLOCK_MOVE_ASKED;
    c->move_start = start;
    c->move_left = miss * cost->bus;
    c->move_cap = cost->cap;
    c->suspended = true;
    return false;
}

/* What comes from memory has come; what hits and the unit's own occupancy come on top. */
double clock_core_moving(const struct clock_core *c)
{
    const struct clock_cost *cost = &c->cost;
    const double miss = missing(c, cost);
    double busy = c->move_end - c->move_start + (1 - miss) * cost->hit_cyc + miss * cost->miss_cyc;
    later(&busy, cost->busy);
    return busy;
}

static bool land(struct clock_core *c)
{
    double busy = clock_core_moving(c);
    if (c->clock->port && c->port_held)
        later(&busy, c->port_end - c->move_start);
    c->move = CLOCK_MOVE_NONE;
    finish(c, &c->cost, c->move_start, busy);
    return true;
}

/* A store, or a read that hits, where the cores can ask L2 for too much. Reads wait until all have come as far; stores
 * take what is left at their time: later reads of the core may begin earlier, and others must not get ahead of them. */
static bool pass(struct clock_core *c, const struct clock_cost *cost, double start)
{
    if (cost->from == TS_GM)
        return ask(c, cost, start, 0);
    c->cost = *cost;
    c->move_start = c->move_end = start;
    clock_port_pass(c->clock, &c, 1);
    return land(c);
}

static bool work(struct clock_core *c, const struct clock_cost *cost)
{
    issue(c, cost->unit);
    double start = start_of(c, cost->unit);
    if (cost->from == TS_GM && c->way > start)
        start = c->free[cost->unit] = c->way;
    const double miss = missing(c, cost);
    if (miss > 0)
        return ask(c, cost, start, miss);
    if (c->clock->port && (cost->from == TS_GM || cost->to == TS_GM) && cost->span.tensor >= 0 && cost->bytes > 0)
        return pass(c, cost, start);
    finish(c, cost, start, cost->hit_cyc > cost->busy ? cost->hit_cyc : cost->busy);
    return true;
}

/* When everything of the unit up to here is there. */
static double complete(struct clock_core *c, int unit)
{
    if (unit == TU_S)
        return c->issue;
    double at = start_of(c, unit);
    enter(c, unit, at);
    c->free[unit] += c->clock->rates.flag;
    later(&at, c->done[unit]);
    return at;
}

static void hold(struct clock_core *c, int unit, double until)
{
    if (unit == TU_S) {
        later(&c->issue, until);
        return;
    }
    enter(c, unit, start_of(c, unit));
    if (until > c->free[unit]) {
        c->free[unit] = until;
        c->idle[unit] = true;
    }
    c->free[unit] += c->clock->rates.flag;
}

static void flag(struct clock_core *c, const struct emu_ins *in)
{
    const struct tile_SET *a = (const struct tile_SET *)(const void *)in->insn->arg;
    const int64_t event = a->event + (a->buf >= 0 ? c->core.slot[a->buf] : 0);
    issue(c, in->op == TILE_SET ? a->src : a->dst);
    if (event < 0 || event >= TILE_MAX_EVENTS)
        return;
    double *at = &c->flag[a->src][a->dst][event];
    if (in->op == TILE_SET)
        *at = complete(c, a->src) + c->clock->rates.flag;
    else
        hold(c, a->dst, *at);
}

static bool put(struct clock_core *c, struct clock_times *t, double at)
{
    if (t->len == t->cap) {
        const int32_t cap = t->cap ? 2 * t->cap : 16;
        double *p = malloc((size_t)cap * sizeof *p);
        if (!p) {
            c->clock->no_memory = true;
            return false;
        }
        for (int32_t i = 0; i < t->len; i++)
            p[i] = t->at[(t->head + i) % t->cap];
        free(t->at);
        *t = (struct clock_times){p, 0, t->len, cap};
    }
    t->at[(t->head + t->len++) % t->cap] = at;
    return true;
}

static double take(struct clock_times *t)
{
    if (t->len == 0)
        return 0;
    const double at = t->at[t->head];
    t->head = (t->head + 1) % t->cap;
    t->len--;
    return at;
}

/* The interpreter has checked the event's number and that the wait may pass. */
static bool cross(struct clock_core *c, const struct emu_ins *in)
{
    const struct tile_XSET *a = (const struct tile_XSET *)(const void *)in->insn->arg;
    struct clock_block *b = c->block;
    const int unit = a->unit, sub = c->core.id.sub;
    const bool cube = c->core.id.kind == TCORE_CUBE;
    issue(c, unit);
    if (in->op == TILE_XSET) {
        const double at = complete(c, unit) + c->clock->rates.cross;
        return cube ? put(c, &b->to_vector[0][a->event], at) && put(c, &b->to_vector[1][a->event], at)
                    : put(c, &b->to_cube[sub][a->event], at);
    }
    double at = take(cube ? &b->to_cube[0][a->event] : &b->to_vector[sub][a->event]);
    if (cube)
        later(&at, take(&b->to_cube[1][a->event]));
    hold(c, unit, at);
    return true;
}

static enum emu_quick time_quick(void *user, const struct emu_ins *in)
{
    struct clock_core *c = user;
    if (!go_on(c, c->clock->launch))
        return EMU_STOPPED;
    switch (in->op) {
    case TILE_SET:
    case TILE_WAIT: flag(c, in); return EMU_PASSED;
    case TILE_XSET:
    case TILE_XWAIT: return cross(c, in) ? EMU_PASSED : EMU_STOPPED;
    case TILE_SLOAD: return EMU_FETCH;
    case TILE_NEXT:
    case TILE_BARRIER: issue(c, TU_S); return EMU_PASSED;
    default: break;
    }
    if (c->move == CLOCK_MOVE_LANDED)
        return land(c) ? EMU_PASSED : EMU_STOPPED;
    const struct clock_known *x = clock_known_find(c, in);
    return !x ? EMU_FETCH : work(c, &x->cost) ? EMU_PASSED : EMU_STOPPED;
}

/* What time_quick did not know. */
static bool time_op(void *user, struct emu_launch *l, const struct emu_core_id *id, struct emu_op *op)
{
    struct clock_core *c = user;
    (void)l;
    (void)id;
    if (op->insn->op != TILE_SLOAD)
        return work(c, &clock_known_put(c, op)->cost);
    issue(c, TU_S);
    c->issue += c->clock->rates.sload;
    c->unit[TU_S].busy_cyc += c->clock->rates.sload;
    return true;
}

enum emu_stop clock_core_time(struct clock_core *c)
{
    return emu_core_walk(&c->core, &(struct emu_observer){.user = c, .op = time_op, .quick = time_quick});
}
