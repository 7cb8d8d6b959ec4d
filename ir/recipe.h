/* Recipes (kernels/recipe.h) written into the graph as nodes. */
#ifndef IR_RECIPE_H
#define IR_RECIPE_H

#include "ir/build.h"

struct recipe_limits {
    int64_t unroll; /* iterations of a walk that are written one after the other; more become a Scan */
    bool scan;      /* may there be one? */
};
bool ir_has_recipe(const struct node *n);
/* The recipe of n's operator before n, with its results in n's place; n is left without uses. False: what the recipe
 * needs to know is not known, n stands as it was (*why, in the scratch arena) and some nodes without uses are left. */
bool ir_write_recipe(struct node *n, const struct recipe_limits *limits, const char **why);

#endif
