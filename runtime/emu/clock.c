/* Timing of one launch without data, in two walks over the cores' programs.
 *
 * The first walks all cores in turns and counts: which bytes are read and written, which of them L2 has (clock_l2.c),
 * and a hash per block of everything that decides its times. The second walks one block of each hash through its
 * timeline (clock_core.c); the blocks meet only in the bandwidths of memory and of L2, where one stands for all that
 * are like it (clock_fluid.c, clock_port.c). The slowest core ends the kernel. Alternative refused: timing every core,
 * which takes as many times longer as there are cores and, since most launches have two or three kinds of blocks, says
 * the same. */
#include "runtime/emu/clock_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Blocks take turns of this many bytes while traffic is counted: a few tiles, far less than L2 over the number of
 * cores. */
#define TURN  ((int64_t)1 << 18)
#define SMALL 1e-3 /* of the memory's rate: not worth a second walk */

static const struct emu_program *program_of(struct emu_program *const *of_kind, int i)
{
    const bool mixed = of_kind[TCORE_CUBE] && of_kind[TCORE_VECTOR];
    if (i == 0)
        return of_kind[TCORE_CUBE];
    return i == 1 || mixed ? of_kind[TCORE_VECTOR] : NULL;
}

static void free_block(struct clock_block *b)
{
    for (int i = 0; b && i < EMU_BLOCK_CORES; i++)
        emu_core_free(&b->core[i].core);
    for (int e = 0; b && e < TILE_MAX_XEVENTS; e++)
        for (int s = 0; s < EMU_SUBS; s++) {
            free(b->to_vector[s][e].at);
            free(b->to_cube[s][e].at);
        }
    free(b);
}

/* The core is to walk the program; what the others found out of its instructions is for it too. */
static bool bind_core(struct clock_core *c, const struct emu_program *p)
{
    struct clock_known ***known = &c->clock->known[c->index == 0 ? TCORE_CUBE : TCORE_VECTOR];
    if (!*known)
        *known = ARENA_ARRAY(&c->clock->arena, struct clock_known *, p->n_code + 1);
    c->known = *known;
    return c->known && emu_core_bind(&c->core, p, c->clock->launch, false);
}

static struct clock_block *new_block(struct clock *k, int64_t number)
{
    struct clock_block *b = calloc(1, sizeof *b);
    bool ok = b != NULL;
    for (int i = 0; ok && i < EMU_BLOCK_CORES; i++) {
        const struct emu_program *p = program_of(k->slice, i);
        struct clock_core *c = &b->core[i];
        c->clock = k;
        c->block = b;
        c->index = i;
        c->used = p != NULL;
        c->cx = (struct clock_cx){.launch = k->launch, .rates = &k->rates, .section = p ? p->section : NULL};
        ok = !p || bind_core(c, p);
    }
    if (!ok) {
        free_block(b);
        return NULL;
    }
    b->number = number;
    b->weight = 1;
    return b;
}

static void start_block(struct clock_block *b)
{
    memset(&b->sync, 0, sizeof b->sync);
    for (int i = 0; i < EMU_BLOCK_CORES; i++) {
        struct clock_core *c = &b->core[i];
        const struct emu_core_id id = {i == 0 ? TCORE_CUBE : TCORE_VECTOR, (int32_t)b->number, i == 2};
        if (!c->used)
            continue;
        emu_core_start(&c->core, id, &b->sync);
        c->cx.block = b->number;
        c->copy = emu_copy_of(c->clock->launch, b->number);
        clock_core_reset(c);
        c->stop = EMU_DONE;
        c->hash = (uint64_t)i;
    }
}

typedef enum emu_stop clock_walk(struct clock_core *c);

/* Where a core stands, as a number of its kernel's instructions. */
static int32_t place_of(const struct clock_core *c)
{
    const struct emu_program *p = c->core.prog;
    return c->core.pc < p->n_code ? (int32_t)(p->code[c->core.pc].insn - p->section->code.data) : p->n_code;
}

static bool stopped(struct clock *k, struct clock_core *c)
{
    if (!k->launch->error[0] && !k->cancelled && !k->no_memory)
        snprintf(k->launch->error, sizeof k->launch->error, "kernel '%.80s', instruction %d: %s",
                 str_text(k->launch->kernel->exprs.strings, k->launch->kernel->name), place_of(c),
                 c->core.fault ? c->core.fault : "stopped");
    return false;
}

/* Runs the block's cores until each has ended, stands at a read or waits. false: a fault. */
static bool run_block(struct clock *k, struct clock_block *b, clock_walk *walk)
{
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < EMU_BLOCK_CORES; i++) {
            struct clock_core *c = &b->core[i];
            if (!c->used || c->core.done || c->suspended)
                continue;
            const int32_t pc = c->core.pc;
            const int64_t steps = c->core.steps;
            c->stop = walk(c);
            if (c->stop == EMU_FAULT && !c->suspended)
                return stopped(k, c);
            moved |= c->core.done || c->suspended || c->core.pc != pc || c->core.steps != steps;
        }
    }
    return true;
}

static bool fail_wait(struct clock *k, const struct clock_core *c)
{
    const struct emu_launch *l = k->launch;
    snprintf(k->launch->error, sizeof k->launch->error, "kernel '%.80s', %s core %d.%d waits forever at instruction %d",
             str_text(l->kernel->exprs.strings, l->kernel->name), c->core.id.kind == TCORE_CUBE ? "cube" : "vector",
             c->core.id.block, c->core.id.sub, place_of(c));
    return false;
}

/* No core can run: all have ended (*over), or all stand at a barrier and pass it. */
static bool meet(struct clock *k, bool *over)
{
    double at = 0;
    int64_t ended = 0, all = 0;
    const struct clock_core *waits = NULL;
    for (int64_t i = 0; i < k->n_blocks; i++)
        for (int j = 0; j < EMU_BLOCK_CORES; j++) {
            const struct clock_core *c = &k->blocks[i]->core[j];
            if (!c->used)
                continue;
            const double end = clock_core_end(c);
            at = end > at ? end : at;
            all++;
            ended += c->core.done;
            if (!c->core.done && (c->stop != EMU_BARRIER || !waits))
                waits = c;
        }
    *over = ended == all;
    if (*over)
        return true;
    if (ended || (waits && waits->stop != EMU_BARRIER))
        return fail_wait(k, waits);
    for (int64_t i = 0; i < k->n_blocks; i++)
        for (int j = 0; j < EMU_BLOCK_CORES; j++) {
            k->blocks[i]->core[j].core.released = true;
            clock_core_barrier(&k->blocks[i]->core[j], at + k->rates.barrier);
        }
    return true;
}

/* ---- first walk ---- */
static bool next_turn(struct clock *k)
{
    bool any = false;
    for (int64_t i = 0; i < k->n_blocks; i++)
        for (int j = 0; j < EMU_BLOCK_CORES; j++) {
            struct clock_core *c = &k->blocks[i]->core[j];
            any |= c->suspended;
            c->suspended = false;
            c->asked = 0;
        }
    return any;
}

/* A load for a cluster is one load only when all of its cores ask for the same. */
static bool check_clusters(struct clock *k)
{
    const int64_t n = k->group > 0 ? k->group : 1;
    for (int64_t i = 0; i < k->n_blocks; i++)
        for (int j = 0; j < EMU_BLOCK_CORES; j++) {
            const struct clock_core *c = &k->blocks[i]->core[j];
            if (c->met == k->blocks[i / n * n]->core[j].met)
                continue;
            snprintf(k->launch->error, sizeof k->launch->error,
                     "kernel '%.80s': core %lld asks for other loads of its cluster than core %lld",
                     str_text(k->launch->kernel->exprs.strings, k->launch->kernel->name), (long long)i,
                     (long long)(i / n * n));
            return false;
        }
    return true;
}

static bool count_traffic(struct clock *k)
{
    for (int64_t i = 0; i < k->n_blocks; i++)
        start_block(k->blocks[i]);
    for (bool over = false; !over;) {
        for (int64_t i = 0; i < k->n_blocks; i++)
            if (!run_block(k, k->blocks[i], clock_core_count))
                return false;
        if (!next_turn(k) && !meet(k, &over))
            return false;
    }
    return check_clusters(k);
}

/* What is written back while the kernel runs. Lines that reads leave in L2, lines written and lines that earlier
 * kernels wrote compete for the part of L2 that may be dirty; of those that do not fit, lines read are displaced by
 * their weight. */
static void settle_writes(struct clock *k)
{
    const struct target *t = k->launch->target;
    const struct clock_written w = k->counted->written;
    const double weight = t->value[TK_L2_READ_WEIGHT].set ? target_num(t, TK_L2_READ_WEIGHT) : 1;
    const double earlier = k->launch->dirty - (double)w.warm, kept = (double)k->counted->kept;
    const double dirty = (double)w.bytes + (earlier > 0 ? earlier : 0);
    const double over = kept + dirty - target_num(t, TK_L2_DIRTY_SHARE) * target_num(t, TK_L2_SIZE);
    k->back = over > 0 && dirty > 0 ? over * dirty / (weight * kept + dirty) : 0;
    k->back = k->back < dirty ? k->back : dirty;
    k->dirty = dirty - k->back;
}

/* Shares of misses per tensor. */
static void settle_traffic(struct clock *k, struct emu_timing *out)
{
    double missed = 0;
    for (int32_t t = 0; t < (int32_t)k->launch->kernel->tensors.len; t++) {
        const struct clock_traffic *x = &k->counted->traffic[t];
        const int64_t miss = x->missed < x->read ? x->missed : x->read;
        k->miss[t] = x->read ? (double)miss / (double)x->read : 0;
        missed += (double)miss;
        k->read += (double)x->read;
        out->gm_read += x->read;
        out->gm_written += x->written;
        out->l2_miss += miss;
        out->l2_hit += x->read - miss;
    }
    k->missed = missed;
    settle_writes(k);
    k->memory_rate = k->rates.hbm;
}

/* Write-backs are spread over the time that the kernel takes: `cycles` as known so far. They never take more from reads
 * than their share of the bytes. */
static double rate_beside_writes(const struct clock *k, double cycles)
{
    const double least = k->missed > 0 ? k->missed / (k->missed + k->back) : 1;
    const double left = cycles > 0 ? 1 - k->back / (cycles * k->rates.hbm) : 1;
    return k->rates.hbm * (left > least ? left : least);
}

static uint64_t hash_of(const struct clock_block *b)
{
    return b->core[0].hash * 3 + b->core[1].hash * 5 + b->core[2].hash * 7;
}

struct kind {
    uint64_t hash;
    int64_t block;
};

static int by_hash(const void *a, const void *b)
{
    const struct kind *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->block < y->block ? -1 : x->block > y->block;
}

static int by_number(const void *a, const void *b)
{
    const struct clock_block *x = *(struct clock_block *const *)a, *y = *(struct clock_block *const *)b;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Keeps the first block of each hash. */
static bool keep_kinds(struct clock *k)
{
    struct kind *kinds = calloc((size_t)k->n_blocks + 1, sizeof *kinds);
    if (!kinds)
        return false;
    for (int64_t i = 0; i < k->n_blocks; i++)
        kinds[i] = (struct kind){hash_of(k->blocks[i]), i};
    qsort(kinds, (size_t)k->n_blocks, sizeof *kinds, by_hash);
    struct clock_block *first = NULL;
    for (int64_t i = 0; i < k->n_blocks; i++) {
        struct clock_block **b = &k->blocks[kinds[i].block];
        if (i > 0 && kinds[i].hash == kinds[i - 1].hash) {
            first->weight++;
            free_block(*b);
            *b = NULL;
        } else {
            first = *b;
        }
    }
    int64_t n = 0;
    for (int64_t i = 0; i < k->n_blocks; i++)
        if (k->blocks[i])
            k->blocks[n++] = k->blocks[i];
    for (int64_t i = n; i < k->n_blocks; i++)
        k->blocks[i] = NULL;
    k->n_blocks = n;
    qsort(k->blocks, (size_t)n, sizeof(struct clock_block *), by_number);
    free(kinds);
    return true;
}

/* What the first walk found, for this launch and those that differ from it only in what L2 has to write back. */
static bool note_count(struct clock *k)
{
    struct arena *a = k->launch->keep ? k->launch->keep : &k->arena;
    const int64_t n = k->launch->kernel->tensors.len;
    struct emu_counted *c = ARENA_NEW(a, struct emu_counted);
    if (!c)
        return false;
    c->traffic = ARENA_ARRAY(a, struct clock_traffic, n + 1);
    c->kinds = ARENA_ARRAY(a, struct clock_kind, k->n_blocks + 1);
    if (!c->traffic || !c->kinds)
        return false;
    for (int32_t t = 0; t < (int32_t)n; t++)
        c->traffic[t] = *clock_l2_traffic(k->l2, t);
    for (; c->n_kinds < k->n_blocks; c->n_kinds++)
        c->kinds[c->n_kinds] = (struct clock_kind){k->blocks[c->n_kinds]->number, k->blocks[c->n_kinds]->weight};
    c->written = clock_l2_written(k->l2);
    c->kept = clock_l2_kept(k->l2);
    k->counted = c;
    if (k->launch->counted)
        *k->launch->counted = c;
    return true;
}

/* ---- second walk ---- */
/* What a walk needs of the programs. */
static bool slice_programs(struct clock *k, struct emu_program *(*of)(struct arena *, const struct emu_program *))
{
    memset(k->known, 0, sizeof k->known);
    for (int i = 0; i < TCORE_COUNT; i++) {
        k->slice[i] = k->prog[i] ? of(&k->arena, k->prog[i]) : NULL;
        if (k->prog[i] && !k->slice[i])
            return false;
    }
    return true;
}

static void pass_landed(struct clock *k)
{
    k->n_readers = 0;
    for (int64_t i = 0; i < k->n_cores; i++)
        if (k->cores[i]->move == CLOCK_MOVE_LANDED)
            k->readers[k->n_readers++] = k->cores[i];
    clock_port_pass(k, k->readers, k->n_readers);
}

/* Goes on with the blocks whose reads have ended; *any: there were some. */
static bool wake(struct clock *k, bool *any)
{
    *any = false;
    for (int64_t i = 0; i < k->n_cores; i++)
        if (k->cores[i]->move == CLOCK_MOVE_LANDED) {
            k->cores[i]->suspended = false;
            *any = true;
        }
    if (*any && k->port)
        pass_landed(k);
    for (int64_t i = 0; *any && i < k->n_cores; i++)
        if (k->cores[i]->move == CLOCK_MOVE_LANDED && !run_block(k, k->cores[i]->block, clock_core_time))
            return false;
    return true;
}

static bool run_all(struct clock *k)
{
    for (int64_t i = 0; i < k->n_blocks; i++)
        if (!run_block(k, k->blocks[i], clock_core_time))
            return false;
    return true;
}

/* The blocks that are left run their whole programs. */
static bool bind_programs(struct clock *k)
{
    k->cores = ARENA_ARRAY(&k->arena, struct clock_core *, k->n_blocks * EMU_BLOCK_CORES + 1);
    k->readers = ARENA_ARRAY(&k->arena, struct clock_core *, k->n_blocks * EMU_BLOCK_CORES + 1);
    k->no_memory = !k->cores || !k->readers || (k->l2 && !slice_programs(k, clock_slice_times));
    for (int64_t i = 0; !k->no_memory && i < k->n_blocks; i++)
        for (int j = 0; j < EMU_BLOCK_CORES; j++) {
            struct clock_core *c = &k->blocks[i]->core[j];
            if (!c->used)
                continue;
            k->cores[k->n_cores++] = c;
            k->no_memory |= !bind_core(c, program_of(k->slice, j));
        }
    return !k->no_memory;
}

static bool walk_once(struct clock *k)
{
    k->now = 0;
    clock_port_reset(k);
    for (int64_t i = 0; i < k->n_blocks; i++)
        start_block(k->blocks[i]);
    if (!run_all(k))
        return false;
    for (bool over = false; !over;) {
        bool any;
        if (!wake(k, &any))
            return false;
        if (any || clock_fluid_step(k))
            continue;
        if (!meet(k, &over) || (!over && !run_all(k)))
            return false;
    }
    return true;
}

static double end_of(const struct clock *k)
{
    double end = 0;
    for (int64_t i = 0; i < k->n_blocks; i++)
        for (int j = 0; j < EMU_BLOCK_CORES; j++) {
            const double t = k->blocks[i]->core[j].used ? clock_core_end(&k->blocks[i]->core[j]) : 0;
            end = t > end ? t : end;
        }
    return end;
}

/* How far write-backs slow reads down depends on the time, and the time on that: twice is enough, since write-backs
 * matter either little or by their share. */
static bool walk_times(struct clock *k)
{
    if (!bind_programs(k) || !clock_port_open(k) || !walk_once(k))
        return false;
    const double rate = rate_beside_writes(k, end_of(k));
    if (k->missed == 0 || rate > (1 - SMALL) * k->memory_rate)
        return true;
    k->memory_rate = rate;
    return walk_once(k);
}

/* ---- the launch ---- */
/* Blocks for the first walk, or those that stand for others when it is known what that finds. */
static bool make_blocks(struct clock *k)
{
    const int64_t n = k->counted ? k->counted->n_kinds : k->launch->blocks;
    k->blocks = calloc((size_t)n + 1, sizeof(struct clock_block *));
    for (; k->blocks && k->n_blocks < n; k->n_blocks++) {
        const struct clock_kind *kind = k->counted ? &k->counted->kinds[k->n_blocks] : NULL;
        struct clock_block *b = new_block(k, kind ? kind->number : k->n_blocks);
        if (!b)
            return false;
        b->weight = kind ? kind->weight : 1;
        k->blocks[k->n_blocks] = b;
    }
    return k->blocks != NULL;
}

static bool prepare(struct clock *k)
{
    clock_rates_of(k->launch->target, &k->rates);
    clock_rates_share(k->launch, &k->rates);
    k->quantum = TURN;
    k->line_mask = k->rates.line & (k->rates.line - 1) ? -1 : k->rates.line - 1;
    k->miss = calloc((size_t)k->launch->kernel->tensors.len + 1, sizeof *k->miss);
    if (!k->miss)
        return false;
    if (k->counted)
        return slice_programs(k, clock_slice_times) && make_blocks(k);
    k->l2 = clock_l2_new(k->launch);
    if (!k->l2)
        return false;
    return slice_programs(k, clock_slice_new) && make_blocks(k);
}

static void release(struct clock *k)
{
    for (int64_t i = 0; k->blocks && i < k->n_blocks; i++)
        free_block(k->blocks[i]);
    free(k->blocks);
    free(k->miss);
    clock_l2_free(k->l2);
    arena_free(&k->arena);
}

static enum npuc_status status_of(const struct clock *k)
{
    return k->cancelled ? NPUC_E_CANCELLED : k->no_memory ? NPUC_E_NOMEM : NPUC_E_INVALID;
}

static enum npuc_status count_launch(struct clock *k, uint32_t flags)
{
    if (!count_traffic(k))
        return status_of(k);
    return (flags & CLOCK_EVERY_BLOCK || keep_kinds(k)) && note_count(k) ? NPUC_OK : NPUC_E_NOMEM;
}

enum npuc_status clock_run(struct emu_launch *l, struct emu_timing *out, uint32_t flags)
{
    struct clock k = {.launch = l, .prog = emu_machine_programs(l->machine, l), .anew = flags & CLOCK_ANEW};
    *out = (struct emu_timing){.bound_by = "launch"};
    if (!k.prog)
        return NPUC_E_INVALID;
    k.counted = l->counted ? *l->counted : NULL;
    arena_init(&k.arena, NULL);
    if (l->blocks < 0 || l->blocks > EMU_MAX_BLOCKS || !prepare(&k)) {
        release(&k);
        snprintf(l->error, sizeof l->error, "out of host memory for the clock of %lld cores", (long long)l->blocks);
        return NPUC_E_NOMEM;
    }
    enum npuc_status s = k.counted ? NPUC_OK : count_launch(&k, flags);
    if (s == NPUC_OK) {
        settle_traffic(&k, out);
        s = walk_times(&k) ? NPUC_OK : status_of(&k);
    }
    if (s == NPUC_OK)
        clock_report(&k, out);
    release(&k);
    return s;
}

enum npuc_status emu_run_clock(struct emu_launch *l, struct emu_timing *out)
{
    return clock_run(l, out, 0);
}
