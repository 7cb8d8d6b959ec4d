/* The interpreter: walks one core's program in program order and hands every instruction with evaluated operands to an
 * observer. It stops at a cross-core wait that may not pass and at a barrier, and goes on from there. */
#include "runtime/emu/emu_priv.h"

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

bool emu_core_bind(struct emu_core *c, const struct emu_program *p, struct emu_launch *l)
{
    const size_t values = (size_t)p->n_values * sizeof(int64_t), loops = ((size_t)p->n_loops + 1) * sizeof(int64_t);
    const size_t slots = ((size_t)p->section->bufs.len + 1) * sizeof(int32_t);
    const size_t views = (size_t)p->n_views * sizeof(struct emu_view), need = values + 2 * loops + views + slots;
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
    c->slot = (int32_t *)(void *)(c->views + p->n_views);
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

static void set_variable(struct emu_core *c, const struct emu_ins *in, int64_t value)
{
    c->values[in->var] = value;
    emu_program_eval(c->prog, c->values, in->group);
}

static void let(struct emu_core *c, const struct emu_ins *in)
{
    set_variable(c, in, c->values[in->val[EMU_FIELD(LET, value)]]);
    c->pc++;
}

static enum emu_stop fault(struct emu_core *c, const char *what)
{
    c->fault = what;
    return EMU_FAULT;
}

static bool end_loop(struct emu_core *c, const struct emu_ins *in)
{
    const int64_t i = ++c->loop_i[in->loop];
    if (i < c->loop_n[in->loop]) {
        set_variable(c, in, i);
        c->pc = in->jump;
    } else {
        c->pc++;
    }
    return ++c->steps <= c->max_steps;
}

static void begin_loop(struct emu_core *c, const struct emu_ins *in)
{
    const int64_t count = c->values[in->val[EMU_FIELD(LOOP, count)]];
    c->loop_i[in->loop] = 0;
    c->loop_n[in->loop] = count;
    if (count <= 0) {
        c->pc = in->jump;
        return;
    }
    set_variable(c, in, 0);
    c->pc++;
}

static void cross_set(const struct emu_core *c, int64_t event)
{
    if (c->id.kind == TCORE_VECTOR) {
        c->sync->to_cube[c->id.sub][event]++;
        return;
    }
    for (int s = 0; s < EMU_SUBS; s++)
        c->sync->to_vector[s][event]++;
}

static bool cross_wait(const struct emu_core *c, int64_t event)
{
    int32_t *first = c->id.kind == TCORE_VECTOR ? &c->sync->to_vector[c->id.sub][event] : &c->sync->to_cube[0][event];
    int32_t *second = c->id.kind == TCORE_VECTOR ? first : &c->sync->to_cube[1][event];
    if (*first <= 0 || *second <= 0)
        return false;
    --*first;
    if (second != first)
        --*second;
    return true;
}

/* Operands of an instruction that observers see. */
static struct emu_op *fetch(struct emu_core *c, const struct emu_ins *in)
{
    struct emu_op *op = &c->op;
    op->insn = in->insn;
    for (int f = 0; f < in->n_fields; f++)
        op->arg[f] = c->values[in->val[f]];
    for (int i = 0; i < in->n_bufs; i++)
        op->slot[in->buf_field[i]] = c->slot[op->arg[in->buf_field[i]]];
    return op;
}

/* What must hold before a synchronising instruction can be passed. */
static enum emu_stop synchronise(struct emu_core *c, const struct emu_ins *in)
{
    if (in->op == TILE_BARRIER) {
        const bool pass = c->released;
        c->released = false;
        return pass ? EMU_DONE : EMU_BARRIER;
    }
    if (in->op != TILE_XSET && in->op != TILE_XWAIT)
        return EMU_DONE;
    const int64_t event = in->insn->arg[1]; /* both have (unit, event) */
    if (event < 0 || event >= TILE_MAX_XEVENTS)
        return fault(c, "cross-core event out of range");
    if (in->op == TILE_XSET)
        cross_set(c, event);
    else if (!cross_wait(c, event))
        return EMU_XWAIT;
    return EMU_DONE;
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static enum emu_stop pass(struct emu_core *c, const struct emu_ins *in)
{
    if (in->op == TILE_NEXT) {
        const int32_t buf = in->insn->arg[0], next = c->slot[buf] + 1;
        c->slot[buf] = next < c->prog->section->bufs.data[buf].slots ? next : 0;
    }
    c->pc++;
    return EMU_DONE;
}

/* Everything but LOOP, IF, their ends and LET. */
static enum emu_stop step(struct emu_core *c, const struct emu_ins *in, const struct emu_observer *o)
{
    const enum emu_stop s = synchronise(c, in);
    if (s != EMU_DONE)
        return s;
    if (in->orders && o->in_order) {
        const enum emu_stop passed = pass(c, in);
        return in->op == TILE_XSET ? EMU_TURN : passed; /* what was made is read while it is near */
    }
    struct emu_op *op = fetch(c, in);
    const struct emu_SLOAD *load = EMU_ARGS(SLOAD, op);
    if (in->op == TILE_SLOAD)
        op->value = clamp(load->assume, load->lo, load->hi);
    if (!o->op(o->user, c->launch, &c->id, op))
        return EMU_FAULT;
    if (in->op == TILE_SLOAD)
        set_variable(c, in, clamp(op->value, load->lo, load->hi));
    return pass(c, in);
}

enum emu_stop emu_core_run(struct emu_core *c, const struct emu_observer *o)
{
    const struct emu_program *p = c->prog;
    while (c->pc < p->n_code) {
        const struct emu_ins *in = &p->code[c->pc];
        enum emu_stop s = EMU_DONE;
        if (in->flag && o->in_order)
            c->pc++;
        else if (in->op == TILE_LOOP)
            begin_loop(c, in);
        else if (in->op == TILE_ENDLOOP)
            s = end_loop(c, in) ? EMU_DONE : fault(c, "the program repeats more than its tensors can account for");
        else if (in->op == TILE_IF)
            c->pc = c->values[in->val[EMU_FIELD(IF, cond)]] != 0 ? c->pc + 1 : in->jump;
        else if (in->op == TILE_ENDIF)
            c->pc++;
        else if (in->op == TILE_LET)
            let(c, in);
        else
            s = step(c, in, o);
        if (s != EMU_DONE)
            return s;
    }
    c->done = true;
    return EMU_DONE;
}
