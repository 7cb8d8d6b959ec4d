/* From timelines to the figures of a launch: sums over cores, peaks of memories, what bounds it. */
#include "base/size.h"
#include "plan/names.h"
#include "runtime/emu/clock_priv.h"

static void add_core(const struct clock_core *c, double weight, struct emu_timing *out)
{
    const enum tile_core kind = c->core.id.kind;
    const int64_t n = (int64_t)weight;
    for (int u = 0; u < TU_COUNT; u++) {
        out->unit[kind][u].busy_cyc += weight * c->unit[u].busy_cyc;
        out->unit[kind][u].n_insns += n * c->unit[u].n_insns;
    }
    for (int i = 0; i < TS_COUNT; i++)
        for (int j = 0; j < TS_COUNT; j++)
            out->bytes[i][j] += n * c->bytes[i][j];
    out->macs += n * c->macs;
    out->cores[kind] += (int32_t)n;
    const double end = clock_core_end(c);
    out->core_cycles[kind] = end > out->core_cycles[kind] ? end : out->core_cycles[kind];
}

static void peaks(const struct tile_kernel *k, int64_t peak[TS_COUNT])
{
    for (int c = 0; c < TCORE_COUNT; c++)
        for (int64_t i = 0; k->has[c] && i < k->section[c].bufs.len; i++) {
            const struct tile_buf *b = &k->section[c].bufs.data[i];
            const int64_t end = b->base + b->slots * b->slot_size;
            peak[b->space] = end > peak[b->space] ? end : peak[b->space];
        }
}

/* The busiest unit of the block of cores that ends the kernel, unless launching takes longer. */
static const char *reason(const struct clock *k, const struct tile_names *names, const struct emu_timing *t)
{
    const struct clock_block *slowest = NULL;
    double busiest = -1, last = -1;
    int unit = TU_S;
    if (t->launch_cyc >= t->cycles)
        return "launch";
    for (int64_t i = 0; i < k->n_blocks; i++)
        for (int j = 0; j < EMU_BLOCK_CORES; j++) {
            const struct clock_core *c = &k->blocks[i]->core[j];
            if (c->used && clock_core_end(c) > last) {
                slowest = k->blocks[i];
                last = clock_core_end(c);
            }
        }
    for (int i = 0; slowest && i < EMU_BLOCK_CORES * TU_COUNT; i++) {
        const struct clock_core *c = &slowest->core[i / TU_COUNT];
        if (c->used && c->unit[i % TU_COUNT].busy_cyc > busiest) {
            busiest = c->unit[i % TU_COUNT].busy_cyc;
            unit = i % TU_COUNT;
        }
    }
    return names->unit[unit];
}

/* Vector cores by themselves are started as often as those of matrix cores would be. */
static int64_t cores_started(const struct emu_launch *l)
{
    const double per = target_num(l->target, TK_CORES_VECTOR_PER_CUBE);
    return l->kernel->has[TCORE_CUBE] || !(per > 1) ? l->blocks : size_ceil_div(l->blocks, (int64_t)per);
}

void clock_report(const struct clock *k, struct emu_timing *out)
{
    const struct tile_names *names = tile_names_of(k->launch->target->family);
    const double memory_cyc = (k->missed + k->back) / k->rates.hbm;
    for (int64_t i = 0; i < k->n_blocks; i++)
        for (int j = 0; j < EMU_BLOCK_CORES; j++)
            if (k->blocks[i]->core[j].used)
                add_core(&k->blocks[i]->core[j], k->blocks[i]->weight, out);
    for (int c = 0; c < TCORE_COUNT; c++)
        out->cycles = out->core_cycles[c] > out->cycles ? out->core_cycles[c] : out->cycles;
    const bool memory_bound = memory_cyc > out->cycles;
    if (memory_bound)
        out->cycles = memory_cyc;
    out->launch_cyc =
        target_launch(k->launch->target, cores_started(k->launch)) * target_num(k->launch->target, TK_CLOCK);
    out->bound_by = memory_bound && out->launch_cyc < out->cycles
                        ? names->unit[out->gm_written > out->gm_read ? TU_MTE3 : TU_MTE2]
                        : reason(k, names, out);
    out->dirty = k->dirty;
    peaks(k->launch->kernel, out->peak);
}
