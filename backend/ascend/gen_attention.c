/* Fused "attention" regions: launches of the mixed kernel, for few and for many rows, under guards where the shapes
 * leave it open. */
#include "backend/ascend/attention.h"
#include "backend/ascend/gens.h"

#include <stdio.h>

#define FEW_ROWS  16
#define MANY_ROWS 128

bool gen_attention_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct att a;
    return att_match(m, cx, n, &a, reason);
}

/* ---- parameters ------------------------------------------------------------------------------------------- */

static void declare_batch(struct att_kernel *k)
{
    const struct att *a = k->a;
    char name[16];
    for (int i = 0; i < a->n_batch; i++) {
        const struct {
            const char *stem;
            expr ir;
            expr *to;
        } all[] = {
            {"batch", a->batch[i], &k->batch[i]},       {"q_batch", a->q_batch[i], &k->q_batch[i]},
            {"k_batch", a->k_batch[i], &k->k_batch[i]}, {"v_batch", a->v_batch[i], &k->v_batch[i]},
            {"y_batch", a->y_batch[i], &k->y_batch[i]},
        };
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(all); j++) {
            snprintf(name, sizeof name, "%s%d", all[j].stem, i);
            *all[j].to = kparam(&k->f.p, name, all[j].ir);
        }
    }
}

static void declare_params(struct att_kernel *k, const struct att_split *s)
{
    const struct att *a = k->a;
    const struct {
        const char *name;
        expr ir;
        expr *to;
    } all[] = {
        {"total", a->total, &k->total},
        {"planes", a->planes, &k->planes},
        {"plane_rows", a->plane_rows, &k->plane_rows},
        {"q_row", a->q_row, &k->q_row},
        {"k_row", a->k_row, &k->k_row},
        {"v_row", a->v_row, &k->v_row},
        {"y_row", a->y_row, &k->y_row},
        {"tile_planes", s->tile_planes, &k->s.tile_planes},
        {"tile_rows", s->tile_rows, &k->s.tile_rows},
        {"plane_tiles", s->n_plane_tiles, &k->s.n_plane_tiles},
        {"row_tiles", s->n_row_tiles, &k->s.n_row_tiles},
        {"row_units", s->row_units, &k->s.row_units},
        {"units", s->units, &k->s.units},
        {"blocks", s->blocks, &k->s.blocks},
        {"parts", s->parts, &k->s.parts},
        {"chunks", s->chunks, &k->s.chunks},
        {"all_chunks", s->all_chunks, &k->s.all_chunks},
        {"band_first", s->band_first, &k->s.band_first},
        {"band_last", s->band_last, &k->s.band_last},
        {"slot", s->slot, &k->s.slot},
        {"sub_rows", s->sub_rows, &k->s.sub_rows},
        {"piece_planes", s->piece_planes, &k->s.piece_planes},
        {"piece_rows", s->piece_rows, &k->s.piece_rows},
        {"row_pieces", s->row_pieces, &k->s.row_pieces},
        {"pieces", s->pieces, &k->s.pieces},
    };
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(all); i++)
        *all[i].to = kparam(&k->f.p, all[i].name, all[i].ir);
    if (a->turn)
        k->y_plane = kparam(&k->f.p, "y_plane", a->y_plane);
    declare_batch(k);
    att_code_params(k);
    att_page_params(k);
    vr_declare_params(&k->f); /* ends the parameters */
    k->f.k->blocks = k->s.blocks;
}

/* Workspaces of scores, probabilities, products of chunks. */
enum { WS_SCORES, WS_PROBS, WS_PARTS, WS_KEYS, WS_VALUES, WS_APART, WS_NUMBERS, WS_COUNT };

static void declare_tensors(struct att_kernel *k, const int32_t workspace[WS_COUNT])
{
    struct emit *e = k->e;
    const struct att *a = k->a;
    vr_declare_tensors(&k->f);
    k->tq = vr_declare_tensor(&k->f, emit_tensor(e, a->q), a->in, false);
    const bool keys = a->coded[ATT_KEYS].codes, values = a->coded[ATT_VALUES].codes;
    k->tk = vr_declare_tensor(&k->f, keys ? workspace[WS_KEYS] : att_rows_tensor(e, a, ATT_KEYS), a->in, keys);
    k->tv =
        vr_declare_tensor(&k->f, values ? workspace[WS_VALUES] : att_rows_tensor(e, a, ATT_VALUES), a->prob, values);
    k->ty = vr_declare_tensor(&k->f, emit_tensor(e, a->y), a->out, true);
    k->ts = vr_declare_tensor(&k->f, workspace[WS_SCORES], a->score, true);
    k->tp = vr_declare_tensor(&k->f, workspace[WS_PROBS], a->prob, true);
    k->to = vr_declare_tensor(&k->f, workspace[WS_PARTS], DT_F32, true);
    (void)vr_declare_tensor(&k->f, workspace[WS_PROBS], a->prob, false);
    (void)vr_declare_tensor(&k->f, workspace[WS_PARTS], DT_F32, false);
    if (keys)
        (void)vr_declare_tensor(&k->f, workspace[WS_KEYS], a->in, false);
    if (values)
        (void)vr_declare_tensor(&k->f, workspace[WS_VALUES], a->prob, false);
    if (k->apart) {
        k->tw = vr_declare_tensor(&k->f, workspace[WS_APART], DT_F32, true);
        k->tn = vr_declare_tensor(&k->f, workspace[WS_NUMBERS], DT_F32, true);
        (void)vr_declare_tensor(&k->f, workspace[WS_APART], DT_F32, false);
        (void)vr_declare_tensor(&k->f, workspace[WS_NUMBERS], DT_F32, false);
    }
    att_code_tensors(k);
    att_page_tensors(k);
    k->band_data = -1;
    if (a->band.first_data)
        k->band_data =
            vr_declare_tensor(&k->f, emit_tensor(e, a->band.first_data), a->band.first_data->type->dtype, false);
}

/* ---- launches --------------------------------------------------------------------------------------------- */

struct variant {
    struct att_tile tile;
    struct att_split split;
    struct lower *l;
    int goal, sink;
    int64_t piece;
    bool apart;
    int32_t workspace[WS_COUNT];
};

static void open_form(struct att_kernel *k, const struct variant *v)
{
    struct emit *e = k->e;
    char name[64];
    snprintf(name, sizeof name, "attention_%s_%lldx%lld", dtype_table[k->a->in].name, (long long)k->tile.m,
             (long long)k->tile.n);
    struct vr_form *f = &k->f;
    f->r = &v->l->r;
    f->max_rows = v->piece;
    f->cap = v->piece * ATTEND_CHUNK;
    f->k = emit_kernel(e, name, &f->b, &f->p);
    declare_params(k, &v->split);
    declare_tensors(k, v->workspace);
    f->cols = f->dims[f->r->rank - 1];
    f->pitch = expr_const(&f->k->exprs, ATTEND_CHUNK);
}

static expr work(struct emit *e, const struct att *a)
{
    struct expr_pool *x = &e->cx->exprs;
    expr n = expr_mul_const(x, expr_mul(x, a->rows, a->total), a->size + a->v_size);
    for (int i = 0; i < a->n_batch; i++)
        n = expr_mul(x, n, a->batch[i]);
    return emit_expr(e, n);
}

static enum npuc_status launch(struct emit *e, const struct att *a, const struct variant *v)
{
    struct att_kernel *k = ARENA_NEW(e->arena, struct att_kernel);
    *k = (struct att_kernel){.e = e,
                             .a = a,
                             .tile = v->tile,
                             .goal = v->goal,
                             .sink = v->sink,
                             .piece = v->piece,
                             .state = att_state_rows(v->tile.m),
                             .parts = att_has_parts(e, a) && !v->apart,
                             .apart = v->apart};
    open_form(k, v);
    att_cube_code(k);
    att_vector_code(k);
    return emit_launch(e, k->f.k, k->f.tensors, k->f.p.bound, work(e, a), "Attention");
}

/* Launches under both outcomes of a <= b, or the one that is known. */
static enum npuc_status either(struct emit *e, expr a, int64_t b, enum npuc_status (*fn)(void *user, bool le),
                               void *user)
{
    struct expr_pool *x = &e->cx->exprs;
    const expr limit = expr_const(x, b), outer = e->guard, always = outer != EXPR_INVALID ? outer : expr_const(x, 1);
    if (expr_proves_le(x, a, limit))
        return fn(user, true);
    if (expr_proves_le(x, expr_const(x, b + 1), a))
        return fn(user, false);
    e->guard = expr_mul(x, always, expr_cmp(x, EXPR_LE, a, limit));
    enum npuc_status st = fn(user, true);
    e->guard = expr_mul(x, always, expr_cmp(x, EXPR_LT, limit, a));
    if (st == NPUC_OK)
        st = fn(user, false);
    e->guard = outer;
    return st;
}

/* The largest items whose tiles fit on chip. */
static bool fit(struct emit *e, const struct att *a, int64_t rows, struct variant *v)
{
    v->l = att_lower(e, a, -1, &v->goal, &v->sink);
    for (; rows >= FEW_ROWS; rows /= 2) {
        if (v->l->r.overflow || !att_fit(e->m, a, rows, e->tiling, &v->tile))
            return false;
        v->piece = att_piece(&v->l->r, a, v->tile.m);
        if (v->piece > 0)
            return true;
        rows = v->tile.m;
    }
    return false;
}

static void workspaces(struct emit *e, const struct att *a, struct variant *v)
{
    struct expr_pool *x = &e->cx->exprs;
    const expr blocks = v->split.blocks, chunk = expr_const(x, ATTEND_CHUNK), slot = v->split.slot,
               wide = expr_const(x, a->v_size), narrow = expr_const(x, a->size),
               numbers = expr_const(x, 4 * att_state_rows(v->tile.m)), one = expr_const(x, 1);
    const bool keys = a->coded[ATT_KEYS].codes, values = a->coded[ATT_VALUES].codes;
    const struct {
        bool there;
        const char *name;
        enum dtype dtype;
        expr dims[3];
    } all[WS_COUNT] = {
        [WS_SCORES] = {true, "scores", a->score, {expr_mul_const(x, blocks, ATT_SLOTS), slot, chunk}},
        [WS_PROBS] = {true, "probabilities", a->prob, {expr_mul_const(x, blocks, ATT_SLOTS), slot, chunk}},
        [WS_PARTS] = {true, "parts", DT_F32, {expr_mul_const(x, blocks, ATT_PARTS), slot, wide}},
        [WS_KEYS] = {keys, "keys", a->in, {expr_mul_const(x, blocks, ATT_KEY_SLOTS), chunk, narrow}},
        [WS_VALUES] = {values, "values", a->prob, {expr_mul_const(x, blocks, ATT_VALUE_SLOTS), chunk, wide}},
        [WS_APART] = {v->apart, "apart", DT_F32, {v->split.units, slot, wide}},
        [WS_NUMBERS] = {v->apart, "numbers", DT_F32, {v->split.units, numbers, one}},
    };
    for (int i = 0; i < WS_COUNT; i++)
        if (all[i].there)
            v->workspace[i] = emit_temp(e, all[i].name, all[i].dtype, 3, all[i].dims);
}

struct choice {
    struct emit *e;
    const struct att *a;
    int64_t rows;
};

static enum npuc_status choose_parts(void *user, bool one)
{
    const struct choice *c = user;
    struct emit *e = c->e;
    struct variant v = {.apart = !one};
    if (!fit(e, c->a, c->rows, &v))
        return node_error(e->cx, e->node, D_UNSUPPORTED, "attention needs more buffers than UB holds (%lld bytes)",
                          (long long)e->m->size[TS_UB]);
    v.split = att_divide(e, c->a, v.tile.m, v.piece, v.apart);
    workspaces(e, c->a, &v);
    v.l = att_lower(e, c->a, v.workspace[WS_SCORES], &v.goal, &v.sink);
    return launch(e, c->a, &v);
}

/* Few rows are too few items for all cores: parts of their keys are taken apart. */
static enum npuc_status choose_rows(void *user, bool few)
{
    struct choice *c = user;
    c->rows = few ? FEW_ROWS : att_most_rows(c->e, c->a, MANY_ROWS);
    return few && !c->a->sink ? either(c->e, c->a->total, ATTEND_PART, choose_parts, c) : choose_parts(c, true);
}

enum npuc_status gen_attention_emit(struct emit *e, struct node *n)
{
    struct att *a = ARENA_NEW(e->arena, struct att);
    const char *why = "";
    if (!att_match(e->m, e->cx, n, a, &why))
        return node_error(e->cx, n, D_VERIFY, "attention was placed on the NPU that it cannot do: %s", why);
    struct choice c = {.e = e, .a = a};
    return either(e, a->rows, FEW_ROWS, choose_rows, &c);
}
