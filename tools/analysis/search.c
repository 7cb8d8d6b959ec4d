#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quant/scheme.h"
#include "tools/analysis/search_priv.h"
#include "tools/term.h"

static int usage(const char *what, const char *which)
{
    term_error("npuc quantize: %s%s (npuc quantize --help)", what, which);
    return diag_exit_code(NPUC_E_USAGE);
}

/* ---- arguments */

static bool read_amount(const char *text, double *out)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1},     {"%", 0.01}, {"us", 1},     {"ms", 1e3},      {"kB", 1e3},
                 {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
    char *end;
    *out = strtod(text, &end);
    for (int i = 0; end != text && i < (int)NPUC_ARRAY_LEN(units); i++)
        if (strcmp(end, units[i].unit) == 0) {
            *out *= units[i].factor;
            return isfinite(*out) && *out >= 0;
        }
    return false;
}

static int read_limit(struct search *s, const char *text)
{
    static const char *const names[] = {"max-drop=", "max-bytes=", "max-us="}; /* enum search_limit */
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(names); i++) {
        const size_t n = strlen(names[i]);
        if (strncmp(text, names[i], n) != 0)
            continue;
        s->limit = (enum search_limit)i;
        if (read_amount(text + n, &s->most))
            return 0;
    }
    return usage("--search takes max-drop=X, max-bytes=Y or max-us=Z (0.5%, 40MiB, 900), not ", text);
}

static int read_cost(struct search *s)
{
    const char *cost = args_value(s->ask->args, "cost");
    if (cost && strcmp(cost, "bytes") != 0 && strcmp(cost, "us") != 0)
        return usage("--cost takes bytes or us, not ", cost);
    s->by_time = s->limit == LIMIT_US || (s->limit == LIMIT_DROP && cost && strcmp(cost, "us") == 0);
    return 0;
}

static int read_list(struct search *s, const char *text)
{
    s->schemes[0] = "keep";
    while (text && *text) {
        const char *comma = strchr(text, ',');
        const int64_t n = comma ? comma - text : (int64_t)strlen(text);
        if (s->n_schemes == SEARCH_SCHEMES)
            return usage("--schemes takes at most 16 schemes, not ", args_value(s->ask->args, "schemes"));
        const char *name = s->schemes[++s->n_schemes] = arena_strndup(s->arena, text, n);
        if (strchr(name, '+'))
            return usage("--schemes takes those of products and of caches apart (w8a16,kv8), not ", name);
        s->for_caches[s->n_schemes] = quant_cache_scheme_find(name) != NULL;
        text = comma ? comma + 1 : NULL;
    }
    return s->n_schemes > 0 ? 0 : usage("--schemes S1,S2,.. is missing: what the search chooses from", "");
}

/* ---- recipes of single schemes, in a folder that goes away */

static const struct quant_product *mixed_product(void *user, const struct node *n, const char *name)
{
    struct search *s = user;
    const int64_t at = product_place(&s->an.list, name);
    const int choice = at >= 0 ? s->units.data[s->unit_of[at]].choice : 0;
    const struct quantiser *base = &s->bases[choice];
    return choice > 0 ? base->product(base->user, n, name) : NULL;
}

static const char *mixed_encode(void *user, const char *name, const struct quant_operand *o,
                                const struct quant_matrix *w, struct quant_codes *out, struct arena *a)
{
    struct search *s = user;
    const struct quantiser *base = &s->bases[s->units.data[s->unit_of[product_place(&s->an.list, name)]].choice];
    return base->encode(base->user, name, o, w, out, a);
}

/* The recipe whose caches the point at hand has; NULL: they stay as they are. */
static const struct quantiser *base_of_caches(struct search *s)
{
    const struct search_unit *u = search_caches(s);
    return u && u->choice > 0 ? &s->bases[u->choice] : NULL;
}

static const struct quant_operand *mixed_cache(void *user, const char *input, bool keys)
{
    const struct quantiser *base = base_of_caches(user);
    return base ? base->cache(base->user, input, keys) : NULL;
}

static const struct quant_turn *mixed_turn(void *user, const char *input)
{
    const struct quantiser *base = base_of_caches(user);
    return base ? base->turn(base->user, input) : NULL;
}

/* What may be written there, and the folder behind it. */
static bool list_files(struct search *s)
{
    s->files = ARENA_ARRAY(s->arena, const char *, 2 * s->n_schemes + 1);
    for (int k = 1; s->files && k <= s->n_schemes; k++) {
        s->files[s->n_files++] = arena_printf(s->arena, "%s/%d.recipe", s->folder, k);
        s->files[s->n_files++] = arena_printf(s->arena, "%s/%d.recipe.safetensors", s->folder, k);
    }
    if (s->files)
        s->files[s->n_files++] = s->folder;
    return s->files != NULL;
}

static bool make_folder(struct search *s, int *exit_code)
{
    const char *dir = getenv("TMPDIR");
    char *path = arena_printf(s->arena, "%s/npuc-search-XXXXXX", dir && *dir ? dir : "/tmp");
    s->folder = path;
    const bool made = mkdtemp(path) != NULL;
    if (made && list_files(s)) {
        term_hold(s->files, s->n_files);
        return true;
    }
    if (made)
        (void)rmdir(path);
    term_error("npuc: cannot make a temporary folder %s", path);
    *exit_code = diag_exit_code(NPUC_E_IO);
    return false;
}

static void remove_folder(const struct search *s)
{
    for (int k = 0; k + 1 < s->n_files; k++)
        (void)unlink(s->files[k]);
    (void)rmdir(s->folder);
    term_release();
}

/* ---- the search */

static bool search(struct search *s, int *exit_code)
{
    if (!analysis_open(&s->an, s->ask->args, s->ask->model, s->ask->calib, exit_code) ||
        !search_make_units(s, exit_code))
        return false;
    search_make_way(s);
    return search_choose(s, exit_code) && search_write(s, exit_code);
}

int search_run(const struct search_request *q, struct arena *a, json_t **report)
{
    struct search *s = ARENA_NEW(a, struct search);
    *s = (struct search){.ask = q, .arena = a};
    s->mix = (struct quantiser){
        .user = s, .product = mixed_product, .encode = mixed_encode, .cache = mixed_cache, .turn = mixed_turn};
    s->an = (struct analysis){.arena = a, .runs = q->runs, .shows = q->shows, .totals_alone = true};
    int code = read_limit(s, args_value(q->args, "search"));
    if (code == 0)
        code = read_cost(s);
    if (code == 0)
        code = read_list(s, args_value(q->args, "schemes"));
    if (code != 0 || !make_folder(s, &code))
        return code;
    if (search(s, &code) && report)
        *report = search_json(s);
    else if (code == 0)
        search_print(s);
    analysis_close(&s->an);
    remove_folder(s);
    return code;
}
