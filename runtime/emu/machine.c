/* What launches share: lowered programs and, per worker, scratchpads with cores. */
#include "runtime/emu/hazard.h"

#include "base/size.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    enum tile_space space;
    enum target_key key;
} space_keys[] = {
    {TS_L1, TK_L1_SIZE}, {TS_L0A, TK_L0A_SIZE}, {TS_L0B, TK_L0B_SIZE},     {TS_L0C, TK_L0C_SIZE},
    {TS_BT, TK_BT_SIZE}, {TS_UB, TK_UB_SIZE},   {TS_L0A_MX, TK_L0MX_SIZE}, {TS_L0B_MX, TK_L0MX_SIZE},
};
#define MAX_SPACE ((int64_t)1 << 30) /* a scratchpad larger than this is a broken target */

struct emu_machine *emu_machine_new(const struct target *t)
{
    struct emu_machine *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    arena_init(&m->arena, NULL);
    map_init(&m->programs, &m->arena);
    m->target = t;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(space_keys); i++) {
        const double n = target_num(t, space_keys[i].key);
        m->size[space_keys[i].space] = n > 0 && n <= (double)MAX_SPACE ? (int64_t)n : 0;
    }
    return m;
}

static void free_block(struct emu_block *b)
{
    for (int c = 0; c < EMU_BLOCK_CORES; c++) {
        emu_core_free(&b->core[c]);
        for (int s = 0; s < TS_COUNT; s++)
            free(b->mem[c].at[s]);
        free(b->data[c].row);
    }
    emu_hazard_free(b->hazard);
    free(b->shade);
    free(b);
}

void emu_machine_free(struct emu_machine *m)
{
    if (!m)
        return;
    for (int32_t i = 0; i < m->n_blocks; i++)
        if (m->blocks[i])
            free_block(m->blocks[i]);
    free(m->blocks);
    arena_free(&m->arena);
    free(m);
}

/* Buffers lie where the scheduler has put them, within their space: all later checks are against slots. */
static bool check_buffers(const struct emu_machine *m, const struct tile_section *s, struct emu_launch *l)
{
    for (int64_t i = 0; i < s->bufs.len; i++) {
        const struct tile_buf *b = &s->bufs.data[i];
        int64_t bytes;
        if (b->space > TS_GM && b->space < TS_COUNT && b->slots > 0 && b->base >= 0 && b->base % 32 == 0 &&
            b->slot_size % 32 == 0 && size_mul(b->slots, b->slot_size, &bytes) &&
            size_in(b->base, bytes, m->size[b->space]))
            continue;
        snprintf(l->error, sizeof l->error, "kernel '%.80s': buffer '%.64s' is not placed within its memory",
                 str_text(l->kernel->exprs.strings, l->kernel->name), str_text(l->kernel->exprs.strings, b->name));
        return false;
    }
    return true;
}

struct emu_program *const *emu_machine_programs(struct emu_machine *m, struct emu_launch *l)
{
    const uint64_t key = (uint64_t)(uintptr_t)l->kernel;
    const uint64_t *known = map_find(&m->programs, key);
    if (known)
        return (struct emu_program *const *)(uintptr_t)*known;
    struct emu_program **p = ARENA_ARRAY(&m->arena, struct emu_program *, TCORE_COUNT);
    char why[256] = "out of host memory";
    for (int c = 0; c < TCORE_COUNT; c++) {
        if (!l->kernel->has[c])
            continue;
        if (p && !check_buffers(m, &l->kernel->section[c], l))
            return NULL;
        if (p)
            p[c] = emu_program_new(&m->arena, l->kernel, (enum tile_core)c, why, sizeof why);
        if (!p || !p[c]) {
            snprintf(l->error, sizeof l->error, "kernel '%.80s': %s",
                     str_text(l->kernel->exprs.strings, l->kernel->name), why);
            return NULL;
        }
    }
    if (p)
        map_put(&m->programs, key, (uint64_t)(uintptr_t)p);
    return p;
}

static struct emu_block *new_block(const struct emu_machine *m)
{
    struct emu_block *b = calloc(1, sizeof *b);
    bool ok = b != NULL;
    for (int c = 0; ok && c < EMU_BLOCK_CORES; c++) {
        for (int s = TS_GM + 1; ok && s < TS_COUNT; s++) {
            b->mem[c].at[s] = aligned_alloc(64, (size_t)size_align(m->size[s] + 1, 64));
            ok = b->mem[c].at[s] != NULL;
        }
        b->data[c].row = ok ? aligned_alloc(64, EMU_ROW_BYTES) : NULL;
        ok = ok && b->data[c].row;
    }
    if (!ok && b)
        free_block(b);
    return ok ? b : NULL;
}

bool emu_machine_reserve(struct emu_machine *m, int64_t n)
{
    if (n > m->n_blocks) {
        struct emu_block **p = realloc(m->blocks, (size_t)n * sizeof *p);
        if (!p)
            return false;
        m->blocks = p;
        for (int64_t i = m->n_blocks; i < n; i++)
            p[i] = NULL;
        m->n_blocks = (int32_t)n;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!m->blocks[i])
            m->blocks[i] = new_block(m);
        if (!m->blocks[i])
            return false;
    }
    return true;
}
