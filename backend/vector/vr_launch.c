/* Choosing the forms of a vector region and launching them.
 *
 * A region without reductions tiles rows and columns freely. With reductions the resident form needs whole rows in UB;
 * where the columns are not known to fit, both forms are launched under complementary guards. */
#include <stdio.h>

#include "base/size.h"
#include "backend/vector/stream.h"
#include "backend/vector/vregion_priv.h"

#define MAX_ROWS     512 /* rows of a tile; with reductions fewer, as each row takes 64 lanes */
#define MAX_ROWS_RED 32
#define CAP_UNIT     64 /* elements: a multiple of every block and lane count */
#define LEAST_TILE   1536
#define LARGE_TILE   4096

static expr count_outer(const struct vr_form *f)
{
    expr n = expr_const(&f->k->exprs, 1);
    for (int d = 0; d + 2 < f->r->rank; d++)
        n = expr_mul(&f->k->exprs, n, f->dims[d]);
    return n;
}

/* Parameters: dimensions, offsets and strides; constants fold into the program. */
void vr_declare_params(struct vr_form *f)
{
    char name[32];
    struct vr *r = f->r;
    for (int d = 0; d < r->rank; d++) {
        snprintf(name, sizeof name, "d%d", d);
        f->dims[d] = kparam(&f->p, name, r->dims[d]);
    }
    for (int i = 0; i < r->n_views + r->n_outputs; i++) {
        const struct vr_view *v = i < r->n_views ? &r->views[i] : &r->outputs[i - r->n_views].view;
        snprintf(name, sizeof name, "o%d", i);
        f->offset[i] = kparam(&f->p, name, v->offset);
        for (int d = 0; d < r->rank; d++) {
            snprintf(name, sizeof name, "s%d_%d", i, d);
            f->stride[i][d] = kparam(&f->p, name, v->stride[d]);
        }
        if (v->indexed) {
            snprintf(name, sizeof name, "is%d", i);
            f->index_stride[i] = kparam(&f->p, name, v->index_stride);
            snprintf(name, sizeof name, "im%d", i);
            f->index_max[i] = kparam(&f->p, name, v->index_max);
        }
    }
    if (f->wish)
        f->most = kparam(&f->p, "tile", f->wish);
    if (f->share)
        f->even = kparam(&f->p, "tile_cols", f->share);
    tile_params_done(f->k);
}

/* A tensor that several views name is one tensor of the kernel. */
int vr_declare_tensor(struct vr_form *f, int32_t tensor, enum dtype t, bool is_out)
{
    char name[24];
    int j = 0;
    while (j < f->n_tensors && f->tensors[j] != tensor)
        j++;
    if (j == f->n_tensors) {
        snprintf(name, sizeof name, "%s%d", is_out ? "y" : "x", j);
        tile_tensor(f->k, f->r->e->arena, name, t, !is_out, is_out);
        f->tensors[f->n_tensors++] = tensor;
    }
    f->k->tensors.data[j].is_output = f->k->tensors.data[j].is_output || is_out;
    f->k->tensors.data[j].is_input = f->k->tensors.data[j].is_input || !is_out;
    return j;
}

void vr_declare_tensors(struct vr_form *f)
{
    struct vr *r = f->r;
    for (int i = 0; i < r->n_views + r->n_outputs; i++) {
        bool is_out = i >= r->n_views;
        const struct vr_view *v = is_out ? &r->outputs[i - r->n_views].view : &r->views[i];
        if (v->tensor < 0)
            continue;
        f->view_tensor[i] = vr_declare_tensor(f, v->tensor, v->dtype, is_out);
        if (v->indexed)
            f->index_tensor[i] = vr_declare_tensor(f, v->index, v->index_dtype, false);
    }
}

/* Does a tile read a row that it repeats? More of its own rows then save loads. */
static bool repeats_row(const struct vr *r)
{
    for (int i = 0; i < r->n_values; i++)
        if (r->values[i].kind == VR_INPUT && r->values[i].cls == VC_ROW)
            return true;
    return false;
}

/* Elements of a tile; an ir expression, since the kernel's are long enough. Filling and draining the units takes the
 * time of one tile, starting an instruction the same for all tiles: the best size grows with the root of a core's part.
 * Two lines that bend like it, within a tenth of the clock's best from 16 thousand elements per core to a million, on
 * machines of both families. Trees over lanes make starts dearer for reductions. */
static expr tile_elements(const struct vr_form *f)
{
    const struct vr *r = f->r;
    struct expr_pool *x = &r->e->cx->exprs;
    const struct tiling *t = r->e->tiling;
    const expr cap = expr_const(x, f->cap);
    if (f->chunked || repeats_row(r) || (t && t->cols > 0))
        return cap;
    const int64_t small_parts = r->has_red ? 4 : 8, large_parts = r->has_red ? 8 : 64;
    expr n = expr_const(x, 1);
    for (int d = 0; d < r->rank; d++)
        n = expr_mul(x, n, r->dims[d]);
    const expr part = expr_ceildiv(x, n, expr_const(x, r->e->m->n_vector));
    const expr small = expr_ceildiv(x, part, expr_const(x, small_parts));
    const expr large = expr_add(x, expr_const(x, LARGE_TILE), expr_ceildiv(x, part, expr_const(x, large_parts)));
    const expr best = expr_align(x, expr_min(x, small, large), LEAST_TILE);
    const expr tile = expr_min(x, cap, expr_max(x, best, expr_const(x, LEAST_TILE)));
    return tile ? tile : cap; /* sizes that nobody knows make no expression */
}

/* Columns of a tile when all cores share the lines' columns: a core's part in tiles of equal size, none above `wish`.
 */
static expr tile_columns(const struct vr_form *f)
{
    const struct vr *r = f->r;
    struct expr_pool *x = &r->e->cx->exprs;
    const expr one = expr_const(x, 1);
    expr lines = one;
    if (r->has_red || !f->wish)
        return EXPR_INVALID;
    for (int d = 0; d + 1 < r->rank; d++)
        lines = expr_mul(x, lines, r->dims[d]);
    const expr pieces = expr_ceildiv(x, expr_const(x, r->e->m->n_vector), expr_max(x, one, lines));
    const expr own = expr_max(x, one, expr_ceildiv(x, r->dims[r->rank - 1], pieces));
    return expr_align(x, expr_ceildiv(x, own, expr_ceildiv(x, own, f->wish)), CAP_UNIT);
}

/* Tile extents as expressions, so that one program serves every size: whole rows when there are reductions; otherwise
 * columns are cut so that all cores get work. Extents never change the bits of the result. */
static void choose_tiles(struct vr_form *f)
{
    struct expr_pool *x = &f->k->exprs;
    const struct vr *r = f->r;
    expr one = expr_const(x, 1), cores = expr_const(x, r->e->m->n_vector);
    f->cols = f->dims[r->rank - 1];
    f->rows = r->rank > 1 ? f->dims[r->rank - 2] : one;
    expr outer = count_outer(f), lines = expr_max(x, one, expr_mul(x, outer, f->rows));
    f->tile_cols = f->cols;
    if (!r->has_red) {
        const expr tile = f->even ? expr_min(x, f->most, f->even) : f->most;
        f->tile_cols = expr_max(x, one, expr_min(x, f->cols, tile));
    }
    f->pitch = f->chunked ? expr_const(x, f->cap) : expr_max(x, expr_const(x, 32), expr_align(x, f->tile_cols, 32));
    f->tile_rows = one;
    if (!f->chunked) {
        expr fit = expr_min(x, expr_const(x, f->max_rows), expr_floordiv(x, f->most, f->pitch));
        f->tile_rows = expr_max(x, one, expr_min(x, fit, expr_ceildiv(x, lines, cores)));
    }
    expr row_tiles = expr_ceildiv(x, f->rows, f->tile_rows);
    expr col_tiles = r->has_red ? one : expr_ceildiv(x, f->cols, f->tile_cols);
    f->n_tiles = expr_mul(x, outer, expr_mul(x, row_tiles, col_tiles));
    f->n_row_tiles = expr_max(x, one, row_tiles); /* divisors: a region without elements has no tile, but divides too */
    f->n_col_tiles = expr_max(x, one, col_tiles);
    f->k->blocks = expr_max(x, one, expr_min(x, cores, f->n_tiles));
}

int64_t vr_capacity(const struct vr *r, bool chunked, int64_t max_rows)
{
    int64_t per_element, fixed, cap;
    const struct tiling *t = r->e->tiling;
    vr_footprint(r, chunked, max_rows, &per_element, &fixed);
    cap = (r->e->m->size[TS_UB] - fixed) / (per_element > 0 ? per_element : 1) / CAP_UNIT * CAP_UNIT;
    if (t && t->cols > 0 && t->cols < cap)
        cap = size_align(t->cols, CAP_UNIT);
    return cap;
}

/* Fewer rows where columns of values, one element per row, would leave no room for a unit of a row. */
int64_t vr_row_limit(const struct vr *r, bool chunked)
{
    const struct tiling *t = r->e->tiling;
    int64_t n = chunked ? 1 : r->turned_cols > 0 ? vr_turned_rows(r) : r->has_red ? MAX_ROWS_RED : MAX_ROWS;
    n = t && t->rows > 0 && t->rows < n ? t->rows : n;
    while (n > 1 && vr_capacity(r, chunked, n) < CAP_UNIT)
        n /= 2;
    return n;
}

/* Elements that a view visits, without its repetitions. */
static expr elements_of(const struct vr_form *f, int view, bool *repeats)
{
    struct expr_pool *x = &f->k->exprs;
    expr n = expr_const(x, 1);
    for (int d = 0; d < f->r->rank; d++) {
        const bool still = f->stride[view][d] == expr_const(x, 0);
        *repeats |= still && !expr_is_one(x, f->dims[d]);
        n = still ? n : expr_mul(x, n, f->dims[d]);
    }
    return n;
}

/* Every tile reads its part of an input once; a chunked reduction reads it once per pass. */
static void mark_streams(struct vr_form *f)
{
    struct expr_pool *x = &f->k->exprs;
    const struct vr *r = f->r;
    struct stream s[VR_MAX_VALUES + VR_MAX_OUTPUTS] = {{0}};
    for (int i = 0; i < r->n_views + r->n_outputs; i++) {
        const bool is_out = i >= r->n_views;
        const struct vr_view *v = is_out ? &r->outputs[i - r->n_views].view : &r->views[i];
        bool repeats = v->indexed || is_out || (f->chunked && r->has_red);
        if (v->tensor < 0)
            continue;
        const expr n = elements_of(f, i, &repeats);
        struct stream *t = &s[f->view_tensor[i]];
        repeats |= t->bytes != EXPR_INVALID;
        *t = (struct stream){expr_mul_const(x, n, dtype_size(v->dtype)), !repeats};
    }
    stream_mark(f->r->e, f->k, s);
}

static enum npuc_status launch_form(struct vr *r, bool chunked, const char *name, const char *label)
{
    struct emit *e = r->e;
    struct vr_form *f = ARENA_NEW(e->arena, struct vr_form);
    f->r = r;
    f->chunked = chunked;
    f->max_rows = vr_row_limit(r, chunked);
    f->cap = vr_capacity(r, chunked, f->max_rows);
    if (f->cap < CAP_UNIT)
        return node_error(e->cx, e->node, D_UNSUPPORTED, "fused region needs more buffers than UB holds (%lld bytes)",
                          (long long)e->m->size[TS_UB]);
    f->k =
        tile_kernel_new(e->arena, &e->plan->strings, arena_printf(e->arena, "%s%s", name, chunked ? "_chunked" : ""));
    f->p = (struct kparams){.e = e, .k = f->k};
    f->wish = tile_elements(f);
    f->share = tile_columns(f);
    vr_declare_params(f);
    vr_declare_tensors(f);
    choose_tiles(f);
    mark_streams(f);
    vr_code(f);
    return emit_launch(e, f->k, f->tensors, f->p.bound, EXPR_INVALID, label);
}

enum npuc_status vr_launch(struct vr *r, const char *name, const char *label)
{
    struct emit *e = r->e;
    struct expr_pool *x = &e->cx->exprs;
    if (r->overflow)
        return node_error(e->cx, e->node, D_UNSUPPORTED, "fused region has more than %d values", VR_MAX_VALUES);
    vr_normalise(r);
    vr_classify(r);
    vr_find_turned(r);
    expr cols = r->dims[r->rank - 1], limit = expr_const(x, vr_capacity(r, false, vr_row_limit(r, false)));
    if (!r->has_red || expr_proves_le(x, cols, limit))
        return launch_form(r, false, name, label);
    if (expr_proves_le(x, expr_add(x, limit, expr_const(x, 1)), cols))
        return launch_form(r, true, name, label);
    expr always = expr_const(x, 1), outer = e->guard ? e->guard : always, kept = e->guard;
    e->guard = expr_mul(x, outer, expr_cmp(x, EXPR_LE, cols, limit));
    enum npuc_status s = launch_form(r, false, name, label);
    e->guard = expr_mul(x, outer, expr_cmp(x, EXPR_LT, limit, cols));
    if (s == NPUC_OK)
        s = launch_form(r, true, name, label);
    e->guard = kept;
    return s;
}
