/* What a product takes with a tile: a closed form that ranks many candidates, a timeline that decides among few. */
#ifndef BACKEND_ASCEND_MATMUL_TIME_H
#define BACKEND_ASCEND_MATMUL_TIME_H

#include "backend/ascend/matmul.h"

#define MM_FRACTAL 16

/* fmax and fmin, whose calls were a tenth of the choice of tiles. */
static inline double mm_most(double a, double b)
{
    return a > b || b != b ? a : b;
}
static inline double mm_least(double a, double b)
{
    return a < b || b != b ? a : b;
}

/* Constants of the target for one product; cycles, bytes and elements of K. */
struct mm_rates {
    double l2, hbm, nd2nz, floor, row, latency, miss_latency, l0a, l0b, mx, mte1_latency, mac, mac_k0, mac_head, fix,
        fix_bytes, turnround, clock, queue, resident; /* resident: bytes of L2 for operands */
    int64_t line;
};
struct mm_rates mm_rates_of(const struct machine *m, const struct mm *p);
/* How often an operand of so many bytes comes from memory, being read once per band: once when it stays in L2 beside a
 * band of the other. */
double mm_reads(const struct mm_rates *r, double bytes, double bands, double beside);

/* Cycles of the slowest core without the launch: by the largest unit's time of a tile; along the units' queues. */
double mm_closed_form(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t,
                      const struct mm_rates *r);
double mm_timeline(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t,
                   const struct mm_rates *r);

#endif
