/* Recipes: what quantisation does to each product of a model, as text that a person edits (docs/quantization.md).
 *
 *     version = 1
 *     scheme  = w8a8
 *     data    = bard.safetensors                               what is too long for text (store.h), beside the recipe
 *     kv      = int4 group=32 zero                             rows of KV caches
 *     keys    = int8 token                                     of those that hold keys
 *     [/model/layers.0/mlp/up_proj/MatMul]                     name of the node in the ONNX file
 *     weight  = int8 channel by=minmax
 *     input   = int8 scale=0.0213 by=minmax
 *     [/lm_head/MatMul]
 *     keep    = the last product decides between close words
 *
 * An operand is a format (formats.def), what shares a scale (tensor, channel, token, group=N; tensor when absent),
 * scales=e8m0 (powers of two as OCP MX has them), e8m0-ceil, e4m3 or uint8 for how scales of groups are coded, `cast`
 * for an input whose scale is 1, `zero` for codes with zero points (zero=Z gives that of an input), scale=S for an
 * input whose scale is fixed, by=NAME for how the numbers are found (weights.def), `data` for codes of a weight that
 * the data file holds. Beside operands:
 *
 *     smooth  = data        the input is divided by NODE.smooth [k], rows of the weight are multiplied by it
 *     rotate  = hadamard    both are turned by an orthogonal matrix of length k
 *     correct = data        NODE.correct [channels] is added to the output
 *     why     = TEXT        for the reader
 *
 * A part named after the input of a KV cache says how that one is kept, other than kv and keys at the beginning:
 *
 *     [past_key_values.0.key]
 *     kv      = int8 token
 *
 *     turn    = data        keys are multiplied by NODE.turn [heads, size, size] before, by NODE.back after; with or
 *                           without a kv line
 *
 * '#' starts a comment. */
#ifndef QUANT_RECIPE_H
#define QUANT_RECIPE_H

#include "base/diag.h"
#include "base/map.h"
#include "base/vec.h"
#include "ir/quantiser.h"
#include "quant/store.h"

struct quant_entry {
    const char *name;
    const char *keep; /* why the product stays as it is; NULL: it does not */
    const char *why;  /* why it has this form, for the reader; NULL: nothing said */
    struct quant_product form;
    struct quant_operand cache; /* of the KV cache of that input; no codes: none */
    struct quant_turn turn;     /* matrices for its keys, when `turns` */
    bool smooth, correct;       /* vectors of the form are in the data file */
    bool turns;                 /* and so are these */
    int line;
    bool used; /* a product of that name was found */
};
struct quant_recipe {
    struct arena *arena;
    const char *path, *scheme;
    const char *data; /* name of the data file, NULL: none; relative to the folder of the recipe */
    struct quant_store store;
    struct quant_operand cache; /* of KV caches; no codes: they stay as they are */
    struct quant_operand keys;  /* of those of keys; no codes: as the others */
    int cache_line;
    bool cache_used; /* the model has caches that were asked about */
    VEC(struct quant_entry) entries;
    struct strtab names;
    struct map by_name; /* name of an entry -> index + 1 */
};

/* Reads the file and opens its data file; an error names line, what was expected and found. Everything lives in `a` but
 * the map of the data file: quant_recipe_close. */
NPUC_MUST_CHECK enum npuc_status quant_recipe_read(struct quant_recipe *r, const char *path, struct arena *a,
                                                   struct diag *d);
/* As quant_recipe_read on text, without the data file; `path` is for messages. */
NPUC_MUST_CHECK enum npuc_status quant_recipe_parse(struct quant_recipe *r, const char *path, const char *text,
                                                    int64_t len, struct arena *a, struct diag *d);
/* The text form: reads back as the same recipe. In `a`. */
const char *quant_recipe_text(const struct quant_recipe *r, struct arena *a, int64_t *len);
void quant_recipe_init(struct quant_recipe *r, struct arena *a);
void quant_recipe_close(struct quant_recipe *r); /* also of one that is all zeros */
/* Appends an entry and knows it by its name; false: there is one already. */
NPUC_MUST_CHECK bool quant_recipe_add(struct quant_recipe *r, const struct quant_entry *e);
struct quant_entry *quant_recipe_find(struct quant_recipe *r, const char *name);
bool quant_recipe_has_caches(const struct quant_recipe *r); /* does it code KV caches, all or some? */
/* What passes ask; r must outlive it. */
struct quantiser quant_recipe_quantiser(struct quant_recipe *r);
/* An error when an entry belongs to no product of the model: NPUC_OK when all were used. */
NPUC_MUST_CHECK enum npuc_status quant_recipe_check_used(const struct quant_recipe *r, struct diag *d);

#endif
