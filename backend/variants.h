/* Forms of a kernel by size. Where sizes are not known at compile time, a generator launches several programs under
 * guards, each with the extents that suit a part of the sizes: the space of sizes is divided until one form is nearly
 * the best for all of a part, as far as the tiler's cost tells at some points of it. Forms change no bits. */
#ifndef BACKEND_VARIANTS_H
#define BACKEND_VARIANTS_H

#include "backend/backend.h"

#define VARIANT_AXES 4
#define VARIANT_MOST 40 /* parts */

struct variant_space {
    int n;                   /* sizes that are not known; 0: one form */
    expr size[VARIANT_AXES]; /* ir expressions */
    bool coarse;             /* choosing takes long: one part for few of the first size, one for more */
    uint64_t key;            /* of all that the choice depends on: spaces with the same one share it; 0: none does */
    int64_t form_size;       /* bytes of a form, at most VARIANT_FORM; without padding that differs */
    void *user;
    /* The best form for sizes `at`, and the cycles that a form takes there. */
    void (*choose)(void *user, const double *at, void *form);
    double (*cycles)(void *user, const double *at, const void *form);
};
#define VARIANT_FORM 128
struct variant {
    expr guard; /* ir expression for emit.guard, with the guard around */
    _Alignas(8) uint8_t form[VARIANT_FORM];
};

/* Adds an unknown size as an axis; constants are none. Returns its number, -1 for a constant. */
int variants_axis(struct variant_space *s, const struct ir_ctx *cx, expr size);
/* Writes the forms with the guards under which they are launched; their number. */
int variants_find(struct emit *e, const struct variant_space *s, struct variant out[VARIANT_MOST]);

#endif
