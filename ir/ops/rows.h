/* Turns the rows of a family into `const struct op_def op_<Name>`. Included by the family's .c below its hooks,
 * followed by the family's .def; nothing follows that include. */
#ifndef IR_OPS_ROWS_H
#define IR_OPS_ROWS_H

#include "ir/graph.h"

/* Attribute entries: name and default; _OPT: absent by default; _REQ: must be given. */
#define ATTRS(...) __VA_ARGS__
#define NONE
#define INT(nm, value)   {.name = #nm, .kind = ATTR_INT, .has_default = true, .i = (value)},
#define INT_OPT(nm)      {.name = #nm, .kind = ATTR_INT},
#define INT_REQ(nm)      {.name = #nm, .kind = ATTR_INT, .required = true},
#define FLOAT(nm, value) {.name = #nm, .kind = ATTR_FLOAT, .has_default = true, .f = (value)},
#define FLOAT_OPT(nm)    {.name = #nm, .kind = ATTR_FLOAT},
#define STR(nm, value)   {.name = #nm, .kind = ATTR_STRING, .has_default = true, .s = (value)},
#define STR_OPT(nm)      {.name = #nm, .kind = ATTR_STRING},
#define STR_REQ(nm)      {.name = #nm, .kind = ATTR_STRING, .required = true},
#define INTS(nm)         {.name = #nm, .kind = ATTR_INTS},
#define INTS_REQ(nm)     {.name = #nm, .kind = ATTR_INTS, .required = true},
#define FLOATS(nm)       {.name = #nm, .kind = ATTR_FLOATS},
#define STRS(nm)         {.name = #nm, .kind = ATTR_STRINGS},
#define FLOATS_OPT(nm)   {.name = #nm, .kind = ATTR_FLOATS},
#define STRS_OPT(nm)     {.name = #nm, .kind = ATTR_STRINGS},
#define STRS_REQ(nm)     {.name = #nm, .kind = ATTR_STRINGS, .required = true},
#define TENSOR(nm)       {.name = #nm, .kind = ATTR_TENSOR},
#define TENSOR_REQ(nm)   {.name = #nm, .kind = ATTR_TENSOR, .required = true},
#define TYPE_OPT(nm)     {.name = #nm, .kind = ATTR_TYPE},
#define GRAPH_REQ(nm)    {.name = #nm, .kind = ATTR_GRAPH, .required = true},

/* `at` holds commas once expanded, so it is used in place and passed to no further macro. */
#define OP(nm, dom, sn, lo, hi, no, cl, tr, at, ...)                                                                   \
    static const struct attr_def nm##_attrs[] = {at{.name = NULL}};                                                    \
    extern const struct op_def op_##nm;                                                                                \
    const struct op_def op_##nm = {.name = #nm,                                                                        \
                                   .domain = (dom),                                                                    \
                                   .since = (sn),                                                                      \
                                   .min_in = (lo),                                                                     \
                                   .max_in = (hi),                                                                     \
                                   .n_out = (no),                                                                      \
                                   .n_attrs = (int16_t)(NPUC_ARRAY_LEN(nm##_attrs) - 1),                               \
                                   .cls = (cl),                                                                        \
                                   .traits = (uint32_t)(tr),                                                           \
                                   .attrs = nm##_attrs,                                                                \
                                   __VA_ARGS__};

#endif
