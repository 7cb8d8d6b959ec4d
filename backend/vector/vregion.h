/* Vector regions: elementwise DAGs, row reductions and strided copies as one tile kernel on the vector cores.
 *
 * A region has an iteration space of `rank` dimensions; the last one is the row ("columns"). Inputs and outputs are
 * views: a tensor, an offset and one stride per dimension (0: broadcast), so slices, transposes, expands, head splits
 * and concatenations cost no kernel of their own. Values have a class: FULL (rows x columns), COL (one per row), ROW
 * (one per column), ONE. vr_launch merges dimensions that all views walk contiguously, picks tiles and emits
 *
 *   resident form   the rows of a tile stay in UB; every value is computed once          (columns fit)
 *   chunked form    one pass over the columns per level of reductions, recomputing what a pass needs
 *
 * Both give the same bits: reductions use lanes of absolute column numbers (DESIGN section 7). */
#ifndef BACKEND_VECTOR_VREGION_H
#define BACKEND_VECTOR_VREGION_H

#include "backend/backend.h"
#include "kernels/vec.h"

#define VR_MAX_VALUES  96
#define VR_MAX_OUTPUTS 8

enum vr_kind { VR_INPUT, VR_IMM, VR_VEC, VR_CAST, VR_RED, VR_IOTA };
enum vr_class { VC_ONE, VC_COL, VC_ROW, VC_FULL };

struct vr_view {
    int32_t tensor; /* plan tensor; -1: none, the addresses are the elements (VR_IOTA) */
    enum dtype dtype;
    expr offset;              /* elements; ir expression */
    expr stride[IR_MAX_RANK]; /* elements, per iteration dimension; ir expressions */
    /* With `indexed`, what is at index[i] of an integer tensor, times index_stride, is added for index i of dimension
     * 0. */
    bool indexed;
    int32_t index; /* plan tensor */
    enum dtype index_dtype;
    expr index_stride, index_max; /* largest value read; larger ones are cut */
};
struct vr_value {
    enum vr_kind kind;
    enum vr_class cls;
    enum dtype dtype;    /* of the result */
    enum dtype op_dtype; /* VEC: of the operands */
    int op;              /* enum k_fn or enum k_red */
    int arg[3];          /* operand values, -1 none */
    float param[3];
    float imm;
    bool wraps;   /* VR_CAST: without saturation */
    bool nearest; /* VR_CAST: of floats, to the nearest bytes */
    int view;     /* VR_INPUT, VR_IOTA: index into views */
    int level;    /* reductions on the longest path from the inputs */
};
struct vr_output {
    int value;
    struct vr_view view; /* tensor -1: the value stays in its buffer, for callers that go on with it */
};
struct vr {
    struct emit *e;
    int rank;
    expr dims[IR_MAX_RANK]; /* ir expressions */
    int n_values, n_views, n_outputs;
    struct vr_value values[VR_MAX_VALUES];
    struct vr_view views[VR_MAX_VALUES];
    struct vr_output outputs[VR_MAX_OUTPUTS];
    bool keeps_first; /* an indexed view pins dimension 0: it is neither dropped nor merged */
    bool planes;      /* dimension rank - 3 counts to the rows of a tile; for callers that bring their own tiles */
    bool has_red;     /* some value is a reduction; set by vr_normalise */
    bool overflow;    /* more than the limits hold: vr_launch refuses */
    /* Views, outputs behind them, that are turned on chip; of the columns, how many there are at most, 0: none is. */
    bool turned[VR_MAX_VALUES + VR_MAX_OUTPUTS];
    int64_t turned_cols;
};

void vr_init(struct vr *r, struct emit *e, int rank, const expr *dims);
int vr_input(struct vr *r, const struct vr_view *view);
/* The number of an element: offset + sum of index x stride over the iteration dimensions, as integers of type t. */
int vr_iota(struct vr *r, enum dtype t, expr offset, const expr *strides);
int vr_imm(struct vr *r, enum dtype t, float v);
int vr_vec(struct vr *r, enum k_fn fn, enum dtype op_dtype, const int arg[3], const float param[3]);
int vr_vec1(struct vr *r, enum k_fn fn, int a);
int vr_vec2(struct vr *r, enum k_fn fn, int a, int b);
int vr_cast(struct vr *r, enum dtype to, int a); /* saturating, where the type has a choice */
int vr_cast_as(struct vr *r, enum dtype to, int a, bool saturate);
int vr_reduce(struct vr *r, enum k_red op, int a); /* over the last dimension: a COL value */
void vr_output(struct vr *r, int value, const struct vr_view *view);
/* Row-major view of a value over the last dims of the iteration space (right-aligned; a dimension of size 1
 * broadcasts). */
bool vr_view_of(struct vr *r, struct value *v, struct vr_view *out);
NPUC_MUST_CHECK enum npuc_status vr_launch(struct vr *r, const char *name, const char *label);

#endif
