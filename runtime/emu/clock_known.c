/* Costs of instructions by what decides them. Most instructions of a loop cost the same every time: extents are
 * parameters or the least of a tile and a rest, and of an address only its place in a line counts. Where the operands
 * that decide are those of the last time, on whatever core, so is the cost, and nothing of the instruction needs to be
 * fetched.
 *
 * Not known are instructions whose cost depends on more: on ring slots (banks of UB), rows gathered so far, a core's
 * place in its cluster. */
#include "runtime/emu/clock_priv.h"

#include <string.h>

#define FARTHEST                                                                                                       \
    ((int64_t)1 << 40) /* elements: a move from there on leaves every tensor, and is not calculated with               \
                        */

/* Where in GM a move begins: the field with its element. */
static const int8_t places[TILE_OP_END] = {
    [TILE_LOAD] = EMU_FIELD(LOAD, src_off),       [TILE_LOAD_NZ] = EMU_FIELD(LOAD_NZ, src_off),
    [TILE_STORE] = EMU_FIELD(STORE, dst_off),     [TILE_FIXP] = EMU_FIELD(FIXP, dst_off),
    [TILE_FIXP_NZ] = EMU_FIELD(FIXP_NZ, dst_off),
};

int clock_place(int op)
{
    return places[op];
}

static bool depends_on_more(int op)
{
    return clock_decides(op) == 0 || op == TILE_VEC || op == TILE_IF || op == TILE_LOOP;
}

/* Which values decide the cost of the instruction. */
static void describe(struct clock_known *x, const struct emu_program *p, const struct emu_ins *in)
{
    const uint32_t decides = clock_decides(in->op);
    x->place = places[in->op] > 0 ? in->val[places[in->op]] : -1;
    if (x->place >= 0 && !p->varies[x->place])
        x->place = -1;
    if (depends_on_more(in->op))
        x->n = -1;
    for (int f = 0; f < in->n_fields && x->n >= 0; f++) {
        if (!(decides >> f & 1) || !p->varies[in->val[f]])
            continue;
        if (x->n == CLOCK_DECIDES)
            x->n = -1;
        else
            x->value[x->n++] = in->val[f];
    }
}

static void mix(uint64_t *h, uint64_t v)
{
    *h = (*h ^ v) * 0x9e3779b97f4a7c15u;
    *h ^= *h >> 29;
}

static uint64_t hash_of(const struct clock_cost *c)
{
    const double times[] = {c->busy, c->after, c->hit_cyc, c->miss_cyc, c->bus, c->cap};
    uint64_t bits[NPUC_ARRAY_LEN(times)], h = 0;
    memcpy(bits, times, sizeof bits);
    for (int i = 0; i < NPUC_ARRAY_LEN(times); i++)
        mix(&h, bits[i]);
    mix(&h, (uint64_t)c->span.tensor + 1);
    mix(&h, (uint64_t)c->bytes);
    return h;
}

/* Moves the span on to where the operands have it now; false: what it touches of lines is another thing there. */
static bool follow(struct clock_known *x, const struct clock_core *c)
{
    const int64_t at = c->core.values[x->place], apart = at - x->at;
    if (at > FARTHEST || at < -FARTHEST || (apart * x->cost.span.size & c->clock->line_mask))
        return false;
    x->cost.span.off += apart * x->cost.span.size;
    x->reach.span.off += apart * x->cost.span.size;
    x->at = at;
    return true;
}

const struct clock_known *clock_known_find(const struct clock_core *c, const struct emu_ins *in)
{
    struct clock_known *x = c->known[in - c->core.prog->code];
    if (!x || x->n < 0 || x->copy != c->copy || c->clock->anew)
        return NULL;
    for (int32_t i = 0; i < x->n; i++)
        if (c->core.values[x->value[i]] != x->seen[i])
            return NULL;
    return x->place < 0 || follow(x, c) ? x : NULL;
}

const struct clock_known *clock_known_put(struct clock_core *c, const struct emu_op *op)
{
    const struct emu_ins *in = &c->core.prog->code[c->core.pc];
    struct clock_known *x = c->known[c->core.pc];
    if (!x && (x = ARENA_NEW(&c->clock->arena, struct clock_known)))
        describe(x, c->core.prog, in);
    c->known[c->core.pc] = x;
    x = x ? x : &c->once;
    clock_cost_of(&c->cx, op, &x->cost);
    if (x->cost.span.tensor >= 0 && c->clock->l2)
        clock_l2_reach(&x->cost.span, &x->reach);
    x->hash = hash_of(&x->cost);
    x->copy = c->copy;
    for (int32_t i = 0; i < x->n; i++)
        x->seen[i] = c->core.values[x->value[i]];
    if (x->place >= 0) {
        x->at = c->core.values[x->place];
        x->copy = x->at > FARTHEST || x->at < -FARTHEST ? -1 : x->copy;
    }
    return x;
}
