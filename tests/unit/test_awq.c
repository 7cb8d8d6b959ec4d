/* AWQ: the strength that the search finds, against a search written out in doubles, and what it is good for. */
#include "unit.h"

#include <math.h>
#include <string.h>

#include "quant/awq.h"
#include "quant/weight.h"

enum { K = 64, ROWS = 120, CHANNELS = 24, GROUP = 16 };

struct setting {
    struct arena a;
    float x[ROWS * K], w[CHANNELS * K];
    struct quant_statistics s;
    struct quant_face face;
};
static const struct quant_operand int4 = {.codes = DT_I4, .per = QUANT_PER_GROUP, .group = GROUP, .shifted = true};

static float number(uint64_t *seed)
{
    double sum = 0;
    for (int i = 0; i < 6; i++)
        sum += (double)(unit_random(seed) >> 11) * 0x1p-53 - 0.5;
    return (float)sum;
}

/* Every 13th channel of x is `larger` times the others. */
static struct setting *begin(float larger)
{
    static struct setting t;
    uint64_t seed = 9;
    t = (struct setting){0};
    unit_arena(&t.a);
    for (int i = 0; i < ROWS * K; i++)
        t.x[i] = number(&seed) * (i % K % 13 == 0 ? larger : 1);
    for (int i = 0; i < CHANNELS * K; i++)
        t.w[i] = number(&seed);
    quant_statistics_init(&t.s, QUANT_ROWS, -1, &t.a);
    const struct k_tensor x = {.dtype = DT_F32, .rank = 2, .dims = {ROWS, K}, .data = t.x, .size = (int64_t)sizeof t.x};
    assert_null(quant_statistics_add(&t.s, &x, NULL, &t.a));
    const struct quant_matrix m = {.data = t.w, .channels = CHANNELS, .k = K, .scale_type = DT_F32};
    assert_true(quant_face_make(&t.face, &m, 1, &int4, &t.a));
    return &t;
}

static void factors(const struct setting *t, double a, double *to)
{
    double least = INFINITY, most = 0;
    for (int j = 0; j < K; j++) {
        double sum = 0;
        for (int r = 0; r < ROWS; r++)
            sum += fabs((double)t->x[r * K + j]);
        to[j] = pow(sum / ROWS, a);
        least = fmin(least, to[j]);
        most = fmax(most, to[j]);
    }
    for (int j = 0; j < K; j++)
        to[j] /= sqrt(least * most);
}

/* Sum of |x (w - decoded(w s) / s)'|^2 / |x w'|^2. */
static double error_of(struct setting *t, const double *s)
{
    static float scaled[CHANNELS * K];
    struct quant_operand o = int4;
    struct quant_codes c;
    double error = 0, signal = 0;
    for (int i = 0; i < CHANNELS * K; i++)
        scaled[i] = (float)((double)t->w[i] * s[i % K]);
    o.by = "mse";
    assert_null(quant_encode_weight(&o, &(struct quant_matrix){scaled, CHANNELS, K, DT_F32, NULL}, &c, &t->a));
    for (int r = 0; r < ROWS; r++)
        for (int n = 0; n < CHANNELS; n++) {
            double d = 0, y = 0;
            for (int j = 0; j < K; j++) {
                const int at = n * K / GROUP + j / GROUP;
                const double v = (double)(c.codes[n * K + j] - c.zeros[at]) * (double)c.scales[at] / s[j];
                d += (double)t->x[r * K + j] * ((double)t->w[n * K + j] - v);
                y += (double)t->x[r * K + j] * (double)t->w[n * K + j];
            }
            error += d * d;
            signal += y * y;
        }
    return error / signal;
}

static void the_least_error_is_found(void **state)
{
    (void)state;
    struct setting *t = begin(12);
    struct quant_awq found;
    float factor[K];
    double s[K], least = INFINITY, at = 0;
    assert_true(quant_awq_search(&t->s, &t->face, 1, factor, &found, &t->a));
    for (int i = 0; i < 20; i++) {
        factors(t, i / 20.0, s);
        const double e = error_of(t, s);
        if (e < least) {
            least = e;
            at = i / 20.0;
        }
    }
    assert_true(found.strength == at);
    assert_true(fabs(found.after / least - 1) < 1e-3);
    factors(t, at, s);
    for (int j = 0; j < K; j++)
        assert_true(fabs((double)factor[j] / s[j] - 1) < 1e-5);
    assert_true(found.strength > 0.1 && found.after < 0.8 * found.before);
    arena_free(&t->a);
}

/* Channels that are alike gain next to nothing; silent ones have finite factors. */
static void channels_alike_need_no_factors(void **state)
{
    (void)state;
    struct setting *t = begin(1);
    struct quant_awq found;
    float factor[K];
    assert_true(quant_awq_search(&t->s, &t->face, 1, factor, &found, &t->a));
    assert_true(found.after > 0.9 * found.before);
    arena_free(&t->a);
    t = begin(0);
    assert_true(quant_awq_search(&t->s, &t->face, 1, factor, &found, &t->a));
    for (int j = 0; j < K; j++)
        assert_true(isfinite(factor[j]) && factor[j] > 0);
    arena_free(&t->a);
}

/* The row of the table: codes to nearest by scales that mind the input have less error in the output than mse's. */
static void codes_mind_the_input(void **state)
{
    (void)state;
    struct setting *t = begin(12);
    const struct quant_matrix m = {t->w, CHANNELS, K, DT_F32, &t->s};
    double error[2] = {0};
    for (int i = 0; i < 2; i++) {
        struct quant_operand o = int4;
        struct quant_codes c;
        o.by = i ? "awq" : "mse";
        assert_null(quant_encode_weight(&o, &m, &c, &t->a));
        for (int r = 0; r < ROWS; r++)
            for (int n = 0; n < CHANNELS; n++) {
                double d = 0;
                for (int j = 0; j < K; j++) {
                    const int at = n * K / GROUP + j / GROUP;
                    const double v = (double)(c.codes[n * K + j] - c.zeros[at]) * (double)c.scales[at];
                    d += (double)t->x[r * K + j] * ((double)t->w[n * K + j] - v);
                }
                error[i] += d * d;
            }
    }
    assert_true(error[1] < error[0]);
    arena_free(&t->a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_error_is_found),
        cmocka_unit_test(channels_alike_need_no_factors),
        cmocka_unit_test(codes_mind_the_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
