/* Reading a plan, second stage: meaning. Structure is known to be sound; here every index, kind, type, range and
 * relation between records is checked, so that the runtime may follow them without looking. */
#include "kernels/cache_code.h"
#include "plan/verify_priv.h"

#include "base/size.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct verifier {
    const struct plan *p;
    const char *file;
    struct diag *d;
    char where[160];
};

enum npuc_status plan_refuse(const char *file, struct diag *d, const char *where, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    const int n = snprintf(text, sizeof text, "%s: ", where);
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < sizeof text)
        vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    return diag_error(d, &(struct diag_loc){.file = file, .index = -1}, D_PLAN_MEANING, text);
}

bool plan_target_number(const struct plan *p, const char *key, double *out)
{
    for (int64_t i = 0; i < p->target.len; i++) {
        if (strcmp(str_text(&p->strings, p->target.data[i].key), key) != 0)
            continue;
        *out = strtod(str_text(&p->strings, p->target.data[i].value), NULL);
        return isfinite(*out) && *out >= 0;
    }
    return false;
}

static const char *at(struct verifier *v, const char *what, int64_t i)
{
    snprintf(v->where, sizeof v->where, "%s %lld", what, (long long)i);
    return v->where;
}

#define REFUSE(v, what, i, ...) plan_refuse((v)->file, (v)->d, at((v), (what), (i)), __VA_ARGS__)

static bool is_tensor(const struct verifier *v, int32_t t)
{
    return t >= 0 && t < v->p->tensors.len;
}

static bool is_object(const struct verifier *v, int32_t t)
{
    return v->p->tensors.data[t].kind == PT_OBJECT;
}

/* The tensor whose bytes t uses. */
static const struct plan_tensor *root_of(const struct verifier *v, int32_t t)
{
    const struct plan_tensor *x = &v->p->tensors.data[t];
    return x->kind == PT_ALIAS ? &v->p->tensors.data[x->base] : x;
}

/* ---- tensors ---------------------------------------------------------------------------------------------- */

static enum npuc_status check_weight(struct verifier *v, int64_t i, const struct plan_tensor *t)
{
    int64_t size;
    if (t->data_size < 0)
        return t->data_size == -1 ? NPUC_OK : REFUSE(v, "tensor", i, "its data size is negative");
    if (t->data_offset % PLAN_TENSOR_ALIGN || !size_in(t->data_offset, t->data_size, v->p->weights_size))
        return REFUSE(v, "tensor", i, "%lld bytes at %lld do not lie within %lld bytes of weights",
                      (long long)t->data_size, (long long)t->data_offset, (long long)v->p->weights_size);
    if (!expr_is_const(&v->p->exprs, t->size, &size) || size != t->data_size)
        return REFUSE(v, "tensor", i, "a weight's size is not that of its data");
    return NPUC_OK;
}

static enum npuc_status check_storage(struct verifier *v, int64_t i, const struct plan_tensor *t)
{
    const bool cache = t->layout == PL_CACHE, alias = t->kind == PT_ALIAS;
    if (cache ? t->axis < 0 || t->axis >= t->rank || !t->capacity : t->capacity != EXPR_INVALID)
        return REFUSE(v, "tensor", i, "capacity and axis do not fit its layout");
    if (t->c0 < 0 || t->c0 > 4096 || (t->layout != PL_ND && t->layout != PL_NHWC && !cache && t->c0 == 0))
        return REFUSE(v, "tensor", i, "its fractal width is %d", t->c0);
    if (alias ? !is_tensor(v, t->base) || !t->base_offset : t->base != -1)
        return REFUSE(v, "tensor", i, "base %d does not fit its kind", t->base);
    if (t->kind == PT_TEMP && (t->first < 0 || t->first > t->last || t->last >= v->p->steps.len))
        return REFUSE(v, "tensor", i, "it lives from step %d to %d of %lld", t->first, t->last,
                      (long long)v->p->steps.len);
    if (t->parts < 0 || t->parts > PLAN_MAX_COPIES)
        return REFUSE(v, "tensor", i, "it lies in %d parts", t->parts);
    return t->kind == PT_WEIGHT ? check_weight(v, i, t) : NPUC_OK;
}

static enum npuc_status check_object(struct verifier *v, int64_t i, const struct plan_tensor *t)
{
    int64_t size;
    const bool plain = t->layout == PL_ND && t->c0 == 0 && t->capacity == EXPR_INVALID && t->base == -1 &&
                       expr_is_const(&v->p->exprs, t->size, &size) && size == 0 && t->data_size <= 0;
    if (!plain || t->axis < PO_TENSOR || t->axis > PO_OPTIONAL || (t->axis == PO_TENSOR && t->dtype != DT_STRING) ||
        (t->axis != PO_TENSOR && t->rank != 0))
        return REFUSE(v, "tensor", i, "it is no object of a known kind");
    return NPUC_OK;
}

static enum npuc_status check_tensor(struct verifier *v, int64_t i)
{
    const struct plan_tensor *t = &v->p->tensors.data[i];
    if (t->kind >= PLAN_TENSOR_KINDS || t->layout > PL_CACHE || t->dtype <= DT_NONE || t->dtype >= DT_COUNT ||
        (t->dtype == DT_STRING && t->kind != PT_OBJECT))
        return REFUSE(v, "tensor", i, "its kind, layout or element type is unknown");
    if (t->rank > PLAN_MAX_RANK)
        return REFUSE(v, "tensor", i, "rank %d exceeds %d", t->rank, PLAN_MAX_RANK);
    for (int32_t k = 0; k < t->rank; k++)
        if (!t->dims[k])
            return REFUSE(v, "tensor", i, "dimension %d is missing", k);
    if (!t->size)
        return REFUSE(v, "tensor", i, "its size is missing");
    return t->kind == PT_OBJECT ? check_object(v, i, t) : check_storage(v, i, t);
}

/* A view is of a tensor with bytes of its own, so following `base` once always ends. */
static enum npuc_status check_aliases(struct verifier *v)
{
    for (int64_t i = 0; i < v->p->tensors.len; i++) {
        const struct plan_tensor *t = &v->p->tensors.data[i];
        if (t->kind == PT_ALIAS &&
            (v->p->tensors.data[t->base].kind == PT_ALIAS || v->p->tensors.data[t->base].kind == PT_OBJECT))
            return REFUSE(v, "tensor", i, "it is a view of a view or of an object");
    }
    return NPUC_OK;
}

static enum npuc_status check_tensors(struct verifier *v)
{
    int64_t n_temps = 0;
    for (int64_t i = 0; i < v->p->tensors.len; i++) {
        TRY(check_tensor(v, i));
        n_temps += v->p->tensors.data[i].kind == PT_TEMP;
    }
    if (n_temps > PLAN_MAX_TEMPS)
        return REFUSE(v, "tensors", n_temps, "more temporary tensors than %d", PLAN_MAX_TEMPS);
    return check_aliases(v);
}

/* ---- steps ------------------------------------------------------------------------------------------------ */

/* A tensor used by step i. */
static enum npuc_status check_use(struct verifier *v, int64_t i, int32_t t, bool written)
{
    if (!is_tensor(v, t))
        return REFUSE(v, "step", i, "tensor %d does not exist", t);
    const struct plan_tensor *root = root_of(v, t);
    if (written && (root->kind == PT_WEIGHT || root->kind == PT_INPUT))
        return REFUSE(v, "step", i, "it writes tensor %d, which is a weight or an input", t);
    if (root->kind == PT_TEMP && (i < root->first || i > root->last))
        return REFUSE(v, "step", i, "tensor %d is not alive", t);
    return NPUC_OK;
}

/* Copies and what they divide; a tensor in shared memory is one that this many copies divide. */
static enum npuc_status check_copies(struct verifier *v, int64_t i, const struct plan_step *s)
{
    if (s->copies < PLAN_APART || s->copies > PLAN_MAX_COPIES)
        return REFUSE(v, "step", i, "%d copies", s->copies);
    if (s->copies == PLAN_APART && tile_shares_loads(v->p->kernels.data[s->kernel]))
        return REFUSE(v, "step", i, "blocks on different clusters share loads");
    for (int32_t t = 0; t < s->n_in; t++) {
        const bool divided = s->copies > 0 && s->divided[t];
        const struct plan_tensor *root = root_of(v, s->tensors[t]);
        if (s->copies > 0 && s->divided[t] > 1)
            return REFUSE(v, "step", i, "it is not known how tensor %d is divided", s->tensors[t]);
        if (root->kind == PT_TEMP && root->parts > 0 && (root->parts != s->copies || !divided))
            return REFUSE(v, "step", i, "tensor %d lies in the memories of %d clusters", s->tensors[t], root->parts);
    }
    return NPUC_OK;
}

static enum npuc_status check_launch(struct verifier *v, int64_t i, const struct plan_step *s)
{
    if (s->kernel < 0 || s->kernel >= v->p->kernels.len)
        return REFUSE(v, "step", i, "kernel %d does not exist", s->kernel);
    const struct tile_kernel *k = v->p->kernels.data[s->kernel];
    if (s->n_in != k->tensors.len || s->n_out != 0 || s->n_params != k->n_params || s->n_attrs || s->n_binds)
        return REFUSE(v, "step", i, "%d tensors and %d parameters do not fit its kernel", s->n_in, s->n_params);
    for (int32_t t = 0; t < s->n_in; t++) {
        TRY(check_use(v, i, s->tensors[t], k->tensors.data[t].is_output));
        if (v->p->tensors.data[s->tensors[t]].kind == PT_OBJECT)
            return REFUSE(v, "step", i, "tensor %d is an object, which no core can touch", s->tensors[t]);
        if (v->p->tensors.data[s->tensors[t]].dtype != k->tensors.data[t].dtype)
            return REFUSE(v, "step", i, "tensor %d has another element type than the kernel's", s->tensors[t]);
    }
    return check_copies(v, i, s);
}

static enum npuc_status check_attr(struct verifier *v, int64_t i, const struct plan_attr *a)
{
    enum { ATTR_TENSOR = 6 };
    if (a->kind == ATTR_TENSOR && (!is_tensor(v, a->v.tensor) || v->p->tensors.data[a->v.tensor].kind != PT_WEIGHT))
        return REFUSE(v, "step", i, "an attribute names tensor %d, which is no weight", a->v.tensor);
    return NPUC_OK;
}

static enum npuc_status check_binds(struct verifier *v, int64_t i, const struct plan_step *s)
{
    for (int32_t b = 0; b < s->n_binds; b++) {
        const int32_t out = s->binds[3 * b], axis = s->binds[3 * b + 1], symbol = s->binds[3 * b + 2];
        if (out < 0 || out >= s->n_out || !is_tensor(v, s->tensors[s->n_in + out]) || axis < 0 ||
            axis >= v->p->tensors.data[s->tensors[s->n_in + out]].rank || symbol < 0 ||
            symbol >= v->p->exprs.symbols.len)
            return REFUSE(v, "step", i, "it binds a dimension that does not exist");
    }
    return NPUC_OK;
}

static enum npuc_status check_host(struct verifier *v, int64_t i, const struct plan_step *s)
{
    if (s->op == 0)
        return REFUSE(v, "step", i, "a host step names no operator");
    for (int32_t t = 0; t < s->n_in + s->n_out; t++)
        if (s->tensors[t] != -1)
            TRY(check_use(v, i, s->tensors[t], t >= s->n_in));
    for (int32_t a = 0; a < s->n_attrs; a++)
        TRY(check_attr(v, i, &s->attrs[a]));
    return check_binds(v, i, s);
}

/* Elements of a tensor that become symbols: (0, element, symbol) each. */
static enum npuc_status check_contents(struct verifier *v, int64_t i, const struct plan_step *s)
{
    TRY(check_use(v, i, s->tensors[0], false));
    if (s->n_attrs || s->n_params || !dtype_is_integer((enum dtype)v->p->tensors.data[s->tensors[0]].dtype) ||
        is_object(v, s->tensors[0]))
        return REFUSE(v, "step", i, "contents are read from integers");
    for (int32_t b = 0; b < s->n_binds; b++)
        if (s->binds[3 * b] != 0 || s->binds[3 * b + 1] < 0 || s->binds[3 * b + 2] < 0 ||
            s->binds[3 * b + 2] >= v->p->exprs.symbols.len)
            return REFUSE(v, "step", i, "it binds an element that does not exist");
    return NPUC_OK;
}

static enum npuc_status check_sizes(struct verifier *v, int64_t i, const struct plan_step *s)
{
    if (s->n_in == 1 && s->n_out == 0)
        return check_contents(v, i, s);
    if (s->n_in != 0 || s->n_out != 1 || s->n_attrs || s->n_binds)
        return REFUSE(v, "step", i, "a step of sizes has one output and nothing else");
    TRY(check_use(v, i, s->tensors[0], true));
    if (!dtype_is_integer((enum dtype)v->p->tensors.data[s->tensors[0]].dtype) || is_object(v, s->tensors[0]))
        return REFUSE(v, "step", i, "sizes are integers");
    return NPUC_OK;
}

/* ---- control flow ----------------------------------------------------------------------------------------- */

/* Operand `t` of step i (-1: absent) is one number of an integer or truth type, stored densely. */
static enum npuc_status check_scalar(struct verifier *v, int64_t i, int32_t t, bool written, bool truth)
{
    if (t == -1)
        return NPUC_OK;
    TRY(check_use(v, i, t, written));
    const struct plan_tensor *x = &v->p->tensors.data[t];
    const bool fits = truth     ? x->dtype == DT_BOOL
                      : written ? x->dtype == DT_I64
                                : dtype_is_integer((enum dtype)x->dtype);
    if (!fits || x->rank > 1 || x->layout != PL_ND || x->kind == PT_OBJECT)
        return REFUSE(v, "step", i, "tensor %d is no %s", t, truth ? "condition" : "number of turns");
    return NPUC_OK;
}

static enum npuc_status check_if(struct verifier *v, int64_t i, const struct plan_step *s)
{
    if (s->n_in != 1 || s->n_out || s->n_params || s->n_attrs || s->n_binds || s->tensors[0] == -1)
        return REFUSE(v, "step", i, "a branch has one condition and nothing else");
    return check_scalar(v, i, s->tensors[0], false, true);
}

static enum npuc_status check_loop(struct verifier *v, int64_t i, const struct plan_step *s)
{
    if (s->n_in != 3 || s->n_out != 2 || s->n_params > 1 || s->n_attrs || s->n_binds < 1 || s->n_body[1])
        return REFUSE(v, "step", i, "it has not the operands of a loop");
    for (int32_t t = 0; t < 5; t++)
        TRY(check_scalar(v, i, s->tensors[t], t >= 3, t == 1 || t == 2 || t == 4));
    for (int32_t b = 0; b < s->n_binds; b++)
        if (s->binds[3 * b] != -1 || s->binds[3 * b + 1] != -1 || s->binds[3 * b + 2] < 0 ||
            s->binds[3 * b + 2] >= v->p->exprs.symbols.len)
            return REFUSE(v, "step", i, "it binds a symbol that does not exist");
    return NPUC_OK;
}

/* Copies and moves of whole tensors, rows appended to one. */
static enum npuc_status check_transfer(struct verifier *v, int64_t i, const struct plan_step *s)
{
    const bool append = s->kind == PS_APPEND;
    if (s->n_in != 1 || s->n_out != 1 || s->n_params != append || s->n_attrs)
        return REFUSE(v, "step", i, "it has not the operands of a copy");
    TRY(check_use(v, i, s->tensors[0], false));
    TRY(check_use(v, i, s->tensors[1], true));
    const struct plan_tensor *from = &v->p->tensors.data[s->tensors[0]], *to = &v->p->tensors.data[s->tensors[1]];
    const bool object = from->kind == PT_OBJECT || to->kind == PT_OBJECT;
    if (from->dtype != to->dtype || (!object && from->rank + append != to->rank) || from->layout != PL_ND ||
        to->layout != PL_ND)
        return REFUSE(v, "step", i, "tensors %d and %d have different types", s->tensors[0], s->tensors[1]);
    if (s->kind == PS_MOVE && root_of(v, s->tensors[0])->kind != PT_TEMP && from->kind != PT_OBJECT)
        return REFUSE(v, "step", i, "it takes tensor %d, which is no temporary", s->tensors[0]);
    return check_binds(v, i, s);
}

/* The steps of bodies lie within those of what is around them. */
static enum npuc_status check_nesting(struct verifier *v, int64_t first, int64_t n, int depth)
{
    if (depth > PLAN_MAX_BODIES)
        return REFUSE(v, "step", first, "bodies nest deeper than %d", PLAN_MAX_BODIES);
    for (int64_t i = first; i < first + n; i++) {
        const struct plan_step *s = &v->p->steps.data[i];
        const int64_t left = first + n - i - 1;
        if (!plan_step_nests(s->kind))
            continue;
        if (s->n_body[0] < 0 || s->n_body[1] < 0 || s->n_body[0] > left || s->n_body[1] > left - s->n_body[0])
            return REFUSE(v, "step", i, "its bodies of %d and %d steps exceed the %lld that follow", s->n_body[0],
                          s->n_body[1], (long long)left);
        TRY(check_nesting(v, i + 1, s->n_body[0], depth + 1));
        TRY(check_nesting(v, i + 1 + s->n_body[0], s->n_body[1], depth + 1));
        i += (int64_t)s->n_body[0] + s->n_body[1];
    }
    return NPUC_OK;
}

static enum npuc_status check_step(struct verifier *v, int64_t i)
{
    static enum npuc_status (*const check[])(struct verifier *, int64_t, const struct plan_step *) = {
        [PS_LAUNCH] = check_launch, [PS_HOST] = check_host,       [PS_SIZES] = check_sizes,
        [PS_IF] = check_if,         [PS_LOOP] = check_loop,       [PS_COPY] = check_transfer,
        [PS_MOVE] = check_transfer, [PS_APPEND] = check_transfer,
    };
    const struct plan_step *s = &v->p->steps.data[i];
    if (s->kind >= NPUC_ARRAY_LEN(check))
        return REFUSE(v, "step", i, "its kind is unknown");
    for (int32_t k = 0; k < s->n_params; k++)
        if (!s->params[k])
            return REFUSE(v, "step", i, "parameter %d is missing", k);
    if (s->source < -1 || s->source >= v->p->sources.len)
        return REFUSE(v, "step", i, "source %d does not exist", s->source);
    if (!isfinite(s->macs) || s->macs < 0)
        return REFUSE(v, "step", i, "its work is no number");
    return check[s->kind](v, i, s);
}

/* ---- entries ---------------------------------------------------------------------------------------------- */

/* A ring is whole pages that hold its window, and has no block table; other pages have one. */
static bool has_places(const struct verifier *v, const struct plan_cache *c)
{
    const struct plan_tensor *table = is_tensor(v, c->table) ? &v->p->tensors.data[c->table] : NULL;
    if (c->ring)
        return c->table == -1 && c->page > 0 && c->ring > 0 && c->ring < INT32_MAX && c->ring % c->page == 0 &&
               c->window > 0 && c->window <= c->ring && c->capacity > 0;
    return table && table->kind == PT_CACHE && table->dtype == DT_I32 && table->rank == 2 && table->layout == PL_ND;
}

/* A pool has the sizes of the interface but for pages in front and the rows of one. */
static enum npuc_status check_paged(struct verifier *v, int64_t i, const struct plan_cache *c)
{
    const struct plan_tensor *pool = &v->p->tensors.data[c->tensor], *past = &v->p->tensors.data[c->in_tensor],
                             *present = &v->p->tensors.data[c->out_tensor];
    int64_t rows;
    bool fits = has_places(v, c) && pool->layout == PL_ND && c->axis > 0 && c->axis < pool->rank && c->grows &&
                c->past && c->present && c->code == DT_NONE && c->input && past->rank == pool->rank &&
                present->rank == pool->rank && past->dtype == pool->dtype && present->dtype == pool->dtype &&
                dtype_size((enum dtype)pool->dtype) > 0;
    fits = fits && expr_is_const(&v->p->exprs, pool->dims[c->axis], &rows) && rows == c->page && c->page > 0;
    for (int k = 1; fits && k < pool->rank; k++)
        fits = k == c->axis || (past->dims[k] == pool->dims[k] && present->dims[k] == pool->dims[k]);
    return fits ? NPUC_OK : REFUSE(v, "entry", i, "a cache's pool, block table or rows of a page do not fit it");
}

static enum npuc_status check_cache(struct verifier *v, int64_t i, const struct plan_cache *c)
{
    if (!is_tensor(v, c->tensor) || v->p->tensors.data[c->tensor].kind != PT_CACHE || !is_tensor(v, c->in_tensor) ||
        !is_tensor(v, c->out_tensor))
        return REFUSE(v, "entry", i, "a cache names tensors that do not exist");
    const struct plan_tensor *t = &v->p->tensors.data[c->tensor];
    if (c->page || c->ring)
        return check_paged(v, i, c);
    if (root_of(v, c->in_tensor) != t || root_of(v, c->out_tensor) != t || c->axis < 0 || c->axis >= t->rank ||
        !c->past)
        return REFUSE(v, "entry", i, "a cache's views, axis or rows do not fit it");
    return NPUC_OK;
}

static bool last_size(const struct verifier *v, const struct plan_tensor *t, int64_t *out)
{
    return t->rank > 0 && expr_is_const(&v->p->exprs, t->dims[t->rank - 1], out);
}

/* Matrices that turn rows of `size` numbers, or none. */
static bool is_turn(const struct verifier *v, int32_t t, const struct plan_tensor *codes, int64_t size)
{
    if (t == -1)
        return true;
    if (!is_tensor(v, t) || codes->rank < 3)
        return false;
    const struct plan_tensor *m = &v->p->tensors.data[t];
    int64_t heads, rows, cols, bytes, own;
    return m->kind == PT_WEIGHT && m->dtype == DT_F32 && m->layout == PL_ND && m->rank == 3 &&
           m->dims[0] == codes->dims[codes->rank - 3] && expr_is_const(&v->p->exprs, m->dims[0], &heads) && heads > 0 &&
           expr_is_const(&v->p->exprs, m->dims[1], &rows) && rows == size && last_size(v, m, &cols) && cols == size &&
           size_mul(size * size * (int64_t)sizeof(float), heads, &bytes) &&
           expr_is_const(&v->p->exprs, m->size, &own) && own >= bytes;
}

/* Codes and scales are rows of known lengths of the same cache. */
static enum npuc_status check_coded(struct verifier *v, int64_t i, const struct plan_entry *e, int32_t number)
{
    const struct plan_cache *c = &e->caches[number];
    if (c->code == DT_NONE)
        return c->turn == -1 && c->back == -1 ? NPUC_OK
                                              : REFUSE(v, "entry", i, "cache %d turns rows without codes", number);
    if (c->code >= DT_COUNT || c->scales < 0 || c->scales >= e->n_caches || c->scales == number ||
        e->caches[c->scales].code != DT_NONE || e->caches[c->scales].axis != c->axis)
        return REFUSE(v, "entry", i, "cache %d has codes without scales", number);
    const struct plan_tensor *codes = &v->p->tensors.data[c->tensor],
                             *scales = &v->p->tensors.data[e->caches[c->scales].tensor];
    int64_t row, n;
    bool fits = codes->rank == scales->rank && c->axis < codes->rank - 1 && last_size(v, codes, &row) &&
                last_size(v, scales, &n) && n > 0 && row > 0 && row < 1 << 20;
    for (int k = 0; fits && k < codes->rank - 1; k++)
        fits = codes->dims[k] == scales->dims[k];
    const int64_t size = fits ? row * (dtype_table[c->code].bits == 4 ? 2 : 1) : 0,
                  groups = fits ? n / (c->shifted ? 2 : 1) : 0;
    if (!fits || !k_cache_takes((enum dtype)c->code, c->shifted, size) || groups < 1 || size % groups != 0)
        return REFUSE(v, "entry", i, "cache %d has codes of another form than its scales", number);
    if (!is_turn(v, c->turn, codes, size) || !is_turn(v, c->back, codes, size) ||
        ((c->turn >= 0 || c->back >= 0) && c->axis != codes->rank - 2))
        return REFUSE(v, "entry", i, "cache %d has matrices that do not fit its rows", number);
    const struct k_cache_form f = k_cache_form_of((enum dtype)c->code, c->shifted, size, size / groups, scales->dtype);
    return k_cache_scales(&f) == n && codes->dtype == k_cache_stored(&f) &&
                   (scales->dtype == DT_F16 || scales->dtype == DT_BF16)
               ? NPUC_OK
               : REFUSE(v, "entry", i, "cache %d has codes of another form than its scales", number);
}

/* Objects that the user sets stay as they are from run to run. */
static enum npuc_status check_input_objects(struct verifier *v, int64_t i, const struct plan_entry *e)
{
    bool *given = NULL;
    for (int32_t k = 0; k < e->n_inputs; k++) {
        if (!is_object(v, e->inputs[k]))
            continue;
        if (!given && !(given = calloc((size_t)v->p->tensors.len + 1, sizeof *given)))
            return diag_error(v->d, &(struct diag_loc){.file = v->file, .index = -1}, D_HOST_MEMORY, "");
        given[e->inputs[k]] = true;
    }
    for (int64_t k = 0; given && k < v->p->steps.len; k++) {
        const struct plan_step *s = &v->p->steps.data[k];
        for (int32_t t = s->kind == PS_MOVE ? 0 : s->n_in; t < s->n_in + s->n_out; t++) {
            if (s->tensors[t] < 0 || !given[s->tensors[t]])
                continue;
            free(given);
            return REFUSE(v, "entry", i, "step %lld writes input object %d", (long long)k, s->tensors[t]);
        }
    }
    free(given);
    return NPUC_OK;
}

/* Shapes of inputs and fixed dimensions; gears agree in what the user sees. */
static enum npuc_status check_shapes(struct verifier *v, int64_t i, const struct plan_entry *e)
{
    const int64_t n_symbols = v->p->exprs.symbols.len;
    for (int32_t k = 0; e->shapes && k < e->n_inputs; k++) {
        if (e->shapes[k].n && e->shapes[k].n != v->p->tensors.data[e->inputs[k]].rank)
            return REFUSE(v, "entry", i, "the shape of input %d has another rank than its tensor", k);
        for (int32_t d = 0; d < e->shapes[k].n; d++)
            if (!e->shapes[k].dims[d])
                return REFUSE(v, "entry", i, "a dimension of input %d is missing", k);
    }
    for (int32_t k = 0; k < e->n_fixed; k++)
        if (e->fixed[k].symbol < 0 || e->fixed[k].symbol >= n_symbols || e->fixed[k].value < 0)
            return REFUSE(v, "entry", i, "fixed dimension %d does not exist or is negative", k);
    return NPUC_OK;
}

static bool same_value(const struct verifier *v, int32_t a, int32_t b)
{
    const struct plan_tensor *x = &v->p->tensors.data[a], *y = &v->p->tensors.data[b];
    const bool objects = x->kind == PT_OBJECT || y->kind == PT_OBJECT;
    return x->name == y->name && x->dtype == y->dtype && x->rank == y->rank && (!objects || a == b);
}

static enum npuc_status check_gear(struct verifier *v, int64_t i)
{
    const struct plan_entry *a = &v->p->entries.data[0], *b = &v->p->entries.data[i];
    bool same = a->n_inputs == b->n_inputs && a->n_outputs == b->n_outputs && a->n_fixed == b->n_fixed &&
                a->n_caches == b->n_caches && a->n_fixed > 0;
    for (int32_t k = 0; same && k < a->n_inputs; k++)
        same = same_value(v, a->inputs[k], b->inputs[k]) && a->input_optional[k] == b->input_optional[k];
    for (int32_t k = 0; same && k < a->n_outputs; k++)
        same = v->p->tensors.data[a->outputs[k]].name == v->p->tensors.data[b->outputs[k]].name;
    for (int32_t k = 0; same && k < a->n_fixed; k++)
        same = a->fixed[k].symbol == b->fixed[k].symbol;
    for (int32_t k = 0; same && k < a->n_caches; k++) {
        const struct plan_cache *x = &a->caches[k], *y = &b->caches[k];
        same = x->tensor == y->tensor && x->input == y->input && x->output == y->output && x->axis == y->axis &&
               x->grows == y->grows && x->placed == y->placed && x->code == y->code && x->shifted == y->shifted &&
               x->scales == y->scales && (x->turn < 0) == (y->turn < 0) && (x->back < 0) == (y->back < 0) &&
               x->page == y->page && x->table == y->table && x->ring == y->ring && x->window == y->window &&
               x->capacity == y->capacity;
    }
    return same ? NPUC_OK : REFUSE(v, "entry", i, "it does not have the inputs, outputs and caches of the first");
}

static enum npuc_status check_entry(struct verifier *v, int64_t i)
{
    const struct plan_entry *e = &v->p->entries.data[i];
    if (!size_in(e->first_step, e->n_steps, v->p->steps.len))
        return REFUSE(v, "entry", i, "%d steps from %d exceed the %lld of the plan", e->n_steps, e->first_step,
                      (long long)v->p->steps.len);
    TRY(check_nesting(v, e->first_step, e->n_steps, 0));
    for (int32_t k = 0; k < e->n_inputs; k++)
        if (!is_tensor(v, e->inputs[k]) || e->input_optional[k] > 1)
            return REFUSE(v, "entry", i, "input %d does not exist", k);
    TRY(check_input_objects(v, i, e));
    TRY(check_shapes(v, i, e));
    for (int32_t k = 0; k < e->n_outputs; k++)
        if (!is_tensor(v, e->outputs[k]))
            return REFUSE(v, "entry", i, "output %d does not exist", k);
    for (int32_t k = 0; k < e->n_caches; k++)
        TRY(check_cache(v, i, &e->caches[k]));
    for (int32_t k = 0; k < e->n_caches; k++)
        TRY(check_coded(v, i, e, k));
    return i > 0 ? check_gear(v, i) : NPUC_OK;
}

static enum npuc_status check_target(struct verifier *v)
{
    if (v->p->target_name == 0)
        return REFUSE(v, "target", 0, "it has no name");
    if (v->p->target.len > 1024)
        return REFUSE(v, "target", v->p->target.len, "too many constants");
    for (int64_t i = 0; i < v->p->target.len; i++)
        for (int64_t j = 0; j < i; j++)
            if (v->p->target.data[i].key == v->p->target.data[j].key)
                return REFUSE(v, "target constant", i, "it is given twice");
    return NPUC_OK;
}

enum npuc_status plan_verify(const struct plan *p, const char *file, struct diag *d)
{
    struct verifier v = {.p = p, .file = file, .d = d};
    TRY(check_target(&v));
    for (int64_t i = 0; i < p->kernels.len; i++)
        TRY(tile_verify(p->kernels.data[i], p, file, d));
    TRY(check_tensors(&v));
    for (int64_t i = 0; i < p->steps.len; i++)
        TRY(check_step(&v, i));
    TRY(check_nesting(&v, 0, p->steps.len, 0));
    for (int64_t i = 0; i < p->entries.len; i++)
        TRY(check_entry(&v, i));
    return p->entries.len ? NPUC_OK : REFUSE(&v, "entries", 0, "the plan has no entry point");
}
