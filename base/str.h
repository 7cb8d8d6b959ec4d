/* Interned strings: equal text has equal `sym`. sym 0 is the empty string. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include "base/arena.h"
#include "base/map.h"
#include "base/vec.h"

typedef uint32_t sym;

struct str_entry {
    const char *text; /* NUL-terminated, may hold any other byte */
    int64_t len;
};
struct strtab {
    struct arena *arena;
    VEC(struct str_entry) entries;
    struct map by_hash; /* hash -> first sym of the chain */
    VEC(uint32_t) next; /* next sym with the same hash */
};

void strtab_init(struct strtab *t, struct arena *a);
sym str_intern(struct strtab *t, const char *text, int64_t len);
sym str_internz(struct strtab *t, const char *text);
const char *str_text(const struct strtab *t, sym s);
int64_t str_len(const struct strtab *t, sym s);
/* `text` with control characters, quotes and backslashes escaped and cut to `max` bytes ("..."), so that
 * names from files are safe to print. The result lives in `a`. */
const char *str_escape(struct arena *a, const char *text, int64_t len, int64_t max);

#endif
