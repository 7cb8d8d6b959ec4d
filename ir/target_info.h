/* What passes may know about the machine: a narrow view that a backend fills in. */
#ifndef IR_TARGET_INFO_H
#define IR_TARGET_INFO_H

#include "ir/graph.h"

struct target_info {
    const char *name;
    /* Can the target's NPU cores run this node (or Fused node)? If not, *reason is the constraint in plain words. */
    bool (*supports)(const struct target_info *t, struct ir_ctx *cx, const struct node *n, const char **reason);
    /* Can the node be a member of a Fused "vector" region? NULL: whatever is supported and elementwise or reduces. */
    bool (*in_region)(const struct target_info *t, struct ir_ctx *cx, const struct node *n);
    /* Does the node read its operand x in memory as lines of channels, without the Transpose before it? May be NULL. */
    bool (*takes_lines)(const struct target_info *t, struct ir_ctx *cx, const struct node *n, const struct value *x);
    /* How feature maps of an element type lie best for the matrix unit; kind ND: as they come. NULL: so for all. */
    struct layout (*map_layout)(const struct target_info *t, enum dtype dtype);
    double launch_ns, bytes_per_ns; /* what a conversion costs: a launch, and its bytes at the rate of main memory */
    int64_t row_elems;              /* longest row (f32 elements) a row-wise fused kernel keeps on chip */
    bool has_mac[DT_COUNT];         /* matrix unit takes this type */
    bool whole_precision;           /* a wanted float type is meant for all operators, not for products alone */
    const void *machine;            /* the backend's own data */
};

#endif
