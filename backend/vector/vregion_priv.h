/* Within the vector-region generator: normalising (vregion.c), choice of form (vr_launch.c), code (vr_code.c). */
#ifndef BACKEND_VECTOR_VREGION_PRIV_H
#define BACKEND_VECTOR_VREGION_PRIV_H

#include "backend/vector/vregion.h"

/* Drops dimensions of size one and merges those that all views walk contiguously; sets has_red. */
void vr_normalise(struct vr *r);
/* Class and reduction level of every value of the normalised region. */
void vr_classify(struct vr *r);

/* One form of the kernel being generated. Kernel expressions unless said otherwise. */
struct vr_form {
    struct vr *r;
    struct tile_kernel *k;
    struct tile_builder b;
    struct kparams p;
    bool chunked;     /* columns in chunks with one pass per reduction level */
    int64_t cap;      /* elements of a FULL buffer's slot */
    int64_t max_rows; /* elements of a COL buffer's slot */
    expr wish, most;  /* elements of a tile: an ir expression, the kernel's parameter for it; EXPR_INVALID: not used */
    expr share, even; /* columns of a tile, likewise: those of a core in tiles of equal size */
    int n_tensors;
    int32_t tensors[VR_MAX_VALUES + VR_MAX_OUTPUTS];  /* plan tensors in kernel order */
    int index_tensor[VR_MAX_VALUES + VR_MAX_OUTPUTS]; /* of indexed views */
    expr index_stride[VR_MAX_VALUES + VR_MAX_OUTPUTS], index_max[VR_MAX_VALUES + VR_MAX_OUTPUTS];
    int view_tensor[VR_MAX_VALUES + VR_MAX_OUTPUTS]; /* view -> kernel tensor; outputs follow the inputs */
    expr offset[VR_MAX_VALUES + VR_MAX_OUTPUTS];
    expr stride[VR_MAX_VALUES + VR_MAX_OUTPUTS][IR_MAX_RANK];
    expr dims[IR_MAX_RANK];
    expr rows, cols, tile_rows, tile_cols, pitch, n_row_tiles, n_col_tiles, n_tiles;
    /* of the tile being worked on */
    expr outer[IR_MAX_RANK], row0, col0, n_rows, n_cols;
    expr plane0, n_planes, plane_rows; /* r->planes: n_rows is n_planes * plane_rows */
    expr base[VR_MAX_VALUES +
              VR_MAX_OUTPUTS];   /* of callers that bring their own tiles: added to a view's offset; 0: nothing */
    int32_t buf[VR_MAX_VALUES];  /* buffer of each value, -1 none */
    int32_t line[VR_MAX_VALUES]; /* of turned inputs: as they lie in memory */
    int32_t acc, spread;         /* lanes of reductions; a wide copy of what they read, -1 none */
};

/* Parameters and tensors of all views, in f->k. No parameter may follow vr_declare_params. */
void vr_declare_params(struct vr_form *f);
void vr_declare_tensors(struct vr_form *f);
int vr_declare_tensor(struct vr_form *f, int32_t tensor, enum dtype t,
                      bool is_out); /* kernel tensor; one per plan tensor */
/* Elements of a slot, and rows of a tile, in a form. */
int64_t vr_capacity(const struct vr *r, bool chunked, int64_t max_rows);
int64_t vr_row_limit(const struct vr *r, bool chunked);

/* Fills the section of f->k with the program. */
void vr_code(struct vr_form *f);
/* Its parts, for programs with their own loops: buffers once, then the code of the tile that f describes. */
void vr_code_buffers(struct vr_form *f);
void vr_code_tile(struct vr_form *f);
/* Bytes of UB that a form takes per element of `cap`, and a fixed part: exactly what vr_code declares. */
void vr_footprint(const struct vr *r, bool chunked, int64_t max_rows, int64_t *per_element, int64_t *fixed);
/* Is the value in the ring of an input when it stays on chip: read as it is, or computed in place? */
bool vr_over_input(const struct vr *r, int value);

/* vr_turned.c: finds the views that are turned; rows of a tile then; code. */
void vr_find_turned(struct vr *r);
int64_t vr_turned_rows(const struct vr *r);
void vr_load_turned(struct vr_form *f, int v, expr off);
void vr_store_turned(struct vr_form *f, int o, int32_t buf, int32_t line, expr off);

#endif
