/* Runs of nodes made band by band: the first so many lines of every map in turn, then the next ones, image by image.
 *
 * A map that only nodes of the run touch passes through the shared memory of its cluster: what is alive of it are the
 * lines between those that its writer has made and those that its last reader is done with (residency.c). Nothing is
 * made twice: a node makes as many lines as those behind it need for their band, so that the first band of a writer is
 * longer than the last. Kernels are those of the whole map with a range of lines as parameters, and results the same,
 * bit by bit. A band costs a launch of every node, and its filters once more.
 *
 * Runs are chosen by the bandwidth they spare: seconds of a node are those of its unit or of its bytes of global
 * memory, whichever is more, of the cluster's way or of its share of all. The best division of a sequence of nodes into
 * runs is found by dynamic programming over where runs end. */
#include "backend/emit_priv.h"
#include "base/size.h"

#include <math.h>

enum { MAX_UNITS = 256, MAX_RUN = 24, H = 2, W = 3 };
static const int64_t counts[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64};

struct unit {
    struct node *n;
    struct row_use use;
    int64_t images; /* of a cluster */
    int32_t copies;
};
struct band_plan {
    int32_t n, last[MAX_UNITS]; /* the run that begins at a unit ends at last */
    int64_t bands[MAX_UNITS];   /* of that run; 0: the unit is made as a whole */
    struct unit unit[MAX_UNITS];
};

/* What of the machine decides. */
struct rates {
    double way, share, launch; /* bytes per second of a cluster, of a copy's part of memory; seconds */
    double clock;              /* cycles per second */
};

static struct rates rates_of(const struct machine *m, int32_t copies)
{
    const struct target *t = m->target;
    const double clock = target_num(t, TK_CLOCK);
    const double latency = target_num(t, TK_MTE2_LATENCY) + target_num(t, TK_MTE2_MISS_LATENCY);
    const int64_t cores = copies * (int64_t)target_num(t, TK_CORES_CLUSTER);
    return (struct rates){.way = target_num(t, TK_CLUSTER_BANDWIDTH),
                          .share = target_num(t, TK_HBM_BANDWIDTH) / copies,
                          .launch = target_launch(t, cores) + 2 * latency / clock,
                          .clock = clock};
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- units -------------------------------------------------------------------------------------------------- */

static bool is_map(const struct ir_ctx *cx, const struct value *v, int64_t dims[4])
{
    if (!v || v->type->kind != TYPE_TENSOR || v->type->rank != 4 || v->type->layout.kind != LAYOUT_NHWC)
        return false;
    for (int i = 0; i < 4; i++)
        if (!expr_is_const(&cx->exprs, v->type->dims[i], &dims[i]) || dims[i] < 1)
            return false;
    return true;
}

/* Bytes of a line of one image. */
static double line_bytes(const struct emit *e, const struct value *v)
{
    int64_t d[4];
    return is_map(e->cx, v, d) ? (double)(d[1] * d[W]) * dtype_size(v->type->dtype) : 0;
}

static double image_bytes(const struct emit *e, const struct value *v)
{
    int64_t d[4];
    return is_map(e->cx, v, d) ? (double)d[H] * line_bytes(e, v) : 0;
}

static bool read_unit(struct emitter *em, struct node *n, struct unit *u)
{
    struct emit *e = &em->e;
    struct machine_part part = {.copies = 0};
    const char *why = NULL;
    int64_t d[4];
    if (n->place != PLACE_NPU || !is_map(e->cx, node_out(n, 0), d) || !e->m->family->part(e->m, e->cx, n, &part) ||
        part.copies < 1 || d[0] % part.copies != 0)
        return false;
    const struct gen *g = find_gen(e->m, e->cx, n, &why);
    if (!g || !g->rows || !g->rows(&part.m, e->cx, n, &u->use))
        return false;
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i) && (!is_map(e->cx, node_out(n, i), d) || d[H] != u->use.rows))
            return false;
    u->n = n;
    u->copies = part.copies;
    u->images = d[0] / part.copies;
    return true;
}

static bool takes_no_step(const struct node *n)
{
    return n->op == OP_Constant || (n->n_out == 1 && weight_is_cast(&n->out[0]));
}

static void collect(struct emitter *em, struct node *n, struct band_plan *p)
{
    for (; n && p->n < MAX_UNITS; n = n->next) {
        struct unit *u = &p->unit[p->n];
        if (takes_no_step(n))
            continue;
        if (!read_unit(em, n, u) || (p->n > 0 && (u->copies != p->unit->copies || u->images != p->unit->images)))
            return;
        p->n++;
    }
}

/* ---- runs --------------------------------------------------------------------------------------------------- */

struct run {
    const struct emitter *em;
    const struct unit *unit;
    int32_t n;
    int64_t bands;
};

static int32_t member(const struct run *r, const struct node *n)
{
    for (int32_t i = 0; i < r->n; i++)
        if (r->unit[i].n == n)
            return i;
    return -1;
}

/* Made within the run and read there alone, as a map of its own. */
static bool is_inner(const struct run *r, const struct value *v)
{
    const struct emit *e = &r->em->e;
    if (!v || !v->def || member(r, v->def) < 0 || !v->uses || e->line_of[v->id].pitch > 0 || e->part_of[v->id])
        return false;
    const int32_t at = e->tensor_of[v->id];
    if (at >= 0 && e->plan->tensors.data[at].kind != PT_TEMP)
        return false;
    for_each_use (u, v) {
        const int32_t i = member(r, u->user);
        if (i < 0 || (r->unit[i].use.windows != v && r->unit[i].use.same != v))
            return false;
    }
    return true;
}

/* Lines of unit i that unit j needs for its first `to` ones; -1: it reads none of them. */
static int64_t needed(const struct run *r, int32_t i, int32_t j, int64_t to)
{
    const struct row_use *use = &r->unit[j].use;
    int64_t end = -1;
    for (int k = 0; k < r->unit[i].n->n_out; k++) {
        const struct value *v = node_out(r->unit[i].n, k);
        if (v && use->windows == v)
            end = larger(end, to > 0 ? (to - 1) * use->stride - use->before + use->span : 0);
        if (v && use->same == v)
            end = larger(end, to);
    }
    return end;
}

/* Lines that each unit has made when band b of the run is done: from the last unit to the first. */
static void advance(const struct run *r, int64_t b, int64_t made[MAX_RUN])
{
    for (int32_t i = r->n - 1; i >= 0; i--) {
        const int64_t rows = r->unit[i].use.rows;
        int64_t end = -1;
        for (int32_t j = i + 1; j < r->n; j++)
            end = larger(end, needed(r, i, j, made[j]));
        if (end < 0)
            end = size_ceil_div(rows * (b + 1), r->bands);
        made[i] = b == r->bands - 1 ? rows : larger(0, size_min(end, rows));
    }
}

/* The first line of v that what comes behind band b reads, of which `made` are done. */
static int64_t low_of(const struct run *r, const struct value *v, const int64_t made[MAX_RUN])
{
    int64_t low = INT64_MAX;
    for (int32_t j = 0; j < r->n; j++) {
        const struct row_use *use = &r->unit[j].use;
        if (made[j] >= use->rows)
            continue;
        if (use->windows == v)
            low = size_min(low, larger(0, made[j] * use->stride - use->before));
        if (use->same == v)
            low = size_min(low, made[j]);
    }
    return low;
}

/* Lines of v that are alive at most: made up to the end of a band, read from its begin. */
static int64_t lines_alive(const struct run *r, const struct value *v)
{
    int64_t made[MAX_RUN] = {0}, most = 0;
    const int32_t at = member(r, v->def);
    for (int64_t b = 0; b < r->bands; b++) {
        const int64_t low = low_of(r, v, made);
        advance(r, b, made);
        most = larger(most, low == INT64_MAX ? 0 : made[at] - low);
    }
    return most;
}

/* Bytes of shared memory that the inner maps take; made image by image. */
static double room_of(const struct run *r)
{
    double bytes = 0;
    for (int32_t i = 0; i < r->n; i++)
        for (int k = 0; k < r->unit[i].n->n_out; k++) {
            const struct value *v = node_out(r->unit[i].n, k);
            if (v && is_inner(r, v))
                bytes += (double)lines_alive(r, v) * line_bytes(&r->em->e, v);
        }
    return bytes;
}

/* Bytes that others have there at a time, and kernels. */
static double others_of(const struct run *r)
{
    const struct shared_use *use = r->em->shared;
    int64_t most = 0;
    for (int32_t i = 0; i < r->n; i++) {
        const int32_t step = use->first[r->unit[i].n->out[0].id];
        int64_t used = use->used[step];
        for (int32_t j = 0; j < r->n; j++)
            for (int k = 0; k < r->unit[j].n->n_out; k++) {
                const struct value *v = node_out(r->unit[j].n, k);
                const bool alive = v && use->first[v->id] <= step && step <= use->last[v->id];
                if (alive && r->em->e.near[v->id] && is_inner(r, v))
                    used -= (int64_t)image_bytes(&r->em->e, v) * r->unit->images;
            }
        most = larger(most, used);
    }
    return (double)most;
}

/* Does the map come from or go to global memory? */
static bool is_far(const struct run *r, const struct value *v)
{
    return v && !is_inner(r, v) && !r->em->e.near[v->id];
}

/* Seconds of the launches of a unit. */
static double unit_seconds(const struct run *r, const struct rates *m, int32_t i)
{
    const struct unit *u = &r->unit[i];
    const double times = (double)(r->bands * (r->bands > 0 && r->n > 1 ? u->images : 1));
    double in = 0, out = 0;
    if (is_far(r, u->use.windows))
        in += image_bytes(&r->em->e, u->use.windows);
    if (is_far(r, u->use.same))
        in += image_bytes(&r->em->e, u->use.same);
    for (int k = 0; k < u->n->n_out; k++)
        if (is_far(r, node_out(u->n, k)))
            out += image_bytes(&r->em->e, node_out(u->n, k));
    const double moves = fmax(fmax(in, out) / m->way, (in + out) / m->share);
    return (double)u->images * fmax(moves, u->use.cycles / m->clock) + times * (m->launch + u->use.weights / m->way);
}

static double run_seconds(const struct run *r, const struct rates *m)
{
    double seconds = 0;
    for (int32_t i = 0; i < r->n; i++)
        seconds += unit_seconds(r, m, i);
    return seconds;
}

/* The fewest bands whose inner maps have room; 0: none have. */
static int64_t bands_of(struct run *r)
{
    const double room = (double)r->em->e.m->size[TS_L1] - others_of(r);
    int64_t rows = INT64_MAX;
    for (int32_t i = 0; i < r->n; i++)
        rows = size_min(rows, r->unit[i].use.rows);
    for (int64_t i = r->unit->images > 1 ? 0 : 1; i < NPUC_ARRAY_LEN(counts) && counts[i] <= rows; i++) {
        r->bands = counts[i];
        if (room_of(r) <= room)
            return r->bands;
    }
    return 0;
}

/* ---- choice ------------------------------------------------------------------------------------------------- */

/* Where the runs of p->unit end. A unit by itself is a run of one, made as a whole. */
static void choose(const struct emitter *em, struct band_plan *p)
{
    const struct rates m = rates_of(em->e.m, p->unit->copies);
    double best[MAX_UNITS + 1] = {0}; /* from unit i to the end */
    for (int32_t i = p->n - 1; i >= 0; i--) {
        struct run r = {em, &p->unit[i], 1, 1};
        best[i] = run_seconds(&r, &m) + best[i + 1];
        p->last[i] = i;
        p->bands[i] = 0;
        for (r.n = 2; r.n <= MAX_RUN && i + r.n <= p->n; r.n++) {
            if (bands_of(&r) == 0)
                continue;
            const double seconds = run_seconds(&r, &m) + best[i + r.n];
            if (seconds < best[i]) {
                best[i] = seconds;
                p->last[i] = i + r.n - 1;
                p->bands[i] = r.bands;
            }
        }
    }
}

/* ---- launches ------------------------------------------------------------------------------------------------ */

static bool all_divide(struct emitter *em, const struct run *r)
{
    for (int32_t i = 0; i < r->n; i++)
        if (!emit_divides(&em->e, r->unit[i].n, r->unit[i].copies))
            return false;
    return true;
}

static int64_t longest_band(const struct run *r, int32_t i)
{
    int64_t made[MAX_RUN] = {0}, most = 1;
    for (int64_t b = 0; b < r->bands; b++) {
        const int64_t before = made[i];
        advance(r, b, made);
        most = larger(most, made[i] - before);
    }
    return most;
}

static void mark_inner(struct emitter *em, const struct run *r, bool *stays)
{
    struct emit *e = &em->e;
    for (int32_t i = 0; i < r->n; i++)
        for (int k = 0; k < r->unit[i].n->n_out; k++) {
            struct value *v = node_out(r->unit[i].n, k);
            if (!v || !is_inner(r, v))
                continue;
            stays[v->id] = true;
            e->plan->tensors.data[emit_tensor(e, v)].window = larger(1, lines_alive(r, v)) * (int64_t)line_bytes(e, v);
        }
}

static enum npuc_status emit_image(struct emitter *em, const struct run *r, struct emit_band *band,
                                   const int64_t most[MAX_RUN])
{
    int64_t made[MAX_RUN] = {0}, before[MAX_RUN];
    for (int64_t b = 0; b < r->bands; b++) {
        for (int32_t i = 0; i < r->n; i++)
            before[i] = made[i];
        advance(r, b, made);
        for (int32_t i = 0; i < r->n; i++) {
            band->row = before[i];
            band->rows = made[i] - before[i];
            band->most = most[i];
            if (band->rows < 1)
                continue;
            em->e.band = band;
            const enum npuc_status st = emit_node(em, r->unit[i].n);
            em->e.band = NULL;
            if (st != NPUC_OK)
                return st;
        }
    }
    return NPUC_OK;
}

static enum npuc_status emit_run(struct emitter *em, const struct run *r)
{
    bool *stays = arena_zalloc(em->e.arena, em->e.module->n_values * (int64_t)sizeof *stays);
    struct emit_band band = {.images = 1, .stays = stays};
    int64_t most[MAX_RUN];
    enum npuc_status st = NPUC_OK;
    mark_inner(em, r, stays);
    for (int32_t i = 0; i < r->n; i++)
        most[i] = longest_band(r, i);
    for (band.image = 0; band.image < r->unit->images && st == NPUC_OK; band.image++)
        st = emit_image(em, r, &band, most);
    return st;
}

static int32_t place_in(const struct band_plan *p, const struct node *n)
{
    for (int32_t i = 0; p && i < p->n; i++)
        if (p->unit[i].n == n)
            return i;
    return -1;
}

/* What takes no step in between is done before: nothing in the run is its operand. */
static enum npuc_status emit_between(struct emitter *em, const struct node *first, const struct node *last)
{
    for (struct node *n = first->next; n != last; n = n->next) {
        const enum npuc_status st = takes_no_step(n) ? emit_node(em, n) : NPUC_OK;
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

struct node *emit_bands(struct emitter *em, struct node *n, enum npuc_status *st)
{
    struct emit *e = &em->e;
    if (!e->m->family->part || e->tiling || takes_no_step(n))
        return NULL;
    int32_t at = place_in(em->bands, n);
    if (at < 0) {
        struct band_plan *p = arena_zalloc(e->arena, sizeof *p);
        collect(em, n, p);
        if (p->n < 2)
            return NULL;
        choose(em, p);
        em->bands = p;
        at = 0;
    }
    const struct band_plan *p = em->bands;
    const struct run r = {em, &p->unit[at], p->last[at] - at + 1, p->bands[at]};
    if (r.bands < 1 || !all_divide(em, &r))
        return NULL;
    *st = emit_between(em, n, p->unit[p->last[at]].n);
    if (*st == NPUC_OK)
        *st = emit_run(em, &r);
    return p->unit[p->last[at]].n;
}
