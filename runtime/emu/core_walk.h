/* The interpreter: walks one core's program in program order and hands every instruction with evaluated operands to an
 * observer. It stops at a cross-core wait that may not pass and at a barrier, and goes on from there.
 *
 * As text, since calls of an observer that is a constant cost nothing: of the clock's walks they were a third. */
#ifndef RUNTIME_EMU_CORE_WALK_H
#define RUNTIME_EMU_CORE_WALK_H

#include "runtime/emu/emu_priv.h"

static NPUC_INLINE void core_set_variable(struct emu_core *c, const struct emu_ins *in, int64_t value)
{
    c->values[in->var] = value;
    emu_program_eval(c->prog, c->values, in->group);
}

static NPUC_INLINE void core_let(struct emu_core *c, const struct emu_ins *in)
{
    core_set_variable(c, in, c->values[in->val[EMU_FIELD(LET, value)]]);
    c->pc++;
}

static NPUC_INLINE enum emu_stop core_fault(struct emu_core *c, const char *what)
{
    c->fault = what;
    return EMU_FAULT;
}

static NPUC_INLINE bool core_end_loop(struct emu_core *c, const struct emu_ins *in)
{
    const int64_t i = ++c->loop_i[in->loop];
    if (i < c->loop_n[in->loop]) {
        core_set_variable(c, in, i);
        c->pc = in->jump;
    } else {
        c->pc++;
    }
    return ++c->steps <= c->max_steps;
}

static NPUC_INLINE void core_begin_loop(struct emu_core *c, const struct emu_ins *in)
{
    const int64_t count = c->values[in->val[EMU_FIELD(LOOP, count)]];
    c->loop_i[in->loop] = 0;
    c->loop_n[in->loop] = count;
    if (count <= 0) {
        c->pc = in->jump;
        return;
    }
    core_set_variable(c, in, 0);
    c->pc++;
}

static NPUC_INLINE void core_cross_set(const struct emu_core *c, int64_t event)
{
    if (c->id.kind == TCORE_VECTOR) {
        c->sync->to_cube[c->id.sub][event]++;
        return;
    }
    for (int s = 0; s < EMU_SUBS; s++)
        c->sync->to_vector[s][event]++;
}

static NPUC_INLINE bool core_cross_wait(const struct emu_core *c, int64_t event)
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
static NPUC_INLINE struct emu_op *core_fetch(struct emu_core *c, const struct emu_ins *in)
{
    struct emu_op *op = c->ops ? &c->ops[in - c->prog->code] : &c->op;
    if (c->ops && op->insn) {
        for (int i = 0; i < in->n_moving; i++)
            op->arg[in->moving[i]] = c->values[in->val[in->moving[i]]];
    } else {
        op->insn = in->insn;
        for (int f = 0; f < in->n_fields; f++)
            op->arg[f] = c->values[in->val[f]];
    }
    for (int i = 0; i < in->n_bufs; i++)
        op->slot[in->buf_field[i]] = c->slot[op->arg[in->buf_field[i]]];
    return op;
}

/* What must hold before a synchronising instruction can be passed. */
static NPUC_INLINE enum emu_stop core_synchronise(struct emu_core *c, const struct emu_ins *in)
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
        return core_fault(c, "cross-core event out of range");
    if (in->op == TILE_XSET)
        core_cross_set(c, event);
    else if (!core_cross_wait(c, event))
        return EMU_XWAIT;
    return EMU_DONE;
}

static NPUC_INLINE int64_t core_clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static NPUC_INLINE enum emu_stop core_pass(struct emu_core *c, const struct emu_ins *in)
{
    if (in->op == TILE_NEXT) {
        const int32_t buf = in->insn->arg[0], next = c->slot[buf] + 1;
        c->slot[buf] = next < c->prog->section->bufs.data[buf].slots ? next : 0;
    }
    c->pc++;
    return EMU_DONE;
}

/* Everything but LOOP, IF, their ends and LET. */
static NPUC_INLINE enum emu_stop core_step(struct emu_core *c, const struct emu_ins *in, const struct emu_observer *o)
{
    const enum emu_stop s = core_synchronise(c, in);
    if (s != EMU_DONE)
        return s;
    if (in->orders && o->in_order) {
        const enum emu_stop passed = core_pass(c, in);
        return in->op == TILE_XSET ? EMU_TURN : passed; /* what was made is read while it is near */
    }
    const enum emu_quick q = o->quick ? o->quick(o->user, in) : EMU_FETCH;
    if (q != EMU_FETCH)
        return q == EMU_PASSED ? core_pass(c, in) : EMU_FAULT;
    struct emu_op *op = core_fetch(c, in);
    const struct emu_SLOAD *load = EMU_ARGS(SLOAD, op);
    if (in->op == TILE_SLOAD)
        op->value = core_clamp(load->assume, load->lo, load->hi);
    if (!o->op(o->user, c->launch, &c->id, op))
        return EMU_FAULT;
    if (in->op == TILE_SLOAD)
        core_set_variable(c, in, core_clamp(op->value, load->lo, load->hi));
    return core_pass(c, in);
}

static NPUC_INLINE enum emu_stop emu_core_walk(struct emu_core *c, const struct emu_observer *o)
{
    const struct emu_program *p = c->prog;
    while (c->pc < p->n_code) {
        const struct emu_ins *in = &p->code[c->pc];
        enum emu_stop s = EMU_DONE;
        switch (in->op) {
        case TILE_LOOP: core_begin_loop(c, in); break;
        case TILE_ENDLOOP:
            if (!core_end_loop(c, in))
                return core_fault(c, "the program repeats more than its tensors can account for");
            break;
        case TILE_IF: c->pc = c->values[in->val[EMU_FIELD(IF, cond)]] != 0 ? c->pc + 1 : in->jump; break;
        case TILE_ENDIF: c->pc++; break;
        case TILE_LET: core_let(c, in); break;
        default:
            if (in->flag && o->in_order)
                c->pc++;
            else
                s = core_step(c, in, o);
        }
        if (s != EMU_DONE)
            return s;
    }
    c->done = true;
    return EMU_DONE;
}

#endif
