/* Targets: finding them, changing single keys, and their snapshot in a plan. */
#include "targets/target_priv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/str.h"

#define TARGET_ID_MAX   80
#define TARGET_FILE_MAX (1 << 20)

const struct target_key_info target_keys[TK_COUNT] = {
#define KEY(id, name, unit, need, help) [TK_##id] = {name, unit, help, need},
#include "targets/keys.def"
#undef KEY
};

int target_key_find(const char *name, int64_t len)
{
    int k = 0;
    while (k < TK_COUNT &&
           ((int64_t)strlen(target_keys[k].name) != len || memcmp(target_keys[k].name, name, (size_t)len) != 0))
        k++;
    return k;
}

enum npuc_status target_check(const struct target *t, const char *file, struct diag *d)
{
    const struct diag_loc loc = {.file = file, .index = -1};
    enum npuc_status status = NPUC_OK;
    char text[TARGET_WHY_MAX];
    if (!t->name || !t->family)
        status = diag_error(d, &loc, D_TARGET_FILE, t->name ? "key 'family' is missing" : "key 'name' is missing");
    for (int k = 0; k < TK_COUNT; k++) {
        if (t->value[k].set || target_keys[k].need == 0 || target_keys[k].need == 3)
            continue;
        snprintf(text, sizeof text, "key '%s' is missing (%s)", target_keys[k].name, target_keys[k].help);
        status = diag_error(d, &loc, D_TARGET_FILE, text);
    }
    return status;
}

static void target_init(struct target *t, const char *id)
{
    *t = (struct target){0};
    arena_init(&t->arena, NULL);
    t->id = arena_strndup(&t->arena, id, (int64_t)strlen(id));
}

/* The status of making *t, of which nothing stays when it failed. */
static enum npuc_status made(struct target *t, enum npuc_status status)
{
    if (status != NPUC_OK)
        target_free(t);
    return status;
}

enum npuc_status target_read(struct target *t, const char *id, const char *text, struct diag *d)
{
    target_init(t, id);
    const char *file = arena_printf(&t->arena, "%s.target", id);
    if (!file || !t->id)
        return made(t, diag_error(d, NULL, D_HOST_MEMORY));
    enum npuc_status status = target_read_text(t, file, text, d);
    if (!status)
        status = target_check(t, file, d);
    return made(t, status);
}

static enum npuc_status unknown_target(const char *id, struct diag *d)
{
    char text[1000];
    int n = snprintf(text, sizeof text, "there is no target '%.60s'; known:", id);
    for (int i = 0; i < target_n_ids && n < (int)sizeof text - 80; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s %.60s", i ? "," : "", target_ids[i]);
    return diag_error(d, NULL, D_UNKNOWN_TARGET, text);
}

/* "machine" of "folder/machine.target"; false when `path` is no name of a target file. */
static bool id_of_path(const char *path, char id[TARGET_ID_MAX])
{
    static const char ext[] = ".target";
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    const size_t len = strlen(base), tail = sizeof ext - 1;
    if (len <= tail || strcmp(base + len - tail, ext) != 0 || len - tail >= TARGET_ID_MAX)
        return false;
    memcpy(id, base, len - tail);
    id[len - tail] = 0;
    return true;
}

static enum npuc_status load_file(struct target *t, const char *id, const char *path, struct diag *d)
{
    struct file_map m;
    enum npuc_status status = file_map_open(&m, path, d);
    if (status != NPUC_OK)
        return status;
    target_init(t, id);
    const char *text = m.size <= TARGET_FILE_MAX ? arena_strndup(&t->arena, (const char *)m.data, m.size) : "";
    if (m.size > TARGET_FILE_MAX || !text || !t->id)
        status = diag_error(d, &(struct diag_loc){.file = path, .index = -1}, text ? D_TARGET_FILE : D_HOST_MEMORY,
                            "a target file has at most 1 MiB of text");
    file_map_close(&m);
    if (status == NPUC_OK)
        status = target_read_text(t, path, text, d);
    if (status == NPUC_OK)
        status = target_check(t, path, d);
    return made(t, status);
}

enum npuc_status target_load(struct target *t, const char *id, struct diag *d)
{
    char name[TARGET_ID_MAX];
    *t = (struct target){0};
    if (id_of_path(id, name))
        return load_file(t, name, id, d);
    bool known = false;
    for (int i = 0; i < target_n_ids; i++)
        known |= strcmp(target_ids[i], id) == 0;
    if (!known)
        return unknown_target(id, d);
    int f = 0;
    while (strncmp(target_files[f].name, id, strlen(id)) != 0 ||
           strcmp(target_files[f].name + strlen(id), ".target") != 0)
        f++;
    return target_read(t, id, target_files[f].text, d);
}

void target_free(struct target *t)
{
    arena_free(&t->arena);
    *t = (struct target){0};
}

int target_list(const char *const **ids)
{
    *ids = target_ids;
    return target_n_ids;
}

enum npuc_status target_set(struct target *t, const char *assignment, struct diag *d)
{
    char text[TARGET_WHY_MAX + 100], why[TARGET_WHY_MAX];
    const char *eq = strchr(assignment, '=');
    const int key = eq ? target_key_find(assignment, eq - assignment) : TK_COUNT;
    if (key == TK_COUNT) {
        snprintf(text, sizeof text,
                 eq ? "--set %.80s: no such key; `npuc targets` lists them" : "--set %.80s: expected KEY=VALUE",
                 assignment);
        return diag_error(d, NULL, D_USAGE, text);
    }
    const int64_t len = (int64_t)strlen(eq + 1);
    if (!target_assign(t, key, eq + 1, len, why)) {
        snprintf(text, sizeof text, "--set %s: %s", target_keys[key].name, why);
        return diag_error(d, NULL, D_USAGE, text);
    }
    t->value[key].source = "command line";
    t->value[key].file = "--set";
    t->value[key].confidence = TGT_GUESS;
    return NPUC_OK;
}

double target_num(const struct target *t, enum target_key k)
{
    return t->value[k].set ? t->value[k].number : (double)NAN;
}

double target_launch(const struct target *t, int64_t cores)
{
    const double each = target_num(t, TK_LAUNCH_CORE);
    return target_num(t, TK_LAUNCH) + (isnan(each) ? 0 : each * (double)cores);
}

/* The shortest of the usual forms that reads back to the same number. */
const char *target_value_text(const struct target *t, enum target_key k, struct arena *a)
{
    static const int digits[] = {6, 9, 12, 15, 17};
    char number[40] = "";
    if (!t->value[k].set)
        return NULL;
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(digits); i++) {
        char why[TARGET_WHY_MAX];
        double back;
        snprintf(number, sizeof number, "%.*g", digits[i], t->value[k].number);
        if (target_parse_number(number, (int64_t)strlen(number), "ratio", &back, why) && back == t->value[k].number)
            break;
    }
    const char *unit = target_keys[k].unit;
    const bool bare = !unit[0] || strcmp(unit, "ratio") == 0;
    return arena_printf(a, bare ? "%s" : "%s %s", number, unit);
}

int64_t target_to_pairs(const struct target *t, struct arena *a, const char *const **keys, const char *const **values)
{
    const char **k = ARENA_ARRAY(a, const char *, TK_COUNT + 2), **v = ARENA_ARRAY(a, const char *, TK_COUNT + 2);
    if (!k || !v)
        return 0;
    int64_t n = 0;
    k[n] = "name";
    v[n++] = t->name;
    k[n] = "family";
    v[n++] = t->family;
    for (int i = 0; i < TK_COUNT; i++)
        if (t->value[i].set) {
            k[n] = target_keys[i].name;
            v[n++] = target_value_text(t, (enum target_key)i, a);
        }
    *keys = k;
    *values = v;
    return n;
}

static enum npuc_status bad_pair(struct target *t, const char *key, const char *why, struct diag *d)
{
    char text[TARGET_WHY_MAX + 100];
    const int len = snprintf(text, sizeof text, "target snapshot: key '%.60s': %s", key, why);
    const char *clean = str_escape(&t->arena, text, len < (int)sizeof text ? len : (int)sizeof text - 1, sizeof text);
    return diag_error(d, &(struct diag_loc){.node = t->id, .index = -1}, D_TARGET_FILE, clean);
}

static enum npuc_status read_pairs(struct target *t, int64_t n, const char *const *keys, const char *const *values,
                                   struct diag *d)
{
    for (int64_t i = 0; i < n; i++) {
        char why[TARGET_WHY_MAX];
        const char **name = strcmp(keys[i], "name") == 0     ? &t->name
                            : strcmp(keys[i], "family") == 0 ? &t->family
                                                             : NULL;
        if (name) {
            *name = arena_strndup(&t->arena, values[i], (int64_t)strlen(values[i]));
            continue;
        }
        const int k = target_key_find(keys[i], (int64_t)strlen(keys[i]));
        if (k == TK_COUNT || t->value[k].set)
            return bad_pair(t, keys[i], k == TK_COUNT ? "no such key" : "given twice", d);
        if (!target_assign(t, k, values[i], (int64_t)strlen(values[i]), why))
            return bad_pair(t, keys[i], why, d);
        t->value[k].source = t->value[k].file = "plan";
        t->value[k].confidence = TGT_DERIVED;
    }
    if (!t->name)
        t->name = t->id;
    if (!t->family)
        t->family = arena_strndup(&t->arena, t->id, (int64_t)strcspn(t->id, "-"));
    return target_check(t, t->id, d);
}

enum npuc_status target_from_pairs(struct target *t, const char *id, int64_t n, const char *const *keys,
                                   const char *const *values, struct diag *d)
{
    target_init(t, id);
    return made(t, t->id ? read_pairs(t, n, keys, values, d) : diag_error(d, NULL, D_HOST_MEMORY));
}
