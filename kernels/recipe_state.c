/* Operators that carry a state from call to call: LinearAttention and CausalConvWithState. */
#include <math.h>
#include <string.h>

#include "kernels/recipe.h"

/* --- LinearAttention ---
 *
 * In float, for every token and key-value head, with the state S [dk, dv]:
 *   S = S * exp(decay)                        gated rules
 *   v = beta * (v - k S)                      delta rules
 *   S = S + k^T v
 *   y = (q S) * scale                         for each query head of the group
 * k S and q S are products with k ascending. With more key-value heads than query heads (com.microsoft) a query head
 * serves a group of key-value heads. state_window W > 0: states have a leading axis of the last W tokens. */

struct linear {
    bool gated, delta;
    float scale;
};

/* Items: q [B, heads, group, dk], k [B, heads, 1, dk], v [B, heads, 1, dv], decay [B, heads, dk or 1, 1],
 * beta [B, heads or 1, 1, 1]; the state is [B, heads, dk, dv]. */
static void linear_step(struct recipe *r, void *arg, const rval *state, const rval *item, rval *next, rval *stacked)
{
    const struct linear *a = arg;
    rval s = state[0], v = item[2];
    if (a->gated)
        s = r2(r, "Mul", s, r1(r, "Exp", item[3]));
    if (a->delta)
        v = r2(r, "Mul", item[4], r2(r, "Sub", v, r2(r, "MatMul", item[1], s)));
    s = r2(r, "Add", s, r2(r, "Mul", r_swap(r, item[1]), v));
    next[0] = s;
    stacked[0] = r2(r, "Mul", r2(r, "MatMul", item[0], s), r_real(r, DT_F32, (double)a->scale));
    stacked[1] = s;
}

/* [B, T, heads*rows*width] as float [T, B, heads, rows, width] */
static rval by_token(struct recipe *r, rval x, rdim heads, rdim rows, rdim width)
{
    const rdim dims[5] = {r_dim(r, x, 0), r_dim(r, x, 1), heads, rows, width};
    return r_perm(r, r_shape(r, r_cast(r, x, DT_F32), dims, 5), 5, (const int64_t[]){1, 0, 2, 3, 4});
}

struct linear_sizes {
    int64_t q_heads, kv_heads, group, dk, dv;
    int64_t window;
};

static enum npuc_status linear_read(struct recipe *r, struct linear *a, struct linear_sizes *z)
{
    const char *rule = k_attr_str(r->c, "update_rule", "gated_delta");
    *a = (struct linear){.gated = strncmp(rule, "gated", 5) == 0, .delta = strstr(rule, "delta") != NULL};
    *z = (struct linear_sizes){.q_heads = k_attr_int(r->c, "q_num_heads", 0),
                               .kv_heads = k_attr_int(r->c, "kv_num_heads", 0),
                               .window = k_attr_int(r->c, "state_window", 0)};
    const bool fits =
        z->q_heads > 0 && z->kv_heads > 0 && (z->q_heads % z->kv_heads == 0 || z->kv_heads % z->q_heads == 0);
    int64_t wq = 0, wv = 0;
    if (!fits || !r->in[0] || !r->in[1] || !r->in[2])
        return r_fail(r, "the numbers of heads do not fit each other");
    if (!r_size(r, r->in[0], 2, &wq) || !r_size(r, r->in[2], 2, &wv))
        return r_fail(r, "the sizes of the heads are not known");
    if (a->gated != (r->in[4] != NULL) || a->delta != (r->in[5] != NULL))
        return r_fail(r, "decay and beta do not fit the update_rule");
    z->group = z->q_heads > z->kv_heads ? z->q_heads / z->kv_heads : 1;
    z->dk = wq / z->q_heads;
    z->dv = wv / z->kv_heads;
    a->scale = k_attr_float(r->c, "scale", 0);
    if (a->scale == 0)
        a->scale = 1.0f / sqrtf((float)z->dk);
    return NPUC_OK;
}

/* decay [B, T, heads] or [B, T, heads*dk] */
static rval decay_items(struct recipe *r, const struct linear_sizes *z)
{
    int64_t width = 0;
    if (!r_size(r, r->in[4], 2, &width))
        r_fail(r, "the width of decay is not known");
    if (width != z->kv_heads && width != z->kv_heads * z->dk)
        r_fail(r, "decay has %lld columns, expected one per head or per key dimension", (long long)width);
    const rdim heads = r->d->number(r, z->kv_heads), rows = r->d->number(r, width == z->kv_heads ? 1 : z->dk);
    return by_token(r, r->in[4], heads, rows, r->d->number(r, 1));
}

/* The query of a key-value head: [T, B, heads, group, dk]; with fewer query heads each is repeated. */
static rval query_items(struct recipe *r, const struct linear_sizes *z)
{
    const rdim dk = r->d->number(r, z->dk), one = r->d->number(r, 1), heads = r->d->number(r, z->kv_heads);
    if (z->q_heads >= z->kv_heads)
        return by_token(r, r->in[0], heads, r->d->number(r, z->group), dk);
    const rdim q = r->d->number(r, z->q_heads), times = r->d->number(r, z->kv_heads / z->q_heads);
    const rval x = by_token(r, r->in[0], q, one, dk);
    const rdim spread[5] = {r_dim(r, x, 0), r_dim(r, x, 1), q, times, dk},
               full[5] = {spread[0], spread[1], heads, one, dk};
    return r_shape(r, r_expand(r, x, spread, 5), full, 5);
}

/* Last W of the states [T, B, ...], after zeros where there are fewer. */
static rval last_states(struct recipe *r, rval all, int64_t window)
{
    const rdim lead[5] = {r->d->number(r, window), r_dim(r, all, 1), r_dim(r, all, 2), r_dim(r, all, 3),
                          r_dim(r, all, 4)};
    const rval padded = r_concat(r, (rval[]){r_zeros(r, DT_F32, lead, 5), all}, 2, 0);
    return r_slice(r, padded, 0, -window, INT64_MAX);
}

enum npuc_status recipe_linear_attention(struct recipe *r)
{
    struct linear a;
    struct linear_sizes z;
    if (linear_read(r, &a, &z) != NPUC_OK)
        return r->status;
    const enum dtype t = r_type(r, r->in[0]), ts = r->in[3] ? r_type(r, r->in[3]) : t;
    const rdim heads = r->d->number(r, z.kv_heads), one = r->d->number(r, 1), dk = r->d->number(r, z.dk),
               dv = r->d->number(r, z.dv), batch = r_dim(r, r->in[0], 0), tokens = r_dim(r, r->in[0], 1);
    struct r_scan s = {.n_state = 1, .n_stacked = z.window > 0 ? 2 : 1, .n_item = 3, .body = linear_step, .arg = &a};
    s.item[0] = query_items(r, &z);
    s.item[1] = by_token(r, r->in[1], heads, one, dk);
    s.item[2] = by_token(r, r->in[2], heads, one, dv);
    if (a.gated || a.delta) {
        s.item[3] = a.gated ? decay_items(r, &z) : s.item[2]; /* a place is never left open */
        s.n_item = 4;
    }
    if (a.delta) {
        int64_t width = 0;
        if (!r_size(r, r->in[5], 2, &width) || (width != 1 && width != z.kv_heads))
            r_fail(r, "beta has %lld columns, expected 1 or one per head", (long long)width);
        s.item[4] = by_token(r, r->in[5], r->d->number(r, width), one, one);
        s.n_item = 5;
    }
    rval past = r->in[3];
    if (past && z.window > 0)
        past = r_squeeze(r, r_slice(r, past, 0, z.window - 1, z.window), 0);
    const rdim state[4] = {batch, heads, dk, dv};
    s.state[0] = past ? r_cast(r, past, DT_F32) : r_zeros(r, DT_F32, state, 4);
    if (r->status == NPUC_OK)
        r->d->scan(r, &s);
    const rdim out[3] = {batch, tokens, r->d->number(r, z.kv_heads * z.group * z.dv)};
    r->out[0] = r_cast(r, r_shape(r, r_perm(r, s.stacked[0], 5, (const int64_t[]){1, 0, 2, 3, 4}), out, 3), t);
    r->out[1] = r_cast(r, z.window > 0 ? last_states(r, s.stacked[1], z.window) : s.state[0], ts);
    return r->status;
}

/* --- CausalConvWithState ---
 *
 * Concat(state, input) convolved channel by channel without padding, activated; the new state is the end of the
 * concatenation. com.microsoft adds dilation, channels_last (any number of channel axes), two or three spatial
 * axes of which the last is causal, and state_window: the states after each of the last W positions, newest last. */

struct causal {
    int64_t dilation, window, ndim, lead; /* lead: positions that the state holds */
    bool last;                            /* channels last */
    rval x, state;                        /* [B, C, spatial..., L] and [B, C, spatial..., lead] */
};

/* [B, L, d1, ..] to [B, C, L] */
static rval channels_first(struct recipe *r, rval x)
{
    rdim channels = r_dim(r, x, 2);
    for (int i = 3; i < r_rank(r, x); i++)
        channels = r->d->combine(r, '*', channels, r_dim(r, x, i));
    const rdim dims[3] = {r_dim(r, x, 0), r_dim(r, x, 1), channels};
    return r_swap(r, r_shape(r, x, dims, 3));
}
/* and back, with the channel axes of `like` */
static rval channels_last(struct recipe *r, rval x, rval like)
{
    rdim dims[K_MAX_RANK] = {r_dim(r, x, 0), r_dim(r, x, 2)};
    const int rank = r_rank(r, like);
    for (int i = 2; i < rank; i++)
        dims[i] = r_dim(r, like, i);
    return r_shape(r, r_swap(r, x), dims, rank);
}

/* Spatial axes before the causal one are padded as much as their kernels reach, on both sides alike. */
static rval conv(struct recipe *r, const struct causal *a, rval padded)
{
    int64_t group = 0, dilations[3] = {1, 1, 1}, pads[6] = {0};
    if (!r_size(r, r->in[1], 0, &group))
        r_fail(r, "the number of channels is not known");
    for (int i = 0; i + 1 < a->ndim; i++) {
        int64_t k = 0;
        if (!r_size(r, r->in[1], 2 + i, &k))
            r_fail(r, "the kernel's size is not known");
        pads[i] = (k - 1) / 2;
        pads[i + a->ndim] = k - 1 - pads[i];
    }
    dilations[a->ndim - 1] = a->dilation;
    const struct k_attr attrs[3] = {r_int("group", group),
                                    {"dilations", K_ATTR_INTS, a->ndim, {.ints = dilations}},
                                    {"pads", K_ATTR_INTS, 2 * a->ndim, {.ints = pads}}};
    return r_node(r, "Conv", r->in[2] ? 3 : 2, (rval[]){padded, r->in[1], r->in[2]}, 3, attrs);
}

/* Slot j of W: the state after position L - W + j; zeros where that lies before this call. */
static rval state_slots(struct recipe *r, const struct causal *a, rval padded)
{
    const int rank = r_rank(r, padded);
    int64_t have = 0;
    rval slot[8];
    if (!r_size(r, a->x, -1, &have) || a->window > 8) {
        r_fail(r, "a state window needs a known length");
        return NULL;
    }
    rdim dims[K_MAX_RANK];
    for (int i = 0; i < rank; i++)
        dims[i] = i == rank - 1 ? r->d->number(r, a->lead) : r_dim(r, padded, i);
    for (int64_t j = 0; j < a->window; j++) {
        const int64_t end = have - a->window + j + 1; /* positions of this call that the slot has seen */
        slot[j] =
            end > 0 ? r_slice(r, padded, rank - 1, end, end + a->lead) : r_zeros(r, r_type(r, padded), dims, rank);
        if (a->last)
            slot[j] = channels_last(r, slot[j], r->in[0]);
        slot[j] = r_unsqueeze(r, slot[j], 0);
    }
    return r_concat(r, slot, (int)a->window, 0);
}

enum npuc_status recipe_causal_conv(struct recipe *r)
{
    struct causal a = {.dilation = k_attr_int(r->c, "dilation", 1),
                       .window = k_attr_int(r->c, "state_window", 0),
                       .ndim = k_attr_int(r->c, "ndim", 1),
                       .last = k_attr_int(r->c, "channels_last", 0) != 0};
    const char *act = k_attr_str(r->c, "activation", "none");
    int64_t k = 0;
    if (!r->in[0] || !r->in[1] || a.ndim < 1 || a.ndim > 3 || (a.last && a.ndim > 1) || a.dilation < 1 ||
        r_rank(r, r->in[1]) != a.ndim + 2)
        return r_fail(r, "the input, the weight and ndim do not fit each other");
    if (!r_size(r, r->in[1], -1, &k))
        return r_fail(r, "the kernel's size is not known");
    a.lead = (k - 1) * a.dilation;
    a.x = a.last ? channels_first(r, r->in[0]) : r->in[0];
    const int rank = r_rank(r, a.x);
    rval state = r->in[3];
    if (state && a.window > 0)
        state = r_squeeze(r, r_slice(r, state, 0, a.window - 1, a.window), 0);
    if (state)
        state = a.last ? channels_first(r, state) : state;
    rdim dims[K_MAX_RANK];
    for (int i = 0; i < rank; i++)
        dims[i] = i == rank - 1 ? r->d->number(r, a.lead) : r_dim(r, a.x, i);
    const rval pad = state ? state : r_zeros(r, r_type(r, a.x), dims, rank);
    const rval padded = r_concat(r, (rval[]){pad, a.x}, 2, rank - 1);
    rval y = conv(r, &a, padded);
    if (strcmp(act, "none") != 0)
        y = r1(r, "Swish", y);
    r->out[0] = a.last ? channels_last(r, y, r->in[0]) : y;
    if (a.window > 0) {
        r->out[1] = state_slots(r, &a, padded);
        return r->status;
    }
    const rdim length = r_dim(r, a.x, -1), end = r_dim(r, padded, -1);
    const rval present = r_slice_dims(r, padded, rank - 1, length, end);
    r->out[1] = a.last ? channels_last(r, present, r->in[0]) : present;
    return r->status;
}
