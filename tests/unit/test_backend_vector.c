/* Vector regions, moves and gathers on the emulated vector cores: equal to the reference interpreter bit for bit,
 * resident and chunked, whatever the tile; no hazard. Each case is a graph as text. */
#include "graph_case.h"

static const struct graph_case cases[] = {
    {"relu", HEAD "%x: f32[b,s,64]) -> (%y: f32[b,s,64]) {\n    %y = Relu %x : f32[b,s,64]\n    Yield %y" TAIL, 2, 5,
     0},
    {"add_row",
     HEAD "%x: f32[b,s,64], %w: f32[64]) -> (%y: f32[b,s,64]) {\n    %y = Add %x, %w : f32[b,s,64]\n    Yield %y" TAIL,
     2, 33, 0},
    {"mul_column",
     HEAD
     "%x: f32[b,s,40], %c: f32[b,s,1]) -> (%y: f32[b,s,40]) {\n    %y = Mul %x, %c : f32[b,s,40]\n    Yield %y" TAIL,
     3, 7, 0},
    {"outer",
     HEAD "%x: f32[b,1,s,1], %c: f32[1,4,1,t]) -> (%y: f32[b,4,s,t]) {\n    %y = Sub %x, %c : f32[b,4,s,t]\n    Yield "
          "%y" TAIL,
     2, 3, 70},
    {"exp_f16", HEAD "%x: f16[b,s,24]) -> (%y: f16[b,s,24]) {\n    %y = Exp %x : f16[b,s,24]\n    Yield %y" TAIL, 1, 9,
     0},
    {"cast_i64", HEAD "%x: i64[b,s]) -> (%y: f32[b,s]) {\n    %y = Cast %x {to=1} : f32[b,s]\n    Yield %y" TAIL, 2, 77,
     0},
    {"cast_number",
     HEAD "%x: f32[s]) -> (%y: f32[s], %z: f32[]) {\n    %k = Constant {value=u8[] [134]} : u8[]\n"
          "    %z = Cast %k {to=1} : f32[]\n    %y = Sub %x, %z : f32[s]\n    Yield %y, %z" TAIL,
     1, 5, 0},
    {"sum_of_number",
     HEAD "%x: f32[s]) -> (%y: f32[s]) {\n    %k = Constant {value=f32[1] [2.5]} : f32[1]\n"
          "    %z = ReduceSum %k : f32[1]\n    %y = Sub %x, %z : f32[s]\n    Yield %y" TAIL,
     1, 5, 0},
    {"less",
     HEAD "%x: i64[s,1], %z: i64[t]) -> (%y: bool[s,t]) {\n    %y = LessOrEqual %x, %z : bool[s,t]\n    Yield %y" TAIL,
     1, 5, 130},
    {"where",
     HEAD "%c: bool[b,1,s,t], %x: f32[b,4,s,t], %z: f32[]) -> (%y: f32[b,4,s,t]) {\n"
          "    %y = Where %c, %x, %z : f32[b,4,s,t]\n    Yield %y" TAIL,
     2, 4, 33},
    {"softmax", HEAD "%x: f32[b,s,t]) -> (%y: f32[b,s,t]) {\n    %y = Softmax %x : f32[b,s,t]\n    Yield %y" TAIL, 2, 3,
     1000},
    {"softmax_long", HEAD "%x: f32[b,s,t]) -> (%y: f32[b,s,t]) {\n    %y = Softmax %x : f32[b,s,t]\n    Yield %y" TAIL,
     1, 2, 40000},
    {"softmax_axis",
     HEAD "%x: f32[b,s,12]) -> (%y: f32[b,s,12]) {\n    %y = Softmax %x {axis=1} : f32[b,s,12]\n    Yield %y" TAIL, 2,
     19, 0},
    {"log_softmax", HEAD "%x: f32[s,50]) -> (%y: f32[s,50]) {\n    %y = LogSoftmax %x : f32[s,50]\n    Yield %y" TAIL,
     1, 5, 0},
    {"rms_norm",
     HEAD "%x: f32[b,s,96], %w: f32[96]) -> (%y: f32[b,s,96]) {\n"
          "    %y = RMSNormalization %x, %w : f32[b,s,96]\n    Yield %y" TAIL,
     2, 41, 0},
    {"rms_norm_f16",
     HEAD "%x: f16[b,s,96], %w: f16[96]) -> (%y: f16[b,s,96]) {\n"
          "    %y = RMSNormalization %x, %w : f16[b,s,96]\n    Yield %y" TAIL,
     2, 5, 0},
    {"layer_norm",
     HEAD "%x: f32[b,s,96], %w: f32[96], %z: f32[96]) -> (%y: f32[b,s,96]) {\n"
          "    %y = LayerNormalization %x, %w, %z : f32[b,s,96]\n    Yield %y" TAIL,
     2, 6, 0},
    {"reduce_mean",
     HEAD "%x: f32[b,s,96]) -> (%y: f32[b,s,1]) {\n    %a = Constant {value=i64[1] [-1]} : i64[1]\n"
          "    %y = ReduceMean %x, %a : f32[b,s,1]\n    Yield %y" TAIL,
     2, 6, 0},
    {"reduce_sum_drop",
     HEAD "%x: i64[b,t]) -> (%y: i64[b]) {\n    %a = Constant {value=i64[1] [1]} : i64[1]\n"
          "    %y = ReduceSum %x, %a {keepdims=0} : i64[b]\n    Yield %y" TAIL,
     3, 0, 70},
    {"reduce_first",
     HEAD "%x: f32[s,24]) -> (%y: f32[1,24]) {\n    %a = Constant {value=i64[1] [0]} : i64[1]\n"
          "    %y = ReduceMax %x, %a : f32[1,24]\n    Yield %y" TAIL,
     1, 30, 0},
    /* reductions over what is not next to itself in memory: turned on chip */
    {"sum_middle_f16",
     HEAD "%x: f16[b,8,s]) -> (%y: f16[b,s]) {\n    %a = Constant {value=i64[1] [1]} : i64[1]\n"
          "    %y = ReduceSum %x, %a {keepdims=0} : f16[b,s]\n    Yield %y" TAIL,
     3, 1300, 0},
    {"mean_middle_wide",
     HEAD "%x: f32[b,70,s,5]) -> (%y: f32[b,1,s,5]) {\n    %a = Constant {value=i64[1] [1]} : i64[1]\n"
          "    %y = ReduceMean %x, %a : f32[b,1,s,5]\n    Yield %y" TAIL,
     2, 60, 0},
    {"max_first_i64",
     HEAD "%x: i64[9,s]) -> (%y: i64[1,s]) {\n    %a = Constant {value=i64[1] [0]} : i64[1]\n"
          "    %y = ReduceMax %x, %a : i64[1,s]\n    Yield %y" TAIL,
     1, 64, 0},
    {"softmax_middle_f16",
     HEAD "%x: f16[b,33,s]) -> (%y: f16[b,33,s]) {\n    %y = Softmax %x {axis=1} : f16[b,33,s]\n    Yield %y" TAIL, 2,
     63, 0},
    {"softmax_middle_one_row",
     HEAD "%x: f32[b,33,s]) -> (%y: f32[b,33,s]) {\n    %y = Softmax %x {axis=1} : f32[b,33,s]\n    Yield %y" TAIL, 3,
     1, 0},
    {"transpose",
     HEAD "%x: f32[b,s,4,16]) -> (%y: f32[b,4,s,16]) {\n    %y = Transpose %x {perm=[0, 2, 1, 3]} : f32[b,4,s,16]\n    "
          "Yield %y" TAIL,
     2, 9, 0},
    {"transpose_last",
     HEAD
     "%x: f32[b,s,24]) -> (%y: f32[b,24,s]) {\n    %y = Transpose %x {perm=[0, 2, 1]} : f32[b,24,s]\n    Yield %y" TAIL,
     2, 70, 0},
    {"concat",
     HEAD "%x: f32[b,s,16], %z: f32[b,t,16]) -> (%y: f32[b,s + t,16]) {\n    %y = Concat %x, %z {axis=1} : f32[b,s + "
          "t,16]\n    Yield %y" TAIL,
     2, 3, 5},
    {"empty",
     HEAD "%x: f32[b,s,16], %z: f32[b,t,16]) -> (%y: f32[b,s + t,16]) {\n    %y = Concat %x, %z {axis=1} : f32[b,s + "
          "t,16]\n    Yield %y" TAIL,
     2, 3, 0},
    {"gather",
     HEAD
     "%x: f32[50,24], %i: i64[b,s]) -> (%y: f32[b,s,24]) {\n    %y = Gather %x, %i : f32[b,s,24]\n    Yield %y" TAIL,
     2, 40, 0},
    {"gather_middle",
     HEAD "%x: f32[3,50,24], %i: i64[s]) -> (%y: f32[3,s,24]) {\n    %y = Gather %x, %i {axis=1} : f32[3,s,24]\n    "
          "Yield %y" TAIL,
     1, 7, 0},
    {"rotary",
     HEAD "%x: f32[b,4,s,16], %c: f32[64,8], %d: f32[64,8], %i: i64[b,s]) -> (%y: f32[b,4,s,16]) {\n"
          "    %y = RotaryEmbedding %x, %c, %d, %i : f32[b,4,s,16]\n    Yield %y" TAIL,
     2, 5, 0},
    {"rotary_part",
     HEAD "%x: f32[b,s,64], %c: f32[b,s,4], %d: f32[b,s,4]) -> (%y: f32[b,s,64]) {\n"
          "    %y = RotaryEmbedding %x, %c, %d {interleaved=1, num_heads=4, rotary_embedding_dim=8} : f32[b,s,64]\n    "
          "Yield %y" TAIL,
     2, 5, 0},
    {"cache_append",
     HEAD "%x: f32[b,2,t,8], %z: f32[b,2,s,8], %p: i64[b], %n: i64[]) -> (%y: f32[b,2,t + s,8]) {\n"
          "    %y = CacheAppend %x, %z {axis=2} : f32[b,2,s + t,8]\n    Yield %y" TAIL,
     2, 3, 9},
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
