/* Operands of reductions whose rows lie side by side in memory, not their columns: a sum over heads, over experts of a
 * token, over channels of NCHW. A tile is loaded in lines as they lie, one for each column, and turned in UB; results
 * that lie so are turned before they are stored. Memory sees bursts of a tile's rows instead of single elements.
 *
 *   load   line[c][r] <- x[.. + c * stride]     r < n_rows      (n_cols bursts)
 *   turn   in[r][c]   <- line[c][r]
 *
 * For columns whose number has a bound that leaves room for a burst's rows; others are loaded element by element. */
#include "backend/vector/vregion_priv.h"
#include "base/size.h"

#define MOST_ROWS  128 /* of a tile: lines of some hundred bytes */
#define LEAST_ROWS 32

static bool lies_turned(const struct vr *r, const struct vr_view *v)
{
    const struct expr_pool *x = &r->e->cx->exprs;
    const expr row = v->stride[r->rank - 2], col = v->stride[r->rank - 1];
    int64_t n;
    return v->tensor >= 0 && expr_is_one(x, row) && !expr_is_one(x, col) && !(expr_is_const(x, col, &n) && n == 0);
}

int64_t vr_turned_rows(const struct vr *r)
{
    const int64_t cols = size_align(r->turned_cols, 32);
    int64_t n = MOST_ROWS;
    while (n >= LEAST_ROWS && vr_capacity(r, false, n) < n * cols)
        n /= 2;
    return n;
}

void vr_find_turned(struct vr *r)
{
    const struct expr_range cols = expr_range_of(&r->e->cx->exprs, r->dims[r->rank - 1]);
    if (!r->has_red || r->planes || r->keeps_first || r->rank < 2 || cols.max > INT16_MAX)
        return;
    for (int i = 0; i < r->n_views + r->n_outputs; i++) {
        r->turned[i] = lies_turned(r, i < r->n_views ? &r->views[i] : &r->outputs[i - r->n_views].view);
        if (r->turned[i])
            r->turned_cols = cols.max > 0 ? cols.max : 1;
    }
    if (r->turned_cols > 0 && vr_turned_rows(r) < LEAST_ROWS) {
        r->turned_cols = 0;
        for (int i = 0; i < r->n_views + r->n_outputs; i++)
            r->turned[i] = false;
    }
}

/* Elements between the lines of a tile. */
static expr line_pitch(const struct vr_form *f)
{
    return expr_align(&f->k->exprs, f->tile_rows, LEAST_ROWS);
}

void vr_load_turned(struct vr_form *f, int v, expr off)
{
    struct expr_pool *x = &f->k->exprs;
    const struct vr_value *w = &f->r->values[v];
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), pitch = line_pitch(f);
    TILE(&f->b, LOAD, f->line[v], zero, f->view_tensor[w->view], off, (int32_t)w->dtype, one, one, f->n_cols, f->n_rows,
         zero, zero, f->stride[w->view][f->r->rank - 1], one, zero, zero, pitch, one);
    TILE(&f->b, TRANSP, (int32_t)w->dtype, f->n_cols, f->n_rows, f->buf[v], zero, f->pitch, f->line[v], zero, pitch);
}

void vr_store_turned(struct vr_form *f, int o, int32_t buf, int32_t line, expr off)
{
    struct expr_pool *x = &f->k->exprs;
    const int i = f->r->n_views + o;
    const int32_t type = (int32_t)f->r->outputs[o].view.dtype;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), pitch = line_pitch(f);
    TILE(&f->b, TRANSP, type, f->n_rows, f->n_cols, line, zero, pitch, buf, zero, f->pitch);
    TILE(&f->b, STORE, f->view_tensor[i], off, line, zero, type, one, one, f->n_cols, f->n_rows, zero, zero, pitch, one,
         zero, zero, f->stride[i][f->r->rank - 1], one);
}
