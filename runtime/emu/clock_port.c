/* What L2 as a whole gives, for reads and writes of all cores together: a calendar of equal slots of time, each with so
 * many bytes. A move takes bytes of the slots that it runs through, at its own rate where they are left; reads that
 * land at the same moment share in proportion to what they ask for. As long as no slot runs out, every move takes what
 * it takes alone.
 *
 * Alternative refused: max-min shares as those of memory (clock_fluid.c). A core has several moves at a time, of two
 * queues and FIXP, and is walked in the order of its program, in which a later instruction may begin earlier: slots can
 * be asked again for a time that is over, shares cannot. */
#include "runtime/emu/clock_priv.h"

#include <math.h>
#include <string.h>

#define SLOT  128.0 /* cycles: less than a move of 16 KiB */
#define CRUMB 1e-6  /* bytes: what rounding leaves */
#define FAR   1e18  /* cycles: slots have whole numbers */

/* Most that the cores of the launch can ask for at one time. Reads do not go on faster than what misses comes from
 * memory. */
static double asked_at_most(const struct clock *k)
{
    const struct clock_rates *r = &k->rates;
    double read = 0, written = 0;
    for (int64_t i = 0; i < k->n_cores; i++) {
        const struct clock_core *c = k->cores[i];
        const bool cube = c->core.id.kind == TCORE_CUBE;
        read += c->block->weight * (cube ? r->l2_cube : r->l2_vector);
        written += c->block->weight * (cube ? r->fix_bytes : r->mte3);
    }
    return fmin(read, k->missed > 0 ? r->hbm * k->read / k->missed : read) + written;
}

bool clock_port_open(struct clock *k)
{
    if (k->rates.l2 > 0 && asked_at_most(k) > k->rates.l2) {
        k->port = ARENA_ARRAY(&k->arena, struct clock_slot, CLOCK_SLOTS);
        k->no_memory |= !k->port;
    }
    return !k->no_memory;
}

void clock_port_reset(struct clock *k)
{
    if (k->port)
        memset(k->port, 0, CLOCK_SLOTS * sizeof *k->port);
}

/* Bytes that are left of a slot; those of slots long over are not kept, whoever asks for them is not held up. */
static double *left_of(struct clock *k, int64_t slot)
{
    struct clock_slot *s = &k->port[slot % CLOCK_SLOTS];
    if (s->number > slot + 1)
        return NULL;
    if (s->number <= slot)
        *s = (struct clock_slot){slot + 1, SLOT * k->rates.l2};
    return &s->left;
}

static double lesser(double a, double b)
{
    return a < b ? a : b;
}

static double greater(double a, double b)
{
    return a > b ? a : b;
}

/* Cycles of a slot in which a move may run; 0 when it has all it asked for. */
static double time_in(const struct clock_core *c, double begin)
{
    const double from = c->move_start > begin ? c->move_start : begin;
    return c->port_left > 0 && from < begin + SLOT ? begin + SLOT - from : 0;
}

/* What part of their own rates the moves have in a slot: that of the bytes left for the time in which they run. */
static double part_of(const double *left, double l2, double time, double bytes)
{
    const double most = left ? lesser(*left, time * l2) : bytes;
    return most < bytes ? most / bytes : 1;
}

/* One slot for n moves; false: all have what they asked for now. */
static bool serve(struct clock *k, struct clock_core *const *cores, int64_t n, int64_t slot)
{
    const double begin = (double)slot * SLOT;
    double bytes = 0, longest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double time = cores[i]->port_time = time_in(cores[i], begin);
        bytes += cores[i]->block->weight * time * cores[i]->port_rate;
        longest = greater(longest, time);
    }
    double *const left = bytes > 0 ? left_of(k, slot) : NULL;
    const double part = bytes > 0 ? part_of(left, k->rates.l2, longest, bytes) : 1;
    bool more = false;
    for (int64_t i = 0; i < n; i++) {
        struct clock_core *c = cores[i];
        const double time = c->port_time;
        if (time <= 0) {
            more |= c->port_left > CRUMB;
            continue;
        }
        const double given = lesser(part * time * c->port_rate, c->port_left);
        more |= c->port_left > given + CRUMB;
        c->port_held |= part < 1;
        if (c->port_held) /* else nobody asks for its end */
            c->port_end = given > 0 ? begin + SLOT - time + c->port_left / (part * c->port_rate) : begin + SLOT;
        c->port_left = c->port_left > given + CRUMB ? c->port_left - given : 0;
        if (left)
            *left = greater(*left - c->block->weight * given, 0);
    }
    return more;
}

/* What so many slots did not move: at L2's rate, or as fast as each is alone. */
static void serve_rest(const struct clock *k, struct clock_core *const *cores, int64_t n, double begin)
{
    double bytes = 0;
    for (int64_t i = 0; i < n; i++)
        bytes += cores[i]->block->weight * cores[i]->port_left;
    for (int64_t i = 0; i < n; i++) {
        struct clock_core *c = cores[i];
        if (c->port_left <= 0)
            continue;
        const double alone = c->port_left / c->port_rate;
        c->port_held |= bytes / k->rates.l2 > alone;
        c->port_end = begin + greater(alone, bytes / k->rates.l2);
    }
}

void clock_port_pass(struct clock *k, struct clock_core *const *cores, int64_t n)
{
    double first = INFINITY;
    for (int64_t i = 0; i < n; i++) {
        struct clock_core *c = cores[i];
        const double time = clock_core_moving(c), bytes = c->cost.from == TS_GM ? c->cost.bus : (double)c->cost.bytes;
        c->port_held = false;
        c->port_left = time > 0 ? bytes : 0;
        c->port_rate = time > 0 ? bytes / time : 0;
        if (c->port_left > 0 && c->move_start < first)
            first = c->move_start;
    }
    if (!(first < FAR)) /* nothing to move, or the time of a broken plan */
        return;
    const int64_t from = (int64_t)(first / SLOT);
    int64_t past = 0;
    while (past < CLOCK_SLOTS && serve(k, cores, n, from + past))
        past++;
    if (past == CLOCK_SLOTS)
        serve_rest(k, cores, n, (double)(from + past) * SLOT);
}
