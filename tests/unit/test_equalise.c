/* Equalising inputs: what calibration keeps for it, factors and rotations that the search chooses, statistics behind
 * it. */
#include "unit.h"

#include <math.h>
#include <string.h>

#include "ir/hadamard.h"
#include "quant/equalise.h"

enum { K = 32, ROWS = 2000, CHANNELS = 16 };

static void assert_near(double found, double wanted, double within)
{
    if (!(fabs(found - wanted) <= within))
        fail_msg("found %.9g, expected %.9g", found, wanted);
}

/* About normal: the sum of uniform numbers. */
static float draw(uint64_t *seed)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (double)(unit_random(seed) >> 11) / 9007199254740992.0;
    return (float)sum;
}

struct setting {
    struct arena a;
    float x[ROWS * K], w[CHANNELS * K];
    struct quant_statistics s;
    struct quant_operand weight;
    struct quant_face face;
};

/* Rows of normal numbers; `shape` changes them before they are seen. */
static struct setting *begin(unsigned kinds, void (*shape)(struct setting *))
{
    static struct setting t;
    uint64_t seed = 7;
    t = (struct setting){.weight = {.codes = DT_I8, .per = QUANT_PER_CHANNEL}};
    unit_arena(&t.a);
    for (int i = 0; i < ROWS * K; i++)
        t.x[i] = draw(&seed);
    for (int i = 0; i < CHANNELS * K; i++)
        t.w[i] = draw(&seed);
    shape(&t);
    quant_statistics_init(&t.s, kinds, -1, &t.a);
    const struct k_tensor x = {.dtype = DT_F32, .rank = 2, .dims = {ROWS, K}, .data = t.x, .size = (int64_t)sizeof t.x};
    assert_null(quant_statistics_add(&t.s, &x, NULL, &t.a));
    const struct quant_matrix m = {.data = t.w, .channels = CHANNELS, .k = K, .scale_type = DT_F32};
    assert_true(quant_face_make(&t.face, &m, 1, &t.weight, &t.a));
    return &t;
}

static struct quant_equalised search(struct setting *t, struct quant_operand input, unsigned allowed)
{
    struct quant_equalised out;
    assert_true(quant_equalise(&t->s, &input, &t->face, 1, allowed, &out, &t->a));
    return out;
}

static const struct quant_operand fixed = {.codes = DT_I8, .scale = 1};
static const struct quant_operand token = {.codes = DT_I8, .per = QUANT_PER_TOKEN, .dynamic = true};
enum { SMOOTH = 1 << QUANT_EQUALISER_smooth, ROTATE = 1 << QUANT_EQUALISER_rotate };

static void as_is(struct setting *t)
{
    (void)t;
}

static void large_channel(struct setting *t)
{
    for (int r = 0; r < ROWS; r++)
        t->x[r * K + 5] *= 200;
}

/* One row of all has an element of 5000 in a channel that is 0 elsewhere. */
static void large_row(struct setting *t)
{
    for (int r = 0; r < ROWS; r++)
        t->x[r * K + 9] = r == 1234 ? 5000 : 0;
}

static void zero_channel(struct setting *t)
{
    large_channel(t);
    for (int r = 0; r < ROWS; r++)
        t->x[r * K + 7] = 0;
    for (int c = 0; c < CHANNELS; c++)
        t->w[c * K + 8] = 0;
}

/* Every row has one large element, each in another channel: no factor per channel helps. */
static void wandering(struct setting *t)
{
    for (int r = 0; r < ROWS; r++)
        t->x[r * K + r % K] *= 100;
}

static void test_samples(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS, large_row);
    assert_int_equal(t->s.n_sample, QUANT_SAMPLE_ROWS);
    assert_int_equal(t->s.n_extreme, QUANT_EXTREME_ROWS);
    double mean = 0; /* of the numbers of the rows in the sample */
    for (int64_t i = 0; i < t->s.n_sample; i++)
        for (int r = 0; r < ROWS; r++)
            if (memcmp(t->s.sample + i * K, t->x + r * K, K * sizeof(float)) == 0)
                mean += (double)r / (double)t->s.n_sample;
    assert_near(mean, ROWS / 2.0, 3 * ROWS / sqrt(12 * QUANT_SAMPLE_ROWS));
    bool found = false;
    for (int64_t i = 0; i < t->s.n_extreme; i++)
        found = found || memcmp(t->s.extreme + i * K, t->x + 1234 * K, K * sizeof(float)) == 0;
    assert_true(found);
    arena_free(&t->a);
}

/* Well behaved rows: a scale for all of 8 bits has an error of (range / 255)^2 / 12, the signal is 1. */
static void test_plain(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS, as_is);
    const struct quant_equalised e = search(t, fixed, 0);
    const double step = 2 * fmax(-t->s.seen.lo, t->s.seen.hi) / 254;
    assert_null(e.smooth);
    /* of the input alone; the floor under the signal takes a hundredth, clipping nothing. The worst row counts, too */
    assert_near(e.before / (step * step / 12), 1.1, 0.2);
    assert_true(e.added <= e.before);
    assert_true(e.added < e.after);
    assert_near(e.scale, step * e.clip, 1e-6);
    const struct quant_equalised rows = search(t, token, 0);
    assert_true(rows.added < e.before);
    /* coarser codes of the weight are none of the input's */
    t->weight = (struct quant_operand){.codes = DT_I4, .per = QUANT_PER_CHANNEL};
    const struct quant_equalised coarse = search(t, token, 0);
    assert_true(coarse.after > 10 * rows.after);
    assert_near(coarse.added, rows.added, 0);
    arena_free(&t->a);
}

static void test_smooth(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS, large_channel);
    const struct quant_equalised none = search(t, fixed, 0), e = search(t, fixed, SMOOTH);
    assert_non_null(e.smooth);
    assert_near(none.before, e.before, 0);
    assert_true(e.after < none.after / 5);
    /* s[j] = top(x)^alpha / top(w)^(1 - alpha), up to a common factor */
    const double a = e.alpha, common = (double)e.smooth[0] / pow((double)t->s.seen.channel[0], a) *
                                       pow((double)t->face.top[0], 1 - a);
    for (int j = 0; j < K; j++)
        assert_near((double)e.smooth[j] /
                        (common * pow((double)t->s.seen.channel[j], a) / pow((double)t->face.top[j], 1 - a)),
                    1, 1e-4);
    double top = 0; /* the scale covers the part `clip` of the divided input */
    for (int j = 0; j < K; j++)
        top = fmax(top, (double)(t->s.seen.channel[j] / e.smooth[j]));
    assert_near(e.scale / (top * e.clip / 127), 1, 1e-5);
    arena_free(&t->a);
}

static void test_zero_channels(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS, zero_channel);
    const struct quant_equalised e = search(t, fixed, SMOOTH);
    assert_non_null(e.smooth);
    assert_near((double)e.smooth[7], 1, 0);
    assert_near((double)e.smooth[8], 1, 0);
    arena_free(&t->a);
}

/* A row that is not in the sample still counts: nothing clips it, and smoothing divides its channel. */
static void test_large_row(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS, large_row);
    const struct quant_equalised none = search(t, fixed, 0), e = search(t, fixed, SMOOTH);
    assert_true(none.before > 0.1);
    assert_non_null(e.smooth);
    assert_true(e.after < none.after / 10);
    assert_true((double)e.smooth[9] * e.scale * 127 > 3000);
    arena_free(&t->a);
}

static void test_rotate(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS, wandering);
    const struct quant_equalised smooth = search(t, token, SMOOTH), e = search(t, token, SMOOTH | ROTATE);
    assert_int_equal(e.rotate, QUANT_HADAMARD);
    assert_true(e.after < smooth.after / 2);
    assert_int_equal(search(t, token, SMOOTH).rotate, QUANT_UNROTATED);
    arena_free(&t->a);
}

/* Codes without a scale: HiF8 has 3 bits of mantissa from 2^-3 to 2^4 alone, where rows of normal numbers are brought.
 * An element of binade b has an error of (b / 8)^2 / 12 there, (b / 4)^2 / 12 and more farther off; squares of elements
 * are b^2 to 4 b^2, about twice b^2 in the mean: 2^-6 / 12 / 2 of the output. */
static void small_rows(struct setting *t)
{
    for (int i = 0; i < ROWS * K; i++)
        t->x[i] *= 0x1p-9f;
}

static void test_level(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS, small_rows);
    t->weight = (struct quant_operand){.codes = DT_I16, .per = QUANT_PER_CHANNEL};
    const struct quant_operand cast = {.codes = DT_HIF8, .cast = true, .scale = 1};
    const struct quant_equalised none = search(t, cast, 0), e = search(t, cast, SMOOTH);
    assert_non_null(e.smooth);
    assert_true(e.smooth[0] <= 0x1p-6f);
    assert_true(e.after < none.after / 4);
    assert_near(e.after / (0x1p-6 / 12 / 2), 1, 0.35);
    arena_free(&t->a);
}

/* Blocks of a row have scales of their own: a large element spoils the codes of its block alone. */
static void one_large_element(struct setting *t)
{
    for (int r = 0; r < ROWS; r++)
        t->x[r * K + 3] *= 1000;
    for (int c = 0; c < CHANNELS; c++)
        t->w[c * K + 3] = 0;
}

static void test_blocks(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS, one_large_element);
    const struct quant_operand whole = {.codes = DT_F4E2M1, .per = QUANT_PER_TOKEN, .dynamic = true},
                               blocks = {.codes = DT_F4E2M1,
                                         .per = QUANT_PER_GROUP,
                                         .group = 8,
                                         .scales = DT_F8E8M0,
                                         .dynamic = true};
    const struct quant_equalised w = search(t, whole, 0), b = search(t, blocks, 0);
    /* all but the large element become 0; no row's error counts for more than its output */
    assert_true(w.before > 0.8);
    /* with blocks the 7 others of its block do, of 31; codes of 4 bits and rows of little output add to that */
    assert_true(b.before > w.before * 7 / 31 && b.before < w.before / 2);
    arena_free(&t->a);
}

/* The Gram matrix of turned rows is that of the rows, turned. */
static void test_turned_statistics(void **state)
{
    (void)state;
    struct setting *t = begin(QUANT_ROWS | QUANT_GRAM, as_is);
    float smooth[K], scratch[K];
    struct rotation r;
    for (int j = 0; j < K; j++)
        smooth[j] = 0.5f + (float)j / 8;
    assert_true(quant_statistics_turn(&t->s, smooth, QUANT_HADAMARD, &t->a));
    assert_true(rotation_make(&r, K, &t->a));
    for (int i = 0; i < ROWS * K; i++)
        t->x[i] /= smooth[i % K];
    rotation_apply(&r, t->x, ROWS, scratch);
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) {
            double sum = 0;
            for (int row = 0; row < ROWS; row++)
                sum += (double)t->x[row * K + i] * (double)t->x[row * K + j];
            assert_near((double)t->s.gram[i * K + j], sum, 0.05);
        }
    arena_free(&t->a);
}

/* A kernel of 3 positions: each is an output of its own, and largest magnitudes are of all positions of a channel. */
static void test_positions(void **state)
{
    (void)state;
    enum { OUTS = 4, IN = 2, TAPS = 3 };
    float w[OUTS * IN * TAPS];
    const struct quant_operand o = {.codes = DT_I8, .per = QUANT_PER_CHANNEL};
    const struct quant_matrix m = {.data = w, .channels = OUTS, .k = IN * TAPS, .scale_type = DT_F32};
    struct quant_face f;
    struct arena a;
    unit_arena(&a);
    for (int i = 0; i < OUTS * IN * TAPS; i++)
        w[i] = (float)(i % 2 ? -i : i);
    assert_true(quant_face_make(&f, &m, TAPS, &o, &a));
    assert_int_equal(f.k, IN);
    assert_int_equal(f.n, OUTS * TAPS);
    double sum = 0, all = 0;
    for (int i = 0; i < OUTS * TAPS; i++) {
        assert_true(fabsf(f.w[i * IN + 1]) - fabsf(f.w[i * IN]) == TAPS); /* the next channel, at the same position */
        sum += fabs((double)f.w[i * IN]) + fabs((double)f.w[i * IN + 1]);
    }
    for (int i = 0; i < OUTS * IN * TAPS; i++)
        all += fabs((double)w[i]);
    assert_near(sum, all, 0); /* each element once */
    assert_near((double)f.top[0], OUTS * IN * TAPS - TAPS - 1, 0);
    assert_near((double)f.top[1], OUTS * IN * TAPS - 1, 0);
    arena_free(&a);
}

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(quant_equalisers_read("smooth"), SMOOTH);
    assert_int_equal(quant_equalisers_read("rotate,smooth"), SMOOTH | ROTATE);
    assert_int_equal(quant_equalisers_read("none"), 0);
    assert_int_equal(quant_equalisers_read("smoot"), -1);
    assert_int_equal(quant_equalisers_read("smooth,"), -1);
    assert_int_equal(quant_equalisers_read("smooth,,rotate"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),           cmocka_unit_test(test_plain),     cmocka_unit_test(test_smooth),
        cmocka_unit_test(test_zero_channels),     cmocka_unit_test(test_large_row), cmocka_unit_test(test_rotate),
        cmocka_unit_test(test_turned_statistics), cmocka_unit_test(test_level),     cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_positions),         cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
