/* Within the scheduler: a section seen as nested bodies, the edges between units, and their events. */
#ifndef BACKEND_SCHEDULE_PRIV_H
#define BACKEND_SCHEDULE_PRIV_H

#include "backend/backend.h"

#define SCHED_MAX_BUFS 256

struct buf_set {
    uint64_t bits[SCHED_MAX_BUFS / 64];
};

/* One ordering from unit src to unit dst inside one body: SET stands before instruction set_at, WAIT before wait_at. */
struct edge {
    int32_t body; /* index of the enclosing LOOP or IF, -1: the section */
    int32_t set_at, wait_at;
    int32_t slots; /* events it needs: ring slots, 1 when the ring does not matter */
    int32_t buf;   /* whose ring numbers the events; -1 when slots is 1 */
    int32_t event;
    uint8_t src, dst;    /* enum tile_unit */
    bool back;           /* to the next iteration: flags are set before the program and drained after it */
    struct buf_set bufs; /* buffers ordered by it */
};

struct span { /* accesses by one unit, [first, last] in the code of one body */
    int32_t first, last;
    enum tile_unit unit;
};

struct insertion {
    int32_t at, phase, order; /* before code[at]; see enum insert_phase */
    struct tile_insn insn;
};
enum insert_phase { PHASE_PRESET, PHASE_SET, PHASE_WAIT, PHASE_NEXT, PHASE_DRAIN };

struct sched {
    struct ir_ctx *cx;
    struct tile_kernel *kernel;
    struct tile_section *section;
    struct arena *arena;
    int32_t *end;    /* LOOP, IF: index of the matching end; else -1 */
    int32_t *parent; /* index of the enclosing LOOP or IF, -1 */
    int32_t *loop;   /* index of the innermost enclosing LOOP, -1 */
    struct tile_access *access;
    int32_t *group; /* per buffer: the buffer with which it is ordered as if they were one, mostly itself */
    int32_t *home;  /* per buffer: LOOP of its home body, -1 section, -2 unused */
    VEC(struct edge) edges;
    VEC(struct insertion) inserts;
    bool merge_all[TU_COUNT][TU_COUNT]; /* pairs short of events: merge wherever it is correct */
};

void sched_edges(struct sched *s);                              /* schedule_edges.c */
bool sched_events(struct sched *s, uint8_t *src, uint8_t *dst); /* schedule_events.c: false: this pair has too few */
void sched_insert(struct sched *s);                             /* schedule_events.c */
NPUC_MUST_CHECK enum npuc_status place_buffers(struct ir_ctx *cx, const struct machine *m,
                                               struct tile_kernel *k); /* place.c */

#endif
