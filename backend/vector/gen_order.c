/* GroupOrder: rows in the order of their groups, by counting, on one vector core.
 *
 *   for each chunk of the index:  count the rows of each group
 *   write where groups end
 *   for each chunk:               sort it by group; row j of the sorted chunk, of group e, goes to
 *                                 j + (rows of e and before it so far) - (rows of smaller groups in the chunk)
 *
 * Tables have one element per group.
 * Refused: several cores, which would have to meet twice for what takes one of them some microseconds. */
#include "backend/vector/gens.h"
#include "backend/vector/views.h"
#include "base/size.h"

#define MOST_GROUPS 2048
#define CHUNK       4096 /* rows that the sorting unit takes */
#define UNIT        64
#define BLOCK       4 /* groups counted at a time */

struct order {
    struct tile_kernel *k;
    struct tile_builder b;
    int64_t groups, padded, repeat, cap;            /* padded: to whole blocks; cap: rows of a chunk */
    expr rows, chunks, first, n;                    /* all rows; of the chunk */
    int32_t index, from, sorted, ends, place;       /* tensors, -1 absent */
    int32_t wide, x, at, back, group, to, div;      /* buffers: i64, then i32 of the chunk */
    int32_t mask, ones, acc;                        /* of a block of groups */
    int32_t ids, next, less, upto, run, off, out64; /* tables */
};

static expr num(struct order *c, int64_t v)
{
    return expr_const(&c->k->exprs, v);
}

bool gen_order_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    if (n->op != OP_GroupOrder)
        return false;
    if (!view_plain(cx, node_in(n, 0), reason))
        return false;
    *reason = "more groups than the vector core keeps tables of";
    return node_in(n, 0)->type->rank == 1 && node_attr_int(n, "groups", 0) <= MOST_GROUPS &&
           m->size[TS_UB] >= 128 << 10;
}

/* ---- pieces -------------------------------------------------------------------------------------------------- */

/* dst = fn(a, b) on n elements of i32, b -1: the number. */
static void vec(struct order *c, enum k_fn fn, int32_t dst, int32_t a, int32_t b, float number, expr n)
{
    const expr z = num(c, 0), one = num(c, 1);
    TILE(&c->b, VEC, fn, DT_I32, one, n, dst, z, z, a, z, z, 1, b, b < 0 ? tile_float_bits(number) : z, z,
         b < 0 ? 0 : 1, -1, 0, z, 0, 0, 0, 0);
}

static void move(struct order *c, bool in, int32_t tensor, expr off, int32_t buf, expr n)
{
    const expr z = num(c, 0), one = num(c, 1);
    if (in)
        TILE(&c->b, LOAD, buf, z, tensor, off, DT_I64, one, one, one, n, z, z, z, one, z, z, z, one);
    else
        TILE(&c->b, STORE, tensor, off, buf, z, DT_I64, one, one, one, n, z, z, z, one, z, z, z, one);
}

static void widen(struct order *c, int32_t dst, int32_t src, expr n)
{
    const expr z = num(c, 0), one = num(c, 1);
    TILE(&c->b, CAST, DT_I64, DT_I32, one, n, dst, z, z, src, z, z, 1, 1);
}

static void pick(struct order *c, int32_t dst, int32_t src, expr src_cols, int32_t at)
{
    const expr z = num(c, 0);
    TILE(&c->b, PICK, DT_I32, num(c, 1), c->n, dst, z, z, src, z, z, src_cols, at, z, z);
}

/* less[e]: rows of the chunk in groups before e; upto[e]: those of group e with them. */
static void count(struct order *c)
{
    struct expr_pool *x = &c->k->exprs;
    const expr z = num(c, 0), one = num(c, 1), rows = num(c, BLOCK), pitch = num(c, c->cap);
    const expr block = tile_loop(&c->b, "e", num(c, (c->padded + UNIT) / BLOCK)), e = expr_mul(x, block, rows);
    TILE(&c->b, VEC, K_FN_Less, DT_I32, rows, c->n, c->mask, z, pitch, c->x, z, z, 1, c->ids, e, one, 0, -1, 0, z, 0, 0,
         0, 0);
    TILE(&c->b, CAST, DT_I32, DT_BOOL, rows, c->n, c->ones, z, pitch, c->mask, z, pitch, 1, 1);
    TILE(&c->b, RED_ADD, K_RED_SUM, DT_I32, rows, c->n, c->acc, z, c->ones, z, pitch, z, one);
    TILE(&c->b, RED_END, K_RED_SUM, DT_I32, rows, c->less, e, one, c->acc, z);
    tile_end(&c->b);
    TILE(&c->b, PICK, DT_I32, one, num(c, c->padded), c->upto, z, z, c->less, z, z, num(c, c->padded + UNIT), c->next,
         z, z);
}

static void open_chunk(struct order *c, const char *name)
{
    struct expr_pool *x = &c->k->exprs;
    const expr i = tile_loop(&c->b, name, c->chunks), z = num(c, 0), one = num(c, 1);
    c->first = expr_mul_const(x, i, c->cap);
    c->n = expr_min(x, num(c, c->cap), expr_sub(x, c->rows, c->first));
    tile_note(&c->b, "groups of the rows of a chunk");
    move(c, true, c->index, c->first, c->wide, c->n);
    TILE(&c->b, CAST, DT_I32, DT_I64, one, c->n, c->x, z, z, c->wide, z, z, 1, 1);
}

/* ---- the program --------------------------------------------------------------------------------------------- */

/* run[e]: rows of smaller groups in all chunks; and where groups end. */
static void count_all(struct order *c)
{
    const expr z = num(c, 0), one = num(c, 1), groups = num(c, c->padded);
    TILE(&c->b, IOTA, DT_I32, one, num(c, c->padded + UNIT), c->ids, z, z, z, one, z);
    TILE(&c->b, IOTA, DT_I32, one, groups, c->next, z, z, one, one, z);
    TILE(&c->b, FILL, DT_I32, one, groups, c->run, z, z, 0);
    TILE(&c->b, FILL, DT_I32, one, groups, c->off, z, z, 0);
    open_chunk(c, "chunk");
    count(c);
    vec(c, K_FN_Add, c->run, c->run, c->less, 0, groups);
    vec(c, K_FN_Add, c->off, c->off, c->upto, 0, groups);
    tile_end(&c->b);
    if (c->ends < 0)
        return;
    tile_note(&c->b, "where groups end");
    widen(c, c->out64, c->off, num(c, c->groups));
    move(c, false, c->ends, z, c->out64, num(c, c->groups));
}

/* The i32 values of the sorted chunk to their places among all rows. */
static void put(struct order *c, int32_t tensor, int32_t values)
{
    struct expr_pool *x = &c->k->exprs;
    const expr z = num(c, 0), one = num(c, 1);
    if (tensor < 0)
        return;
    widen(c, c->wide, values, c->n);
    tile_if(&c->b, expr_cmp(x, EXPR_LE, c->chunks, one));
    move(c, false, tensor, z, c->wide, c->n);
    tile_end(&c->b);
    tile_if(&c->b, expr_cmp(x, EXPR_LT, one, c->chunks));
    TILE(&c->b, STOREX, tensor, z, one, c->rows, c->wide, z, one, DT_I64, c->to, z, DT_I32, c->n, one);
    tile_end(&c->b);
}

static void deal(struct order *c)
{
    const expr z = num(c, 0), one = num(c, 1), groups = num(c, c->padded);
    open_chunk(c, "deal");
    tile_if(&c->b, expr_cmp(&c->k->exprs, EXPR_LT, one, c->chunks)); /* one chunk has been counted */
    count(c);
    tile_end(&c->b);
    vec(c, K_FN_Sub, c->off, c->run, c->less, 0, groups);
    tile_note(&c->b, "the chunk in the order of groups");
    TILE(&c->b, ORDER, DT_I32, one, c->n, c->at, z, z, c->x, z, z, 0);
    pick(c, c->group, c->x, c->n, c->at);
    pick(c, c->to, c->off, num(c, c->groups), c->group);
    TILE(&c->b, IOTA, DT_I32, one, c->n, c->back, z, z, z, one, z);
    vec(c, K_FN_Add, c->to, c->to, c->back, 0, c->n);
    put(c, c->sorted, c->group);
    if (c->place >= 0) {
        TILE(&c->b, ORDER, DT_I32, one, c->n, c->back, z, z, c->at, z, z, 0);
        pick(c, c->div, c->to, c->n, c->back);
        widen(c, c->wide, c->div, c->n);
        move(c, false, c->place, c->first, c->wide, c->n);
    }
    TILE(&c->b, IOTA, DT_I32, one, c->n, c->back, z, z, c->first, one, z);
    pick(c, c->div, c->back, c->n, c->at);
    if (c->repeat > 1)
        vec(c, K_FN_Div, c->div, c->div, -1, (float)c->repeat, c->n);
    put(c, c->from, c->div);
    vec(c, K_FN_Add, c->run, c->run, c->upto, 0, groups);
    vec(c, K_FN_Sub, c->run, c->run, c->less, 0, groups);
    tile_end(&c->b);
}

static void buffers(struct order *c)
{
    struct {
        int32_t *buf;
        const char *name;
        enum dtype t;
        int64_t n;
    } const all[] = {{&c->wide, "wide", DT_I64, c->cap},
                     {&c->x, "x", DT_I32, c->cap},
                     {&c->at, "at", DT_I32, c->cap},
                     {&c->back, "back", DT_I32, c->cap},
                     {&c->group, "group", DT_I32, c->cap},
                     {&c->to, "to", DT_I32, c->cap},
                     {&c->div, "div", DT_I32, c->cap},
                     {&c->mask, "mask", DT_BOOL, c->cap * BLOCK},
                     {&c->ones, "ones", DT_I32, c->cap * BLOCK},
                     {&c->acc, "acc", DT_I64, (int64_t)K_LANES * BLOCK},
                     {&c->ids, "ids", DT_I32, c->padded + UNIT},
                     {&c->next, "next", DT_I32, c->padded},
                     {&c->less, "less", DT_I32, c->padded + UNIT},
                     {&c->upto, "upto", DT_I32, c->padded},
                     {&c->run, "run", DT_I32, c->padded},
                     {&c->off, "off", DT_I32, c->padded},
                     {&c->out64, "ends", DT_I64, c->padded}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(all); i++)
        *all[i].buf = tile_buf(&c->b, all[i].name, TS_UB, all[i].t, 1, size_align(all[i].n * dtype_size(all[i].t), 64));
}

/* Bytes of a row in the buffers above, and of a group. */
enum { ROW_BYTES = 8 + 6 * 4 + BLOCK * 5, GROUP_BYTES = 6 * 4 + 8 };

static int32_t output(struct order *c, struct emit *e, struct node *n, int i, const char *name, int32_t *tensors,
                      int32_t *count)
{
    if (!node_out(n, i) || !n->out[i].uses)
        return -1;
    tensors[(*count)++] = emit_tensor(e, &n->out[i]);
    return tile_tensor(c->k, e->arena, name, DT_I64, false, true);
}

enum npuc_status gen_order_emit(struct emit *e, struct node *n)
{
    int32_t tensors[5] = {emit_tensor(e, node_in(n, 0))}, n_tensors = 1;
    struct kparams p;
    struct order c = {.groups = node_attr_int(n, "groups", 1), .repeat = node_attr_int(n, "repeat", 1)};
    c.k = emit_kernel(e, "group_order", &c.b, &p);
    struct expr_pool *x = &c.k->exprs;
    c.padded = size_align(c.groups, UNIT);
    c.cap =
        (e->m->size[TS_UB] - 24 * 64 - 2 * UNIT * 4 - c.padded * GROUP_BYTES - (int64_t)sizeof(union k_lanes) * BLOCK) /
        ROW_BYTES;
    c.cap = (c.cap < CHUNK ? c.cap : CHUNK) / UNIT * UNIT;
    if (e->tiling && e->tiling->cols > 0 && e->tiling->cols < c.cap)
        c.cap = size_align(e->tiling->cols, UNIT);
    c.rows = kparam(&p, "rows", node_in(n, 0)->type->dims[0]);
    tile_params_done(c.k);
    c.chunks = expr_ceildiv(x, c.rows, num(&c, c.cap));
    c.k->blocks = num(&c, 1);
    c.index = tile_tensor(c.k, e->arena, "index", DT_I64, true, false);
    c.from = output(&c, e, n, 0, "from", tensors, &n_tensors);
    c.sorted = output(&c, e, n, 1, "sorted", tensors, &n_tensors);
    c.ends = output(&c, e, n, 2, "ends", tensors, &n_tensors);
    c.place = output(&c, e, n, 3, "place", tensors, &n_tensors);
    tile_section_begin(&c.b, TCORE_VECTOR);
    buffers(&c);
    count_all(&c);
    deal(&c);
    return emit_launch(e, c.k, tensors, p.bound, EXPR_INVALID, "GroupOrder");
}
