/* A model over several devices: the graph of one of them.
 *
 *   %y = MatMul %x, %w;  %z = MatMul %y, %v;  %r = Add %a, %z
 * becomes, for 4 devices,
 *   %y = MatMul %x, %w' ;  %z = MatMul %y, %v' ;  %s = AllReduce %z {ranks=4};  %r = Add %a, %s
 * with %w' a quarter of the columns of %w and %v' a quarter of the rows of %v. How values lie follows from the
 * products' weights through the operators behind them, a rule each (shard_rules.c); where an operator needs a value
 * that lies otherwise, it is brought there: summands by AllReduce, parts by AllGather, a part of what is whole by
 * Slice, a part of a weight or of an input of the model by having no more of it. What a rule cannot divide (9 heads by
 * 2) lowers the number of devices for the weight that it came from, and the analysis starts again; what would be
 * brought together at once though its weight is small stays whole. Requirements: (1) weights need no bytes: the result
 * is for times and memory, not for data; (2) numbers of devices only fall, so the analysis ends; (3) types are inferred
 * anew, and one that is not the part that the analysis told is an error. Left alone: bodies of control flow, which read
 * whole values. */
#include "passes/shard.h"

#include "base/size.h"

#include <string.h>

/* ---- what rules ask ---- */

struct cut shard_cut(const struct shard_node *c, int i)
{
    const struct value *v = node_in(c->n, i);
    return v ? c->s->cut[v->id] : CUT_NONE;
}

/* Operators behind a constant that leave it a weight. */
static bool keeps_weight(const struct node *n)
{
    return n->op == OP_Transpose || n->op == OP_Cast || n->op == OP_Identity || n->op == OP_DequantizeLinear;
}

static const struct value *origin_of(const struct value *v)
{
    while (v && v->def && keeps_weight(v->def))
        v = node_in(v->def, 0);
    return v;
}

bool shard_is_weight(const struct value *v)
{
    v = origin_of(v);
    return v && v->def && v->def->op == OP_Constant;
}

double shard_bytes(const struct shard *s, const struct value *v)
{
    v = origin_of(v);
    int64_t n = v ? type_const_count(s->px->cx, v->type) : -1, bytes;
    return n >= 0 && dtype_bytes(v->type->dtype, n, &bytes) ? (double)bytes : 0;
}

void shard_lower(struct shard_node *c, int32_t seed, int64_t ways, const char *what)
{
    struct shard *s = c->s;
    if (seed < 0)
        return;
    const int64_t to = size_gcd(s->most[seed], ways);
    if (to >= s->most[seed])
        return;
    s->most[seed] = to;
    s->why[seed] = what;
    s->again = true;
}

bool shard_divides(struct shard_node *c, struct cut *cut, expr size, const char *what)
{
    struct shard *s = c->s;
    int64_t n = 1;
    if (expr_divisible(&s->px->cx->exprs, size, cut->ways))
        return true;
    (void)expr_is_const(&s->px->cx->exprs, size, &n);
    shard_lower(
        c, cut->seed, size_gcd(cut->ways, n),
        arena_printf(s->d->arena, "%lld %s are not divisible by %lld", (long long)n, what, (long long)cut->ways));
    return false;
}

int64_t shard_ways(struct shard_node *c, expr size)
{
    int64_t n;
    struct shard *s = c->s;
    if (!expr_is_const(&s->px->cx->exprs, size, &n))
        return 1;
    if (n % s->most[c->n->id] != 0)
        shard_lower(c, (int32_t)c->n->id, size_gcd(n, s->most[c->n->id]),
                    arena_printf(s->d->arena, "%lld columns are not divisible by %lld", (long long)n,
                                 (long long)s->most[c->n->id]));
    return s->most[c->n->id];
}

expr shard_part(const struct shard *s, expr size, int64_t ways)
{
    struct expr_pool *x = &s->px->cx->exprs;
    return expr_floordiv(x, size, expr_const(x, ways));
}

void shard_dims(const struct shard *s, const struct type *t, const struct cut *c, expr out[IR_MAX_RANK])
{
    for (int i = 0; i < t->rank; i++)
        out[i] = c->kind == CUT_SPLIT && c->axis == i ? shard_part(s, t->dims[i], c->ways) : t->dims[i];
}

/* ---- analysis ---- */

static bool same(const struct cut *a, const struct cut *b)
{
    return a->kind == b->kind && a->axis == b->axis && a->ways == b->ways;
}

/* An input that a node wants divided is divided: the caller hands out parts. */
static void claim(struct shard *s, const struct node *n, int i, const struct cut *want)
{
    const struct value *v = node_in(n, i);
    if (v && !v->def && v->graph == s->g && want->kind == CUT_SPLIT && s->cut[v->id].kind == CUT_WHOLE)
        s->cut[v->id] = *want;
}

/* Small weights whose result is brought together before any product took it: that costs more than it saves. */
static void weigh(struct shard_node *c, int i)
{
    const struct cut x = shard_cut(c, i);
    struct shard *s = c->s;
    if (x.kind != CUT_SPLIT || x.seed < 0 || c->want[i].kind != CUT_WHOLE)
        return;
    s->gathered[x.seed] += 1;
}

static bool divisible(const struct shard *s, const struct value *v, const struct cut *c)
{
    return c->kind != CUT_SPLIT ||
           (c->axis < v->type->rank && expr_divisible(&s->px->cx->exprs, v->type->dims[c->axis], c->ways));
}

/* Does the result leave as rows of a cache whose past lies likewise? */
static bool is_cache(const struct shard *s, const struct value *v)
{
    for (int i = 0; v->def && i < v->def->n_in; i++) {
        const struct value *x = node_in(v->def, i);
        if (x && !x->def && x->graph == s->g && same(&s->cut[x->id], &s->cut[v->id]))
            return true;
    }
    return false;
}

static void read_yield(struct shard_node *c)
{
    for (int i = 0; i < c->n->n_in; i++)
        if (node_in(c->n, i) && is_cache(c->s, node_in(c->n, i)))
            c->want[i] = shard_cut(c, i);
}

static void read_node(struct shard *s, struct node *n)
{
    struct shard_node c = {.s = s, .n = n, .want = s->want[n->id]};
    c.out = ARENA_ARRAY(&s->px->arena, struct cut, n->n_out + 1);
    for (int i = 0; i < n->n_in; i++)
        c.want[i] = CUT_NONE;
    for (int i = 0; i < n->n_out; i++)
        c.out[i] = CUT_NONE;
    if (n->op == OP_Yield)
        read_yield(&c);
    else
        shard_rule_of(n)->read(&c);
    for (int i = 0; i < n->n_in; i++) {
        if (node_in(n, i) && !divisible(s, node_in(n, i), &c.want[i]))
            shard_lower(&c, c.want[i].seed, 1, "an operand beside it is not divisible");
        claim(s, n, i, &c.want[i]);
        weigh(&c, i);
    }
    for (int i = 0; i < n->n_out; i++) {
        s->cut[n->out[i].id] = c.out[i];
        if (c.out[i].kind != CUT_WHOLE && value_used_in_body(&n->out[i]))
            shard_lower(&c, c.out[i].seed, 1, "a body of control flow reads the result");
    }
}

static bool is_seed(const struct shard *s, const struct node *n)
{
    return n->n_out > 0 && s->cut[n->out[0].id].kind != CUT_WHOLE && s->cut[n->out[0].id].seed == (int32_t)n->id;
}

/* The operand of a product or lookup that is its weight. */
static int weight_at(const struct node *n)
{
    const bool grouped = n->op == OP_GroupedMatMul || n->op == OP_GroupedMatMulNBits;
    return n->op == OP_Gather ? 0 : grouped ? 2 : 1;
}

/* Bytes that a device need not read against the launch of a collective. */
static bool pays(const struct shard *s, const struct node *n)
{
    const struct target_info *t = s->px->target;
    const double ways = (double)s->cut[n->out[0].id].ways;
    const double bytes = shard_bytes(s, node_in(n, weight_at(n))) * (1 - 1 / ways);
    return !t || t->bytes_per_ns <= 0 || bytes / t->bytes_per_ns > t->launch_ns;
}

static void analyse(struct shard *s)
{
    do {
        s->again = false;
        for (int64_t i = 0; i < s->n_values; i++)
            s->cut[i] = CUT_NONE;
        for (int64_t i = 0; i < s->n_nodes; i++)
            s->gathered[i] = 0;
        for_each_node (n, s->g)
            read_node(s, n);
        for_each_node (n, s->g) {
            struct shard_node c = {.s = s, .n = n};
            if (!s->again && is_seed(s, n) && s->gathered[n->id] > 0 && !pays(s, n))
                shard_lower(&c, (int32_t)n->id, 1, NULL);
        }
    } while (s->again);
}

/* ---- the graph of a device ---- */

static const struct type *part_type(const struct shard *s, const struct type *t, const struct cut *c)
{
    expr dims[IR_MAX_RANK];
    shard_dims(s, t, c, dims);
    return type_tensor(s->px->cx, t->dtype, t->rank, dims);
}

static struct value *cut_constant(struct shard *s, struct builder *b, const struct value *v, const struct cut *c)
{
    const struct type *t = part_type(s, v->type, c);
    struct blob *blob = ARENA_NEW(&b->graph->module->arena, struct blob);
    *blob = (struct blob){.origin = value_const(v)->origin};
    if (!dtype_bytes(t->dtype, type_const_count(s->px->cx, t), &blob->size))
        return NULL;
    return ir_const_blob(b, t, blob);
}

/* Operand i of what decodes or moves a weight, cut so that the result is cut as `c` says. */
static struct cut cut_before(const struct node *n, int i, const struct cut *c)
{
    struct cut x = *c;
    const struct attr *perm = n->op == OP_Transpose ? node_attr(n, "perm") : NULL;
    const int rank = n->out[0].type->rank;
    if (n->op == OP_Transpose)
        x.axis = (int)(perm ? perm->v.ints[c->axis] : rank - 1 - c->axis);
    if (i == 0 || n->op != OP_DequantizeLinear)
        return x;
    const struct type *t = node_in(n, i)->type; /* scales: one, one for each index of an axis, or of blocks */
    const int64_t axis = node_attr_int(n, "axis", 1);
    if (t->rank == 1 && (axis < 0 ? axis + rank : axis) == c->axis)
        x.axis = 0;
    else if (t->rank != rank)
        return CUT_NONE;
    return x;
}

struct value *shard_weight(struct shard *s, struct builder *b, struct value *v, const struct cut *c)
{
    if (c->kind != CUT_SPLIT)
        return v;
    if (!expr_divisible(&s->px->cx->exprs, v->type->dims[c->axis], c->ways))
        return v; /* one scale for all */
    if (v->def->op == OP_Constant)
        return cut_constant(s, b, v, c);
    struct value *in[4] = {NULL};
    for (int i = 0; i < v->def->n_in && i < 4; i++) {
        const struct cut x = cut_before(v->def, i, c);
        in[i] = node_in(v->def, i) ? shard_weight(s, b, node_in(v->def, i), &x) : NULL;
        if (!in[i] && node_in(v->def, i))
            return NULL;
    }
    struct node *n = ir_new(b, (enum op)v->def->op, v->def->n_in, in, 1);
    ir_copy_attrs(n, v->def);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static struct value *collective(struct shard *s, struct builder *b, struct value *v, const struct cut *c)
{
    struct node *n = ir_new(b, c->kind == CUT_PARTIAL ? OP_AllReduce : OP_AllGather, 1, &v, 1);
    ir_set_int(n, "ranks", c->ways);
    if (c->kind == CUT_SPLIT)
        ir_set_int(n, "axis", c->axis);
    pass_count(s->px, STAT_shard_collectives, 1);
    s->d->collectives++;
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static struct value *first_part(struct shard *s, struct builder *b, struct value *v, const struct cut *c)
{
    struct expr_pool *x = &s->px->cx->exprs;
    const int64_t axis = c->axis;
    const expr from = expr_const(x, 0), to = shard_part(s, v->type->dims[axis], c->ways);
    struct value *in[4] = {v, ir_sizes(b, &from, 1, false), ir_sizes(b, &to, 1, false), ir_const_i64(b, &axis, 1)};
    struct node *n = ir_new(b, OP_Slice, 4, in, 1);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

/* v as `want` says, before node n; the same for all who want it so. NULL after a reported error. */
static struct value *bring(struct shard *s, struct node *n, struct value *v, const struct cut *want)
{
    const struct cut *have = &s->cut[v->id];
    const uint64_t key = (uint64_t)v->id << 32 | (uint64_t)want->kind << 28 | (uint64_t)want->axis << 20 |
                         (uint64_t)(want->ways & 0xfffff);
    const uint64_t *known = map_find(&s->brought, key);
    if (same(have, want))
        return v;
    if (known)
        return (struct value *)(uintptr_t)*known;
    struct builder b = ir_at(n);
    struct value *out = v;
    if (have->kind == CUT_WHOLE && shard_is_weight(v)) {
        out = shard_weight(s, &b, v, want);
    } else {
        if (have->kind != CUT_WHOLE)
            out = collective(s, &b, v, have);
        if (out && want->kind == CUT_SPLIT)
            out = first_part(s, &b, out, want);
    }
    map_put(&s->brought, key, (uint64_t)(uintptr_t)out);
    return out;
}

static enum npuc_status check_part(const struct shard *s, const struct node *n, int i, const struct type *was)
{
    const struct value *v = &n->out[i];
    if (was->kind != TYPE_TENSOR || was->rank < 0 || v->id >= s->n_values)
        return NPUC_OK;
    const struct type *part = part_type(s, was, &s->cut[v->id]);
    if (type_same_dims(part, v->type))
        return NPUC_OK;
    return node_error(s->px->cx, n, D_UNSUPPORTED, "cannot be divided over devices: its part would be %s, found %s",
                      type_text(s->px->cx, part), type_text(s->px->cx, v->type));
}

static enum npuc_status divide_node(struct shard *s, struct node *n)
{
    struct shard_node c = {.s = s, .n = n, .want = s->want[n->id]};
    const struct type **was = ARENA_ARRAY(&s->px->arena, const struct type *, n->n_out + 1);
    c.out = ARENA_ARRAY(&s->px->arena, struct cut, n->n_out + 1);
    for (int i = 0; i < n->n_out; i++) {
        c.out[i] = s->cut[n->out[i].id];
        was[i] = n->out[i].type;
    }
    for (int i = 0; i < n->n_in; i++) {
        struct value *v = node_in(n, i) ? bring(s, n, node_in(n, i), &c.want[i]) : NULL;
        if (!v && node_in(n, i))
            return pass_failure(s->px);
        ir_set_input(n, i, v);
    }
    const struct shard_rule *rule = shard_rule_of(n);
    enum npuc_status st = rule->apply && n->op != OP_Yield ? rule->apply(&c) : NPUC_OK;
    if (st == NPUC_OK && n->op != OP_Yield && n->op != OP_Constant)
        st = ir_infer(n);
    for (int i = 0; i < n->n_out && st == NPUC_OK; i++)
        st = check_part(s, n, i, was[i]);
    return st;
}

/* ---- what came of it ---- */

static bool is_product(const struct node *n)
{
    return op_table[n->op]->cls == CLS_MATMUL && n->n_in > weight_at(n) && shard_is_weight(node_in(n, weight_at(n)));
}

static void note(struct shard *s, const struct node *n, int64_t count, const char *why)
{
    const char *text = arena_printf(s->d->arena, "%lld product%s as %s: %s", (long long)count, count > 1 ? "s" : "",
                                    node_text(s->px->cx, n), why);
    vec_push(s->d->arena, &s->d->notes, text);
}

/* One line for each reason why weights are divided over fewer devices, with the first product of it. */
static void note_reasons(struct shard *s)
{
    for_each_node (n, s->g) {
        const char *why = s->why[n->id];
        int64_t count = 0;
        if (!why)
            continue;
        for_each_node (m, s->g)
            if (s->why[m->id] && strcmp(s->why[m->id], why) == 0 && s->most[m->id] == s->most[n->id]) {
                count++;
                if (m != n)
                    s->why[m->id] = NULL;
            }
        s->why[n->id] = NULL;
        note(s, n, count,
             s->most[n->id] == 1 ? arena_printf(s->d->arena, "%s; whole on each device", why)
                                 : arena_printf(s->d->arena, "%s; over %lld devices", why, (long long)s->most[n->id]));
    }
}

static void count_products(struct shard *s)
{
    for_each_node (n, s->g) {
        if (!is_product(n))
            continue;
        const bool part = s->cut[n->out[0].id].kind != CUT_WHOLE;
        pass_count(s->px, part ? STAT_shard_divided : STAT_shard_whole, 1);
        *(part ? &s->d->divided : &s->d->whole) += 1;
    }
    if (s->d->divided == 0)
        vec_push(s->d->arena, &s->d->notes, "no product was divided: each device does all of the work");
}

static void begin(struct shard *s)
{
    struct arena *a = &s->px->arena;
    s->n_values = s->px->m->n_values;
    s->n_nodes = s->px->m->n_nodes;
    s->cut = ARENA_ARRAY(a, struct cut, s->n_values + 1);
    s->want = ARENA_ARRAY(a, struct cut *, s->n_nodes + 1);
    s->most = ARENA_ARRAY(a, int64_t, s->n_nodes + 1);
    s->why = ARENA_ARRAY(a, const char *, s->n_nodes + 1);
    s->gathered = ARENA_ARRAY(a, double, s->n_nodes + 1);
    map_init(&s->brought, a);
    for_each_node (n, s->g) {
        s->most[n->id] = s->d->tensor;
        s->want[n->id] = ARENA_ARRAY(a, struct cut, n->n_in + 1);
        if (n->op == OP_Constant)
            s->weight_bytes += shard_bytes(s, &n->out[0]);
    }
}

enum npuc_status shard(struct pass_ctx *px, struct graph *g)
{
    struct shard s = {.px = px, .d = px->options.division, .g = g};
    enum npuc_status st = NPUC_OK;
    if (!s.d || s.d->tensor < 2 || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    begin(&s);
    analyse(&s);
    count_products(&s);
    note_reasons(&s);
    for (int32_t i = 0; i < g->n_inputs; i++)
        if (s.cut[g->inputs[i]->id].kind == CUT_SPLIT)
            g->inputs[i]->type = part_type(&s, g->inputs[i]->type, &s.cut[g->inputs[i]->id]);
    for (struct node *n = g->first, *next; n && st == NPUC_OK; n = next) {
        next = n->next;
        st = divide_node(&s, n);
    }
    return st;
}
