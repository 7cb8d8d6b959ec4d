#include "quant/codes.h"

#include <math.h>

#include "base/size.h"

/* Bytes of a row of k codes. */
static int64_t row_bytes(enum dtype t, int64_t k)
{
    return size_ceil_div(k * dtype_table[t].bits, 8);
}

static int64_t groups_of(const struct quant_operand *o, int64_t k)
{
    return o->per == QUANT_PER_GROUP ? size_ceil_div(k, o->group) : 1;
}

static bool is_matrix(const struct k_tensor *t, enum dtype type, int64_t rows, int64_t cols)
{
    return t && t->dtype == type && t->rank == 2 && t->dims[0] == rows && t->dims[1] == cols;
}

static int16_t unpack(enum dtype t, const uint8_t *row, int64_t i)
{
    const int bits = dtype_table[t].bits;
    const int64_t at = i * bits;
    const unsigned two = row[at / 8] | (at % 8 + bits > 8 ? (unsigned)row[at / 8 + 1] << 8 : 0);
    const int code = (int)(two >> at % 8 & ((1U << bits) - 1));
    return (int16_t)(dtype_table[t].cls == DTC_INT && code >> (bits - 1) ? code - (1 << bits) : code);
}

static void pack(enum dtype t, uint8_t *row, int64_t i, int code)
{
    const int bits = dtype_table[t].bits;
    const int64_t at = i * bits;
    const unsigned v = ((unsigned)code & ((1U << bits) - 1)) << at % 8;
    row[at / 8] |= (uint8_t)v;
    if (v >> 8)
        row[at / 8 + 1] |= (uint8_t)(v >> 8);
}

/* Are the scales positive and finite, and the zero points codes? */
static bool sane(const struct quant_operand *o, const struct quant_codes *q, int64_t n)
{
    const int bits = dtype_table[o->codes].bits, least = dtype_table[o->codes].cls == DTC_INT ? -(1 << (bits - 1)) : 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(q->scales[i]) || q->scales[i] <= 0)
            return false;
        if (q->zeros && (q->zeros[i] < least || q->zeros[i] >= least + (1 << bits)))
            return false;
    }
    return true;
}

const char *quant_load_codes(struct quant_store *s, const char *node, const struct quant_operand *o,
                             const struct quant_matrix *w, struct quant_codes *out, struct arena *a)
{
    const struct k_tensor *codes = quant_store_find(s, node, "codes"), *scales = quant_store_find(s, node, "scales"),
                          *zeros = quant_store_find(s, node, "zeros");
    const int64_t groups = groups_of(o, w->k), rows = o->per == QUANT_PER_TENSOR ? 1 : w->channels;
    const int64_t bytes = row_bytes(o->codes, w->k);
    if (!is_matrix(codes, DT_U8, w->channels, bytes) || !is_matrix(scales, DT_F32, rows, groups))
        return "the data file has no codes and scales of its size; was it made for another model or recipe?";
    const bool shifted = o->shifted || dtype_table[o->codes].cls == DTC_UINT;
    if (shifted && !is_matrix(zeros, DT_I16, rows, groups))
        return "the data file has no zero points of its size; was it made for another recipe?";
    *out = (struct quant_codes){.codes = ARENA_ARRAY(a, int16_t, w->channels * w->k + 1),
                                .scales = arena_copy(a, scales->data, scales->size),
                                .zeros = shifted ? arena_copy(a, zeros->data, zeros->size) : NULL,
                                .groups = groups};
    if (!sane(o, out, rows * groups))
        return "the data file has scales that are no positive numbers, or zero points that are no codes";
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->k; i++)
            out->codes[c * w->k + i] = unpack(o->codes, (const uint8_t *)codes->data + c * bytes, i);
    return NULL;
}

bool quant_save_codes(struct quant_store_writer *s, const char *node, const struct quant_operand *o,
                      const struct quant_matrix *w, const struct quant_codes *codes, struct arena *a)
{
    const int64_t rows = o->per == QUANT_PER_TENSOR ? 1 : w->channels, bytes = row_bytes(o->codes, w->k);
    uint8_t *packed = arena_zalloc(a, w->channels * bytes + 1);
    if (!packed)
        return false;
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->k; i++)
            pack(o->codes, packed + c * bytes, i, codes->codes[c * w->k + i]);
    const struct k_tensor all = {DT_U8, 2, {w->channels, bytes}, packed, w->channels * bytes, K_TENSOR};
    const int64_t n = rows * codes->groups;
    const struct k_tensor scales = {DT_F32, 2, {rows, codes->groups}, codes->scales, n * 4, K_TENSOR};
    const struct k_tensor zeros = {DT_I16, 2, {rows, codes->groups}, codes->zeros, n * 2, K_TENSOR};
    quant_store_put(s, node, "codes", &all);
    quant_store_put(s, node, "scales", &scales);
    if (codes->zeros)
        quant_store_put(s, node, "zeros", &zeros);
    return true;
}
