/* A model with a part of a recipe in it: all of its products or some, weights, inputs or both, KV caches. It is
 * imported for itself and the recipe is applied by the pass that compile uses, so that what is measured is what
 * compiles. */
#ifndef TOOLS_ANALYSIS_VARIANT_H
#define TOOLS_ANALYSIS_VARIANT_H

#include "compiler/compile.h"
#include "tools/args.h"

/* Products with constant weights, in the order of the graph. */
struct product_list {
    struct arena *arena;
    VEC(const char *) names;
    struct map by_name; /* hash of the name -> place + 1 */
};
int64_t product_place(const struct product_list *l, const char *name); /* -1: none of this name */

enum variant_part { PART_ALL, PART_WEIGHTS, PART_INPUTS, PART_CACHES, PART_COUNT };
extern const char *const variant_part_names[PART_COUNT];
struct variant_want {
    const struct quantiser *base; /* of a recipe; NULL: the model as it is */
    enum variant_part part;
    const bool *on; /* for each product: is it quantised? NULL: all that the recipe names */
    bool other;     /* another model: products are those of the same names */
    bool caches;    /* KV caches are coded, too; that is done far behind products, which cannot be told apart then */
};
#define VARIANT_PLAIN ((struct variant_want){.part = PART_ALL})

/* Where a product is in the graph of a variant. */
struct variant_product {
    const struct node *n;   /* the product; NULL: it is not there */
    const struct node *end; /* whose result stands for the model's: n, or the Add of a correction */
};
struct variant {
    struct compilation c;
    struct variant_want want;
    const struct product_list *list;
    struct quantiser filter;
    struct variant_product *products; /* [list->names.len] */
    struct map by_end;                /* node id -> place + 1 */
    uint32_t n_model_nodes;           /* ids below are nodes of the file */
    int64_t n_coded;                  /* products that the recipe changed */
};

/* Opens `model` with the dimensions of `a`. With list->names empty the products found are put there, else they are
 * looked up by name. The caller closes the variant in any case; false after a message. */
bool variant_open(struct variant *v, const char *model, const struct args *a, struct product_list *list,
                  const struct variant_want *want, int *exit_code);
void variant_close(struct variant *v);
const struct graph *variant_graph(const struct variant *v);

/* The result of product `place` computed by v from operands of the product in the model as it is: `plain` is that
 * model's node, `in` its operands. False when the product depends on more than them. Results live in `arena`. */
struct clipping {
    int64_t n, of; /* elements that saturate, of those that are quantised by one fixed scale */
};
struct variant_result {
    struct k_tensor y;
    struct clipping clipped;
};
bool variant_local(struct variant *v, int64_t place, const struct node *plain, const struct k_tensor *const *in,
                   struct variant_result *out, struct arena *arena);

#endif
