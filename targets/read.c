/* Reading target files:
 *
 *     inherit = ascend-2201.target          (before anything else)
 *     key     = value unit  # source: text (spec | silicon | simulator | derived | guess)
 *
 * A number without its source, an unknown key and a repeated key are errors: a wrong constant must not go unnoticed. */
#include "targets/target_priv.h"

#include <stdio.h>
#include <string.h>

enum { MAX_DEPTH = 8, MAX_LINE = 1000 };

struct span {
    const char *p;
    int64_t len;
};
struct reader {
    struct target *t;
    struct diag *d;
    const char *file;
    int line;
    bool any; /* a key was seen in this file */
    bool own_name, own_family;
    enum npuc_status status;
};

static void bad_line(struct reader *r, const char *key, int64_t key_len, const char *what)
{
    const char *where = arena_printf(&r->t->arena, "%s:%d", r->file, r->line);
    const char *text = arena_printf(&r->t->arena, "%s%.*s%s%s", key_len ? "key '" : "",
                                    (int)(key_len < 60 ? key_len : 60), key, key_len ? "': " : "", what);
    r->status = diag_error(r->d, &(struct diag_loc){.file = where, .index = -1}, D_TARGET_FILE, text ? text : what);
}

static struct span trim(struct span s)
{
    while (s.len > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.len--;
    }
    while (s.len > 0 && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t' || s.p[s.len - 1] == '\r'))
        s.len--;
    return s;
}

/* Cuts *s at the first c: returns what is before, leaves what is after (nothing when c is absent). */
static struct span cut(struct span *s, char c)
{
    const char *at = s->len ? memchr(s->p, c, (size_t)s->len) : NULL;
    struct span head = *s;
    if (at) {
        head.len = at - s->p;
        *s = (struct span){at + 1, s->len - head.len - 1};
    } else {
        *s = (struct span){s->p + s->len, 0};
    }
    return head;
}

static bool span_is(struct span s, const char *text)
{
    return (int64_t)strlen(text) == s.len && memcmp(s.p, text, (size_t)s.len) == 0;
}

static const char *const confidence_names[] = {
    [TGT_SPEC] = "spec",       [TGT_SILICON] = "silicon", [TGT_SIMULATOR] = "simulator",
    [TGT_DERIVED] = "derived", [TGT_GUESS] = "guess",
};

/* "source: text (confidence)" */
static bool read_source(struct reader *r, struct target_value *v, struct span comment)
{
    static const char prefix[] = "source:";
    const int64_t prefix_len = (int64_t)sizeof prefix - 1;
    comment = trim(comment);
    if (comment.len < prefix_len || memcmp(comment.p, prefix, (size_t)prefix_len) != 0)
        return false;
    comment = trim((struct span){comment.p + prefix_len, comment.len - prefix_len});
    int64_t open = comment.len;
    while (open > 0 && comment.p[open - 1] != '(')
        open--;
    if (open < 2 || comment.p[comment.len - 1] != ')')
        return false;
    const struct span word = {comment.p + open, comment.len - open - 1};
    const struct span text = trim((struct span){comment.p, open - 1});
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(confidence_names); i++)
        if (span_is(word, confidence_names[i]) && text.len > 0) {
            v->confidence = (enum target_confidence)i;
            v->source = arena_strndup(&r->t->arena, text.p, text.len);
            return true;
        }
    return false;
}

/* name and family: text that is taken as it stands. */
static void read_text_key(struct reader *r, struct span value, const char **to, bool *own)
{
    if (*own || value.len == 0) {
        bad_line(r, to == &r->t->name ? "name" : "family", to == &r->t->name ? 4 : 6,
                 *own ? "given twice" : "is empty");
        return;
    }
    *to = arena_strndup(&r->t->arena, value.p, value.len);
    *own = true;
}

static void read_number_key(struct reader *r, struct span key, struct span value, struct span comment)
{
    char why[TARGET_WHY_MAX];
    const int k = target_key_find(key.p, key.len);
    if (k == TK_COUNT) {
        bad_line(r, key.p, key.len, "no such key; `npuc targets` lists them");
        return;
    }
    struct target_value *v = &r->t->value[k];
    if (v->file == r->file) {
        bad_line(r, key.p, key.len, "given twice in this file");
        return;
    }
    if (!target_assign(r->t, k, value.p, value.len, why)) {
        bad_line(r, key.p, key.len, why);
        return;
    }
    v->file = r->file;
    if (!read_source(r, v, comment))
        bad_line(r, key.p, key.len,
                 "expected '# source: text (spec | silicon | simulator | derived | guess)' after the value");
}

static void read_line(struct reader *r, struct span line)
{
    struct span rest = line;
    struct span value = cut(&rest, '#');
    const struct span comment = rest;
    if (trim(value).len == 0)
        return;
    if (line.len > MAX_LINE || !memchr(value.p, '=', (size_t)value.len)) {
        bad_line(r, "", 0, line.len > MAX_LINE ? "the line is too long" : "expected 'key = value'");
        return;
    }
    const struct span key = trim(cut(&value, '='));
    value = trim(value);
    if (span_is(key, "inherit")) {
        if (r->any)
            bad_line(r, key.p, key.len, "expected before every other key");
    } else if (span_is(key, "name")) {
        read_text_key(r, value, &r->t->name, &r->own_name);
    } else if (span_is(key, "family")) {
        read_text_key(r, value, &r->t->family, &r->own_family);
    } else {
        read_number_key(r, key, value, comment);
    }
    r->any = true;
}

static enum npuc_status read_lines(struct target *t, const char *file, const char *text, struct diag *d)
{
    struct reader r = {.t = t, .d = d, .file = file};
    struct span rest = {text, (int64_t)strlen(text)};
    while (rest.len > 0) {
        r.line++;
        read_line(&r, cut(&rest, '\n'));
    }
    return r.status;
}

static enum npuc_status bad_inherit(const struct reader *r, struct span parent, bool too_deep)
{
    const char *text = too_deep ? "key 'inherit': the chain of files is too long or circular"
                                : arena_printf(&r->t->arena, "key 'inherit': there is no target file '%.*s'",
                                               (int)(parent.len < 60 ? parent.len : 60), parent.p);
    return diag_error(r->d, &(struct diag_loc){.file = r->file, .index = -1}, D_TARGET_FILE,
                      text ? text : "key 'inherit'");
}

/* The file that the first line with a key inherits from, or nothing. */
static struct span parent_of(const char *text)
{
    struct span rest = {text, (int64_t)strlen(text)};
    while (rest.len > 0) {
        struct span line = cut(&rest, '\n');
        struct span value = cut(&line, '#');
        if (trim(value).len == 0)
            continue;
        const struct span key = trim(cut(&value, '='));
        return span_is(key, "inherit") ? trim(value) : (struct span){0};
    }
    return (struct span){0};
}

enum npuc_status target_read_text(struct target *t, const char *file, const char *text, struct diag *d)
{
    struct target_file chain[MAX_DEPTH] = {{file, text}};
    int n = 1;
    for (struct span parent; (parent = parent_of(chain[n - 1].text)).p; n++) {
        int i = 0;
        while (i < target_n_files && !span_is(parent, target_files[i].name))
            i++;
        const struct reader r = {.t = t, .d = d, .file = chain[n - 1].name};
        if (i == target_n_files || n == MAX_DEPTH)
            return bad_inherit(&r, parent, n == MAX_DEPTH);
        chain[n] = target_files[i];
    }
    enum npuc_status status = NPUC_OK;
    while (n-- > 0) {
        const enum npuc_status s = read_lines(t, chain[n].name, chain[n].text, d);
        status = status ? status : s;
    }
    return status;
}
