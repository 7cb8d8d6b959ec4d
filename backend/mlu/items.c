#include "backend/mlu/items.h"

#include <math.h>

static expr at_least_one(struct expr_pool *x, expr e)
{
    return expr_max(x, expr_const(x, 1), e);
}

/* Tile of the right operand of item t. */
static expr right_of(struct expr_pool *x, const struct mlu_items *v, expr t)
{
    return expr_floordiv(x, t, at_least_one(x, v->runs));
}

void mlu_plan_items(struct emit *e, struct tile_builder *b, const struct mlu_lanes *l, expr rows, expr rights,
                    struct mlu_items *out)
{
    struct tile_kernel *k = b->k;
    struct expr_pool *x = &k->exprs;
    const expr lanes = expr_const(x, l->lanes), all = expr_const(x, e->m->n_cube / l->lanes);
    const expr block = expr_sym(x, k->sym_block);
    const expr apart = at_least_one(x, expr_floordiv(x, all, at_least_one(x, rights)));
    *out = (struct mlu_items){.lanes = l->lanes, .lane = expr_mod(x, block, lanes)};
    out->unit = expr_floordiv(x, block, lanes);
    out->tiles = expr_ceildiv(x, rows, lanes);
    out->most = l->runs ? at_least_one(x, expr_ceildiv(x, out->tiles, apart)) : expr_const(x, 1);
    out->runs = expr_ceildiv(x, out->tiles, out->most);
    out->items = expr_mul(x, rights, out->runs);
    out->units = at_least_one(x, expr_min(x, all, out->items));
    out->right = right_of(x, out, out->unit);
    k->blocks = expr_mul(x, out->units, lanes);
}

bool mlu_loop_items(struct tile_builder *b, struct mlu_items *v)
{
    struct expr_pool *x = &b->k->exprs;
    const expr one = expr_const(x, 1), runs = at_least_one(x, v->runs);
    const expr i = tile_loop(b, "i", expr_ceildiv(x, expr_sub(x, v->items, v->unit), v->units));
    const expr t = expr_add(x, v->unit, expr_mul(x, i, v->units)), next = expr_add(x, t, v->units);
    int64_t rounds;
    v->right = right_of(x, v, t);
    v->first = expr_mul(x, expr_mod(x, t, runs), v->most);
    v->steps = expr_min(x, v->most, expr_sub(x, v->tiles, v->first));
    v->more = expr_cmp(x, EXPR_LT, next, v->items);
    v->next_right = right_of(x, v, expr_min(x, next, expr_sub(x, v->items, one)));
    return expr_is_const(x, expr_ceildiv(x, v->items, v->units), &rounds) && rounds <= 1;
}

void mlu_open_items(struct emit *e, struct tile_builder *b, const struct mlu_lanes *l, expr rows, expr rights,
                    struct mlu_items *out)
{
    mlu_plan_items(e, b, l, rows, rights, out);
    mlu_loop_items(b, out);
}

expr mlu_item_row(struct expr_pool *x, const struct mlu_items *v, expr j)
{
    return expr_add(x, expr_mul_const(x, expr_add(x, v->first, j), v->lanes), v->lane);
}

struct mlu_turns mlu_open_turns(struct tile_builder *b, const char *name, expr count)
{
    int64_t n;
    const bool once = expr_is_const(&b->k->exprs, count, &n) && n == 1;
    return (struct mlu_turns){once ? expr_const(&b->k->exprs, 0) : tile_loop(b, name, count), !once};
}

void mlu_close_turns(struct tile_builder *b, const struct mlu_turns *t)
{
    if (t->loop)
        tile_end(b);
}

struct mlu_spread mlu_spread_of(const struct machine *m, const struct mlu_lanes *l, double rows, double rights)
{
    const double all = floor(m->n_cube / (double)l->lanes), tiles = fmax(1, ceil(rows / l->lanes));
    struct mlu_spread v = {.steps = l->runs ? ceil(tiles / fmax(1, floor(all / rights))) : 1};
    v.runs = ceil(tiles / v.steps);
    v.units = fmin(rights * v.runs, all);
    v.rounds = ceil(rights * v.runs / all);
    v.beside = fmax(1, floor(v.units / v.runs));
    return v;
}

struct mlu_rates mlu_rates_of(const struct machine *m, enum dtype t)
{
    static const struct {
        enum dtype t;
        enum target_key mac, k0;
    } keys[] = {{DT_F32, TK_MAC_F32, TK_MAC_F32_K0},
                {DT_F16, TK_MAC_F16, TK_MAC_F16_K0},
                {DT_BF16, TK_MAC_BF16, TK_MAC_F16_K0},
                {DT_I16, TK_MAC_I16, TK_MAC_I16_K0},
                {DT_I8, TK_MAC_I8, TK_MAC_I8_K0}};
    const struct target *g = m->target;
    const double clock = target_num(g, TK_CLOCK), cluster = target_num(g, TK_CLUSTER_BANDWIDTH) / clock;
    struct mlu_rates r = {.core = fmin(target_num(g, TK_MTE2_VECTOR_RATE), cluster / target_num(g, TK_CORES_CLUSTER)),
                          .memory = target_num(g, TK_HBM_BANDWIDTH) / clock,
                          .move = target_num(g, TK_MTE1_L0B_RATE),
                          .gather = target_num(g, TK_MTE1_L0A_RATE),
                          .link = fmax(1, target_num(g, TK_CLUSTER_LINK)),
                          .cache = target_num(g, TK_L2_SIZE),
                          .vec = target_num(g, TK_VEC_BYTES),
                          .turn = target_num(g, TK_VEC_TRANSPOSE) * 4,
                          .columns = target_num(g, TK_MAC_COLUMNS),
                          .latency = target_num(g, TK_MTE2_LATENCY) + target_num(g, TK_MTE2_MISS_LATENCY),
                          .fixed = target_num(g, TK_VEC_FIXED),
                          .barrier = target_num(g, TK_CLUSTER_BARRIER),
                          .queue = target_num(g, TK_QUEUE_DEPTH)};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(keys); i++)
        if (keys[i].t == t) {
            r.mac = target_num(g, keys[i].mac);
            r.k0 = target_num(g, keys[i].k0);
        }
    return r;
}

bool mlu_lanes_of(const struct machine *m, int choice, struct mlu_lanes *l)
{
    const int32_t cluster = (int32_t)target_num(m->target, TK_CORES_CLUSTER), all = m->n_cube / cluster;
    l->lanes = l->clusters = 1;
    if (choice == 0)
        return true;
    if (choice > all || all > TILE_MAX_CLUSTERS)
        return false;
    l->clusters = choice == 1 ? 1 : all;
    l->lanes = l->clusters * cluster;
    return true;
}
