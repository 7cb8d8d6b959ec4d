/* Running a launch with data. Blocks are independent but for barriers and are handed to the pool; the cores of a block
 * take turns, each running until it must wait for another. Between two barriers every block runs to the barrier;
 * scratchpads then must survive, so a kernel with barriers has one set per block, any other one per worker. */
#include "runtime/emu/hazard.h"

#include "base/pool.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

struct run {
    struct emu_launch *l;
    struct emu_machine *m;
    struct emu_program *const *prog;
    bool per_block; /* block i uses set i, else worker w uses set w */
    bool check;
    bool resume;             /* a further round, after a barrier */
    _Atomic int64_t faulty;  /* lowest block with a fault; INT64_MAX none */
    _Atomic int32_t waiting; /* blocks that stand at a barrier */
    _Atomic bool cancelled;
};

static bool has_barrier(const struct tile_kernel *k)
{
    for (int c = 0; c < TCORE_COUNT; c++)
        for (int64_t i = 0; k->has[c] && i < k->section[c].code.len; i++)
            if (k->section[c].code.data[i].op == TILE_BARRIER)
                return true;
    return false;
}

/* Core i of a block: 0 the cube core, 1 and 2 the vector cores. A kernel of vector cores alone uses number 1. */
static const struct emu_program *program_of(const struct run *r, int i)
{
    const bool mixed = r->prog[TCORE_CUBE] && r->prog[TCORE_VECTOR];
    if (i == 0)
        return r->prog[TCORE_CUBE];
    return i == 1 || mixed ? r->prog[TCORE_VECTOR] : NULL;
}

static void forget_made(struct emu_block *b)
{
    for (int i = 0; b->made_from && i < EMU_SHADOWS; i++)
        b->shadow[i].n = 0;
    b->made_from = b->made_to = NULL;
    b->shows_made = false;
}

static bool bind_block(const struct run *r, struct emu_block *b)
{
    for (int i = 0; i < EMU_BLOCK_CORES; i++) {
        const struct emu_program *p = program_of(r, i);
        if (p && !emu_core_bind(&b->core[i], p, r->l, true))
            return false;
        struct emu_data *d = &b->data[i];
        *d = (struct emu_data){.launch = r->l,
                               .core = &b->core[i],
                               .block = b,
                               .section = p ? p->section : NULL,
                               .mem = &b->mem[i],
                               .hazard = r->check ? b->hazard : NULL,
                               .hazard_core = i,
                               .error = b->error,
                               .row = d->row,
                               .views = r->check || r->m->no_views ? NULL : b->core[i].views};
    }
    b->alone = !r->per_block;
    b->shows_written = false;
    forget_made(b);
    b->ready = true;
    return true;
}

static void start_block(const struct run *r, struct emu_block *b, int64_t number)
{
    memset(&b->sync, 0, sizeof b->sync);
    if (r->check)
        emu_hazard_start(b->hazard);
    for (int i = 0; i < EMU_BLOCK_CORES; i++) {
        const struct emu_core_id id = {i == 0 ? TCORE_CUBE : TCORE_VECTOR, (int32_t)number, i == 2};
        if (program_of(r, i))
            emu_core_start(&b->core[i], id, &b->sync);
        for (int32_t v = 0; (b->shows_written || b->shows_made) && program_of(r, i) && v < b->core[i].prog->n_views;
             v++)
            b->core[i].views[v].src = NULL; /* another block may write what the last one read */
    }
    forget_made(b);
    b->shows_written = false;
}

static bool left_flag(const struct run *r, struct emu_block *b, int i)
{
    if (!r->check || emu_hazard_finish(b->hazard, i))
        return false;
    char text[128];
    emu_hazard_left(b->hazard, i, text, sizeof text);
    const struct emu_core_id id = b->core[i].id;
    snprintf(b->error, sizeof b->error, "kernel '%.80s', %s core %d.%d: %s",
             str_text(r->l->kernel->exprs.strings, r->l->kernel->name), id.kind == TCORE_CUBE ? "cube" : "vector",
             id.block, id.sub, text);
    return true;
}

static void deadlock(const struct run *r, struct emu_block *b)
{
    const struct strtab *strings = r->l->kernel->exprs.strings;
    for (int i = 0; i < EMU_BLOCK_CORES; i++) {
        const struct emu_core *c = &b->core[i];
        if (!program_of(r, i) || c->done)
            continue;
        const struct tile_insn *in = c->prog->code[c->pc].insn;
        snprintf(b->error, sizeof b->error,
                 "kernel '%.80s', %s core %d.%d waits forever at instruction %d (%s, event %d)",
                 str_text(strings, r->l->kernel->name), c->id.kind == TCORE_CUBE ? "cube" : "vector", c->id.block,
                 c->id.sub, c->pc, tile_insn_table[in->op].name, in->op == TILE_XWAIT ? in->arg[1] : -1);
        return;
    }
}

enum block_end { BLOCK_DONE, BLOCK_BARRIER, BLOCK_FAULT };

/* Round robin until nothing moves. */
static enum block_end run_block(const struct run *r, struct emu_block *b)
{
    for (;;) {
        bool moved = false;
        int open = 0, at_barrier = 0;
        for (int i = 0; i < EMU_BLOCK_CORES; i++) {
            struct emu_core *c = &b->core[i];
            if (!program_of(r, i) || c->done)
                continue;
            const int32_t pc = c->pc;
            const int64_t steps = c->steps;
            const struct emu_observer o = {.user = &b->data[i], .op = emu_data_op, .in_order = !r->check};
            const enum emu_stop s = emu_core_run(c, &o);
            if (s == EMU_FAULT || (c->done && (!emu_dequant_end(&b->data[i]) || left_flag(r, b, i)))) {
                if (!b->error[0])
                    snprintf(b->error, sizeof b->error, "kernel '%.80s', instruction %d: %s",
                             str_text(r->l->kernel->exprs.strings, r->l->kernel->name), c->pc,
                             c->fault ? c->fault : "stopped");
                return BLOCK_FAULT;
            }
            moved |= s == EMU_DONE || s == EMU_TURN || c->pc != pc || c->steps != steps;
            open += !c->done;
            at_barrier += s == EMU_BARRIER;
        }
        if (open == 0)
            return BLOCK_DONE;
        if (!moved && at_barrier == open)
            return BLOCK_BARRIER;
        if (!moved) {
            deadlock(r, b);
            return BLOCK_FAULT;
        }
    }
}

static void note_fault(struct run *r, struct emu_block *b, int64_t number)
{
    b->fault_block = number;
    int64_t lowest = atomic_load(&r->faulty);
    while (number < lowest && !atomic_compare_exchange_weak(&r->faulty, &lowest, number))
        ;
}

static void run_item(void *arg, int64_t number, int worker)
{
    struct run *r = arg;
    struct emu_block *b = r->m->blocks[r->per_block ? number : worker];
    if (atomic_load(&r->cancelled) || atomic_load(&r->faulty) < number || (r->resume && b->finished))
        return;
    if (r->l->cancelled && r->l->cancelled(r->l->cancel_user)) {
        atomic_store(&r->cancelled, true);
        return;
    }
    if (!b->ready && !bind_block(r, b)) {
        snprintf(b->error, sizeof b->error, "out of host memory");
        note_fault(r, b, number);
        return;
    }
    if (!r->resume)
        start_block(r, b, number);
    const enum block_end end = run_block(r, b);
    b->finished = end == BLOCK_DONE;
    if (end == BLOCK_FAULT)
        note_fault(r, b, number);
    else if (end == BLOCK_BARRIER)
        atomic_fetch_add(&r->waiting, 1);
}

static bool prepare(struct run *r, int64_t sets)
{
    if (!emu_machine_reserve(r->m, sets))
        return false;
    for (int64_t i = 0; i < sets; i++) {
        struct emu_block *b = r->m->blocks[i];
        b->ready = b->finished = false;
        b->error[0] = 0;
        b->fault_block = INT64_MAX;
        if (r->check && !b->hazard)
            b->hazard = emu_hazard_new(r->m->size);
        if (r->check && !b->hazard)
            return false;
    }
    return true;
}

/* All blocks stand at the barrier, or some have ended without it. */
static bool pass_barrier(struct run *r)
{
    for (int64_t i = 0; i < r->l->blocks; i++) {
        struct emu_block *b = r->m->blocks[i];
        if (b->finished) {
            snprintf(r->l->error, sizeof r->l->error, "kernel '%.80s': block %lld ends while others wait at a barrier",
                     str_text(r->l->kernel->exprs.strings, r->l->kernel->name), (long long)i);
            return false;
        }
        for (int c = 0; c < EMU_BLOCK_CORES; c++)
            b->core[c].released = true;
        if (r->check)
            emu_hazard_barrier(b->hazard);
    }
    return true;
}

static enum npuc_status take_fault(const struct run *r, int64_t sets)
{
    const int64_t lowest = atomic_load(&r->faulty);
    if (atomic_load(&r->cancelled))
        return NPUC_E_CANCELLED;
    for (int64_t i = 0; lowest != INT64_MAX && i < sets; i++)
        if (r->m->blocks[i]->fault_block == lowest)
            memcpy(r->l->error, r->m->blocks[i]->error, sizeof r->l->error);
    return lowest == INT64_MAX ? NPUC_OK : NPUC_E_INVALID;
}

/* A kernel whose last launch was over sooner than a sleeping thread can be woken does not wake one. */
static void run_blocks(struct run *r, struct pool *pool)
{
    enum { SHORT_NS = 20000 };
    int64_t *last_ns = &r->m->last_ns[(uint64_t)(uintptr_t)r->l->kernel / 64 % EMU_KERNEL_TIMES];
    struct timespec begin, end;
    if (r->l->blocks <= 1 || pool_threads(pool) <= 1) {
        pool_for(NULL, r->l->blocks, run_item, r);
        return;
    }
    timespec_get(&begin, TIME_UTC);
    (*last_ns > 0 && *last_ns < SHORT_NS ? pool_for_short : pool_for)(pool, r->l->blocks, run_item, r);
    timespec_get(&end, TIME_UTC);
    *last_ns = (end.tv_sec - begin.tv_sec) * 1000000000 + (end.tv_nsec - begin.tv_nsec);
}

enum npuc_status emu_run_data(struct emu_launch *l, struct pool *pool, bool check_hazards)
{
    struct run r = {.l = l,
                    .m = l->machine,
                    .prog = emu_machine_programs(l->machine, l),
                    .per_block = has_barrier(l->kernel),
                    .check = check_hazards};
    if (!r.prog)
        return NPUC_E_INVALID;
    atomic_init(&r.faulty, INT64_MAX);
    const int64_t sets = r.per_block ? l->blocks : pool_threads(pool);
    if (l->blocks > EMU_MAX_BLOCKS || !prepare(&r, sets)) {
        snprintf(l->error, sizeof l->error, "out of host memory for %lld cores", (long long)l->blocks);
        return NPUC_E_NOMEM;
    }
    enum npuc_status s = NPUC_OK;
    do {
        atomic_store(&r.waiting, 0);
        run_blocks(&r, pool);
        s = take_fault(&r, sets);
        if (s == NPUC_OK && atomic_load(&r.waiting) && !pass_barrier(&r))
            s = NPUC_E_INVALID;
        r.resume = true;
    } while (s == NPUC_OK && atomic_load(&r.waiting));
    return s;
}
