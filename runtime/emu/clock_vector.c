/* Vector instructions: a fixed part per instruction of the machine and a time per repeat of vec.bytes.
 *
 * A dense block is one run of repeats. A block with gaps between its rows is as many machine instructions as it has
 * rows or repeats per row, whichever is less, since an instruction steps along one of the two. Those of one block do
 * not wait for each other, so that the fixed part is paid once; those of a reduction add to the same lanes and pay it
 * each. Conflicts are those of
 * two reads in one bank group; the hardware delays its writes by one repeat, so that a result over its operand is free.
 */
#include "runtime/emu/clock_priv.h"

#include "kernels/vec.h"

#define SORT_RUN      32
#define MOST_ELEMENTS ((int64_t)1 << 30) /* more than UB holds, and whole periods */

static const struct {
    enum k_fn fn;
    enum target_key key;
} one_step[] = {
    {K_FN_Exp, TK_VEC_EXP},        {K_FN_Log, TK_VEC_LOG},   {K_FN_Div, TK_VEC_DIV},
    {K_FN_Reciprocal, TK_VEC_DIV}, {K_FN_Sqrt, TK_VEC_SQRT},
};

struct block {
    int64_t rows, cols;
    double width; /* bytes of an element as it is computed */
    bool dense;
};

static double whole_parts(double length, double part)
{
    const double n = length / part, down = (double)(int64_t)n;
    return down < n ? down + 1 : down;
}

static double repeats_of(const struct clock_rates *r, double bytes)
{
    return whole_parts(bytes, (double)r->vec_bytes);
}

/* Machine instructions of a block. */
static double parts_of(const struct clock_rates *r, const struct block *b)
{
    const double rows = (double)b->rows, per_row = repeats_of(r, (double)b->cols * b->width);
    if (b->rows <= 0 || b->cols <= 0)
        return 0;
    return b->dense ? 1 : rows < per_row ? rows : per_row;
}

/* Time of a block at `cycles` per repeat. */
static double block_time(const struct clock_rates *r, const struct block *b, double cycles)
{
    if (b->rows <= 0 || b->cols <= 0)
        return 0;
    const double rows = (double)b->rows, row = (double)b->cols * b->width, issue = parts_of(r, b) * r->issue;
    const double work = cycles * (b->dense ? repeats_of(r, rows * row) : rows * repeats_of(r, row));
    return r->vec[TK_VEC_FIXED] + (work > issue ? work : issue);
}

static double width_of(int64_t dtype)
{
    return dtype_table[dtype].bits / 8.0;
}

/* Types without arithmetic of their own are widened to f32 and narrowed again. */
static bool is_widened(int64_t dtype)
{
    return dtype_is_float((enum dtype)dtype) && dtype_table[dtype].bits <= 16 && dtype != DT_F16;
}

static double alu_cycles(const struct clock_rates *r, int64_t fn)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(one_step); i++)
        if (one_step[i].fn == fn)
            return r->vec[one_step[i].key];
    const struct k_fn_info *info = k_fn_info((enum k_fn)fn);
    return info ? info->alu * r->vec[TK_VEC_OP] : 0;
}

/* Byte address of operand `field` in UB, up to whole periods of the banks. */
static int64_t address_of(const struct clock_cx *cx, const struct emu_op *op, int field, double width)
{
    const struct tile_buf *b = &cx->section->bufs.data[op->arg[field]];
    return b->base + op->slot[field] * b->slot_size + (int64_t)((double)(op->arg[field + 1] % MOST_ELEMENTS) * width);
}

/* Two accesses of a repeat each that begin `apart` bytes from each other: in some bank group of both? */
static bool groups_meet(const struct clock_rates *r, const struct block *b, int64_t apart)
{
    const int64_t period = r->bank_groups * r->ub_block;
    const double row = (double)b->cols * b->width;
    const double read = !b->dense && row < (double)r->vec_bytes ? row : (double)r->vec_bytes;
    apart = (apart % period + period) % period;
    return (double)apart < read || (double)(period - apart) < read;
}

static bool reads_conflict(const struct clock_cx *cx, const struct emu_op *op, const struct block *b)
{
    const struct clock_rates *r = cx->rates;
    const int fa = EMU_FIELD(VEC, a), fb = EMU_FIELD(VEC, b);
    const int64_t period = r->bank_groups * r->ub_block;
    if (period == 0 || op->arg[fa] < 0 || op->arg[fb] < 0 || !op->arg[fa + 3] || !op->arg[fb + 3])
        return false;
    const int64_t from_a = address_of(cx, op, fa, b->width), from_b = address_of(cx, op, fb, b->width);
    return from_a != from_b && groups_meet(r, b, from_a - from_b);
}

/* A result is written one repeat late: when the repeat behind it is read from the same bank. */
static bool write_conflicts(const struct clock_cx *cx, const struct emu_op *op, const struct block *b, int arity)
{
    const struct clock_rates *r = cx->rates;
    const int field = EMU_FIELD(VEC, a);
    if (r->bank_span == 0 || !b->dense || (double)b->rows * (double)b->cols * b->width <= (double)r->vec_bytes)
        return false;
    const int64_t to = address_of(cx, op, EMU_FIELD(VEC, dst), b->width);
    for (int i = 0; i < arity; i++) {
        if (op->arg[field + 4 * i] < 0)
            continue;
        const int64_t from = address_of(cx, op, field + 4 * i, b->width);
        if (from / r->bank_span == to / r->bank_span && groups_meet(r, b, to - r->vec_bytes - from))
            return true;
    }
    return false;
}

void clock_vec(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_VEC *a = EMU_ARGS(VEC, op);
    const struct clock_rates *r = cx->rates;
    const struct k_fn_info *info = k_fn_info((enum k_fn)a->fn);
    struct block b = {a->rows, a->cols, width_of(a->dtype), a->dst_row == a->cols};
    c->unit = TU_V;
    if (!info || a->rows <= 0 || a->cols <= 0)
        return;
    int n_spread = 0;
    for (int i = 0; i < info->arity; i++) {
        const int64_t *arg = op->arg + EMU_FIELD(VEC, a) + 4 * i;
        const bool spread = arg[0] >= 0 && arg[3] == 0; /* one value per row, spread over a block first */
        n_spread += spread && a->rows > 1;
        b.dense &= arg[0] < 0 || (!spread && arg[2] == a->cols);
    }
    double cycles = alu_cycles(r, a->fn);
    if (info->arity >= 2 && reads_conflict(cx, op, &b))
        cycles += r->vec[TK_VEC_CONFLICT] - r->vec[TK_VEC_OP];
    else if (r->vec[TK_VEC_CONFLICT_WRITE] > r->vec[TK_VEC_OP] && write_conflicts(cx, op, &b, info->arity))
        cycles += r->vec[TK_VEC_CONFLICT_WRITE] - r->vec[TK_VEC_OP];
    if (is_widened(a->dtype)) {
        b.width = 4;
        cycles += (info->arity + 1) * r->vec[TK_VEC_CAST];
    }
    const struct block spread = {a->rows, 1, (double)r->ub_block, true};
    c->busy = block_time(r, &b, cycles) + n_spread * block_time(r, &spread, r->vec[TK_VEC_OP]);
}

void clock_cast(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_CAST *a = EMU_ARGS(CAST, op);
    const double to = width_of(a->to), from = width_of(a->from);
    const struct block b = {a->rows, a->cols, to > from ? to : from,
                            a->dst_row == a->cols && a->src_row == a->cols && a->src_col};
    c->unit = TU_V;
    c->busy = block_time(cx->rates, &b, cx->rates->vec[TK_VEC_CAST]);
}

/* Rows that begin afresh take their first repeat as it is: one operation fewer. */
void clock_red_add(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_RED_ADD *a = EMU_ARGS(RED_ADD, op);
    const struct clock_rates *r = cx->rates;
    const double own = width_of(a->dtype), width = own < 4 ? 4 : own;
    const bool plain = own >= 4 && a->op != K_RED_SUMSQ && a->op != K_RED_ABSSUM;
    const int64_t lanes = (int64_t)((double)r->vec_bytes / width);
    const bool spared = plain && a->init && r->bank_groups > 0 && a->cols > lanes;
    const struct block b = {a->rows, spared ? a->cols - lanes : a->cols, width, false};
    double cycles = r->vec[TK_VEC_OP];
    if (a->op == K_RED_SUMSQ || a->op == K_RED_ABSSUM)
        cycles += r->vec[TK_VEC_OP];
    if (own < 4)
        cycles += r->vec[TK_VEC_CAST];
    const double parts = parts_of(r, &b);
    c->unit = TU_V;
    c->busy = block_time(r, &b, cycles) + (parts > 1 ? parts - 1 : 0) * r->vec[TK_VEC_FIXED];
}

/* The lanes of a row as one: one row per repeat across all lanes, or, for many rows, within blocks first. Extremes take
 * two such steps, 64 lanes to 8 and 8 to 1, of 8 rows per repeat in the second. Sums fold 64 lanes to 8 in three steps,
 * of which the last takes 8 rows per repeat, before the step within blocks. */
void clock_red_end(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_RED_END *a = EMU_ARGS(RED_END, op);
    const struct clock_rates *r = cx->rates;
    const double fixed = r->vec[TK_VEC_FIXED], step = r->vec[TK_VEC_OP], rows = (double)a->rows;
    const double packed = (double)((a->rows + 7) / 8);
    const bool extreme = a->op == K_RED_MAX || a->op == K_RED_MIN;
    const double across = fixed + rows * r->vec[TK_VEC_REDUCE];
    const double within = extreme ? 2 * fixed + (rows + packed) * step : 4 * fixed + 2 * (rows + packed) * step;
    c->unit = TU_V;
    if (a->rows > 0)
        c->busy = r->bank_groups > 0 && within < across ? within : across;
}

void clock_fill(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_FILL *a = EMU_ARGS(FILL, op);
    const struct block b = {a->rows, a->cols, width_of(a->dtype), a->dst_row == a->cols};
    c->unit = TU_V;
    c->busy = block_time(cx->rates, &b, cx->rates->vec[TK_VEC_OP]);
}

void clock_iota(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_IOTA *a = EMU_ARGS(IOTA, op);
    const struct block b = {a->rows, a->cols, width_of(a->dtype), a->dst_row == a->cols};
    c->unit = TU_V;
    c->busy = block_time(cx->rates, &b, cx->rates->vec[TK_VEC_OP]);
}

/* Groups of columns are machine instructions of their own. */
void clock_dequant(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, op);
    const int64_t group = a->group > 0 && a->group < a->cols ? a->group : a->cols;
    const int64_t whole = group > 0 ? a->cols / group : 0, rest = a->cols - whole * group;
    const struct block b = {a->rows, group, width_of(a->to), a->dst_row == group};
    const struct block last = {a->rows, rest, width_of(a->to), a->dst_row == rest};
    c->unit = TU_V;
    c->busy = (double)whole * block_time(cx->rates, &b, cx->rates->vec[TK_VEC_DEQUANT]) +
              block_time(cx->rates, &last, cx->rates->vec[TK_VEC_DEQUANT]);
}

void clock_castp(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_CASTP *a = EMU_ARGS(CASTP, op);
    const double to = width_of(a->to), from = width_of(a->from), most = to > from ? to : from;
    const struct block b = {1, a->n, most < 1 ? 1 : most, true};
    c->unit = TU_V;
    c->busy = block_time(cx->rates, &b, cx->rates->vec[TK_VEC_DEQUANT]); /* shift, mask, convert */
}

/* The sorting unit: runs of 32 pairs of value and place, then merges of four lists at a time. */
static double sort_time(const struct clock_rates *r, const struct emu_ORDER *a)
{
    const double lists = whole_parts((double)a->cols, SORT_RUN);
    double pass = 0;
    for (double n = lists; n > 1; n /= 4)
        pass += 1;
    const double row = lists * r->vec[TK_VEC_SORT] + pass * (double)a->cols * r->vec[TK_VEC_MERGE];
    return (double)a->rows * (row + (1 + pass) * r->vec[TK_VEC_FIXED]);
}

/* Without a sorting unit, a merge network: each of ceil(log2 n) rounds moves pairs of value and column once and
 * compares. */
void clock_order(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_ORDER *a = EMU_ARGS(ORDER, op);
    const struct block b = {a->rows, a->cols, 8, false};
    int rounds = 1;
    for (int64_t n = 2; n < a->cols && n < MOST_ELEMENTS; n *= 2)
        rounds++;
    c->unit = TU_V;
    if (cx->rates->vec[TK_VEC_SORT] > 0 && a->rows > 0 && a->cols > 0)
        c->busy = sort_time(cx->rates, a);
    else
        c->busy = rounds * block_time(cx->rates, &b, 2 * cx->rates->vec[TK_VEC_OP]);
}

/* A gather within UB reads one block of UB per element. */
void clock_pick(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_PICK *a = EMU_ARGS(PICK, op);
    const struct block b = {a->rows, a->cols, (double)cx->rates->ub_block, false};
    c->unit = TU_V;
    c->busy = block_time(cx->rates, &b, cx->rates->vec[TK_VEC_OP]);
}

/* Blocks of fractal.rows x fractal.rows elements. */
void clock_transp(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_TRANSP *a = EMU_ARGS(TRANSP, op);
    const struct clock_rates *r = cx->rates;
    const double side = (double)r->fractal_rows;
    const double rows = ((double)a->rows + side - 1) / side, cols = ((double)a->cols + side - 1) / side;
    c->unit = TU_V;
    if (a->rows > 0 && a->cols > 0)
        c->busy = r->vec[TK_VEC_FIXED] + (double)(int64_t)rows * (double)(int64_t)cols *
                                             repeats_of(r, side * side * width_of(a->dtype)) * r->vec[TK_VEC_TRANSPOSE];
}

void clock_copy_ub(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_COPY_UB *a = EMU_ARGS(COPY_UB, op);
    const struct block b = {a->rows, a->cols, width_of(a->dtype),
                            a->dst_row == a->cols && a->src_row == a->cols && a->src_col};
    c->unit = TU_V;
    c->from = c->to = TS_UB;
    c->bytes =
        clock_bytes(a->dtype, a->rows > 0 && a->cols > 0 && a->cols < INT64_MAX / a->rows ? a->rows * a->cols : 0);
    c->busy = block_time(cx->rates, &b, cx->rates->vec[TK_VEC_OP]);
}
