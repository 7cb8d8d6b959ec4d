/* The end of a program whose own invariant is broken. */
#include "base/compiler.h"

#include <stdio.h>
#include <stdlib.h>

void npuc_assert_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "npuc: internal error at %s:%d: %s\nPlease report this with the command and the model.\n", file,
            line, what);
    abort();
}
