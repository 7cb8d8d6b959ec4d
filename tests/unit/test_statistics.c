/* What calibration keeps of windows of convolutions, against sums over windows written out; how far pairs are to be
 * believed. */
#include "unit.h"

#include <math.h>
#include <string.h>

#include "kernels/window.h"
#include "quant/rows.h"
#include "quant/statistics.h"

enum { BATCH = 2, CHANNELS = 6, GROUPS = 2, H = 7, WIDTH = 6, PER = CHANNELS / GROUPS, TAPS = 6, PAIRS = PER * TAPS };

/* Kernel 3 x 2, strides 2 and 1, dilations 1 and 2, padding in front and behind. */
static const struct k_window window = {.n = 2,
                                       .in = {1, H, WIDTH},
                                       .kernel = {1, 3, 2},
                                       .stride = {1, 2, 1},
                                       .dilation = {1, 1, 2},
                                       .before = {0, 1, 1},
                                       .after = {0, 1, 0},
                                       .out = {1, 4, 5}};

static float number(uint64_t *seed)
{
    return (float)((double)(unit_random(seed) >> 11) * 0x1p-53 - 0.5);
}

/* x[b][c] under position (i, j) of the kernel for window (p, q). */
static double at(const float *x, int b, int c, int p, int i, int q, int j)
{
    const int h = 2 * p + i - 1, w = q + 2 * j - 1;
    return h < 0 || h >= H || w < 0 || w >= WIDTH ? 0 : (double)x[((b * CHANNELS + c) * H + h) * WIDTH + w];
}

static double pair(const float *x0, const float *x, int g, int r, int c)
{
    double sum = 0;
    for (int b = 0; b < BATCH; b++)
        for (int p = 0; p < 4; p++)
            for (int q = 0; q < 5; q++)
                sum += at(x0, b, g * PER + r / TAPS, p, r % TAPS / 2, q, r % 2) *
                       at(x, b, g * PER + c / TAPS, p, c % TAPS / 2, q, c % 2);
    return sum;
}

static struct k_tensor map_of(float *x)
{
    return (struct k_tensor){.dtype = DT_F32,
                             .rank = 4,
                             .dims = {BATCH, CHANNELS, H, WIDTH},
                             .data = x,
                             .size = BATCH * CHANNELS * H * WIDTH * (int64_t)sizeof *x};
}

static void windows_are_summed(void **state)
{
    (void)state;
    static float x0[BATCH * CHANNELS * H * WIDTH], x[BATCH * CHANNELS * H * WIDTH];
    struct quant_statistics s;
    struct arena a;
    uint64_t seed = 3;
    unit_arena(&a);
    for (int i = 0; i < BATCH * CHANNELS * H * WIDTH; i++) {
        x0[i] = number(&seed);
        x[i] = x0[i] + 0.1f * number(&seed);
    }
    const struct k_tensor was = map_of(x0), now = map_of(x);
    quant_statistics_init(&s, QUANT_GRAM | QUANT_CROSS, 1, &a);
    quant_statistics_of_windows(&s, GROUPS, TAPS);
    assert_null(quant_statistics_add(&s, &now, &window, &a));
    assert_true(quant_statistics_compare(&s, was.data, &now, &window, &a));
    assert_int_equal(s.pairs, PAIRS);
    assert_int_equal(s.n_gram, BATCH * 4 * 5);
    assert_int_equal(s.n_cross, s.n_gram);
    assert_int_equal(s.rows, BATCH * H * WIDTH);
    for (int g = 0; g < GROUPS; g++) {
        double moved = 0; /* |x0 - x|^2 = x0 x0 - 2 x0 x + x x */
        for (int r = 0; r < PAIRS; r++) {
            moved += pair(x0, x0, g, r, r) - 2 * pair(x0, x, g, r, r) + pair(x, x, g, r, r);
            for (int c = 0; c < PAIRS; c++) {
                const int64_t i = (g * PAIRS + r) * PAIRS + c;
                assert_true(fabs((double)s.gram[i] - pair(x, x, g, r, c)) < 1e-5);
                assert_true(fabs((double)s.cross[i] - pair(x0, x, g, r, c)) < 1e-5);
            }
        }
        assert_true(fabs(s.moved[g] - moved) < 1e-5);
    }
    float factor[CHANNELS];
    for (int i = 0; i < CHANNELS; i++)
        factor[i] = (float)(1 << i);
    const float before =
        s.gram[(PAIRS + 1) * PAIRS + TAPS]; /* of the second group: element 1 and one of the next channel */
    const double trust = quant_statistics_trust(&s);
    quant_statistics_divide(&s, factor);
    assert_true(s.gram[(PAIRS + 1) * PAIRS + TAPS] == before / (factor[PER] * factor[PER + 1]));
    assert_true(quant_statistics_trust(&s) == trust);
    assert_true(quant_statistics_bytes(QUANT_GRAM, CHANNELS, GROUPS, TAPS) -
                    quant_statistics_bytes(0, CHANNELS, GROUPS, TAPS) ==
                GROUPS * PAIRS * PAIRS * (int64_t)sizeof(float));
    assert_non_null(quant_statistics_add(&s, &now, NULL, &a));
    arena_free(&a);
}

/* Codes of a convolution in groups are those of each group with its part of the matrix. */
static void groups_are_coded_apart(void **state)
{
    (void)state;
    enum { OUTS = 8, K = 12 };
    static float w[OUTS * K], gram[GROUPS * K * K];
    uint64_t seed = 11;
    struct arena a;
    unit_arena(&a);
    for (int i = 0; i < OUTS * K; i++)
        w[i] = number(&seed);
    for (int r = 0; r < 50; r++)
        for (int g = 0; g < GROUPS; g++) {
            float x[K];
            for (int i = 0; i < K; i++)
                x[i] = number(&seed) + (i ? 0.7f * x[i - 1] : 0);
            for (int i = 0; i < K * K; i++)
                gram[g * K * K + i] += x[i / K] * x[i % K];
        }
    const struct quant_operand o = {.codes = DT_I4, .per = QUANT_PER_CHANNEL, .by = "gptq"};
    struct quant_statistics all = {.kinds = QUANT_GRAM,
                                   .axis = 1,
                                   .k = GROUPS * K,
                                   .rows = 50,
                                   .groups = GROUPS,
                                   .taps = 1,
                                   .pairs = K,
                                   .gram = gram,
                                   .n_gram = 50};
    const struct quant_matrix whole = {w, OUTS, K, DT_F32, &all};
    struct quant_codes c, part;
    assert_null(quant_encode_weight(&o, &whole, &c, &a));
    for (int g = 0; g < GROUPS; g++) {
        struct quant_statistics one = all;
        one.groups = 1;
        one.k = K;
        one.gram = gram + g * K * K;
        const struct quant_matrix m = {w + g * OUTS / GROUPS * K, OUTS / GROUPS, K, DT_F32, &one};
        assert_null(quant_encode_weight(&o, &m, &part, &a));
        assert_memory_equal(part.codes, c.codes + g * OUTS / GROUPS * K, OUTS / GROUPS * K * sizeof *c.codes);
        assert_memory_equal(part.scales, c.scales + g * OUTS / GROUPS, OUTS / GROUPS * sizeof *c.scales);
    }
    arena_free(&a);
}

/* Trust after n rows of 24 numbers that share a part of their own size times `common`. */
static double trust_of(int n, float common)
{
    enum { K = 24 };
    struct quant_statistics s;
    struct arena a;
    uint64_t seed = 5;
    unit_arena(&a);
    quant_statistics_init(&s, QUANT_GRAM, -1, &a);
    for (int r = 0; r < n; r++) {
        float x[K];
        const float shared = common * number(&seed);
        for (int i = 0; i < K; i++)
            x[i] = number(&seed) + shared;
        const struct k_tensor t = {.dtype = DT_F32, .rank = 2, .dims = {1, K}, .data = x, .size = sizeof x};
        assert_null(quant_statistics_add(&s, &t, NULL, &a));
    }
    const double trust = quant_statistics_trust(&s);
    arena_free(&a);
    return trust;
}

static void pairs_of_independent_numbers_are_not_believed(void **state)
{
    (void)state;
    assert_true(trust_of(40, 0) < 0.2);
    assert_true(trust_of(4000, 0) < 0.2);
    assert_true(trust_of(40, 1) > 0.6);
    assert_true(trust_of(4000, 1) > 0.99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_are_summed),
        cmocka_unit_test(groups_are_coded_apart),
        cmocka_unit_test(pairs_of_independent_numbers_are_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
