/* Language models driven by token ids: the inputs of a plan are told apart by their names and kinds, and filled. */
#include "runtime/rt.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/roles.h"

static const struct {
    const char *part; /* of the input's name */
    enum npurt_role role;
} names[] = {
    {"input_ids", NPURT_ROLE_TOKENS},   {"tokens", NPURT_ROLE_TOKENS},       {"mask", NPURT_ROLE_MASK},
    {"position", NPURT_ROLE_POSITIONS}, {"write_ind", NPURT_ROLE_FIRST_ROW}, {"nonpad", NPURT_ROLE_VALID_ROWS},
    {"seqlens_k", NPURT_ROLE_LAST_ROW}, {"seqlen", NPURT_ROLE_VALID_ROWS},   {"total_seq", NPURT_ROLE_TOTAL_ROWS},
};

enum npurt_role rt_role_of_name(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(names); i++)
        if (strstr(name, names[i].part))
            return names[i].role;
    return NPURT_ROLE_UNKNOWN;
}

int npurt_input_role(const npurt_plan *p, int i)
{
    const struct npurt_value *v = npurt_plan_input(p, i);
    if (!v)
        return NPURT_ROLE_UNKNOWN;
    return v->cache ? NPURT_ROLE_CACHE : (int)rt_role_of_name(v->name);
}

/* The output named so, else the first that is no cache. */
int npurt_logits_output(const npurt_plan *p)
{
    bool cached = false;
    int found = -1;
    for (int i = 0; i < npurt_plan_inputs(p); i++)
        cached = cached || npurt_plan_input(p, i)->cache;
    for (int i = npurt_plan_outputs(p) - 1; i >= 0; i--) {
        const struct npurt_value *v = npurt_plan_output(p, i);
        if (!v->cache && (found < 0 || strstr(v->name, "logits")))
            found = i;
    }
    return cached ? found : -1;
}

/* Axes of an input that tells several sequences apart. */
static int least_rank(int role)
{
    switch (role) {
    case NPURT_ROLE_TOKENS:
    case NPURT_ROLE_MASK:
    case NPURT_ROLE_POSITIONS: return 2;
    case NPURT_ROLE_FIRST_ROW:
    case NPURT_ROLE_VALID_ROWS:
    case NPURT_ROLE_LAST_ROW: return 1;
    default: return 0;
    }
}

static bool takes_batch(const struct npurt_value *v, int role)
{
    const int least = least_rank(role);
    return least == 0 || (v->rank >= least && v->dims[0].min != v->dims[0].max);
}

/* A length that is not told per sequence (a mask of the model's own making) would be that of the longest. */
int npurt_batch_form(const npurt_plan *p)
{
    const struct plan_entry *e = p->plan.entries.len ? &p->plan.entries.data[0] : NULL;
    bool masked = false;
    int32_t placed = 0;
    for (int i = 0; i < npurt_plan_inputs(p); i++) {
        const int role = npurt_input_role(p, i);
        if (!takes_batch(npurt_plan_input(p, i), role))
            return NPURT_BATCH_ONE;
        masked = masked || role == NPURT_ROLE_MASK;
    }
    for (int32_t i = 0; e && i < e->n_caches; i++)
        placed += e->caches[i].placed;
    if (!e || e->n_caches == 0)
        return NPURT_BATCH_ONE;
    if (placed > 0)
        return placed == e->n_caches ? NPURT_BATCH_OWN : NPURT_BATCH_EQUAL;
    return masked ? NPURT_BATCH_FILLED : NPURT_BATCH_EQUAL;
}

/* ---- one call ---- */

struct call {
    npurt_session *s;
    const struct npurt_tokens *t;
};
struct field { /* an input to be given: [batch][columns] or [batch] */
    const struct npurt_value *v;
    enum npurt_role role;
    int64_t columns;
};

static int64_t filling(const struct npurt_tokens *t, int64_t b)
{
    return t->filling ? t->filling[b] : 0;
}

static int64_t own(const struct npurt_tokens *t, int64_t b)
{
    return t->own ? t->own[b] : t->past;
}

/* Value of column i of sequence b. Rows that fill up behind count as tokens: those before them do not see them. */
static int64_t value_at(const struct npurt_tokens *t, enum npurt_role role, int64_t b, int64_t i)
{
    const int64_t position = own(t, b) + i - filling(t, b);
    switch (role) {
    case NPURT_ROLE_TOKENS: return t->ids[b * t->rows + i];
    case NPURT_ROLE_MASK: return i >= filling(t, b) && i < own(t, b) + t->rows;
    case NPURT_ROLE_POSITIONS: return position > 0 ? position : 0;
    case NPURT_ROLE_FIRST_ROW: return own(t, b);
    case NPURT_ROLE_VALID_ROWS: return own(t, b) + t->rows;
    case NPURT_ROLE_LAST_ROW: return own(t, b) + t->rows - 1;
    case NPURT_ROLE_TOTAL_ROWS: return t->past + t->rows;
    case NPURT_ROLE_CACHE:
    case NPURT_ROLE_UNKNOWN: return 0;
    }
    return 0;
}

static int64_t columns_of(const struct npurt_tokens *t, enum npurt_role role)
{
    switch (role) {
    case NPURT_ROLE_TOKENS:
    case NPURT_ROLE_POSITIONS: return t->rows;
    case NPURT_ROLE_MASK: return t->past + t->rows;
    case NPURT_ROLE_FIRST_ROW:
    case NPURT_ROLE_VALID_ROWS:
    case NPURT_ROLE_LAST_ROW:
    case NPURT_ROLE_TOTAL_ROWS: return 1;
    case NPURT_ROLE_CACHE:
    case NPURT_ROLE_UNKNOWN: return 0;
    }
    return 0;
}

static void put(void *data, int dtype, int64_t at, int64_t x)
{
    if (dtype == NPURT_I64)
        ((int64_t *)data)[at] = x;
    else if (dtype == NPURT_I32)
        ((int32_t *)data)[at] = (int32_t)x;
    else if (dtype == NPURT_BOOL)
        ((uint8_t *)data)[at] = x != 0;
    else
        ((float *)data)[at] = (float)x;
}

static enum npuc_status give(struct call *c, const struct field *f, void *data)
{
    const int64_t batch = c->t->batch, n = f->columns;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < n; i++)
            put(data, f->v->dtype, b * n + i, value_at(c->t, f->role, b, i));
    const bool flat = f->v->rank == 1;
    const int64_t dims[2] = {flat ? batch * n : batch, n};
    return npurt_set_input(c->s, f->v->name, f->v->dtype, f->v->rank, dims, data);
}

static bool is_fed(int dtype)
{
    return dtype == NPURT_I64 || dtype == NPURT_I32 || dtype == NPURT_BOOL || dtype == NPURT_F32;
}

/* Can the input be given for this call? */
static enum npuc_status check_field(struct call *c, const struct field *f)
{
    if (f->role == NPURT_ROLE_UNKNOWN && !f->v->optional)
        return rt_fail(c->s, D_UNSUPPORTED,
                       "cannot tell what this input of the plan is for: %.100s; tokens, masks, positions, lengths and "
                       "KV caches are fed, states of other kinds are not: feed them yourself (npuc run --input)",
                       f->v->name);
    if (f->role == NPURT_ROLE_UNKNOWN || f->role == NPURT_ROLE_CACHE)
        return NPUC_OK;
    if (f->v->rank < 0 || f->v->rank > 2 || !is_fed(f->v->dtype))
        return rt_fail(c->s, D_UNSUPPORTED,
                       "language models are fed integers, booleans or f32 of rank 0 to 2; input %.100s is another kind",
                       f->v->name);
    if (c->t->batch > 1 && f->v->rank < least_rank((int)f->role))
        return rt_fail(c->s, D_UNSUPPORTED, "the model takes one sequence: input %.100s has no axis for %lld of them",
                       f->v->name, (long long)c->t->batch);
    return NPUC_OK;
}

static enum npuc_status check_ids(struct call *c)
{
    const int logits = npurt_logits_output(c->s->owner);
    const struct npurt_value *v = logits >= 0 ? npurt_plan_output(c->s->owner, logits) : NULL;
    const struct npurt_dim *d = v && v->rank > 0 ? &v->dims[v->rank - 1] : NULL;
    if (!d || d->min != d->max)
        return NPUC_OK;
    for (int64_t i = 0; i < c->t->batch * c->t->rows; i++)
        if (c->t->ids[i] < 0 || c->t->ids[i] >= d->min)
            return rt_fail(
                c->s, D_INPUT_BINDING,
                "token %lld is outside of the model's vocabulary of %lld; the ids come from another tokenizer",
                (long long)c->t->ids[i], (long long)d->min);
    return NPUC_OK;
}

static enum npuc_status check_room(struct call *c)
{
    const int64_t room = npurt_cache_capacity(c->s), past = c->t->past, rows = c->t->rows;
    if (room > 0 && past + rows > room)
        return rt_fail(c->s, D_LIMIT,
                       "%lld tokens after %lld do not fit the caches of %lld; compile with a larger --kv-capacity",
                       (long long)rows, (long long)past, (long long)room);
    return NPUC_OK;
}

static enum npuc_status check_lengths(struct call *c)
{
    const struct npurt_tokens *t = c->t;
    const int form = npurt_batch_form(c->s->owner);
    for (int64_t b = 0; b < t->batch; b++) {
        if (filling(t, b) != 0 && form != NPURT_BATCH_FILLED)
            return rt_fail(c->s, D_USAGE,
                           form == NPURT_BATCH_OWN
                               ? "each sequence of this model has rows of its own: sequence %lld is filled up behind, "
                                 "not with %lld tokens in front of %lld"
                               : "the model has no mask: sequence %lld cannot be filled with %lld tokens of %lld",
                           (long long)b, (long long)t->filling[b], (long long)(t->past + t->rows));
        if (filling(t, b) < 0 || filling(t, b) >= t->past + t->rows)
            return rt_fail(c->s, D_USAGE, "sequence %lld is filled with %lld tokens of %lld", (long long)b,
                           (long long)t->filling[b], (long long)(t->past + t->rows));
        if (own(t, b) != t->past && (form != NPURT_BATCH_OWN || own(t, b) < 0 || own(t, b) > t->past))
            return rt_fail(c->s, D_USAGE,
                           form == NPURT_BATCH_OWN ? "sequence %lld has %lld tokens in caches of %lld"
                                                   : "the model is not told rows per sequence: sequence %lld cannot "
                                                     "have %lld tokens in caches of %lld",
                           (long long)b, (long long)t->own[b], (long long)t->past);
    }
    return NPUC_OK;
}

static enum npuc_status check_call(struct call *c)
{
    const struct npurt_tokens *t = c->t;
    int64_t n;
    if (t->batch < 1 || t->rows < 1 || t->past < 0 || t->past > (int64_t)1 << 40 || t->rows > (int64_t)1 << 40 ||
        !size_mul(t->batch, t->past + t->rows, &n) || n > (int64_t)1 << 40)
        return rt_fail(c->s, D_USAGE,
                       "a call takes at least one sequence and one token; found %lld and %lld after %lld",
                       (long long)t->batch, (long long)t->rows, (long long)t->past);
    const enum npuc_status lengths = check_lengths(c);
    if (lengths != NPUC_OK)
        return lengths;
    const enum npuc_status st = check_ids(c);
    return st == NPUC_OK ? check_room(c) : st;
}

/* Bytes of all fields, each at a multiple of 8; inputs of earlier calls no longer point to what is released. */
static enum npuc_status make_room(struct call *c, int64_t bytes)
{
    if (bytes <= c->s->fed.size)
        return NPUC_OK;
    for (int i = 0; i < npurt_plan_inputs(c->s->owner); i++) {
        const int role = npurt_input_role(c->s->owner, i);
        if (role != NPURT_ROLE_UNKNOWN && role != NPURT_ROLE_CACHE &&
            npurt_unset_input(c->s, npurt_plan_input(c->s->owner, i)->name) != NPUC_OK)
            return NPUC_E_INVALID;
    }
    free(c->s->fed.data);
    c->s->fed.size = 0;
    c->s->fed.data = malloc((size_t)bytes);
    if (!c->s->fed.data)
        return rt_fail(c->s, D_HOST_MEMORY, "out of host memory");
    c->s->fed.size = bytes;
    return NPUC_OK;
}

static struct field field_of(const struct call *c, int i)
{
    const enum npurt_role role = (enum npurt_role)npurt_input_role(c->s->owner, i);
    return (struct field){npurt_plan_input(c->s->owner, i), role, columns_of(c->t, role)};
}

static enum npuc_status give_all(struct call *c)
{
    const int n = npurt_plan_inputs(c->s->owner);
    int64_t bytes = 0, at = 0;
    enum npuc_status st = NPUC_OK;
    for (int i = 0; st == NPUC_OK && i < n; i++) {
        const struct field f = field_of(c, i);
        st = check_field(c, &f);
        bytes += 8 * c->t->batch * f.columns;
    }
    if (st == NPUC_OK)
        st = make_room(c, bytes);
    for (int i = 0; st == NPUC_OK && i < n; i++) {
        const struct field f = field_of(c, i);
        if (f.columns > 0)
            st = give(c, &f, c->s->fed.data + at);
        at += 8 * c->t->batch * f.columns;
    }
    return st;
}

enum npuc_status npurt_run_tokens(npurt_session *s, const struct npurt_tokens *t)
{
    struct call c = {s, t};
    enum npuc_status st = check_call(&c);
    if (st == NPUC_OK)
        st = give_all(&c);
    if (st != NPUC_OK)
        return st;
    s->begins = t->own;
    s->n_begins = t->batch;
    st = npurt_run(s);
    s->begins = NULL;
    return st;
}
