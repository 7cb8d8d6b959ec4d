/* Options that every command on a model takes, and their transfer to a compilation. */
#ifndef TOOLS_MODEL_ARGS_H
#define TOOLS_MODEL_ARGS_H

#include "compiler/compile.h"
#include "tools/args.h"

#define MODEL_OPTIONS                                                                                                  \
    {"target", "T", "one that npuc targets lists, or a .target file; default ascend-910b1"},                           \
        {"precision", "P", "keep (the model's types), " PRECISION_NAMES " (mixed: npuc estimate only); default keep"}, \
        {"recipe", "R", "quantise as this recipe says (npuc quantize)"},                                               \
        {"D", "NAME=SIZE", "fix a dimension, give its range or its gears: -D batch=1 -D seq=1..4096, -D seq=128,512"}, \
        {"shape", "X=AxBxC", "fix the shape of an input"},                                                             \
        {"value", "X=NUMBER", "compile for one value of an input of one number, which is no input then"},              \
        {"kv-capacity", "ROWS", "rows of a KV cache kept in place; default 2048, 0 keeps the model's form"},           \
        {"kv-page", "ROWS", "KV caches in pages of ROWS, which sequences take as they grow; default 0, in one piece"}, \
        {"kv-ring", "ROWS",                                                                                            \
         "caches of sliding windows keep those and so many rows more, the most that a call brings; default 512 where " \
         "sizes say so, 0 for whole caches"},                                                                          \
        {"kv-pool", "PAGES", "pages that all sequences share; default 0, as many as they can have"},                   \
    {                                                                                                                  \
        "set", "KEY=VALUE", "another machine constant, for what-if questions: --set hbm.bandwidth=1.8TB/s"             \
    }

/* false after a message; *exit_code is set. */
bool model_args(const struct args *a, struct compilation *c, int *exit_code);
/* The rule: a file is a plan when it begins with the plan magic. */
bool file_is_plan(const char *path);

#endif
