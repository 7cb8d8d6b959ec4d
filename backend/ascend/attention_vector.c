/* The vector cores of a block. A tile is a chunk of columns of a piece of a core's rows: the region makes the scores
 * from what is in the workspace, then come the steps of kernels/attend_chunks.h.
 *
 *   for each step i, and ATT_MERGE more, and each piece:
 *     scores of step i to probabilities, in the workspace; maximum and factor of the rows stay here, ATT_PARTS steps
 *     long, sums until a part of the keys ends
 *     product of step i - ATT_MERGE: joins that of its part; at a part's end, this joins those before; with the last
 *     chunk, the result
 *
 * Both cores take pieces of their part of the item: half of its planes, or half of its rows. */
#include <float.h>

#include "base/size.h"
#include "backend/ascend/attention.h"

/* The rows of a step that a tile is about. */
struct piece {
    struct att_step step;
    expr planes, rows, n; /* n = planes x rows, 0 for none */
    expr plane0, row0;    /* within the batch member */
    expr local, state;    /* first row within the item, and of what this core holds */
    expr first, last;     /* the piece is the first, the last of its step */
};

/* Numbers of rows. Of a step, in slot number % ATT_PARTS: -T, what results up to then were multiplied by, the sum when
 * a part ends; slot ATT_PARTS of neg holds those of a beginning. Of all parts up to now: -T and sum. */
struct vec {
    struct att_kernel *k;
    struct expr_pool *x;
    struct tile_builder *b;
    int32_t neg, sum, old, sinks;                        /* several times the rows held; sinks may be -1 */
    int32_t lanes, out;                                  /* sums and results of a part */
    int32_t all_neg, all_sum, all_out;                   /* of the parts before; all_out is -1 where there is but one */
    int32_t max, scale_all, scale_part, next, inv, some; /* while a step or a piece is worked on */
    int32_t probs, part, y;                              /* tiles on their way; probs -1: in the scores' buffer */
    int64_t pitch, wide;                                 /* of rows of probs; of out, part and y */
};

static expr num(struct vec *c, int64_t v)
{
    return expr_const(c->x, v);
}

static struct piece piece_of(struct vec *c, const struct att_step *step, expr number)
{
    struct att_kernel *k = c->k;
    struct expr_pool *x = c->x;
    const struct att_split *s = &k->s;
    const expr sub = expr_sym(x, k->f.k->sym_sub), zero = num(c, 0);
    struct piece p = {.step = *step};
    const struct att_item *it = &p.step.it;
    const expr several = expr_cmp(x, EXPR_LT, num(c, 1), s->tile_planes);
    const expr half_planes = expr_ceildiv(x, it->planes, num(c, 2)), half_rows = expr_ceildiv(x, it->rows, num(c, 2));
    /* this core's part of the item */
    const expr to_plane = expr_mul(x, several, expr_mul(x, sub, half_planes));
    const expr to_row = expr_mul(x, expr_sub(x, num(c, 1), several), expr_mul(x, sub, half_rows));
    const expr planes =
        expr_select(x, several, expr_min(x, half_planes, expr_sub(x, it->planes, to_plane)), it->planes);
    const expr rows = expr_select(x, several, it->rows, expr_min(x, half_rows, expr_sub(x, it->rows, to_row)));
    /* the piece of it */
    const expr plane = expr_mul(x, expr_floordiv(x, number, s->row_pieces), s->piece_planes);
    const expr row = expr_mul(x, expr_mod(x, number, s->row_pieces), s->piece_rows);
    p.planes = expr_max(x, zero, expr_min(x, s->piece_planes, expr_sub(x, planes, plane)));
    p.rows = expr_max(x, zero, expr_min(x, s->piece_rows, expr_sub(x, rows, row)));
    p.planes = expr_mul(x, p.planes, p.step.active);
    p.n = expr_mul(x, p.planes, p.rows);
    p.plane0 = expr_add(x, it->plane0, expr_add(x, to_plane, plane));
    p.row0 = expr_add(x, it->row0, expr_add(x, to_row, row));
    p.local = expr_sub(x, expr_add(x, expr_mul(x, p.plane0, k->plane_rows), p.row0), it->first);
    p.state = expr_add(x, expr_mul(x, plane, s->sub_rows), row);
    p.first = expr_mul(x, p.step.active, expr_cmp(x, EXPR_EQ, number, zero));
    p.last = expr_mul(x, p.step.active, expr_cmp(x, EXPR_EQ, number, expr_sub(x, s->pieces, num(c, 1))));
    return p;
}

/* Slot of a workspace with rows of `pitch` elements, at the piece's first row. */
static expr place(struct vec *c, const struct piece *p, int slots, int64_t pitch)
{
    struct expr_pool *x = c->x;
    const expr number = expr_add(x, expr_mul_const(x, expr_sym(x, c->k->f.k->sym_block), slots),
                                 expr_mod(x, p->step.number, num(c, slots)));
    return expr_mul_const(x, expr_add(x, expr_mul(x, number, c->k->s.slot), p->local), pitch);
}

/* Where a step's values per row are held, until it is merged: those of the piece. */
static expr held(struct vec *c, const struct piece *p)
{
    const expr slot = expr_mod(c->x, p->step.number, num(c, ATT_PARTS));
    return expr_add(c->x, expr_mul_const(c->x, slot, c->k->state), p->state);
}

/* Is the step's chunk the first of a part? The last, of a part or at all? */
static expr begins_part(struct vec *c, const struct piece *p)
{
    const expr of = expr_mod(c->x, p->step.chunk, num(c, ATTEND_PART_CHUNKS)),
               begins = expr_cmp(c->x, EXPR_EQ, p->step.chunk, p->step.it.chunk0);
    return c->k->parts ? expr_max(c->x, begins, expr_cmp(c->x, EXPR_EQ, of, num(c, 0))) : begins;
}

static expr ends_all(struct vec *c, const struct piece *p)
{
    return expr_cmp(c->x, EXPR_EQ, p->step.chunk, p->step.it.chunk1);
}

static expr ends_part(struct vec *c, const struct piece *p)
{
    const expr of = expr_mod(c->x, p->step.chunk, num(c, ATTEND_PART_CHUNKS)), all = ends_all(c, p);
    return c->k->parts ? expr_max(c->x, all, expr_cmp(c->x, EXPR_EQ, of, num(c, ATTEND_PART_CHUNKS - 1))) : all;
}

/* -T of the step before, or of a beginning. */
static expr held_before(struct vec *c, const struct piece *p)
{
    const expr slot = expr_mod(c->x, expr_add(c->x, p->step.number, num(c, ATT_PARTS - 1)), num(c, ATT_PARTS));
    const expr from = expr_select(c->x, begins_part(c, p), num(c, ATT_PARTS), slot);
    return expr_add(c->x, expr_mul_const(c->x, from, c->k->state), p->state);
}

/* An operand: a buffer at an offset with rows so far apart; col 0: one value per row. */
struct operand {
    int32_t buf, off, row, col;
};

static struct operand line(int32_t buf, expr off, expr zero)
{
    return (struct operand){buf, off, zero, 1};
}

static struct operand number(struct vec *c, float v)
{
    return (struct operand){-1, tile_float_bits(v), num(c, 0), 0};
}

static expr row_of(struct vec *c, const struct operand *o)
{
    return o->buf < 0 ? num(c, 0) : o->row;
}

static void vec3(struct vec *c, enum k_fn fn, const expr size[2], const struct operand o[4])
{
    TILE(c->b, VEC, (int32_t)fn, DT_F32, size[0], size[1], o[0].buf, o[0].off, o[0].row, o[1].buf, o[1].off,
         row_of(c, &o[1]), o[1].col, o[2].buf, o[2].off, row_of(c, &o[2]), o[2].col, o[3].buf, o[3].off,
         row_of(c, &o[3]), o[3].col, 0, 0, 0);
}

/* f32 formula on n values in a row. */
static void on_line(struct vec *c, enum k_fn fn, expr n, const struct operand o[4])
{
    vec3(c, fn, (const expr[2]){num(c, 1), n}, o);
}

static const struct operand absent = {-1, 0, 0, 0};

static void declare(struct vec *c)
{
    struct att_kernel *k = c->k;
    const struct att *a = k->a;
    const int64_t rows = size_align(k->state * 4, 64);
    const struct {
        int32_t *to;
        const char *name;
        int64_t size;
    } all[] = {
        {&c->neg, "neg", rows * ATT_HELD},
        {&c->old, "old", rows * ATT_PARTS},
        {&c->sum, "sum", rows * ATT_PARTS},
        {&c->sinks, "sinks", k->sink >= 0 ? rows * ATT_PARTS : 0},
        {&c->all_neg, "all_neg", rows},
        {&c->all_sum, "all_sum", rows},
        {&c->max, "max", rows},
        {&c->scale_all, "scale_all", rows},
        {&c->scale_part, "scale_part", rows},
        {&c->next, "next", rows},
        {&c->inv, "inv", rows},
        {&c->lanes, "lanes", k->state * K_LANES * 4},
        {&c->all_out, "all_out", k->parts || k->apart ? k->state * c->wide * 4 : 0},
        {&c->out, "out", k->state * c->wide * 4},
    };
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(all); i++)
        *all[i].to = all[i].size ? tile_buf(c->b, all[i].name, TS_UB, DT_F32, 1, all[i].size) : -1;
    /* one slot each: a whole turn of the loop lies between two uses */
    c->some = tile_buf(c->b, "some", TS_UB, DT_BOOL, 1, size_align(k->state, 64));
    const bool in_place = vr_over_input(k->f.r, k->goal);
    c->pitch = in_place ? ATTEND_CHUNK * 4 / dtype_size(a->prob) : ATTEND_CHUNK;
    c->probs = in_place ? -1
                        : tile_buf(c->b, "probs", TS_UB, a->prob, 1,
                                   size_align(k->piece * ATTEND_CHUNK * dtype_size(a->prob), 64));
    c->part = tile_buf(c->b, "part", TS_UB, DT_F32, 1, size_align(k->piece * c->wide * 4, 64));
    c->y = tile_buf(c->b, "y", TS_UB, a->out, 1, size_align(k->piece * c->wide * dtype_size(a->out), 64));
}

/* ---- scores to probabilities ---- */

static void reduce(struct vec *c, enum k_red op, const struct piece *p, const struct operand *from)
{
    TILE(c->b, RED_ADD, (int32_t)op, DT_F32, p->n, p->step.keys, c->k->f.acc, num(c, 0), from->buf, from->off,
         from->row, num(c, 0), num(c, 1));
}

static void reduced(struct vec *c, enum k_red op, const struct piece *p, const struct operand *to)
{
    TILE(c->b, RED_END, (int32_t)op, DT_F32, p->n, to->buf, to->off, num(c, 1), c->k->f.acc, num(c, 0));
}

static void copy_rows(struct vec *c, const expr size[2], const struct operand *to, const struct operand *from)
{
    TILE(c->b, COPY_UB, DT_F32, size[0], size[1], to->buf, to->off, to->row, from->buf, from->off, from->row,
         from->col);
}

static void set_tile(struct vec *c, const struct piece *p)
{
    struct att_kernel *k = c->k;
    struct vr_form *f = &k->f;
    struct expr_pool *x = c->x;
    expr index = p->step.it.batch;
    for (int d = f->r->rank - 4; d >= 0; d--) {
        const expr size = expr_max(x, num(c, 1), f->dims[d]);
        f->outer[d] = d == 0 ? index : expr_mod(x, index, size);
        index = expr_floordiv(x, index, size);
    }
    f->plane0 = p->plane0;
    f->row0 = p->row0;
    f->n_planes = p->planes;
    f->plane_rows = p->rows;
    f->n_rows = p->n;
    f->col0 = p->step.key0;
    f->n_cols = p->step.keys;
    for (int v = 0; v < f->r->n_views + f->r->n_outputs; v++)
        f->base[v] = num(c, 0);
    /* the workspace has the item's first row and the chunk's first column in front */
    const expr in_member = expr_add(x, expr_mul(x, p->plane0, k->plane_rows), p->row0);
    f->base[0] = expr_sub(
        x, expr_sub(x, place(c, p, ATT_SLOTS, ATTEND_CHUNK), expr_mul_const(x, in_member, ATTEND_CHUNK)), p->step.key0);
}

/* Scores s to exponentials, in place; the rows' maximum. */
static void exponentials(struct vec *c, const struct piece *p, const struct operand *s)
{
    const expr zero = num(c, 0), one = num(c, 1), n = p->n;
    const expr size[2] = {n, p->step.keys}, at = held(c, p), before = held_before(c, p);
    const struct operand max = line(c->max, p->state, zero), neg = line(c->neg, at, zero),
                         neg_before = line(c->neg, before, zero), old = line(c->old, at, zero);
    tile_note(c->b, "maximum of a row, exponentials");
    reduce(c, K_RED_MAX, p, s);
    reduced(c, K_RED_MAX, p, &max);
    on_line(c, K_FN_Mul, n, (const struct operand[4]){max, max, number(c, -c->k->a->scale), absent});
    on_line(c, K_FN_Min, n, (const struct operand[4]){neg, neg_before, max, absent});
    on_line(c, K_FN_Sub, n, (const struct operand[4]){old, neg, neg_before, absent});
    on_line(c, K_FN_Exp, n, (const struct operand[4]){old, old, absent, absent});
    vec3(c, K_FN_Fma, size, (const struct operand[4]){*s, *s, number(c, c->k->a->scale), {c->neg, at, one, 0}});
    vec3(c, K_FN_Exp, size, (const struct operand[4]){*s, *s, absent, absent});
}

/* Their sum joins that of the part. */
static void sums(struct vec *c, const struct piece *p, const struct operand *s)
{
    struct expr_pool *x = c->x;
    const expr one = num(c, 1), width = num(c, K_LANES), begins = begins_part(c, p);
    const expr size[2] = {p->n, width};
    const struct operand lanes = {c->lanes, expr_mul(x, p->state, width), width, 1},
                         sum = line(c->sum, held(c, p), one),
                         of_chunk = {c->k->f.acc, num(c, 0), num(c, sizeof(union k_lanes) / 4), 1},
                         old = {c->old, held(c, p), one, 0};
    tile_note(c->b, "their sum joins that of the part");
    reduce(c, K_RED_SUM, p, s);
    tile_if(c->b, expr_mul(x, p->step.active, begins));
    copy_rows(c, size, &lanes, &of_chunk);
    tile_end(c->b);
    tile_if(c->b, expr_mul(x, p->step.active, expr_sub(x, one, begins)));
    vec3(c, K_FN_Fma, size, (const struct operand[4]){lanes, lanes, old, of_chunk});
    tile_end(c->b);
    tile_if(c->b, expr_mul(x, p->step.active, ends_part(c, p)));
    copy_rows(c, size, &of_chunk, &lanes);
    reduced(c, K_RED_SUM, p, &sum);
    tile_end(c->b);
}

static void soften(struct vec *c, const struct piece *p)
{
    struct att_kernel *k = c->k;
    const expr zero = num(c, 0), one = num(c, 1), chunk = num(c, ATTEND_CHUNK);
    const expr size[2] = {p->n, p->step.keys};
    tile_note(c->b, "the cube core has written the scores");
    tile_if(c->b, p->first);
    TILE(c->b, XWAIT, TU_MTE2, ATT_SCORES_READY);
    tile_end(c->b);
    set_tile(c, p);
    vr_code_tile(&k->f);
    const struct operand s = {k->f.buf[k->goal], zero, chunk, 1};
    exponentials(c, p, &s);
    sums(c, p, &s);
    if (k->sink >= 0)
        on_line(c, K_FN_Identity, p->n,
                (const struct operand[4]){line(c->sinks, held(c, p), zero), line(k->f.buf[k->sink], zero, zero), absent,
                                          absent});
    const enum dtype t = k->a->prob;
    const int32_t probs = c->probs >= 0 ? c->probs : s.buf;
    const expr pitch = num(c, c->pitch);
    if (t != DT_F32) /* in place a row's narrower numbers lie where it begins */
        TILE(c->b, CAST, t, DT_F32, size[0], size[1], probs, zero, pitch, s.buf, zero, chunk, 1, 1);
    else if (probs != s.buf)
        TILE(c->b, COPY_UB, t, size[0], size[1], probs, zero, pitch, s.buf, zero, chunk, 1);
    TILE(c->b, STORE, k->tp, place(c, p, ATT_SLOTS, ATTEND_CHUNK), probs, zero, t, one, one, size[0], size[1], zero,
         zero, pitch, one, zero, zero, chunk, one);
    tile_note(c->b, "the cube core may read the probabilities");
    tile_if(c->b, p->last);
    TILE(c->b, XSET, TU_MTE3, ATT_PROBS_READY);
    tile_end(c->b);
}

/* ---- products to results ---- */

/* What a piece's rows have come to: -T, sum, results. */
struct rows {
    struct operand neg, sum, out;
};

static struct rows rows_of_part(struct vec *c, const struct piece *p)
{
    const expr zero = num(c, 0), wide = num(c, c->wide), at = held(c, p);
    return (struct rows){
        line(c->neg, at, zero), line(c->sum, at, zero), {c->out, expr_mul(c->x, p->state, wide), wide, 1}};
}

static struct rows rows_of_all(struct vec *c, const struct piece *p)
{
    const expr zero = num(c, 0), wide = num(c, c->wide);
    return (struct rows){line(c->all_neg, p->state, zero),
                         line(c->all_sum, p->state, zero),
                         {c->all_out, expr_mul(c->x, p->state, wide), wide, 1}};
}

/* Factors of all rows held, of those before and of the part that joins them, whose numbers lie at `at`. */
static void join_numbers(struct vec *c, expr at, expr first)
{
    const expr zero = num(c, 0), n = num(c, c->k->state);
    const struct operand neg = line(c->neg, at, zero), sum = line(c->sum, at, zero),
                         all_neg = line(c->all_neg, zero, zero), all_sum = line(c->all_sum, zero, zero),
                         a = line(c->scale_all, zero, zero), b = line(c->scale_part, zero, zero),
                         next = line(c->next, zero, zero);
    tile_if(c->b, first);
    on_line(c, K_FN_Identity, n, (const struct operand[4]){all_neg, neg, absent, absent});
    on_line(c, K_FN_Identity, n, (const struct operand[4]){all_sum, sum, absent, absent});
    tile_end(c->b);
    tile_if(c->b, expr_sub(c->x, num(c, 1), first));
    on_line(c, K_FN_Min, n, (const struct operand[4]){next, all_neg, neg, absent});
    on_line(c, K_FN_Sub, n, (const struct operand[4]){a, next, all_neg, absent});
    on_line(c, K_FN_Exp, n, (const struct operand[4]){a, a, absent, absent});
    on_line(c, K_FN_Sub, n, (const struct operand[4]){b, next, neg, absent});
    on_line(c, K_FN_Exp, n, (const struct operand[4]){b, b, absent, absent});
    on_line(c, K_FN_Identity, n, (const struct operand[4]){all_neg, next, absent, absent});
    on_line(c, K_FN_Mul, n, (const struct operand[4]){all_sum, all_sum, a, absent});
    on_line(c, K_FN_Fma, n, (const struct operand[4]){all_sum, sum, b, all_sum});
    tile_end(c->b);
}

static expr not(struct vec * c, expr v)
{
    return expr_sub(c->x, num(c, 1), v);
}

/* Results of a part are the first, or join those before. when: either of the two. */
static void join_rows(struct vec *c, const struct piece *p, const struct operand *part, const expr when[2])
{
    const struct operand a = {c->scale_all, p->state, num(c, 1), 0}, b = {c->scale_part, p->state, num(c, 1), 0},
                         all = rows_of_all(c, p).out;
    const expr size[2] = {p->n, num(c, c->k->a->v_size)};
    tile_if(c->b, when[0]);
    copy_rows(c, size, &all, part);
    tile_end(c->b);
    tile_if(c->b, when[1]);
    vec3(c, K_FN_Mul, size, (const struct operand[4]){all, all, a, absent});
    vec3(c, K_FN_Fma, size, (const struct operand[4]){all, *part, b, all});
    tile_end(c->b);
}

/* A part is complete: it joins those before. */
static void join_part(struct vec *c, const struct piece *p)
{
    struct expr_pool *x = c->x;
    const struct rows own = rows_of_part(c, p);
    const expr part = expr_floordiv(x, p->step.chunk, num(c, ATTEND_PART_CHUNKS)),
               before = expr_floordiv(x, p->step.it.chunk0, num(c, ATTEND_PART_CHUNKS));
    const expr first = expr_cmp(x, EXPR_EQ, part, before);
    const expr ends = expr_mul(x, p->step.active, ends_part(c, p));
    tile_note(c->b, "a part of the keys is complete");
    tile_if(c->b, expr_mul(x, ends, p->first));
    join_numbers(c, expr_sub(x, held(c, p), p->state), first);
    tile_end(c->b);
    join_rows(c, p, &own.out, (const expr[2]){expr_mul(x, ends, first), expr_mul(x, ends, not(c, first))});
}

/* 1 / sum of the piece's rows, with the sink, where there is one; a: what results are then multiplied by. */
static void finish_numbers(struct vec *c, const struct piece *p, const struct rows *r)
{
    const struct att_kernel *k = c->k;
    const expr zero = num(c, 0), n = p->n;
    const struct operand a = line(c->scale_all, p->state, zero), b = line(c->scale_part, p->state, zero),
                         next = line(c->next, p->state, zero), inv = line(c->inv, p->state, zero);
    if (k->sink >= 0) {
        const struct operand sink = line(c->sinks, held(c, p), zero);
        on_line(c, K_FN_Neg, n, (const struct operand[4]){b, sink, absent, absent});
        on_line(c, K_FN_Min, n, (const struct operand[4]){next, r->neg, b, absent});
        on_line(c, K_FN_Sub, n, (const struct operand[4]){a, next, r->neg, absent});
        on_line(c, K_FN_Exp, n, (const struct operand[4]){a, a, absent, absent});
        on_line(c, K_FN_Sub, n, (const struct operand[4]){b, next, b, absent});
        on_line(c, K_FN_Exp, n, (const struct operand[4]){b, b, absent, absent});
        on_line(c, K_FN_Mul, n, (const struct operand[4]){r->sum, r->sum, a, absent});
        on_line(c, K_FN_Add, n, (const struct operand[4]){r->sum, r->sum, b, absent});
    }
    tile_if(c->b, expr_cmp(c->x, EXPR_EQ, k->total, zero));
    TILE(c->b, FILL, DT_F32, num(c, 1), n, r->sum.buf, r->sum.off, zero, tile_float_bits(1));
    tile_end(c->b);
    if (k->a->empty == ATTEND_EMPTY_ZERO)
        on_line(c, K_FN_Max, n, (const struct operand[4]){r->sum, r->sum, number(c, 1), absent});
    if (k->a->empty == ATTEND_EMPTY_OR_NAN_ZERO)
        on_line(c, K_FN_Greater, n,
                (const struct operand[4]){line(c->some, p->state, zero), r->sum, number(c, 0), absent});
    on_line(c, K_FN_Reciprocal, n, (const struct operand[4]){inv, r->sum, absent, absent});
}

static void finish(struct vec *c, const struct piece *p, const expr size[2])
{
    const struct att *a = c->k->a;
    const expr zero = num(c, 0), one = num(c, 1), wide = num(c, c->wide);
    const struct rows r = c->k->parts || c->k->apart ? rows_of_all(c, p) : rows_of_part(c, p);
    const struct operand old = {c->scale_all, p->state, one, 0}, inv = {c->inv, p->state, one, 0},
                         some = {c->some, p->state, one, 0}, *out = &r.out;
    finish_numbers(c, p, &r);
    if (c->k->sink >= 0)
        vec3(c, K_FN_Mul, size, (const struct operand[4]){*out, *out, old, absent});
    vec3(c, K_FN_Add, size, (const struct operand[4]){*out, *out, number(c, 0), absent});
    vec3(c, K_FN_Mul, size, (const struct operand[4]){*out, *out, inv, absent});
    if (a->empty == ATTEND_EMPTY_OR_NAN_ZERO)
        vec3(c, K_FN_Where, size, (const struct operand[4]){*out, some, *out, number(c, 0)});
    if (a->out == DT_F32)
        TILE(c->b, COPY_UB, a->out, size[0], size[1], c->y, zero, wide, out->buf, out->off, wide, 1);
    else
        TILE(c->b, CAST, a->out, DT_F32, size[0], size[1], c->y, zero, wide, out->buf, out->off, wide, 1, 1);
}

/* Rows of the piece to memory, or none of them: ends is 0 or 1. Where they are turned, those of a plane are apart. */
static void put_result(struct vec *c, const struct piece *p, expr ends)
{
    struct att_kernel *k = c->k;
    struct expr_pool *x = c->x;
    const bool turned = k->a->turn != NULL;
    const expr zero = num(c, 0), one = num(c, 1), wide = num(c, c->wide), size = num(c, k->a->v_size);
    const expr plane = turned ? k->y_plane : expr_mul(x, k->plane_rows, k->y_row);
    const expr first = expr_add(x, expr_mul(x, p->plane0, plane), expr_mul(x, p->row0, k->y_row));
    const expr planes = turned ? expr_mul(x, ends, p->planes) : one, rows = turned ? p->rows : expr_mul(x, ends, p->n);
    TILE(c->b, STORE, k->ty, expr_add(x, att_batch_offset(k, p->step.it.batch, k->y_batch), first), c->y, zero,
         k->a->out, one, planes, rows, size, zero, turned ? expr_mul(x, rows, wide) : zero, wide, one, zero,
         turned ? plane : zero, k->y_row, one);
}

/* Where a unit's results lie when parts are apart, from the piece's first row on; this core's -T (0) or sums (1). */
static expr apart_of(struct vec *c, expr unit, const struct piece *p)
{
    const expr row = expr_add(c->x, expr_mul(c->x, unit, c->k->s.slot), p->local);
    return expr_mul_const(c->x, row, c->k->a->v_size);
}

static expr numbers_of(struct vec *c, expr unit, int64_t which)
{
    const expr core = expr_add(c->x, expr_mul_const(c->x, unit, 2), expr_sym(c->x, c->k->f.k->sym_sub));
    return expr_mul_const(c->x, expr_add(c->x, expr_mul_const(c->x, core, 2), num(c, which)), c->k->state);
}

/* A unit is complete: results and numbers of its part, which join others behind the barrier. */
static void put_apart(struct vec *c, const struct piece *p)
{
    struct att_kernel *k = c->k;
    struct expr_pool *x = c->x;
    const expr zero = num(c, 0), one = num(c, 1), ends = expr_mul(x, p->step.active, ends_all(c, p));
    const expr at = expr_sub(x, held(c, p), p->state),
               numbers = expr_mul_const(x, expr_mul(x, ends, p->last), k->state);
    const struct operand out = rows_of_part(c, p).out;
    const int32_t from[] = {c->neg, c->sum};
    tile_note(c->b, "the part is complete");
    TILE(c->b, STORE, k->tw, apart_of(c, p->step.unit, p), out.buf, out.off, DT_F32, one, one, expr_mul(x, ends, p->n),
         num(c, k->a->v_size), zero, zero, num(c, c->wide), one, zero, zero, num(c, k->a->v_size), one);
    for (int i = 0; i < 2; i++)
        TILE(c->b, STORE, k->tn, numbers_of(c, p->step.unit, i), from[i], at, DT_F32, one, one, one, numbers, zero,
             zero, zero, one, zero, zero, zero, one);
}

static void merge(struct vec *c, const struct piece *p)
{
    struct att_kernel *k = c->k;
    struct expr_pool *x = c->x;
    const expr zero = num(c, 0), one = num(c, 1), wide = num(c, c->wide), v_size = num(c, k->a->v_size);
    const expr size[2] = {p->n, v_size}, ends = expr_mul(x, p->step.active, ends_all(c, p)), begins = begins_part(c, p);
    const struct rows r = rows_of_part(c, p);
    const struct operand part = {c->part, zero, wide, 1}, old = {c->old, held(c, p), one, 0};
    tile_note(c->b, "the cube core has written the product of a chunk");
    tile_if(c->b, p->first);
    TILE(c->b, XWAIT, TU_MTE2, ATT_PART_READY);
    tile_end(c->b);
    TILE(c->b, LOAD, c->part, zero, k->to, place(c, p, ATT_PARTS, k->a->v_size), DT_F32, one, one, size[0], size[1],
         zero, zero, v_size, one, zero, zero, wide, one);
    tile_if(c->b, expr_mul(x, p->step.active, begins));
    copy_rows(c, size, &r.out, &part);
    tile_end(c->b);
    tile_if(c->b, expr_mul(x, p->step.active, expr_sub(x, one, begins)));
    vec3(c, K_FN_Fma, size, (const struct operand[4]){r.out, r.out, old, part});
    tile_end(c->b);
    if (k->apart) {
        put_apart(c, p);
        return;
    }
    if (k->parts)
        join_part(c, p);
    tile_note(c->b, "the last chunk gives the result");
    tile_if(c->b, ends);
    finish(c, p, size);
    tile_end(c->b);
    put_result(c, p, ends);
}

/* ---- parts that lie apart ---- */

static void load_numbers(struct vec *c, int32_t to, expr from)
{
    const expr zero = num(c, 0), one = num(c, 1);
    TILE(c->b, LOAD, to, zero, c->k->tn, from, DT_F32, one, one, one, num(c, c->k->state), zero, zero, zero, one, zero,
         zero, zero, one);
}

/* All cores have met: the parts of this block's items are merged, ascending. */
static void merge_apart(struct vec *c)
{
    struct att_kernel *k = c->k;
    struct expr_pool *x = c->x;
    const expr zero = num(c, 0), one = num(c, 1), part = num(c, ATTEND_PART_CHUNKS), wide = num(c, c->wide),
               v_size = num(c, k->a->v_size), block = expr_sym(x, k->f.k->sym_block);
    tile_emit(c->b, TILE_BARRIER, 0, NULL);
    tile_note(c->b, "parts of the keys, merged");
    const expr items = expr_max(x, zero, expr_sub(x, expr_floordiv(x, k->s.units, k->s.parts), block));
    const expr i = tile_loop(c->b, "item", expr_ceildiv(x, items, k->f.k->blocks));
    const expr item = tile_let(c->b, "number", expr_add(x, block, expr_mul(x, i, k->f.k->blocks)));
    const struct att_step s = {.it = att_item_of(k, item, zero), .active = one, .number = zero, .chunk = zero};
    const expr part0 = expr_floordiv(x, s.it.chunk0, part), part1 = expr_floordiv(x, s.it.chunk1, part);
    const expr q = tile_loop(c->b, "part", expr_add(x, one, expr_sub(x, part1, part0)));
    const expr unit = tile_let(c->b, "of", expr_add(x, expr_mul(x, item, k->s.parts), expr_add(x, part0, q)));
    const expr first = expr_cmp(x, EXPR_EQ, q, zero);
    load_numbers(c, c->neg, numbers_of(c, unit, 0));
    load_numbers(c, c->sum, numbers_of(c, unit, 1));
    join_numbers(c, zero, first);
    const struct piece p = piece_of(c, &s, tile_loop(c->b, "rows", k->s.pieces));
    TILE(c->b, LOAD, c->part, zero, k->tw, apart_of(c, unit, &p), DT_F32, one, one, p.n, v_size, zero, zero, v_size,
         one, zero, zero, wide, one);
    join_rows(c, &p, &(struct operand){c->part, zero, wide, 1}, (const expr[2]){first, not(c, first)});
    tile_end(c->b);
    tile_end(c->b);
    const struct piece y = piece_of(c, &s, tile_loop(c->b, "results", k->s.pieces));
    finish(c, &y, (const expr[2]){y.n, v_size});
    put_result(c, &y, num(c, 1));
    tile_end(c->b);
    tile_end(c->b);
}

static void fill(struct vec *c, int32_t buf, int64_t from, int64_t n, float v)
{
    TILE(c->b, FILL, DT_F32, num(c, 1), num(c, n), buf, num(c, from), num(c, n), tile_float_bits(v));
}

/* Numbers of a beginning; those of parts are read for all rows held. */
static void begin(struct vec *c)
{
    const int64_t rows = c->k->state;
    fill(c, c->neg, 0, ATT_PARTS * rows, 0);
    fill(c, c->neg, ATT_PARTS * rows, rows, FLT_MAX);
    fill(c, c->sum, 0, ATT_PARTS * rows, 0);
}

void att_vector_code(struct att_kernel *k)
{
    struct vec c = {.k = k, .x = &k->f.k->exprs, .b = &k->f.b, .wide = size_align(k->a->v_size, 8)};
    tile_section_begin(c.b, TCORE_VECTOR);
    vr_code_buffers(&k->f);
    declare(&c);
    begin(&c);
    tile_note(c.b, "pieces of this core's part of each step");
    const int late = att_is_coded(k->a) ? ATT_DECODE : 0, all = ATT_MERGE + late;
    const expr w = tile_loop(c.b, "j", expr_mul(c.x, expr_add(c.x, att_steps(k), num(&c, all)), k->s.pieces));
    const expr step = expr_floordiv(c.x, w, k->s.pieces), piece = expr_mod(c.x, w, k->s.pieces);
    const struct att_step at_step[] = {att_locate(k, expr_sub(c.x, step, num(&c, late))),
                                       att_locate(k, expr_sub(c.x, step, num(&c, all)))};
    const struct piece now = piece_of(&c, &at_step[0], piece);
    const struct piece then = piece_of(&c, &at_step[1], piece);
    att_decode(k, step, expr_cmp(c.x, EXPR_EQ, piece, num(&c, 0)));
    soften(&c, &now);
    merge(&c, &then);
    tile_end(c.b);
    if (k->apart)
        merge_apart(&c);
}
