/* Escaping into a fixed buffer, shared by str.c and diag.c. */
#ifndef BASE_STR_PRIV_H
#define BASE_STR_PRIV_H

#include "base/compiler.h"

/* Writes `text` to `out` (room for `cap` bytes, NUL included) with control characters and broken UTF-8 as \n, \t or
 * \xNN, with `quotes` also quotes and backslashes; ends in "..." where it had to be cut. Returns the length. */
int64_t str_escape_to(char *out, int64_t cap, const char *text, int64_t len, bool quotes);

#endif
