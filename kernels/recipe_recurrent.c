/* RNN, GRU, LSTM: one product of all steps' inputs with the weights, then a scan over the steps.
 *
 * Sums of a gate: (x W^T + bias) + h R^T, where bias is Wb + Rb, save the last gate of a GRU with linear_before_reset,
 * whose Rb is added to h R^T before the reset gate multiplies it. Everything is computed in float (double for f64) and
 * rounded to the element type at the end. `clip` bounds the sums of the gates (not the cell on its way into the last
 * activation, as onnxruntime reads the standard). A batch entry that is shorter
 * than the sequence keeps its state and gives zeros beyond its length; backwards it begins at its own end. */
#include <string.h>

#include "kernels/recipe.h"

/* --- activations --- */

struct act_kind {
    const char *name, *op;
    int params;        /* how many of alpha, beta it has */
    float alpha, beta; /* defaults */
};
static const struct act_kind act_kinds[] = {
    {"Affine", NULL, 2, 1.0f, 0.0f},
    {"Elu", "Elu", 1, 1.0f, 0},
    {"HardSigmoid", "HardSigmoid", 2, 0.2f, 0.5f},
    {"LeakyRelu", "LeakyRelu", 1, 0.01f, 0},
    {"Relu", "Relu", 0, 0, 0},
    {"ScaledTanh", "Tanh", 2, 1.0f, 1.0f},
    {"Sigmoid", "Sigmoid", 0, 0, 0},
    {"Softplus", "Softplus", 0, 0, 0},
    {"Softsign", "Softsign", 0, 0, 0},
    {"Tanh", "Tanh", 0, 0, 0},
    {"ThresholdedRelu", "ThresholdedRelu", 1, 1.0f, 0},
};
struct act {
    const struct act_kind *kind;
    float alpha, beta;
};

static rval scaled(struct recipe *r, rval x, float by)
{
    return by == 1.0f ? x : r2(r, "Mul", x, r_real(r, r_type(r, x), (double)by));
}
static rval activate(struct recipe *r, const struct act *a, rval x)
{
    const struct k_attr attrs[2] = {{"alpha", K_ATTR_FLOAT, 0, {.f = a->alpha}},
                                    {"beta", K_ATTR_FLOAT, 0, {.f = a->beta}}};
    if (strcmp(a->kind->name, "Affine") == 0) {
        x = scaled(r, x, a->alpha);
        return a->beta == 0 ? x : r2(r, "Add", x, r_real(r, r_type(r, x), (double)a->beta));
    }
    if (strcmp(a->kind->name, "ScaledTanh") == 0)
        return scaled(r, r1(r, "Tanh", scaled(r, x, a->beta)), a->alpha);
    return r_node(r, a->kind->op, 1, &x, a->kind->params, attrs);
}

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}
static bool same_word(const char *a, const char *b, int64_t len)
{
    for (int64_t i = 0; i < len; i++)
        if (!b[i] || lower(a[i]) != lower(b[i]))
            return false;
    return b[len] == 0;
}
static float next_param(const struct k_attr *list, int64_t *at, float otherwise)
{
    return list && list->kind == K_ATTR_FLOATS && *at < list->len ? list->v.floats[(*at)++] : otherwise;
}

/* --- the operator --- */

enum { MAX_ACTS = 3, MAX_GATES = 4 };
struct rnn;
typedef void cell_fn(struct recipe *r, const struct rnn *n, rval x, const rval *state, rval *next);

/* One direction. Gates follow each other along the last axis of x W^T. */
struct rnn {
    cell_fn *cell;
    int gates, n_acts, n_state;
    int64_t hidden;
    struct act act[2 * MAX_ACTS], *f; /* of both directions; of this one */
    float clip;                       /* 0: none */
    bool input_forget, linear_before_reset;
    rval recur;             /* R transposed, [hidden, gates*hidden] */
    rval recur_zr, recur_h; /* of a GRU without linear_before_reset: its first two gates, its last */
    rval recur_bias;        /* of the last gate of a GRU with linear_before_reset, or NULL */
    rval peephole[3];       /* [hidden] each, or NULL */
    rval zero;              /* scalar */
};

static rval gate(struct recipe *r, const struct rnn *n, rval x, int i)
{
    return n->gates == 1 ? x : r_slice(r, x, 1, i * n->hidden, (i + 1) * n->hidden);
}
static rval clipped(struct recipe *r, const struct rnn *n, rval x)
{
    if (n->clip <= 0)
        return x;
    const enum dtype t = r_type(r, x);
    return r3(r, "Clip", x, r_real(r, t, -(double)n->clip), r_real(r, t, (double)n->clip));
}
static rval act_on(struct recipe *r, const struct rnn *n, int which, rval x)
{
    return activate(r, &n->f[which], clipped(r, n, x));
}

static void rnn_cell(struct recipe *r, const struct rnn *n, rval x, const rval *state, rval *next)
{
    next[0] = act_on(r, n, 0, r2(r, "Add", x, r2(r, "MatMul", state[0], n->recur)));
}

/* Gates z, r, h. */
static void gru_cell(struct recipe *r, const struct rnn *n, rval x, const rval *state, rval *next)
{
    const rval h = state[0];
    const int64_t size = n->hidden;
    rval z, reset, hidden;
    if (n->linear_before_reset) {
        const rval all = r2(r, "MatMul", h, n->recur);
        z = act_on(r, n, 0, r2(r, "Add", gate(r, n, x, 0), gate(r, n, all, 0)));
        reset = act_on(r, n, 0, r2(r, "Add", gate(r, n, x, 1), gate(r, n, all, 1)));
        hidden = gate(r, n, all, 2);
        if (n->recur_bias)
            hidden = r2(r, "Add", hidden, n->recur_bias);
        hidden = r2(r, "Mul", reset, hidden);
    } else {
        const rval two = r2(r, "MatMul", h, n->recur_zr);
        z = act_on(r, n, 0, r2(r, "Add", gate(r, n, x, 0), r_slice(r, two, 1, 0, size)));
        reset = act_on(r, n, 0, r2(r, "Add", gate(r, n, x, 1), r_slice(r, two, 1, size, 2 * size)));
        hidden = r2(r, "MatMul", r2(r, "Mul", reset, h), n->recur_h);
    }
    hidden = act_on(r, n, 1, r2(r, "Add", gate(r, n, x, 2), hidden));
    const rval one = r_real(r, r_type(r, z), 1);
    next[0] = r2(r, "Add", r2(r, "Mul", r2(r, "Sub", one, z), hidden), r2(r, "Mul", z, h));
}

static rval peep(struct recipe *r, const struct rnn *n, rval x, int which, rval c)
{
    return n->peephole[which] ? r2(r, "Add", x, r2(r, "Mul", n->peephole[which], c)) : x;
}
/* Gates i, o, f, c; peepholes i, o, f. */
static void lstm_cell(struct recipe *r, const struct rnn *n, rval x, const rval *state, rval *next)
{
    const rval c = state[1], all = r2(r, "Add", x, r2(r, "MatMul", state[0], n->recur));
    const rval in = act_on(r, n, 0, peep(r, n, gate(r, n, all, 0), 0, c));
    rval forget;
    if (n->input_forget)
        forget = r2(r, "Sub", r_real(r, r_type(r, in), 1), in);
    else
        forget = act_on(r, n, 0, peep(r, n, gate(r, n, all, 2), 2, c));
    const rval fresh = act_on(r, n, 1, gate(r, n, all, 3));
    next[1] = r2(r, "Add", r2(r, "Mul", forget, c), r2(r, "Mul", in, fresh));
    const rval out = act_on(r, n, 0, peep(r, n, gate(r, n, all, 1), 1, next[1]));
    next[0] = r2(r, "Mul", out, activate(r, &n->f[2], next[1]));
}

/* Items: x W^T + bias [batch, gates*hidden], then where lengths are given: is the step within them? bool [batch, 1] */
static void rnn_step(struct recipe *r, void *arg, const rval *state, const rval *item, rval *next, rval *stacked)
{
    const struct rnn *n = arg;
    n->cell(r, n, item[0], state, next);
    stacked[0] = next[0];
    if (!item[1])
        return;
    stacked[0] = r3(r, "Where", item[1], next[0], n->zero);
    for (int i = 0; i < n->n_state; i++)
        next[i] = r3(r, "Where", item[1], next[i], state[i]);
}

/* --- operands --- */

enum { IN_X, IN_W, IN_R, IN_B, IN_LENS, IN_H, IN_C, IN_P };

static enum npuc_status read_acts(struct recipe *r, struct rnn *n, int directions, const char *const *otherwise)
{
    const struct k_attr *names = k_attr_find(r->c, "activations"), *alpha = k_attr_find(r->c, "activation_alpha"),
                        *beta = k_attr_find(r->c, "activation_beta");
    const bool given = names && names->kind == K_ATTR_STRINGS && names->len > 0;
    int64_t at_alpha = 0, at_beta = 0;
    if (given && names->len != directions * n->n_acts)
        return r_fail(r, "%lld activations, expected %d", (long long)names->len, directions * n->n_acts);
    for (int i = 0; i < directions * n->n_acts; i++) {
        const char *want = given ? names->v.strings[i].text : otherwise[i % n->n_acts];
        const int64_t len = given ? names->v.strings[i].len : (int64_t)strlen(want);
        struct act *a = &n->act[i];
        a->kind = NULL;
        for (int64_t k = 0; k < NPUC_ARRAY_LEN(act_kinds); k++)
            if (same_word(want, act_kinds[k].name, len))
                a->kind = &act_kinds[k];
        if (!a->kind)
            return r_fail(r, "no activation '%.*s'", (int)(len > 40 ? 40 : len), want);
        a->alpha = a->kind->params > 0 ? next_param(alpha, &at_alpha, a->kind->alpha) : 0;
        a->beta = a->kind->params > 1 ? next_param(beta, &at_beta, a->kind->beta) : 0;
    }
    return NPUC_OK;
}

/* Part `dir` of an input [directions, ...], as type t, without that axis. */
static rval of_direction(struct recipe *r, int i, int dir, enum dtype t)
{
    return r_cast(r, r_squeeze(r, r_slice(r, r->in[i], 0, dir, dir + 1), 0), t);
}

static rval bias_of(struct recipe *r, struct rnn *n, int dir, enum dtype t)
{
    const int64_t all = n->gates * n->hidden;
    if (!r->in[IN_B])
        return NULL;
    const rval b = of_direction(r, IN_B, dir, t), wb = r_slice(r, b, 0, 0, all);
    if (!n->linear_before_reset)
        return r2(r, "Add", wb, r_slice(r, b, 0, all, 2 * all));
    const int64_t two = 2 * n->hidden;
    n->recur_bias = r_slice(r, b, 0, all + two, 2 * all);
    const rval gates = r2(r, "Add", r_slice(r, wb, 0, 0, two), r_slice(r, b, 0, all, all + two));
    return r_concat(r, (rval[]){gates, r_slice(r, wb, 0, two, all)}, 2, 0);
}

/* initial_h or initial_c for a direction: [batch, hidden] */
static rval initial(struct recipe *r, const struct rnn *n, int i, int dir, bool batch_first, rval x, enum dtype t)
{
    const rdim dims[2] = {r_dim(r, x, 1), r->d->number(r, n->hidden)};
    if (!r->in[i])
        return r_zeros(r, t, dims, 2);
    const int axis = batch_first ? 1 : 0;
    return r_cast(r, r_squeeze(r, r_slice(r, r->in[i], axis, dir, dir + 1), axis), t);
}

/* bool [steps, batch, 1]: step < length */
static rval within(struct recipe *r, rval x)
{
    const rdim steps = r_dim(r, x, 0);
    const int64_t zero = 0, one = 1;
    const rval from = r_squeeze(r, r_ints(r, &zero, 1), 0), by = r_squeeze(r, r_ints(r, &one, 1), 0);
    const rval to = r->status == NPUC_OK ? r_squeeze(r, r->d->sizes(r, &steps, 1), 0) : NULL;
    const rval at = r_unsqueeze(r, r3(r, "Range", from, to, by), 1);
    const rval lens = r_unsqueeze(r, r_cast(r, r->in[IN_LENS], DT_I64), 0);
    return r_unsqueeze(r, r2(r, "Less", at, lens), 2);
}

struct results {
    rval y[2], last[2][2]; /* by direction: all steps, the last states */
};

static void run_direction(struct recipe *r, struct rnn *n, int dir, bool reverse, rval x, rval mask, struct results *to)
{
    const enum dtype t = r_type(r, x);
    const bool batch_first = k_attr_int(r->c, "layout", 0) != 0;
    n->recur_bias = NULL;
    rval xw = r2(r, "MatMul", x, r_swap(r, of_direction(r, IN_W, dir, t)));
    const rval bias = bias_of(r, n, dir, t);
    if (bias)
        xw = r2(r, "Add", xw, bias);
    n->recur = r_swap(r, of_direction(r, IN_R, dir, t));
    if (n->gates == 3 && !n->linear_before_reset) {
        n->recur_zr = r_slice(r, n->recur, 1, 0, 2 * n->hidden);
        n->recur_h = r_slice(r, n->recur, 1, 2 * n->hidden, 3 * n->hidden);
    }
    const rval p = n->n_state == 2 && r->in[IN_P] ? of_direction(r, IN_P, dir, t) : NULL;
    for (int i = 0; i < 3; i++)
        n->peephole[i] = p ? r_slice(r, p, 0, i * n->hidden, (i + 1) * n->hidden) : NULL;
    n->zero = r_real(r, t, 0);
    struct r_scan s = {.n_state = n->n_state,
                       .n_item = mask ? 2 : 1,
                       .n_stacked = 1,
                       .item = {xw, mask},
                       .reverse = reverse,
                       .body = rnn_step,
                       .arg = n};
    for (int i = 0; i < n->n_state; i++)
        s.state[i] = initial(r, n, IN_H + i, dir, batch_first, x, t);
    if (r->status == NPUC_OK)
        r->d->scan(r, &s);
    to->y[dir] = s.stacked[0];
    to->last[0][dir] = s.state[0];
    to->last[1][dir] = s.state[1];
}

/* Directions side by side on a new axis, as type t. */
static rval joined(struct recipe *r, const rval *x, int directions, int axis, enum dtype t)
{
    rval part[2] = {NULL, NULL};
    for (int i = 0; i < directions; i++)
        part[i] = r_unsqueeze(r, x[i], axis);
    return r_cast(r, r_concat(r, part, directions, axis), t);
}

static enum npuc_status recurrent(struct recipe *r, struct rnn *n, const char *const *acts)
{
    const char *way = k_attr_str(r->c, "direction", "forward");
    const int directions = strcmp(way, "bidirectional") == 0 ? 2 : 1;
    const bool batch_first = k_attr_int(r->c, "layout", 0) != 0;
    if (!r->in[IN_X] || !r->in[IN_W] || !r->in[IN_R] || r_rank(r, r->in[IN_X]) != 3 || r_rank(r, r->in[IN_R]) != 3)
        return r_fail(r, "X, W and R of rank 3 are needed");
    if (!r_size(r, r->in[IN_R], 2, &n->hidden))
        return r_fail(r, "the hidden size is not known");
    n->clip = k_attr_float(r->c, "clip", 0);
    if (read_acts(r, n, directions, acts) != NPUC_OK)
        return r->status;
    const enum dtype t = r_type(r, r->in[IN_X]);
    rval x = r_cast(r, r->in[IN_X], r_wide(t));
    if (batch_first)
        x = r_perm(r, x, 3, (const int64_t[]){1, 0, 2});
    const rval mask = r->in[IN_LENS] ? within(r, x) : NULL;
    struct results to = {0};
    for (int dir = 0; dir < directions && r->status == NPUC_OK; dir++) {
        n->f = n->act + dir * n->n_acts;
        run_direction(r, n, dir, dir == 1 || strcmp(way, "reverse") == 0, x, mask, &to);
    }
    r->out[0] = joined(r, to.y, directions, 1, t); /* [steps, directions, batch, hidden] */
    if (batch_first)
        r->out[0] = r_perm(r, r->out[0], 4, (const int64_t[]){2, 0, 1, 3});
    for (int i = 0; i < n->n_state; i++)
        r->out[1 + i] = joined(r, to.last[i], directions, batch_first ? 1 : 0, t);
    return r->status;
}

enum npuc_status recipe_rnn(struct recipe *r)
{
    static const char *const acts[] = {"Tanh"};
    struct rnn n = {.cell = rnn_cell, .gates = 1, .n_acts = 1, .n_state = 1};
    return recurrent(r, &n, acts);
}
enum npuc_status recipe_gru(struct recipe *r)
{
    static const char *const acts[] = {"Sigmoid", "Tanh"};
    struct rnn n = {.cell = gru_cell,
                    .gates = 3,
                    .n_acts = 2,
                    .n_state = 1,
                    .linear_before_reset = k_attr_int(r->c, "linear_before_reset", 0) != 0};
    return recurrent(r, &n, acts);
}
enum npuc_status recipe_lstm(struct recipe *r)
{
    static const char *const acts[] = {"Sigmoid", "Tanh", "Tanh"};
    struct rnn n = {.cell = lstm_cell,
                    .gates = 4,
                    .n_acts = 3,
                    .n_state = 2,
                    .input_forget = k_attr_int(r->c, "input_forget", 0) != 0};
    return recurrent(r, &n, acts);
}
