/* One row times codes. A strip is 16 columns: rows of codes that may belong to different parts. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kernels/loops.h"
#include "kernels/mac_priv.h"
#include "kernels/quant_priv.h"
#include "kernels/wide.h"

enum { COLUMN = 16 }; /* floats of c per column: room for 16 rows */

bool k_mac_takes_code_rows(const struct k_code_rows *w, int64_t first, int64_t k)
{
    return (w->code == DT_U4 || w->code == DT_U8) && (w->to == DT_F16 || w->to == DT_F32) &&
           (w->scale_type == DT_F16 || w->scale_type == DT_F32) && first % 16 == 0 && k % 16 == 0 && w->block % 16 == 0;
}

void k_ask_for(const uint8_t *at, int64_t run, int64_t n, int64_t pitch)
{
    enum { CACHE_LINE = 64 };
    uintptr_t asked = 0;
    for (int64_t i = 0; i < n; i++) {
        const uintptr_t from = (uintptr_t)at + (uintptr_t)(i * pitch), first = from - from % CACHE_LINE;
        const uintptr_t end = from + (uintptr_t)run;
        uintptr_t line = first < asked ? asked : first;
        for (; line < end; line += CACHE_LINE)
            __builtin_prefetch((const void *)line);
        asked = line;
    }
}

/* Any types: a row's values, rounded as k_dequant_rows does, then its sum. */
static void strip_any(const struct k_strip *g)
{
    enum { PART = 256 };
    uint32_t made[PART];
    float value[PART];
    for (int n = 0; n < 16; n++)
        for (int64_t k = 0; k < g->k; k += PART) {
            struct k_code_rows row = *g->w;
            row.first = g->first + k;
            row.cols = g->k - k < PART ? g->k - k : PART;
            row.codes = g->codes[n];
            row.scales = g->scales[n];
            row.zeros = g->zeros[n];
            row.dst = (uint8_t *)made;
            row.group = 0;
            k_dequant_row(&row, 0);
            k_widen(value, row.to, made, 0, row.cols);
            for (int64_t i = 0; i < row.cols; i++)
                g->c[n] = fmaf(g->a[k + i], value[i], g->c[n]);
        }
}

/* One strip, or two whose columns follow each other. */
#ifdef NPUC_SCALAR_ONLY
static void run_strips(const struct k_strip *s, int n)
{
    for (int i = 0; i < n; i++)
        strip_any(&s[i]);
}
#else
static void run_strips(const struct k_strip *s, int n)
{
    const enum k_simd_level level = k_mac_takes_code_rows(s->w, s->first, s->k) ? k_simd() : K_SIMD_NONE;
    if (level >= K_SIMD_AVX512 && k_strips_avx512(s, n))
        return;
    for (int i = 0; i < n; i++)
        if (level < K_SIMD_AVX2 || !k_strip_avx2(&s[i]))
            strip_any(&s[i]);
}
#endif

/* Columns n .. n + 15 of the result: rows of the parts that have them; behind the last one it is repeated. */
static void set_columns(struct k_strip *s, const struct k_code_part *parts, int n_parts, int64_t n, int64_t end)
{
    for (int i = 0; i < n_parts; i++) {
        const struct k_code_part *p = &parts[i];
        const struct k_code_rows *w = p->w;
        const int64_t from = p->n0 > n ? p->n0 - n : 0, last = p->n0 + p->rows - n, to = last < 16 ? last : 16;
        const int64_t zero_row = w->zero == K_ZERO_MIDDLE ? 0 : w->zero_row, row = p->row + n + from - p->n0;
        const uint8_t *codes = w->codes + row * w->code_row, *scales = w->scales + row * w->scale_row;
        const uint8_t *zeros = w->zeros + row * zero_row;
        for (int64_t at = from; at < to; at++, codes += w->code_row, scales += w->scale_row, zeros += zero_row) {
            s->codes[at] = codes;
            s->scales[at] = scales;
            s->zeros[at] = zeros;
        }
    }
    for (int64_t at = end - n; at < 16; at++) {
        s->codes[at] = s->codes[at - 1];
        s->scales[at] = s->scales[at - 1];
        s->zeros[at] = s->zeros[at - 1];
    }
}

void k_mac_codes(const struct k_mac_args *g, const struct k_code_part *parts, int n_parts)
{
    const int64_t c0 = 32 / dtype_size(g->dtype);
    float a[K_STRIP_K], line[K_STRIP_K], *c = g->c;
    for (int64_t n = 0; g->init && n < g->n; n += 16)
        memset(c + n * COLUMN, 0, 16 * sizeof *c);
    for (int64_t k0 = 0; k0 < g->k; k0 += K_STRIP_K) {
        const int64_t k = g->k - k0 < K_STRIP_K ? g->k - k0 : K_STRIP_K;
        for (int64_t i = 0; i < k; i += c0) /* the first of 16 lines of each fractal */
            memcpy((char *)line + i / c0 * 32, (const char *)g->a + (k0 + i) / c0 * 512, 32);
        k_widen(a, g->dtype, line, 0, size_align(k, c0));
        for (int64_t n = 0; n < g->n; n += 32) {
            struct k_strip s[2];
            const int n_strips = n + 16 < g->n ? 2 : 1;
            for (int i = 0; i < n_strips; i++) {
                s[i].w = parts->w;
                s[i].first = parts->k0 + k0;
                s[i].k = k;
                s[i].a = a;
                s[i].c = c + (n + 16 * i) * COLUMN;
                set_columns(&s[i], parts, n_parts, n + 16 * i, g->n);
            }
            run_strips(s, n_strips);
        }
    }
}
