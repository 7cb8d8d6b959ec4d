/* Inside of the clock: constants in cycles and bytes, what one instruction costs, which bytes are in L2, the cores'
 * timelines. */
#ifndef RUNTIME_EMU_CLOCK_PRIV_H
#define RUNTIME_EMU_CLOCK_PRIV_H

#include "runtime/emu/emu_priv.h"

#define CLOCK_MAX_QUEUE 64

/* ---- constants of the target (clock_cost.c) ---- */
struct clock_rates {
    double mac[DT_COUNT]; /* MAC/cycle, 0: not taken */
    int64_t k0[DT_COUNT];
    int64_t fractal_rows, fractal_c0;
    bool mac_rows; /* operands are rows: no rounding of m */
    int64_t mac_columns;
    double mac_head;
    double vec[TK_COUNT]; /* TK_VEC_* */
    int64_t vec_bytes, ub_block, bank_groups;
    int64_t bank_span; /* bytes of one bank of every group: neighbours in UB */
    double l2_cube, l2_vector, cold_vector, nd2nz, floor, row, latency, miss_latency;
    int64_t line;
    double mte3, mte3_floor, mte3_rmw;
    int64_t cluster; /* cores of one, at least 1 */
    double link, cluster_barrier;
    double l0a, l0b, mx, mte1_latency, bt, bt_latency;
    double fix_bytes, fix_elements, fix_latency, turnround;
    double sload, issue, flag, cross, barrier;
    double hbm, l2; /* B/cycle of all cores together; l2: 0 when there is no limit */
    int32_t queue;
};
void clock_rates_of(const struct target *t, struct clock_rates *r);
/* Cores of a cluster share its way to memory: what is left for one of those that the launch puts on a cluster. */
void clock_rates_share(const struct emu_launch *l, struct clock_rates *r);

/* ---- one instruction (clock_cost.c, clock_vector.c, clock_move.c) ---- */
/* Elements at byte off + sum i[k]*gm[k] of a tensor, at byte sum i[k]*chip[k] of a buffer. */
struct clock_span {
    int32_t tensor;    /* -1: none */
    int64_t off, size; /* bytes; size of one element */
    int64_t n[4], gm[4], chip[4];
};
/* A read of GM takes max(busy, hit * hit_cyc + miss * miss_cyc + time of miss * bus bytes from memory), where miss is
 * the share of the tensor's bytes that are not in L2; everything else takes busy. */
struct clock_cost {
    uint8_t unit;                       /* enum tile_unit */
    uint8_t from, to;                   /* enum tile_space of a move; TS_COUNT none */
    double busy;                        /* cycles */
    double head;                        /* more when the unit was idle */
    double after;                       /* from the unit being free to the result being there */
    double after_miss;                  /* more of it, by the share of misses */
    double hit_cyc, miss_cyc, bus, cap; /* reads of GM; cap: B/cycle of one core from memory */
    int64_t bytes;
    int64_t macs;
    bool follows;           /* another core's load brings the bytes: no traffic of its own */
    struct clock_span span; /* of GM */
};
struct clock_cx {
    const struct emu_launch *launch;
    const struct clock_rates *rates;
    const struct tile_section *section;
    int64_t block;    /* number of the core's block */
    int64_t gathered; /* rows that LOADX has read so far */
};
typedef void clock_cost_fn(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c);
void clock_cost_of(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c);
clock_cost_fn clock_load, clock_loadc, clock_store, clock_load_nz, clock_loadx, clock_storex, clock_fixp, clock_fixp_nz;
clock_cost_fn clock_vec, clock_cast, clock_red_add, clock_red_end, clock_fill, clock_iota, clock_dequant, clock_transp,
    clock_copy_ub, clock_castp, clock_order, clock_pick;
int64_t clock_bytes(int64_t dtype, int64_t n); /* of n packed elements */
int64_t clock_span_bytes(const struct clock_span *s);

/* ---- L2 (clock_l2.c): lines in chunks of 64, chunks evicted least recently used first ---- */
struct clock_l2;
struct clock_traffic {    /* per tensor of the launch */
    int64_t read, missed; /* bytes */
    int64_t written;
};
struct clock_l2 *clock_l2_new(const struct emu_launch *l); /* NULL: out of memory */
void clock_l2_free(struct clock_l2 *c);
/* What a move touches, as L2 looks at it: steps are positive, dimensions that do not move are left out. */
struct clock_reach {
    struct clock_span span;
    int64_t last; /* bytes from its first element to its last; -1: further than any tensor */
};
void clock_l2_reach(const struct clock_span *s, struct clock_reach *r);
bool clock_l2_move(struct clock_l2 *c, const struct clock_reach *r, int64_t bytes,
                   bool write); /* false: leaves the tensor */
const struct clock_traffic *clock_l2_traffic(const struct clock_l2 *c, int32_t tensor);
struct clock_written {
    int64_t bytes; /* of distinct lines */
    int64_t warm;  /* of them, those that were in L2 at launch */
};
struct clock_written clock_l2_written(const struct clock_l2 *c);
int64_t clock_l2_kept(const struct clock_l2 *c); /* bytes that reads left in it */

/* ---- what the first walk finds (clock.c) ---- */
struct clock_kind { /* a block that stands for `weight` of them */
    int64_t number;
    double weight;
};
struct emu_counted {
    struct clock_traffic *traffic; /* per tensor */
    struct clock_written written;
    int64_t kept;
    struct clock_kind *kinds;
    int64_t n_kinds;
};

/* ---- what the first walk needs of a program (clock_slice.c) ---- */
enum { CLOCK_MARK = TILE_OP_END }; /* shows its operands to the observer; `insn` is the first that it stands for */
struct emu_program *clock_slice_new(struct arena *a, const struct emu_program *p); /* NULL: out of memory */
/* What the second walk needs: all instructions, but only what decides their costs. */
struct emu_program *clock_slice_times(struct arena *a, const struct emu_program *p);
int clock_place(int op); /* clock_known.c: the field with the element of GM at which the move begins; 0: it is none */

/* ---- costs that are known (clock_known.c) ---- */
enum { CLOCK_DECIDES = 8 };
struct clock_known { /* of one instruction, as a core of the launch met it last */
    struct clock_cost cost;
    struct clock_reach reach;     /* of a move's span */
    uint64_t hash;                /* of what is in cost */
    int64_t seen[CLOCK_DECIDES];  /* the operands that decide it and vary */
    int32_t value[CLOCK_DECIDES]; /* which values of the program they are */
    int32_t n;                    /* -1: too many of them, or more than them decides: never known */
    int32_t place;                /* value: the element of GM at which a move begins; -1: none, or the same always */
    int64_t at;                   /* place, as seen */
    int64_t copy;                 /* of the kernel */
};
struct clock_core;
/* Its cost when the operands are still those of the last time; NULL: they have to be fetched. */
const struct clock_known *clock_known_find(const struct clock_core *c, const struct emu_ins *in);
/* The cost of what was fetched, for the next time. */
const struct clock_known *clock_known_put(struct clock_core *c, const struct emu_op *op);
uint32_t clock_decides(int op); /* clock_slice.c: bit per field whose value decides what the instruction costs */

/* ---- timelines (clock_core.c) ---- */
enum clock_move { CLOCK_MOVE_NONE, CLOCK_MOVE_ASKED, CLOCK_MOVE_RUNS, CLOCK_MOVE_LANDED };
struct clock_times { /* when the cross-core flags of one number were set */
    double *at;
    int32_t head, len, cap;
};
struct clock_core {
    struct emu_core core;
    struct clock_cx cx;
    struct clock *clock;
    struct clock_block *block;
    int32_t index; /* 0 the cube core, 1 and 2 the vector cores */
    bool used, suspended;
    enum emu_stop stop;
    uint64_t hash; /* of everything that decides the core's times */
    uint64_t met;  /* of the loads for its cluster */
    int64_t asked; /* bytes read since the last turn */
    double issue;  /* scalar unit's time */
    double way;    /* when its way to memory is free: two queues may read */
    double free[TU_COUNT], done[TU_COUNT];
    bool idle[TU_COUNT];                     /* the unit had nothing to do before its next instruction */
    double start[TU_COUNT][CLOCK_MAX_QUEUE]; /* of the last instructions: a ring as long as the queue */
    int32_t place[TU_COUNT];                 /* of the next one in it, where the oldest is once it is full */
    bool full[TU_COUNT];
    double flag[TU_COUNT][TU_COUNT][TILE_MAX_EVENTS];
    struct emu_unit_time unit[TU_COUNT];
    int64_t bytes[TS_COUNT][TS_COUNT];
    int64_t macs;
    struct clock_known **known;             /* per instruction of its program, for all cores that run it */
    struct clock_known once;                /* an instruction's that is never known */
    int64_t copy;                           /* of the kernel that the core runs */
    enum clock_move move;                   /* the read of GM that the core stands at */
    struct clock_cost cost;                 /* of that read */
    double move_start, move_end, move_left; /* left: bytes still to come from memory */
    double move_rate, move_cap;
    double port_left, port_rate, port_end; /* bytes that L2 has to move yet; B/cycle; when it has */
    double port_time;                      /* cycles of the slot at hand in which it may */
    bool port_held;                        /* other cores held the move up */
};
struct clock_block {
    struct clock_core core[EMU_BLOCK_CORES];
    struct emu_sync sync;
    struct clock_times to_vector[EMU_SUBS][TILE_MAX_XEVENTS], to_cube[EMU_SUBS][TILE_MAX_XEVENTS];
    int64_t number;
    double weight; /* blocks that behave alike, of which this is the first */
};
enum { CLOCK_SLOTS = 4096 }; /* slots of time that are kept */
struct clock_slot {
    int64_t number; /* from one; 0: none yet */
    double left;    /* bytes */
};
struct clock {
    struct emu_launch *launch;
    struct emu_program *const *prog;
    struct emu_program *slice[TCORE_COUNT];  /* of each program: what the walk at hand needs */
    struct clock_known **known[TCORE_COUNT]; /* of the slices' instructions */
    int64_t line_mask;                       /* of the bytes that a line has, -1: they are no power of two */
    struct arena arena;
    struct clock_rates rates;
    struct clock_l2 *l2;
    const struct emu_counted *counted; /* NULL until the first walk is done */
    struct clock_block **blocks;       /* NULL behind n_blocks */
    int64_t n_blocks;
    struct clock_core **cores, **readers; /* of the second walk: all in use; those that wait for bytes */
    int64_t n_cores, n_readers;
    double *miss;              /* per tensor: share of the bytes read that are not in L2 */
    double memory_rate;        /* B/cycle for reads, write-backs taken off */
    double read, missed, back; /* bytes read; of them, from memory; bytes written back to it */
    double dirty;              /* bytes that L2 holds at the end and memory does not have yet */
    double now;
    struct clock_slot *port; /* of L2; NULL when the cores cannot ask for more than it gives */
    int64_t group;           /* cores that share loads; 0: there are none */
    bool anew;               /* CLOCK_ANEW */
    int64_t quantum;         /* bytes a core reads in its turn while traffic is counted */
    int64_t ops;
    bool no_memory, cancelled;
};
/* Walk on until the core has ended, waits, or stands at a read. */
enum emu_stop clock_core_count(struct clock_core *c);
enum emu_stop clock_core_time(struct clock_core *c);
void clock_core_reset(struct clock_core *c);
double clock_core_end(const struct clock_core *c);
void clock_core_barrier(struct clock_core *c, double at);
double clock_core_moving(const struct clock_core *c); /* cycles of the move that has landed, were the core alone */

/* ---- shared memory (clock_fluid.c) ---- */
/* Moves the reads on to the next moment at which one of them ends or begins; false when there is none. */
bool clock_fluid_step(struct clock *k);

/* ---- what L2 gives (clock_port.c) ---- */
bool clock_port_open(struct clock *k); /* false: out of memory */
void clock_port_reset(struct clock *k);
/* The moves at which n cores stand: until when other cores hold each up. */
void clock_port_pass(struct clock *k, struct clock_core *const *cores, int64_t n);

/* ---- figures (clock_report.c) ---- */
void clock_report(const struct clock *k, struct emu_timing *out);

/* ---- the launch (clock.c) ---- */
enum {
    CLOCK_EVERY_BLOCK = 1, /* do not let one block stand for those like it */
    CLOCK_ANEW = 2,        /* calculate the cost of an instruction whenever one meets it */
};
NPUC_MUST_CHECK enum npuc_status clock_run(struct emu_launch *l, struct emu_timing *out, uint32_t flags);

#endif
