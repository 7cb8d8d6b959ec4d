/* The order of passes, with the reason for each place. */
#include "passes/pass.h"

static const struct pass_step pipeline[] = {
    {PASS_read_contents, "first: sizes that folding writes down are then those of the operands read"},
    {PASS_apply_recipe, "names are those of the file; what it writes is then recovered as if the file had it"},
    {PASS_recover_scaled, "before recover_quant, which would take the constant one of two operands with scales"},
    {PASS_recover_integer, "before recover_quant, which keeps the left operand in floats"},
    {PASS_recover_quant, "before folding, which would dequantise whole weights"},
    {PASS_fold_constants,
     "shape arithmetic becomes size expressions, so that every later pass sees sizes and not nodes"},
    {PASS_lower_recipe,
     "after folding, which tells lengths and axes; before inline_control, which takes the walks over steps"},
    {PASS_inline_control,
     "after folding, which tells conditions and trip counts; before patterns, which then see one graph"},
    {PASS_recover_sequence, "after folding and unrolling, which tell positions; what stays is on the host"},
    {PASS_dce, "the shape subgraphs that nobody reads any more go before patterns count uses"},
    {PASS_recover_rope, "needs the exporter's Slice, Neg, Concat as they are; slices of angles are then shared by cse"},
    {PASS_recover_norm, "needs the exporter's casts and means; one operator is one kernel with its statistics on chip"},
    {PASS_recover_activation, "after folding, which leaves plain constants"},
    {PASS_lower_attention, "products and softmax that the generators know; caches become explicit"},
    {PASS_split_sum, "before placement, which leaves sums of many operands on the host"},
    {PASS_lower_vision, "before folding, which computes the coordinates of affine grids"},
    {PASS_lower_integer, "before folding and cse: sums of weights become constants"},
    {PASS_lower_grid, "before expand_operands and fuse_vector, which take its elementwise part"},
    {PASS_lower_resize, "before folding, which computes places and weights; before fuse_vector, which takes the sums"},
    {PASS_lower_steps, "before folding, which scales constant biases; before fuse_vector, which takes the rest"},
    {PASS_expand_operands, "before cse, which leaves one Expand for all layers"},
    {PASS_cse, "masks, angles and positions that every layer repeats become one"},
    {PASS_fold_constants, "sizes that lowering made"},
    {PASS_dce, "what lowering left without users"},
    {PASS_recover_product, "decomposed attention reads its cache in place; before kv_cache, which counts users"},
    {PASS_dce, "the transposes and repeats nobody reads"},
    {PASS_kv_cache, "after lowering, which makes the appends; before placement, which sees the layout"},
    {PASS_precision, "before placement, which asks for each type; after patterns, which should not see its casts"},
    {PASS_whole_precision, "as precision, for modes and targets where it takes all operators"},
    {PASS_quantise, "after whole_precision, which leaves its sums and scales in f32"},
    {PASS_sink_casts, "after the passes that make casts; before fusion, which takes a narrow Relu into the product"},
    {PASS_place, "the target decides node by node"},
    {PASS_layout, "host operators and views need dense operands"},
    {PASS_fuse_attention, "needs placement and dense views; before fuse_vector, which would take the softmax"},
    {PASS_fuse_matmul, "before fuse_vector, which would take the bias"},
    {PASS_fuse_product,
     "after fuse_matmul, which takes what needs no vector core; before fuse_vector, which would take the rest"},
    {PASS_group_products, "after fuse_product, whose regions read several products of one operand themselves"},
    {PASS_fuse_vector, "needs placement: only what the vector generator takes is fused"},
    {PASS_place, "the new Fused nodes"},
    {PASS_layout_maps, "after fusion: no pass behind it infers types, which would forget layouts"},
    {PASS_dce, "regions drop results that nobody uses"},
    {PASS_name_fused, "when no pass changes a region any more"},
};

const struct pass_step *pass_pipeline(int64_t *n)
{
    *n = NPUC_ARRAY_LEN(pipeline);
    return pipeline;
}
