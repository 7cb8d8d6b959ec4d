/* The cheapest division of boxes into two sides: minimum cut, exact. Costs are whole numbers; equal divisions resolve
 * to the one with the fewest boxes on the first side, so the answer depends on nothing but the costs. */
#ifndef PASSES_CUT_H
#define PASSES_CUT_H

#include "base/arena.h"
#include "base/vec.h"

#define CUT_NEVER ((int64_t)1 << 50) /* a cost that no division pays; sums of it still fit */

struct cut_edge {
    int32_t to, back; /* box; number of the edge the other way */
    int64_t room;
};
struct cut_box {
    VEC(int32_t) edges;
    int32_t level;
    int64_t next;
};
struct cut {
    struct arena *arena;
    VEC(struct cut_box) boxes; /* 0: the first side, 1: the second */
    VEC(struct cut_edge) edges;
};
enum { CUT_FIRST, CUT_SECOND };

void cut_init(struct cut *c, struct arena *a);
int32_t cut_box_new(struct cut *c);
/* `cost` is paid when `a` is on the first side and `b` on the second. */
void cut_pay(struct cut *c, int32_t a, int32_t b, int64_t cost);
/* first[b]: is box b on the first side? In the arena. The cut is used up. */
const bool *cut_solve(struct cut *c);

#endif
