/* KV caches of codes as graphs have them: how codes and scales of a node are to be read. */
#ifndef IR_CACHE_CODE_H
#define IR_CACHE_CODE_H

#include "ir/graph.h"
#include "kernels/cache_code.h"

/* Rows of n, a CacheEncode, CacheAppendCoded or CacheDecode; false: the types or attributes tell no form. */
bool cache_form(const struct ir_ctx *cx, const struct node *n, struct k_cache_form *f);

#endif
