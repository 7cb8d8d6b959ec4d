#include "tools/turn.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "kernels/op.h"
#include "quant/balance.h"

struct keys {
    const char *input; /* of the cache */
    int64_t heads, size;
    double *keys, *queries;       /* [heads][size][size]: sums over rows */
    int64_t key_rows, query_rows; /* of a head */
};
struct quant_turning {
    struct compilation c;
    struct map by_node; /* id of a product's node -> place in caches + 1 */
    VEC(struct keys) caches;
    struct arena *arena;
    int64_t seen; /* caches of keys and of values */
    bool failed;
};

bool turn_wanted(const struct quantization *q)
{
    const struct quant_operand *keys = q->recipe.keys.codes ? &q->recipe.keys : &q->recipe.cache;
    return q->ask.calib && q->ask.turns && keys->codes != DT_NONE && dtype_table[keys->codes].bits <= 4;
}

/* ---- finding caches */

static const struct quant_operand *no_cache(void *user, const char *input, bool of_keys)
{
    ((struct quantization *)user)->turning->seen++;
    (void)input;
    (void)of_keys;
    return NULL;
}

static const struct quant_product *no_product(void *user, const struct node *n, const char *name)
{
    (void)user;
    (void)n;
    (void)name;
    return NULL;
}

static struct keys *cache_of(struct quant_turning *t, const char *input, const struct node *product)
{
    const struct type *k = node_in(product, 1)->type;
    struct keys *last = t->caches.len ? &t->caches.data[t->caches.len - 1] : NULL;
    struct keys made = {.input = arena_strndup(t->arena, input, (int64_t)strlen(input))};
    int64_t cells;
    if (last && strcmp(last->input, input) == 0)
        return last;
    if (!expr_is_const(&t->c.cx.exprs, k->dims[k->rank - 3], &made.heads) ||
        !expr_is_const(&t->c.cx.exprs, k->dims[k->rank - 1], &made.size) ||
        !size_mul(made.size * made.size, made.heads, &cells))
        return NULL;
    made.keys = ARENA_ARRAY(t->arena, double, cells);
    made.queries = ARENA_ARRAY(t->arena, double, cells);
    if (!made.keys || !made.queries)
        return NULL;
    memset(made.keys, 0, (size_t)cells * sizeof *made.keys);
    memset(made.queries, 0, (size_t)cells * sizeof *made.queries);
    vec_push(t->arena, &t->caches, made);
    return &t->caches.data[t->caches.len - 1];
}

static void note_keys(void *user, const char *input, const struct node *product)
{
    struct quant_turning *t = ((struct quantization *)user)->turning;
    if (!cache_of(t, input, product))
        t->failed = true;
    else
        map_put(&t->by_node, product->id, (uint64_t)t->caches.len);
}

enum npuc_status turn_open(struct quantization *q)
{
    const struct quantiser notes = {.user = q, .cache = no_cache, .product = no_product, .keys = note_keys};
    const struct pass_run run = {0};
    struct quant_turning *t = ARENA_NEW(q->arena, struct quant_turning);
    int64_t n, used = 0;
    const struct pass_step *steps = pass_pipeline(&n);
    while (used < n && steps[used].id != PASS_code_caches)
        used++;
    compilation_init(&t->c);
    t->c.diag = q->c.diag;
    t->c.options = q->c.options;
    t->arena = q->arena;
    map_init(&t->by_node, q->arena);
    q->turning = t;
    enum npuc_status s = compilation_import(&t->c, q->ask.model);
    if (s != NPUC_OK)
        return s;
    struct pass_ctx px;
    pass_ctx_init(&px, t->c.module, &t->c.info);
    px.options.cache_capacity = t->c.options.cache_capacity;
    px.options.quantiser = &notes;
    s = pass_run_all(&px, steps, used + 1, &run);
    pass_ctx_free(&px);
    return s == NPUC_OK && t->failed ? diag_error(&q->c.diag, NULL, D_HOST_MEMORY) : s;
}

bool turn_in_vain(const struct quantization *q)
{
    return q->turning && q->turning->seen > 0 && q->turned == 0;
}

void turn_close(struct quantization *q)
{
    if (q->turning)
        compilation_free(&q->turning->c);
    q->turning = NULL;
}

int64_t turn_caches(const struct quantization *q, int64_t *name_bytes)
{
    const struct quant_turning *t = q->turning;
    for (int64_t i = 0; t && i < t->caches.len; i++)
        *name_bytes += (int64_t)strlen(t->caches.data[i].input);
    return t ? t->caches.len : 0;
}

/* ---- statistics */

/* Adds x' x of the rows [batches, heads, rows, size] head by head. */
static bool add_rows(const struct keys *k, double *gram, int64_t *seen, const struct k_tensor *t)
{
    struct arena a;
    const int64_t n = k->size, rows = t->rank >= 3 ? t->dims[t->rank - 2] : 0, all = n > 0 ? k_count(t) / n : 0;
    if (t->rank < 3 || t->dims[t->rank - 1] != n || t->dims[t->rank - 3] != k->heads)
        return false;
    arena_init(&a, NULL);
    float *x = ARENA_ARRAY(&a, float, n + 1);
    for (int64_t r = 0; x && r < all; r++) {
        double *g = gram + r / rows % k->heads * n * n;
        k_load_f32(x, t->dtype, t->data, r * n, n);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                g[i * n + j] += (double)x[i] * (double)x[j];
    }
    *seen += all / k->heads;
    arena_free(&a);
    return x != NULL;
}

static enum npuc_status watch_product(void *user, const struct node *n, const struct k_tensor *const *in)
{
    struct quant_turning *t = user;
    const uint64_t *at = map_find(&t->by_node, n->id);
    if (!at)
        return NPUC_OK;
    struct keys *k = &t->caches.data[*at - 1];
    const bool added = add_rows(k, k->queries, &k->query_rows, in[0]) && add_rows(k, k->keys, &k->key_rows, in[1]);
    return added ? NPUC_OK : node_error(&t->c.cx, n, D_RUN_FAULT, "keys or queries do not have the cache's form");
}

static enum npuc_status one_run(struct quantization *q, int64_t i)
{
    struct quant_turning *t = q->turning;
    const struct ir_watch watch = {.node = watch_product, .user = t};
    return calib_run(&q->data, i, &t->c.cx, t->c.module->funcs.data[0], &watch);
}

/* ---- matrices */

static bool balance(const struct keys *k, float *turn, float *back, struct arena *a)
{
    bool balanced = true;
    for (int64_t h = 0; balanced && h < k->heads; h++) {
        const int64_t at = h * k->size * k->size;
        const struct quant_grams g = {k->keys + at, k->queries + at, k->size, k->key_rows, k->query_rows};
        balanced = quant_balance(&g, turn + at, back + at, a);
    }
    return balanced;
}

static void put(struct quantization *q, const struct keys *k, const char *part, float *data)
{
    const struct k_tensor t = {.dtype = DT_F32,
                               .rank = 3,
                               .dims = {k->heads, k->size, k->size},
                               .data = data,
                               .size = k->heads * k->size * k->size * (int64_t)sizeof *data};
    quant_store_put(&q->store, k->input, part, &t);
}

static enum npuc_status turn_cache(struct quantization *q, const struct keys *k, int64_t *count)
{
    const int64_t cells = k->heads * k->size * k->size;
    struct arena a;
    arena_init(&a, NULL);
    float *turn = ARENA_ARRAY(&a, float, cells), *back = ARENA_ARRAY(&a, float, cells);
    enum npuc_status s = turn && back ? NPUC_OK : diag_error(&q->c.diag, NULL, D_HOST_MEMORY);
    if (s == NPUC_OK && balance(k, turn, back, &a)) {
        const struct quant_entry e = {.name = k->input, .turns = true};
        put(q, k, "turn", turn);
        put(q, k, "back", back);
        if (quant_recipe_add(&q->recipe, &e))
            (*count)++;
        else
            s = diag_error_text(&q->c.diag, &(struct diag_loc){.file = q->c.cx.file, .index = -1}, D_UNSUPPORTED,
                                arena_printf(q->arena, "a node and an input are both named '%s'", k->input));
    }
    arena_free(&a);
    return s;
}

enum npuc_status turn_keys(struct quantization *q, int64_t *count)
{
    const struct quant_turning *t = q->turning;
    enum npuc_status s = NPUC_OK;
    for (int64_t i = 0; s == NPUC_OK && t->caches.len > 0 && i < q->ask.runs; i++) {
        s = one_run(q, i);
        if (q->ask.shows)
            fprintf(stderr, "\r  keys  %" PRId64 " of %" PRId64 " runs ", i + 1, q->ask.runs);
    }
    if (q->ask.shows)
        fprintf(stderr, "\r\033[K");
    for (int64_t i = 0; s == NPUC_OK && i < t->caches.len; i++)
        s = turn_cache(q, &t->caches.data[i], count);
    return s;
}
