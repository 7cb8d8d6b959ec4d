#include "tools/calib.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/size.h"
#include "tools/npy.h"
#include "tools/npz.h"
#include "runtime/roles.h"

static enum npuc_status fail(const struct calib *c, const char *what)
{
    return diag_error_text(c->d, &(struct diag_loc){.file = c->path, .index = -1}, D_INPUT_FILE, what);
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

/* ---- opening */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char *name_of(const struct calib *c, const struct value *v)
{
    return str_text(&c->g->module->cx->strings, v->name);
}

/* A folder without .npz files has a NAME.npy per input. */
static enum npuc_status look_for_arrays(const struct calib *c)
{
    struct stat st;
    const char *name = name_of(c, c->g->inputs[0]);
    if (stat(arena_printf(c->arena, "%s/%s.npy", c->path, name), &st) == 0)
        return NPUC_OK;
    return fail(c, arena_printf(c->arena,
                                "expected an .npz file per run, or a .npy file per input; found neither an .npz file "
                                "nor '%s.npy'",
                                name));
}

static enum npuc_status open_folder(struct calib *c)
{
    DIR *dir = opendir(c->path);
    if (!dir)
        return fail(c, "expected calibration data: TOKENS.npy, INPUTS.npz or a folder; it cannot be opened");
    for (const struct dirent *e; (e = readdir(dir)) != NULL;)
        if (ends_with(e->d_name, ".npz"))
            vec_push(c->arena, &c->files, arena_printf(c->arena, "%s/%s", c->path, e->d_name));
    closedir(dir);
    if (c->files.len > 0)
        qsort(c->files.data, (size_t)c->files.len, sizeof *c->files.data, by_name);
    c->by_file = c->files.len > 0;
    c->n_runs = c->by_file ? c->files.len : 1;
    return c->by_file || c->g->n_inputs == 0 ? NPUC_OK : look_for_arrays(c);
}

static enum npuc_status open_tokens(struct calib *c)
{
    const enum npuc_status s = npy_read(c->path, c->arena, c->d, &c->tokens);
    if (s != NPUC_OK)
        return s;
    if (!dtype_is_integer(c->tokens.dtype) || c->tokens.rank < 1 || c->tokens.rank > 2)
        return fail(c,
                    arena_printf(c->arena,
                                 "expected token ids, integers [windows][tokens]; found %s of rank %d (inputs of other "
                                 "models go into an .npz file)",
                                 dtype_table[c->tokens.dtype].name, c->tokens.rank));
    if (k_count(&c->tokens) == 0)
        return fail(c, "holds no token: there is nothing to calibrate with");
    c->by_tokens = true;
    c->n_runs = c->tokens.rank == 2 ? c->tokens.dims[0] : 1;
    return NPUC_OK;
}

enum npuc_status calib_open(struct calib *c, const char *path, const struct graph *g, struct arena *a, struct diag *d)
{
    struct stat st;
    *c = (struct calib){.path = path, .g = g, .d = d, .arena = a};
    if (ends_with(path, ".npy"))
        return open_tokens(c);
    if (ends_with(path, ".npz")) {
        vec_push(a, &c->files, path);
        c->by_file = true;
        c->n_runs = 1;
        return NPUC_OK;
    }
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return fail(c, "expected calibration data: TOKENS.npy, INPUTS.npz or a folder of them");
    return open_folder(c);
}

/* ---- a run */

/* Whole numbers first, first + step ..; from[i] where given. */
static void fill(const struct k_tensor *t, const struct k_tensor *from, int64_t at, int64_t first, int64_t step)
{
    for (int64_t i = 0; i < k_count(t); i++) {
        const int64_t v = from ? k_get_i64(from, at + i) : first + i * step;
        if (dtype_is_float(t->dtype))
            k_set_f64(t, i, (double)v);
        else
            k_set_i64(t, i, v);
    }
}

/* A cache of fixed size, which new rows are written into. */
static bool is_written_into(const struct value *v)
{
    for_each_use (u, v)
        if (u->user->op == OP_TensorScatter && u == &u->user->in[0])
            return true;
    return false;
}

/* Size i of a cache that the model leaves open but for rows that are joined to it along another axis; else 0. */
static int64_t size_of_rows(const struct calib *c, const struct value *v, int i)
{
    for_each_use (u, v) {
        const struct type *t = u->user->out[0].type;
        int64_t size;
        if (u->user->op == OP_Concat && t->rank == v->type->rank &&
            (node_attr_int(u->user, "axis", 0) + t->rank) % t->rank != i &&
            expr_is_const(&c->g->module->cx->exprs, t->dims[i], &size))
            return size;
    }
    return 0;
}

/* A cache without rows, or one of fixed size with zeros, which no token reads: 1 where the first size is open, 0 where
 * another is that nothing tells. */
static enum npuc_status empty_cache(const struct calib *c, const struct value *v, struct k_tensor *t, struct arena *a)
{
    const struct expr_pool *p = &c->g->module->cx->exprs;
    bool empty = is_written_into(v);
    int64_t count = 1;
    *t = (struct k_tensor){.dtype = v->type->dtype, .rank = v->type->rank};
    for (int i = 0; i < t->rank; i++) {
        if (!expr_is_const(p, v->type->dims[i], &t->dims[i])) {
            t->dims[i] = i == 0 ? 1 : size_of_rows(c, v, i);
            empty = empty || i > 0;
        }
        if (!size_mul(count, t->dims[i], &count))
            return fail(c, "the cache is too large");
    }
    if (!dtype_bytes(t->dtype, count, &t->size))
        return fail(c, "the cache is too large");
    t->data = empty ? arena_zalloc(a, t->size + 8) : NULL;
    return empty ? NPUC_OK
                 : fail(c, arena_printf(c->arena,
                                        "token ids do not tell what input '%s' is for; give all inputs in an .npz file",
                                        name_of(c, v)));
}

/* Whole numbers that go with the tokens, a number each (types of tokens): zeros. */
static bool is_beside_tokens(const struct calib *c, const struct value *v)
{
    for (int i = 0; i < c->g->n_inputs; i++) {
        const struct type *t = c->g->inputs[i]->type;
        if (rt_role_of_name(name_of(c, c->g->inputs[i])) == NPURT_ROLE_TOKENS)
            return dtype_is_integer(v->type->dtype) && t->rank > 0 && v->type->rank == t->rank &&
                   memcmp(v->type->dims, t->dims, (size_t)t->rank * sizeof *t->dims) == 0;
    }
    return false;
}

static enum npuc_status token_input(const struct calib *c, int64_t run, const struct value *v, struct k_tensor *t,
                                    struct arena *a)
{
    const int64_t n = c->tokens.dims[c->tokens.rank - 1];
    const enum npurt_role role = rt_role_of_name(name_of(c, v));
    const bool beside = role == NPURT_ROLE_UNKNOWN && is_beside_tokens(c, v);
    if ((role == NPURT_ROLE_UNKNOWN && !beside) || v->type->rank > 2)
        return empty_cache(c, v, t, a);
    const bool one = !beside && role != NPURT_ROLE_TOKENS && role != NPURT_ROLE_MASK && role != NPURT_ROLE_POSITIONS;
    const int64_t count = one ? 1 : n;
    *t = (struct k_tensor){.dtype = v->type->dtype, .rank = v->type->rank};
    for (int i = 0; i < t->rank; i++)
        t->dims[i] = i == t->rank - 1 ? count : 1;
    if (!dtype_bytes(t->dtype, count, &t->size))
        return fail(c, "too many tokens");
    t->data = arena_zalloc(a, t->size + 8);
    switch (role) {
    case NPURT_ROLE_TOKENS: fill(t, &c->tokens, run * n, 0, 0); break;
    case NPURT_ROLE_MASK: fill(t, NULL, 0, 1, 0); break;
    case NPURT_ROLE_POSITIONS: fill(t, NULL, 0, 0, 1); break;
    case NPURT_ROLE_VALID_ROWS:
    case NPURT_ROLE_TOTAL_ROWS: fill(t, NULL, 0, n, 0); break;
    case NPURT_ROLE_LAST_ROW: fill(t, NULL, 0, n - 1, 0); break;
    case NPURT_ROLE_FIRST_ROW:
    case NPURT_ROLE_CACHE:
    case NPURT_ROLE_UNKNOWN: fill(t, NULL, 0, 0, 0); break;
    }
    return NPUC_OK;
}

/* The file that input v of run i comes from, in `a`. */
static const char *file_of(const struct calib *c, int64_t i, const struct value *v, struct arena *a)
{
    if (c->by_tokens)
        return c->path;
    return c->by_file ? c->files.data[i] : arena_printf(a, "%s/%s.npy", c->path, name_of(c, v));
}

/* Does the tensor have the rank and the sizes that the model fixes? */
static bool has_shape(const struct calib *c, const struct value *v, const struct k_tensor *t)
{
    if (v->type->rank < 0)
        return true;
    bool same = t->rank == v->type->rank;
    for (int i = 0; same && i < t->rank; i++) {
        int64_t size;
        same = !expr_is_const(&c->g->module->cx->exprs, v->type->dims[i], &size) || size == t->dims[i];
    }
    return same;
}

static const char *shape_text(const struct k_tensor *t, struct arena *a)
{
    const char *text = "";
    for (int i = 0; i < t->rank; i++)
        text = arena_printf(a, "%s%s%" PRId64, text, i ? "," : "", t->dims[i]);
    return arena_printf(a, "%s[%s]", dtype_table[t->dtype].name, text);
}

static enum npuc_status check_input(const struct calib *c, const char *file, const struct value *v,
                                    const struct k_tensor *t)
{
    const char *name = name_of(c, v), *why = NULL;
    if (t->dtype != v->type->dtype || !has_shape(c, v, t))
        why = arena_printf(c->arena, "expected %s, found %s", type_text(c->g->module->cx, v->type),
                           shape_text(t, c->arena));
    for (int64_t i = 0; !why && dtype_is_float(t->dtype) && i < k_count(t); i++)
        if (!isfinite(k_get_f64(t, i)))
            why = arena_printf(c->arena, "element %" PRId64 " is no finite number", i);
    return why ? diag_error_text(c->d, &(struct diag_loc){.file = file, .index = -1}, D_INPUT_FILE,
                                 arena_printf(c->arena, "input '%s': %s", name, why))
               : NPUC_OK;
}

enum npuc_status calib_inputs(const struct calib *c, int64_t i, struct k_tensor *inputs, struct arena *a)
{
    enum npuc_status s = NPUC_OK;
    const char *file = c->path;
    bool empty = c->g->n_inputs > 0;
    for (int k = 0; s == NPUC_OK && k < c->g->n_inputs; k++) {
        const struct value *v = c->g->inputs[k];
        file = file_of(c, i, v, a);
        if (c->by_tokens)
            s = token_input(c, i, v, &inputs[k], a);
        else if (c->by_file)
            s = npz_read(file, name_of(c, v), a, c->d, &inputs[k]);
        else
            s = npy_read(file, a, c->d, &inputs[k]);
        if (s == NPUC_OK)
            s = check_input(c, file, v, &inputs[k]);
        empty = empty && s == NPUC_OK && k_count(&inputs[k]) == 0;
    }
    if (s == NPUC_OK && empty)
        return diag_error_text(c->d, &(struct diag_loc){.file = file, .index = -1}, D_INPUT_FILE,
                               "all inputs are empty: there is nothing to calibrate with");
    return s;
}

enum npuc_status calib_run(const struct calib *c, int64_t i, struct ir_ctx *cx, const struct graph *g,
                           const struct ir_watch *watch)
{
    struct arena a;
    arena_init(&a, NULL);
    struct k_tensor *inputs = ARENA_ARRAY(&a, struct k_tensor, g->n_inputs + 1);
    struct k_tensor *outputs = ARENA_ARRAY(&a, struct k_tensor, graph_yield(g)->n_in + 1);
    enum npuc_status s = inputs && outputs ? calib_inputs(c, i, inputs, &a) : NPUC_E_NOMEM;
    if (s == NPUC_OK)
        s = ir_eval_watched(cx, g, inputs, outputs, &a, watch);
    arena_free(&a);
    return s;
}
