/* Attention as one mixed kernel: y = SoftmaxMatMul(f(q x k), v), where f is a vector region over the rows of the
 * scores.
 *
 * A work item is a run of rows of one batch member (batch entry and key head), a step one chunk of ATTEND_CHUNK keys of
 * an item. The cube core of a block writes a step's scores to a workspace, the two vector cores turn them into
 * probabilities there, the cube core multiplies those with v into a third workspace, the vector cores merge that into
 * what they hold of the item. All of it is a pipeline over steps: the cube core is ATT_AHEAD steps ahead of its second
 * product, the vector cores one more ahead of merging.
 *
 * Few rows of many keys: an item's parts of ATTEND_PART keys are units of their own, whose maxima, sums and results go
 * to memory; when all cores have met, the vector cores merge them in ascending order. */
#ifndef BACKEND_ASCEND_ATTENTION_H
#define BACKEND_ASCEND_ATTENTION_H

#include "backend/vector/lower.h"
#include "backend/ascend/matmul.h"
#include "backend/vector/vregion_priv.h"
#include "ir/band.h"
#include "ir/cache_code.h"
#include "kernels/attend_chunks.h"

/* Flags between the cores of a block. */
enum { ATT_SCORES_READY, ATT_PROBS_READY, ATT_PART_READY, ATT_KEYS_READY, ATT_VALUES_READY };
/* Steps between scores and product, and between probabilities and merging; slots of the workspaces follow. */
enum { ATT_AHEAD = 2, ATT_MERGE = ATT_AHEAD + 1, ATT_SLOTS = ATT_AHEAD + 1, ATT_PARTS = ATT_MERGE + 1 };
/* Values per row that a vector core holds of each step, and of a beginning. */
enum { ATT_HELD = ATT_PARTS + 1 };
#define ATT_MAX_BLOCKS 40 /* products that a step is written out as */
#define ATT_MAX_ACCS   4
#define ATT_MAX_RUNS   (ATTEND_CHUNK / 32) /* of the rows of a chunk, in pages */
/* Operands that are caches of codes: the vector cores decode a step's chunk ATT_DECODE steps before they take its
 * scores. A slot is free when they have taken the scores, or the product, that came of it. */
enum { ATT_KEYS, ATT_VALUES, ATT_CODED };
enum { ATT_DECODE = 2, ATT_KEY_SLOTS = ATT_DECODE + 1, ATT_VALUE_SLOTS = ATT_DECODE + ATT_MERGE + 1 };

struct att_codes {
    struct value *codes, *scales; /* codes NULL: the operand is floats */
    struct k_cache_form f;
    expr batch[IR_MAX_RANK], s_batch[IR_MAX_RANK], row, s_row; /* strides */
};

/* An operand whose rows lie in pages; sizes are ir expressions. */
struct att_pages {
    int64_t page;      /* rows; 0: it is in one piece */
    int64_t ring;      /* pages that a sequence has and takes in turn; 0: the block table says */
    expr heads;        /* that a page has */
    expr width, cells; /* of the table: columns, all */
};

/* What match finds out. Values are those outside of the region; sizes and strides are ir expressions, in elements. */
struct att {
    const struct node *fused, *qk, *soft; /* the product and SoftmaxMatMul stand in the region */
    struct value *q, *k, *v, *y, *sink;   /* sink may be NULL */
    enum dtype in, score, prob, out;      /* of q and k; of scores as stored; of v; of y */
    enum attend_empty empty;
    float scale;
    bool k_rows; /* k is stored [total, size]; else [size, total] */
    bool v_rows; /* v is stored [total, v_size]; else [v_size, total] */
    int64_t size, v_size;
    expr rows, total; /* of one batch member */
    int n_batch;
    expr batch[IR_MAX_RANK], q_batch[IR_MAX_RANK], k_batch[IR_MAX_RANK], v_batch[IR_MAX_RANK], y_batch[IR_MAX_RANK];
    expr q_row, k_row, v_row, y_row;
    const struct node *turn; /* the Transpose behind the product that puts rows in front of heads; NULL: none */
    expr y_plane;            /* turned: from a row of one query head to the same of the next */
    struct space space;      /* of the vector region; its dimensions before the last are batch x rows */
    expr planes, plane_rows; /* rows = planes x plane_rows: query heads that share a key head x positions */
    struct att_codes coded[ATT_CODED];
    struct att_pages paged[ATT_CODED];
    bool heads_split;    /* the space's axis rank - 3 is part of the batch x planes */
    struct ir_band band; /* first_data == last_data */
};

/* Extents: m rows of an item at most; n, k0 of blocks of the scores; pn, pk of those of the second product; vn columns
 * of a load of v. */
struct att_tile {
    int64_t m, n, k0, pn, pk, vn;
    int64_t size_pad;     /* of q and k in L1 */
    int key_bufs, v_bufs; /* blocks of k and v in L1 */
    int ring, prob_slots; /* slots of those and of the probabilities */
    int accs;             /* accumulators, which the blocks of results take in turn */
};

/* Division into work items, as ir expressions. */
struct att_split {
    expr tile_planes, tile_rows; /* of an item: several planes only when it takes all of their rows */
    expr n_plane_tiles, n_row_tiles, blocks;
    expr row_units, units; /* units of items: of one plane tile, of all */
    expr chunks;           /* steps of a unit, at most */
    expr all_chunks, band_first, band_last;
    expr parts; /* of a unit's keys when they lie apart, which are units of their own then; else one */
    expr slot;  /* rows of a workspace slot */
    /* A vector core takes planes, or rows of one plane, of an item, in pieces. */
    expr sub_planes, sub_rows, piece_planes, piece_rows, row_pieces, pieces;
};

struct att_item { /* kernel expressions */
    expr batch, plane0, planes, row0, rows;
    expr first, count;   /* its rows within the batch member, which are neighbours */
    expr chunk0, chunk1; /* that its rows see: the first and the last */
};

/* A step of a block: numbers that are too large or negative stand for no step, whose extents are zero. */
struct att_step {
    struct att_item it;
    expr active; /* 0 or 1 */
    expr unit;
    expr number, chunk, key0, keys;
};

/* One form of the kernel being generated; expressions are the kernel's. */
struct att_kernel {
    struct emit *e;
    const struct att *a;
    struct att_tile tile;
    struct vr_form f;                   /* holds kernel, builder and parameters, too */
    int32_t tq, tk, tv, ty, ts, tp, to; /* tensors */
    int32_t band_data;                  /* tensor that the band counts from; -1 none */
    expr total, plane_rows, planes;
    expr batch[IR_MAX_RANK], q_batch[IR_MAX_RANK], k_batch[IR_MAX_RANK], v_batch[IR_MAX_RANK], y_batch[IR_MAX_RANK];
    expr q_row, k_row, v_row, y_row, y_plane;
    struct att_split s;
    struct att_decoder {
        int32_t codes, scales; /* tensors; the decoded chunk is in tk or tv */
        expr batch[IR_MAX_RANK], s_batch[IR_MAX_RANK], row, s_row;
    } decoder[ATT_CODED];
    struct att_paged { /* of att_pages, as kernel expressions */
        int32_t table;
        expr heads, width, cells, pages;
    } paged[ATT_CODED];
    struct att_unpack { /* buffers of tiles on their way: codes, scales, the same as floats, results */
        int32_t codes, scales, wide, low, rows, out;
        int64_t max; /* rows of a tile */
    } unpack[ATT_CODED];
    int goal, sink;       /* region values: scores as f32 where the region ends; the sink, -1 none */
    int64_t piece, state; /* rows of a piece, and of what a vector core holds, at most */
    bool parts;           /* there may be several parts of keys in a unit */
    bool apart;           /* parts are units: merged behind a barrier */
    int32_t tw, tn;       /* tensors of parts that lie apart: results; -T and sum */
};

/* attention_match.c: is the node such a region, and does the machine do it? */
bool att_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct att *out, const char **reason);
/* Does the node of the region make an operand of a product: a cast of q or k to f32, which the matrix unit does on its
 * own, or the decoder of a cache? */
bool att_feeds(const struct att *a, const struct node *n);
/* attention_band.c: what the masks let rows see. */
struct ir_band att_read_band(struct ir_ctx *cx, const struct att *a);
/* Are items in pairs? */
bool att_in_pairs(const struct att *a);
/* attention_tile.c: the largest extents up to `rows` rows that fit; false when not even 16 rows do. */
bool att_fit(const struct machine *m, const struct att *a, int64_t rows, const struct tiling *w, struct att_tile *out);
/* Rows that items of at most `rows` have at most, whatever the sizes. */
int64_t att_most_rows(struct emit *e, const struct att *a, int64_t rows);
struct att_split att_divide(struct emit *e, const struct att *a, int64_t rows, int64_t piece, bool apart);
/* Rows of a piece that fit into UB beside the state of items of m rows; 0: none. */
int64_t att_piece(const struct vr *r, const struct att *a, int64_t m);
int64_t att_state_rows(int64_t m);
/* May the keys be more than one part of the arithmetic? */
bool att_has_parts(const struct emit *e, const struct att *a);
/* attention_time.c: cycles of the cube core per step, when its units overlap. */
double att_step_cycles(const struct machine *m, const struct att *a, const struct att_tile *t);
/* attention_step.c: how many steps this core has, and the i-th of them. */
expr att_steps(struct att_kernel *k);
struct att_step att_locate(struct att_kernel *k, expr i);
struct att_item att_item_of(struct att_kernel *k, expr unit, expr tile);
expr att_batch_offset(struct att_kernel *k, expr index, const expr *stride);
/* attention_codes.c: chunks of caches of codes. */
bool att_is_coded(const struct att *a);
int64_t att_code_bytes(const struct att *a); /* of UB */
void att_code_params(struct att_kernel *k);
void att_code_tensors(struct att_kernel *k);
/* The decoded chunk of a step in its workspace: element offset of its first row. */
expr att_code_slot(struct att_kernel *k, int operand, const struct att_step *s);
/* This core's half of the chunks of step number `step`; nothing where `when` is 0. */
void att_decode(struct att_kernel *k, expr step, expr when);
/* attention_pages.c: operands whose rows lie in pages. */
bool att_read_pages(struct ir_ctx *cx, struct att *a, const struct value *v, int operand, expr *batch, expr *row);
void att_page_params(struct att_kernel *k);
void att_page_tensors(struct att_kernel *k);
/* Runs of rows of a chunk that lie side by side: chunks are of so many rows at most. */
int64_t att_page_run(const struct att *a, int operand);
/* Element offsets of the first rows of a step's runs, in the pool; of the batch's first member. */
void att_page_runs(struct att_kernel *k, int operand, const struct att_step *s, expr run[ATT_MAX_RUNS]);
/* The plan tensor that k or v lies in. */
int32_t att_rows_tensor(struct emit *e, const struct att *a, int operand);
/* attention_cube.c: the cube core's program. */
void att_cube_code(struct att_kernel *k);
/* attention_region.c: the region over the workspace of scores; *sink -1: none. */
struct lower *att_lower(struct emit *e, const struct att *a, int32_t scores, int *goal, int *sink);
/* attention_vector.c: the vector cores' program. */
void att_vector_code(struct att_kernel *k);

#endif
