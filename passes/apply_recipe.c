/* Products with constant weights as a recipe wants them, in ONNX's own form: operands that are quantised and
 * dequantised.
 *
 *   %y = MatMul %x, %w                                                        (%w constant, [k, n])
 * becomes, for weights in groups of codes,
 *   %y = MatMul %x, (DequantizeLinear %codes, %scales {axis=0, block_size=32})
 * and for 8-bit activations as well
 *   %q = QuantizeLinear %x, %s, %z                                            one for all products of %x
 *   %y = MatMul (DequantizeLinear %q, %s, %z), (DequantizeLinear %codes, %scales {axis=1})
 * A scale per token is computed from the row: %s = Max (ReduceMax (Abs %x), tiny) / most, block_size the whole row; one
 * per group from rows of that length, to powers of two by a Cast to f8e8m0. Scales of a weight that are E4M3 or
 * whole numbers are dequantised themselves, by one number or one per channel.
 * Before that both operands are smoothed and rotated, behind it the result is corrected (recipe_terms.c).
 *
 * Requirements: (1) runs first, so that names are those of the file and --export-qdq writes the rest as it was; (2) the
 * forms are those that recover_integer and recover_quant read, so that a model that came with them and one that a
 * recipe made give the same kernels; (3) a product made here has no constant weight any more, so it terminates. Left
 * alone: products the recipe does not name or keeps, transposed left operands, weights of several matrices, grouped
 * scales of convolutions. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "ir/eval.h"
#include "kernels/wide.h"
#include "passes/match.h"
#include "passes/product_names.h"
#include "passes/recipe_input.h"
#include "passes/recipe_terms.h"

struct product {
    struct node *n;
    const char *name;
    const struct quant_product *form;
    struct k_tensor w;
    int channel_axis; /* of w */
};

static enum npuc_status refuse(struct pass_ctx *px, const struct product *p, const char *what)
{
    return node_error(px->cx, p->n, D_MODEL, "the recipe cannot be applied to it: %s", what);
}

/* ---- the weight as the model has it */

/* A constant seen through casts and transposes, which are computed. */
static bool read_constant(struct pass_ctx *px, const struct value *v, struct k_tensor *out)
{
    const struct blob *blob = value_const(v);
    if (blob)
        return blob_tensor(px->cx, v->type, blob, out);
    struct k_tensor inner;
    const struct node *n = v->def;
    if (!n || (n->op != OP_Cast && n->op != OP_Transpose) || !read_constant(px, node_in(n, 0), &inner))
        return false;
    return ir_eval_node(px->cx, n, (const struct k_tensor *const[]){&inner}, NULL, out, &px->arena) == NPUC_OK;
}

static bool is_constant(const struct value *v)
{
    while (v->def && (v->def->op == OP_Cast || v->def->op == OP_Transpose))
        v = node_in(v->def, 0);
    return value_const(v) != NULL;
}

static bool is_plain_left(const struct node *n)
{
    return node_attr_int(n, "transA", 0) == 0 && node_attr_int(n, "transBatchA", 0) == 0 &&
           node_attr_int(n, "transBatchB", 0) == 0;
}

/* Filters, or a matrix, also one below dimensions of 1 that the result has from the left operand. */
static bool is_one_weight(const struct pass_ctx *px, const struct node *n)
{
    const struct type *w = node_in(n, 1)->type;
    int64_t size;
    if (n->op == OP_Conv)
        return w->rank >= 3;
    for (int i = 0; i < w->rank - 2; i++)
        if (!expr_is_const(&px->cx->exprs, w->dims[i], &size) || size != 1)
            return false;
    return w->rank == 2 || (w->rank > 2 && node_in(n, 0)->type->rank >= w->rank);
}

static bool read_product(struct pass_ctx *px, struct node *n, struct product *p)
{
    const struct quantiser *q = px->options.quantiser;
    const bool conv = n->op == OP_Conv;
    if (!conv && n->op != OP_MatMul && n->op != OP_Gemm && n->op != OP_FusedMatMul)
        return false;
    if (!n->loc || n->loc->n < 1 || !is_constant(node_in(n, 1)) || !is_one_weight(px, n) || !is_plain_left(n) ||
        !dtype_is_float(n->out[0].type->dtype))
        return false;
    *p = (struct product){.n = n, .name = str_text(&px->cx->strings, n->loc->names[0])};
    p->form = q->product(q->user, n, p->name);
    p->channel_axis = conv || node_attr_int(n, "transB", 0) != 0 ? 0 : 1;
    if (!p->form || !read_constant(px, node_in(n, 1), &p->w))
        return false;
    for (; !conv && p->w.rank > 2; p->w.rank--)
        memmove(p->w.dims, p->w.dims + 1, (size_t)(p->w.rank - 1) * sizeof *p->w.dims);
    return true;
}

/* ---- codes */

enum { ROWS_AT_ONCE = 16 }; /* rows of a weight that are turned together: a cache line of floats */

/* [channels][k] in floats. */
static float *as_rows(struct pass_ctx *px, const struct product *p, int64_t channels, int64_t k)
{
    float *to = ARENA_ARRAY(&px->arena, float, channels *k + 1);
    if (p->channel_axis == 0) {
        k_load_f32(to, p->w.dtype, p->w.data, 0, channels * k);
        return to;
    }
    const struct arena_mark mark = arena_mark(&px->arena);
    float *part = ARENA_ARRAY(&px->arena, float, channels *ROWS_AT_ONCE + 1);
    for (int64_t i0 = 0; i0 < k; i0 += ROWS_AT_ONCE) {
        const int64_t n = k - i0 < ROWS_AT_ONCE ? k - i0 : ROWS_AT_ONCE;
        k_load_f32(part, p->w.dtype, p->w.data, i0 * channels, n * channels);
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < n; i++)
                to[c * k + i0 + i] = part[i * channels + c];
    }
    arena_release(&px->arena, mark);
    return to;
}

/* Element [c][i] of a matrix [channels][k] in the order of the weight. */
static int64_t index_of(const struct product *p, int64_t channels, int64_t k, int64_t c, int64_t i)
{
    return p->channel_axis == 0 ? c * k + i : i * channels + c;
}

struct shape {
    int rank;
    int64_t dims[K_MAX_RANK];
};

/* Codes [channels][cols]. */
struct code_rows {
    const int16_t *codes;
    enum dtype type;
    int64_t cols;
};

/* A constant of them in the order of the weight. */
static struct value *code_constant(struct pass_ctx *px, struct builder *b, const struct product *p,
                                   const struct code_rows *rows, const struct shape *s)
{
    const int64_t channels = p->w.dims[p->channel_axis], cols = rows->cols;
    const int16_t *codes = rows->codes;
    const enum dtype t = rows->type;
    struct k_tensor to = {.dtype = t, .rank = s->rank};
    if (!dtype_bytes(t, channels * cols, &to.size))
        return NULL;
    to.data = arena_zalloc(&px->arena, to.size + 8);
    if (dtype_table[t].bits > 8) {
        for (int64_t i = 0; i < channels * cols; i++)
            k_set_i64(&to, index_of(p, channels, cols, i / cols, i % cols), codes[i]);
        return ir_const(b, t, s->rank, s->dims, to.data, to.size);
    }
    const int64_t lines = p->channel_axis == 0 ? channels : cols, len = p->channel_axis == 0 ? cols : channels;
    uint8_t *part = ARENA_ARRAY(&px->arena, uint8_t, len * ROWS_AT_ONCE + 1);
    for (int64_t r = 0; r < lines; r += ROWS_AT_ONCE) {
        const int64_t n = lines - r < ROWS_AT_ONCE ? lines - r : ROWS_AT_ONCE;
        for (int64_t c = 0; c < len; c++)
            for (int64_t i = 0; i < n; i++)
                part[i * len + c] = (uint8_t)codes[p->channel_axis == 0 ? (r + i) * cols + c : c * cols + r + i];
        k_codes_store(t, to.data, r * len, part, n * len);
    }
    return ir_const(b, t, s->rank, s->dims, to.data, to.size);
}

static struct value *scale_constant(struct pass_ctx *px, struct builder *b, const struct product *p,
                                    const struct quant_codes *q, enum dtype t, const struct shape *s)
{
    const int64_t channels = s->rank == 0 ? 1 : p->w.dims[p->channel_axis];
    struct k_tensor to = {.dtype = t, .size = channels * q->groups * dtype_size(t)};
    to.data = arena_zalloc(&px->arena, to.size + 8);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t g = 0; g < q->groups; g++)
            k_set_f64(&to, index_of(p, channels, q->groups, c, g), (double)q->scales[c * q->groups + g]);
    return ir_const(b, t, s->rank, s->dims, to.data, to.size);
}

/* Scales of E4M3 are codes, dequantised by one number: the least power of two that has all of them in reach. */
static struct value *scales_of_codes(struct pass_ctx *px, struct builder *b, const struct product *p,
                                     struct quant_codes *q, const struct shape *s)
{
    const int64_t n = p->w.dims[p->channel_axis] * q->groups;
    double size = 0;
    int e;
    for (int64_t i = 0; i < n; i++)
        size = fmax(size, (double)q->scales[i]);
    const double rest = frexp(size / 448, &e), unit = ldexp(1, rest == 0.5 ? e - 1 : e);
    for (int64_t i = 0; i < n; i++)
        q->scales[i] = (float)((double)q->scales[i] / unit);
    struct value *codes = scale_constant(px, b, p, q, DT_F8E4M3FN, s), *one = ir_scalar_f32(b, (float)unit);
    const enum dtype t = p->n->out[0].type->dtype;
    return codes && one ? recipe_dequantize(b, (struct value *const[3]){codes, one, NULL}, t, 0, 0) : NULL;
}

/* Shape of the scales. */
static struct shape scale_shape(const struct product *p, const struct quant_operand *o, int64_t groups)
{
    const int64_t channels = p->w.dims[p->channel_axis];
    if (o->per == QUANT_PER_TENSOR)
        return (struct shape){0};
    if (o->per == QUANT_PER_CHANNEL)
        return (struct shape){1, {channels}};
    return p->channel_axis == 0 ? (struct shape){2, {channels, groups}} : (struct shape){2, {groups, channels}};
}

/* The largest number that all n scales are whole multiples of, at most 255 times; 0: there is none. */
static double base_of(const float *scales, int64_t n)
{
    float least = scales[0];
    for (int64_t i = 1; i < n; i++)
        least = scales[i] < least ? scales[i] : least;
    for (int times = 1; times <= 255; times++) {
        const double base = (double)least / times;
        bool all = (double)(float)base == base;
        for (int64_t i = 0; i < n && all; i++) {
            const double v = (double)scales[i] / base;
            all = v == nearbyint(v) && v <= 255;
        }
        if (all)
            return base;
    }
    return 0;
}

/* Scales that are whole numbers, dequantised by one number per channel. */
static struct value *whole_scales(struct pass_ctx *px, struct builder *b, const struct product *p,
                                  struct quant_codes *q, const struct shape *s)
{
    const int64_t channels = p->w.dims[p->channel_axis];
    const enum dtype t = p->n->out[0].type->dtype;
    struct k_tensor bases = {.dtype = t, .size = channels * dtype_size(t)};
    bases.data = arena_zalloc(&px->arena, bases.size + 8);
    for (int64_t c = 0; c < channels; c++) {
        float *scales = q->scales + c * q->groups;
        const double base = base_of(scales, q->groups);
        if (base == 0) {
            (void)refuse(px, p, "its scales are no whole multiples of one number per channel, as scales=uint8 are");
            return NULL;
        }
        k_set_f64(&bases, c, base);
        for (int64_t g = 0; g < q->groups; g++)
            scales[g] = (float)((double)scales[g] / base);
    }
    struct value *codes = scale_constant(px, b, p, q, DT_U8, s);
    struct value *one = ir_const(b, t, 1, &channels, bases.data, bases.size);
    return codes && one ? recipe_dequantize(b, (struct value *const[3]){codes, one, NULL}, t, p->channel_axis, 0)
                        : NULL;
}

static struct value *scale_value(struct pass_ctx *px, struct builder *b, const struct product *p, struct quant_codes *q,
                                 const struct shape *s)
{
    const enum dtype own = p->form->weight.scales;
    if (own == DT_F8E4M3FN)
        return scales_of_codes(px, b, p, q, s);
    if (own == DT_U8)
        return whole_scales(px, b, p, q, s);
    return scale_constant(px, b, p, q, own ? own : p->n->out[0].type->dtype, s);
}

/* The rows of the weight; of a convolution an input channel has an element for each position of a filter. */
static struct recipe_rows rows_of(const struct product *p, int64_t channels, int64_t k)
{
    const bool conv = p->n->op == OP_Conv;
    return (struct recipe_rows){channels, k, conv ? p->w.dims[1] : k, node_attr_int(p->n, "group", 1), conv};
}

static enum npuc_status code_weight(struct pass_ctx *px, const struct product *p, struct value **out)
{
    const struct quantiser *q = px->options.quantiser;
    const struct quant_operand *o = &p->form->weight;
    const enum dtype t = p->n->out[0].type->dtype;
    const int64_t channels = p->w.dims[p->channel_axis], k = channels ? k_count(&p->w) / channels : 0;
    struct quant_codes made = {0};
    if (o->per == QUANT_PER_GROUP && p->w.rank != 2)
        return refuse(px, p, "a convolution has no groups of weights; use per channel");
    float *rows = as_rows(px, p, channels, k);
    const struct quant_matrix m = {rows, channels, k, o->scales ? o->scales : t, NULL};
    const struct recipe_rows w = rows_of(p, channels, k);
    if (!recipe_turn_weight(px, p->form, rows, &w))
        return diag_error(px->cx->diag, NULL, D_HOST_MEMORY);
    const char *why = q->encode(q->user, p->name, o, &m, &made, &px->arena);
    if (why)
        return refuse(px, p, why);
    struct builder b = ir_at(p->n);
    const struct shape scales = scale_shape(p, o, made.groups);
    struct shape codes = {.rank = p->w.rank};
    memcpy(codes.dims, p->w.dims, sizeof codes.dims);
    struct value *const in[3] = {
        code_constant(px, &b, p, &(struct code_rows){made.codes, o->codes, k}, &codes),
        scale_value(px, &b, p, &made, &scales),
        made.zeros ? code_constant(px, &b, p, &(struct code_rows){made.zeros, o->codes, made.groups}, &scales) : NULL};
    const bool grouped = o->per == QUANT_PER_GROUP;
    if (in[0] && in[1])
        *out = recipe_dequantize(&b, in, t, grouped ? 1 - p->channel_axis : p->channel_axis, grouped ? o->group : 0);
    return *out ? NPUC_OK : pass_failure(px);
}

/* A weight that is turned but has no codes: floats as before. */
static enum npuc_status turn_weight(struct pass_ctx *px, const struct product *p, struct value **out)
{
    const int64_t channels = p->w.dims[p->channel_axis], k = channels ? k_count(&p->w) / channels : 0;
    float *rows = as_rows(px, p, channels, k);
    struct k_tensor to = p->w;
    const struct recipe_rows w = rows_of(p, channels, k);
    if (!recipe_turn_weight(px, p->form, rows, &w))
        return diag_error(px->cx->diag, NULL, D_HOST_MEMORY);
    to.data = arena_zalloc(&px->arena, to.size + 8);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < k; i++)
            k_set_f64(&to, index_of(p, channels, k, c, i), (double)rows[c * k + i]);
    struct builder b = ir_at(p->n);
    *out = ir_const(&b, to.dtype, to.rank, to.dims, to.data, to.size);
    return *out ? NPUC_OK : pass_failure(px);
}

/* ---- activations */

static bool same_operand(const struct quant_operand *a, const struct quant_operand *b)
{
    return a->codes == b->codes && a->per == b->per && a->scale == b->scale && a->zero == b->zero &&
           a->group == b->group && a->scales == b->scales && a->ceil == b->ceil && a->cast == b->cast &&
           a->dynamic == b->dynamic && a->away == b->away && a->narrow == b->narrow && a->divisor == b->divisor;
}

/* Do all that read x smooth it as this product does? */
static bool is_smoothed_alike(struct pass_ctx *px, const struct value *x, const struct quant_product *form)
{
    for_each_use (u, x) {
        struct product other;
        const struct arena_mark mark = arena_mark(&px->arena);
        const bool alike = u == &u->user->in[0] && u->user->graph == x->graph && read_product(px, u->user, &other) &&
                           recipe_turns_alike(other.form, form);
        arena_release(&px->arena, mark);
        if (!alike)
            return false;
    }
    return true;
}

/* What has been made of a value for products of one form; products of that form share it. */
struct turned {
    const struct quant_product *form;
    struct value *x;     /* smoothed and rotated */
    struct value *codes; /* of x; NULL: none yet */
    struct turned *next; /* of the same value */
};

static bool same_input(const struct quant_product *a, const struct quant_product *b)
{
    return same_operand(&a->input, &b->input) && recipe_turns_alike(a, b);
}

static struct builder behind(const struct value *x, struct node *user)
{
    struct builder b = x->def && x->def->next ? ir_at(x->def->next) : ir_at(x->graph->first);
    if (x->graph != user->graph)
        b = ir_at(user);
    b.loc = user->loc;
    return b;
}

/* The input of p as its form wants it, made once for all products that want the same. */
static struct value *shared_input(struct pass_ctx *px, const struct product *p, struct map *made)
{
    struct value *x = node_in(p->n, 0);
    const uint64_t *known = map_find(made, x->id);
    struct turned *first = known ? (struct turned *)(uintptr_t)*known : NULL, *same = first, *alike = first;
    while (same && !same_input(same->form, p->form))
        same = same->next;
    if (same)
        return same->codes;
    while (alike && !recipe_turns_alike(alike->form, p->form))
        alike = alike->next;
    struct turned *new = ARENA_NEW(&px->m->arena, struct turned);
    *new = (struct turned){.form = p->form, .x = alike ? alike->x : NULL};
    struct builder b = behind(x, p->n);
    if (!new->x) {
        bool folded;
        const bool alone = p->form->smooth.data && !px->options.quantiser->apart && is_smoothed_alike(px, x, p->form);
        new->x = recipe_turn_input(px, &b, p->n, p->form, alone, &folded);
        pass_count(px, STAT_apply_recipe_turned, recipe_turns(p->form) && new->x);
        pass_count(px, STAT_apply_recipe_folded, folded);
    } else if (new->x != x) {
        b = behind(new->x, p->n);
    }
    const struct quant_operand *o = &p->form->input;
    new->codes = new->x;
    if (new->x && o->codes != DT_NONE)
        new->codes =
            recipe_code_input(&b, new->x, o, p->n->op == OP_Conv ? 0 : k_count(&p->w) / p->w.dims[p->channel_axis]);
    if (!first)
        map_put(made, x->id, (uint64_t)(uintptr_t) new);
    else {
        new->next = first->next;
        first->next = new;
    }
    return new->codes;
}

/* Groups divide the last axis, which a convolution does not sum over. */
static const char *why_not_input(const struct product *p)
{
    const struct quant_operand *o = &p->form->input;
    const int64_t channels = p->w.dims[p->channel_axis], k = channels ? k_count(&p->w) / channels : 0;
    if (o->per != QUANT_PER_GROUP)
        return NULL;
    if (p->n->op == OP_Conv)
        return "the input of a convolution has no groups; use tensor";
    return k % o->group != 0 || node_in(p->n, 0)->type->rank >= IR_MAX_RANK
               ? "groups of its input do not divide its rows; use token"
               : NULL;
}

static enum npuc_status look(struct pass_ctx *px, const struct product *p)
{
    const struct quantiser *q = px->options.quantiser;
    const int64_t channels = p->w.dims[p->channel_axis], k = channels ? k_count(&p->w) / channels : 0;
    const struct quant_matrix m = {as_rows(px, p, channels, k), channels, k, p->n->out[0].type->dtype, NULL};
    const char *why = q->look(q->user, p->name, &m);
    return why ? refuse(px, p, why) : NPUC_OK;
}

static enum npuc_status apply(struct pass_ctx *px, const struct product *p, struct map *made)
{
    if (px->options.quantiser->look && p->form->weight.codes == DT_NONE)
        return look(px, p);
    const int64_t channels = p->w.dims[p->channel_axis], k = channels ? k_count(&p->w) / channels : 0;
    const struct recipe_rows rows = rows_of(p, channels, k);
    const char *why = recipe_turn_refusal(p->form, &rows);
    why = why ? why : why_not_input(p);
    if (why)
        return refuse(px, p, why);
    if (p->form->input.codes != DT_NONE || recipe_turns(p->form)) {
        struct value *x = shared_input(px, p, made);
        if (!x)
            return pass_failure(px);
        ir_set_input(p->n, 0, x);
        pass_count(px, STAT_apply_recipe_inputs, p->form->input.codes != DT_NONE);
    }
    const bool codes = p->form->weight.codes != DT_NONE;
    if (codes || recipe_turns(p->form)) {
        struct value *w = NULL;
        const enum npuc_status s = codes ? code_weight(px, p, &w) : turn_weight(px, p, &w);
        if (s != NPUC_OK)
            return s;
        ir_set_input(p->n, 1, w);
        pass_count(px, STAT_apply_recipe_weights, codes);
    }
    return p->form->correct.data ? recipe_correct(px, p->n, p->form) : NPUC_OK;
}

enum npuc_status apply_recipe(struct pass_ctx *px, struct graph *g)
{
    struct map made;
    struct product p;
    if (!px->options.quantiser)
        return NPUC_OK;
    const enum npuc_status folded = fold_norm(px, g);
    if (folded != NPUC_OK)
        return folded;
    product_names(px);
    map_init(&made, &px->m->arena);
    for_each_node_safe(n, g)
    {
        const struct arena_mark mark = arena_mark(&px->arena);
        if (!read_product(px, n, &p) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = apply(px, &p, &made);
        arena_release(&px->arena, mark);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
