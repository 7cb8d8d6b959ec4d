/* Options by name: one row each. The command line, the C API and Python share them. */
#include <stdlib.h>
#include <string.h>

#include "compiler/compile.h"

typedef bool option_fn(struct compilation *c, const char *value);

static const char *keep(struct compilation *c, const char *value)
{
    return arena_strndup(&c->arena, value, (int64_t)strlen(value));
}

static bool whole_number(const char *s, int64_t *out)
{
    char *end;
    *out = strtoll(s, &end, 10);
    return end != s && *end == '\0';
}

static bool set_target(struct compilation *c, const char *v)
{
    c->options.target = keep(c, v);
    return true;
}

static bool set_precision(struct compilation *c, const char *v)
{
    c->options.precision = precision_find(v);
    return c->options.precision != NULL;
}

static bool set_recipe(struct compilation *c, const char *v)
{
    c->options.recipe = keep(c, v);
    return v[0] != '\0';
}

static bool set_dim(struct compilation *c, const char *v)
{
    vec_push(&c->arena, &c->options.dims, keep(c, v));
    return strchr(v, '=') != NULL;
}

static bool set_shape(struct compilation *c, const char *v)
{
    vec_push(&c->arena, &c->options.shapes, keep(c, v));
    return strchr(v, '=') != NULL;
}

static bool set_value(struct compilation *c, const char *v)
{
    vec_push(&c->arena, &c->options.values, keep(c, v));
    return strchr(v, '=') != NULL;
}

static bool set_constant(struct compilation *c, const char *v)
{
    vec_push(&c->arena, &c->options.sets, keep(c, v));
    return strchr(v, '=') != NULL;
}

static bool set_cores(struct compilation *c, const char *v)
{
    return whole_number(v, &c->options.cores) && c->options.cores > 0;
}

static bool set_vector_cores(struct compilation *c, const char *v)
{
    return whole_number(v, &c->options.vector_cores) && c->options.vector_cores > 0;
}

static bool set_input_layout(struct compilation *c, const char *v)
{
    vec_push(&c->arena, &c->options.input_layouts, keep(c, v));
    return strchr(v, '=') != NULL;
}

static bool set_output_layout(struct compilation *c, const char *v)
{
    vec_push(&c->arena, &c->options.output_layouts, keep(c, v));
    return strchr(v, '=') != NULL;
}

static bool set_capacity(struct compilation *c, const char *v)
{
    return whole_number(v, &c->options.cache_capacity) && c->options.cache_capacity >= 0 &&
           c->options.cache_capacity <= 1 << 24;
}

static bool set_page(struct compilation *c, const char *v)
{
    return whole_number(v, &c->options.cache_page) && c->options.cache_page >= 0 && c->options.cache_page <= 1 << 16 &&
           c->options.cache_page % 16 == 0;
}

static bool set_ring(struct compilation *c, const char *v)
{
    return whole_number(v, &c->options.cache_ring) && c->options.cache_ring >= 0 && c->options.cache_ring <= 1 << 20;
}

static bool set_pool(struct compilation *c, const char *v)
{
    return whole_number(v, &c->options.cache_pool) && c->options.cache_pool >= 0 && c->options.cache_pool <= 1 << 24;
}

static bool set_verify(struct compilation *c, const char *v)
{
    c->options.verify_each = strcmp(v, "0") != 0;
    return true;
}

static bool set_strict(struct compilation *c, const char *v)
{
    c->options.strict = strcmp(v, "0") != 0;
    return true;
}

static bool set_plain_maps(struct compilation *c, const char *v)
{
    c->options.plain_maps = strcmp(v, "0") != 0;
    return true;
}

static bool set_dump(struct compilation *c, const char *v)
{
    c->options.dump_dir = keep(c, v);
    return true;
}

static bool set_stop(struct compilation *c, const char *v)
{
    c->options.stop_after = keep(c, v);
    return pass_find(v, (int64_t)strlen(v)) >= 0;
}

static bool set_rewrites(struct compilation *c, const char *v)
{
    return whole_number(v, &c->options.max_rewrites);
}

/* "m=64,n=128,k=32,rows=4,cols=256" */
static bool set_tile(struct compilation *c, const char *v)
{
    struct tiling *t = &c->options.tiling;
    const struct {
        const char *name;
        int64_t *to;
    } parts[] = {{"m", &t->m}, {"n", &t->n}, {"k", &t->k}, {"rows", &t->rows}, {"cols", &t->cols}};
    while (*v) {
        const char *eq = strchr(v, '=');
        int64_t i = 0;
        char *end;
        while (eq && i < NPUC_ARRAY_LEN(parts) &&
               !(strlen(parts[i].name) == (size_t)(eq - v) && strncmp(parts[i].name, v, (size_t)(eq - v)) == 0))
            i++;
        if (!eq || i == NPUC_ARRAY_LEN(parts))
            return false;
        *parts[i].to = strtoll(eq + 1, &end, 10);
        if (end == eq + 1 || *parts[i].to < 1 || (*end && *end != ','))
            return false;
        v = *end ? end + 1 : end;
    }
    return c->options.has_tiling = true;
}

static const struct {
    const char *name;
    option_fn *set;
    const char *expected;
} options[] = {
    {"target", set_target, "a target name (npuc targets)"},
    {"precision", set_precision, "keep, " PRECISION_NAMES},
    {"recipe", set_recipe, "a recipe file (npuc quantize)"},
    {"D", set_dim, "NAME=SIZE, NAME=MIN..MAX or NAME=SIZE,SIZE,..."},
    {"shape", set_shape, "INPUT=AxBxC"},
    {"value", set_value, "INPUT=NUMBER"},
    {"set", set_constant, "KEY=VALUE (npuc targets TARGET lists the keys)"},
    {"kv-capacity", set_capacity, "rows of a KV cache, 0 to keep the model's form"},
    {"kv-page", set_page, "rows of a page of KV caches, a multiple of 16; 0 for caches in one piece"},
    {"kv-ring", set_ring, "new rows of a call that caches of sliding windows have room for, 0 for whole caches"},
    {"kv-pool", set_pool, "pages that all sequences share, 0 for as many as they can have"},
    {"cores", set_cores, "a number of cube cores"},
    {"vector-cores", set_vector_cores, "a number of vector cores"},
    {"input-layout", set_input_layout, "INPUT=ND, NZ or NC1HWC0"},
    {"output-layout", set_output_layout, "OUTPUT=ND, NZ or NC1HWC0"},
    {"force", option_force,
     "tile=MxNxK, split=RxC, l1k=STEPS, stages=N, gm_tile=ROWSxCOLS, ub_tile=COLS, l2=cached|bypass, "
     "order=swizzle|aswt, launches=joint|single, comma separated"},
    {"tile", set_tile, "m=..,n=..,k=..,rows=..,cols=.."},
    {"verify-each", set_verify, "0 or 1"},
    {"strict", set_strict, "0 or 1"},
    {"plain-maps", set_plain_maps, "0 or 1"},
    {"dump-dir", set_dump, "a folder"},
    {"stop-after", set_stop, "the name of a pass"},
    {"max-rewrites", set_rewrites, "a number"},
};

enum npuc_status compilation_set(struct compilation *c, const char *option, const char *value)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(options); i++) {
        if (strcmp(options[i].name, option) != 0)
            continue;
        if (options[i].set(c, value))
            return NPUC_OK;
        if (c->options.refused)
            return diag_error(&c->diag, NULL, D_USAGE,
                              arena_printf(&c->arena, "option %s=%s: %s", option, value, c->options.refused));
        return diag_error(
            &c->diag, NULL, D_USAGE,
            arena_printf(&c->arena, "option %s: '%s' is not valid, expected %s", option, value, options[i].expected));
    }
    return diag_error(&c->diag, NULL, D_USAGE, arena_printf(&c->arena, "unknown option '%s'", option));
}
