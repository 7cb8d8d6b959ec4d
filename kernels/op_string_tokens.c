/* Tokens to numbers: TfIdfVectorizer and LabelEncoder. */
#include <string.h>

#include "kernels/op.h"

/* ---- tokens: strings or whole numbers */

static uint64_t hash_bytes(uint64_t h, const void *data, int64_t n)
{
    const uint8_t *b = data;
    for (int64_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3ull;
    return h;
}

struct tokens {
    const struct k_string *text; /* or */
    const int64_t *whole;
};
static uint64_t token_hash(const struct tokens *t, int64_t i, uint64_t h)
{
    h = t->text ? hash_bytes(h, t->text[i].text, t->text[i].len) : hash_bytes(h, &t->whole[i], 8);
    return (h ^ 0xff) * 0x100000001b3ull;
}
static bool token_same(const struct tokens *a, int64_t i, const struct tokens *b, int64_t j)
{
    if (!a->text)
        return a->whole[i] == b->whole[j];
    return a->text[i].len == b->text[j].len && !memcmp(a->text[i].text, b->text[j].text, (size_t)a->text[i].len);
}

/* ---- TfIdfVectorizer */

/* The n-grams of the pool by a hash of their tokens: slots of gram number + 1, open addressing. */
struct grams {
    struct tokens pool;
    int64_t n, n_slots, most; /* most: longest gram looked for */
    int64_t *first, *len, *slots;
};

static uint64_t gram_hash(const struct tokens *t, int64_t at, int64_t step, int64_t len)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (int64_t i = 0; i < len; i++)
        h = token_hash(t, at + i * step, h);
    return h;
}

/* Slot of the gram of `len` tokens at t[at], t[at + step] ...: that of an equal gram or a free one. */
static int64_t *find_slot(const struct grams *g, const struct tokens *t, int64_t at, int64_t step, int64_t len)
{
    uint64_t i = gram_hash(t, at, step, len);
    for (;; i++) {
        int64_t *slot = &g->slots[i & (uint64_t)(g->n_slots - 1)];
        const int64_t gram = *slot - 1;
        bool same = gram < 0 || g->len[gram] == len;
        for (int64_t k = 0; gram >= 0 && same && k < len; k++)
            same = token_same(&g->pool, g->first[gram] + k, t, at + k * step);
        if (same)
            return slot;
    }
}

static enum npuc_status grams_new(struct k_call *c, struct grams *g)
{
    const struct k_attr *text = k_attr_find(c, "pool_strings"), *whole = k_attr_find(c, "pool_int64s");
    const struct k_attr *counts = k_attr_find(c, "ngram_counts");
    const bool is_text = c->in[0]->dtype == DT_STRING;
    const struct k_attr *pool = is_text ? text : whole;
    if (!pool || pool->kind != (is_text ? K_ATTR_STRINGS : K_ATTR_INTS) || !counts || counts->kind != K_ATTR_INTS)
        return k_fail(c, NPUC_E_INVALID, "it needs ngram_counts and a pool of the input's type");
    g->pool = is_text ? (struct tokens){.text = pool->v.strings} : (struct tokens){.whole = pool->v.ints};
    for (g->n_slots = 16; g->n_slots < 2 * pool->len + 2;)
        g->n_slots *= 2;
    g->slots = k_scratch(c, g->n_slots, 8);
    g->first = k_scratch(c, pool->len + 1, 8);
    g->len = k_scratch(c, pool->len + 1, 8);
    if (!g->slots || !g->first || !g->len)
        return k_no_memory(c);
    for (int64_t k = 0; k < counts->len; k++) {
        const int64_t from = counts->v.ints[k], to = k + 1 < counts->len ? counts->v.ints[k + 1] : pool->len;
        if (from < 0 || to < from || to > pool->len || (to - from) % (k + 1))
            return k_fail(c, NPUC_E_INVALID, "ngram_counts do not fit the pool of %lld tokens", (long long)pool->len);
        for (int64_t at = from; at < to; at += k + 1) {
            g->first[g->n] = at;
            g->len[g->n++] = k + 1;
            int64_t *slot = find_slot(g, &g->pool, at, 1, k + 1);
            *slot = *slot ? *slot : g->n;
        }
    }
    g->most = counts->len;
    return NPUC_OK;
}

struct counting {
    const struct grams *g;
    int64_t shortest, longest, skips;
    const int64_t *index; /* gram -> column */
    const float *weight;  /* per gram, or NULL */
    const char *mode;
};

/* How often each gram occurs in tokens [from, from + n), into `times`. */
static void count_row(const struct counting *q, const struct tokens *t, int64_t from, int64_t n, int64_t *times)
{
    for (int64_t len = q->shortest; len <= q->longest && len <= n && len <= q->g->most; len++)
        for (int64_t step = 1; step <= (len == 1 ? 1 : q->skips + 1) && (len == 1 || step <= (n - 1) / (len - 1));
             step++)
            for (int64_t at = 0; at + (len - 1) * step < n; at++) {
                const int64_t gram = *find_slot(q->g, t, from + at, step, len) - 1;
                if (gram >= 0)
                    times[gram]++;
            }
}

static void write_row(const struct counting *q, const int64_t *times, float *y)
{
    for (int64_t i = 0; i < q->g->n; i++) {
        const float weight = q->weight ? q->weight[i] : 1;
        if (!times[i])
            continue;
        y[q->index[i]] = !strcmp(q->mode, "TF")    ? (float)times[i]
                         : !strcmp(q->mode, "IDF") ? weight
                                                   : (float)times[i] * weight;
    }
}

static enum npuc_status counting_new(struct k_call *c, const struct grams *g, struct counting *q, int64_t *width)
{
    const struct k_attr *index = k_attr_find(c, "ngram_indexes"), *weights = k_attr_find(c, "weights");
    *q = (struct counting){.g = g,
                           .shortest = k_attr_int(c, "min_gram_length", 1),
                           .longest = k_attr_int(c, "max_gram_length", 1),
                           .skips = k_attr_int(c, "max_skip_count", 0),
                           .mode = k_attr_str(c, "mode", "TF")};
    if (!index || index->kind != K_ATTR_INTS || index->len != g->n || q->shortest < 1 || q->skips < 0 ||
        q->skips > INT32_MAX || (weights && (weights->kind != K_ATTR_FLOATS || weights->len != g->n)))
        return k_fail(c, NPUC_E_INVALID, "ngram_indexes, weights or lengths do not fit the %lld n-grams of the pool",
                      (long long)g->n);
    q->index = index->v.ints;
    q->weight = weights ? weights->v.floats : NULL;
    for (int64_t i = 0; i < g->n; i++) {
        if (q->index[i] < 0 || q->index[i] > INT32_MAX)
            return k_fail(c, NPUC_E_INVALID, "ngram_indexes hold %lld", (long long)q->index[i]);
        *width = q->index[i] >= *width ? q->index[i] + 1 : *width;
    }
    return NPUC_OK;
}

/* [C] -> [columns], [N, C] -> [N, columns]: the counts of n-grams, weighted. */
enum npuc_status k_op_tf_idf_vectorizer(struct k_call *c)
{
    struct grams g = {0};
    struct counting q;
    int64_t n, width = 0;
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    if (x->rank > 2)
        return k_fail(c, NPUC_E_INVALID, "input must have shape [C] or [N, C]");
    struct tokens t = {.text = x->data};
    if (x->dtype != DT_STRING && !(t = (struct tokens){.whole = k_whole(c, 0, &n)}).whole)
        return k_no_memory(c);
    K_TRY(grams_new(c, &g));
    K_TRY(counting_new(c, &g, &q, &width));
    const int64_t rows = x->rank == 2 ? x->dims[0] : 1, len = x->rank ? x->dims[x->rank - 1] : 1;
    float *y = k_out(c, 0, DT_F32, x->rank == 2 ? 2 : 1, (const int64_t[]){x->rank == 2 ? rows : width, width});
    int64_t *times = k_scratch(c, g.n + 1, 8);
    if (!y || !times)
        return k_no_memory(c);
    memset(y, 0, (size_t)c->out[0].size);
    for (int64_t r = 0; r < rows; r++) {
        memset(times, 0, (size_t)g.n * sizeof *times);
        count_row(&q, &t, r * len, len, times);
        write_row(&q, times, y + r * width);
    }
    return NPUC_OK;
}

/* ---- LabelEncoder */

/* Attribute keys_* or values_* (in one of four types) as a tensor of its own. */
static bool column(struct k_call *c, const char *stem, struct k_tensor *out)
{
    static const struct {
        const char *suffix;
        enum k_attr_kind kind;
        enum dtype dtype;
        int64_t size;
    } forms[] = {{"_strings", K_ATTR_STRINGS, DT_STRING, (int64_t)sizeof(struct k_string)},
                 {"_int64s", K_ATTR_INTS, DT_I64, 8},
                 {"_floats", K_ATTR_FLOATS, DT_F32, 4},
                 {"_tensor", K_ATTR_STRINGS, DT_STRING, (int64_t)sizeof(struct k_string)}, /* text has no tensor form */
                 {"_tensor", K_ATTR_TENSOR, DT_NONE, 0}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const struct k_attr *a = k_attr_find(c, arena_printf(c->arena, "%s%s", stem, forms[i].suffix));
        if (!a || a->kind != forms[i].kind)
            continue;
        if (a->kind == K_ATTR_TENSOR) {
            *out = *a->v.tensor;
            return true;
        }
        *out = (struct k_tensor){.dtype = forms[i].dtype, .rank = 1, .dims = {a->len}, .size = a->len * forms[i].size};
        const void *data = a->v.ints; /* every list lies behind a pointer of the union */
        memcpy(&out->data, &data, sizeof data);
        return true;
    }
    k_fail(c, NPUC_E_INVALID, "it has no %s", stem);
    return false;
}

/* The value for labels that are no key. */
static bool fallback(struct k_call *c, enum dtype t, struct k_tensor *out)
{
    const struct k_attr *a = k_attr_find(c, "default_tensor");
    if (a && a->kind == K_ATTR_TENSOR && a->v.tensor->dtype == t && k_count(a->v.tensor) == 1) {
        *out = *a->v.tensor;
        return true;
    }
    *out = (struct k_tensor){.dtype = t, .data = k_scratch(c, 1, (int64_t)sizeof(struct k_string))};
    if (!out->data)
        return false;
    if (t == DT_STRING) {
        const char *text = k_attr_str(c, "default_string", "_Unused");
        *(struct k_string *)out->data = a && a->kind == K_ATTR_STRINGS && a->len == 1
                                            ? a->v.strings[0]
                                            : (struct k_string){text, (int64_t)strlen(text)};
    } else if (dtype_is_float(t)) {
        k_set_f64(out, 0, (double)k_attr_float(c, "default_float", -0.0f));
    } else {
        k_set_i64(out, 0, k_attr_int(c, "default_int64", -1));
    }
    return true;
}

static bool same_label(const struct k_tensor *keys, int64_t k, const struct k_tensor *x, int64_t i)
{
    if (x->dtype == DT_STRING) {
        const struct k_string a = ((const struct k_string *)keys->data)[k], b = ((const struct k_string *)x->data)[i];
        return a.len == b.len && !memcmp(a.text, b.text, (size_t)a.len);
    }
    if (!dtype_is_float(x->dtype))
        return k_get_i64(keys, k) == k_get_i64(x, i);
    const double a = k_get_f64(keys, k), b = k_get_f64(x, i);
    return a == b || (a != a && b != b); /* NaN is a label */
}

enum npuc_status k_op_label_encoder(struct k_call *c)
{
    struct k_tensor keys, values, other;
    if (!k_has(c, 1, 1) || !column(c, "keys", &keys) || !column(c, "values", &values))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    if (k_count(&keys) != k_count(&values) || keys.dtype != x->dtype)
        return k_fail(c, NPUC_E_INVALID, "its keys do not fit its values or the input's type");
    const int64_t n = k_count(x), size = k_move_size(values.dtype);
    char *y = k_out(c, 0, values.dtype, x->rank, x->dims);
    if (!y || !fallback(c, values.dtype, &other))
        return k_no_memory(c);
    for (int64_t i = 0; i < n; i++) {
        int64_t k = 0;
        while (k < k_count(&keys) && !same_label(&keys, k, x, i))
            k++;
        const char *from = k < k_count(&keys) ? (const char *)values.data + k * size : other.data;
        memcpy(y + i * size, from, (size_t)size);
    }
    return NPUC_OK;
}
