/* Moves between GM and a core: bursts of contiguous bytes from extents and strides, then the occupancy of the unit.
 *
 * What is contiguous on both sides is one burst. Of the other dimensions the longest is stepped by one machine
 * instruction, the rest are instructions of their own. A burst that does not begin on a line touches one line more
 * (docs/clock.md has the equations). */
#include "runtime/emu/clock_priv.h"

#include "base/size.h"

struct bursts {
    double bytes; /* of one burst */
    double rows;  /* bursts */
    double n;     /* machine instructions */
    double bus;   /* bytes of one burst with what it touches beside */
};

static int64_t magnitude(int64_t v)
{
    return v < 0 ? v == INT64_MIN ? INT64_MAX : -v : v;
}

/* Merges dimensions that continue the burst; the others stay in `open`. */
static int64_t merge(const struct clock_span *s, bool open[4])
{
    int64_t bytes = s->size;
    bool moved = true;
    while (moved) {
        moved = false;
        for (int i = 3; i >= 0; i--) {
            int64_t longer;
            if (!open[i] || s->gm[i] != bytes || s->chip[i] != bytes || !size_mul(bytes, s->n[i], &longer))
                continue;
            bytes = longer;
            open[i] = false;
            moved = true;
        }
    }
    return bytes;
}

static double touched(const struct clock_rates *r, int64_t address, int64_t bytes)
{
    const int64_t line = r->line, skew = address >= 0 ? address % line : 0;
    const int64_t lines = size_ceil_div(skew + bytes % line, line) - size_ceil_div(bytes % line, line);
    return (double)bytes + (double)(lines * line);
}

static void bursts_of(const struct clock_cx *cx, const struct clock_span *s, struct bursts *b)
{
    bool open[4], aligned = true, dense = true;
    for (int i = 0; i < 4; i++)
        open[i] = s->n[i] != 1;
    const int64_t bytes = merge(s, open);
    double longest = 1;
    *b = (struct bursts){(double)bytes, 1, 1, (double)bytes};
    for (int i = 0; i < 4; i++) {
        if (!open[i])
            continue;
        const double n = (double)s->n[i];
        b->rows *= n;
        longest = n > longest ? n : longest;
        aligned &= s->gm[i] % cx->rates->line == 0;
        dense &= magnitude(s->gm[i]) == bytes; /* burst follows burst in GM */
    }
    b->n = b->rows / longest;
    if (aligned)
        b->bus = touched(cx->rates, cx->launch->tensors[s->tensor].address + s->off, bytes);
    else if (!dense)
        b->bus = (double)bytes + (double)(bytes < cx->rates->line ? bytes : cx->rates->line);
}

static bool is_empty(const struct clock_span *s)
{
    return s->n[0] <= 0 || s->n[1] <= 0 || s->n[2] <= 0 || s->n[3] <= 0 || s->size <= 0;
}

int64_t clock_span_bytes(const struct clock_span *s)
{
    int64_t bytes = s->size;
    for (int i = 0; i < 4; i++)
        if (!size_mul(bytes, s->n[i], &bytes))
            return 0;
    return bytes;
}

/* A burst occupies the unit for at least `row` cycles; one shorter than a line that comes from memory for the rest of
 * the line. */
static void read_rows(const struct clock_cx *cx, const struct bursts *b, double row, struct clock_cost *c)
{
    const double part = b->bytes / (double)cx->rates->line;
    c->busy = b->rows * row;
    c->hit_cyc = c->hit_cyc > c->busy ? c->hit_cyc : c->busy;
    if (part < 1)
        c->miss_cyc = b->rows * (1 - part) * row;
}

/* Reads of a matrix core: L2's rate, divided by nd2nz when rows become fractals on the way. */
static void read_cube(const struct clock_cx *cx, const struct bursts *b, double divide, struct clock_cost *c)
{
    const struct clock_rates *r = cx->rates;
    c->cap = r->l2_cube / divide;
    c->bus = b->rows * b->bus;
    c->hit_cyc = c->bus / c->cap;
    if (b->rows > b->n)
        read_rows(cx, b, r->row, c);
}

static void read_vector(const struct clock_cx *cx, const struct bursts *b, struct clock_cost *c)
{
    const struct clock_rates *r = cx->rates;
    c->cap = r->cold_vector < r->l2_vector ? r->cold_vector : r->l2_vector;
    c->bus = b->rows * b->bus;
    c->hit_cyc = c->bus / r->l2_vector;
    if (b->rows > b->n)
        read_rows(cx, b, (double)r->line / r->l2_vector, c);
}

static enum tile_space space_of(const struct clock_cx *cx, int64_t buf)
{
    return (enum tile_space)cx->section->bufs.data[buf].space;
}

/* A copy's part of the tensor. */
static void enter_part(const struct clock_cx *cx, struct clock_span *s)
{
    s->off += cx->launch->tensors[s->tensor].part * emu_copy_of(cx->launch, cx->block);
}

/* Between a core and the shared memory of its cluster: Move-DMA, no traffic of GM. `space` is that of the core. */
static bool move_on_chip(const struct clock_cx *cx, bool write, enum tile_space space, struct clock_cost *c)
{
    struct bursts b;
    if (!cx->launch->tensors[c->span.tensor].on_chip)
        return false;
    bursts_of(cx, &c->span, &b);
    c->bytes = clock_span_bytes(&c->span);
    const double moved = (double)c->bytes / cx->rates->l0a, least = b.n * cx->rates->floor;
    c->busy = moved > b.rows ? moved : b.rows; /* a row takes a cycle at least */
    c->busy = c->busy > least ? c->busy : least;
    c->after = cx->rates->mte1_latency;
    c->from = write ? (uint8_t)space : TS_L1;
    c->to = write ? TS_L1 : (uint8_t)space;
    c->span.tensor = -1;
    return true;
}

static void read_gm(struct clock_cx *cx, int64_t buf, double divide, struct clock_cost *c)
{
    struct bursts b;
    c->unit = TU_MTE2;
    c->from = TS_GM;
    c->to = (uint8_t)space_of(cx, buf);
    if (is_empty(&c->span)) {
        c->span.tensor = -1;
        return;
    }
    enter_part(cx, &c->span);
    if (move_on_chip(cx, false, (enum tile_space)c->to, c))
        return;
    bursts_of(cx, &c->span, &b);
    if (c->to == TS_UB || cx->rates->mac_rows) /* rows: one DMA serves all memories of a core */
        read_vector(cx, &b, c);
    else
        read_cube(cx, &b, divide, c);
    const double least = b.n * cx->rates->floor;
    c->busy = c->busy > least ? c->busy : least;
    c->after = cx->rates->latency;
    c->after_miss = cx->rates->miss_latency;
    c->bytes = clock_span_bytes(&c->span);
}

/* Broken plans have numbers that no product holds; they end up outside of every tensor all the same. */
static int64_t scaled(int64_t v, int64_t size)
{
    const int64_t most = (int64_t)1 << 48;
    return (v > most ? most : v < -most ? -most : v) * size;
}

static void span_4d(struct clock_span *s, int64_t tensor, int64_t off, int64_t size, const int64_t n[12])
{
    s->tensor = (int32_t)tensor;
    s->off = scaled(off, size);
    s->size = size;
    for (int i = 0; i < 4; i++) {
        s->n[i] = n[i];
        s->gm[i] = scaled(n[4 + i], size);
        s->chip[i] = scaled(n[8 + i], size);
    }
}

void clock_load(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_LOAD *a = EMU_ARGS(LOAD, op);
    const int64_t n[12] = {a->n0, a->n1, a->n2, a->n3, a->s0, a->s1, a->s2, a->s3, a->d0, a->d1, a->d2, a->d3};
    span_4d(&c->span, a->src, a->src_off, dtype_size((enum dtype)a->dtype), n);
    read_gm(cx, a->dst, 1, c);
}

/* The memory core of one cluster moves the bytes at the rate of its cluster: for each of the cores that share them a
 * part of them at its own rate. Other clusters have them over the link between clusters. */
void clock_loadc(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_LOADC *a = EMU_ARGS(LOADC, op);
    const struct clock_rates *r = cx->rates;
    const int64_t group = r->cluster * a->clusters, first = cx->block / group * group,
                  rest = cx->launch->blocks - first,
                  cores = rest < 1       ? 1
                          : rest < group ? rest
                                         : group;
    clock_load(cx, op, c);
    c->unit = TU_FIX;
    if (c->span.tensor < 0)
        return;
    const double part = 1 / (double)cores, link = r->link > 0 && a->clusters > 1 ? (double)c->bytes / r->link : 0;
    c->hit_cyc *= part;
    c->miss_cyc *= part;
    c->bus *= part;
    c->busy = c->busy * part > link ? c->busy * part : link;
    c->after += r->cluster_barrier;
    c->follows = cx->block != first;
    c->bytes = (int64_t)((double)c->bytes * part);
}

/* A row of no more than a fractal's is followed by the next one on chip: rows that lie so in GM too are one burst. */
void clock_load_nz(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_LOAD_NZ *a = EMU_ARGS(LOAD_NZ, op);
    const int64_t size = dtype_size((enum dtype)a->dtype), c0 = cx->rates->fractal_c0 / (size > 0 ? size : 1);
    const int64_t n[12] = {1, 1, a->rows, a->cols, 0, 0, a->src_row, a->src_col, 0, 0, a->cols <= c0 ? c0 : 0, 1};
    span_4d(&c->span, a->src, a->src_off, size, n);
    read_gm(cx, a->dst, cx->rates->nd2nz, c);
}

/* The address of each row comes from memory: no row begins before the last one is there. */
void clock_loadx(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_LOADX *a = EMU_ARGS(LOADX, op);
    const int64_t size = dtype_size((enum dtype)a->dtype), first = a->n_rows > 0 ? cx->gathered % a->n_rows : 0;
    const int64_t rows = a->rows < a->n_rows - first ? a->rows : a->n_rows - first;
    const int64_t n[12] = {1, 1, rows, a->cols, 0, 0, a->src_row, 1, 0, 0, a->dst_row, 1};
    int64_t skip;
    span_4d(&c->span, a->src, a->src_off, size, n);
    if (size_mul(first, c->span.gm[2], &skip) && size_add(c->span.off, skip, &skip))
        c->span.off = skip;
    read_gm(cx, a->dst, 1, c);
    if (c->span.tensor < 0) { /* nothing, or rows on chip, each an instruction */
        c->busy += c->bytes > 0 ? (double)a->rows * cx->rates->floor : 0;
        return;
    }
    cx->gathered += rows;
    const double more = (double)a->rows / (double)rows;
    c->bus *= more;
    c->hit_cyc *= more;
    c->miss_cyc *= more;
    c->busy =
        (double)a->rows * (cx->rates->latency > cx->rates->floor ? cx->rates->latency : cx->rates->floor) + c->hit_cyc;
    c->bytes = clock_span_bytes(&c->span) / rows * a->rows;
}

static void write_gm(struct clock_cx *cx, int64_t buf, struct clock_cost *c)
{
    const struct clock_rates *r = cx->rates;
    struct bursts b;
    c->unit = TU_MTE3;
    c->from = (uint8_t)space_of(cx, buf);
    c->to = TS_GM;
    if (is_empty(&c->span)) {
        c->span.tensor = -1;
        return;
    }
    enter_part(cx, &c->span);
    if (move_on_chip(cx, true, (enum tile_space)c->from, c))
        return;
    bursts_of(cx, &c->span, &b);
    const double block = (double)r->ub_block, blocks = (double)(int64_t)((b.bytes + block - 1) / block);
    const double again = blocks * block > b.bytes ? r->mte3_rmw - 1 : 0; /* the last one is read first */
    double row = (blocks + again) * block / r->mte3;
    if (b.rows > b.n && row < (double)r->line / r->l2_vector)
        row = (double)r->line / r->l2_vector; /* taken as for reads */
    c->busy = b.rows * row > b.n * r->mte3_floor ? b.rows * row : b.n * r->mte3_floor;
    c->bytes = clock_span_bytes(&c->span);
}

void clock_store(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_STORE *a = EMU_ARGS(STORE, op);
    const int64_t n[12] = {a->n0, a->n1, a->n2, a->n3, a->d0, a->d1, a->d2, a->d3, a->s0, a->s1, a->s2, a->s3};
    span_4d(&c->span, a->dst, a->dst_off, dtype_size((enum dtype)a->dtype), n);
    write_gm(cx, a->src, c);
}

void clock_storex(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_STOREX *a = EMU_ARGS(STOREX, op);
    const int64_t size = dtype_size((enum dtype)a->dtype);
    const int64_t rows = a->rows < a->n_rows ? a->rows : a->n_rows;
    const int64_t n[12] = {1, 1, rows, a->cols, 0, 0, a->dst_row, 1, 0, 0, a->src_row, 1};
    span_4d(&c->span, a->dst, a->dst_off, size, n);
    write_gm(cx, a->src, c);
    if (c->span.tensor < 0) {
        c->busy += c->bytes > 0 ? (double)a->rows * cx->rates->floor : 0;
        return;
    }
    const double row = (double)a->cols * (double)size / cx->rates->mte3;
    c->busy = (double)a->rows * (row > cx->rates->mte3_floor ? row : cx->rates->mte3_floor);
    c->bytes = clock_span_bytes(&c->span) / rows * a->rows;
}

static void fixp_cost(struct clock_cx *cx, int64_t size, struct clock_cost *c)
{
    const struct clock_rates *r = cx->rates;
    c->unit = TU_FIX;
    c->from = TS_L0C;
    c->to = TS_GM;
    if (is_empty(&c->span)) {
        c->span.tensor = -1;
        return;
    }
    c->bytes = clock_span_bytes(&c->span);
    const double by_bytes = (double)c->bytes / r->fix_bytes, by_elements = (double)(c->bytes / size) / r->fix_elements;
    c->busy = r->fix_latency + (by_bytes > by_elements ? by_bytes : by_elements);
    c->after = r->turnround;
}

/* Whole blocks, each a burst. */
void clock_fixp_nz(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_FIXP_NZ *a = EMU_ARGS(FIXP_NZ, op);
    const int64_t size = dtype_size((enum dtype)a->to), c0 = a->block == 8 ? 8 : 16;
    const int64_t n[12] = {1, a->cols > 0 ? (a->cols - 1) / c0 + 1 : 0, a->rows, c0, 0, a->dst_block, c0, 1, 0, 0, 0,
                           1};
    span_4d(&c->span, a->dst, a->dst_off, size, n);
    fixp_cost(cx, size, c);
}

void clock_fixp(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_FIXP *a = EMU_ARGS(FIXP, op);
    const int64_t size = dtype_size((enum dtype)a->to);
    const int64_t n[12] = {1, 1, a->rows, a->cols, 0, 0, a->dst_row, 1, 0, 0, 0, 1};
    span_4d(&c->span, a->dst, a->dst_off, size, n);
    fixp_cost(cx, size, c);
}
