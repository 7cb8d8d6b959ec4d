/* Branches, loops, and the copies that carry values into and out of their bodies.
 *
 * The host decides: it reads a condition, and the steps of the body run as any others. Symbols that a body binds are
 * bound again in every turn. Without data a branch is the one that costs more, and a loop makes as many turns as its
 * trip count says, or an assumed number that the report names. */
#include "runtime/rt.h"

#include "base/size.h"

#include <string.h>

enum {
    ASSUMED_TURNS = 16,     /* of a loop whose trip count nobody knows before it runs */
    MOST_TIMED_TURNS = 1024 /* a larger trip count is an upper limit that no model reaches */
};

/* ---- scalars ---- */

static enum npuc_status read_scalar(npurt_session *s, int32_t tensor, int64_t *out)
{
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    const enum npuc_status st = rt_place_late(s, tensor);
    if (st != NPUC_OK)
        return st;
    const struct rt_tensor *r = &s->tensors[tensor];
    struct k_tensor k = {.dtype = (enum dtype)t->dtype, .rank = t->rank, .data = r->data, .size = r->size};
    int64_t bytes;
    if (!rt_dims(s, t, k.dims) || k_count(&k) != 1 || !dtype_bytes(k.dtype, 1, &bytes) || !r->data || r->size < bytes)
        return rt_fail(s, D_RUN_FAULT, "'%s' has not the one element that decides a branch or loop",
                       rt_name(s, t->name));
    *out = k_get_i64(&k, 0);
    return NPUC_OK;
}

static enum npuc_status write_scalar(npurt_session *s, int32_t tensor, int64_t value)
{
    if (tensor < 0)
        return NPUC_OK;
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    const enum npuc_status st = rt_place_late(s, tensor);
    if (st != NPUC_OK || !(s->mode & NPURT_DATA))
        return st;
    const struct rt_tensor *r = &s->tensors[tensor];
    struct k_tensor k = {.dtype = (enum dtype)t->dtype, .rank = 0, .data = r->data, .size = r->size};
    if (!r->data || r->read_only || r->size < dtype_size(k.dtype))
        return rt_fail(s, D_RUN_FAULT, "'%s' cannot hold a number", rt_name(s, t->name));
    k_set_i64(&k, 0, value);
    return NPUC_OK;
}

/* ---- branches ---- */

/* Time of a branch, in microseconds, without a trace in the report. */
static enum npuc_status try_branch(npurt_session *s, int64_t first, int64_t n, double *us)
{
    struct npurt_step *const outer = s->trial, sum = {0};
    struct npurt_step local = sum;
    const double traffic = s->traffic, dirty = s->dirty, ahead = s->ahead;
    s->trial = &local;
    const enum npuc_status st = rt_steps(s, first, n);
    s->trial = outer;
    s->traffic = traffic;
    s->dirty = dirty;
    s->ahead = ahead;
    *us = local.us;
    return st;
}

/* The answer is kept for the run, so that nested branches are tried once and not once per branch around them. */
static enum npuc_status dearer_branch(npurt_session *s, const struct plan_step *step, int *branch)
{
    const int64_t number = step - s->plan->steps.data;
    double us[2];
    for (int b = 0; b < 2 && !s->choice[number]; b++) {
        const enum npuc_status st = try_branch(s, number + 1 + (b ? step->n_body[0] : 0), step->n_body[b], &us[b]);
        if (st != NPUC_OK)
            return st;
    }
    if (!s->choice[number])
        s->choice[number] = us[1] > us[0] ? 2 : 1;
    *branch = s->choice[number] - 1;
    return NPUC_OK;
}

enum npuc_status rt_if(npurt_session *s, const struct plan_step *step)
{
    const int64_t number = step - s->plan->steps.data;
    int64_t holds = 0;
    int branch = 0;
    enum npuc_status st = NPUC_OK;
    if (s->mode & NPURT_CLOCK)
        rt_time_bytes(s, step, 1);
    if (s->mode & NPURT_DATA) {
        st = read_scalar(s, step->tensors[0], &holds);
        branch = holds ? 0 : 1;
    } else {
        st = dearer_branch(s, step, &branch);
    }
    return st == NPUC_OK ? rt_steps(s, number + 1 + (branch ? step->n_body[0] : 0), step->n_body[branch]) : st;
}

/* ---- loops ---- */

struct loop {
    const struct plan_step *step;
    int64_t turns; /* at most */
    bool go;       /* the condition */
};

static enum npuc_status begin_with_data(npurt_session *s, struct loop *l)
{
    const int32_t *t = l->step->tensors; /* trip count, condition, condition after a turn */
    int64_t go = 1;
    l->turns = INT64_MAX;
    enum npuc_status st = t[0] >= 0 ? read_scalar(s, t[0], &l->turns) : NPUC_OK;
    if (st == NPUC_OK && t[1] >= 0)
        st = read_scalar(s, t[1], &go);
    l->go = go != 0;
    return st;
}

static void begin_without_data(npurt_session *s, struct loop *l)
{
    const bool known = l->step->n_params && rt_value(s, l->step->params[0], &l->turns);
    l->go = true;
    if (known && l->turns <= MOST_TIMED_TURNS)
        return;
    l->turns = ASSUMED_TURNS;
    s->note->reason = "16 turns are assumed: their number depends on data";
    _Static_assert(ASSUMED_TURNS == 16, "the reason names the number");
}

static enum npuc_status turn(npurt_session *s, struct loop *l, int64_t k)
{
    const struct plan_step *step = l->step;
    const int64_t number = step - s->plan->steps.data;
    struct npurt_step *note = s->note;
    int64_t go = 1;
    enum npuc_status st = rt_rebind(s, step->binds[2], k, "the loop");
    if (st == NPUC_OK)
        st = write_scalar(s, step->tensors[3], k);
    if (st == NPUC_OK)
        st = write_scalar(s, step->tensors[4], 1);
    if (st == NPUC_OK)
        st = rt_steps(s, number + 1, step->n_body[0]);
    if (st == NPUC_OK && s->mode & NPURT_DATA && step->tensors[2] >= 0)
        st = read_scalar(s, step->tensors[2], &go);
    l->go = go != 0;
    s->note = note;
    return st;
}

/* Results of a loop without a turn have no elements, but they are there. */
static enum npuc_status place_empty(npurt_session *s, int32_t symbol)
{
    const struct rt_dependents *d = s->dependents[symbol];
    enum npuc_status st = NPUC_OK;
    for (int32_t i = 0; d && st == NPUC_OK && i < d->n_tensors; i++) {
        int64_t size;
        if (rt_value(s, s->plan->tensors.data[d->tensors[i]].size, &size) && size == 0 &&
            s->plan->tensors.data[d->tensors[i]].kind != PT_ALIAS)
            st = rt_place_late(s, d->tensors[i]);
    }
    return st;
}

enum npuc_status rt_loop(npurt_session *s, const struct plan_step *step)
{
    struct loop l = {.step = step};
    enum npuc_status st = NPUC_OK;
    for (int32_t i = 0; st == NPUC_OK && i < step->n_binds; i++)
        st = rt_rebind(s, step->binds[3 * i + 2], 0, "the loop");
    for (int32_t i = 0; st == NPUC_OK && i < step->n_binds; i++)
        st = place_empty(s, step->binds[3 * i + 2]);
    if (st == NPUC_OK && s->mode & NPURT_DATA)
        st = begin_with_data(s, &l);
    else if (st == NPUC_OK)
        begin_without_data(s, &l);
    for (int64_t k = 0; st == NPUC_OK && l.go && k < l.turns; k++) {
        if (atomic_load_explicit(&s->cancel, memory_order_relaxed))
            return NPUC_E_CANCELLED;
        if (s->mode & NPURT_CLOCK)
            rt_time_bytes(s, step, 1); /* the host looks at the condition and starts the turn */
        const struct arena_mark mark = arena_mark(&s->scratch);
        st = turn(s, &l, k);
        arena_release(&s->scratch, mark);
    }
    return st;
}

/* ---- copies ---- */

/* A dense tensor as it is now: shape, bytes. */
struct source {
    struct k_tensor k;
    bool whole; /* it is all of its root */
};

static enum npuc_status take_source(npurt_session *s, int32_t tensor, struct source *out)
{
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    const enum npuc_status st = rt_place_late(s, tensor);
    if (st != NPUC_OK)
        return st;
    const struct rt_tensor *r = &s->tensors[tensor], *root = &s->tensors[r->root];
    *out = (struct source){.k = {.dtype = (enum dtype)t->dtype, .rank = t->rank, .data = r->data}};
    if (!rt_dims(s, t, out->k.dims) || !r->known || !dtype_bytes(out->k.dtype, k_count(&out->k), &out->k.size) ||
        out->k.size > r->size || (s->mode & NPURT_DATA && !r->data && out->k.size > 0))
        return rt_fail(s, D_RUN_FAULT, "tensor '%s' is not known when it is needed", rt_name(s, t->name));
    out->whole = r->address == root->address && r->size == root->size && out->k.size == r->size;
    return NPUC_OK;
}

static enum npuc_status bind_dims(npurt_session *s, const struct plan_step *step, const int64_t *dims)
{
    enum npuc_status st = NPUC_OK;
    for (int32_t i = 0; st == NPUC_OK && i < step->n_binds; i++)
        st = rt_rebind(s, step->binds[3 * i + 2], dims[step->binds[3 * i + 1]],
                       rt_name(s, s->plan->tensors.data[step->tensors[1]].name));
    return st;
}

/* Is `tensor` of this shape (from axis `skip` on), writable, and is its storage there? */
static enum npuc_status check_destination(npurt_session *s, int32_t tensor, const struct k_tensor *k, int skip)
{
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    const struct rt_tensor *r = &s->tensors[tensor];
    int64_t dims[NPURT_MAX_RANK];
    bool fits = rt_dims(s, t, dims) && r->known && !r->read_only && t->rank == k->rank + skip;
    for (int i = 0; fits && i < k->rank; i++)
        fits = dims[i + skip] == k->dims[i];
    return fits ? NPUC_OK
                : rt_fail(s, D_RUN_FAULT, "'%s' cannot take the value of another shape that a body gives it",
                          rt_name(s, t->name));
}

static enum npuc_status copy_bytes(npurt_session *s, const struct plan_step *step, const struct source *from)
{
    const int32_t to = step->tensors[1];
    const void *bytes = from->k.data;
    if (s->mode & NPURT_DATA && s->tensors[to].root == s->tensors[step->tensors[0]].root && from->k.size > 0)
        bytes = arena_copy(&s->scratch, bytes, from->k.size); /* the storage may change under it */
    if (s->mode & NPURT_DATA && from->k.size > 0 && !bytes)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    enum npuc_status st = rt_place_late(s, to);
    if (st == NPUC_OK)
        st = check_destination(s, to, &from->k, 0);
    if (st != NPUC_OK)
        return st;
    if (from->k.size > s->tensors[to].size)
        return rt_fail(s, D_RUN_FAULT, "'%s' is too small", rt_name(s, s->plan->tensors.data[to].name));
    if (s->mode & NPURT_DATA && from->k.size > 0)
        memmove(s->tensors[to].data, bytes, (size_t)from->k.size);
    rt_note_step(s, step);
    if (s->mode & NPURT_CLOCK)
        rt_time_bytes(s, step, 2.0 * (double)from->k.size);
    return NPUC_OK;
}

/* From or to an object: the host copies the value, or hands it over. */
static enum npuc_status transfer_object(npurt_session *s, const struct plan_step *step)
{
    const int32_t from = step->tensors[0], to = step->tensors[1];
    struct k_tensor v;
    rt_note_step(s, step);
    if (!(s->mode & NPURT_DATA)) {
        if (s->mode & NPURT_CLOCK)
            rt_time_bytes(s, step, 1);
        return rt_assume(s, step);
    }
    enum npuc_status st = rt_operand(s, from, &v);
    if (st == NPUC_OK && v.rank >= 0)
        st = bind_dims(s, step, v.dims);
    if (st == NPUC_OK && s->mode & NPURT_CLOCK)
        rt_time_bytes(s, step, 2.0 * (double)s->tensors[from].size);
    if (st != NPUC_OK)
        return st;
    if (step->kind == PS_MOVE && rt_is_object(s, from) && rt_is_object(s, to))
        return rt_object_move(s, from, to);
    return rt_result(s, to, &v, "a body");
}

enum npuc_status rt_transfer(npurt_session *s, const struct plan_step *step)
{
    if (rt_is_object(s, step->tensors[0]) || rt_is_object(s, step->tensors[1]))
        return transfer_object(s, step);
    struct source from;
    enum npuc_status st = take_source(s, step->tensors[0], &from);
    if (st == NPUC_OK)
        st = bind_dims(s, step, from.k.dims);
    if (st != NPUC_OK)
        return st;
    if (step->kind == PS_MOVE && from.whole &&
        rt_exchange(s, s->tensors[step->tensors[0]].root, step->tensors[1], from.k.size))
        return check_destination(s, step->tensors[1], &from.k, 0);
    return copy_bytes(s, step, &from);
}

/* Sizes of the rows are told by the first one; the others must agree. */
static enum npuc_status bind_row(npurt_session *s, const struct plan_step *step, const struct k_tensor *row, int64_t k)
{
    for (int32_t i = 0; k > 0 && i < step->n_binds; i++) {
        const int32_t axis = step->binds[3 * i + 1], symbol = step->binds[3 * i + 2];
        if (axis > 0 && s->symbol_known[symbol] && s->symbol[symbol] != row->dims[axis - 1])
            return rt_fail(s, D_RUN_FAULT, "node '%s': turns of a loop give results of different sizes",
                           rt_source(s, step));
    }
    int64_t dims[NPURT_MAX_RANK + 1] = {k + 1};
    memcpy(dims + 1, row->dims, (size_t)row->rank * sizeof *dims);
    return bind_dims(s, step, dims);
}

/* Rows that are text or of unknown rank: what is there and the row, joined. */
static enum npuc_status append_object(npurt_session *s, const struct plan_step *step)
{
    const int32_t to = step->tensors[1];
    int64_t k;
    struct k_tensor row, sum, out = {.dtype = DT_NONE};
    if (!(s->mode & NPURT_DATA))
        return rt_assume(s, step);
    enum npuc_status st = rt_operand(s, step->tensors[0], &row);
    if (st != NPUC_OK)
        return st;
    if (!rt_value(s, step->params[0], &k) || row.kind != K_TENSOR || row.rank >= K_MAX_RANK)
        return rt_fail(s, D_RUN_FAULT, "node '%s': a result cannot be stacked", rt_source(s, step));
    memmove(row.dims + 1, row.dims, (size_t)row.rank * sizeof *row.dims);
    row.dims[0] = 1;
    row.rank++;
    const struct k_tensor *in[2] = {&row, NULL};
    if (k > 0 && (st = rt_operand(s, to, &sum)) != NPUC_OK)
        return st;
    if (k > 0) {
        in[0] = &sum;
        in[1] = &row;
    }
    const struct k_attr axis = {.name = "axis", .kind = K_ATTR_INT};
    struct k_call join = {.op = "Concat",
                          .in = in,
                          .n_in = k > 0 ? 2 : 1,
                          .out = &out,
                          .n_out = 1,
                          .attrs = &axis,
                          .n_attrs = 1,
                          .arena = &s->scratch,
                          .pool = s->pool};
    st = k_op_find("Concat")->fn(&join);
    if (st != NPUC_OK)
        return rt_fail(s, D_RUN_FAULT, "node '%s': turns of a loop give results of different sizes (%s)",
                       rt_source(s, step), join.error);
    st = bind_dims(s, step, out.dims);
    if (st == NPUC_OK && s->mode & NPURT_CLOCK)
        rt_time_bytes(s, step, 2.0 * (double)out.size);
    return st == NPUC_OK ? rt_result(s, to, &out, "a loop") : st;
}

enum npuc_status rt_append(npurt_session *s, const struct plan_step *step)
{
    const int32_t to = step->tensors[1];
    struct source row;
    int64_t k, at;
    if (rt_is_object(s, step->tensors[0]) || rt_is_object(s, to))
        return append_object(s, step);
    enum npuc_status st = take_source(s, step->tensors[0], &row);
    if (st == NPUC_OK && (!rt_value(s, step->params[0], &k) || k < 0 || dtype_size(row.k.dtype) == 0))
        st = rt_fail(s, D_RUN_FAULT, "node '%s': rows of %s cannot be stacked", rt_source(s, step),
                     dtype_table[row.k.dtype].name);
    if (st == NPUC_OK)
        st = bind_row(s, step, &row.k, k);
    if (st == NPUC_OK)
        st = rt_place_grown(s, to);
    if (st == NPUC_OK)
        st = check_destination(s, to, &row.k, 1);
    if (st != NPUC_OK)
        return st;
    if (!size_mul(k, row.k.size, &at) || !size_in(at, row.k.size, s->tensors[to].size))
        return rt_fail(s, D_RUN_FAULT, "'%s' has no row %lld", rt_name(s, s->plan->tensors.data[to].name),
                       (long long)k);
    if (s->mode & NPURT_DATA && row.k.size > 0)
        memcpy(s->tensors[to].data + at, row.k.data, (size_t)row.k.size);
    if (s->mode & NPURT_CLOCK)
        rt_time_bytes(s, step, 2.0 * (double)row.k.size);
    return NPUC_OK;
}
