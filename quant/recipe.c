#include "quant/recipe.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "quant/weight.h"

enum { MAX_LINE = 4096, VERSION = 1 };

static const struct {
    const char *name;
    enum dtype codes;
} formats[] = {
#define FORMAT(nm, dt, ...) {#nm, DT_##dt},
#include "quant/formats.def"
#undef FORMAT
};

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

static bool read_format(const char *word, struct quant_operand *o)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(formats); i++)
        if (strcmp(formats[i].name, word) == 0)
            o->codes = formats[i].codes;
    return o->codes != DT_NONE;
}

/* A word behind the format; NULL or what is wrong with it. */
static const char *read_word(struct reader *in, char *word, struct quant_operand *o)
{
    static const char *const shares[] = {"tensor", "channel", "token"}; /* enum quant_per */
    char *value = strchr(word, '='), *end;
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(shares); i++)
        if (strcmp(word, shares[i]) == 0) {
            o->per = (enum quant_per)i;
            return NULL;
        }
    if (strcmp(word, "zero") == 0) {
        o->shifted = true;
        return NULL;
    }
    if (!value)
        return "expected tensor, channel, token, group=N, zero, zero=Z, scale=S or by=NAME";
    *value++ = '\0';
    if (strcmp(word, "group") == 0) {
        o->per = QUANT_PER_GROUP;
        return read_whole(value, 1, INT64_MAX, &o->group) ? NULL : "group: expected a number of elements";
    }
    if (strcmp(word, "zero") == 0) {
        o->shifted = true;
        return read_whole(value, INT16_MIN, INT16_MAX, &o->zero) ? NULL : "zero: expected a code";
    }
    if (strcmp(word, "scale") == 0) {
        o->scale = strtod(value, &end);
        return end != value && !*end && isfinite(o->scale) && o->scale > 0 ? NULL : "scale: expected a positive number";
    }
    if (strcmp(word, "by") == 0) {
        o->by = arena_strndup(in->r->arena, value, (int64_t)strlen(value));
        return NULL;
    }
    return "expected tensor, channel, token, group=N, zero, zero=Z, scale=S or by=NAME";
}

static void read_operand(struct reader *in, char *text, struct quant_operand *o)
{
    char *rest = NULL;
    for (char *word = strtok_r(text, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest)) {
        const char *found = arena_strndup(in->r->arena, word, (int64_t)strlen(word)), *why = NULL;
        if (o->codes == DT_NONE)
            why = read_format(word, o) ? NULL : "expected a format (npuc quantize --help lists them)";
        else
            why = read_word(in, word, o);
        if (why)
            wrong(in, arena_printf(in->r->arena, "%s, found '%s'", why, found));
    }
    if (o->codes == DT_NONE)
        wrong(in, "expected a format and how it is used, found nothing");
}

static const char *check_weight(const struct quant_operand *o)
{
    if (o->per == QUANT_PER_TOKEN || o->scale != 0 || o->zero != 0)
        return "a weight has no scale per token, and its numbers come from by=NAME; expected tensor, channel or "
               "group=N";
    if (o->by && !quant_weight_find(o->by))
        return "by: expected an algorithm for weights (npuc quantize --help lists them)";
    return o->shifted && dtype_is_float(o->codes) ? "float codes have no zero points" : NULL;
}

static const char *check_input(struct quant_operand *o)
{
    o->dynamic = o->per == QUANT_PER_TOKEN;
    if (o->codes != DT_I8 && o->codes != DT_U8)
        return "expected int8 or uint8 as the format of an input";
    if (o->per != QUANT_PER_TENSOR && o->per != QUANT_PER_TOKEN)
        return "expected tensor or token as what shares a scale of an input";
    if (o->dynamic && (o->scale != 0 || o->shifted || o->codes != DT_I8))
        return "a scale per token is computed at run time: expected int8 token without scale and zero";
    if (!o->dynamic && o->scale == 0)
        return "expected scale=S, or token for a scale that is computed at run time";
    const int64_t least = o->codes == DT_I8 ? -128 : 0;
    return o->zero < least || o->zero > least + 255 ? "zero: expected a code of the format" : NULL;
}

static void read_value(struct reader *in, const char *key, char *value)
{
    struct quant_recipe *r = in->r;
    struct quant_entry *e = r->entries.len ? &r->entries.data[r->entries.len - 1] : NULL;
    int64_t version;
    if (!e && strcmp(key, "version") == 0) {
        in->version = true;
        if (!read_whole(value, 1, VERSION, &version))
            wrong(in,
                  arena_printf(r->arena, "expected version %d, found '%s'; this npuc reads no other", VERSION, value));
    } else if (!e && strcmp(key, "scheme") == 0) {
        r->scheme = arena_strndup(r->arena, value, (int64_t)strlen(value));
    } else if (e && strcmp(key, "keep") == 0) {
        e->keep = arena_strndup(r->arena, value, (int64_t)strlen(value));
    } else if (e && (strcmp(key, "weight") == 0 || strcmp(key, "input") == 0)) {
        struct quant_operand *o = *key == 'w' ? &e->form.weight : &e->form.input;
        if (o->codes != DT_NONE)
            wrong(in, arena_printf(r->arena, "%s is given twice for '%s'", key, e->name));
        read_operand(in, value, o);
        const char *why = in->status == NPUC_OK ? (*key == 'w' ? check_weight(o) : check_input(o)) : NULL;
        if (why)
            wrong(in, why);
    } else {
        wrong(in, arena_printf(r->arena, "expected %s, found '%s'",
                               e ? "weight, input or keep" : "version, scheme or [node]", key));
    }
}

static void close_entry(struct reader *in)
{
    const struct quant_entry *e = in->r->entries.len ? &in->r->entries.data[in->r->entries.len - 1] : NULL;
    if (!e || in->status != NPUC_OK)
        return;
    if (e->keep && (e->form.weight.codes || e->form.input.codes))
        wrong(in, arena_printf(in->r->arena, "'%s' is both kept and quantised; take one away", e->name));
    else if (!e->keep && !e->form.weight.codes)
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
        if (quant_recipe_find(r, line + 1))
            wrong(in, arena_printf(r->arena, "node '%s' is given twice", line + 1));
        const struct quant_entry e = {.name = arena_strndup(r->arena, line + 1, (int64_t)n - 2), .line = in->line};
        vec_push(r->arena, &r->entries, e);
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
    *r = (struct quant_recipe){.arena = a, .path = path};
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

enum npuc_status quant_recipe_read(struct quant_recipe *r, const char *path, struct arena *a, struct diag *d)
{
    struct file_map m;
    enum npuc_status s = file_map_open(&m, path, d);
    if (s != NPUC_OK)
        return s;
    s = quant_recipe_parse(r, arena_strndup(a, path, (int64_t)strlen(path)), (const char *)m.data, m.size, a, d);
    file_map_close(&m);
    return s;
}

/* ---- writing */

static const char *operand_text(const struct quant_operand *o, struct arena *a)
{
    const char *name = "", *share = "";
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(formats); i++)
        if (formats[i].codes == o->codes)
            name = formats[i].name;
    switch (o->per) {
    case QUANT_PER_TENSOR: share = ""; break;
    case QUANT_PER_CHANNEL: share = " channel"; break;
    case QUANT_PER_TOKEN: share = " token"; break;
    case QUANT_PER_GROUP: share = arena_printf(a, " group=%" PRId64, o->group); break;
    }
    const char *scale = o->scale > 0 ? arena_printf(a, " scale=%.9g", o->scale) : "";
    const char *zero = !o->shifted ? "" : o->scale > 0 ? arena_printf(a, " zero=%" PRId64, o->zero) : " zero";
    return arena_printf(a, "%s%s%s%s%s%s", name, share, scale, zero, o->by ? " by=" : "", o->by ? o->by : "");
}

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
    for (int64_t i = 0; i < r->entries.len; i++) {
        const struct quant_entry *e = &r->entries.data[i];
        fprintf(f, "\n[%s]\n", e->name);
        if (e->keep)
            fprintf(f, "keep    = %s\n", e->keep);
        if (e->form.weight.codes)
            fprintf(f, "weight  = %s\n", operand_text(&e->form.weight, a));
        if (e->form.input.codes)
            fprintf(f, "input   = %s\n", operand_text(&e->form.input, a));
    }
    const bool whole = fclose(f) == 0;
    const char *copy = whole ? arena_strndup(a, text, (int64_t)size) : NULL;
    *len = (int64_t)size;
    free(text);
    return copy;
}

/* ---- use */

struct quant_entry *quant_recipe_find(const struct quant_recipe *r, const char *name)
{
    for (int64_t i = 0; i < r->entries.len; i++)
        if (strcmp(r->entries.data[i].name, name) == 0)
            return &r->entries.data[i];
    return NULL;
}

static const struct quant_product *product_of(void *user, const struct node *n, const char *name)
{
    (void)n;
    struct quant_entry *e = quant_recipe_find(user, name);
    if (!e)
        return NULL;
    e->used = true;
    return e->keep ? NULL : &e->form;
}

static const char *encode(void *user, const char *name, const struct quant_operand *o, const struct quant_matrix *w,
                          struct quant_codes *out, struct arena *a)
{
    (void)user;
    (void)name;
    return quant_encode_weight(o, w, out, a);
}

struct quantiser quant_recipe_quantiser(struct quant_recipe *r)
{
    return (struct quantiser){.user = r, .product = product_of, .encode = encode};
}

enum npuc_status quant_recipe_check_used(const struct quant_recipe *r, struct diag *d)
{
    for (int64_t i = 0; i < r->entries.len; i++) {
        const struct quant_entry *e = &r->entries.data[i];
        if (e->used || e->keep)
            continue;
        return diag_error_text(
            d, &(struct diag_loc){.file = arena_printf(r->arena, "%s:%d", r->path, e->line), .index = -1}, D_INPUT_FILE,
            arena_printf(r->arena,
                         "the model has no product with a constant weight from a node '%s'; was the recipe made for "
                         "another model?",
                         e->name));
    }
    return NPUC_OK;
}
