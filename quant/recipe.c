#include "quant/recipe.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "kernels/cache_code.h"
#include "quant/codes.h"
#include "quant/operand.h"
#include "quant/weight.h"

enum { MAX_LINE = 4096, VERSION = 1 };

/* ---- reading */

struct reader {
    struct quant_recipe *r;
    struct diag *d;
    int line;
    bool version;
    enum npuc_status status;
};

static void wrong(struct reader *in, const char *what)
{
    const char *where = arena_printf(in->r->arena, "%s:%d", in->r->path, in->line);
    if (in->status == NPUC_OK)
        in->status = diag_error_text(in->d, &(struct diag_loc){.file = where, .index = -1}, D_INPUT_FILE, what);
}

/* Cuts spaces off both ends, in place. */
static char *trim(char *s)
{
    while (*s == ' ' || *s == '\t')
        s++;
    size_t n = strlen(s);
    while (n > 0 && strchr(" \t\r", s[n - 1]))
        s[--n] = '\0';
    return s;
}

static bool read_whole(const char *s, int64_t least, int64_t most, int64_t *out)
{
    char *end;
    *out = strtoll(s, &end, 10);
    return end != s && !*end && *out >= least && *out <= most;
}

static void read_operand(struct reader *in, char *text, struct quant_operand *o)
{
    char *rest = NULL;
    for (char *word = strtok_r(text, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest)) {
        const char *found = arena_strndup(in->r->arena, word, (int64_t)strlen(word));
        const char *why = quant_operand_read(o, word, in->r->arena);
        if (why)
            wrong(in, arena_printf(in->r->arena, "%s, found '%s'", why, found));
    }
    if (o->codes == DT_NONE)
        wrong(in, "expected a format and how it is used, found nothing");
}

/* ---- keys: a row each */

typedef void key_fn(struct reader *in, struct quant_entry *e, char *value);

static void read_version(struct reader *in, struct quant_entry *e, char *value)
{
    (void)e;
    int64_t version;
    in->version = true;
    if (!read_whole(value, 1, VERSION, &version))
        wrong(in,
              arena_printf(in->r->arena, "expected version %d, found '%s'; this npuc reads no other", VERSION, value));
}

static void read_scheme(struct reader *in, struct quant_entry *e, char *value)
{
    (void)e;
    in->r->scheme = arena_strndup(in->r->arena, value, (int64_t)strlen(value));
}

static void read_data(struct reader *in, struct quant_entry *e, char *value)
{
    (void)e;
    in->r->data = arena_strndup(in->r->arena, value, (int64_t)strlen(value));
}

static void read_keep(struct reader *in, struct quant_entry *e, char *value)
{
    e->keep = arena_strndup(in->r->arena, value, (int64_t)strlen(value));
}

static void read_why(struct reader *in, struct quant_entry *e, char *value)
{
    e->why = arena_strndup(in->r->arena, value, (int64_t)strlen(value));
}

/* An operand that is given once; false after a message. */
static bool read_once(struct reader *in, const struct quant_entry *e, char *value, struct quant_operand *o)
{
    if (o->codes != DT_NONE)
        wrong(in, arena_printf(in->r->arena, "an operand of '%s' is given twice", e->name));
    read_operand(in, value, o);
    return in->status == NPUC_OK;
}

static void read_weight(struct reader *in, struct quant_entry *e, char *value)
{
    const char *why = read_once(in, e, value, &e->form.weight) ? quant_operand_check_weight(&e->form.weight) : NULL;
    if (why)
        wrong(in, why);
}

static void read_input(struct reader *in, struct quant_entry *e, char *value)
{
    const char *why = read_once(in, e, value, &e->form.input) ? quant_operand_check_input(&e->form.input) : NULL;
    if (why)
        wrong(in, why);
}

static void read_flag(struct reader *in, const char *value, const char *expected, bool *out)
{
    *out = strcmp(value, expected) == 0;
    if (!*out)
        wrong(in, arena_printf(in->r->arena, "expected %s, found '%s'", expected, value));
}

static void read_smooth(struct reader *in, struct quant_entry *e, char *value)
{
    read_flag(in, value, "data", &e->smooth);
}

static void read_correct(struct reader *in, struct quant_entry *e, char *value)
{
    read_flag(in, value, "data", &e->correct);
}

static void read_rotate(struct reader *in, struct quant_entry *e, char *value)
{
    bool rotates;
    read_flag(in, value, "hadamard", &rotates);
    e->form.rotate = rotates ? QUANT_HADAMARD : QUANT_UNROTATED;
}

static const char *check_cache(struct quant_operand *o)
{
    o->dynamic = true;
    if (o->per != QUANT_PER_TOKEN && o->per != QUANT_PER_GROUP)
        return "rows of a cache have a scale each or in groups: expected token or group=N";
    if (o->scale != 0 || o->zero != 0 || o->by)
        return "scales of a cache are those of its rows, at run time: expected a format, token or group=N, and zero";
    return k_cache_takes(o->codes, o->shifted, 2) ? NULL
                                                  : "expected int8, int4, or float8e4m3fn or float8e5m2 without zero";
}

static void read_rows(struct reader *in, struct quant_operand *o, char *value)
{
    if (o->codes != DT_NONE)
        wrong(in, "it is given twice");
    read_operand(in, value, o);
    const char *why = in->status == NPUC_OK ? check_cache(o) : NULL;
    if (why)
        wrong(in, why);
}

static void read_cache(struct reader *in, struct quant_entry *e, char *value)
{
    (void)e;
    in->r->cache_line = in->line;
    read_rows(in, &in->r->cache, value);
}

static void read_keys(struct reader *in, struct quant_entry *e, char *value)
{
    (void)e;
    if (in->r->cache.codes == DT_NONE)
        wrong(in, "keys differ from what kv says: expected kv = ROWS before");
    read_rows(in, &in->r->keys, value);
}

static void read_own_cache(struct reader *in, struct quant_entry *e, char *value)
{
    read_rows(in, &e->cache, value);
}

static void read_turn(struct reader *in, struct quant_entry *e, char *value)
{
    read_flag(in, value, "data", &e->turns);
}

static const struct {
    const char *name;
    key_fn *read;
    bool of_node; /* stands below a [node] */
} keys[] = {
    {"version", read_version, false}, {"scheme", read_scheme, false},  {"data", read_data, false},
    {"keys", read_keys, false},       {"kv", read_cache, false},       {"keep", read_keep, true},
    {"weight", read_weight, true},    {"input", read_input, true},     {"smooth", read_smooth, true},
    {"rotate", read_rotate, true},    {"correct", read_correct, true}, {"why", read_why, true},
    {"kv", read_own_cache, true},     {"turn", read_turn, true},
};

static void read_value(struct reader *in, const char *key, char *value)
{
    struct quant_recipe *r = in->r;
    struct quant_entry *e = r->entries.len ? &r->entries.data[r->entries.len - 1] : NULL;
    const char *known = "";
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(keys); i++) {
        if (keys[i].of_node != (e != NULL))
            continue;
        if (strcmp(keys[i].name, key) == 0) {
            keys[i].read(in, e, value);
            return;
        }
        known = arena_printf(r->arena, "%s%s, ", known, keys[i].name);
    }
    wrong(in, arena_printf(r->arena, "expected %sor [node], found '%s'", known, key));
}

static void close_entry(struct reader *in)
{
    const struct quant_entry *e = in->r->entries.len ? &in->r->entries.data[in->r->entries.len - 1] : NULL;
    if (!e || in->status != NPUC_OK)
        return;
    const bool changed = e->form.weight.codes || e->form.input.codes || e->smooth || e->correct || e->form.rotate;
    const bool is_cache = e->cache.codes || e->turns,
               needs = e->turns || e->smooth || e->correct || e->form.weight.data;
    if (is_cache && (changed || e->keep))
        wrong(in, arena_printf(in->r->arena,
                               "'%s' is a cache: expected kv = ROWS and turn = data alone, or keep = REASON", e->name));
    else if (needs && !in->r->data)
        wrong(in, arena_printf(in->r->arena, "'%s' needs a data file; expected data = FILE at the beginning", e->name));
    else if (e->turns && !e->cache.codes && !in->r->cache.codes)
        wrong(in,
              arena_printf(in->r->arena, "keys of '%s' are turned but not coded: expected kv = ROWS, too", e->name));
    else if (e->keep && changed)
        wrong(in, arena_printf(in->r->arena, "'%s' is both kept and quantised; take one away", e->name));
    else if (!e->keep && !e->form.weight.codes && !is_cache)
        wrong(in, arena_printf(in->r->arena, "'%s' has no weight = line; expected one, or keep = REASON", e->name));
}

static void read_line(struct reader *in, char *line)
{
    struct quant_recipe *r = in->r;
    char *comment = *trim(line) == '[' ? NULL : strchr(line, '#');
    if (comment)
        *comment = '\0';
    line = trim(line);
    const size_t n = strlen(line);
    char *eq = strchr(line, '=');
    if (n == 0)
        return;
    if (line[0] == '[' && line[n - 1] == ']' && n > 2) {
        close_entry(in);
        line[n - 1] = '\0';
        const struct quant_entry e = {.name = arena_strndup(r->arena, line + 1, (int64_t)n - 2), .line = in->line};
        if (!quant_recipe_add(r, &e))
            wrong(in, arena_printf(r->arena, "node '%s' is given twice", e.name));
    } else if (eq && line[0] != '[') {
        *eq = '\0';
        read_value(in, trim(line), trim(eq + 1));
    } else {
        wrong(in, arena_printf(r->arena, "expected 'key = value' or '[node]', found '%.60s'", line));
    }
}

enum npuc_status quant_recipe_parse(struct quant_recipe *r, const char *path, const char *text, int64_t len,
                                    struct arena *a, struct diag *d)
{
    char line[MAX_LINE];
    quant_recipe_init(r, a);
    r->path = path;
    struct reader in = {.r = r, .d = d};
    for (int64_t at = 0; at < len && in.status == NPUC_OK;) {
        const char *end = memchr(text + at, '\n', (size_t)(len - at));
        const int64_t n = end ? end - (text + at) : len - at;
        in.line++;
        if (n >= MAX_LINE || memchr(text + at, '\0', (size_t)n)) {
            wrong(&in, "expected lines of text, at most 4095 bytes each");
            break;
        }
        memcpy(line, text + at, (size_t)n);
        line[n] = '\0';
        read_line(&in, line);
        at += n + 1;
    }
    close_entry(&in);
    if (in.status == NPUC_OK && !in.version)
        wrong(&in, "expected 'version = 1' at the beginning; is this a recipe?");
    return in.status;
}

/* ---- the data file */

static bool read_vector(struct quant_recipe *r, const struct quant_entry *e, const char *part, struct quant_vector *out)
{
    const struct k_tensor *t = quant_store_find(&r->store, e->name, part);
    if (!t || t->dtype != DT_F32 || t->rank != 1)
        return false;
    *out = (struct quant_vector){t->data, t->dims[0]};
    return true;
}

/* Matrices of finite numbers, as many and as large for either way. */
static bool read_matrices(struct quant_recipe *r, const struct quant_entry *e, struct quant_turn *out)
{
    const struct k_tensor *t[2] = {quant_store_find(&r->store, e->name, "turn"),
                                   quant_store_find(&r->store, e->name, "back")};
    for (int i = 0; i < 2; i++) {
        bool fits = t[i] && t[i]->dtype == DT_F32 && t[i]->rank == 3 && t[i]->dims[0] > 0 && t[i]->dims[1] > 0 &&
                    t[i]->dims[1] == t[i]->dims[2] && t[i]->dims[0] == t[0]->dims[0] && t[i]->dims[1] == t[0]->dims[1];
        const float *x = fits ? t[i]->data : NULL;
        for (int64_t k = 0; fits && k < k_count(t[i]); k++)
            fits = isfinite(x[k]);
        if (!fits)
            return false;
    }
    *out = (struct quant_turn){t[0]->data, t[1]->data, t[0]->dims[0], t[0]->dims[1]};
    return true;
}

static enum npuc_status open_data(struct quant_recipe *r, struct diag *d)
{
    const char *why = NULL, *path = file_contained(r->arena, r->path, r->data, &why);
    if (!path)
        return diag_error_text(d, &(struct diag_loc){.file = r->path, .index = -1}, D_INPUT_FILE,
                               arena_printf(r->arena, "data = %s: %s", r->data, why));
    const enum npuc_status s = quant_store_open(&r->store, path, r->arena, d);
    for (int64_t i = 0; s == NPUC_OK && i < r->entries.len; i++) {
        struct quant_entry *e = &r->entries.data[i];
        if (e->turns && !read_matrices(r, e, &e->turn))
            return diag_error_text(
                d, &(struct diag_loc){.file = path, .index = -1}, D_INPUT_FILE,
                arena_printf(r->arena, "expected finite matrices '%s.turn' and '%s.back' [heads, size, size] of F32",
                             e->name, e->name));
        const char *missing = e->smooth && !read_vector(r, e, "smooth", &e->form.smooth)      ? "smooth"
                              : e->correct && !read_vector(r, e, "correct", &e->form.correct) ? "correct"
                                                                                              : NULL;
        if (missing)
            return diag_error_text(
                d, &(struct diag_loc){.file = path, .index = -1}, D_INPUT_FILE,
                arena_printf(r->arena, "expected a vector '%s.%s' of F32; there is none", e->name, missing));
    }
    return s;
}

enum npuc_status quant_recipe_read(struct quant_recipe *r, const char *path, struct arena *a, struct diag *d)
{
    struct file_map m;
    enum npuc_status s = file_map_open(&m, path, d);
    if (s != NPUC_OK)
        return s;
    s = quant_recipe_parse(r, arena_strndup(a, path, (int64_t)strlen(path)), (const char *)m.data, m.size, a, d);
    file_map_close(&m);
    return s == NPUC_OK && r->data ? open_data(r, d) : s;
}

/* ---- writing */

const char *quant_recipe_text(const struct quant_recipe *r, struct arena *a, int64_t *len)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    fprintf(f, "# npuc recipe\nversion = %d\n", VERSION);
    if (r->scheme)
        fprintf(f, "scheme  = %s\n", r->scheme);
    if (r->data)
        fprintf(f, "data    = %s\n", r->data);
    if (r->cache.codes)
        fprintf(f, "kv      = %s\n", quant_operand_text(&r->cache, a));
    if (r->keys.codes)
        fprintf(f, "keys    = %s\n", quant_operand_text(&r->keys, a));
    for (int64_t i = 0; i < r->entries.len; i++) {
        const struct quant_entry *e = &r->entries.data[i];
        fprintf(f, "\n[%s]\n", e->name);
        if (e->keep)
            fprintf(f, "keep    = %s\n", e->keep);
        if (e->cache.codes)
            fprintf(f, "kv      = %s\n", quant_operand_text(&e->cache, a));
        if (e->turns)
            fprintf(f, "turn    = data\n");
        if (e->form.weight.codes)
            fprintf(f, "weight  = %s\n", quant_operand_text(&e->form.weight, a));
        if (e->form.input.codes)
            fprintf(f, "input   = %s\n", quant_operand_text(&e->form.input, a));
        if (e->smooth)
            fprintf(f, "smooth  = data\n");
        if (e->form.rotate)
            fprintf(f, "rotate  = hadamard\n");
        if (e->correct)
            fprintf(f, "correct = data\n");
        if (e->why)
            fprintf(f, "why     = %s\n", e->why);
    }
    const bool whole = fclose(f) == 0;
    const char *copy = whole ? arena_strndup(a, text, (int64_t)size) : NULL;
    *len = (int64_t)size;
    free(text);
    return copy;
}

/* ---- use */

void quant_recipe_init(struct quant_recipe *r, struct arena *a)
{
    *r = (struct quant_recipe){.arena = a};
    strtab_init(&r->names, a);
    map_init(&r->by_name, a);
}

void quant_recipe_close(struct quant_recipe *r)
{
    quant_store_close(&r->store);
}

bool quant_recipe_add(struct quant_recipe *r, const struct quant_entry *e)
{
    if (quant_recipe_find(r, e->name))
        return false;
    vec_push(r->arena, &r->entries, *e);
    map_put(&r->by_name, str_internz(&r->names, e->name), (uint64_t)r->entries.len);
    return true;
}

struct quant_entry *quant_recipe_find(struct quant_recipe *r, const char *name)
{
    const uint64_t *at = map_find(&r->by_name, str_internz(&r->names, name));
    return at ? &r->entries.data[*at - 1] : NULL;
}

bool quant_recipe_has_caches(const struct quant_recipe *r)
{
    bool any = r->cache.codes != DT_NONE;
    for (int64_t i = 0; !any && i < r->entries.len; i++)
        any = r->entries.data[i].cache.codes != DT_NONE;
    return any;
}

static const struct quant_product *product_of(void *user, const struct node *n, const char *name)
{
    (void)n;
    struct quant_entry *e = quant_recipe_find(user, name);
    if (!e)
        return NULL;
    e->used = true;
    return e->keep || e->cache.codes != DT_NONE || e->turns ? NULL : &e->form;
}

static const char *encode(void *user, const char *name, const struct quant_operand *o, const struct quant_matrix *w,
                          struct quant_codes *out, struct arena *a)
{
    struct quant_recipe *r = user;
    return o->data ? quant_load_codes(&r->store, name, o, w, out, a) : quant_encode_weight(o, w, out, a);
}

static const struct quant_operand *cache_of(void *user, const char *input, bool of_keys)
{
    struct quant_recipe *r = user;
    struct quant_entry *e = quant_recipe_find(r, input);
    r->cache_used = true;
    if (e) {
        e->used = true;
        if (!e->turns || e->cache.codes != DT_NONE)
            return e->cache.codes != DT_NONE ? &e->cache : NULL;
    }
    if (r->cache.codes == DT_NONE)
        return NULL;
    return of_keys && r->keys.codes != DT_NONE ? &r->keys : &r->cache;
}

static const struct quant_turn *turn_of(void *user, const char *input)
{
    const struct quant_entry *e = quant_recipe_find(user, input);
    return e && e->turn.turn ? &e->turn : NULL;
}

struct quantiser quant_recipe_quantiser(struct quant_recipe *r)
{
    return (struct quantiser){.user = r, .cache = cache_of, .turn = turn_of, .product = product_of, .encode = encode};
}

enum npuc_status quant_recipe_check_used(const struct quant_recipe *r, struct diag *d)
{
    if (r->cache.codes && !r->cache_used)
        return diag_error_text(
            d, &(struct diag_loc){.file = arena_printf(r->arena, "%s:%d", r->path, r->cache_line), .index = -1},
            D_INPUT_FILE,
            "kv: the compiler keeps no KV cache of this model (past inputs and present outputs that grow by new rows; "
            "--kv-capacity 0 turns it off)");
    for (int64_t i = 0; i < r->entries.len; i++) {
        const struct quant_entry *e = &r->entries.data[i];
        if (e->used || e->keep)
            continue;
        return diag_error_text(
            d, &(struct diag_loc){.file = arena_printf(r->arena, "%s:%d", r->path, e->line), .index = -1}, D_INPUT_FILE,
            arena_printf(r->arena,
                         e->cache.codes || e->turns
                             ? "the compiler keeps no KV cache of an input '%s'; was the recipe made for another model?"
                             : "the model has no product with a constant weight from a node '%s'; was the recipe made "
                               "for another model?",
                         e->name));
    }
    return NPUC_OK;
}
