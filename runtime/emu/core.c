/* Cores: room for the values of a program, the start of a block, the walk for any observer. */
#include "runtime/emu/core_walk.h"

#include <stdlib.h>
#include <string.h>

/* A launch that moves few bytes has few tiles to walk, whatever its expressions say. */
static int64_t step_limit(const struct emu_launch *l)
{
    int64_t steps = EMU_FREE_STEPS;
    for (int64_t i = 0; i < l->kernel->tensors.len; i++) {
        if (l->tensors[i].size > (EMU_MAX_STEPS - steps) / EMU_STEPS_PER_BYTE)
            return EMU_MAX_STEPS;
        steps += l->tensors[i].size * EMU_STEPS_PER_BYTE;
    }
    return steps < EMU_MAX_STEPS ? steps : EMU_MAX_STEPS;
}

bool emu_core_bind(struct emu_core *c, const struct emu_program *p, struct emu_launch *l, bool keeps)
{
    const size_t values = (size_t)p->n_values * sizeof(int64_t), loops = ((size_t)p->n_loops + 1) * sizeof(int64_t);
    const size_t slots = ((size_t)p->section->bufs.len + 1) * sizeof(int32_t);
    const size_t views = (size_t)p->n_views * sizeof(struct emu_view);
    const size_t ops = keeps ? (size_t)p->n_code * sizeof(struct emu_op) : 0;
    const size_t need = values + 2 * loops + views + ops + slots;
    if (need > c->room_size) {
        free(c->room);
        c->room_size = 0;
        c->room = malloc(need);
        if (!c->room)
            return false;
        c->room_size = need;
    }
    c->values = c->room;
    c->loop_i = c->values + p->n_values;
    c->loop_n = c->loop_i + p->n_loops + 1;
    c->views = (struct emu_view *)(void *)(c->loop_n + p->n_loops + 1);
    c->ops = keeps ? (struct emu_op *)(void *)(c->views + p->n_views) : NULL;
    c->slot = (int32_t *)(void *)((char *)(c->views + p->n_views) + ops);
    for (int32_t i = 0; keeps && i < p->n_code; i++)
        c->ops[i].insn = NULL;
    c->prog = p;
    c->launch = l;
    c->max_steps = step_limit(l);
    memcpy(c->values, p->values, values);
    memset(c->views, 0, views);
    for (int32_t i = 0; i < p->kernel->n_params; i++)
        c->values[p->symbol[i]] = l->params[i];
    emu_program_eval(p, c->values, 0);
    return true;
}

void emu_core_start(struct emu_core *c, struct emu_core_id id, struct emu_sync *sync)
{
    const struct tile_kernel *k = c->prog->kernel;
    c->id = id;
    c->sync = sync;
    c->pc = 0;
    c->done = c->released = false;
    c->fault = NULL;
    c->steps = 0;
    memset(c->slot, 0, (size_t)c->prog->section->bufs.len * sizeof *c->slot);
    if (k->sym_block >= 0 && k->sym_block < c->prog->n_symbols)
        c->values[c->prog->symbol[k->sym_block]] = id.block % emu_copy_blocks(c->launch);
    if (k->sym_sub >= 0 && k->sym_sub < c->prog->n_symbols)
        c->values[c->prog->symbol[k->sym_sub]] = id.sub;
    emu_program_eval(c->prog, c->values, 1);
}

void emu_core_free(struct emu_core *c)
{
    free(c->room);
    *c = (struct emu_core){0};
}

enum emu_stop emu_core_run(struct emu_core *c, const struct emu_observer *o)
{
    return emu_core_walk(c, o);
}
