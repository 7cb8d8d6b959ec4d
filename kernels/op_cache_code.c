/* KV caches of codes (npuc): CacheEncode makes one of a cache of floats, CacheAppendCoded writes new rows, coded,
 * behind its last one or at given positions, CacheDecode gives floats. The codes: kernels/cache_code.h.
 *
 * CacheEncode        x [.., size], [turn]                               -> codes, scales
 * CacheAppendCoded   codes, scales, update, [positions], [length]       -> codes, scales; as CacheAppend otherwise
 * CacheDecode        codes, scales, [turn]                              -> [.., size] of type `to`
 *
 * attributes: code, an ONNX element type; zero, whether codes are shifted; group of CacheEncode: elements of a row that
 * share a scale, at most. turn: f32 [heads, size, size], a matrix for each index of the third axis from the end; rows
 * of floats are multiplied by it before they are coded, or after they are decoded. */
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "kernels/cache_code.h"
#include "kernels/op.h"

struct rows_job {
    struct k_cache_form f;
    const struct k_tensor *x; /* floats, dense rows */
    uint8_t *codes, *scales;
    float *work;                 /* per worker: 4 rows */
    const struct k_tensor *turn; /* NULL: none */
    int64_t per_head;            /* rows of a head in a row */
    void *out;                   /* decoded rows */
    enum dtype type;             /* of them */
};

/* Row i by the matrix of its head, into the row behind it; the row itself without matrices. */
static float *turned(const struct rows_job *j, int64_t i, float *row)
{
    if (!j->turn)
        return row;
    const int64_t head = i / j->per_head % j->turn->dims[0], n = j->f.size;
    k_cache_turn(row, (const float *)j->turn->data + head * n * n, n, row + n);
    return row + n;
}

static void encode_row(void *arg, int64_t i, int worker)
{
    const struct rows_job *j = arg;
    float *row = j->work + worker * 4 * j->f.size;
    k_load_f32(row, j->x->dtype, j->x->data, i * j->f.size, j->f.size);
    row = turned(j, i, row);
    k_cache_encode(&j->f, row, j->codes + i * k_cache_row(&j->f), j->scales + i * k_cache_scales(&j->f) * 2,
                   row + j->f.size);
}

static void decode_row(void *arg, int64_t i, int worker)
{
    const struct rows_job *j = arg;
    float *row = j->work + worker * 4 * j->f.size;
    k_cache_decode(&j->f, j->codes + i * k_cache_row(&j->f), j->scales + i * k_cache_scales(&j->f) * 2, row);
    row = turned(j, i, row);
    k_cast(j->type, (uint8_t *)j->out + i * j->f.size * dtype_size(j->type), DT_F32, row, j->f.size, true);
}

static enum npuc_status each_row(struct k_call *c, struct rows_job *j, int64_t rows,
                                 void (*fn)(void *arg, int64_t i, int worker))
{
    j->work = k_scratch(c, pool_threads(c->pool) * 4 * j->f.size, sizeof(float));
    if (!j->work)
        return k_no_memory(c);
    pool_for(c->pool, rows, fn, j);
    return NPUC_OK;
}

static enum npuc_status form_of(struct k_call *c, int64_t size, int64_t group, enum dtype scale, struct k_cache_form *f)
{
    const enum dtype code = dtype_from_onnx(k_attr_int(c, "code", 0));
    const bool shifted = k_attr_int(c, "zero", 0) != 0;
    if (code == DT_NONE || !k_cache_takes(code, shifted, size) || (scale != DT_F16 && scale != DT_BF16))
        return k_fail(c, NPUC_E_INVALID, "rows of %lld numbers cannot be coded so", (long long)size);
    *f = k_cache_form_of(code, shifted, size, group, scale);
    return NPUC_OK;
}

/* Of the rows of `t`, whose last axis gets another length. */
static void *out_rows(struct k_call *c, int i, enum dtype type, const struct k_tensor *t, int64_t last)
{
    int64_t dims[K_MAX_RANK];
    memcpy(dims, t->dims, sizeof dims);
    dims[t->rank - 1] = last;
    return k_out(c, i, type, t->rank, dims);
}

/* x to codes and scales, in the arena when `out` is false. */
static enum npuc_status encode(struct k_call *c, const struct k_tensor *x, struct rows_job *j)
{
    j->x = x;
    return j->codes && j->scales ? each_row(c, j, j->f.size ? k_count(x) / j->f.size : 0, encode_row) : k_no_memory(c);
}

/* Matrices of operand i for the rows of `t`. */
static enum npuc_status read_turn(struct k_call *c, int i, const struct k_tensor *t, struct rows_job *j)
{
    const struct k_tensor *m = k_in(c, i);
    j->turn = m;
    j->per_head = t->rank >= 3 && t->dims[t->rank - 2] > 0 ? t->dims[t->rank - 2] : 1;
    const bool fits = !m || (t->rank >= 3 && m->rank == 3 && m->dtype == DT_F32 && m->dims[0] > 0 &&
                             m->dims[0] == t->dims[t->rank - 3] && m->dims[1] == j->f.size && m->dims[2] == j->f.size);
    return fits ? NPUC_OK : k_fail(c, NPUC_E_INVALID, "matrices that turn rows do not fit the heads of the cache");
}

enum npuc_status k_op_cache_encode(struct k_call *c)
{
    const struct k_tensor *x = k_in(c, 0);
    struct rows_job j = {0};
    if (!x || x->rank < 2 || !dtype_is_float(x->dtype))
        return k_fail(c, NPUC_E_INVALID, "a cache of floats with at least two axes is expected");
    const enum dtype scale = x->dtype == DT_BF16 ? DT_BF16 : DT_F16;
    K_TRY(form_of(c, x->dims[x->rank - 1], k_attr_int(c, "group", 0), scale, &j.f));
    K_TRY(read_turn(c, 1, x, &j));
    j.codes = out_rows(c, 0, k_cache_stored(&j.f), x, k_cache_row(&j.f));
    j.scales = out_rows(c, 1, scale, x, k_cache_scales(&j.f));
    return encode(c, x, &j);
}

/* The form of a cache of codes. */
static enum npuc_status read_form(struct k_call *c, struct k_cache_form *f)
{
    const struct k_tensor *codes = k_in(c, 0), *scales = k_in(c, 1);
    const int bits = dtype_table[dtype_from_onnx(k_attr_int(c, "code", 0))].bits;
    if (!codes || !scales || codes->rank < 2 || codes->rank != scales->rank)
        return k_fail(c, NPUC_E_INVALID, "codes and scales of a cache differ in rank");
    for (int i = 0; i < codes->rank - 1; i++)
        if (codes->dims[i] != scales->dims[i])
            return k_fail(c, NPUC_E_INVALID, "codes and scales of a cache differ in their rows");
    const int64_t size = codes->dims[codes->rank - 1] * (bits == 4 ? 2 : 1);
    const int64_t groups = scales->dims[scales->rank - 1] / (k_attr_int(c, "zero", 0) ? 2 : 1);
    if (groups < 1 || size % groups != 0)
        return k_fail(c, NPUC_E_INVALID, "%lld numbers of a row do not share %lld scales", (long long)size,
                      (long long)groups);
    K_TRY(form_of(c, size, size / groups, scales->dtype, f));
    return f->group * groups == size && codes->dtype == k_cache_stored(f)
               ? NPUC_OK
               : k_fail(c, NPUC_E_INVALID, "codes of another type or groups of another size");
}

enum npuc_status k_op_cache_decode(struct k_call *c)
{
    struct rows_job j = {0};
    K_TRY(read_form(c, &j.f));
    K_TRY(read_turn(c, 2, c->in[0], &j));
    j.codes = c->in[0]->data;
    j.scales = c->in[1]->data;
    j.type = dtype_from_onnx(k_attr_int(c, "to", dtype_table[DT_F32].onnx));
    j.out = out_rows(c, 0, j.type, c->in[0], j.f.size);
    if (!j.out)
        return k_no_memory(c);
    return each_row(c, &j, k_count(&c->out[0]) / j.f.size, decode_row);
}

/* Part i of the cache with rows written into it, as CacheAppend does. */
static enum npuc_status append(struct k_call *c, int i, const struct k_tensor *update)
{
    const struct k_tensor *in[4] = {c->in[i], update, k_in(c, 3), k_in(c, 4)};
    struct k_call one = *c;
    one.in = in;
    one.n_in = 4;
    one.out = &c->out[i];
    one.n_out = 1;
    const enum npuc_status s = k_op_cache_append(&one);
    if (s != NPUC_OK)
        memcpy(c->error, one.error, sizeof c->error);
    return s;
}

enum npuc_status k_op_cache_append_coded(struct k_call *c)
{
    const struct k_tensor *x = k_in(c, 2);
    struct rows_job j = {0};
    K_TRY(read_form(c, &j.f));
    if (!x || x->rank != c->in[0]->rank || x->dims[x->rank - 1] != j.f.size || !dtype_is_float(x->dtype) ||
        !k_has(c, 3, 2))
        return k_fail(c, NPUC_E_INVALID, "new rows do not fit the cache");
    struct k_tensor codes = *x, scales = *x;
    codes.dtype = k_cache_stored(&j.f);
    codes.dims[x->rank - 1] = k_cache_row(&j.f);
    scales.dtype = j.f.scale;
    scales.dims[x->rank - 1] = k_cache_scales(&j.f);
    codes.data = j.codes = k_scratch(c, k_count(&codes) + 1, 1);
    scales.data = j.scales = k_scratch(c, k_count(&scales) + 1, 2);
    codes.size = k_count(&codes);
    scales.size = k_count(&scales) * 2;
    K_TRY(encode(c, x, &j));
    K_TRY(append(c, 0, &codes));
    return append(c, 1, &scales);
}
