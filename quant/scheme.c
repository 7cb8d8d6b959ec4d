#include "quant/scheme.h"

#include <stdlib.h>
#include <string.h>

static const struct quant_scheme rows[] = {
#define SCHEME(...) {__VA_ARGS__},
#include "quant/schemes.def"
#undef SCHEME
};

const struct quant_scheme *quant_schemes(int64_t *n)
{
    *n = NPUC_ARRAY_LEN(rows);
    return rows;
}

bool quant_scheme_find(const char *name, struct arena *a, struct quant_scheme *out)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++) {
        const struct quant_scheme *s = &rows[i];
        const size_t n = strlen(s->name);
        const char *place = strstr(s->weight, "%lld");
        char *end;
        *out = *s;
        if (!place && strcmp(s->name, name) == 0)
            return true;
        const long long group = place && strncmp(s->name, name, n) == 0 ? strtoll(name + n, &end, 10) : 0;
        if (group < 1 || group > 1 << 20 || *end)
            continue;
        out->weight = arena_printf(a, "%.*s%lld%s", (int)(place - s->weight), s->weight, group, place + 4);
        return true;
    }
    return false;
}

static const struct {
    const char *name, *rows, *what;
} caches[] = {
#define CACHE(...) {__VA_ARGS__},
#include "quant/caches.def"
#undef CACHE
};

const char *quant_cache_scheme_find(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(caches); i++)
        if (strcmp(caches[i].name, name) == 0)
            return caches[i].rows;
    return NULL;
}
