/* Attention as one mixed kernel: y = f(q x k) x v, where f is a vector region over the rows of the scores.
 *
 * A work item is a run of rows of one batch member (batch entry and key head). The cube core of a block writes the
 * item's scores to a workspace, the two vector cores turn them into probabilities there, the cube core multiplies those
 * with v. The workspace has two slots per block, so that the cube core makes the next scores while the vector cores
 * work. */
#ifndef BACKEND_ASCEND_ATTENTION_H
#define BACKEND_ASCEND_ATTENTION_H

#include "backend/vector/lower.h"
#include "backend/ascend/matmul.h"
#include "backend/vector/vregion_priv.h"

/* Flags between the cores of a block. */
enum { ATT_SCORES_READY, ATT_PROBS_READY };

/* What match finds out. Values are those outside of the region; sizes and strides are ir expressions, in elements. */
struct att {
    const struct node *fused, *qk, *pv; /* the two products stand in the region */
    struct value *q, *k, *v, *y;
    enum dtype in, score, prob, out; /* of q and k; of scores as stored; of probabilities and v; of y */
    bool k_rows;                     /* k is stored [total, size]; else [size, total] */
    bool v_rows;                     /* v is stored [total, v_size]; else [v_size, total] */
    int64_t size, v_size;
    expr rows, total; /* of one batch member */
    int n_batch;
    expr batch[IR_MAX_RANK], q_batch[IR_MAX_RANK], k_batch[IR_MAX_RANK], v_batch[IR_MAX_RANK], y_batch[IR_MAX_RANK];
    expr q_row, k_row, v_row, y_row;
    struct space space;      /* of the vector region; its dimensions before the last are batch x rows */
    expr planes, plane_rows; /* rows = planes x plane_rows: query heads that share a key head x positions */
    bool heads_split;        /* the space's axis rank - 3 is part of the batch x planes */
};

/* Extents: m rows of a product at most; n, k0 of the scores; pn, pk0 of the second product, pkb its K block in L1. */
struct att_tile {
    int64_t m, n, k0, pn, pk0, pkb;
    int64_t size_pad; /* of q and k in L1 */
};

/* Division into work items, as ir expressions. */
struct att_split {
    expr tile_planes, tile_rows; /* of an item: several planes only when it takes all of their rows */
    expr n_plane_tiles, n_row_tiles, items, blocks;
    expr pitch; /* of workspace rows */
    expr slot;  /* elements of one of a block's two workspace slots */
};

struct att_item { /* kernel expressions */
    expr batch, plane0, planes, row0, rows;
    expr first, count; /* its rows within the batch member, which are neighbours */
    expr slot;         /* offset in the workspace */
};

/* One form of the kernel being generated; expressions are the kernel's. */
struct att_kernel {
    struct emit *e;
    const struct att *a;
    struct att_tile tile;
    struct vr_form f; /* holds kernel, builder and parameters, too */
    int score_view, prob_view;
    int32_t tq, tk, tv, ty, ts, tp; /* tensors */
    expr total, plane_rows, planes;
    expr batch[IR_MAX_RANK], q_batch[IR_MAX_RANK], k_batch[IR_MAX_RANK], v_batch[IR_MAX_RANK], y_batch[IR_MAX_RANK];
    expr q_row, k_row, v_row, y_row;
    struct att_split s;
};

/* attention_match.c: is the node such a region, and does the machine do it? */
bool att_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct att *out, const char **reason);
/* attention_tile.c: the largest extents up to `rows` rows that fit; false when not even 16 rows do. */
bool att_fit(const struct machine *m, const struct att *a, int64_t rows, const struct tiling *w, struct att_tile *out);
struct att_split att_divide(struct emit *e, const struct att *a, int64_t rows);
/* gen_attention.c: how many items this core has, and the i-th of them. */
expr att_count(struct att_kernel *k);
struct att_item att_locate(struct att_kernel *k, expr i);
/* attention_cube.c: the cube core's program. */
void att_cube_code(struct att_kernel *k);
/* attention_vector.c: the region over workspaces `scores` and `probs`, and the vector cores' program. */
struct lower *att_lower(struct emit *e, const struct att *a, const struct att_split *s, const int32_t workspace[2]);
void att_vector_code(struct att_kernel *k);

#endif
