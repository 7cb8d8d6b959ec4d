#include "tools/assume.h"

#include <ctype.h>
#include <string.h>

static const struct {
    const char *part;
    int64_t size;
} sizes[] = {
    {"batch", 1},  {"past", 2048},  {"cache", 2048}, {"total", 2049}, {"seq", 128},  {"token", 128},    {"len", 128},
    {"time", 128}, {"frame", 3000}, {"height", 224}, {"width", 224},  {"box", 1000}, {"sample", 16000},
};

static int64_t by_name(const char *name)
{
    char low[64] = {0};
    for (size_t i = 0; i + 1 < sizeof low && name[i]; i++)
        low[i] = (char)tolower((unsigned char)name[i]);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strstr(low, sizes[i].part))
            return sizes[i].size;
    if (strcmp(low, "n") == 0 || strcmp(low, "b") == 0)
        return 1;
    return strcmp(low, "h") == 0 || strcmp(low, "w") == 0 ? 224 : 16;
}

int64_t assume_size(const char *name, int64_t min, int64_t max, int64_t multiple)
{
    int64_t v = by_name(name);
    if (multiple > 1)
        v = (v + multiple - 1) / multiple * multiple;
    v = v > max ? max : v;
    return v < min ? min : v;
}

const int64_t *assume_symbols(const struct expr_pool *p, const struct strtab *strings, struct arena *a)
{
    int64_t *v = ARENA_ARRAY(a, int64_t, p->symbols.len + 1);
    for (int64_t i = 0; i < p->symbols.len; i++) {
        const struct expr_symbol *y = &p->symbols.data[i];
        v[i] = assume_size(str_text(strings, y->name), y->range.min, y->range.max, y->range.multiple);
    }
    return v;
}
