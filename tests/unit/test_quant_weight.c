/* Codes of weights: fits of scales against exhaustive search, GPTQ against the textbook's way over the inverse, descent
 * against its own cost. */
#include "unit.h"

#include "base/half.h"
#include "quant/encode.h"
#include "quant/grid.h"
#include "quant/rows.h"
#include "quant/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_K = 96, MOST_N = 12 };

/* A weight and the Gram matrix of 3 k rows whose channels depend on each other and differ in size. */
struct sample {
    float w[MOST_N * MOST_K], gram[MOST_K * MOST_K];
    int64_t n, k;
    struct quant_statistics seen;
    struct quant_matrix m;
};

static double number(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (double)(unit_random(state) >> 11) * 0x1p-53 - 0.5;
    return sum;
}

static void make_sample(struct sample *s, int64_t n, int64_t k, uint64_t seed)
{
    *s = (struct sample){.n = n, .k = k};
    for (int64_t i = 0; i < n * k; i++)
        s->w[i] = (float)(number(&seed) * 0.1);
    for (int64_t r = 0; r < 3 * k; r++) {
        float x[MOST_K];
        const double common = number(&seed);
        for (int64_t i = 0; i < k; i++)
            x[i] = (float)((number(&seed) + 2 * common) * (1 + (double)(i % 7)));
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < k; j++)
                s->gram[i * k + j] += x[i] * x[j];
    }
    s->seen = (struct quant_statistics){.kinds = QUANT_GRAM,
                                        .axis = -1,
                                        .k = k,
                                        .rows = 3 * k,
                                        .groups = 1,
                                        .taps = 1,
                                        .pairs = k,
                                        .gram = s->gram,
                                        .n_gram = 3 * k};
    s->m = (struct quant_matrix){s->w, n, k, DT_F32, &s->seen};
}

static double cost_of(const struct sample *s, const struct quant_operand *o, const struct quant_codes *q)
{
    double sum = 0;
    for (int64_t r = 0; r < s->n; r++) {
        double d[MOST_K];
        for (int64_t i = 0; i < s->k; i++) {
            const int64_t at = quant_scale_index(o, q, r, i);
            const struct quant_scale c = {q->scales[at], q->zeros ? q->zeros[at] : 0};
            d[i] = (double)s->w[r * s->k + i] - (double)quant_decode(o, c, q->codes[r * s->k + i]);
        }
        for (int64_t i = 0; i < s->k; i++)
            for (int64_t j = 0; j < s->k; j++)
                sum += d[i] * (double)s->gram[i * s->k + j] * d[j];
    }
    return sum;
}

static struct quant_codes encode(const struct sample *s, struct quant_operand o, const char *by, struct arena *a)
{
    struct quant_codes q;
    o.by = by;
    assert_null(quant_encode_weight(&o, &s->m, &q, a));
    return q;
}

/* ---- numbers of float formats */

/* Random numbers of all sizes that matter, and those between neighbours: as the codes of base/half.h have them. */
static void nearest_is_what_codes_stand_for(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F8E4M3FN, DT_F8E5M2, DT_F6E2M3, DT_F6E3M2, DT_F4E2M1, DT_HIF8};
    uint64_t seed = 5;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int i = 0; i < 40000; i++) {
            const int top = 1 << dtype_table[types[t]].bits;
            const float a = half_small_to_f32(types[t], (uint8_t)(i % top)),
                        b = half_small_to_f32(types[t], (uint8_t)((i + 1) % top));
            const float middle = (a + b) / 2;
            const float sides[] = {ldexpf((float)number(&seed), i % 50 - 28), middle, nextafterf(middle, 1e9f),
                                   nextafterf(middle, -1e9f)};
            for (int j = 0; j < (i < top ? 4 : 1); j++) {
                float found;
                if (!isfinite(sides[j]))
                    continue;
                quant_nearest(types[t], &sides[j], 1, &found);
                const float wanted = half_small_to_f32(types[t], half_f32_to_small(types[t], sides[j], true));
                if (found != wanted)
                    fail_msg("%s of %a: expected %a, found %a", dtype_table[types[t]].name, (double)sides[j],
                             (double)wanted, (double)found);
            }
        }
}

/* ---- scales of a part */

static const struct quant_operand int4 = {.codes = DT_I4, .per = QUANT_PER_CHANNEL},
                                  int4_zero = {.codes = DT_I4, .per = QUANT_PER_CHANNEL, .shifted = true},
                                  e2m1 = {.codes = DT_F4E2M1, .per = QUANT_PER_CHANNEL};

static struct quant_fit part(const struct quant_operand *o, const float *x, int64_t n)
{
    return (struct quant_fit){o, DT_F32, {x, 1, n, n}, NULL};
}

static void codes_without_error_are_found(void **state)
{
    /* -0.7 .. 0.8 in steps of 0.1, without its extremes: 16 codes; 0.5 * {0 1 2 3 4 6 8 12} for E2M1 */
    const float even[] = {-0.6f, -0.3f, 0.0f, 0.2f, 0.7f, 0.1f, -0.7f, 0.8f}, fp4[] = {0, 0.5f, -1, 1.5f, 2, -3, 4, 6};
    const struct quant_fit f = part(&int4_zero, even, 8), g = part(&e2m1, fp4, 8);
    (void)state;
    quant_fit_fn *const all[] = {quant_fit_minmax, quant_fit_mse, quant_fit_ssz, quant_fit_hqq};
    for (int i = 0; i < 4; i++) {
        const struct quant_scale s = all[i](&f);
        assert_int_equal(s.zero, -1);
        assert_true(fabsf(s.scale - 0.1f) < 1e-6f);
        assert_true(quant_fit_error(&f, s) < 1e-12);
        assert_true(quant_fit_error(&g, all[i](&g)) == 0);
    }
}

/* The least error of any scale, to 0.1 %, and any zero point. */
static double least_error(const struct quant_fit *f)
{
    const struct quant_scale cover = quant_fit_minmax(f);
    double least = INFINITY;
    for (int z = f->o->shifted ? -8 : 0; z <= (f->o->shifted ? 7 : 0); z++)
        for (double part = 0.3; part < 2; part *= 1.001)
            least = fmin(least, quant_fit_error(f, (struct quant_scale){(float)((double)cover.scale * part), z}));
    return least;
}

static void mse_is_near_the_least_error(void **state)
{
    (void)state;
    const struct quant_operand *const forms[] = {&int4, &int4_zero, &e2m1};
    uint64_t seed = 5;
    double ratios = 0;
    for (int turn = 0; turn < 60; turn++) {
        float x[64], importance[64];
        for (int i = 0; i < 64; i++) {
            x[i] = (float)(number(&seed) + (turn % 3 == 2 ? 0.7 : 0));
            importance[i] = (float)(1 + i % 5);
        }
        if (turn % 4 == 0)
            x[turn] *= 6;
        struct quant_fit f = part(forms[turn % 3], x, turn % 2 ? 64 : 27);
        f.importance = turn % 5 ? importance : NULL;
        const double best = least_error(&f), mse = quant_fit_error(&f, quant_fit_mse(&f));
        const double ssz = quant_fit_error(&f, quant_fit_ssz(&f)), minmax = quant_fit_error(&f, quant_fit_minmax(&f));
        assert_true(mse <= best * 1.3); /* best is for this very spot of a rugged curve */
        ratios += mse / best;
        assert_true(ssz <= minmax && mse <= minmax);
    }
    assert_true(ratios / 60 < 1.01);
}

/* One element far out and the rest in few steps: squares stretch the scale for it, the power 0.7 does not. */
static void hqq_lets_few_elements_miss(void **state)
{
    (void)state;
    float x[32];
    for (int i = 0; i < 32; i++)
        x[i] = (float)(i % 8 - 4) * 0.013f;
    x[9] = 0.16f;
    const struct quant_fit f = part(&int4, x, 32);
    const struct quant_scale s = quant_fit_hqq(&f), cover = quant_fit_minmax(&f);
    double hqq = 0, minmax = 0;
    for (int i = 0; i < 32; i++) {
        hqq += pow(fabs((double)(x[i] - quant_decode(&int4, s, quant_code(&int4, s, x[i])))), 0.7);
        minmax += pow(fabs((double)(x[i] - quant_decode(&int4, cover, quant_code(&int4, cover, x[i])))), 0.7);
    }
    assert_true(hqq < 0.8 * minmax);
}

/* ---- codes with the Gram matrix */

/* h inverse by Gauss and Jordan, in doubles. */
static void invert(double *h, int64_t k)
{
    for (int64_t p = 0; p < k; p++) {
        const double pivot = 1 / h[p * k + p];
        h[p * k + p] = 1;
        for (int64_t j = 0; j < k; j++)
            h[p * k + j] *= pivot;
        for (int64_t i = 0; i < k; i++) {
            const double f = h[i * k + p];
            if (i == p)
                continue;
            h[i * k + p] = 0;
            for (int64_t j = 0; j < k; j++)
                h[i * k + j] -= f * h[p * k + j];
        }
    }
}

/* Optimal brain quantisation, columns in the given order: after each, the inverse of what is left. */
static void textbook(const struct sample *s, const struct quant_operand *o, const int64_t *order, struct quant_codes *q)
{
    static double left[MOST_K * MOST_K], inverse[MOST_K * MOST_K], w[MOST_N * MOST_K];
    double mean = 0;
    const int64_t k = s->k;
    for (int64_t i = 0; i < k; i++)
        mean += (double)s->gram[i * k + i] / (double)k;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++)
            left[i * k + j] = (double)s->gram[order[i] * k + order[j]] + (i == j ? 0.01 * mean : 0);
    for (int64_t r = 0; r < s->n; r++)
        for (int64_t i = 0; i < k; i++)
            w[r * k + i] = (double)s->w[r * k + order[i]];
    for (int64_t p = 0; p < k; p++) {
        const int64_t n = k - p;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                inverse[i * n + j] = left[(p + i) * k + p + j];
        invert(inverse, n);
        for (int64_t r = 0; r < s->n; r++) {
            const int64_t at = quant_scale_index(o, q, r, order[p]);
            const struct quant_scale c = {q->scales[at], q->zeros ? q->zeros[at] : 0};
            const int code = quant_code(o, c, (float)w[r * k + p]);
            const double e = (w[r * k + p] - (double)quant_decode(o, c, code)) / inverse[0];
            q->codes[r * k + order[p]] = (int16_t)code;
            for (int64_t i = 1; i < n; i++)
                w[r * k + p + i] -= e * inverse[i];
        }
    }
}

static void gptq_is_the_textbook(void **state)
{
    (void)state;
    static struct sample s;
    const struct quant_operand forms[] = {
        {.codes = DT_I4, .per = QUANT_PER_GROUP, .group = 32, .shifted = true},
        {.codes = DT_I8, .per = QUANT_PER_CHANNEL},
        {.codes = DT_F4E2M1, .per = QUANT_PER_GROUP, .group = 20},
    };
    for (int i = 0; i < 3; i++) {
        struct arena a;
        struct quant_metric m;
        int64_t differ = 0;
        unit_arena(&a);
        make_sample(&s, MOST_N, MOST_K, 11 + (uint64_t)i);
        struct quant_codes q = encode(&s, forms[i], "gptq", &a), other = q;
        other.codes = arena_zalloc(&a, s.n * s.k * 2);
        assert_true(quant_metric_make(&m, &(struct quant_gram){s.gram, s.k, 0.01, 1, false}, &a, NULL));
        for (int64_t j = 1; j < s.k; j++)
            assert_true(m.importance[m.order[j - 1]] >= m.importance[m.order[j]]);
        textbook(&s, &forms[i], m.order, &other);
        for (int64_t j = 0; j < s.n * s.k; j++)
            differ += q.codes[j] != other.codes[j];
        /* f32 against f64: a tie may fall to the other side, and later columns of its row then follow it */
        assert_true(differ <= s.k / 4);
        assert_true(fabs(cost_of(&s, &forms[i], &q) / cost_of(&s, &forms[i], &other) - 1) < 0.02);
        arena_free(&a);
    }
}

static void each_algorithm_beats_the_one_before(void **state)
{
    (void)state;
    static struct sample s;
    const struct quant_operand forms[] = {
        {.codes = DT_I4, .per = QUANT_PER_GROUP, .group = 32, .shifted = true},
        {.codes = DT_I4, .per = QUANT_PER_CHANNEL},
        {.codes = DT_I8, .per = QUANT_PER_CHANNEL},
        {.codes = DT_U4, .per = QUANT_PER_GROUP, .group = 25},
        {.codes = DT_I4, .per = QUANT_PER_TENSOR},
        {.codes = DT_F8E4M3FN, .per = QUANT_PER_CHANNEL},
        {.codes = DT_F4E2M1, .per = QUANT_PER_GROUP, .group = 16},
    };
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(forms); i++) {
        struct arena a;
        unit_arena(&a);
        make_sample(&s, MOST_N, 90, 3 + (uint64_t)i);
        double cost[4];
        const char *const by[] = {"minmax", "mse", "gptq", "descent"};
        for (int j = 0; j < 4; j++) {
            const struct quant_codes q = encode(&s, forms[i], by[j], &a);
            cost[j] = cost_of(&s, &forms[i], &q);
        }
        assert_true(cost[2] < 0.9 * cost[0] && cost[2] < 0.9 * cost[1]);
        assert_true(cost[3] < cost[2]);
        arena_free(&a);
    }
}

static void adaround_beats_nearest(void **state)
{
    (void)state;
    static struct sample s;
    const struct quant_operand forms[] = {
        {.codes = DT_I4, .per = QUANT_PER_GROUP, .group = 32, .shifted = true},
        {.codes = DT_I4, .per = QUANT_PER_CHANNEL},
        {.codes = DT_I8, .per = QUANT_PER_CHANNEL},
    };
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(forms); i++) {
        struct arena a;
        unit_arena(&a);
        make_sample(&s, 5, 64, 23 + (uint64_t)i);
        const struct quant_codes near = encode(&s, forms[i], "mse", &a), q = encode(&s, forms[i], "adaround", &a);
        assert_true(cost_of(&s, &forms[i], &q) < 0.5 * cost_of(&s, &forms[i], &near));
        for (int64_t j = 0; j < s.n * s.k; j++) {
            const int64_t at = quant_scale_index(&forms[i], &q, j / s.k, j % s.k);
            const struct quant_scale c = {q.scales[at], q.zeros ? q.zeros[at] : 0};
            const int code = quant_code(&forms[i], c, s.w[j]);
            assert_true(abs(q.codes[j] - code) <= 1);
        }
        arena_free(&a);
    }
}

/* No single code can be changed for the better, up to the damping and f32. */
static void descent_ends_where_no_code_helps(void **state)
{
    (void)state;
    static struct sample s;
    struct arena a;
    const struct quant_operand o = {.codes = DT_I4, .per = QUANT_PER_CHANNEL};
    unit_arena(&a);
    make_sample(&s, 4, 40, 17);
    struct quant_codes q = encode(&s, o, "descent", &a);
    struct quant_metric m;
    float *scratch = ARENA_ARRAY(&a, float, quant_rows_scratch(s.k));
    assert_true(quant_metric_make(&m, &(struct quant_gram){s.gram, s.k, 0.01, 1, true}, &a, NULL));
    const struct quant_rows t = {.o = &o, .w = &s.m, .m = &m, .out = &q, .first = 0, .n = s.n, .scratch = scratch};
    quant_descend(&t, 100);
    const double best = quant_rows_cost(&t);
    for (int64_t i = 0; i < s.n * s.k; i++)
        for (int step = -1; step <= 1; step += 2) {
            if (q.codes[i] + step < -8 || q.codes[i] + step > 7)
                continue;
            q.codes[i] = (int16_t)(q.codes[i] + step);
            assert_true(quant_rows_cost(&t) >= best * (1 - 1e-5));
            q.codes[i] = (int16_t)(q.codes[i] - step);
        }
    arena_free(&a);
}

/* x b = b h^-1 h = b, for a matrix of more than one block of columns. */
static void solving_is_undone_by_multiplying(void **state)
{
    (void)state;
    static struct sample s;
    static double h[MOST_K * MOST_K], b[3 * MOST_K], x[3 * MOST_K];
    const int64_t k = MOST_K;
    uint64_t seed = 29;
    make_sample(&s, 1, k, 31);
    for (int64_t i = 0; i < k * k; i++)
        h[i] = (double)s.gram[i] + (i % (k + 1) == 0 ? 1 : 0);
    for (int64_t i = 0; i < 3 * k; i++)
        b[i] = x[i] = number(&seed);
    assert_true(quant_solve(h, k, x, 3, NULL));
    for (int64_t r = 0; r < 3; r++)
        for (int64_t j = 0; j < k; j++) {
            double sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += x[r * k + i] * ((double)s.gram[i * k + j] + (i == j ? 1 : 0));
            assert_true(fabs(sum - b[r * k + j]) < 1e-9);
        }
    memset(h, 0, sizeof h);
    assert_false(quant_solve(h, k, b, 3, NULL));
}

/* Inputs that earlier codes have changed by a factor of channels: codes make up for it when the rows as they were are
 * known. What is measured is |x0 w' - x q'|^2 by the sums of x0 x0', x0 x' and x x'. */
static void codes_make_up_for_changed_inputs(void **state)
{
    (void)state;
    static struct sample s;
    static float cross[MOST_K * MOST_K], now[MOST_K * MOST_K];
    struct arena a;
    const struct quant_operand o = {.codes = DT_I8, .per = QUANT_PER_CHANNEL, .by = "descent"};
    const int64_t k = 48;
    double error[2] = {0};
    unit_arena(&a);
    make_sample(&s, 6, k, 37);
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) { /* x = x0 * (1, 1.3, 0.8 and so on) */
            const float f[] = {1, 1.3f, 0.8f};
            cross[i * k + j] = s.gram[i * k + j] * f[j % 3];
            now[i * k + j] = s.gram[i * k + j] * f[i % 3] * f[j % 3];
        }
    s.seen.gram = now;
    for (int turn = 0; turn < 2; turn++) {
        struct quant_codes q;
        assert_null(quant_encode_weight(&o, &s.m, &q, &a));
        for (int64_t r = 0; r < s.n; r++)
            for (int64_t i = 0; i < k; i++)
                for (int64_t j = 0; j < k; j++) {
                    const double w = (double)s.w[r * k + i], v = (double)s.w[r * k + j];
                    const double c = (double)q.codes[r * k + i] * (double)q.scales[r];
                    const double d = (double)q.codes[r * k + j] * (double)q.scales[r];
                    error[turn] += w * v * (double)s.gram[i * k + j] - 2 * w * d * (double)cross[i * k + j] +
                                   c * d * (double)now[i * k + j];
                }
        s.seen.cross = cross;
        s.seen.n_cross = s.seen.n_gram;
    }
    assert_true(error[1] < 0.1 * error[0]);
    arena_free(&a);
}

/* A change of the input that has nothing to do with it: what the rows seem to say about it is chance, and codes are
 * those without. */
static void codes_follow_no_chance(void **state)
{
    (void)state;
    enum { K = 48, ROWS = 3 * K };
    static struct sample s;
    static float x[ROWS * K], change[ROWS * K], cross[K * K];
    struct arena a;
    uint64_t seed = 5;
    double moved = 0;
    const struct quant_operand o = {.codes = DT_I8, .per = QUANT_PER_CHANNEL};
    unit_arena(&a);
    make_sample(&s, 6, K, 37);
    memset(s.gram, 0, sizeof s.gram);
    for (int i = 0; i < ROWS * K; i++) {
        x[i] = (float)number(&seed);
        change[i] = (float)number(&seed);
        moved += (double)change[i] * (double)change[i];
    }
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++) {
                s.gram[i * K + j] += x[r * K + i] * x[r * K + j];
                cross[i * K + j] += (x[r * K + i] + change[r * K + i]) * x[r * K + j];
            }
    const struct quant_codes without = encode(&s, o, "descent", &a);
    s.seen.cross = cross;
    s.seen.moved = &moved;
    s.seen.n_cross = s.seen.n_gram;
    const struct quant_codes with = encode(&s, o, "descent", &a);
    int far = 0;
    for (int i = 0; i < 6 * K; i++)
        far += abs(with.codes[i] - without.codes[i]) > 3;
    assert_true(far == 0);
    arena_free(&a);
}

static void silent_inputs_count_alike(void **state)
{
    (void)state;
    static struct sample s;
    struct arena a;
    const struct quant_operand o = {.codes = DT_I4, .per = QUANT_PER_CHANNEL};
    unit_arena(&a);
    make_sample(&s, 4, 40, 19);
    memset(s.gram, 0, sizeof s.gram);
    const struct quant_codes q = encode(&s, o, "gptq", &a), plain = encode(&s, o, "mse", &a);
    assert_memory_equal(q.codes, plain.codes, (size_t)(s.n * s.k) * 2);
    s.seen.pairs = 39;
    struct quant_codes none;
    struct quant_operand wrong = o;
    wrong.by = "gptq";
    assert_non_null(quant_encode_weight(&wrong, &s.m, &none, &a));
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_without_error_are_found),       cmocka_unit_test(mse_is_near_the_least_error),
        cmocka_unit_test(hqq_lets_few_elements_miss),          cmocka_unit_test(gptq_is_the_textbook),
        cmocka_unit_test(each_algorithm_beats_the_one_before), cmocka_unit_test(adaround_beats_nearest),
        cmocka_unit_test(descent_ends_where_no_code_helps),    cmocka_unit_test(nearest_is_what_codes_stand_for),
        cmocka_unit_test(silent_inputs_count_alike),           cmocka_unit_test(solving_is_undone_by_multiplying),
        cmocka_unit_test(codes_make_up_for_changed_inputs),    cmocka_unit_test(codes_follow_no_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
