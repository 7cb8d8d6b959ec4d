/* The emulated cores: one interpreter of tile programs, with observers.
 *
 * A launch binds a kernel to parameter values and tensor addresses. The interpreter walks a core's program in program
 * order, evaluates every operand and hands each instruction to the observers: `data` performs it on the core's
 * scratchpads, `clock` times it, `hazard` checks that flags order every pair of conflicting accesses. All see the same
 * stream, so modes cannot disagree. */
#ifndef RUNTIME_EMU_EMU_H
#define RUNTIME_EMU_EMU_H

#include "plan/plan.h"
#include "targets/target.h"

struct emu_tensor {
    uint8_t *data;   /* NULL in mode clock */
    int64_t size;    /* bytes */
    int64_t address; /* in emulated GM, for alignment and L2 */
    enum dtype dtype;
    bool read_only; /* weights: mapped from the plan */
    bool brief;     /* nobody reads what is in it when the launch has ended */
    bool on_chip;   /* in the shared memory of the cluster that asks: no traffic of GM */
    int64_t part;   /* bytes of the part that each copy of the kernel sees; 0: all see all */
    bool warm;      /* bytes expected in L2 at launch: written or read recently (computed from the schedule) */
    int64_t ahead;  /* bytes from its begin on that came to L2 while earlier launches ran */
};
struct emu_counted; /* what the clock's first walk found: traffic, cores that behave alike */
struct emu_launch {
    const struct tile_kernel *kernel;
    const int64_t *params; /* n_params values */
    const struct emu_tensor *tensors;
    int64_t blocks; /* of all copies; evaluated, checked against the target */
    int64_t copies; /* of the kernel, side by side, each on an equal number of blocks; 0, PLAN_APART: one */
    const struct target *target;
    double dirty; /* bytes that L2 holds at launch and memory does not have yet */
    /* When not NULL: what the first walk found of a launch that differs from this one in `dirty` alone, which is not
     * walked again then; else *counted NULL, and it is kept there, in the arena `keep`. */
    const struct emu_counted **counted;
    struct arena *keep;
    struct emu_machine *machine;   /* scratchpads and lowered programs */
    bool (*cancelled)(void *user); /* asked now and then by the calling thread and the workers; may be NULL */
    void *cancel_user;
    char error[512]; /* set when a run fault is found */
};

/* Blocks of one copy of the kernel, at least 1; the copy that a block belongs to. */
static inline int64_t emu_copy_blocks(const struct emu_launch *l)
{
    return l->copies > 1 && l->blocks >= l->copies ? l->blocks / l->copies : l->blocks > 0 ? l->blocks : 1;
}
static inline int64_t emu_copy_of(const struct emu_launch *l, int64_t block)
{
    return block / emu_copy_blocks(l);
}

/* What launches share: one set of scratchpads per worker thread, kernels lowered to their executable form. Freed sets
 * and programs are kept for the next launch. A kernel handed to a machine must outlive it. Used by one launch at a
 * time. */
struct emu_machine *emu_machine_new(const struct target *t); /* NULL: out of memory */
void emu_machine_free(struct emu_machine *m);

/* One executed instruction with evaluated operands: EXPR and VAR fields hold values, BUF fields buffer numbers, others
 * as in the insn. slot[i] is the current ring slot of the buffer named by field i. */
struct emu_op {
    const struct tile_insn *insn;
    int64_t arg[TILE_MAX_ARGS];
    int32_t slot[TILE_MAX_ARGS];
    int64_t value; /* SLOAD: the clamped `assume`, until an observer knows better */
};
struct emu_core_id {
    enum tile_core kind;
    int32_t block, sub;
};
struct emu_ins;
enum emu_quick { EMU_FETCH, EMU_PASSED, EMU_STOPPED }; /* `op` has to see the operands; done; as false of `op` */
/* false stops the launch (the observer has set launch->error). `value` receives what SLOAD reads (data observer), else
 * its `assume` operand is used. */
struct emu_observer {
    void *user;
    bool (*op)(void *user, struct emu_launch *l, const struct emu_core_id *core, struct emu_op *op);
    bool in_order; /* nothing overlaps: does not hear of flags, slots and barriers */
    /* Asked first, before operands are fetched; NULL: there is nothing that it can do without them. */
    enum emu_quick (*quick)(void *user, const struct emu_ins *in);
};
/* Walks one core's program to its end, or to the next XWAIT/BARRIER when it may not pass. The caller (launch.c)
 * schedules the cores of a block cooperatively. Internals in emu_priv.h. */

/* Runs a launch with data: blocks in parallel on the pool. */
struct pool;
NPUC_MUST_CHECK enum npuc_status emu_run_data(struct emu_launch *l, struct pool *pool, bool check_hazards);

/* Times a launch without data. */
struct emu_unit_time {
    double busy_cyc; /* sum over cores of a kind */
    int64_t n_insns;
};
struct emu_timing {
    double cycles;                   /* slowest core, without launch cost */
    double launch_cyc;               /* launch cost */
    double core_cycles[TCORE_COUNT]; /* slowest of each kind */
    struct emu_unit_time unit[TCORE_COUNT][TU_COUNT];
    int64_t bytes[TS_COUNT][TS_COUNT];            /* moved from space to space */
    int64_t gm_read, gm_written, l2_hit, l2_miss; /* bytes */
    int64_t peak[TS_COUNT];                       /* bytes of each on-chip space in use */
    double dirty;                                 /* bytes that L2 holds at the end and memory does not have yet */
    int64_t macs;                                 /* fractal-rounded */
    int32_t cores[TCORE_COUNT];                   /* used */
    const char *bound_by;                         /* "launch", "mte2", "mac", "vec", ... */
};
NPUC_MUST_CHECK enum npuc_status emu_run_clock(struct emu_launch *l, struct emu_timing *out);

#endif
