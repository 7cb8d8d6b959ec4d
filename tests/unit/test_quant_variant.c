/* Divisors and roundings of scales and codes, against values worked out by hand from the vendors' rules. */
#include "quant/variant.h"
#include "quant/weight.h"
#include "unit.h"

static struct quant_operand operand(const char *variant)
{
    struct quant_product form = {.weight = {.codes = DT_I8}};
    const struct quant_variant *v = quant_variant_find(variant);
    assert_non_null(v);
    quant_variant_set(v, &form);
    assert_int_equal(form.input.codes, DT_NONE);
    return form.weight;
}

static void scales(void **state)
{
    (void)state;
    static const struct {
        const char *variant;
        double lo, hi;
        float scale;
    } cases[] = {
        {"onnx", -254, 127, 2}, {"ort", -254, 127, 2},  {"tensorrt", -127, 254, 2},
        {"full", -256, 12, 2},  {"full", -12, 256, 2},  {"amct", -256, 12, 2},
        {"amct", -12, 254, 2},  {"amct", -254, 254, 2}, {"amct", -256.5, 256, 256.5F / 128},
        {"onnx", 0, 0, 1},
    };
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(cases); i++) {
        const struct quant_operand o = operand(cases[i].variant);
        const struct quant_scale s = quant_cover(&o, DT_F32, cases[i].lo, cases[i].hi);
        assert_true(s.scale == cases[i].scale && s.zero == 0);
    }
}

static void codes(void **state)
{
    (void)state;
    static const struct {
        const char *variant;
        float x;
        int code;
    } cases[] = {
        {"onnx", 2.5F, 2},           {"onnx", 3.5F, 4},    {"onnx", -0.5F, 0},  {"onnx", -200, -128},
        {"onnx", 200, 127},          {"amct", 2.5F, 3},    {"amct", -2.5F, -3}, {"amct", -0.5F, -1},
        {"amct", 0.49999997F, 0},    {"amct", -200, -128}, {"ort", -200, -127}, {"tensorrt", 2.5F, 2},
        {"tensorrt", -127.9F, -127},
    };
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(cases); i++) {
        const struct quant_operand o = operand(cases[i].variant);
        assert_int_equal(quant_code(&o, (struct quant_scale){1, 0}, cases[i].x), cases[i].code);
    }
}

/* A rule goes only where it means something. */
static void where(void **state)
{
    (void)state;
    struct quant_product form = {.weight = {.codes = DT_F8E4M3FN},
                                 .input = {.codes = DT_I8, .per = QUANT_PER_TOKEN, .dynamic = true}};
    quant_variant_set(quant_variant_find("amct"), &form);
    assert_false(form.weight.away);
    assert_int_equal(form.weight.divisor, QUANT_DIVISOR_MOST);
    assert_true(form.input.away);
    assert_int_equal(form.input.divisor, QUANT_DIVISOR_MOST);
    form = (struct quant_product){.weight = {.codes = DT_U8, .shifted = true},
                                  .input = {.codes = DT_U8, .shifted = true, .dynamic = true}};
    quant_variant_set(quant_variant_find("full"), &form);
    assert_int_equal(form.weight.divisor, QUANT_DIVISOR_MOST);
    quant_variant_set(quant_variant_find("amct"), &form);
    assert_true(form.weight.away);
    assert_false(form.input.away);
    assert_null(quant_variant_find("cnnl"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(scales), cmocka_unit_test(codes), cmocka_unit_test(where)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
