/* Recipes on tensors: every step calls the kernel of its operator; the results live in the call's arena, those within
 * an iteration only as long as it. */
#include "kernels/recipe.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/op.h"

static const struct {
    const char *op;
    recipe_fn *fn;
} table[] = {
#define RECIPE(op, fn) {#op, fn},
#include "kernels/recipes.def"
#undef RECIPE
};

recipe_fn *recipe_find(const char *op)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(table); i++)
        if (!strcmp(table[i].op, op))
            return table[i].fn;
    return NULL;
}

static rval failed(struct recipe *r, enum npuc_status s)
{
    r->status = r->status == NPUC_OK ? s : r->status;
    return NULL;
}

static struct k_tensor *tensor_new(struct recipe *r)
{
    struct k_tensor *t = arena_zalloc(r->c->arena, (int64_t)sizeof *t);
    if (!t) {
        k_no_memory(r->c);
        failed(r, NPUC_E_NOMEM);
    }
    return t;
}

static rval t_node(struct recipe *r, const char *op, int n_in, const rval *in, int n_attrs, const struct k_attr *attrs)
{
    const struct k_op *k = k_op_find(op);
    struct k_tensor *y = tensor_new(r);
    const struct k_tensor *list[16];
    if (!y)
        return NULL;
    if (!k || n_in > (int)NPUC_ARRAY_LEN(list))
        return failed(r, k_fail(r->c, NPUC_E_INTERNAL, "no kernel of operator %s", op));
    for (int i = 0; i < n_in; i++)
        list[i] = in[i];
    struct k_call c = {.op = op,
                       .in = list,
                       .n_in = n_in,
                       .out = y,
                       .n_out = 1,
                       .attrs = attrs,
                       .n_attrs = n_attrs,
                       .arena = r->c->arena,
                       .pool = r->c->pool};
    const enum npuc_status s = k->fn(&c);
    if (s == NPUC_OK)
        return y;
    return failed(r, k_fail(r->c, s, "%.200s", c.error));
}

static rval t_constant(struct recipe *r, enum dtype t, int rank, const int64_t *dims, const void *data)
{
    struct k_tensor *y = tensor_new(r);
    if (!y)
        return NULL;
    struct k_call c = {.op = r->c->op, .out = y, .n_out = 1, .arena = r->c->arena};
    if (!k_out(&c, 0, t, rank, dims))
        return failed(r, k_fail(r->c, NPUC_E_NOMEM, "out of memory"));
    memcpy(y->data, data, (size_t)y->size);
    return y;
}

static rval t_sizes(struct recipe *r, const rdim *d, int n)
{
    const int64_t len = n;
    return t_constant(r, DT_I64, 1, &len, d);
}

static enum dtype t_type(rval v)
{
    return ((const struct k_tensor *)v)->dtype;
}
static int t_rank(rval v)
{
    return ((const struct k_tensor *)v)->rank;
}
static rdim t_dim(struct recipe *r, rval v, int axis)
{
    (void)r;
    return ((const struct k_tensor *)v)->dims[axis];
}
static bool t_whole(struct recipe *r, rval v, int64_t index, int64_t *out)
{
    (void)r;
    const struct k_tensor *t = v;
    if (index >= k_count(t) || !dtype_is_integer(t->dtype))
        return false;
    *out = k_get_i64(t, index);
    return true;
}
static bool t_known(struct recipe *r, rdim d, int64_t *out)
{
    (void)r;
    *out = d;
    return true;
}
static rdim t_number(struct recipe *r, int64_t v)
{
    (void)r;
    return v;
}
static rdim t_combine(struct recipe *r, char op, rdim a, rdim b)
{
    int64_t y = 0;
    bool fits = true;
    switch (op) {
    case '+': fits = !__builtin_add_overflow(a, b, &y); break;
    case '-': fits = !__builtin_sub_overflow(a, b, &y); break;
    case '*': fits = !__builtin_mul_overflow(a, b, &y); break;
    default: fits = b > 0; y = fits ? a / b - (a % b < 0) : 0;
    }
    if (!fits)
        failed(r, k_fail(r->c, NPUC_E_LIMIT, "a size is out of range"));
    return y;
}

/* --- iterations --- */

/* Item `at` of t along axis 0; shares its bytes. */
static struct k_tensor part_of(const struct k_tensor *t, int64_t at)
{
    struct k_tensor y = {.dtype = t->dtype, .rank = t->rank - 1};
    for (int i = 1; i < t->rank; i++)
        y.dims[i - 1] = t->dims[i];
    y.size = k_count(&y) * dtype_size(t->dtype);
    y.data = (char *)t->data + at * y.size;
    return y;
}

struct walk {
    struct r_scan *s;
    int64_t steps;
    struct k_tensor state[2][R_MAX_STATE]; /* before and after an iteration, by turns */
    struct k_tensor stacked[R_MAX_STACKED];
    struct arena *arena; /* of the call */
};

/* A copy of t with room for `count` of it along a new axis 0 (count < 0: t alone), in the call's arena. */
static bool keep(struct recipe *r, struct walk *w, struct k_tensor *to, const struct k_tensor *t, int64_t count)
{
    int64_t dims[K_MAX_RANK] = {count};
    const int lead = count >= 0;
    struct k_call c = {.op = r->c->op, .out = to, .n_out = 1, .arena = w->arena};
    if (t->rank + lead > K_MAX_RANK)
        return false;
    memcpy(dims + lead, t->dims, sizeof *dims * (size_t)t->rank);
    if (!k_out(&c, 0, t->dtype, t->rank + lead, dims)) {
        failed(r, k_fail(r->c, NPUC_E_NOMEM, "out of memory"));
        return false;
    }
    return true;
}

static void iterate(struct recipe *r, struct walk *w, int64_t step)
{
    struct r_scan *s = w->s;
    const int64_t at = s->reverse ? w->steps - 1 - step : step;
    struct k_tensor item[R_MAX_ITEMS];
    rval items[R_MAX_ITEMS] = {NULL}, next[R_MAX_STATE] = {NULL}, stacked[R_MAX_STACKED] = {NULL};
    for (int i = 0; i < s->n_item; i++) {
        item[i] = part_of(s->item[i], at);
        items[i] = &item[i];
    }
    s->body(r, s->arg, s->state, items, next, stacked);
    if (r->status != NPUC_OK)
        return;
    for (int i = 0; i < s->n_state; i++) {
        struct k_tensor *to = &w->state[step & 1][i];
        if (!keep(r, w, to, next[i], -1))
            return;
        memcpy(to->data, ((const struct k_tensor *)next[i])->data, (size_t)to->size);
        s->state[i] = to;
    }
    for (int i = 0; i < s->n_stacked; i++) {
        const struct k_tensor *one = stacked[i];
        if (step == 0 && !keep(r, w, &w->stacked[i], one, w->steps))
            return;
        if (one->size * w->steps != w->stacked[i].size) {
            failed(r, k_fail(r->c, NPUC_E_INVALID, "steps give results of different sizes"));
            return;
        }
        memcpy((char *)w->stacked[i].data + at * one->size, one->data, (size_t)one->size);
    }
}

/* Without an iteration the results are empty; one on zeros tells their shapes. */
static void no_iteration(struct recipe *r, struct walk *w)
{
    struct r_scan *s = w->s;
    struct k_tensor item[R_MAX_ITEMS];
    rval items[R_MAX_ITEMS] = {NULL}, next[R_MAX_STATE] = {NULL}, stacked[R_MAX_STACKED] = {NULL};
    for (int i = 0; i < s->n_item; i++) {
        item[i] = part_of(s->item[i], 0);
        items[i] = &item[i];
        item[i].data = k_scratch(r->c, item[i].size, 1);
        if (!item[i].data) {
            failed(r, NPUC_E_NOMEM);
            return;
        }
    }
    s->body(r, s->arg, s->state, items, next, stacked);
    for (int i = 0; r->status == NPUC_OK && i < s->n_stacked; i++)
        (void)keep(r, w, &w->stacked[i], stacked[i], 0);
}

static void t_scan(struct recipe *r, struct r_scan *s)
{
    struct walk *w = arena_zalloc(r->c->arena, (int64_t)sizeof *w);
    struct arena tmp;
    if (!w) {
        failed(r, NPUC_E_NOMEM);
        return;
    }
    *w = (struct walk){.s = s, .steps = ((const struct k_tensor *)s->item[0])->dims[0], .arena = r->c->arena};
    for (int i = 0; i < s->n_item; i++)
        if (((const struct k_tensor *)s->item[i])->dims[0] != w->steps) {
            failed(r, k_fail(r->c, NPUC_E_INVALID, "the inputs have different numbers of steps"));
            return;
        }
    arena_init(&tmp, w->arena->hooks);
    r->c->arena = &tmp;
    if (w->steps == 0)
        no_iteration(r, w);
    for (int64_t step = 0; step < w->steps && r->status == NPUC_OK; step++) {
        const struct arena_mark mark = arena_mark(&tmp);
        iterate(r, w, step);
        arena_release(&tmp, mark);
    }
    r->c->arena = w->arena;
    arena_free(&tmp);
    for (int i = 0; i < s->n_stacked; i++)
        s->stacked[i] = &w->stacked[i];
}

static const struct r_driver on_tensors = {.node = t_node,
                                           .constant = t_constant,
                                           .sizes = t_sizes,
                                           .scan = t_scan,
                                           .type = t_type,
                                           .rank = t_rank,
                                           .dim = t_dim,
                                           .whole = t_whole,
                                           .known = t_known,
                                           .number = t_number,
                                           .combine = t_combine};

enum npuc_status k_op_recipe(struct k_call *c)
{
    recipe_fn *fn = recipe_find(c->op);
    struct recipe r = {.d = &on_tensors, .c = c};
    if (!fn || c->n_in > (int)NPUC_ARRAY_LEN(r.in) || c->n_out > R_MAX_OUT)
        return k_fail(c, NPUC_E_INTERNAL, "no such recipe");
    for (int i = 0; i < c->n_in; i++)
        r.in[i] = c->in[i];
    const enum npuc_status s = fn(&r);
    if (s != NPUC_OK || r.status != NPUC_OK)
        return s != NPUC_OK ? s : r.status;
    for (int i = 0; i < c->n_out; i++) {
        const struct k_tensor *y = r.out[i];
        if (!y)
            continue;
        if (!k_out_like(c, i, y))
            return k_no_memory(c);
        memcpy(c->out[i].data, y->data, (size_t)c->out[i].size);
    }
    return NPUC_OK;
}
