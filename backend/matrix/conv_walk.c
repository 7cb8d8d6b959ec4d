/* Windows, the part of x under them, and kernel positions, as expressions of a kernel. */
#include "backend/matrix/conv_walk.h"

#include <stdio.h>

enum { D = CONV_D, H = CONV_H, W = CONV_W };

static expr num(struct conv_walk *w, int64_t v)
{
    return expr_const(w->x, v);
}

int64_t conv_plane_taps(const struct conv *p)
{
    return p->kernel[H] * p->kernel[W];
}

static expr product3(struct conv_walk *w, const expr v[CONV_AXES])
{
    return expr_mul(w->x, v[0], expr_mul(w->x, v[1], v[2]));
}

/* Rows of a convolution without windows are pieces of its one row. */
static void declare_band(struct conv_walk *w, struct kparams *params)
{
    const struct conv *p = w->p;
    const struct type *t = p->x->type;
    w->band = kparam_band(params, w->batch, w->out[H]);
    w->col = num(w, 0);
    w->cols = w->out[W];
    if (!p->direct || !params->e->band)
        return;
    const expr columns = kparam(params, "columns", t->dims[t->rank - 1]);
    w->col = expr_mul(w->x, w->band.row, columns);
    w->cols = expr_mul(w->x, w->band.rows, columns);
    w->band.row = num(w, 0);
    w->band.rows = num(w, 1);
}

void conv_walk_declare(struct conv_walk *w, struct kparams *params)
{
    static const char axis[CONV_AXES] = {'d', 'h', 'w'};
    const struct conv *p = w->p;
    char name[16];
    w->batch = kparam(params, "batch", p->batch);
    for (int i = 0; i < CONV_AXES; i++) {
        const struct {
            const char *stem;
            expr ir;
            expr *to;
        } all[] = {
            {"in", p->size[i], &w->size[i]}, {"out", p->out_size[i], &w->out[i]}, {"pad", p->before[i], &w->before[i]}};
        for (int j = 0; j < NPUC_ARRAY_LEN(all); j++) {
            snprintf(name, sizeof name, "%s_%c", all[j].stem, axis[i]);
            *all[j].to = kparam(params, name, all[j].ir);
        }
    }
    declare_band(w, params);
    w->in_plane = product3(w, w->size);
    w->out_plane = product3(w, w->out);
}

/* ---- windows ------------------------------------------------------------------------------------------------ */

expr conv_walk_tiles(struct conv_walk *w)
{
    struct expr_pool *x = w->x;
    if (w->strips)
        return expr_mul(x, w->band.rows, expr_ceildiv(x, w->cols, num(w, w->windows)));
    return expr_ceildiv(x, expr_mul(x, w->band.rows, w->out[W]), num(w, w->windows));
}

static void place_strip(struct conv_walk *w, expr at)
{
    struct expr_pool *x = w->x;
    const expr strips = expr_ceildiv(x, w->cols, num(w, w->windows)), end = expr_add(x, w->col, w->cols);
    w->row0 = expr_add(x, w->band.row, expr_floordiv(x, at, strips));
    w->col0 = expr_add(x, w->col, expr_mul_const(x, expr_mod(x, at, strips), w->windows));
    w->p0 = expr_add(x, expr_mul(x, w->row0, w->out[W]), w->col0);
    w->count = expr_min(x, num(w, w->windows), expr_sub(x, end, w->col0));
    w->rows = num(w, 1);
}

void conv_walk_place(struct conv_walk *w, expr plane, expr at)
{
    struct expr_pool *x = w->x;
    w->map = expr_floordiv(x, plane, w->out[D]);
    w->od = expr_mod(x, plane, w->out[D]);
    w->group = expr_mod(x, w->map, num(w, w->p->group));
    if (w->strips) {
        place_strip(w, at);
        return;
    }
    const expr end = expr_mul(x, expr_add(x, w->band.row, w->band.rows), w->out[W]);
    w->p0 = expr_add(x, expr_mul(x, w->band.row, w->out[W]), expr_mul_const(x, at, w->windows));
    w->count = expr_min(x, num(w, w->windows), expr_sub(x, end, w->p0));
    w->row0 = expr_floordiv(x, w->p0, w->out[W]);
    w->col0 = expr_sub(x, w->p0, expr_mul(x, w->row0, w->out[W]));
    const expr last = expr_floordiv(x, expr_add(x, w->p0, expr_sub(x, w->count, num(w, 1))), w->out[W]);
    w->rows = expr_add(x, expr_sub(x, last, w->row0), num(w, 1));
}

/* ---- kernel positions --------------------------------------------------------------------------------------- */

void conv_walk_block(struct conv_walk *w, expr block)
{
    struct expr_pool *x = w->x;
    const struct conv *p = w->p;
    const int64_t per_plane = conv_plane_taps(p) / w->taps;
    const expr at = expr_mul_const(x, expr_mod(x, block, num(w, per_plane)), w->taps);
    w->kd = expr_floordiv(x, block, num(w, per_plane));
    w->kh = expr_floordiv(x, at, num(w, p->kernel[W]));
    w->kw = expr_mod(x, at, num(w, p->kernel[W]));
}

expr conv_walk_tap(struct conv_walk *w)
{
    struct expr_pool *x = w->x;
    const expr row = expr_add(x, expr_mul_const(x, w->kd, w->p->kernel[H]), w->kh);
    return expr_add(x, expr_mul_const(x, row, w->p->kernel[W]), w->kw);
}

expr conv_walk_look(struct conv_walk *w, int axis, expr o, expr k)
{
    struct expr_pool *x = w->x;
    const expr at = expr_add(x, expr_mul_const(x, o, w->p->stride[axis]), expr_mul_const(x, k, w->p->dilation[axis]));
    return expr_sub(x, at, w->before[axis]);
}

/* ---- the part of x ------------------------------------------------------------------------------------------ */

/* Elements of x from position lo to hi of an axis, both included, positions counting in steps. */
static void part_of(struct conv_walk *w, int axis, expr lo, expr hi)
{
    struct expr_pool *x = w->x;
    const expr z = num(w, 0), step = num(w, w->p->step[axis]);
    const expr first = expr_max(x, z, expr_ceildiv(x, lo, step));
    const expr end = expr_min(x, w->size[axis], expr_add(x, expr_floordiv(x, hi, step), num(w, 1)));
    w->lo[axis] = expr_max(x, z, expr_min(x, first, w->size[axis]));
    w->n[axis] = expr_max(x, z, expr_sub(x, end, w->lo[axis]));
}

void conv_walk_locate(struct conv_walk *w)
{
    struct expr_pool *x = w->x;
    const struct conv *p = w->p;
    const bool rows = w->taps == conv_plane_taps(p), row = w->taps == p->kernel[W];
    const expr kh_last = rows ? num(w, p->kernel[H] - 1) : w->kh,
               kw_last = rows || row ? num(w, p->kernel[W] - 1) : w->kw;
    const expr z = conv_walk_look(w, D, w->od, w->kd);
    part_of(w, D, z, z);
    part_of(w, H, conv_walk_look(w, H, w->row0, w->kh),
            conv_walk_look(w, H, expr_add(x, w->row0, expr_sub(x, w->rows, num(w, 1))), kh_last));
    w->n[H] = expr_mul(x, w->n[H], w->n[D]); /* no plane: all is padding */
    if (w->strips) {
        const expr last = expr_add(x, w->col0, expr_sub(x, w->count, num(w, 1)));
        part_of(w, W, conv_walk_look(w, W, w->col0, w->kw), conv_walk_look(w, W, last, kw_last));
    } else {
        w->lo[W] = num(w, 0);
        w->n[W] = w->size[W];
    }
}

/* ---- the windows that see x ----------------------------------------------------------------------------------- */

/* Of `count` windows from o0 on. */
static void seen_along(struct conv_walk *w, int axis, expr o0, expr count, expr k)
{
    struct expr_pool *x = w->x;
    const expr z = num(w, 0), stride = num(w, w->p->stride[axis]), at = conv_walk_look(w, axis, o0, k);
    const expr last = expr_sub(x, expr_sub(x, w->size[axis], num(w, 1)), at);
    const expr end = expr_min(x, count, expr_add(x, expr_floordiv(x, last, stride), num(w, 1)));
    w->first[axis] = expr_min(x, count, expr_max(x, z, expr_ceildiv(x, expr_sub(x, z, at), stride)));
    w->seen[axis] = expr_max(x, z, expr_sub(x, end, w->first[axis]));
}

void conv_walk_see(struct conv_walk *w)
{
    struct expr_pool *x = w->x;
    const expr z = num(w, 0), plane = conv_walk_look(w, D, w->od, w->kd);
    seen_along(w, H, w->row0, w->rows, w->kh);
    seen_along(w, W, w->strips ? w->col0 : z, w->strips ? w->count : w->out[W], w->kw);
    const expr inside = expr_mul(x, expr_cmp(x, EXPR_LE, z, plane), expr_cmp(x, EXPR_LT, plane, w->size[D]));
    w->seen[H] = expr_mul(x, w->seen[H], expr_mul(x, inside, expr_cmp(x, EXPR_LT, z, w->count)));
}

expr conv_walk_first(struct conv_walk *w)
{
    struct expr_pool *x = w->x;
    const struct conv *p = w->p;
    const expr image = expr_floordiv(x, w->map, num(w, p->group));
    const expr h = expr_add(x, w->row0, w->first[H]), v = expr_add(x, w->strips ? w->col0 : num(w, 0), w->first[W]);
    expr at = expr_add(x, expr_mul(x, image, w->size[D]), conv_walk_look(w, D, w->od, w->kd));
    at = expr_add(x, expr_mul(x, at, w->size[H]), conv_walk_look(w, H, h, w->kh));
    return expr_add(x, expr_mul(x, at, w->size[W]), conv_walk_look(w, W, v, w->kw));
}
