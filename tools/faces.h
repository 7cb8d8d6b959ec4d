/* Looking at all weights of an input at once: a walk hands over one after the other, a face of each is kept until the
 * last one is there. */
#ifndef TOOLS_FACES_H
#define TOOLS_FACES_H

#include "quant/equalise.h"
#include "tools/quantize.h"

struct faces {
    /* Is the product, one of the walk's sources', looked at? */
    bool (*takes)(const struct quantization *q, const struct quant_found *f, const struct quant_source *s);
    /* May this weight have a face? The others of its source are then not waited for in vain. */
    bool (*fits)(const struct quant_source *s, const struct quant_matrix *w);
    int64_t (*wanted)(const struct quantization *q, const struct quant_source *s); /* weights of a source */
    /* Once all n are there; false: no memory. The faces live as long as the call, in `a`. */
    bool (*choose)(struct quantization *q, struct quant_source *s, const struct quant_face *face, int64_t n,
                   struct arena *a);
    const char *no_memory; /* what is said then */
    bool shows;            /* progress */
};
/* Errors: those of quantize_walk and too little memory. */
NPUC_MUST_CHECK enum npuc_status faces_walk(struct quantization *q, const struct faces *how);

#endif
