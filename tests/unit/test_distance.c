/* Measures of error and of distributions against values worked out by hand. */
#include "unit.h"

#include "quant/distance.h"

#include <math.h>

static void error_of_known_values(void **state)
{
    (void)state;
    const float x[] = {3, 4, 0, 0}, y[] = {3, 3, 1, 0};
    struct metric_error e = {0};
    metric_add_floats(&e, x, y, 4);
    assert_true(e.n == 4 && e.bad == 0 && e.most == 1);
    assert_true(metric_mse(&e) == 0.5 && metric_noise(&e) == 2.0 / 25);
    assert_true(fabs(metric_sqnr(&e) - 10 * log10(12.5)) < 1e-12);
    assert_true(fabs(metric_cosine(&e) - 21 / (5 * sqrt(19))) < 1e-15);
}

static void parts_add_up(void **state)
{
    (void)state;
    float x[100], y[100];
    struct metric_error whole = {0}, first = {0}, rest = {0};
    for (int i = 0; i < 100; i++) {
        x[i] = (float)(i % 7) - 2;
        y[i] = x[i] + (float)(i % 3);
    }
    y[99] = NAN;
    metric_add_floats(&whole, x, y, 100);
    metric_add_floats(&first, x, y, 64);
    metric_add_floats(&rest, x + 64, y + 64, 36);
    metric_join(&first, &rest);
    assert_true(whole.n == 99 && whole.bad == 1 && first.n == 99 && first.bad == 1);
    assert_true(first.xx == whole.xx && first.yy == whole.yy && first.xy == whole.xy && first.ee == whole.ee);
    assert_true(first.most == whole.most);
}

static void no_error_and_no_signal(void **state)
{
    (void)state;
    const float zeros[3] = {0}, ones[3] = {1, 1, 1};
    struct metric_error same = {0}, none = {0}, noise = {0};
    metric_add_floats(&same, ones, ones, 3);
    metric_add_floats(&none, zeros, zeros, 3);
    metric_add_floats(&noise, zeros, ones, 3);
    assert_true(isinf(metric_sqnr(&same)) && metric_cosine(&same) == 1 && metric_noise(&same) == 0);
    assert_true(isinf(metric_sqnr(&none)) && metric_cosine(&none) == 1 && metric_mse(&none) == 0);
    assert_true(metric_cosine(&noise) == 0 && isinf(metric_noise(&noise)));
}

static void tensors_of_other_shapes(void **state)
{
    (void)state;
    float data[6] = {1, 2, 3, 4, 5, 6};
    int32_t whole[6] = {1, 2, 3, 4, 5, 7};
    const struct k_tensor x = {.dtype = DT_F32, .rank = 2, .dims = {2, 3}, .data = data, .size = 24};
    const struct k_tensor turned = {.dtype = DT_F32, .rank = 2, .dims = {3, 2}, .data = data, .size = 24};
    const struct k_tensor i = {.dtype = DT_I32, .rank = 2, .dims = {2, 3}, .data = whole, .size = 24};
    struct metric_error e = {0};
    assert_false(metric_add(&e, &x, &turned));
    assert_true(metric_add(&e, &x, &i) && e.n == 6 && e.ee == 1);
}

static void distributions(void **state)
{
    (void)state;
    const float x[] = {logf(0.5f), logf(0.25f), logf(0.25f), -INFINITY}, y[] = {1, 1, 2, -INFINITY};
    const struct metric_words same = metric_softmax(x, x, 3), w = metric_softmax(x, y, 3);
    const struct metric_words masked = metric_softmax(x, y, 4);
    const double sum = 2 * exp(1) + exp(2);
    const double kl = 0.5 * log(0.5 * sum / exp(1)) + 0.25 * log(0.25 * sum / exp(1)) + 0.25 * log(0.25 * sum / exp(2));
    assert_true(same.kl < 1e-15 && same.top == 0 && same.best == 0);
    assert_true(fabs(w.kl - kl) < 1e-7 && w.top == 0 && w.best == 2);
    assert_true(fabs(metric_log_sum(y, 3) - log(sum)) < 1e-12 && masked.kl == w.kl);
}

static void quantiles(void **state)
{
    (void)state;
    double v[200];
    for (int i = 0; i < 200; i++)
        v[i] = (i * 37) % 200 + 1;
    assert_true(metric_quantile(v, 200, 0.99) == 198 && v[199] == 200);
    assert_true(metric_quantile(v, 200, 1) == 200 && metric_quantile(v, 200, 0) == 1);
    assert_true(metric_quantile(v, 1, 0.99) == 1 && metric_quantile(v, 0, 0.5) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_of_known_values),  cmocka_unit_test(parts_add_up),
        cmocka_unit_test(no_error_and_no_signal), cmocka_unit_test(tensors_of_other_shapes),
        cmocka_unit_test(distributions),          cmocka_unit_test(quantiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
