/* k_vec: rows of any dtype through the contiguous loops. Operands that are not already float (double, 64-bit) with unit
 * stride are widened chunk by chunk into buffers on the stack; so is a result that is narrower. */
#include "kernels/vec.h"

#include <string.h>

#include "kernels/loops.h"
#include "kernels/wide.h"

enum { CHUNK = 512 };

enum types { TY_FLOATS = 1, TY_INTS = 2, TY_BOOLS = 4, TY_NUMERIC = 3, TY_NUMBOOL = 7, TY_ANY = 8 };
struct row {
    struct k_fn_info info;
    unsigned types;
};
#define P0      0
#define P1(...) 1
#define P2(...) 2
#define P3(...) 3
#define I2(...) 2
#define FORMULA(number, nm, ar, res, ty, params, al, comm, ...)                                                        \
    [number] = {{.name = #nm,                                                                                          \
                 .arity = (ar),                                                                                        \
                 .result = K_RESULT_##res,                                                                             \
                 .n_params = params,                                                                                   \
                 .alu = (al),                                                                                          \
                 .commutative = (comm)},                                                                               \
                TY_##ty},
static const struct row table[K_FN_end] = {
#include "kernels/formula.def"
};
#undef FORMULA

const struct k_fn_info *k_fn_info(enum k_fn fn)
{
    return (unsigned)fn < K_FN_end && table[fn].info.name ? &table[fn].info : NULL;
}
bool k_fn_supports(enum k_fn fn, enum dtype t)
{
    if (!k_fn_info(fn) || dtype_size(t) == 0)
        return false;
    const unsigned types = table[fn].types;
    if (types & TY_ANY)
        return true;
    if (dtype_is_float(t))
        return (types & TY_FLOATS) && t != DT_F8E8M0;
    if (t == DT_BOOL)
        return types & TY_BOOLS;
    return dtype_is_integer(t) && (types & TY_INTS);
}

static enum k_simd_level simd_limit = K_SIMD_LEVELS - 1;
enum k_simd_level k_simd(void)
{
#ifdef NPUC_SCALAR_ONLY
    return K_SIMD_NONE;
#else
    if (simd_limit >= K_SIMD_AVX512 && npuc_cpu_has_avx512())
        return K_SIMD_AVX512;
    return simd_limit >= K_SIMD_AVX2 && npuc_cpu_has_avx2() ? K_SIMD_AVX2 : K_SIMD_NONE;
#endif
}
void k_simd_limit(enum k_simd_level at_most)
{
    simd_limit = at_most;
}

static k_loop_f32 *const *loops_f32(void)
{
#ifdef NPUC_SCALAR_ONLY
    return k_loops_f32;
#else
    static k_loop_f32 *const *const of_level[K_SIMD_LEVELS] = {k_loops_f32, k_loops_f32_avx2, k_loops_f32_avx512};
    return of_level[k_simd()];
#endif
}

/* One call of k_vec, prepared. */
struct job {
    enum dtype t, result;
    enum k_wide wide;
    int n_args;
    int64_t rows, cols;
    char *dst;
    int64_t dst_row;
    struct k_rows arg[3];
    float params[3];
    k_loop_f32 *f32;
    k_loop_f64 *f64;
    k_loop_int *whole;
};
union chunk {
    float f[CHUNK];
    double d[CHUNK];
    uint64_t u[CHUNK];
};

/* All rows as one when they follow each other in memory. */
static void flatten(struct job *j)
{
    if (j->rows == 1 || j->dst_row != j->cols)
        return;
    for (int i = 0; i < j->n_args; i++)
        if (j->arg[i].row != (j->arg[i].col ? j->cols : 0))
            return;
    j->cols *= j->rows;
    j->rows = 1;
}

/* The first of a chunk as often as loops read it. */
static void fill(enum k_wide w, union chunk *c, int64_t width)
{
    const int64_t n = w == K_WIDE_F32 || w == K_WIDE_F64 ? K_SAME : width;
    const float f = c->f[0];
    const uint64_t u = c->u[0];
    if (w == K_WIDE_F32)
        for (int64_t i = 1; i < n; i++)
            c->f[i] = f;
    else
        for (int64_t i = 1; i < n; i++)
            c->u[i] = u;
}

static void run_loop(const struct job *j, void *dst, const void *const x[3], int64_t n)
{
    const int64_t of[3] = {-(j->arg[0].col != 0), -(j->arg[1].col != 0), -(j->arg[2].col != 0)};
    if (j->wide == K_WIDE_F32)
        j->f32(&(struct k_span_f32){dst, x[0], x[1], x[2], n, j->params, {of[0], of[1], of[2]}});
    else if (j->wide == K_WIDE_F64)
        j->f64(&(struct k_span_f64){dst, x[0], x[1], x[2], n, j->params, {of[0], of[1], of[2]}});
    else
        j->whole(&(struct k_span_int){dst, x[0], x[1], x[2], n, j->params});
}

/* Stores a chunk of carriers as j->result (bool results are 1 and 0 of the carrier). */
static void put(const struct job *j, char *dst, const union chunk *c, int64_t n)
{
    if (j->result != DT_BOOL || j->t == DT_BOOL) {
        k_narrow(j->result, dst, 0, c, n, true);
        return;
    }
    uint8_t *y = (uint8_t *)dst;
    if (j->wide == K_WIDE_F32)
        for (int64_t i = 0; i < n; i++)
            y[i] = c->f[i] != 0;
    else if (j->wide == K_WIDE_F64)
        for (int64_t i = 0; i < n; i++)
            y[i] = c->d[i] != 0;
    else
        for (int64_t i = 0; i < n; i++)
            y[i] = c->u[i] != 0;
}

static void run_row(const struct job *j, int64_t r, union chunk *out, union chunk buf[3])
{
    const int size = dtype_size(j->t), out_size = dtype_size(j->result);
    const bool native = k_wide_size(j->wide) == size && j->t != DT_BOOL;
    char *dst = j->dst + r * j->dst_row * out_size;
    const int64_t width = j->cols < CHUNK ? j->cols : CHUNK;
    for (int i = 0; i < j->n_args; i++)
        if (!j->arg[i].col) {
            k_widen(&buf[i], j->t, j->arg[i].p, r * j->arg[i].row, 1);
            fill(j->wide, &buf[i], width);
        }
    for (int64_t at = 0; at < j->cols; at += CHUNK) {
        const int64_t n = j->cols - at < CHUNK ? j->cols - at : CHUNK;
        const void *x[3] = {0};
        for (int i = 0; i < j->n_args; i++) {
            const char *p = (const char *)j->arg[i].p + (r * j->arg[i].row + at) * size;
            x[i] = native && j->arg[i].col ? (const void *)p : (const void *)&buf[i];
            if (!native && j->arg[i].col)
                k_widen(&buf[i], j->t, p, 0, n);
        }
        if (native && j->result == j->t) {
            run_loop(j, dst + at * out_size, x, n);
        } else {
            run_loop(j, out, x, n);
            put(j, dst + at * out_size, out, n);
        }
    }
}

#define SELECT(T)                                                                                                      \
    for (int64_t c = 0; c < j->cols; c++)                                                                              \
        ((T *)y)[c] = cond[c * j->arg[0].col] ? ((const T *)a)[c * j->arg[1].col] : ((const T *)b)[c * j->arg[2].col];
static void select_row(const struct job *j, int64_t r)
{
    const int size = dtype_size(j->t);
    const uint8_t *cond = (const uint8_t *)j->arg[0].p + r * j->arg[0].row;
    const void *a = (const char *)j->arg[1].p + r * j->arg[1].row * size;
    const void *b = (const char *)j->arg[2].p + r * j->arg[2].row * size;
    void *y = j->dst + r * j->dst_row * size;
    if (size == 1) {
        SELECT(uint8_t)
    } else if (size == 2) {
        SELECT(uint16_t)
    } else if (size == 4) {
        SELECT(uint32_t)
    } else if (size == 8) {
        SELECT(uint64_t)
    } else {
        for (int64_t c = 0; c < j->cols; c++)
            memcpy((char *)y + c * size,
                   cond[c * j->arg[0].col] ? (const char *)a + c * j->arg[1].col * size
                                           : (const char *)b + c * j->arg[2].col * size,
                   (size_t)size);
    }
}
static void copy_row(const struct job *j, int64_t r)
{
    const int size = dtype_size(j->t);
    const char *x = (const char *)j->arg[0].p + r * j->arg[0].row * size;
    char *y = j->dst + r * j->dst_row * size;
    if (j->arg[0].col)
        memmove(y, x, (size_t)(j->cols * size));
    else
        for (int64_t c = 0; c < j->cols; c++)
            memcpy(y + c * size, x, (size_t)size);
}

void k_vec(enum k_fn fn, enum dtype t, int64_t rows, int64_t cols, void *dst, int64_t dst_row,
           const struct k_rows arg[3], const float *params)
{
    if (rows <= 0 || cols <= 0)
        return;
    const struct k_fn_info *info = k_fn_info(fn);
    NPUC_ASSERT(info && k_fn_supports(fn, t));
    struct job j = {.t = t,
                    .result = info->result == K_RESULT_BOOL ? DT_BOOL : t,
                    .wide = k_wide_of(t),
                    .n_args = info->arity,
                    .rows = rows,
                    .cols = cols,
                    .dst = dst,
                    .dst_row = dst_row};
    for (int i = 0; i < j.n_args; i++)
        j.arg[i] = arg[i];
    for (int i = 0; i < info->n_params; i++)
        j.params[i] = params[i];
    j.f32 = loops_f32()[fn];
    j.f64 = k_loops_f64[fn];
    j.whole = j.wide == K_WIDE_I64 ? k_loops_i64[fn] : k_loops_u64[fn];
    flatten(&j);
    union chunk out, buf[3];
    for (int64_t r = 0; r < j.rows; r++) {
        if (fn == K_FN_Where)
            select_row(&j, r);
        else if (fn == K_FN_Identity)
            copy_row(&j, r);
        else
            run_row(&j, r, &out, buf);
    }
}
