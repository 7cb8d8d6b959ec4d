/* The data file beside a recipe: arrays that are too long for text, in the layout of safetensors: the length of the
 * header in 8 little-endian bytes, a JSON object {"name": {"dtype", "shape", "data_offsets"}}, the data. Python's
 * `safetensors` reads it. Names are NODE.codes, NODE.scales, NODE.zeros, NODE.smooth, NODE.correct, and INPUT.turn and
 * INPUT.back of a cache. */
#ifndef QUANT_STORE_H
#define QUANT_STORE_H

#include "base/file.h"
#include "base/str.h"
#include "base/vec.h"
#include "kernels/tensor.h"

/* ---- reading: the file stays mapped, tensors are views of it */
struct quant_store {
    struct arena *arena;
    const char *path;
    struct file_map map;
    struct strtab names;
    struct map by_name; /* sym -> index + 1 */
    VEC(struct k_tensor) tensors;
};
/* F32, F16, BF16, I16, I8 and U8 tensors whose bytes lie in the file; anything else is an error. */
NPUC_MUST_CHECK enum npuc_status quant_store_open(struct quant_store *s, const char *path, struct arena *a,
                                                  struct diag *d);
void quant_store_close(struct quant_store *s); /* also of one that is all zeros */
/* Tensor NODE.PART, or NULL. */
const struct k_tensor *quant_store_find(struct quant_store *s, const char *node, const char *part);

/* ---- writing: data goes to the file as it comes, the header is written last into room kept for it */
struct quant_store_writer {
    struct arena *arena;
    struct file_writer file;
    int64_t room; /* bytes of the header */
    struct json_t *header;
    bool open, full; /* full: the header outgrew its room */
};
/* `nodes`: at most so many nodes, their names `name_bytes` long together: for the room of the header. */
NPUC_MUST_CHECK enum npuc_status quant_store_create(struct quant_store_writer *w, const char *path, int64_t nodes,
                                                    int64_t name_bytes, struct diag *d);
void quant_store_put(struct quant_store_writer *w, const char *node, const char *part, const struct k_tensor *t);
NPUC_MUST_CHECK enum npuc_status quant_store_commit(struct quant_store_writer *w, struct diag *d);
void quant_store_abort(struct quant_store_writer *w); /* also after a commit, and of one that is all zeros */

#endif
