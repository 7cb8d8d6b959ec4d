/* Feature maps in the storage order of the matrix unit: NHWC where it takes rows, NC1HWC0 where it takes fractals.
 *
 *   %a = Conv %x, %w : f32[1,8,9,9];  %b = Relu %a;  %c = Conv %b, %v;  %y = Reshape %c, %dims
 * becomes
 *   %0 = TransData %x {layout="NHWC"} : f32[1,3,9,9] nhwc
 *   %a = Conv %0, %w : f32[1,8,9,9] nhwc;  %b = Relu %a : ... nhwc;  %c = Conv %b, %v : ... nhwc
 *   %1 = TransData %c {layout="ND"};  %y = Reshape %1, %dims
 *
 * Convolutions and pooling propose the layout, with what it costs them to do without; operators that walk all elements
 * alike pass it through; everything else wants ND. Which values get it is a minimum cut, hence the cheapest division:
 * a conversion costs a launch and its bytes once per value, however many consumers share it. Equal costs leave ND.
 * Requirements: (1) the target is asked, for each node, whether it has a kernel for it in that layout; (2) runs after
 * fusion, as no type is inferred afterwards; (3) only types change and TransData come: every value keeps its dimensions
 * and elements, so results keep their bits; (4) what other graphs see (inputs, results, captured values) stays ND; (5)
 * every conversion says why it is there. */
#include "passes/cut.h"
#include "passes/pass.h"

#define TYPICAL 64  /* of a size that is not known */
#define TURNED  0.3 /* of a conversion: a kernel that turns blocks of ND on chip anyhow */

/* How an operator takes part. MAP_READS: it reads the layout and leaves ND. MAP_OPENS, MAP_CLOSES: the Reshape of a
 * Transpose pair that stands between the model's dimensions and those in memory: no bytes move where the value between
 * is in the layout. */
enum role { MAP_NONE, MAP_PASSES, MAP_READS, MAP_CONV, MAP_OPENS, MAP_CLOSES };

struct seat {
    struct node *n;
    uint8_t role;    /* enum role */
    int32_t in, out; /* boxes: first side: in the layout */
};
struct planner {
    struct pass_ctx *px;
    struct graph *g;
    struct cut cut;
    struct map seat_of; /* node id -> number of its seat */
    struct seat *seats;
    int32_t n;
    struct layout layout; /* of all maps: that of most convolutions' operands, whatever their types */
};

static const struct node *conv_of(const struct node *n)
{
    if (op_table[n->op]->cls == CLS_CONV)
        return n;
    if (n->op == OP_Fused)
        for_each_node (m, node_region(n, 0))
            if (op_table[m->op]->cls == CLS_CONV)
                return m;
    return NULL;
}

static bool is_elementwise(const struct node *n)
{
    if (n->op != OP_Fused)
        return op_has((enum op)n->op, T_ELEMENTWISE) && !op_has((enum op)n->op, T_REDUCE);
    for_each_node (m, node_region(n, 0))
        if (m->op != OP_Yield && m->op != OP_Constant && !is_elementwise(m))
            return false;
    return true;
}

static enum role role_of(const struct node *n)
{
    static const struct {
        enum op op;
        enum role role;
    } others[] = {{OP_Concat, MAP_PASSES},       {OP_Split, MAP_PASSES},       {OP_Slice, MAP_PASSES},
                  {OP_MaxPool, MAP_PASSES},      {OP_AveragePool, MAP_PASSES}, {OP_GlobalAveragePool, MAP_READS},
                  {OP_GlobalMaxPool, MAP_READS}, {OP_Resize, MAP_PASSES}};
    if (n->place != PLACE_NPU || n->n_out < 1 || n->n_in < 1)
        return MAP_NONE;
    if (conv_of(n))
        return MAP_CONV;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(others); i++)
        if (others[i].op == (enum op)n->op)
            return others[i].role;
    return is_elementwise(n) ? MAP_PASSES : MAP_NONE;
}

/* Channels are known: lines and blocks of them are made of a number that programs hold. */
static bool is_map(const struct value *v)
{
    int64_t channels;
    return v && v->type->kind == TYPE_TENSOR && !type_is_object(v->type) && v->type->layout.kind == LAYOUT_ND &&
           v->type->rank >= 3 && v->type->rank <= 5 && dtype_size(v->type->dtype) > 0 &&
           expr_is_const(&v->graph->module->cx->exprs, v->type->dims[1], &channels);
}

/* Is operand i a feature map as the result is, and not a weight or a constant? */
static bool is_map_operand(enum role role, const struct node *n, int i)
{
    const struct value *v = node_in(n, i);
    if (!is_map(v) || value_const(v))
        return false;
    return role == MAP_PASSES ? v->type->rank == n->out[0].type->rank : role != MAP_NONE && role != MAP_OPENS && i == 0;
}

/* A map that the kernel of a convolution adds to its result: it lies as the result does. */
static bool follows_result(enum role role, const struct node *n, int i)
{
    const struct value *v = node_in(n, i);
    if (role != MAP_CONV || n->op != OP_Fused || i < 2 || !is_map(v) || value_const(v) ||
        v->type->rank != n->out[0].type->rank)
        return false;
    for (int d = 0; d < v->type->rank; d++)
        if (v->type->dims[d] != n->out[0].type->dims[d])
            return false;
    return true;
}

static const struct type *laid(const struct planner *p, const struct type *t)
{
    return type_with_layout(p->px->cx, t, p->layout);
}

/* c0 when turned is the Transpose of [n, c1, c0, spatial..] to [n, c1, spatial.., c0], or back, beside a map of c1*c0
 * channels?
 */
static int64_t block_turned(const struct planner *p, const struct node *turned, const struct type *map, bool back)
{
    const struct type *memory = back ? node_in(turned, 0)->type : turned->out[0].type;
    const struct attr *perm = node_attr(turned, "perm");
    const int rank = map->rank + 1;
    int64_t c0, c1, c;
    struct expr_pool *x = &p->px->cx->exprs;
    if (!perm || memory->rank != rank || memory->layout.kind != LAYOUT_ND || memory->dims[0] != map->dims[0] ||
        !expr_is_const(x, memory->dims[1], &c1) || !expr_is_const(x, memory->dims[rank - 1], &c0) ||
        !expr_is_const(x, map->dims[1], &c) || c != c0 * c1)
        return 0;
    for (int i = 0; i < rank; i++) {
        const int there = i < 2 ? i : i == rank - 1 ? 2 : i + 1, here = i < 2 ? i : i == 2 ? rank - 1 : i - 1;
        if (perm->v.ints[i] != (back ? here : there))
            return false;
    }
    for (int i = 2; i < map->rank; i++)
        if (memory->dims[i] != map->dims[i])
            return 0;
    return c0;
}

static bool opens(const struct planner *p, const struct node *n)
{
    const struct node *turned = n->op == OP_Reshape ? node_in(n, 0)->def : NULL;
    return turned && turned->op == OP_Transpose && is_map(&n->out[0]) && !value_const(node_in(turned, 0)) &&
           block_turned(p, turned, n->out[0].type, true) == p->layout.c0;
}

/* c0 in which the operand of the node lies in memory outside, else 0. */
static int64_t closes(const struct planner *p, const struct node *n)
{
    const struct value *x = n->op == OP_Reshape ? node_in(n, 0) : NULL;
    const struct use *u = x ? n->out[0].uses : NULL;
    const bool alone = u && !u->next && u->user->op == OP_Transpose && is_map(x) && !value_const(x);
    const int64_t c0 = alone ? block_turned(p, u->user, x->type, false) : 0;
    return c0 == p->layout.c0 || (x && x->uses && !x->uses->next) ? c0 : 0;
}

/* The layout that a value may get: that of all, or of the memory outside where nothing else reads it. */
static const struct type *laid_value(const struct planner *p, const struct value *v)
{
    struct layout l = p->layout;
    const int64_t c0 = l.kind == LAYOUT_NC1HWC0 && v->uses && !v->uses->next ? closes(p, v->uses->user) : 0;
    l.c0 = c0 > 0 ? (int)c0 : l.c0;
    return type_with_layout(p->px->cx, v->type, l);
}

/* ---- what a node can do --------------------------------------------------------------------------------------- */

/* Does the target have a kernel for the node with operands, results or both in the layout? */
static bool can(const struct planner *p, const struct seat *s, bool in, bool out)
{
    struct node *n = s->n;
    const char *reason = NULL;
    const int total = n->n_in + n->n_out;
    const struct type **kept = ARENA_ARRAY(&p->px->arena, const struct type *, total + 1);
    bool some = false;
    for (int i = 0; i < total; i++) {
        struct value *v = i < n->n_in ? node_in(n, i) : node_out(n, i - n->n_in);
        kept[i] = v ? v->type : NULL;
        const bool changes = i < n->n_in ? (in && is_map_operand((enum role)s->role, n, i)) ||
                                               (out && follows_result((enum role)s->role, n, i))
                                         : out && is_map(v);
        if (!changes)
            continue;
        v->type = laid_value(p, v);
        some |= v->type != kept[i];
    }
    const bool ok = some && p->px->target->supports(p->px->target, p->px->cx, n, &reason);
    for (int i = total - 1; i >= 0; i--) /* a value that is there twice gets back what it had first */
        if (kept[i])
            (i < n->n_in ? node_in(n, i) : node_out(n, i - n->n_in))->type = kept[i];
    return ok;
}

static void take_seat(struct planner *p, struct seat *s)
{
    if (p->layout.kind == LAYOUT_NC1HWC0 && (opens(p, s->n) || closes(p, s->n) > 0)) {
        const bool from_memory = opens(p, s->n);
        s->role = from_memory ? MAP_OPENS : MAP_CLOSES;
        s->in = from_memory ? CUT_SECOND : CUT_FIRST;
        s->out = from_memory ? CUT_FIRST : CUT_SECOND;
        return;
    }
    s->in = s->out = CUT_SECOND;
    s->role = (uint8_t)(s->n->n_out > 0 && is_map(&s->n->out[0]) ? role_of(s->n) : MAP_NONE);
    if (s->role == MAP_PASSES && can(p, s, true, true))
        s->in = s->out = cut_box_new(&p->cut);
    if (s->role == MAP_READS && can(p, s, true, false))
        s->in = cut_box_new(&p->cut);
    if (s->role != MAP_CONV)
        return;
    const bool both = can(p, s, true, true);
    if (both && can(p, s, true, false))
        s->in = cut_box_new(&p->cut);
    if (both && can(p, s, false, true))
        s->out = cut_box_new(&p->cut);
}

/* ---- costs, in nanoseconds ------------------------------------------------------------------------------------ */

static double bytes_of(const struct planner *p, const struct type *t)
{
    double n = dtype_size(t->dtype);
    for (int i = 0; i < t->rank; i++) {
        const struct expr_range r = expr_range_of(&p->px->cx->exprs, t->dims[i]);
        double size = (double)(r.max < TYPICAL ? r.max : r.min > TYPICAL ? r.min : TYPICAL);
        if (i == 1 && t->layout.kind == LAYOUT_NC1HWC0 && r.max == r.min)
            size = (double)((r.max + t->layout.c0 - 1) / t->layout.c0 * t->layout.c0);
        n *= size > 0 ? size : 0;
    }
    return n;
}

static double move_cost(const struct planner *p, const struct type *t)
{
    return (bytes_of(p, t) + bytes_of(p, laid(p, t))) / p->px->target->bytes_per_ns;
}

static int64_t convert_cost(const struct planner *p, const struct type *t)
{
    if (type_lies_alike(p->px->cx, t, laid(p, t)))
        return 0;
    return 1 + (int64_t)(p->px->target->launch_ns + move_cost(p, t));
}

static bool is_windowed(const struct node *conv)
{
    static const char *const names[] = {"strides", "pads"};
    const struct type *w = node_in(conv, 1)->type;
    for (int i = 2; i < w->rank; i++) {
        int64_t size;
        if (!expr_is_const(&conv->graph->module->cx->exprs, w->dims[i], &size) || size != 1)
            return true;
    }
    for (int k = 0; k < NPUC_ARRAY_LEN(names); k++) {
        const struct attr *a = node_attr(conv, names[k]);
        for (int64_t i = 0; a && i < a->len; i++)
            if (a->v.ints[i] != 1 - k)
                return true;
    }
    return false;
}

/* What it costs a node to take part or not. */
static void propose(struct planner *p, const struct seat *s)
{
    if (s->role == MAP_NONE)
        return;
    const struct type *x = node_in(s->n, 0)->type, *y = s->n->out[0].type;
    if (s->role == MAP_CONV) {
        const bool windowed = is_windowed(conv_of(s->n));
        const double in = windowed ? (double)convert_cost(p, x) : TURNED * move_cost(p, x);
        cut_pay(&p->cut, CUT_FIRST, s->in, 1 + (int64_t)in);
        cut_pay(&p->cut, CUT_FIRST, s->out, 1 + (int64_t)(TURNED * move_cost(p, y)));
    } else if (s->role == MAP_PASSES && op_table[s->n->op]->cls == CLS_WINDOW) {
        cut_pay(&p->cut, CUT_FIRST, s->in, 1 + (int64_t)(2 * p->px->target->launch_ns + move_cost(p, x)));
    } else if (s->role == MAP_PASSES) {
        const double more = bytes_of(p, laid(p, y)) - bytes_of(p, y); /* channels filled up */
        cut_pay(&p->cut, s->in, CUT_SECOND, (int64_t)(2 * more / p->px->target->bytes_per_ns));
    }
}

/* ---- values --------------------------------------------------------------------------------------------------- */

static const struct seat *seat_of(struct planner *p, const struct node *n)
{
    uint64_t *known = n ? map_find(&p->seat_of, n->id) : NULL;
    return known ? &p->seats[*known] : NULL;
}

/* The box that decides in which layout a use reads. */
static int32_t box_of_use(struct planner *p, const struct use *u)
{
    const struct seat *s = u->user->graph == p->g ? seat_of(p, u->user) : NULL;
    const int i = (int)(u - u->user->in);
    if (s && follows_result((enum role)s->role, s->n, i))
        return s->out;
    return s && is_map_operand((enum role)s->role, s->n, i) ? s->in : CUT_SECOND;
}

/* Conversions of a value, either way: paid once when any consumer differs from the producer. */
static void join_uses(struct planner *p, const struct value *v, int32_t producer)
{
    bool some = producer != CUT_SECOND;
    for_each_use (u, v) {
        if (u->user->graph != p->g)
            cut_pay(&p->cut, producer, CUT_SECOND, CUT_NEVER);
        some |= box_of_use(p, u) != CUT_SECOND;
    }
    if (!some)
        return;
    const int64_t cost = convert_cost(p, v->type);
    const int32_t leaves = cut_box_new(&p->cut), enters = cut_box_new(&p->cut);
    cut_pay(&p->cut, producer, leaves, cost);
    cut_pay(&p->cut, enters, producer, cost);
    for_each_use (u, v) {
        const int32_t box = box_of_use(p, u);
        cut_pay(&p->cut, leaves, box, CUT_NEVER);
        cut_pay(&p->cut, box, enters, CUT_NEVER);
    }
}

/* ---- applying ------------------------------------------------------------------------------------------------- */

static const char *name_of(const struct node *n)
{
    if (n->op == OP_Fused)
        for_each_node (m, node_region(n, 0))
            if (m->op != OP_Constant)
                return op_table[m->op]->name;
    return op_table[n->op]->name;
}

static bool leaves_graph(const struct planner *p, const struct value *v)
{
    for_each_use (u, v)
        if (u->user->graph != p->g)
            return true;
    return false;
}

/* Why v, which lies in ND, is converted for `reader`. */
static const char *why_entered(struct planner *p, const struct value *v, const struct node *reader)
{
    const struct seat *s = seat_of(p, v->def);
    const char *layout = layout_words[p->layout.kind];
    if (!v->def)
        return arena_printf(&p->px->arena, "an input lies in ND, %s wants %s", name_of(reader), layout);
    if (leaves_graph(p, v))
        return arena_printf(&p->px->arena, "a body of control flow reads it in ND, %s in %s", name_of(reader), layout);
    return arena_printf(&p->px->arena,
                        s && s->out != CUT_SECOND ? "%s is cheaper in ND than in the %s of %s"
                                                  : "%s has no kernel that gives the %s of %s",
                        name_of(v->def), layout, name_of(reader));
}

/* Why v, which lies as maps do, is converted for `u`. */
static const char *why_left(struct planner *p, const struct use *u)
{
    const char *layout = layout_words[p->layout.kind];
    if (u->user->op == OP_Yield)
        return "a result lies in ND";
    if (u->user->place == PLACE_HOST)
        return arena_printf(&p->px->arena, "%s runs on the host, in ND", name_of(u->user));
    return arena_printf(&p->px->arena,
                        box_of_use(p, u) == CUT_SECOND ? "%s has no kernel that reads %s" : "%s would cost more in %s",
                        name_of(u->user), layout);
}

static struct value *converted(struct planner *p, struct value *v, bool to_map, const struct use *first)
{
    const char *why = to_map ? why_entered(p, v, first->user) : why_left(p, first);
    struct builder b = v->def && v->def->next ? ir_at(v->def->next) : ir_at(v->graph->first);
    struct node *n = ir_new(&b, OP_TransData, 1, &v, 1);
    const struct type *t = to_map ? laid_value(p, v) : type_with_layout(p->px->cx, v->type, (struct layout){0});
    ir_set_str(n, "layout", layout_words[t->layout.kind]);
    ir_set_int(n, "c0", t->layout.c0);
    ir_set_str(n, "why", why);
    if (ir_infer(n) != NPUC_OK)
        return NULL;
    n->loc = v->def ? v->def->loc : n->loc;
    pass_count(p->px, STAT_layout_maps_inserted, 1);
    return &n->out[0];
}

/* A result of the model keeps its name when it is converted. */
static void hand_over_name(struct value *from, struct value *to)
{
    if (from->name == to->name)
        return;
    to->name = from->name;
    from->name = 0;
}

/* Consumers that read another layout than the value has get it converted, all of them by the same TransData. */
static bool convert_uses(struct planner *p, struct value *v, bool is_laid, const bool *first)
{
    struct value *other = NULL;
    struct use *next;
    for (struct use *u = v->uses; u; u = next) {
        next = u->next;
        if (u->user->graph != p->g || first[box_of_use(p, u)] == is_laid)
            continue;
        if (!other && !(other = converted(p, v, !is_laid, u)))
            return false;
        ir_set_input(u->user, (int)(u - u->user->in), other);
        if (u->user->op == OP_Yield)
            hand_over_name(v, other);
    }
    return true;
}

/* Nodes are all asked before any type changes: what a seat's operands are is read from the types. */
static enum npuc_status apply(struct planner *p, const bool *first)
{
    if (!ir_may_rewrite(p->px->cx))
        return NPUC_OK;
    for (int32_t i = 0; i < p->g->n_inputs; i++)
        if (is_map(p->g->inputs[i]) && !convert_uses(p, p->g->inputs[i], false, first))
            return NPUC_E_INTERNAL;
    for (int32_t i = 0; i < p->n; i++)
        for (int k = 0; k < p->seats[i].n->n_out; k++) {
            struct value *v = &p->seats[i].n->out[k];
            if (is_map(v) && !convert_uses(p, v, first[p->seats[i].out], first))
                return NPUC_E_INTERNAL;
        }
    for (int32_t i = 0; i < p->n; i++)
        for (int k = 0; first[p->seats[i].out] && k < p->seats[i].n->n_out; k++) {
            struct value *v = &p->seats[i].n->out[k];
            if (is_map(v)) {
                v->type = laid_value(p, v);
                pass_count(p->px, STAT_layout_maps_laid, 1);
            }
        }
    return NPUC_OK;
}

enum npuc_status layout_maps(struct pass_ctx *px, struct graph *g)
{
    struct planner p = {.px = px, .g = g};
    int64_t count[DT_COUNT] = {0}, most = 0;
    if (!px->target || !px->target->map_layout || px->options.plain_maps)
        return NPUC_OK;
    for_each_node (n, g) {
        const enum dtype t = node_in(n, 0) && role_of(n) == MAP_CONV ? node_in(n, 0)->type->dtype : DT_NONE;
        if (t != DT_NONE && ++count[t] > most) {
            most = count[t];
            p.layout = px->target->map_layout(px->target, t);
        }
        p.n++;
    }
    if (p.layout.kind == LAYOUT_ND)
        return NPUC_OK;
    p.seats = ARENA_ARRAY(&px->arena, struct seat, p.n + 1);
    cut_init(&p.cut, &px->arena);
    map_init(&p.seat_of, &px->arena);
    p.n = 0;
    for_each_node (n, g) {
        map_put(&p.seat_of, n->id, (uint64_t)p.n);
        p.seats[p.n] = (struct seat){.n = n};
        take_seat(&p, &p.seats[p.n++]);
    }
    for (int32_t i = 0; i < p.n; i++)
        propose(&p, &p.seats[i]);
    for (int32_t i = 0; i < g->n_inputs; i++)
        if (is_map(g->inputs[i]))
            join_uses(&p, g->inputs[i], CUT_SECOND);
    for (int32_t i = 0; i < p.n; i++)
        for (int k = 0; k < p.seats[i].n->n_out; k++)
            if (node_out(p.seats[i].n, k) && is_map(&p.seats[i].n->out[k]))
                join_uses(&p, &p.seats[i].n->out[k], p.seats[i].out);
    const enum npuc_status s = apply(&p, cut_solve(&p.cut));
    return s == NPUC_OK ? place(px, g) : s;
}
