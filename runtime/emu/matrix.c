/* The matrix path: L1 to L0A, L0B and BT, multiply-accumulate, and L0C to GM. Fractals are 16 rows of 32 bytes. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"
#include "kernels/mac.h"
#include "kernels/vec.h"

#include <string.h>

/* A block of `rows` x `k` elements on its way to L0. Row r, column k of the block goes to fractal number(r/16, k/c0).
 */
struct l0_copy {
    uint8_t *dst;
    const uint8_t *src;
    int64_t pitch, rows, k, c0;
    int64_t step_row, step_k; /* fractals from one row (column) of fractals to the next */
    int32_t size;             /* bytes of an element; 0: two to a byte */
};

/* Lines of 32 bytes: most copies are one line, where the start of a general copy would cost more than the line. */
static void copy_lines(uint8_t *y, const uint8_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(y + i * 32, x + i * 32, 32);
}

static void copy_straight(const struct l0_copy *g)
{
    const int64_t fractal = 512, line = 32;
    for (int64_t k1 = 0; k1 * g->c0 < g->k; k1++) {
        const uint8_t *x = g->src + k1 * g->pitch * line;
        uint8_t *y = g->dst + k1 * g->step_k * fractal;
        if (g->step_row == 1 || g->rows <= 16) { /* one after the other on both sides */
            copy_lines(y, x, g->rows);
            continue;
        }
        for (int64_t r = 0; r < g->rows; r += 16)
            copy_lines(y + r / 16 * g->step_row * fractal, x + r * line, g->rows - r < 16 ? g->rows - r : 16);
    }
}

/* The source block is k rows x `rows` columns: groups of c0 columns, each k lines long. */
static void copy_transposed(const struct l0_copy *g)
{
    const int64_t fractal = 512, line = 32, wide = g->c0 < 16 ? g->c0 : 16;
    for (int64_t k0 = 0; k0 < g->k; k0 += g->c0) {
        const int64_t n_k = g->k - k0 < g->c0 ? g->k - k0 : g->c0;
        for (int64_t r = 0; r < g->rows; r += wide) {
            const int64_t n_r = g->rows - r < wide ? g->rows - r : wide;
            const uint8_t *x = g->src + (r / g->c0 * g->pitch + k0) * line + r % g->c0 * g->size;
            uint8_t *y = g->dst + (r / 16 * g->step_row + k0 / g->c0 * g->step_k) * fractal + r % 16 * line;
            if (n_k < g->c0)
                memset(y, 0, (size_t)(n_r * line));
            emu_transpose(y, g->c0, x, g->c0, n_k, n_r, g->size);
        }
    }
}

/* The same for codes of 4 bits: a line holds 64 of them, the even ones in the low bits. */
static void copy_transposed_codes(const struct l0_copy *g)
{
    for (int64_t r = 0; r < g->rows; r++)
        for (int64_t k0 = 0; k0 < g->k; k0 += g->c0) {
            const int64_t n = g->k - k0 < g->c0 ? g->k - k0 : g->c0;
            const uint8_t *x = g->src + (r / g->c0 * g->pitch + k0) * 32 + r % g->c0 / 2;
            uint8_t *y = g->dst + (r / 16 * g->step_row + k0 / g->c0 * g->step_k) * 512 + r % 16 * 32;
            memset(y, 0, 32);
            for (int64_t k = 0; k < n; k++)
                y[k / 2] |= (uint8_t)((x[k * 32] >> (r % 2 * 4) & 15) << (k % 2 * 4));
        }
}

/* Whole fractals of columns stand in L1 as they do in L0B, k1 groups of them. */
static bool show_l0b(struct emu_data *d, const struct emu_op *op, int64_t k1)
{
    const struct emu_COPY_L0B *a = EMU_ARGS(COPY_L0B, op);
    const struct emu_groups g = {a->src_off * dtype_size((enum dtype)a->dtype), a->n * 32, k1, a->pitch * 32};
    return emu_view_copy(d, op, EMU_FIELD(COPY_L0B, dst), EMU_FIELD(COPY_L0B, src), &g);
}

/* The fields of COPY_L0A; COPY_L0B has the same in the same order. */
static bool copy_l0(struct emu_data *d, struct emu_op *op, bool is_a)
{
    const struct emu_COPY_L0A *a = EMU_ARGS(COPY_L0A, op);
    _Static_assert(sizeof(struct emu_COPY_L0A) == sizeof(struct emu_COPY_L0B), "the two copies share their operands");
    const int bits = dtype_table[a->dtype].bits;
    bool empty;
    if (!emu_extents(d, op, 2, &a->m, &empty) || empty)
        return !d->error[0];
    if ((bits != 4 && bits % 8) || bits > 32 || a->m > INT32_MAX || a->k > INT32_MAX || a->pitch < 0 ||
        a->pitch > INT32_MAX)
        return emu_fault(d, op, "a block of %lld x %lld at a pitch of %lld", (long long)a->m, (long long)a->k,
                         (long long)a->pitch);
    const int64_t c0 = 32 * 8 / bits, m1 = size_ceil_div(a->m, 16), k1 = size_ceil_div(a->k, c0);
    if (a->src_off < 0 || a->src_off > INT32_MAX || a->src_off * bits % 8)
        return emu_fault(d, op, "element %lld begins no byte of a buffer", (long long)a->src_off);
    /* spans in bytes: a line of a fractal has 32 of them, whatever the element */
    const struct emu_span dst = emu_rows(0, m1 * k1, 512, 512, 1, 1);
    const struct emu_span src = {a->src_off * bits / 8,
                                 {1, a->trans ? size_ceil_div(a->m, c0) : k1, a->trans ? a->k : a->m, 32},
                                 {0, a->pitch * 32, 32, 1},
                                 1};
    const uint8_t *x = emu_buf_unsettled(d, op, EMU_FIELD(COPY_L0A, src), &src, false);
    uint8_t *y = x ? emu_buf_unsettled(d, op, EMU_FIELD(COPY_L0A, dst), &dst, true) : NULL;
    if (!y)
        return false;
    if (!is_a && !a->trans && bits >= 8 && a->m % 16 == 0 && show_l0b(d, op, k1))
        return true;
    emu_view_settle(d, op, EMU_FIELD(COPY_L0A, src));
    emu_view_settle(d, op, EMU_FIELD(COPY_L0A, dst));
    const struct l0_copy g = {y, x, a->pitch, a->m, a->k, c0, is_a ? k1 : 1, is_a ? 1 : m1, bits / 8};
    if (a->trans)
        bits < 8 ? copy_transposed_codes(&g) : copy_transposed(&g);
    else
        copy_straight(&g);
    return true;
}

bool emu_do_copy_l0a(struct emu_data *d, struct emu_op *op)
{
    return copy_l0(d, op, true);
}

bool emu_do_copy_l0b(struct emu_data *d, struct emu_op *op)
{
    return copy_l0(d, op, false);
}

bool emu_do_copy_bt(struct emu_data *d, struct emu_op *op)
{
    const struct emu_COPY_BT *a = EMU_ARGS(COPY_BT, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 1, &a->n, &empty) || empty)
        return size && !d->error[0];
    const struct emu_span src = emu_rows(a->src_off, 1, 0, a->n, 1, size), dst = emu_rows(0, 1, 0, a->n, 1, size);
    const void *x = emu_buf(d, op, EMU_FIELD(COPY_BT, src), &src, false);
    void *y = x ? emu_buf(d, op, EMU_FIELD(COPY_BT, dst), &dst, true) : NULL;
    if (!y)
        return false;
    memcpy(y, x, (size_t)(a->n * size));
    return true;
}

bool emu_do_copy_mx(struct emu_data *d, struct emu_op *op)
{
    const struct emu_COPY_MX *a = EMU_ARGS(COPY_MX, op);
    bool empty;
    if (!emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return !d->error[0];
    if (a->rows > INT32_MAX || a->n > INT32_MAX)
        return emu_fault(d, op, "%lld x %lld scales", (long long)a->rows, (long long)a->n);
    const int64_t pairs = size_ceil_div(a->n, 2);
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->n, a->src_col, 1);
    const struct emu_span dst = emu_rows(0, 1, 0, size_ceil_div(a->rows, 16) * pairs * 32, 1, 1);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(COPY_MX, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(COPY_MX, dst), &dst, true) : NULL;
    for (int64_t r = 0; y && r < a->rows; r++)
        for (int64_t j = 0; j < a->n; j++)
            y[(r / 16 * pairs + j / 2) * 32 + r % 16 * 2 + j % 2] = x[r * a->src_row + j * a->src_col];
    return y != NULL;
}

struct mac_extents {
    int64_t m1, n1, k1, c0;
};

/* Starting values of m x n from the bias table that field `bt` names. */
static bool start_from_bias(struct emu_data *d, struct emu_op *op, int bt, uint8_t *c, const int64_t size[2],
                            const struct mac_extents *e)
{
    if (op->arg[bt] < 0)
        return emu_fault(d, op, "starts from a bias without a bias table");
    const struct emu_span s = emu_rows(0, 1, 0, size[1], 1, 4);
    const uint8_t *bias = emu_buf(d, op, bt, &s, false);
    for (int64_t n = 0; bias && n < size[1]; n += 16) {
        const size_t bytes = (size_t)((size[1] - n < 16 ? size[1] - n : 16) * 4);
        for (int64_t m = 0; m < size[0]; m++)
            memcpy(c + (n / 16 * e->m1 * 16 + m) * 64, bias + n * 4, bytes);
    }
    return bias != NULL;
}

/* Only the real rows of A are read: the rest of its last fractals may hold anything. */
static const void *mac_a(struct emu_data *d, struct emu_op *op, const struct mac_extents *e, int32_t size)
{
    const struct emu_MAC *a = EMU_ARGS(MAC, op);
    const int64_t fractal = 16 * e->c0, whole = a->m / 16, rest = a->m % 16;
    const struct emu_span body = emu_rows(0, 1, 0, whole * e->k1 * fractal, 1, size);
    const struct emu_span tail = emu_rows(whole * e->k1 * fractal, e->k1, fractal, rest * e->c0, 1, size);
    const void *p = emu_buf(d, op, EMU_FIELD(MAC, a), &body, false);
    return p && emu_buf(d, op, EMU_FIELD(MAC, a), &tail, false) ? p : NULL;
}

/* B where it is, some of it maybe still codes: the pitch is in bytes, 0 when the groups of fractals follow each other.
 */
static const void *mac_b(struct emu_data *d, struct emu_op *op, const struct mac_extents *e, const struct emu_span *s,
                         int64_t *pitch)
{
    const struct emu_groups g = {0, e->n1 * 512, e->k1, e->n1 * 512};
    const void *p = emu_buf_unsettled(d, op, EMU_FIELD(MAC, b), s, false);
    const void *shown = p ? emu_view_find(d, op, EMU_FIELD(MAC, b), &g, pitch) : NULL;
    if (p && !shown)
        emu_view_settle(d, op, EMU_FIELD(MAC, b));
    return shown ? shown : p;
}

static void multiply(struct emu_block *b, const struct k_mac_args *g, int64_t pitch)
{
    struct k_code_part part[EMU_SHADOW_PARTS];
    const int n = emu_made_parts(b, g, pitch, part);
    if (n > 0) {
        k_mac_codes(g, part, n);
        return;
    }
    const int64_t c0 = 32 / dtype_size(g->dtype);
    emu_made_now(b, &(struct emu_runs){g->b, size_align(g->n, 16) * 32, size_ceil_div(g->k, c0), pitch});
    k_mac_fractal(g);
}

bool emu_do_mac(struct emu_data *d, struct emu_op *op)
{
    const struct emu_MAC *a = EMU_ARGS(MAC, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->m, &empty) || empty)
        return size && !d->error[0];
    if (!k_mac_supports((enum dtype)a->dtype) || size > 4)
        return emu_fault(d, op, "no multiply-accumulate of %s", dtype_table[a->dtype].name);
    if (a->k < 0 || a->m > INT32_MAX || a->n > INT32_MAX || a->k > INT32_MAX || a->init < 0 || a->init > 2)
        return emu_fault(d, op, "%lld x %lld x %lld, init %lld", (long long)a->m, (long long)a->n, (long long)a->k,
                         (long long)a->init);
    const int64_t c0 = 32 / size;
    const struct mac_extents e = {size_ceil_div(a->m, 16), size_ceil_div(a->n, 16), size_ceil_div(a->k, c0), c0};
    const struct emu_span sb = emu_rows(0, e.k1, e.n1 * 16 * c0, a->n * c0, 1, size),
                          sc = emu_rows(0, e.n1, e.m1 * 256, a->m * 16, 1, 4);
    const void *pa = mac_a(d, op, &e, size);
    int64_t b_pitch = 0;
    const void *pb = pa ? mac_b(d, op, &e, &sb, &b_pitch) : NULL;
    if (!pb || (a->init == 0 && !emu_buf(d, op, EMU_FIELD(MAC, c), &sc, false)))
        return false;
    uint8_t *pc = emu_buf(d, op, EMU_FIELD(MAC, c), &sc, true);
    if (!pc || (a->init == 2 && !start_from_bias(d, op, EMU_FIELD(MAC, bt), pc, (const int64_t[2]){a->m, a->n}, &e)))
        return false;
    const struct k_mac_args g = {(enum dtype)a->dtype, a->m, a->n, a->k, pa, pb, pc, a->init == 1, b_pitch / size};
    multiply(d->block, &g, b_pitch ? b_pitch : e.n1 * 512);
    return true;
}

/* Codes and scales of one operand of MAC_MX, in bytes. by_row: fractals of a row of fractals lie one after the other.
 */
struct mx_side {
    int codes, scales; /* fields */
    int64_t rows;
    bool by_row;
};
static bool mx_operand(struct emu_data *d, const struct emu_op *op, const struct mx_side *x, const int64_t k[2],
                       const uint8_t *at[2])
{
    const int64_t r1 = size_ceil_div(x->rows, 16), whole = x->rows / 16, rest = x->rows % 16, k1 = k[0];
    const struct emu_span columns = emu_rows(0, k1, r1 * 512, x->rows * 32, 1, 1);
    const struct emu_span body = emu_rows(0, 1, 0, whole * k1 * 512, 1, 1);
    const struct emu_span tail = emu_rows(whole * k1 * 512, k1, 512, rest * 32, 1, 1);
    const struct emu_span scales = emu_rows(0, 1, 0, r1 * size_ceil_div(k[1], 2) * 32, 1, 1);
    at[0] = emu_buf(d, op, x->codes, x->by_row ? &body : &columns, false);
    if (!at[0] || (x->by_row && !emu_buf(d, op, x->codes, &tail, false)))
        return false;
    at[1] = emu_buf(d, op, x->scales, &scales, false);
    return at[1] != NULL;
}

bool emu_do_mac_mx(struct emu_data *d, struct emu_op *op)
{
    const struct emu_MAC_MX *a = EMU_ARGS(MAC_MX, op);
    const enum dtype ta = (enum dtype)a->dtype, tb = (enum dtype)a->b_dtype;
    const uint8_t *pa[2], *pb[2];
    bool empty;
    if (!emu_extents(d, op, 2, &a->m, &empty) || empty)
        return !d->error[0];
    if (!k_mac_takes_scales(ta) || !k_mac_takes_scales(tb) || dtype_table[ta].bits != dtype_table[tb].bits)
        return emu_fault(d, op, "no multiply-accumulate of %s and %s", dtype_table[ta].name, dtype_table[tb].name);
    if (a->k < 0 || a->m > INT32_MAX || a->n > INT32_MAX || a->k > INT32_MAX || a->init < 0 || a->init > 2)
        return emu_fault(d, op, "%lld x %lld x %lld, init %lld", (long long)a->m, (long long)a->n, (long long)a->k,
                         (long long)a->init);
    const int64_t k[2] = {size_ceil_div(a->k, 256 / dtype_table[ta].bits), size_ceil_div(a->k, a->block)};
    const struct mx_side sa = {EMU_FIELD(MAC_MX, a), EMU_FIELD(MAC_MX, a_scale), a->m, true};
    const struct mx_side sb = {EMU_FIELD(MAC_MX, b), EMU_FIELD(MAC_MX, b_scale), a->n, false};
    if (!mx_operand(d, op, &sa, k, pa) || !mx_operand(d, op, &sb, k, pb))
        return false;
    const struct mac_extents e = {size_ceil_div(a->m, 16), size_ceil_div(a->n, 16), k[0], 0};
    const struct emu_span sc = emu_rows(0, e.n1, e.m1 * 256, a->m * 16, 1, 4);
    if (a->init == 0 && !emu_buf(d, op, EMU_FIELD(MAC_MX, c), &sc, false))
        return false;
    uint8_t *pc = emu_buf(d, op, EMU_FIELD(MAC_MX, c), &sc, true);
    if (!pc || (a->init == 2 && !start_from_bias(d, op, EMU_FIELD(MAC_MX, bt), pc, (const int64_t[2]){a->m, a->n}, &e)))
        return false;
    const struct k_mac_args g = {
        .dtype = ta, .m = a->m, .n = a->n, .k = a->k, .a = pa[0], .b = pb[0], .c = pc, .init = a->init == 1};
    const struct k_mac_scales s = {tb, a->block, pa[1], pb[1]};
    k_mac_scaled(&g, &s);
    return true;
}

/* One row of at most EMU_ROW_BYTES / 4 columns, gathered into `y`: relu, then scale; the result is f32 when scaled,
 * else `from`. */
struct fix_row {
    const uint8_t *c; /* element (row, first column) */
    int64_t pitch, cols;
    const float *scale; /* of the first column, or NULL */
    enum dtype from;
    bool relu;
};
static enum dtype fix_row(void *y, const struct fix_row *f)
{
    const int64_t whole = f->cols & ~(int64_t)15;
    for (int64_t c = 0; c < whole; c += 16)
        memcpy((uint8_t *)y + c * 4, f->c + c / 16 * f->pitch * 64, 64);
    if (whole < f->cols)
        memcpy((uint8_t *)y + whole * 4, f->c + whole / 16 * f->pitch * 64, (size_t)(f->cols - whole) * 4);
    if (f->relu) {
        int32_t *w = y;
        float *v = y;
        for (int64_t c = 0; c < f->cols; c++) {
            if (f->from == DT_I32)
                w[c] = w[c] < 0 ? 0 : w[c];
            else
                v[c] = v[c] < 0 ? 0 : v[c];
        }
    }
    if (!f->scale)
        return f->from;
    if (f->from == DT_I32)
        k_cast(DT_F32, y, DT_I32, y, f->cols, true);
    k_scale_f32(y, f->scale, f->cols);
    return DT_F32;
}

/* The accumulators of an instruction: whole fractals, then the columns of the last one. */
static const uint8_t *fix_source(struct emu_data *d, struct emu_op *op, int field, int64_t rows, int64_t cols,
                                 int64_t pitch)
{
    const int64_t whole = cols / 16, rest = cols % 16;
    const struct emu_span body = {0, {1, whole, rows, 16}, {0, pitch * 16, 16, 1}, 4};
    const struct emu_span tail = {whole * pitch * 16, {1, 1, rows, rest}, {0, 0, 16, 1}, 4};
    const uint8_t *c = emu_buf(d, op, field, &body, false);
    return c && emu_buf(d, op, field, &tail, false) ? c : NULL;
}

bool emu_do_fixp_nz(struct emu_data *d, struct emu_op *op)
{
    const struct emu_FIXP_NZ *a = EMU_ARGS(FIXP_NZ, op);
    const int32_t size = emu_esize(d, op, a->to);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    if ((a->from != DT_F32 && a->from != DT_I32) || size > 4 || a->pitch < 0 || a->pitch > INT32_MAX)
        return emu_fault(d, op, "results of type %s at a pitch of %lld", dtype_table[a->from].name,
                         (long long)a->pitch);
    const int64_t c0 = a->block == 8 ? 8 : 16, blocks = size_ceil_div(a->cols, c0);
    const struct emu_span dst = {a->dst_off, {1, blocks, a->rows, c0}, {0, a->dst_block, c0, 1}, size};
    const struct emu_span factors = emu_rows(a->scale_off, 1, 0, a->cols, 1, 4);
    const uint8_t *c = fix_source(d, op, EMU_FIELD(FIXP_NZ, src), a->rows, a->cols, a->pitch);
    const float *scale = c && a->scale >= 0 ? emu_gm(d, op, EMU_FIELD(FIXP_NZ, scale), &factors, false) : NULL;
    uint8_t *y = c && (a->scale < 0 || scale) ? emu_gm(d, op, EMU_FIELD(FIXP_NZ, dst), &dst, true) : NULL;
    for (int64_t b = 0; y && b < blocks; b++)
        for (int64_t r = 0; r < a->rows; r++) {
            const int64_t at = b * c0, n = a->cols - at < c0 ? a->cols - at : c0;
            const struct fix_row f = {c + (at / 16 * a->pitch + r) * 64 + at % 16 * 4,
                                      a->pitch,
                                      n,
                                      scale ? scale + at : NULL,
                                      (enum dtype)a->from,
                                      a->relu != 0};
            uint8_t *line = y + (b * a->dst_block + r * c0) * size;
            const enum dtype t = fix_row(d->row, &f);
            k_cast((enum dtype)a->to, line, t, d->row, n, true);
            memset(line + n * size, 0, (size_t)((c0 - n) * size));
        }
    return y != NULL;
}

bool emu_do_fixp(struct emu_data *d, struct emu_op *op)
{
    const struct emu_FIXP *a = EMU_ARGS(FIXP, op);
    const int32_t size = emu_esize(d, op, a->to);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    if ((a->from != DT_F32 && a->from != DT_I32) || a->pitch < 0 || a->pitch > INT32_MAX)
        return emu_fault(d, op, "results of type %s at a pitch of %lld", dtype_table[a->from].name,
                         (long long)a->pitch);
    const struct emu_span dst = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, size);
    const struct emu_span factors = emu_rows(a->scale_off, 1, 0, a->cols, 1, 4);
    const uint8_t *c = fix_source(d, op, EMU_FIELD(FIXP, src), a->rows, a->cols, a->pitch);
    if (!c)
        return false;
    const float *scale = a->scale >= 0 ? emu_gm(d, op, EMU_FIELD(FIXP, scale), &factors, false) : NULL;
    uint8_t *y = a->scale < 0 || scale ? emu_gm(d, op, EMU_FIELD(FIXP, dst), &dst, true) : NULL;
    for (int64_t r = 0; y && r < a->rows; r++)
        for (int64_t at = 0; at < a->cols; at += EMU_ROW_BYTES / 4) {
            const int64_t n = a->cols - at < EMU_ROW_BYTES / 4 ? a->cols - at : EMU_ROW_BYTES / 4;
            const struct fix_row f = {c + (at / 16 * a->pitch + r) * 64,
                                      a->pitch,
                                      n,
                                      scale ? scale + at : NULL,
                                      (enum dtype)a->from,
                                      a->relu != 0};
            const enum dtype t = fix_row(d->row, &f);
            k_cast((enum dtype)a->to, y + (r * a->dst_row + at) * size, t, d->row, n, true);
        }
    return y != NULL;
}
