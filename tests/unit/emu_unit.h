/* Hand-made tile programs: one kernel, tensors in host memory, buffers laid out one after the other. */
#ifndef TESTS_EMU_UNIT_H
#define TESTS_EMU_UNIT_H

#include "base/pool.h"
#include "runtime/emu/emu_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct emu_unit {
    struct arena arena;
    struct strtab strings;
    struct tile_builder b;
    struct target target;
    struct emu_machine *machine;
    struct emu_tensor tensors[8];
    int n_tensors;
    int64_t params[8], blocks;
    char error[512];
};

static inline void ignore_line(void *user, const char *line)
{
    (void)user;
    (void)line;
}

static inline expr num(struct emu_unit *u, int64_t v)
{
    return expr_const(&u->b.k->exprs, v);
}

/* A kernel without parameters; u->b.at is `core`'s section. */
static inline void unit_begin_on(struct emu_unit *u, const char *target, enum tile_core core)
{
    *u = (struct emu_unit){.blocks = 1};
    struct diag d;
    diag_init(&d, ignore_line, NULL);
    assert_int_equal(target_load(&u->target, target, &d), NPUC_OK);
    u->machine = emu_machine_new(&u->target);
    assert_non_null(u->machine);
    arena_init(&u->arena, NULL);
    strtab_init(&u->strings, &u->arena);
    u->b.arena = &u->arena;
    u->b.k = tile_kernel_new(&u->arena, &u->strings, "k");
    tile_params_done(u->b.k);
    tile_section_begin(&u->b, core);
}

static inline void unit_begin(struct emu_unit *u, enum tile_core core)
{
    unit_begin_on(u, "ascend-910b1", core);
}

static inline int32_t unit_tensor(struct emu_unit *u, enum dtype t, void *data, size_t size)
{
    u->tensors[u->n_tensors++] = (struct emu_tensor){.data = data, .size = (int64_t)size, .dtype = t};
    return tile_tensor(u->b.k, &u->arena, "t", t, true, true);
}

static inline int32_t unit_buf(struct emu_unit *u, enum tile_space s, int32_t slots, int64_t slot_size)
{
    int64_t base = 0;
    for (int64_t i = 0; i < u->b.at->bufs.len; i++)
        if (u->b.at->bufs.data[i].space == s)
            base = u->b.at->bufs.data[i].base + u->b.at->bufs.data[i].slots * u->b.at->bufs.data[i].slot_size;
    const int32_t buf = tile_buf(&u->b, "buf", s, DT_F32, slots, slot_size);
    u->b.at->bufs.data[buf].base = (base + 511) / 512 * 512;
    return buf;
}

static inline enum npuc_status unit_run(struct emu_unit *u, int threads, bool hazards)
{
    struct pool *pool = pool_new(threads);
    struct emu_launch l = {.kernel = u->b.k,
                           .params = u->params,
                           .tensors = u->tensors,
                           .blocks = u->blocks,
                           .target = &u->target,
                           .machine = u->machine};
    const enum npuc_status s = emu_run_data(&l, pool, hazards);
    memcpy(u->error, l.error, sizeof u->error);
    pool_free(pool);
    return s;
}

static inline void unit_end(struct emu_unit *u)
{
    emu_machine_free(u->machine);
    arena_free(&u->arena);
    target_free(&u->target);
}

/* All of n elements between GM offset g and buffer offset o, both dense. */
static inline void unit_load(struct emu_unit *u, int32_t buf, int64_t o, int32_t tensor, int64_t g, enum dtype t,
                             int64_t n)
{
    const expr one = num(u, 1), zero = num(u, 0);
    TILE(&u->b, LOAD, buf, num(u, o), tensor, num(u, g), (int32_t)t, one, one, one, num(u, n), zero, zero, zero, one,
         zero, zero, zero, one);
}

static inline void unit_store(struct emu_unit *u, int32_t tensor, int64_t g, int32_t buf, int64_t o, enum dtype t,
                              int64_t n)
{
    const expr one = num(u, 1), zero = num(u, 0);
    TILE(&u->b, STORE, tensor, num(u, g), buf, num(u, o), (int32_t)t, one, one, one, num(u, n), zero, zero, zero, one,
         zero, zero, zero, one);
}

static inline void unit_flag(struct emu_unit *u, enum tile_unit from, enum tile_unit to, int32_t event)
{
    TILE(&u->b, SET, (int32_t)from, (int32_t)to, event, -1);
    TILE(&u->b, WAIT, (int32_t)from, (int32_t)to, event, -1);
}

#endif
