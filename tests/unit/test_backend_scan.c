/* Scans, reductions over any axes, normalisations and pools on the emulated vector cores: equal to the reference
 * interpreter bit for bit, whatever the tile; no hazard. */
#include "graph_case.h"

static const struct graph_case cases[] = {
    {"cum_sum",
     HEAD "%x: f32[b,s,9]) -> (%y: f32[b,s,9]) {\n"
          "    %a = Constant {value=i64[] [1]} : i64[]\n"
          "    %y = CumSum %x, %a : f32[b,s,9]\n"
          "    Yield %y" TAIL,
     2, 40, 0},
    {"cum_sum_last",
     HEAD "%x: f16[b,s,9]) -> (%y: f16[b,s,9]) {\n"
          "    %a = Constant {value=i64[] [-1]} : i64[]\n"
          "    %y = CumSum %x, %a {exclusive=1, reverse=1} : f16[b,s,9]\n"
          "    Yield %y" TAIL,
     2, 40, 0},
    {"cum_prod",
     HEAD "%x: i64[s,t]) -> (%y: i64[s,t]) {\n"
          "    %a = Constant {value=i64[] [0]} : i64[]\n"
          "    %y = CumProd %x, %a {reverse=1} : i64[s,t]\n"
          "    Yield %y" TAIL,
     2, 4, 300},
    {"reduce_apart",
     HEAD "%x: f32[b,s,t]) -> (%y: f32[1,s,1]) {\n"
          "    %a = Constant {value=i64[2] [0, 2]} : i64[2]\n"
          "    %y = ReduceMean %x, %a : f32[1,s,1]\n"
          "    Yield %y" TAIL,
     2, 5, 70},
    {"log_sum_exp",
     HEAD "%x: f16[b,s,t]) -> (%y: f16[s]) {\n"
          "    %a = Constant {value=i64[2] [0, 2]} : i64[2]\n"
          "    %y = ReduceLogSumExp %x, %a {keepdims=0} : f16[s]\n"
          "    Yield %y" TAIL,
     2, 5, 70},
    {"mean_i64",
     HEAD "%x: i64[b,t]) -> (%y: i64[b,1]) {\n"
          "    %a = Constant {value=i64[1] [1]} : i64[1]\n"
          "    %y = ReduceMean %x, %a : i64[b,1]\n"
          "    Yield %y" TAIL,
     2, 5, 70},
    {"layer_norm_statistics",
     HEAD "%x: f32[b,s,t], %g: f32[t], %h: f32[t]) -> (%y: f32[b,s,t], %z: f32[b,s,1], %w: f32[b,s,1]) {\n"
          "    %y, %z, %w = LayerNormalization %x, %g, %h : f32[b,s,t], f32[b,s,1], f32[b,s,1]\n"
          "    Yield %y, %z, %w" TAIL,
     2, 5, 70},
    {"instance_norm",
     HEAD "%x: f16[b,6,s,t], %g: f16[6], %h: f16[6]) -> (%y: f16[b,6,s,t]) {\n"
          "    %y = InstanceNormalization %x, %g, %h : f16[b,6,s,t]\n"
          "    Yield %y" TAIL,
     2, 5, 30},
    {"group_norm",
     HEAD "%x: f32[b,6,s,t], %g: f32[6], %h: f32[6]) -> (%y: f32[b,6,s,t]) {\n"
          "    %y = GroupNormalization %x, %g, %h {num_groups=2} : f32[b,6,s,t]\n"
          "    Yield %y" TAIL,
     2, 5, 30},
    {"lp_norm",
     HEAD "%x: f32[b,s,t]) -> (%y: f32[b,s,t]) {\n"
          "    %y = LpNormalization %x {axis=1} : f32[b,s,t]\n"
          "    Yield %y" TAIL,
     2, 5, 30},
    {"max_pool",
     HEAD
     "%x: f32[b,3,9,t]) -> (%y: f32[b,3,5,t], %z: i64[b,3,5,t]) {\n"
     "    %y, %z = MaxPool %x {kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1]} : f32[b,3,5,t], i64[b,3,5,t]\n"
     "    Yield %y, %z" TAIL,
     2, 9, 70},
    {"average_pool",
     HEAD "%x: f16[b,3,12,70]) -> (%y: f16[b,3,12,68]) {\n"
          "    %y = AveragePool %x {kernel_shape=[3, 3], pads=[1, 1, 1, 1], dilations=[1, 2]} : f16[b,3,12,68]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"lp_pool",
     HEAD "%x: f32[b,3,20]) -> (%y: f32[b,3,17]) {\n"
          "    %y = LpPool %x {kernel_shape=[4], p=3} : f32[b,3,17]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"global_average",
     HEAD "%x: f32[b,3,s,t]) -> (%y: f32[b,3,1,1]) {\n"
          "    %y = GlobalAveragePool %x : f32[b,3,1,1]\n"
          "    Yield %y" TAIL,
     2, 5, 30},
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
