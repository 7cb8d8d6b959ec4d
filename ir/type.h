/* Types of values: element type, symbolic dimensions, layout and quantisation. Types are interned per context, so
 * equality is pointer equality. */
#ifndef IR_TYPE_H
#define IR_TYPE_H

#include "base/dtype.h"
#include "base/expr.h"

/* TYPE_NONE: an absent output. As element type of a sequence: it never had an element (dtype says of what type). */
enum type_kind { TYPE_TENSOR, TYPE_SEQUENCE, TYPE_OPTIONAL, TYPE_NONE };

/* Storage order of a tensor. ND is dense row-major over the dims. The blocked forms apply to the last two axes
 * (NZ: [.., cols/C0, rows16, C0]) or to NCHW (NC1HWC0, FRACTAL_Z). CACHE is ND with axis `axis` padded to `capacity`
 * rows: a KV cache of which the first dims[axis] rows are valid. */
enum layout_kind {
    LAYOUT_ND,
    LAYOUT_NZ,
    LAYOUT_NZ_T /* NZ of the transposed matrix */,
    LAYOUT_NC1HWC0,
    LAYOUT_FRACTAL_Z,
    LAYOUT_NHWC,
    LAYOUT_CACHE,
    LAYOUT_COUNT
};
extern const char *const layout_words[LAYOUT_COUNT]; /* as attributes say it: "NC1HWC0" */
struct layout {
    enum layout_kind kind;
    int c0;        /* NZ, NC1HWC0: elements of the innermost block; else 0 */
    int axis;      /* CACHE */
    expr capacity; /* CACHE: rows allocated on `axis` */
    int64_t page;  /* CACHE: rows of a page of a pool (axis 0 is the sequence), see `ring`; 0: one piece */
    /* CACHE in pages. 0: a block table says which page has which rows. Else whole pages, the last so many rows of a
     * sequence, which its pages take in turn: nobody reads more than `window` rows up to its own. */
    int64_t ring, window;
};

/* Quantised meaning of an integer or small-float tensor: real = (q - zero) * scale, scale per tensor, per index of
 * `axis`, or per `block` consecutive elements of `axis`. The scale and zero tensors travel as operands of the node. */
struct quant {
    enum dtype scale_dtype;
    int axis;      /* -1: per tensor */
    int64_t block; /* 0: whole axis */
    bool has_zero;
};

struct type {
    enum type_kind kind;
    enum dtype dtype;
    int rank;         /* -1: unknown */
    const expr *dims; /* rank of them; an unknown size is a symbol of its own, within a sequence or optional absent */
    struct layout layout;
    const struct quant *quant; /* NULL: plain */
    const struct type *elem;   /* of a sequence or optional: what all its tensors share */
};

#define IR_MAX_RANK 16

struct ir_ctx;
const struct type *type_tensor(struct ir_ctx *cx, enum dtype t, int rank, const expr *dims);
const struct type *type_intern(struct ir_ctx *cx, const struct type *t); /* any type; parts are copied */
const struct type *type_with_dtype(struct ir_ctx *cx, const struct type *t, enum dtype dt);
const struct type *type_with_layout(struct ir_ctx *cx, const struct type *t, struct layout l);
const struct type *type_none(struct ir_ctx *cx);
/* What a value has of which only one of two paths is taken, where the types differ: equal sizes and ranks. Of tensors
 * within sequences and optionals; a value that is there joins with an optional one; NULL when kinds or element types
 * differ. */
const struct type *type_join(struct ir_ctx *cx, const struct type *a, const struct type *b);
/* No tensor of numbers of known rank: the runtime keeps it as an object on the host. */
bool type_is_object(const struct type *t);
const char *type_text(struct ir_ctx *cx, const struct type *t); /* "f32[batch,seq,64]"; in the scratch arena */
expr type_count(struct ir_ctx *cx, const struct type *t);       /* elements; EXPR_INVALID for unknown rank */
/* Are both tensors, of equal sizes? Ones of unknown rank are alike. */
bool type_same_dims(const struct type *a, const struct type *b);
/* Do tensors of these types with the same dims have the same bytes, whatever their layouts are called? So for maps of
 * one position. */
bool type_lies_alike(const struct ir_ctx *cx, const struct type *a, const struct type *b);
bool type_is_static(const struct ir_ctx *cx, const struct type *t);
/* Elements if constant, else -1. */
int64_t type_const_count(const struct ir_ctx *cx, const struct type *t);

#endif
