/* --force: choices that the compiler would make, fixed one by one to time a variant of a kernel. */
#include <stdlib.h>
#include <string.h>

#include "compiler/compile.h"

#define MAX_PARTS 3

struct forced {
    int64_t part[MAX_PARTS];
    struct tiling *tiling;
};

static bool tile(const struct forced *f)
{
    f->tiling->m = f->part[0];
    f->tiling->n = f->part[1];
    f->tiling->k = f->part[2];
    return true;
}

static bool l1k(const struct forced *f)
{
    f->tiling->l1k = f->part[0];
    return true;
}

static bool gm_tile(const struct forced *f)
{
    f->tiling->rows = f->part[0];
    f->tiling->cols = f->part[1];
    return true;
}

static bool ub_tile(const struct forced *f)
{
    f->tiling->cols = f->part[0];
    return true;
}

static bool stages(const struct forced *f)
{
    f->tiling->stages = f->part[0];
    return true;
}

static bool split(const struct forced *f)
{
    f->tiling->grid_m = f->part[0];
    f->tiling->grid_n = f->part[1];
    return true;
}

static bool parts(const struct forced *f)
{
    f->tiling->parts = true;
    return true;
}

static bool single(const struct forced *f)
{
    f->tiling->single = true;
    return true;
}

static bool l2_cached(const struct forced *f)
{
    f->tiling->l2 = L2_CACHED;
    return true;
}

static bool l2_bypass(const struct forced *f)
{
    f->tiling->l2 = L2_BYPASS;
    return true;
}

/* Every key of the option: parts separated by x, or a row per word; a word without `set` says what is done anyway. */
static const struct {
    const char *key, *word, *why; /* why: this compiler has no such choice */
    int parts;
    bool (*set)(const struct forced *f);
} keys[] = {
    {"tile", NULL, NULL, 3, tile},
    {"l1k", NULL, NULL, 1, l1k},
    {"gm_tile", NULL, NULL, 2, gm_tile},
    {"ub_tile", NULL, NULL, 1, ub_tile},
    {"l2", "cached", "streamed operands are cached or bypass", 0, l2_cached},
    {"l2", "bypass", NULL, 0, l2_bypass},
    {"buffers", "2", "buffers are always doubled", 0, NULL},
    {"split", NULL, NULL, 2, split},
    {"order", "swizzle", "output tiles go in bands (swizzle), those of the last round divided among idle cores (aswt)",
     0, NULL},
    {"order", "swizzle31", NULL, 0, NULL},
    {"order", "aswt", NULL, 0, parts},
    {"launches", "joint", "kernels that do not need each other share a launch, or each has its own (single)", 0, NULL},
    {"launches", "single", NULL, 0, single},
    {"mix", NULL, "cube and vector cores go together as the target says", 0, NULL},
    {"stages", NULL, NULL, 1, stages},
};

static bool refuse(struct compilation *c, const char *key, int64_t len, const char *why)
{
    c->options.refused = arena_printf(&c->arena, "key '%.*s' cannot be fixed: %s", (int)len, key, why);
    return false;
}

/* "128x256x64" up to `end`. */
static bool read_parts(const char *v, const char *end, int n, int64_t part[MAX_PARTS])
{
    for (int i = 0; i < n; i++) {
        char *stop;
        part[i] = strtoll(v, &stop, 10);
        if (stop == v || part[i] < 1 || part[i] > 1 << 24)
            return false;
        v = stop;
        if (i + 1 < n && *v++ != 'x')
            return false;
    }
    return v == end;
}

static bool same(const char *word, const char *v, int64_t len)
{
    return word && (int64_t)strlen(word) == len && strncmp(word, v, (size_t)len) == 0;
}

/* The row of the key [v, eq), for keys of words that of the value's word; else its first row, -1: no such key. */
static int64_t row_of(const char *v, const char *eq, const char *end)
{
    int64_t first = -1;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(keys); i++) {
        if (!same(keys[i].key, v, eq - v))
            continue;
        if (!keys[i].word || same(keys[i].word, eq + 1, end - eq - 1))
            return i;
        first = first < 0 ? i : first;
    }
    return first;
}

static bool take(struct compilation *c, const char *v, const char *end)
{
    const char *eq = memchr(v, '=', (size_t)(end - v));
    struct forced f = {.tiling = &c->options.tiling};
    if (!eq)
        return false;
    const int64_t i = row_of(v, eq, end);
    if (i < 0)
        return refuse(c, v, eq - v, "it is not known");
    if (keys[i].word && !same(keys[i].word, eq + 1, end - eq - 1))
        return refuse(c, v, eq - v, keys[i].why);
    if (keys[i].word)
        return !keys[i].set || keys[i].set(&f);
    if (!keys[i].set)
        return refuse(c, v, eq - v, keys[i].why);
    return read_parts(eq + 1, end, keys[i].parts, f.part) && keys[i].set(&f);
}

bool option_force(struct compilation *c, const char *value)
{
    for (const char *v = value; *v;) {
        const char *comma = strchr(v, ','), *end = comma ? comma : v + strlen(v);
        if (!take(c, v, end))
            return false;
        v = comma ? comma + 1 : end;
    }
    return c->options.has_tiling = true;
}
