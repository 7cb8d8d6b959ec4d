/* Sorting on the emulated vector cores: equal to the reference interpreter bit for bit, whatever
 * the tile; no hazard. */
#include "graph_case.h"

static const struct graph_case cases[] = {
    {"top_k",
     HEAD "%x: f32[b,s,90]) -> (%y: f32[b,s,7], %z: i64[b,s,7]) {\n"
          "    %k = Constant {value=i64[1] [7]} : i64[1]\n"
          "    %y, %z = TopK %x, %k : f32[b,s,7], i64[b,s,7]\n"
          "    Yield %y, %z" TAIL,
     2, 20, 0},
    {"top_k_axis",
     HEAD "%x: i64[b,40,s]) -> (%y: i64[b,3,s], %z: i64[b,3,s]) {\n"
          "    %k = Constant {value=i64[1] [3]} : i64[1]\n"
          "    %y, %z = TopK %x, %k {axis=1, largest=0} : i64[b,3,s], i64[b,3,s]\n"
          "    Yield %y, %z" TAIL,
     2, 20, 0},
};

static void test_cases(void **state)
{
    (void)state;
    run_cases(cases, NPUC_ARRAY_LEN(cases));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
