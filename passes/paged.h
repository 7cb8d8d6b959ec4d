/* Caches whose rows lie in pages: what page_caches and ring_caches share. */
#ifndef PASSES_PAGED_H
#define PASSES_PAGED_H

#include "passes/pass.h"

/* The append that is the only reader of `past`; NULL: there is none. */
struct node *cache_append_of(const struct value *past);
/* Is it a cache of the interface that grows, in one piece behind an axis of sequences, of rows that are values? */
bool cache_can_page(const struct value *past);
/* Gives the cache and its present that layout; readers get dense rows, `why` says what for. */
enum npuc_status cache_set_pages(struct pass_ctx *px, struct value *past, struct layout l, const char *why);

#endif
