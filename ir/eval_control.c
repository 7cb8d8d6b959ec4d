/* If, Loop and Scan in the reference interpreter. */
#include <inttypes.h>
#include <string.h>

#include "ir/eval_priv.h"

/* Results of one body, over its iterations: element `count` of every tensor is one iteration's. */
struct stack {
    VEC(struct k_tensor) items;
};

static int64_t axis_of(const struct node *n, const char *attr, int64_t i, int rank)
{
    const struct attr *a = node_attr(n, attr);
    const int64_t axis = a && i < a->len ? a->v.ints[i] : 0;
    return axis < 0 ? axis + rank : axis;
}

static bool is_reversed(const struct node *n, const char *attr, int64_t i)
{
    const struct attr *a = node_attr(n, attr);
    return a && i < a->len && a->v.ints[i] == 1;
}

/* outer x axis x inner bytes, for tensors of whole bytes */
struct split {
    int64_t outer, len, inner;
};

static struct split split_at(const struct k_tensor *t, int64_t axis)
{
    struct split s = {1, t->dims[axis], dtype_size(t->dtype)};
    for (int i = 0; i < t->rank; i++) {
        if (i < axis)
            s.outer *= t->dims[i];
        else if (i > axis)
            s.inner *= t->dims[i];
    }
    return s;
}

static enum npuc_status whole_bytes(struct frame *f, const struct node *n, const struct k_tensor *t)
{
    if (dtype_size(t->dtype) > 0)
        return NPUC_OK;
    return node_error(f->cx, n, D_UNSUPPORTED, "stacking tensors of type %s", dtype_table[t->dtype].name);
}

/* The slice `index` of t along `axis`, without that axis. */
static struct k_tensor take(struct frame *f, const struct k_tensor *t, int64_t axis, int64_t index)
{
    const struct split s = split_at(t, axis);
    struct k_tensor out = {.dtype = t->dtype, .rank = t->rank - 1, .size = s.outer * s.inner};
    for (int i = 0, k = 0; i < t->rank; i++)
        if (i != axis)
            out.dims[k++] = t->dims[i];
    char *to = arena_alloc(f->a, out.size + 1, 64);
    out.data = to;
    for (int64_t o = 0; o < s.outer; o++)
        memcpy(to + o * s.inner, (const char *)t->data + (o * s.len + index) * s.inner, (size_t)s.inner);
    return out;
}

/* The items along a new axis; `empty` gives dtype and dims when there is none. */
static enum npuc_status pile(struct frame *f, const struct node *n, const struct stack *st, const struct type *type,
                             int64_t axis, bool reversed, struct k_tensor *out)
{
    const int64_t count = st->items.len;
    *out = (struct k_tensor){.dtype = type->dtype, .rank = type->rank > 0 ? type->rank : 1};
    if (count) {
        const struct k_tensor *first = &st->items.data[0];
        out->dtype = first->dtype;
        out->rank = first->rank + 1;
        for (int i = 0; i < out->rank; i++)
            out->dims[i] = i == axis ? count : first->dims[i < axis ? i : i - 1];
    } else {
        for (int i = 0; i < type->rank; i++)
            if (!expr_is_const(&f->cx->exprs, type->dims[i], &out->dims[i]))
                out->dims[i] = 0;
        out->dims[axis] = 0;
    }
    const enum npuc_status bytes = whole_bytes(f, n, out);
    if (bytes != NPUC_OK)
        return bytes;
    const struct split s = split_at(out, axis);
    out->size = s.outer * s.len * s.inner;
    char *to = arena_alloc(f->a, out->size + 1, 64);
    out->data = to;
    for (int64_t k = 0; k < count; k++) {
        const struct k_tensor *item = &st->items.data[reversed ? count - 1 - k : k];
        if (item->size < s.outer * s.inner)
            return node_error(f->cx, n, D_RUN_FAULT, "iterations give results of different sizes");
        for (int64_t o = 0; o < s.outer; o++)
            memcpy(to + (o * s.len + k) * s.inner, (const char *)item->data + o * s.inner, (size_t)s.inner);
    }
    return NPUC_OK;
}

enum npuc_status eval_if(struct frame *f, const struct node *n, const struct k_tensor *const *in, struct k_tensor *out)
{
    const bool yes = k_count(in[0]) > 0 && k_get_i64(in[0], 0) != 0;
    const struct attr *branch = node_attr(n, yes ? "then_branch" : "else_branch");
    return frame_body(f, branch->v.graph, NULL, out);
}

/* Loop-carried values and the results of one iteration. */
struct loop {
    const struct graph *body;
    int n_state, n_scan;
    const struct k_tensor **in; /* of the body */
    struct k_tensor *result;    /* of the body */
    struct stack *scans;
};

static struct loop loop_new(struct frame *f, const struct node *n, int n_state)
{
    struct loop l = {.body = node_region(n, 0), .n_state = n_state, .n_scan = n->n_out - n_state};
    l.in = ARENA_ARRAY(f->a, const struct k_tensor *, l.body->n_inputs + 1);
    l.result = ARENA_ARRAY(f->a, struct k_tensor, graph_yield(l.body)->n_in + 1);
    l.scans = ARENA_ARRAY(f->a, struct stack, l.n_scan + 1);
    return l;
}

/* Results [first, ...) of the body become state inputs [first_in, ...) and stacked items. */
static void loop_advance(struct frame *f, struct loop *l, int first, int first_in)
{
    for (int i = 0; i < l->n_state; i++)
        l->in[first_in + i] = arena_copy(f->a, &l->result[first + i], (int64_t)sizeof *l->result);
    for (int i = 0; i < l->n_scan; i++)
        vec_push(f->a, &l->scans[i].items, l->result[first + l->n_state + i]);
}

static enum npuc_status loop_finish(struct frame *f, const struct node *n, const struct loop *l, int first_in,
                                    struct k_tensor *out)
{
    enum npuc_status s = NPUC_OK;
    for (int i = 0; i < l->n_state; i++)
        out[i] = *l->in[first_in + i];
    for (int i = 0; s == NPUC_OK && i < l->n_scan; i++) {
        const struct type *type = n->out[l->n_state + i].type;
        const int rank = l->scans[i].items.len ? l->scans[i].items.data[0].rank + 1 : type->rank;
        const bool scan = n->op == OP_Scan;
        s = pile(f, n, &l->scans[i], type, scan ? axis_of(n, "scan_output_axes", i, rank) : 0,
                 scan && is_reversed(n, "scan_output_directions", i), &out[l->n_state + i]);
    }
    return s;
}

enum { MAX_TURNS = 1 << 20 }; /* a loop that data end may have no end on made-up inputs */

enum npuc_status eval_loop(struct frame *f, const struct node *n, const struct k_tensor *const *in,
                           struct k_tensor *out)
{
    struct loop l = loop_new(f, n, n->n_in - 2);
    const int64_t trips = in[0] ? k_get_i64(in[0], 0) : INT64_MAX;
    bool go = !in[1] || k_get_i64(in[1], 0) != 0;
    for (int i = 0; i < l.n_state; i++)
        l.in[2 + i] = in[2 + i];
    for (int64_t trip = 0; go && trip < trips; trip++) {
        if (trip == MAX_TURNS)
            return node_error(f->cx, n, D_LIMIT, "has not ended after %d turns, the limit of the interpreter",
                              MAX_TURNS);
        int64_t *iter = arena_copy(f->a, &trip, (int64_t)sizeof trip);
        bool *cond = arena_copy(f->a, &go, (int64_t)sizeof go);
        const struct k_tensor at = {.dtype = DT_I64, .data = iter, .size = 8};
        const struct k_tensor keep = {.dtype = DT_BOOL, .data = cond, .size = 1};
        l.in[0] = &at;
        l.in[1] = &keep;
        const enum npuc_status s = frame_body(f, l.body, l.in, l.result);
        if (s != NPUC_OK)
            return s;
        go = k_get_i64(&l.result[0], 0) != 0;
        loop_advance(f, &l, 1, 2);
    }
    return loop_finish(f, n, &l, 2, out);
}

enum npuc_status eval_scan(struct frame *f, const struct node *n, const struct k_tensor *const *in,
                           struct k_tensor *out)
{
    const int n_scan_in = (int)node_attr_int(n, "num_scan_inputs", 0);
    const int n_state = n->n_in - n_scan_in;
    struct loop l = loop_new(f, n, n_state);
    int64_t trips = 0;
    for (int i = 0; i < n_scan_in; i++) {
        const struct k_tensor *t = in[n_state + i];
        const int64_t len = t->dims[axis_of(n, "scan_input_axes", i, t->rank)];
        const enum npuc_status s = whole_bytes(f, n, t);
        if (s != NPUC_OK)
            return s;
        if (i && len != trips)
            return node_error(f->cx, n, D_RUN_FAULT, "scan input %d has %" PRId64 " elements, the first %" PRId64, i,
                              len, trips);
        trips = len;
    }
    for (int i = 0; i < n_state; i++)
        l.in[i] = in[i];
    struct k_tensor *slice = ARENA_ARRAY(f->a, struct k_tensor, n_scan_in + 1);
    for (int64_t trip = 0; trip < trips; trip++) {
        for (int i = 0; i < n_scan_in; i++) {
            const struct k_tensor *t = in[n_state + i];
            const int64_t at = is_reversed(n, "scan_input_directions", i) ? trips - 1 - trip : trip;
            slice[i] = take(f, t, axis_of(n, "scan_input_axes", i, t->rank), at);
            l.in[n_state + i] = &slice[i];
        }
        const enum npuc_status s = frame_body(f, l.body, l.in, l.result);
        if (s != NPUC_OK)
            return s;
        loop_advance(f, &l, 0, 0);
    }
    return loop_finish(f, n, &l, 0, out);
}
