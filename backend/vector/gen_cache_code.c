/* KV caches of codes (kernels/cache_code.h) as vector regions: CacheAppendCoded codes new rows and writes codes and
 * scales to their places in the buffers, CacheDecode gives rows of floats. Rows are seen as groups of columns; the two
 * halves of a row whose codes are packed are two operands side by side. */
#include "backend/vector/gens.h"
#include "backend/vector/views.h"
#include "ir/cache_code.h"

/* Iteration over the rows of a cache, their groups, the columns of a group. */
struct groups {
    struct vr *r;
    struct k_cache_form f;
    int rank;            /* of the cache; the region's is one more */
    int parts;           /* 2: halves of a row side by side */
    int64_t count, cols; /* groups and columns of a part */
};

static bool is_whole_row(const struct groups *g)
{
    return g->f.group == g->f.size;
}

/* Over rows of v, whose own last axis does not count. */
static void open(struct groups *g, struct emit *e, const struct value *v)
{
    struct expr_pool *x = &e->cx->exprs;
    expr dims[IR_MAX_RANK];
    g->parts = k_cache_packed(&g->f) ? 2 : 1;
    g->rank = v->type->rank;
    g->count = is_whole_row(g) ? 1 : g->f.size / g->f.group / g->parts;
    g->cols = is_whole_row(g) ? g->f.size / g->parts : g->f.group;
    for (int i = 0; i < g->rank - 1; i++)
        dims[i] = v->type->dims[i];
    dims[g->rank - 1] = expr_const(x, g->count);
    dims[g->rank] = expr_const(x, g->cols);
    g->r = ARENA_NEW(e->arena, struct vr);
    vr_init(g->r, e, g->rank + 1, dims);
}

/* Elements of part `i` of the rows of v. */
static struct vr_view part_of(const struct groups *g, struct value *v, int i)
{
    struct expr_pool *x = &g->r->e->cx->exprs;
    struct vr_view w;
    view_own(g->r->e, v, &w);
    const expr step = g->count * g->cols * g->parts > 1 ? w.stride[g->rank - 1] : expr_const(x, 0);
    w.stride[g->rank] = step;
    w.stride[g->rank - 1] = expr_mul_const(x, step, g->cols);
    w.offset = expr_add(x, w.offset, expr_mul_const(x, step, i * g->count * g->cols));
    return w;
}

/* Scales of part i of the rows, or their zero points. */
static struct vr_view scales_of(const struct groups *g, struct value *v, int i, bool zeros)
{
    struct expr_pool *x = &g->r->e->cx->exprs;
    const int64_t all = g->f.size / g->f.group;
    const int64_t first = (zeros ? all : 0) + (is_whole_row(g) ? 0 : i * g->count);
    struct vr_view w;
    view_own(g->r->e, v, &w);
    w.stride[g->rank - 1] = expr_const(x, g->count > 1 ? 1 : 0);
    w.stride[g->rank] = expr_const(x, 0);
    w.offset = expr_add(x, w.offset, expr_const(x, first));
    return w;
}

static int number(const struct groups *g, float v)
{
    return vr_imm(g->r, DT_F32, v);
}

static int two(const struct groups *g, enum k_fn fn, int a, int b)
{
    return vr_vec2(g->r, fn, a, b);
}

/* ---- CacheAppendCoded: the steps of kernels/cache_code.c ---- */

struct coded {
    int x[2], code[2];     /* parts of the row, and their codes as floats */
    int scale[2], zero[2]; /* of the type that is stored */
};

/* The extreme of a part of the row, or of both where they share a scale. */
static int extreme(const struct groups *g, enum k_red op, const int v[2], int i)
{
    const int own = vr_reduce(g->r, op, v[i]);
    if (g->parts == 1 || !is_whole_row(g))
        return own;
    return two(g, op == K_RED_MAX ? K_FN_Max : K_FN_Min, vr_reduce(g->r, op, v[0]), vr_reduce(g->r, op, v[1]));
}

static int clipped(const struct groups *g, int v, float least, float most)
{
    return two(g, K_FN_Min, two(g, K_FN_Max, v, number(g, least)), number(g, most));
}

static void code_symmetric(const struct groups *g, struct coded *c, int i)
{
    const float most = k_cache_most(&g->f);
    int size[2];
    for (int k = 0; k < g->parts; k++)
        size[k] = vr_vec1(g->r, K_FN_Abs, c->x[k]);
    const int top = two(g, K_FN_Div, extreme(g, K_RED_MAX, size, i), number(g, most));
    c->scale[i] = vr_cast(g->r, g->f.scale, two(g, K_FN_Max, top, number(g, k_cache_tiny(&g->f))));
    c->code[i] = two(g, K_FN_Div, c->x[i], vr_cast(g->r, DT_F32, c->scale[i]));
    if (dtype_is_float(g->f.code))
        return;
    c->code[i] = clipped(g, vr_vec1(g->r, K_FN_Round, c->code[i]), -most - 1, most);
    if (k_cache_middle(&g->f) != 0)
        c->code[i] = two(g, K_FN_Add, c->code[i], number(g, k_cache_middle(&g->f)));
}

static void code_shifted(const struct groups *g, struct coded *c, int i)
{
    const float most = k_cache_most(&g->f);
    const int hi = extreme(g, K_RED_MAX, c->x, i), lo = extreme(g, K_RED_MIN, c->x, i);
    const int low = two(g, K_FN_Sub, number(g, 0), lo);
    const int far = two(g, K_FN_Mul, two(g, K_FN_Max, hi, low), number(g, 0x1p-10f));
    const int step = two(g, K_FN_Div, two(g, K_FN_Sub, hi, lo), number(g, most));
    const int s = two(g, K_FN_Max, two(g, K_FN_Max, step, far), number(g, k_cache_tiny(&g->f)));
    c->scale[i] = vr_cast(g->r, g->f.scale, s);
    const int scale = vr_cast(g->r, DT_F32, c->scale[i]);
    c->zero[i] = vr_cast(g->r, g->f.scale, two(g, K_FN_Div, low, scale));
    const int zero = vr_cast(g->r, DT_F32, c->zero[i]);
    c->code[i] = two(g, K_FN_Add, two(g, K_FN_Div, c->x[i], scale), zero);
    c->code[i] = clipped(g, vr_vec1(g->r, K_FN_Round, c->code[i]), 0, most);
}

/* Where the rows go: behind the valid ones, or to the positions given per batch entry. */
static void place(const struct groups *g, const struct node *n, const struct value *cache, struct vr_view *w)
{
    struct emit *e = g->r->e;
    struct expr_pool *x = &e->cx->exprs;
    struct value *at = node_in(n, 3);
    const int axis = view_axis(n, "axis", -2, g->rank);
    if (!at) {
        w->offset = expr_add(x, w->offset, expr_mul(x, node_in(n, 0)->type->dims[axis], w->stride[axis]));
        return;
    }
    w->indexed = true;
    w->index = emit_tensor(e, at);
    w->index_dtype = at->type->dtype;
    w->index_stride = w->stride[axis];
    w->index_max = expr_sub(x, cache->type->dims[axis], node_in(n, 2)->type->dims[axis]);
}

static void store(const struct groups *g, const struct node *n, int output, int value, struct vr_view w)
{
    place(g, n, &n->out[output], &w);
    vr_output(g->r, value, &w);
}

static enum npuc_status emit_append(struct emit *e, struct node *n)
{
    struct groups g = {0};
    struct coded c;
    if (!cache_form(e->cx, n, &g.f))
        return node_error(e->cx, n, D_VERIFY, "a cache whose rows have no known form was placed on the NPU");
    open(&g, e, node_in(n, 2));
    for (int i = 0; i < g.parts; i++) {
        const struct vr_view w = part_of(&g, node_in(n, 2), i);
        c.x[i] = vr_cast(g.r, DT_F32, vr_input(g.r, &w));
    }
    const int scales = is_whole_row(&g) ? 1 : g.parts;
    for (int i = 0; i < g.parts; i++)
        (g.f.shifted ? code_shifted : code_symmetric)(&g, &c, i);
    const int codes =
        g.parts == 1 ? c.code[0] : two(&g, K_FN_Add, c.code[0], two(&g, K_FN_Mul, c.code[1], number(&g, 16)));
    struct groups bytes = g; /* a part is a row of codes */
    bytes.parts = 1;
    store(&g, n, 0, vr_cast(g.r, k_cache_stored(&g.f), codes), part_of(&bytes, &n->out[0], 0));
    for (int i = 0; i < scales; i++) {
        store(&g, n, 1, c.scale[i], scales_of(&g, &n->out[1], i, false));
        if (g.f.shifted)
            store(&g, n, 1, c.zero[i], scales_of(&g, &n->out[1], i, true));
    }
    return vr_launch(g.r, "cache_append", op_table[n->op]->name);
}

/* ---- CacheDecode ---- */

static enum npuc_status emit_decode(struct emit *e, struct node *n)
{
    struct groups g = {0};
    if (!cache_form(e->cx, n, &g.f))
        return node_error(e->cx, n, D_VERIFY, "a cache whose rows have no known form was placed on the NPU");
    open(&g, e, &n->out[0]);
    struct groups bytes = g;
    bytes.parts = 1;
    const struct vr_view codes = part_of(&bytes, node_in(n, 0), 0);
    int v[2] = {vr_cast(g.r, DT_F32, vr_input(g.r, &codes)), -1};
    if (g.parts == 2) { /* both are whole numbers */
        v[1] = vr_vec1(g.r, K_FN_Floor, two(&g, K_FN_Mul, v[0], number(&g, 0x1p-4f)));
        v[0] = two(&g, K_FN_Sub, v[0], two(&g, K_FN_Mul, v[1], number(&g, 16)));
    }
    for (int i = 0; i < g.parts; i++) {
        const struct vr_view s = scales_of(&g, node_in(n, 1), i, false), z = scales_of(&g, node_in(n, 1), i, true);
        const float middle = k_cache_middle(&g.f);
        if (g.f.shifted)
            v[i] = two(&g, K_FN_Sub, v[i], vr_cast(g.r, DT_F32, vr_input(g.r, &z)));
        else if (middle != 0)
            v[i] = two(&g, K_FN_Sub, v[i], number(&g, middle));
        v[i] = two(&g, K_FN_Mul, v[i], vr_cast(g.r, DT_F32, vr_input(g.r, &s)));
        const struct vr_view to = part_of(&g, &n->out[0], i);
        vr_output(g.r, vr_cast(g.r, n->out[0].type->dtype, v[i]), &to);
    }
    return vr_launch(g.r, "cache_decode", op_table[n->op]->name);
}

/* ---- */

static const struct {
    enum op op;
    int rows; /* the operand whose rows are those of the region */
    enum npuc_status (*emit)(struct emit *e, struct node *n);
} coders[] = {{OP_CacheAppendCoded, 2, emit_append}, {OP_CacheDecode, 0, emit_decode}};

static int find(const struct node *n)
{
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(coders); i++)
        if (coders[i].op == (enum op)n->op)
            return i;
    return -1;
}

bool gen_cache_code_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const int i = find(n);
    struct k_cache_form f;
    if (i < 0)
        return false;
    const struct value *at = i == 0 ? node_in(n, 3) : NULL;
    *reason = "rows of a cache of codes are moved by vector cores, to one 32- or 64-bit position per batch entry";
    if (m->n_vector <= 0 || !cache_form(cx, n, &f) || node_in(n, 0)->type->rank >= IR_MAX_RANK ||
        (at && (at->type->rank != 1 || (at->type->dtype != DT_I64 && at->type->dtype != DT_I32))))
        return false;
    for (int k = 0; k < n->n_in; k++)
        if (node_in(n, k) && k < 3 && !view_plain(cx, node_in(n, k), reason))
            return false;
    return true;
}

enum npuc_status gen_cache_code_emit(struct emit *e, struct node *n)
{
    return coders[find(n)].emit(e, n);
}
