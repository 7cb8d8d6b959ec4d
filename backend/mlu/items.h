/* How the tiles of a matrix kernel lie on the cores. An item is a tile of the right operand and a run of row tiles;
 * units take items in turn, runs fastest, so that neighbours share the right operand. A unit is one core, or lanes:
 * cores of one or more clusters that walk the same items side by side, each with every lanes-th row tile. */
#ifndef BACKEND_MLU_ITEMS_H
#define BACKEND_MLU_ITEMS_H

#include "backend/backend.h"

struct mlu_lanes {
    int32_t lanes, clusters; /* 1, 1: every core for itself */
    bool runs;               /* items are as long as the number of units allows; else one row tile of each lane */
};

/* Expressions of the kernel. */
struct mlu_items {
    expr lane, right, first, steps; /* place of the core; tile of the right operand; row tiles of each lane */
    expr next_right, more;          /* tile of the right operand of the item behind; 1 while there is one, else 0 */
    int32_t lanes;
    expr unit, units, items, runs, most, tiles;
};

/* What the items of a core are, with the first one's tile of the right operand, and the kernel's number of blocks.
 * `rows` row tiles for each of `rights` tiles of the right operand. */
void mlu_plan_items(struct emit *e, struct tile_builder *b, const struct mlu_lanes *l, expr rows, expr rights,
                    struct mlu_items *out);
/* Opens the loop over them (end it with tile_end); true when a core has one at most. */
bool mlu_loop_items(struct tile_builder *b, struct mlu_items *v);
/* Both. */
void mlu_open_items(struct emit *e, struct tile_builder *b, const struct mlu_lanes *l, expr rows, expr rights,
                    struct mlu_items *out);
/* Number of row tile j of the item for this core; not below `rows` for a lane that has none. */
expr mlu_item_row(struct expr_pool *x, const struct mlu_items *v, expr j);

/* A loop that is none when it has one turn: what rotates with a loop outside would stop at its end. */
struct mlu_turns {
    expr i;
    bool loop;
};
struct mlu_turns mlu_open_turns(struct tile_builder *b, const char *name, expr count);
void mlu_close_turns(struct tile_builder *b, const struct mlu_turns *t);

/* The same in numbers, for choosing tiles. */
struct mlu_spread {
    double steps, runs, units, rounds, beside; /* beside: tiles of the right operand that are walked at a time */
};
struct mlu_spread mlu_spread_of(const struct machine *m, const struct mlu_lanes *l, double rows, double rights);

/* What moves cost: bytes per cycle. */
struct mlu_rates {
    double core, memory, move, gather, link, cache, vec, turn; /* cache: bytes; turn: cycles per vec bytes turned */
    double mac, k0, columns;
    double latency, fixed; /* cycles: end of a load to its use, start of a vector instruction */
    double barrier, queue; /* cycles: of a cluster; instructions in flight on a unit */
};
struct mlu_rates mlu_rates_of(const struct machine *m, enum dtype t);
/* Choices of lanes for a kernel: 0 every core for itself, 1 a cluster, 2 all clusters. False: not on this machine. */
enum { MLU_LANES = 3 };
bool mlu_lanes_of(const struct machine *m, int choice, struct mlu_lanes *l);

#endif
