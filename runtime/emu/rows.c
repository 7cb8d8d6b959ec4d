/* The matrix path of machines whose unit takes rows: rows to L0B, windows gathered as rows, and the product. Operands
 * are rows of K on both sides, results rows of f32 or i32. */
#include "runtime/emu/emu_priv.h"

#include "kernels/mac.h"

#include <string.h>

enum { MOST = INT32_MAX };

bool emu_do_mac_rows(struct emu_data *d, struct emu_op *op)
{
    const struct emu_MAC_ROWS *a = EMU_ARGS(MAC_ROWS, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->m, &empty) || empty)
        return size && !d->error[0];
    if (!k_mac_takes_rows((enum dtype)a->dtype) || size > 4)
        return emu_fault(d, op, "no multiply-accumulate of %s", dtype_table[a->dtype].name);
    if (a->k < 0 || a->m > MOST || a->n > MOST || a->k > MOST || a->init < 0 || a->init > 1)
        return emu_fault(d, op, "%lld x %lld x %lld, init %lld", (long long)a->m, (long long)a->n, (long long)a->k,
                         (long long)a->init);
    const struct emu_span sa = emu_rows(a->a_off, a->m, a->a_row, a->k, 1, size),
                          sb = emu_rows(a->b_off, a->n, a->b_row, a->k, 1, size),
                          sc = emu_rows(a->c_off, a->m, a->c_row, a->n, 1, 4);
    const void *pa = emu_buf(d, op, EMU_FIELD(MAC_ROWS, a), &sa, false);
    const void *pb = pa ? emu_buf(d, op, EMU_FIELD(MAC_ROWS, b), &sb, false) : NULL;
    if (!pb || (a->init == 0 && !emu_buf(d, op, EMU_FIELD(MAC_ROWS, c), &sc, false)))
        return false;
    void *pc = emu_buf(d, op, EMU_FIELD(MAC_ROWS, c), &sc, true);
    if (!pc)
        return false;
    const struct k_matmul_args g = {.dtype = (enum dtype)a->dtype,
                                    .m = a->m,
                                    .n = a->n,
                                    .k = a->k,
                                    .a = pa,
                                    .b = pb,
                                    .a_row = a->a_row,
                                    .a_col = 1,
                                    .b_row = 1,
                                    .b_col = a->b_row,
                                    .c = pc,
                                    .c_row = a->c_row,
                                    .adds = a->init == 0};
    k_matmul(&g, NULL);
    return true;
}

/* Row and column extents of the parts that a sum without a buffer of its own is made in. */
enum { PART_ROWS = 24, PART_COLS = EMU_ROW_BYTES / 4 / PART_ROWS };

static bool out_in_range(const struct emu_MAC_OUT *a)
{
    return a->k >= 0 && a->m <= MOST && a->n <= MOST && a->k <= MOST && a->init >= 0 && a->init <= 1 && a->last >= 0 &&
           a->last <= 1;
}

/* Operands of one MAC_OUT, at its first element. */
struct out_rows {
    const struct emu_MAC_OUT *a;
    const uint8_t *x, *w;
    const float *bias;
    uint8_t *sums, *dst; /* NULL: none */
    int32_t size, to;    /* bytes of elements */
    float factor;
};

/* Rows m0.. and columns n0.. of all. `sums`: room for them where no buffer holds them. */
static void out_part(const struct out_rows *o, const int64_t at[2], const int64_t n[2], uint8_t *sums)
{
    const struct emu_MAC_OUT *a = o->a;
    const int64_t row = o->sums ? a->c_row : PART_COLS;
    uint8_t *c = o->sums ? o->sums + (at[0] * a->c_row + at[1]) * 4 : sums;
    const struct k_matmul_args g = {.dtype = (enum dtype)a->dtype,
                                    .m = n[0],
                                    .n = n[1],
                                    .k = a->k,
                                    .a = o->x + at[0] * a->a_row * o->size,
                                    .b = o->w + at[1] * a->b_row * o->size,
                                    .a_row = a->a_row,
                                    .a_col = 1,
                                    .b_row = 1,
                                    .b_col = a->b_row,
                                    .c = c,
                                    .c_row = row,
                                    .adds = a->init == 0};
    k_matmul(&g, NULL);
    for (int64_t r = 0; o->dst && r < n[0]; r++)
        k_mac_out((enum dtype)a->to, o->dst + ((at[0] + r) * a->dst_row + at[1]) * o->to,
                  dtype_is_integer((enum dtype)a->dtype) ? DT_I32 : DT_F32, c + r * row * 4, n[1], o->factor,
                  o->bias ? o->bias + at[1] : NULL);
}

static bool out_operands(struct emu_data *d, struct emu_op *op, struct out_rows *o)
{
    const struct emu_MAC_OUT *a = o->a;
    const struct emu_span sx = emu_rows(a->a_off, a->m, a->a_row, a->k, 1, o->size),
                          sw = emu_rows(a->b_off, a->n, a->b_row, a->k, 1, o->size),
                          sc = emu_rows(a->c_off, a->m, a->c_row, a->n, 1, 4),
                          sb = emu_rows(a->bias_off, 1, 0, a->n, 1, 4),
                          sd = emu_rows(a->dst_off, a->m, a->dst_row, a->n, 1, o->to);
    const int32_t bits = (int32_t)a->factor;
    memcpy(&o->factor, &bits, sizeof bits);
    if (!(o->x = emu_buf(d, op, EMU_FIELD(MAC_OUT, a), &sx, false)) ||
        !(o->w = emu_buf(d, op, EMU_FIELD(MAC_OUT, b), &sw, false)) ||
        (a->last && a->bias >= 0 && !(o->bias = emu_buf(d, op, EMU_FIELD(MAC_OUT, bias), &sb, false))))
        return false;
    if (a->c >= 0 && ((a->init == 0 && !emu_buf(d, op, EMU_FIELD(MAC_OUT, c), &sc, false)) ||
                      !(o->sums = emu_buf(d, op, EMU_FIELD(MAC_OUT, c), &sc, true))))
        return false;
    return !a->last || (o->dst = emu_buf(d, op, EMU_FIELD(MAC_OUT, dst), &sd, true));
}

bool emu_do_mac_out(struct emu_data *d, struct emu_op *op)
{
    const struct emu_MAC_OUT *a = EMU_ARGS(MAC_OUT, op);
    struct out_rows o = {.a = a, .size = emu_esize(d, op, a->dtype), .to = dtype_size((enum dtype)a->to)};
    bool empty;
    if (!o.size || !emu_extents(d, op, 2, &a->m, &empty) || empty)
        return o.size && !d->error[0];
    if (!k_mac_takes_rows((enum dtype)a->dtype) || o.size > 4 || !out_in_range(a))
        return emu_fault(d, op, "%lld x %lld x %lld of %s, init %lld, last %lld", (long long)a->m, (long long)a->n,
                         (long long)a->k, dtype_table[a->dtype].name, (long long)a->init, (long long)a->last);
    if (a->c < 0 && !(a->init && a->last))
        return emu_fault(d, op, "sums between steps without a buffer");
    if (!out_operands(d, op, &o))
        return false;
    for (int64_t m = 0; m < a->m; m += PART_ROWS)
        for (int64_t n = 0; n < a->n; n += PART_COLS) {
            const int64_t at[2] = {m, n}, part[2] = {a->m - m < PART_ROWS ? a->m - m : PART_ROWS,
                                                     a->n - n < PART_COLS ? a->n - n : PART_COLS};
            out_part(&o, at, part, d->row);
        }
    return true;
}

bool emu_do_copy_rows(struct emu_data *d, struct emu_op *op)
{
    const struct emu_COPY_ROWS *a = EMU_ARGS(COPY_ROWS, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->cols, 1, size),
                          dst = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(COPY_ROWS, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(COPY_ROWS, dst), &dst, true) : NULL;
    for (int64_t r = 0; y && r < a->rows; r++)
        memcpy(y + r * a->dst_row * size, x + r * a->src_row * size, (size_t)(a->cols * size));
    return y != NULL;
}

/* The line of the map under kernel position (i, j) of window q, or -1 in the padding. */
static int64_t line_of(const struct emu_WINDOWS *a, int64_t q, int64_t i, int64_t j)
{
    const int64_t y = a->top + i * a->dilation_h + q / a->cols * a->stride_h,
                  x = a->left + j * a->dilation_w + q % a->cols * a->stride_w;
    if (y < 0 || x < 0 || y % a->step_h || x % a->step_w || y / a->step_h >= a->h || x / a->step_w >= a->w)
        return -1;
    return y / a->step_h * a->row_pitch + x / a->step_w;
}

static bool in_range(const struct emu_WINDOWS *a)
{
    const int64_t small[] = {a->n,       a->k,       a->h,      a->w,      a->row_pitch,  a->first,
                             a->src_row, a->dst_row, a->taps_h, a->taps_w, a->dilation_h, a->dilation_w};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(small); i++)
        if (small[i] < 0 || small[i] > MOST)
            return false;
    return a->top >= -(int64_t)MOST && a->top <= MOST && a->left >= -(int64_t)MOST && a->left <= MOST && a->cols >= 1 &&
           a->taps_h * a->taps_w * a->k <= MOST && a->stride_h >= 1 && a->stride_w >= 1 && a->step_h >= 1 &&
           a->step_w >= 1;
}

bool emu_do_windows(struct emu_data *d, struct emu_op *op)
{
    const struct emu_WINDOWS *a = EMU_ARGS(WINDOWS, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    if (!size || !in_range(a))
        return emu_fault(d, op, "%lld windows of %lld channels over a map of %lld x %lld", (long long)a->n,
                         (long long)a->k, (long long)a->h, (long long)a->w);
    if (a->n == 0 || a->k == 0)
        return true;
    const struct emu_span src = {
        a->src_off, {1, a->h, a->w, a->k}, {0, a->row_pitch * a->src_row, a->src_row, 1}, size};
    const int64_t taps = a->taps_h * a->taps_w;
    const struct emu_span dst = emu_rows(a->dst_off, a->n, a->dst_row, taps * a->k, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(WINDOWS, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(WINDOWS, dst), &dst, true) : NULL;
    for (int64_t p = 0; y && p < a->n; p++)
        for (int64_t t = 0; t < taps; t++) {
            const int64_t at = line_of(a, a->first + p, t / a->taps_w, t % a->taps_w);
            uint8_t *row = y + (p * a->dst_row + t * a->k) * size;
            if (at < 0)
                memset(row, 0, (size_t)(a->k * size));
            else
                memcpy(row, x + at * a->src_row * size, (size_t)(a->k * size));
        }
    return y != NULL;
}
