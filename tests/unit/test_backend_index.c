/* Movement by index and choice by place on the emulated vector cores: equal to the reference interpreter bit for bit,
 * whatever the tile; no hazard. */
#include "graph_case.h"

static const struct graph_case cases[] = {
    {"trilu",
     HEAD "%x: f32[b,s,7]) -> (%y: f32[b,s,7]) {\n"
          "    %y = Trilu %x {upper=0} : f32[b,s,7]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"eye",
     HEAD "%x: f32[s,7]) -> (%y: f32[s,7]) {\n"
          "    %y = EyeLike %x {k=1} : f32[s,7]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"arg_max",
     HEAD "%x: f32[b,s,70]) -> (%y: i64[b,s,1]) {\n"
          "    %y = ArgMax %x {axis=2} : i64[b,s,1]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"arg_min_last",
     HEAD "%x: i64[b,s,9]) -> (%y: i64[b,9]) {\n"
          "    %y = ArgMin %x {axis=1, keepdims=0, select_last_index=1} : i64[b,9]\n"
          "    Yield %y" TAIL,
     2, 40, 0},
    {"arg_max_long",
     HEAD "%x: f16[b,t]) -> (%y: i64[b,1]) {\n"
          "    %y = ArgMax %x {axis=1} : i64[b,1]\n"
          "    Yield %y" TAIL,
     2, 5, 40000},
    {"hardmax",
     HEAD "%x: f16[b,s,12]) -> (%y: f16[b,s,12]) {\n"
          "    %y = Hardmax %x {axis=1} : f16[b,s,12]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"gather_elements",
     HEAD "%x: f32[50,s], %i: i64[b,s]) -> (%y: f32[b,s]) {\n"
          "    %y = GatherElements %x, %i : f32[b,s]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"gather_nd",
     HEAD "%x: f32[50,60,s], %i: i64[b,t,2]) -> (%y: f32[b,t,s]) {\n"
          "    %y = GatherND %x, %i : f32[b,t,s]\n"
          "    Yield %y" TAIL,
     2, 5, 9},
    {"scatter_elements_add",
     HEAD "%x: f32[50,s], %i: i64[t,s], %u: f32[t,s]) -> (%y: f32[50,s]) {\n"
          "    %y = ScatterElements %x, %i, %u {reduction=\"add\"} : f32[50,s]\n"
          "    Yield %y" TAIL,
     2, 5, 30},
    {"scatter_nd",
     HEAD "%x: f16[50,s], %i: i64[t,1], %u: f16[t,s]) -> (%y: f16[50,s]) {\n"
          "    %y = ScatterND %x, %i, %u : f16[50,s]\n"
          "    Yield %y" TAIL,
     2, 70, 300},
    {"scatter_nd_max",
     HEAD "%x: f16[50,s], %i: i64[t,1], %u: f16[t,s]) -> (%y: f16[50,s]) {\n"
          "    %y = ScatterND %x, %i, %u {reduction=\"max\"} : f16[50,s]\n"
          "    Yield %y" TAIL,
     2, 70, 60},
    {"reverse_sequence",
     HEAD "%x: f32[60,b,s], %i: i64[b]) -> (%y: f32[60,b,s]) {\n"
          "    %y = ReverseSequence %x, %i : f32[60,b,s]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"pad_reflect",
     HEAD "%x: f32[b,8,9]) -> (%y: f32[b,13,14]) {\n"
          "    %p = Constant {value=i64[6] [0, 2, 1, 0, 3, 4]} : i64[6]\n"
          "    %y = Pad %x, %p {mode=\"reflect\"} : f32[b,13,14]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"pad_cut",
     HEAD "%x: f32[b,s,9]) -> (%y: f32[b,s + 5,12]) {\n"
          "    %p = Constant {value=i64[6] [0, 2, -1, 0, 3, 4]} : i64[6]\n"
          "    %y = Pad %x, %p : f32[b,s + 5,12]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
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
