/* Memory bandwidth shared by the cores that read at a moment: max-min fair. Every reading core gets an equal part, one
 * that cannot take its part leaves the rest to the others (water filling; Bertsekas and Gallager, Data Networks, 6.5).
 * A block that stands for n alike takes n parts. */
#include "runtime/emu/clock_priv.h"

#include <math.h>

struct walk { /* over the cores of all blocks */
    const struct clock *clock;
    int64_t block;
    int core;
};

static struct clock_core *next(struct walk *w)
{
    for (; w->block < w->clock->n_blocks; w->block++, w->core = 0)
        while (w->core < EMU_BLOCK_CORES) {
            struct clock_core *c = &w->clock->blocks[w->block]->core[w->core++];
            if (c->used && (c->move == CLOCK_MOVE_ASKED || c->move == CLOCK_MOVE_RUNS))
                return c;
        }
    return NULL;
}

/* Rates of the running reads. Caps differ little: a few rounds settle them. */
static void share(const struct clock *k)
{
    double left = k->memory_rate, weight = 0;
    struct clock_core *c;
    for (struct walk w = {k, 0, 0}; (c = next(&w)) != NULL;) {
        c->move_rate = 0;
        weight += c->move == CLOCK_MOVE_RUNS ? c->block->weight : 0;
    }
    for (bool settled = false; !settled && weight > 0;) {
        const double part = left / weight;
        settled = true;
        for (struct walk w = {k, 0, 0}; (c = next(&w)) != NULL;) {
            if (c->move != CLOCK_MOVE_RUNS || c->move_rate > 0 || c->move_cap > part)
                continue;
            c->move_rate = c->move_cap;
            left -= c->move_cap * c->block->weight;
            weight -= c->block->weight;
            settled = false;
        }
    }
    const double part = weight > 0 ? left / weight : 0;
    for (struct walk w = {k, 0, 0}; (c = next(&w)) != NULL;)
        if (c->move == CLOCK_MOVE_RUNS && c->move_rate == 0)
            c->move_rate = part;
}

/* A read that began before the others had come this far (a core that waited for one of its block): what it would have
 * got by now. */
static void begin(struct clock *k, struct clock_core *c)
{
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

bool clock_fluid_step(struct clock *k)
{
    struct clock_core *c;
    bool landed = false;
    for (struct walk w = {k, 0, 0}; (c = next(&w)) != NULL;)
        if (c->move == CLOCK_MOVE_ASKED && c->move_start <= k->now) {
            begin(k, c);
            landed |= c->move == CLOCK_MOVE_LANDED;
        }
    if (landed)
        return true;
    share(k);
    double at = INFINITY;
    for (struct walk w = {k, 0, 0}; (c = next(&w)) != NULL;) {
        const double t = c->move == CLOCK_MOVE_ASKED ? c->move_start : k->now + c->move_left / c->move_rate;
        at = t < at ? t : at;
    }
    if (isinf(at))
        return false;
    for (struct walk w = {k, 0, 0}; (c = next(&w)) != NULL;) {
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
    return true;
}
