/* Transpose of short runs: where neighbours of the result are not neighbours of the operand, or only few of them,
 * blocks are turned in UB, so that memory sees long bursts on both sides.
 *
 *   [.., a, .., b]         to  [.., b, .., a]          a block of a x b elements, turned by the vector unit
 *   [.., a, .., b, c]      to  [.., b, .., a, c]       c of at least 32 bytes: a block of a x b runs, moved run by run
 *
 * Dimensions that stay neighbours count as one. Longer runs are the copy's (gen_move.c), which needs no vector unit. */
#include "backend/vector/gens.h"
#include "base/size.h"

#include <stdio.h>

#define BLOCK_BYTES 32768 /* four of them, two doubled buffers, fit the smallest UB */
#define SIDE_BYTES  512   /* of a line: what a side of a block has at least where the other leaves room */
#define FRACTAL     16
#define UB_BLOCK    32

/* A permutation with dimensions merged. */
struct turn {
    int rank, n_outer;
    expr dims[IR_MAX_RANK]; /* of the operand */
    int perm[IR_MAX_RANK];  /* result dimension i is operand dimension perm[i] */
    int a, b;               /* operand dimensions that change places */
    int64_t run;            /* elements that stay together */
    int64_t size, tile_a, tile_b;
    int64_t line;      /* elements between lines in UB */
    bool tight;        /* lines follow one another in UB as in memory, which sees one burst per block */
    bool may_be_tight; /* so where sizes that are not known let one block have whole lines */
};

/* The type's dimensions in the order in which they lie; false when they do not lie side by side. */
static bool lie_of(const struct value *v, int axis[IR_MAX_RANK])
{
    const struct type *t = v->type;
    const bool walked = v->def && v->def->op == OP_Transpose && v->def->place == PLACE_FREE;
    const bool lines = t->layout.kind == LAYOUT_NHWC;
    if (t->kind != TYPE_TENSOR || t->rank < 2 || (t->layout.kind != LAYOUT_ND && !lines) || walked)
        return false;
    for (int i = 0; i < t->rank; i++)
        axis[i] = !lines || i == 0 ? i : i == t->rank - 1 ? 1 : i + 1;
    return true;
}

static bool dense(const struct value *v)
{
    int axis[IR_MAX_RANK];
    return lie_of(v, axis);
}

/* The operand's axis that lies at place i of the result. */
static int axis_at(const struct node *n, const int *to, int i)
{
    const struct attr *perm = n->op == OP_Transpose ? node_attr(n, "perm") : NULL;
    if (n->op != OP_Transpose)
        return to[i];
    return perm ? (int)perm->v.ints[to[i]] : n->out[0].type->rank - 1 - to[i];
}

/* Operand dimensions without those of size one, in the result's order. */
static int squeeze(const struct ir_ctx *cx, const struct node *n, expr dims[IR_MAX_RANK], int order[IR_MAX_RANK])
{
    const struct type *t = node_in(n, 0)->type;
    int place[IR_MAX_RANK], from_lie[IR_MAX_RANK], to_lie[IR_MAX_RANK], rank = 0, at = 0;
    const bool ok = lie_of(node_in(n, 0), from_lie) && lie_of(&n->out[0], to_lie);
    NPUC_ASSERT(ok);
    for (int i = 0; i < t->rank; i++) {
        int64_t one;
        const expr dim = t->dims[from_lie[i]];
        place[from_lie[i]] = expr_is_const(&cx->exprs, dim, &one) && one == 1 ? -1 : rank;
        if (place[from_lie[i]] >= 0)
            dims[rank++] = dim;
    }
    for (int i = 0; i < t->rank; i++) {
        const int from = place[axis_at(n, to_lie, i)];
        if (from >= 0)
            order[at++] = from;
    }
    return rank;
}

/* Merges operand dimensions that the result keeps side by side. */
static void merge(struct expr_pool *x, int rank, const expr *dims, const int *order, struct turn *t)
{
    int number[IR_MAX_RANK]; /* merged dimension of each operand dimension */
    bool joined[IR_MAX_RANK] = {false};
    for (int i = 1; i < rank; i++)
        if (order[i] == order[i - 1] + 1)
            joined[order[i]] = true;
    for (int d = 0; d < rank; d++) {
        if (joined[d]) {
            t->dims[t->rank - 1] = expr_mul(x, t->dims[t->rank - 1], dims[d]);
        } else {
            t->dims[t->rank++] = dims[d];
        }
        number[d] = t->rank - 1;
    }
    int n = 0;
    for (int i = 0; i < rank; i++)
        if (!joined[order[i]])
            t->perm[n++] = number[order[i]];
}

/* At most `most`, and no more than the dimension has but for whole blocks of UB: short rows then follow one another. */
static int64_t up_to(const struct ir_ctx *cx, const struct turn *t, expr size, int64_t most)
{
    const struct expr_range r = expr_range_of(&cx->exprs, size);
    const int64_t unit = t->run == 1 ? UB_BLOCK / t->size : 1;
    return r.max < most ? size_align(r.max < 1 ? 1 : r.max, unit) : most;
}

/* A block whose sides are lines, or longer where the other side is short. */
static void choose_block(const struct ir_ctx *cx, struct turn *t)
{
    const int64_t all = BLOCK_BYTES / (t->size * t->run);
    int64_t side = SIDE_BYTES / (t->size * t->run), other;
    side = t->run == 1 ? size_align(side / 2 < FRACTAL ? FRACTAL : side / 2, FRACTAL) : side < 1 ? 1 : side;
    t->tile_a = up_to(cx, t, t->dims[t->a], all / side);
    other = all / t->tile_a / FRACTAL * FRACTAL;
    t->tile_b = up_to(cx, t, t->dims[t->b], t->run == 1 ? other : all / t->tile_a);
    if (t->run > 1 && t->tile_b > all / t->tile_a)
        t->tile_b = all / t->tile_a;
}

/* Are lines whole, next to one another in the result, and shorter than what memory moves at once? The vector unit of a
 * machine of rows turns into lines of any length; others want whole blocks of UB. */
static void choose_lines(const struct machine *m, const struct ir_ctx *cx, struct turn *t)
{
    int64_t whole;
    const bool next = m->mac_rows && t->run == 1 && t->rank >= 2 && t->perm[t->rank - 2] == t->b,
               known = expr_is_const(&cx->exprs, t->dims[t->a], &whole);
    t->line = t->tile_a * t->run;
    t->tight = next && known && whole >= 1 && whole <= t->tile_a && whole * t->size < SIDE_BYTES;
    t->may_be_tight = next && !known;
    if (t->tight)
        t->line = whole;
}

static bool read_turn(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct turn *t)
{
    expr dims[IR_MAX_RANK];
    int order[IR_MAX_RANK];
    int64_t run = 1;
    *t = (struct turn){.size = dtype_table[n->out[0].type->dtype].bits / 8};
    const int rank = squeeze(cx, n, dims, order);
    merge(&cx->exprs, rank, dims, order, t);
    const int last = t->rank - 1;
    if (t->rank < 2)
        return false;
    const bool kept = t->perm[last] == last;
    if (kept && (t->rank < 3 || !expr_is_const(&cx->exprs, t->dims[last], &run) || run > SIDE_BYTES ||
                 run * t->size % 32 != 0 || run * t->size >= SIDE_BYTES || run < 1))
        return false;
    t->run = kept ? run : 1;
    t->a = t->perm[kept ? last - 1 : last];
    t->b = kept ? last - 1 : last;
    t->n_outer = t->rank - (kept ? 3 : 2);
    choose_block(cx, t);
    choose_lines(m, cx, t);
    return t->tile_a > 0 && t->tile_b > 0;
}

bool gen_turn_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct turn t;
    (void)reason;
    if ((n->op != OP_Transpose && n->op != OP_TransData) || !node_in(n, 0) || !node_out(n, 0) ||
        !dense(node_in(n, 0)) || !dense(&n->out[0]))
        return false;
    const int bits = dtype_table[n->out[0].type->dtype].bits;
    return bits >= 8 && bits <= 64 && 4 * BLOCK_BYTES <= m->size[TS_UB] && read_turn(m, cx, n, &t);
}

/* ---- program ---------------------------------------------------------------------------------------------- */

struct code {
    const struct turn *t;
    enum dtype type;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    expr dims[IR_MAX_RANK], in_stride[IR_MAX_RANK], out_stride[IR_MAX_RANK]; /* by operand dimension */
    int32_t from, to, rows, lines;
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}

static void strides(struct code *c)
{
    const struct turn *t = c->t;
    expr in = num(c, 1), out = num(c, 1);
    for (int i = t->rank - 1; i >= 0; i--) {
        c->in_stride[i] = in;
        c->out_stride[t->perm[i]] = out;
        in = expr_mul(c->x, in, c->dims[i]);
        out = expr_mul(c->x, out, c->dims[t->perm[i]]);
    }
}

static expr at_least_one(struct code *c, expr e)
{
    return expr_max(c->x, num(c, 1), e); /* a divisor, also when there is nothing to do */
}

/* na x nb runs from `src` of the operand to `dst` of the result. */
static void block(struct code *c, expr na, expr nb, expr src, expr dst)
{
    struct expr_pool *x = c->x;
    const struct turn *t = c->t;
    const int32_t type = (int32_t)c->type;
    const expr z = num(c, 0), one = num(c, 1), run = num(c, t->run);
    const expr pitch = num(c, t->tile_b * t->run);
    const expr whole = t->may_be_tight ? expr_cmp(x, EXPR_LE, c->dims[t->a], num(c, t->tile_a)) : z;
    const expr line = expr_select(x, whole, na, num(c, t->line));
    tile_note(&c->b, "rows as they lie in the operand");
    TILE(&c->b, LOAD, c->rows, z, c->from, src, type, one, one, na, expr_mul(x, nb, run), z, z, c->in_stride[t->a], one,
         z, z, pitch, one);
    tile_note(&c->b, "turned");
    if (t->run == 1) {
        TILE(&c->b, TRANSP, type, na, nb, c->lines, z, line, c->rows, z, pitch);
    } else {
        const expr i = tile_loop(&c->b, "run", nb);
        TILE(&c->b, COPY_UB, type, na, run, c->lines, expr_mul(x, i, line), run, c->rows, expr_mul(x, i, run), pitch,
             1);
        tile_end(&c->b);
    }
    tile_note(&c->b, "rows of the result");
    if (t->tight) {
        TILE(&c->b, STORE, c->to, dst, c->lines, z, type, one, one, one, expr_mul(x, nb, na), z, z, z, one, z, z, z,
             one);
        return;
    }
    const expr rows = expr_select(x, whole, one, nb), cells = expr_mul(x, na, expr_select(x, whole, nb, run));
    TILE(&c->b, STORE, c->to, dst, c->lines, z, type, one, one, rows, cells, z, z, line, one, z, z, c->out_stride[t->b],
         one);
}

/* The loop over this core's blocks: those of a fastest, then b, then the other dimensions. */
static void body(struct code *c, int64_t cores)
{
    struct expr_pool *x = c->x;
    const struct turn *t = c->t;
    const expr ta = expr_ceildiv(x, c->dims[t->a], num(c, t->tile_a)),
               tb = expr_ceildiv(x, c->dims[t->b], num(c, t->tile_b));
    expr items = expr_mul(x, ta, tb);
    for (int i = 0; i < t->n_outer + 2; i++)
        if (i != t->a && i != t->b)
            items = expr_mul(x, items, c->dims[i]);
    c->k->blocks = expr_max(x, num(c, 1), expr_min(x, num(c, cores), items));
    tile_section_begin(&c->b, TCORE_VECTOR);
    c->rows = tile_buf(&c->b, "rows", TS_UB, c->type, 2, BLOCK_BYTES);
    c->lines = tile_buf(&c->b, "lines", TS_UB, c->type, 2, BLOCK_BYTES);
    const expr own = expr_sym(x, c->k->sym_block);
    const expr i = tile_loop(&c->b, "i", expr_ceildiv(x, expr_sub(x, items, own), c->k->blocks));
    expr at = expr_add(x, own, expr_mul(x, i, c->k->blocks));
    const expr a0 = expr_mul_const(x, expr_mod(x, at, at_least_one(c, ta)), t->tile_a);
    at = expr_floordiv(x, at, at_least_one(c, ta));
    const expr b0 = expr_mul_const(x, expr_mod(x, at, at_least_one(c, tb)), t->tile_b);
    at = expr_floordiv(x, at, at_least_one(c, tb));
    expr src = expr_add(x, expr_mul(x, a0, c->in_stride[t->a]), expr_mul(x, b0, c->in_stride[t->b]));
    expr dst = expr_add(x, expr_mul(x, a0, c->out_stride[t->a]), expr_mul(x, b0, c->out_stride[t->b]));
    for (int d = t->n_outer + 1; d >= 0; d--) {
        if (d == t->a || d == t->b)
            continue;
        const expr index = expr_mod(x, at, at_least_one(c, c->dims[d]));
        at = expr_floordiv(x, at, at_least_one(c, c->dims[d]));
        src = expr_add(x, src, expr_mul(x, index, c->in_stride[d]));
        dst = expr_add(x, dst, expr_mul(x, index, c->out_stride[d]));
    }
    block(c, expr_min(x, num(c, t->tile_a), expr_sub(x, c->dims[t->a], a0)),
          expr_min(x, num(c, t->tile_b), expr_sub(x, c->dims[t->b], b0)), src, dst);
    tile_end(&c->b);
}

enum npuc_status gen_turn_emit(struct emit *e, struct node *n)
{
    struct turn t;
    char name[32];
    struct kparams params = {.e = e};
    if (!read_turn(e->m, e->cx, n, &t))
        return node_error(e->cx, n, D_VERIFY, "a permutation was placed that moves no short runs");
    struct code c = {.t = &t, .type = n->out[0].type->dtype};
    snprintf(name, sizeof name, "turn_%lldx%lldx%lld", (long long)t.tile_a, (long long)t.tile_b, (long long)t.run);
    params.k = c.k = tile_kernel_new(e->arena, &e->plan->strings, name);
    c.x = &c.k->exprs;
    c.b = (struct tile_builder){.k = c.k, .arena = e->arena};
    for (int i = 0; i < t.rank; i++) {
        snprintf(name, sizeof name, "d%d", i);
        c.dims[i] = kparam(&params, name, t.dims[i]);
    }
    tile_params_done(c.k);
    c.from = tile_tensor(c.k, e->arena, "x", c.type, true, false);
    c.to = tile_tensor(c.k, e->arena, "y", c.type, false, true);
    strides(&c);
    body(&c, e->m->n_vector);
    const int32_t tensors[] = {emit_tensor(e, node_in(n, 0)), emit_tensor(e, &n->out[0])};
    return emit_launch(e, c.k, tensors, params.bound, EXPR_INVALID, op_table[n->op]->name);
}
