/* Rows of a KV cache as codes. A row is what a token leaves in a cache for a head, `size` numbers in groups of `group`
 * that share a scale, and a zero point when `shifted`. All steps are f32, rounded one by one; T is the type of scales:
 *
 *   symmetric    s = T(max(max |x| / most, tiny))           c = clip(round(x / s), -most - 1, most)      x' = c * s
 *   floats       s as above, most the largest finite one    c = the code nearest to x / s                x' = c * s
 *   shifted      s = T(max((hi - lo) / levels, max(hi, -lo) / 1024, tiny))   z = T(-lo / s)
 *                c = clip(round(x / s + z), 0, levels)                                              x' = (c - z) * s
 *
 * hi, lo: extremes of the group; tiny: the smallest number of T, so that no scale is 0; round: halves to even. A factor
 * of 1/1024 keeps z, which need not be whole, within what T holds. Codes of 4 bits are stored as c, or c + 8 when
 * symmetric, two to a byte: byte j of a row has element j in its low and element j + size/2 in its high bits, so that
 * halves of rows pack and unpack without exchanging lanes.
 *
 * Scales of a row are followed by its zero points.
 *
 * Rows may be turned before they are coded: the row x of a head becomes x times a matrix [size][size] of that head, and
 * back by another one after it is decoded. */
#ifndef KERNELS_CACHE_CODE_H
#define KERNELS_CACHE_CODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

struct k_cache_form {
    enum dtype code;  /* DT_I8, DT_I4 (DT_U8, DT_U4 when shifted), or a float of 8 bits */
    enum dtype scale; /* DT_F16 or DT_BF16 */
    int64_t size, group;
    bool shifted;
};

/* Can rows of `size` numbers be coded so? Packed codes need an even size. */
bool k_cache_takes(enum dtype code, bool shifted, int64_t size);
/* The form with groups of at most `group` elements (0: whole rows) that divide the row, and its halves when they are
 * packed. */
struct k_cache_form k_cache_form_of(enum dtype code, bool shifted, int64_t size, int64_t group, enum dtype scale);
/* What codes are stored as: bytes, `k_cache_row` of them. */
enum dtype k_cache_stored(const struct k_cache_form *f);
int64_t k_cache_row(const struct k_cache_form *f);
int64_t k_cache_scales(const struct k_cache_form *f); /* numbers of type `scale` in a row */
bool k_cache_packed(const struct k_cache_form *f);
float k_cache_most(const struct k_cache_form *f); /* levels when shifted */
float k_cache_tiny(const struct k_cache_form *f);
/* The zero point that codes have when they are not shifted. */
float k_cache_middle(const struct k_cache_form *f);

/* Rows of f32; `work` has room for 2 * size floats. */
void k_cache_encode(const struct k_cache_form *f, const float *x, void *codes, void *scales, float *work);
void k_cache_decode(const struct k_cache_form *f, const void *codes, const void *scales, float *y);
/* y[j] = sum over i ascending of x[i] * matrix[i][j], products and sums rounded to f32 one by one; size numbers each.
 */
void k_cache_turn(const float *x, const float *matrix, int64_t size, float *y);

#endif
