/* The table of element types. */
#include "unit.h"

#include "base/dtype.h"

#include <string.h>

static void looks_up(void **state)
{
    (void)state;
    for (int t = DT_NONE + 1; t < DT_COUNT; t++) {
        const struct dtype_info *i = &dtype_table[t];
        assert_int_equal(dtype_from_onnx(i->onnx), t);
        assert_int_equal(dtype_from_name(i->name, (int64_t)strlen(i->name)), t);
        if (i->npy)
            assert_int_equal(dtype_from_npy(i->npy), t);
    }
    assert_int_equal(dtype_from_onnx(0), DT_NONE);
    assert_int_equal(dtype_from_onnx(INT64_MAX), DT_NONE);
    assert_int_equal(dtype_from_name("f3", 2), DT_NONE);
    assert_int_equal(dtype_from_name("f32x", 4), DT_NONE);
    assert_int_equal(dtype_from_npy("<u1"), DT_U8);
    assert_int_equal(dtype_from_npy("?"), DT_NONE);
    assert_int_equal(dtype_from_npy(""), DT_NONE);
    assert_int_equal(dtype_from_npy(">f4"), DT_NONE);
}

static void counts_bytes(void **state)
{
    (void)state;
    int64_t n;
    assert_true(dtype_bytes(DT_F32, 3, &n));
    assert_int_equal(n, 12);
    assert_true(dtype_bytes(DT_I4, 3, &n));
    assert_int_equal(n, 2);
    assert_true(dtype_bytes(DT_F6E2M3, 4, &n));
    assert_int_equal(n, 3);
    assert_true(dtype_bytes(DT_U2, 5, &n));
    assert_int_equal(n, 2);
    assert_true(dtype_bytes(DT_C128, 0, &n));
    assert_int_equal(n, 0);
    assert_true(dtype_bytes(DT_U8, INT64_MAX, &n));
    assert_int_equal(n, INT64_MAX);
    assert_false(dtype_bytes(DT_F16, INT64_MAX, &n));
    assert_false(dtype_bytes(DT_F32, -1, &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(looks_up), cmocka_unit_test(counts_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
