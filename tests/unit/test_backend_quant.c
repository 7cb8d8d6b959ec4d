/* Packed types and quantisation on the emulated vector cores: equal to the reference interpreter bit for bit, whatever
 * the tile; no hazard. */
#include "graph_case.h"

static const struct graph_case cases[] = {
    {"quantize",
     HEAD "%x: f32[b,s,24], %q: f32[24], %p: i8[24]) -> (%y: i8[b,s,24]) {\n"
          "    %y = QuantizeLinear %x, %q, %p {axis=2} : i8[b,s,24]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"dequantize",
     HEAD "%x: u8[b,s,24], %q: f16[], %p: u8[]) -> (%y: f16[b,s,24]) {\n"
          "    %y = DequantizeLinear %x, %q, %p : f16[b,s,24]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"dequantize_blocks",
     HEAD "%x: i4[b,64], %q: f32[b,4]) -> (%y: f32[b,64]) {\n"
          "    %y = DequantizeLinear %x, %q {axis=1, block_size=16} : f32[b,64]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"dynamic_quantize",
     HEAD "%x: f32[b,t]) -> (%y: u8[b,t], %z: f32[], %w: u8[]) {\n"
          "    %y, %z, %w = DynamicQuantizeLinear %x : u8[b,t], f32[], u8[]\n"
          "    Yield %y, %z, %w" TAIL,
     2, 5, 700},
    {"cast_i4",
     HEAD "%x: f32[b,s,7]) -> (%y: i4[b,s,7]) {\n"
          "    %y = Cast %x {to=22} : i4[b,s,7]\n"
          "    Yield %y" TAIL,
     2, 5, 0},
    {"cast_from_u2",
     HEAD "%x: u2[b,t]) -> (%y: f32[b,t]) {\n"
          "    %y = Cast %x {to=1} : f32[b,t]\n"
          "    Yield %y" TAIL,
     2, 5, 701},
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
