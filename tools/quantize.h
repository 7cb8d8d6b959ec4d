/* Making a recipe for a model: its products are found, calibration data run through the reference interpreter, and
 * algorithms asked for each product in the order of the graph. `npuc quantize` reads the arguments and reports. */
#ifndef TOOLS_QUANTIZE_H
#define TOOLS_QUANTIZE_H

#include "compiler/compile.h"
#include "quant/calibrate.h"
#include "quant/equalise.h"
#include "quant/recipe.h"
#include "quant/statistics.h"
#include "quant/weight.h"
#include "tools/calib.h"

/* A value that products read, as one of them reads it: what is kept of it serves all of them. */
struct quant_source {
    const struct node *first; /* the product that is watched */
    uint64_t value;           /* id */
    struct quant_statistics stats;
    VEC(int64_t) products; /* in the order of the graph */
    /* of equalise.c; after 0: nothing was chosen */
    double before, after; /* error that codes of the input add to the output: covered by one scale; as chosen */
    bool tokens, wide;    /* it got scales per token; it has no codes */
    const char *why;      /* for the recipe */
};
struct quant_found {
    const char *name;
    const struct node *n;
    int64_t source;
    const char *keep; /* why it stays as it is; NULL: it does not */
    struct quant_product form;
    bool has_smooth, has_correct; /* vectors of the form, which go to the data file */
    bool settled;                 /* the scale of its input has been chosen with its factors */
    const char *why;              /* it has this form; NULL: nothing said */
};
struct quant_request {
    const char *model, *recipe; /* files to read and to write */
    const char *scheme;
    struct quant_product form; /* of all products: of the scheme; inputs with fixed scales have scale 1 */
    struct quant_product last; /* of those that make the outputs */
    const char *calib;         /* NULL: no calibration data */
    int64_t runs;              /* at most so many */
    int64_t parts;      /* products are coded in so many parts from front to back, each seeing what those before did */
    int64_t memory;     /* bytes for statistics at once; products beyond that wait for another walk over the data */
    unsigned equalise;  /* rows of quant/equalise.def that inputs of products take, a bit each */
    bool turns;         /* and that for keys */
    double input_error; /* more than this share of the output (squared) is repaired in another way */
    int64_t keep_outliers; /* so many inputs lose their codes; below 0: those with too large an error */
    bool (*keeps)(void *user, const char *product);
    void *user;
    bool shows;       /* progress on a terminal */
    bool narrow_last; /* products that make the outputs are coded as the others are */
};
struct quant_origin;  /* tools/origin.h */
struct quant_turning; /* tools/turn.h */
struct quantization {
    struct arena *arena;
    struct quant_request ask;
    struct compilation c;
    VEC(struct quant_found) products; /* in the order of the graph */
    VEC(struct quant_source) sources; /* in the order of their first products */
    struct map by_node;               /* id of a product's node -> place in products + 1 */
    struct map by_name;               /* sym -> place in products + 1 */
    struct map by_value;              /* id of a value -> place in sources + 1 */
    struct strtab names;
    VEC(struct quant_entry) left; /* products that have weights but no codes, and why (tools/left.h) */
    const char *twice;            /* the name of two products, which recipes cannot tell apart; NULL: none */
    struct calib data;
    int64_t first, last;           /* sources of this walk over the data */
    struct quant_origin *origin;   /* NULL: no product looks at the model as it was */
    struct quant_turning *turning; /* NULL: no keys are turned */
    int64_t turned;                /* caches whose keys are */
    struct quant_recipe recipe;
    struct quant_store_writer store;
    int64_t n_stored;
};
/* Runs apply_recipe with it. */
NPUC_MUST_CHECK enum npuc_status quantize_walk(struct quantization *q, const struct quantiser *quantiser);
/* Operands of a scheme; `weights`, `activations`: algorithms by name, NULL for the scheme's. *calibrates: inputs have
 * fixed scales, which calibration finds. */
NPUC_MUST_CHECK enum npuc_status quantize_scheme(struct quantization *q, const char *scheme, const char *weights,
                                                 const char *activations, bool *calibrates);
struct quant_found *quantize_found(const struct quantization *q, const struct node *n); /* NULL: no product */
/* Part of a product in the data file: f32 [n], which lives as long as q. */
void quantize_put(struct quantization *q, const char *name, const char *part, const float *data, int64_t n);
/* Divides the product's input by f32 [k]; NULL: not at all. */
void quantize_smooth(struct quantization *q, struct quant_found *f, const float *smooth, int64_t k);
/* Statistics that the form's algorithm for weights needs; 0 with no need for data. */
unsigned quantize_needs(const struct quant_product *form);
/* The whole way: import, walks over the data, recipe and data file. On failure no file is left. */
NPUC_MUST_CHECK enum npuc_status quantize_run(struct quantization *q);
void quantize_init(struct quantization *q, struct arena *a);
void quantize_free(struct quantization *q);

#endif
