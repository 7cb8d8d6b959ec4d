/* Memory bandwidth shared by the cores that read at a moment: max-min fair. Every reading core gets an equal part, one
 * that cannot take its part leaves the rest to the others (water filling; Bertsekas and Gallager, Data Networks, 6.5).
 * A block that stands for n alike takes n parts. */
#include "runtime/emu/clock_priv.h"

#include <math.h>

/* The cores that wait for bytes, in the order of their numbers. */
static void gather(struct clock *k)
{
    k->n_readers = 0;
    for (int64_t i = 0; i < k->n_cores; i++)
        if (k->cores[i]->move == CLOCK_MOVE_ASKED || k->cores[i]->move == CLOCK_MOVE_RUNS)
            k->readers[k->n_readers++] = k->cores[i];
}

/* Rates of the running reads. Caps differ little: a few rounds settle them. */
static void share(const struct clock *k)
{
    double left = k->memory_rate, weight = 0;
    for (int64_t i = 0; i < k->n_readers; i++) {
        struct clock_core *c = k->readers[i];
        c->move_rate = 0;
        weight += c->move == CLOCK_MOVE_RUNS ? c->block->weight : 0;
    }
    for (bool settled = false; !settled && weight > 0;) {
        const double part = left / weight;
        settled = true;
        for (int64_t i = 0; i < k->n_readers; i++) {
            struct clock_core *c = k->readers[i];
            if (c->move != CLOCK_MOVE_RUNS || c->move_rate > 0 || c->move_cap > part)
                continue;
            c->move_rate = c->move_cap;
            left -= c->move_cap * c->block->weight;
            weight -= c->block->weight;
            settled = false;
        }
    }
    const double part = weight > 0 ? left / weight : 0;
    for (int64_t i = 0; i < k->n_readers; i++)
        if (k->readers[i]->move == CLOCK_MOVE_RUNS && k->readers[i]->move_rate == 0)
            k->readers[i]->move_rate = part;
}

/* A read that began before the others had come this far (a core that waited for one of its block): what it would have
 * got by now. */
static void begin(struct clock *k, struct clock_core *c)
{
    if (c->move_left <= 0) { /* nothing of it comes from memory */
        c->move = CLOCK_MOVE_LANDED;
        c->move_end = c->move_start;
        return;
    }
    c->move = CLOCK_MOVE_RUNS;
    if (c->move_start >= k->now)
        return;
    share(k);
    const double got = (k->now - c->move_start) * c->move_rate;
    if (got < c->move_left) {
        c->move_left -= got;
        return;
    }
    c->move = CLOCK_MOVE_LANDED;
    c->move_end = c->move_start + c->move_left / c->move_rate;
}

static void advance(struct clock *k, double at)
{
    for (int64_t i = 0; i < k->n_readers; i++) {
        struct clock_core *c = k->readers[i];
        if (c->move != CLOCK_MOVE_RUNS)
            continue;
        const double end = k->now + c->move_left / c->move_rate;
        if (end <= at) {
            c->move = CLOCK_MOVE_LANDED;
            c->move_end = at;
        } else {
            c->move_left -= (at - k->now) * c->move_rate;
        }
    }
    k->now = at;
}

bool clock_fluid_step(struct clock *k)
{
    bool landed = false;
    gather(k);
    for (int64_t i = 0; i < k->n_readers; i++) {
        struct clock_core *c = k->readers[i];
        if (c->move == CLOCK_MOVE_ASKED && c->move_start <= k->now) {
            begin(k, c);
            landed |= c->move == CLOCK_MOVE_LANDED;
        }
    }
    if (landed)
        return true;
    share(k);
    double at = INFINITY;
    for (int64_t i = 0; i < k->n_readers; i++) {
        const struct clock_core *c = k->readers[i];
        const double t = c->move == CLOCK_MOVE_ASKED ? c->move_start : k->now + c->move_left / c->move_rate;
        at = t < at ? t : at;
    }
    if (isinf(at))
        return false;
    advance(k, at);
    return true;
}
