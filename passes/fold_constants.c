/* Replaces what is known at compile time: nodes equal to one of their operands, tensors whose elements are known as
 * numbers or as expressions of sizes, and nodes whose operands are all constant.
 *
 *   %s = Shape %x : i64[2]                                  %s = SizeOf {exprs=["batch", "seq"]} : i64[2]
 *   %n = Gather %s, %one : i64[]                   ->       %n = SizeOf {exprs=["seq"], scalar=1} : i64[]
 *   %c = Add %two, %three : f32[]                           %c = Constant {value=f32[] [5]} : f32[]
 *   %y = Mul %x, %c1 : f32[batch,seq]  (c1 = 1)             (%x takes the uses of %y)
 *
 * Requirements: (1) operands come before users, so one round in order sees every replaced operand; (2) a node whose
 * operands became more precise is inferred again before it is looked at; (3) a value is only replaced by one that
 * exists before it, or by a Constant or SizeOf, and those are never replaced: the pass ends; (4) numbers come from
 * the operators' kernels, the same that the runtime calls; (5) a kernel that refuses leaves the node in place.
 * Deliberately left: results larger than fold_max_size, or much larger than the operands (they would swell the plan);
 * operands larger than FOLD_MAX_OPERANDS (weights stay mapped; views of them are free and are folded); operators
 * without a kernel, with side effects, or whose result is random. */
#include <string.h>

#include "ir/eval.h"
#include "passes/pass.h"

/* More is copied and computed at compile time only if the weights' own pages are read: chosen so that position tables
 * and masks of exporters fold and weight matrices do not. */
enum { FOLD_MAX_OPERANDS = 16 << 20, FOLD_FREE_SIZE = 64 << 10, FOLD_GROWTH = 4 };

struct folder {
    struct pass_ctx *px;
    bool *stale; /* by node id: an operand has been replaced */
    int64_t n;   /* ids that stale covers */
};

static void mark_users(struct folder *f, const struct value *v)
{
    for_each_use (u, v)
        if (u->user->id < f->n)
            f->stale[u->user->id] = true;
}

/* Uses of old go to `with`; false when --max-rewrites is reached or nothing would change. */
static bool replace(struct folder *f, struct value *old, struct value *with)
{
    if (!ir_can_replace(old, with) || !ir_may_rewrite(f->px->cx))
        return false;
    mark_users(f, old);
    if (with->def && !with->name && with->graph == old->graph)
        with->name = old->name;
    ir_replace_all(old, with);
    return true;
}

/* ---- equal to an operand */

static bool fold_equal(struct folder *f, struct node *n)
{
    const struct op_def *d = op_table[n->op];
    struct value *same = d->fold ? d->fold(f->px->cx, n) : NULL;
    if (!same || !replace(f, &n->out[0], same))
        return false;
    pass_count(f->px, STAT_fold_constants_simplified, 1);
    return true;
}

/* ---- known elements */

static bool elems_known(const struct value *v)
{
    for (int64_t i = 0; i < v->n_elems; i++)
        if (v->elems[i] == EXPR_INVALID)
            return false;
    return v->elems != NULL && v->type->rank >= 0 && v->type->rank <= 1;
}

static bool elems_const(const struct pass_ctx *px, const struct value *v)
{
    int64_t value;
    for (int64_t i = 0; i < v->n_elems; i++)
        if (!expr_is_const(&px->cx->exprs, v->elems[i], &value))
            return false;
    return true;
}

/* A cast of sizes to the type of the tensor they stand for is final. */
static bool is_cast_of_sizes(const struct node *n)
{
    const struct value *v = n->op == OP_Cast ? node_in(n, 0) : NULL;
    return v && v->def && v->def->op == OP_SizeOf;
}

static struct value *const_elems(struct builder *b, const struct value *v)
{
    struct arena *a = &b->graph->module->arena;
    const enum dtype t = v->type->dtype;
    struct k_tensor k = {.dtype = t, .rank = 1, .dims = {v->n_elems}};
    if (!dtype_bytes(t, v->n_elems, &k.size))
        return NULL;
    k.data = arena_zalloc(a, k.size + 1);
    for (int64_t i = 0; i < v->n_elems; i++) {
        int64_t value = 0;
        (void)expr_is_const(&b->cx->exprs, v->elems[i], &value);
        k_set_i64(&k, i, value);
    }
    return ir_const(b, t, v->type->rank, &v->n_elems, k.data, k.size);
}

static bool fold_elems(struct folder *f, struct node *n)
{
    struct value *v = &n->out[0];
    if (n->op == OP_SizeOf || n->op == OP_Contents || n->n_out != 1 || !v->uses || !elems_known(v) ||
        is_cast_of_sizes(n))
        return false;
    const enum dtype t = v->type->dtype;
    if ((!dtype_is_integer(t) && t != DT_BOOL) || !dtype_size(t))
        return false;
    struct builder b = ir_at(n);
    const bool is_const = elems_const(f->px, v);
    struct value *with = is_const ? const_elems(&b, v) : ir_sizes(&b, v->elems, v->n_elems, v->type->rank == 0);
    if (with && t != with->type->dtype)
        with = ir_cast(&b, with, t);
    if (!with || !replace(f, v, with))
        return false;
    pass_count(f->px, is_const ? STAT_fold_constants_computed : STAT_fold_constants_sizes, 1);
    return true;
}

/* ---- constant operands */

static bool is_foldable(const struct node *n)
{
    const struct op_def *d = op_table[n->op];
    if (n->n_in == 0 || (d->traits & (T_SIDE_EFFECT | T_NONDETERMINISTIC | T_TERMINATOR | T_REGION)))
        return false;
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = n->in[i].value;
        const struct blob *b = value_const(v);
        if (v && (!b || (!b->data && b->size)))
            return false;
    }
    for (int i = 0; i < n->n_out; i++)
        if (type_is_object(n->out[i].type) && n->out[i].type->rank >= 0)
            return false;
    return true;
}

/* A view of constant bytes is constant bytes of another type, whether the bytes are here or not. */
static bool fold_view(struct folder *f, struct node *n)
{
    const struct blob *blob = value_const(node_in(n, 0));
    if (!blob || !op_has((enum op)n->op, T_VIEW) || n->n_out != 1 || !type_is_static(f->px->cx, n->out[0].type))
        return false;
    struct builder b = ir_at(n);
    struct value *with = ir_const_blob(&b, n->out[0].type, blob);
    if (!replace(f, &n->out[0], with))
        return false;
    pass_count(f->px, STAT_fold_constants_computed, 1);
    return true;
}

static bool size_allowed(const struct pass_ctx *px, const struct node *n)
{
    int64_t in = 0, out = 0, bytes;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].value)
            in += value_const(n->in[i].value)->size;
    for (int i = 0; i < n->n_out; i++) {
        const struct type *t = n->out[i].type;
        const int64_t count = t->kind == TYPE_TENSOR ? type_const_count(px->cx, t) : 0;
        /* Unknown before it is computed (NonZero): bounded by the operands. */
        if (t->kind == TYPE_TENSOR && count >= 0 && !dtype_bytes(t->dtype, count, &bytes))
            return false;
        out += t->kind == TYPE_TENSOR && count >= 0 ? bytes : 0;
    }
    if (in > FOLD_MAX_OPERANDS || out > px->options.fold_max_size)
        return false;
    return out <= FOLD_FREE_SIZE || out <= FOLD_GROWTH * in;
}

static bool compute(struct pass_ctx *px, const struct node *n, struct k_tensor *out)
{
    struct ir_ctx *cx = px->cx;
    const struct k_tensor **in = ARENA_ARRAY(&px->arena, const struct k_tensor *, n->n_in);
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = n->in[i].value;
        struct k_tensor *t = ARENA_NEW(&px->arena, struct k_tensor);
        if (v && !blob_tensor(cx, v->type, value_const(v), t))
            return false;
        in[i] = v ? t : NULL;
    }
    struct diag *diag = cx->diag;
    cx->diag = NULL; /* a refusal is no error: the node stays */
    const enum npuc_status s = ir_eval_node(cx, n, in, NULL, out, &px->arena);
    cx->diag = diag;
    return s == NPUC_OK;
}

static bool fold_compute(struct folder *f, struct node *n)
{
    struct pass_ctx *px = f->px;
    if (!size_allowed(px, n)) {
        px->stats[STAT_fold_constants_kept]++;
        return false;
    }
    const struct arena_mark mark = arena_mark(&px->arena);
    struct k_tensor *out = ARENA_ARRAY(&px->arena, struct k_tensor, n->n_out);
    struct builder b = ir_at(n);
    int64_t done = 0;
    if (compute(px, n, out))
        for (int i = 0; i < n->n_out; i++)
            if (n->out[i].uses && out[i].dtype != DT_NONE)
                done += replace(f, &n->out[i],
                                ir_const(&b, out[i].dtype, out[i].rank, out[i].dims, out[i].data, out[i].size));
    arena_release(&px->arena, mark);
    pass_count(px, STAT_fold_constants_computed, done > 0);
    return done > 0;
}

/* ---- the walk */

static bool is_used(const struct node *n)
{
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i].uses)
            return true;
    return false;
}

static enum npuc_status refresh(struct folder *f, struct node *n)
{
    if (n->id >= f->n || !f->stale[n->id])
        return NPUC_OK;
    const struct arena_mark mark = arena_mark(&f->px->arena);
    const struct type **old = ARENA_ARRAY(&f->px->arena, const struct type *, n->n_out + 1);
    for (int i = 0; i < n->n_out; i++)
        old[i] = n->out[i].type;
    const enum npuc_status s = ir_infer(n);
    for (int i = 0; s == NPUC_OK && i < n->n_out; i++)
        if (n->out[i].type != old[i] || n->out[i].elems)
            mark_users(f, &n->out[i]);
    arena_release(&f->px->arena, mark);
    return s;
}

static enum npuc_status fold_graph(struct folder *f, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        for_each_region(r, n)
        {
            const enum npuc_status s = fold_graph(f, r);
            if (s != NPUC_OK)
                return s;
        }
        const enum npuc_status s = refresh(f, n);
        if (s != NPUC_OK)
            return s;
        if (n->op == OP_Constant || !is_used(n))
            continue;
        const bool done =
            fold_equal(f, n) || fold_elems(f, n) || fold_view(f, n) || (is_foldable(n) && fold_compute(f, n));
        if (done && !is_used(n))
            ir_erase(n);
    }
    return NPUC_OK;
}

enum npuc_status fold_constants(struct pass_ctx *px, struct graph *g)
{
    struct folder f = {.px = px, .n = px->m->n_nodes};
    f.stale = ARENA_ARRAY(&px->arena, bool, f.n + 1);
    return fold_graph(&f, g);
}
