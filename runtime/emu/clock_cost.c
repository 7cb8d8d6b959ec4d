/* What one instruction costs, from the target's constants and the instruction's evaluated extents. Here: constants,
 * matrix unit, L1 to L0; moves to and from GM are in clock_move.c, vector instructions in clock_vector.c.
 *
 * The equations are in docs/clock.md. Extents below one cost nothing but the issue. */
#include "base/size.h"
#include "runtime/emu/clock_priv.h"

#include <math.h>

static const struct {
    enum dtype dtype;
    enum target_key rate, k0;
} mac_types[] = {
    {DT_F32, TK_MAC_F32, TK_MAC_F32_K0},  {DT_F16, TK_MAC_F16, TK_MAC_F16_K0}, {DT_BF16, TK_MAC_BF16, TK_MAC_F16_K0},
    {DT_I16, TK_MAC_I16, TK_MAC_I16_K0},  {DT_I8, TK_MAC_I8, TK_MAC_I8_K0},    {DT_U8, TK_MAC_I8, TK_MAC_I8_K0},
    {DT_I4, TK_MAC_I4, TK_MAC_I4_K0},     {DT_U4, TK_MAC_I4, TK_MAC_I4_K0},    {DT_F8E4M3FN, TK_MAC_F8, TK_MAC_I8_K0},
    {DT_F8E5M2, TK_MAC_F8, TK_MAC_I8_K0}, {DT_HIF8, TK_MAC_F8, TK_MAC_I8_K0},  {DT_F4E2M1, TK_MAC_F4, TK_MAC_I4_K0},
};

/* The number, 0 for an absent one. */
static double num(const struct target *t, enum target_key k)
{
    const double v = target_num(t, k);
    return isnan(v) ? 0 : v;
}

static int64_t whole(const struct target *t, enum target_key k, int64_t least)
{
    const double v = num(t, k);
    return v < (double)least ? least : v > 1e15 ? (int64_t)1e15 : (int64_t)v;
}

static void matrix_rates(const struct target *t, struct clock_rates *r)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(mac_types); i++) {
        r->mac[mac_types[i].dtype] = num(t, mac_types[i].rate);
        r->k0[mac_types[i].dtype] = whole(t, mac_types[i].k0, 1);
    }
    r->mac_rows = num(t, TK_MAC_ROWS) > 0;
    r->mac_columns = whole(t, TK_MAC_COLUMNS, 1);
    r->fractal_rows = whole(t, TK_FRACTAL_ROWS, 1);
    r->fractal_c0 = whole(t, TK_FRACTAL_C0, 1);
    r->mac_head = num(t, TK_MAC_HEAD);
    r->l0a = num(t, TK_MTE1_L0A_RATE);
    r->l0b = num(t, TK_MTE1_L0B_RATE);
    r->mte1_latency = num(t, TK_MTE1_LATENCY);
    r->mx = num(t, TK_MTE1_MX_RATE);
    r->bt = num(t, TK_MTE1_BT_RATE);
    r->bt_latency = num(t, TK_MTE1_BT_LATENCY);
    r->fix_bytes = num(t, TK_FIX_RATE);
    r->fix_elements = num(t, TK_FIX_ELEMENTS);
    r->fix_latency = num(t, TK_FIX_LATENCY);
    r->turnround = num(t, TK_FIX_TURNROUND);
}

void clock_rates_of(const struct target *t, struct clock_rates *r)
{
    *r = (struct clock_rates){0};
    matrix_rates(t, r);
    for (int k = TK_VEC_FIXED; k <= TK_VEC_DEQUANT; k++)
        r->vec[k] = num(t, (enum target_key)k);
    r->vec_bytes = whole(t, TK_VEC_BYTES, 1);
    r->ub_block = whole(t, TK_UB_BLOCK, 1);
    r->bank_groups = whole(t, TK_UB_BANK_GROUPS, 0);
    const int64_t banks = whole(t, TK_UB_BANKS, 0);
    r->bank_span =
        r->bank_groups > 0 ? whole(t, TK_UB_SIZE, 1) / (banks / r->bank_groups > 0 ? banks / r->bank_groups : 1) : 0;
    r->l2_cube = num(t, TK_MTE2_CUBE_RATE);
    r->l2_vector = num(t, TK_MTE2_VECTOR_RATE);
    r->cold_vector = num(t, TK_MTE2_COLD_RATE);
    r->nd2nz = num(t, TK_MTE2_ND2NZ);
    r->floor = num(t, TK_MTE2_FLOOR);
    r->row = num(t, TK_MTE2_ROW);
    r->latency = num(t, TK_MTE2_LATENCY);
    r->miss_latency = num(t, TK_MTE2_MISS_LATENCY);
    r->line = whole(t, TK_MTE2_LINE, 1);
    r->mte3 = num(t, TK_MTE3_RATE);
    r->mte3_floor = num(t, TK_MTE3_FLOOR);
    r->mte3_rmw = num(t, TK_MTE3_RMW) > 1 ? num(t, TK_MTE3_RMW) : 1;
    r->cluster = whole(t, TK_CORES_CLUSTER, 1);
    r->link = num(t, TK_CLUSTER_LINK);
    r->cluster_barrier = num(t, TK_CLUSTER_BARRIER);
    r->sload = num(t, TK_L2_READ_LATENCY);
    r->issue = num(t, TK_SCALAR_ISSUE);
    r->flag = num(t, TK_FLAG);
    r->cross = num(t, TK_CROSS_FLAG);
    r->barrier = num(t, TK_BARRIER);
    r->hbm = num(t, TK_HBM_BANDWIDTH) / num(t, TK_CLOCK);
    r->l2 = num(t, TK_L2_BANDWIDTH) / num(t, TK_CLOCK);
    const int64_t depth = whole(t, TK_QUEUE_DEPTH, 1);
    r->queue = (int32_t)(depth < CLOCK_MAX_QUEUE ? depth : CLOCK_MAX_QUEUE);
}

/* A core's part of its cluster's way to memory, which is also what it has alone: one copy of a core after the other
 * waits for its own answers. */
void clock_rates_share(const struct emu_launch *l, struct clock_rates *r)
{
    const struct target *t = l->target;
    const double most = num(t, TK_CLUSTER_BANDWIDTH) / num(t, TK_CLOCK) / (double)whole(t, TK_CORES_CLUSTER, 1);
    double *const rates[] = {&r->l2_vector, &r->cold_vector, &r->mte3};
    for (int64_t i = 0; most > 0 && i < NPUC_ARRAY_LEN(rates); i++)
        *rates[i] = *rates[i] < most ? *rates[i] : most;
}

int64_t clock_bytes(int64_t dtype, int64_t n)
{
    int64_t bytes;
    return n > 0 && dtype_bytes((enum dtype)dtype, n, &bytes) ? bytes : 0;
}

#define MOST ((int64_t)1 << 20) /* no block on chip has a longer side: keeps products of broken plans in range */

static int64_t round_up(int64_t n, int64_t to)
{
    return n <= 0 ? 0 : ((n < MOST ? n : MOST) - 1 + to) / to * to;
}

/* A block of fractals from L1: rows and k rounded up to whole fractals. */
static void copy_l0(const struct clock_cx *cx, struct clock_cost *c, const int64_t extent[3], double rate)
{
    const struct clock_rates *r = cx->rates;
    const int64_t k_bytes = round_up(clock_bytes(extent[0], extent[2]), r->fractal_c0),
                  rows = round_up(extent[1], r->fractal_rows);
    c->unit = TU_MTE1;
    c->from = TS_L1;
    if (rows == 0 || k_bytes == 0)
        return;
    c->bytes = rows * k_bytes;
    c->busy = (double)c->bytes / rate + r->mte1_latency;
}

static void copy_l0a(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_COPY_L0A *a = EMU_ARGS(COPY_L0A, op);
    c->to = TS_L0A;
    copy_l0(cx, c, (const int64_t[3]){a->dtype, a->m, a->k}, cx->rates->l0a);
}

static void copy_l0b(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_COPY_L0B *a = EMU_ARGS(COPY_L0B, op);
    c->to = TS_L0B;
    copy_l0(cx, c, (const int64_t[3]){a->dtype, a->n, a->k}, cx->rates->l0b);
}

/* The unit writes L0 line by line whether a line comes from the map or from the padding. */
static void im2col(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_IM2COL *a = EMU_ARGS(IM2COL, op);
    c->to = cx->section->bufs.data[a->dst].space;
    copy_l0(cx, c, (const int64_t[3]){a->dtype, a->n, a->k}, c->to == TS_L0A ? cx->rates->l0a : cx->rates->l0b);
}

static void copy_bt(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_COPY_BT *a = EMU_ARGS(COPY_BT, op);
    c->unit = TU_MTE1;
    c->from = TS_L1;
    c->to = TS_BT;
    c->bytes = clock_bytes(a->dtype, a->n);
    c->busy = c->bytes ? (double)c->bytes / cx->rates->bt + cx->rates->bt_latency : 0;
}

static void copy_mx(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_COPY_MX *a = EMU_ARGS(COPY_MX, op);
    c->unit = TU_MTE1;
    c->from = TS_L1;
    c->to = cx->section->bufs.data[a->dst].space;
    c->bytes = round_up(a->rows, cx->rates->fractal_rows) * round_up(a->n, 2);
    c->busy = c->bytes && cx->rates->mx > 0 ? (double)c->bytes / cx->rates->mx + cx->rates->mte1_latency : 0;
}

static void mac_of(const struct clock_rates *r, enum dtype t, const int64_t extent[3], struct clock_cost *c)
{
    c->unit = TU_M;
    if (extent[0] <= 0 || extent[1] <= 0 || extent[2] <= 0 || r->k0[t] == 0)
        return;
    c->macs =
        round_up(extent[0], r->fractal_rows) * round_up(extent[1], r->fractal_rows) * round_up(extent[2], r->k0[t]);
    c->busy = r->mac[t] > 0 ? (double)c->macs / r->mac[t] : 0;
    c->head = r->mac_head;
}

static void mac_mx(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_MAC_MX *a = EMU_ARGS(MAC_MX, op);
    mac_of(cx->rates, (enum dtype)a->dtype, (const int64_t[3]){a->m, a->n, a->k}, c);
}

static void mac(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_MAC *a = EMU_ARGS(MAC, op);
    mac_of(cx->rates, (enum dtype)a->dtype, (const int64_t[3]){a->m, a->n, a->k}, c);
}

/* The unit takes the rows of a one by one against mac.columns rows of b. */
static void rows_of(const struct clock_rates *r, int64_t t, const int64_t extent[3], struct clock_cost *c)
{
    c->unit = TU_M;
    if (extent[0] <= 0 || extent[1] <= 0 || extent[2] <= 0 || r->k0[t] == 0)
        return;
    c->macs = round_up(extent[0], 1) * round_up(extent[1], r->mac_columns) * round_up(extent[2], r->k0[t]);
    c->busy = r->mac[t] > 0 ? (double)c->macs / r->mac[t] : 0;
    c->head = r->mac_head;
}

static void mac_rows(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_MAC_ROWS *a = EMU_ARGS(MAC_ROWS, op);
    rows_of(cx->rates, a->dtype, (const int64_t[3]){a->m, a->n, a->k}, c);
}

/* Results leave the unit as they are made: converting them takes no time of its own. */
static void mac_out(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_MAC_OUT *a = EMU_ARGS(MAC_OUT, op);
    rows_of(cx->rates, a->dtype, (const int64_t[3]){a->m, a->n, a->k}, c);
}

static void move_rows(const struct clock_cx *cx, struct clock_cost *c, const int64_t extent[3], double rate)
{
    const int64_t rows = round_up(extent[1], 1), bytes = clock_bytes(extent[0], round_up(extent[2], 1));
    c->unit = TU_MTE1;
    c->bytes = rows * bytes;
    if (c->bytes > 0)
        c->busy = (double)c->bytes / rate + cx->rates->mte1_latency;
}

static void copy_rows(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_COPY_ROWS *a = EMU_ARGS(COPY_ROWS, op);
    c->from = cx->section->bufs.data[a->src].space;
    c->to = cx->section->bufs.data[a->dst].space;
    move_rows(cx, c, (const int64_t[3]){a->dtype, a->rows, a->cols}, cx->rates->l0b);
}

/* What lies together in the map is a burst, of a cycle at least, whether from the map or from the padding: the lines of
 * neighbouring kernel positions where they are dense, else each. */
static void windows(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    const struct emu_WINDOWS *a = EMU_ARGS(WINDOWS, op);
    const bool dense = a->src_row == a->k && a->dilation_w == 1 && a->step_w == 1;
    const double bursts = (double)(round_up(a->n, 1) * a->taps_h * (dense ? 1 : a->taps_w));
    c->from = cx->section->bufs.data[a->src].space;
    c->to = TS_UB;
    const int64_t rows = round_up(a->n, 1) * a->taps_h * a->taps_w;
    move_rows(cx, c, (const int64_t[3]){a->dtype, rows, a->k}, cx->rates->l0a);
    if (c->bytes > 0)
        c->busy = fmax(c->busy, bursts + cx->rates->mte1_latency);
}

static clock_cost_fn *const costs[TILE_OP_END] = {
    [TILE_LOAD] = clock_load,       [TILE_STORE] = clock_store,     [TILE_LOAD_NZ] = clock_load_nz,
    [TILE_LOADX] = clock_loadx,     [TILE_STOREX] = clock_storex,   [TILE_COPY_L0A] = copy_l0a,
    [TILE_IM2COL] = im2col,         [TILE_COPY_L0B] = copy_l0b,     [TILE_COPY_BT] = copy_bt,
    [TILE_MAC_ROWS] = mac_rows,     [TILE_MAC_OUT] = mac_out,       [TILE_COPY_ROWS] = copy_rows,
    [TILE_WINDOWS] = windows,       [TILE_COPY_MX] = copy_mx,       [TILE_MAC_MX] = mac_mx,
    [TILE_FIXP] = clock_fixp,       [TILE_FIXP_NZ] = clock_fixp_nz, [TILE_MAC] = mac,
    [TILE_VEC] = clock_vec,         [TILE_CAST] = clock_cast,       [TILE_RED_ADD] = clock_red_add,
    [TILE_RED_END] = clock_red_end, [TILE_FILL] = clock_fill,       [TILE_IOTA] = clock_iota,
    [TILE_DEQUANT] = clock_dequant, [TILE_TRANSP] = clock_transp,   [TILE_CASTP] = clock_castp,
    [TILE_ORDER] = clock_order,     [TILE_PICK] = clock_pick,       [TILE_COPY_UB] = clock_copy_ub,
    [TILE_LOADC] = clock_loadc,
};

void clock_cost_of(struct clock_cx *cx, const struct emu_op *op, struct clock_cost *c)
{
    c->unit = TU_S;
    c->from = c->to = TS_COUNT;
    c->busy = c->head = c->after = c->after_miss = 0;
    c->hit_cyc = c->miss_cyc = c->bus = c->cap = 0;
    c->bytes = c->macs = 0;
    c->follows = false;
    c->span.tensor = -1; /* the rest of it is for those that move */
    clock_cost_fn *const fn = costs[op->insn->op];
    if (fn)
        fn(cx, op, c);
}
