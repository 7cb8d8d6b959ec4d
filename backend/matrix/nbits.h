/* Block-quantised weights of MatMulNBits in vector memory: what match finds out, and tiles of codes in UB. */
#ifndef BACKEND_MATRIX_NBITS_H
#define BACKEND_MATRIX_NBITS_H

#include "backend/matrix/mm.h"

/* N rows of K codes, quantised in blocks along K. */
struct nbits {
    enum dtype to, out, scale_type, code; /* out: of the result */
    int64_t n, k, bits, block, blocks;    /* blocks per row */
    int64_t groups;                       /* matrices of n rows, of which rows of a choose */
    int zero_kind;                        /* as DEQUANT */
    int64_t code_row, zero_row;           /* bytes; elements of scale_type when zero_kind is 2 */
    int32_t tensors[3];                   /* of the plan: codes, scales, zero points, set when emitting */
};

/* A part of the weight in UB: up to rows x cols codes with the scales and zero points of their blocks. */
struct nbits_tile {
    const struct nbits *q;
    struct tile_builder *b;
    int64_t rows, cols;                          /* at most */
    int64_t code_pitch, scale_pitch, zero_pitch; /* bytes, elements, bytes or elements */
    int32_t codes, scales, zeros;                /* buffers */
    int32_t tensor;                              /* of the kernel: codes; scales and zero points follow */
    int part;                                    /* number among the weights of one kernel; tensors are named by it */
    expr n0, k0, in, ik;
};

/* Columns first .. first + cols of a tile, to be dequantised to [cols/c0][t->rows][c0] with zeros behind the last
 * column. */
struct nbits_dst {
    int32_t buf;
    int64_t c0;
    expr first, cols;
};

/* Smallest number of codes that K may be cut into, unless a row is one cut: scales and zero points begin on whole
 * bytes. */
int64_t nbits_unit(const struct nbits *q);
int64_t nbits_line(const struct nbits *q); /* codes of a line of a fractal, and at least those of whole bytes */
/* Fills the pitches for rows and cols; bytes of UB for one slot. */
int64_t nbits_tile_bytes(struct nbits_tile *t);
void nbits_declare(struct nbits_tile *t, const struct nbits *q, struct tile_builder *b); /* tensors of the kernel */
int32_t nbits_tensor_count(const struct nbits *q);
bool nbits_is_peer(const struct nbits *p, const struct nbits *q); /* the same form but for n: tiles of one serve both */
void nbits_buffers(struct nbits_tile *t);
void nbits_load(struct nbits_tile *t);
void nbits_dequant(struct nbits_tile *t, const struct nbits_dst *d);
void nbits_dequant_rows(struct nbits_tile *t, int32_t buf, int64_t pitch); /* the tile, row by row */

/* nbits_match.c: what is supported; extents of a tile that fits, false when not even one row does. */
bool nbits_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct nbits *q,
                 const char **reason);
bool nbits_choose_tile(const struct machine *m, struct nbits_tile *t);
/* The product, its weight being of the form that the machine multiplies. */
struct mm nbits_product(struct emit *e, const struct nbits *q, const struct node *n);
void nbits_group_tensors(struct emit *e, const struct mm *p, struct mm_tensors *t); /* index and ends, if any */
void nbits_take_tensors(struct emit *e, const struct node *n, struct nbits *q);
/* nbits_dequant.c: a launch that dequantises the weight to a workspace, t->b, in the form of stored constants; of
 * matrices that rows choose, the chosen ones. */
NPUC_MUST_CHECK enum npuc_status nbits_dequant_all(struct emit *e, const struct nbits *q, const struct mm *product,
                                                   struct mm_tensors *t);

#endif
