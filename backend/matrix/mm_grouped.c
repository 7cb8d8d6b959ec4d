/* GroupedMatMul: what is supported, and the walk over groups.
 *
 *   few rows (at most as many as matrices)         many rows
 *   for each row j: e = index[j]                   for each matrix e
 *     rows ends[e-1] .. ends[e], if j is the first     rows ends[e-1] .. ends[e]
 *       for each tile of this core                     for each tile of this core
 *
 * Tiles go to the cores in turn across groups: the first tile of a group that begins with row r is number r (few rows),
 * or r / tile_m + e, which leaves small gaps. So cores agree without counting. */
#include "backend/matrix/mm_grouped.h"

#include <math.h>

enum { ROWS, INDEX, WEIGHTS };

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static bool is_dense(const struct value *v, int rank)
{
    return v && v->type->kind == TYPE_TENSOR && v->type->rank == rank && v->type->layout.kind == LAYOUT_ND;
}

/* The matrices as constants: one of three dims or several of two, stored alike. */
static bool read_matrices(struct ir_ctx *cx, const struct node *n, int last, struct mm *out)
{
    struct value **all = ARENA_ARRAY(&cx->arena, struct value *, last - WEIGHTS);
    for (int i = WEIGHTS; i < last; i++) {
        bool trans = false;
        struct value *v = mm_constant_of(node_in(n, i), &trans);
        if (!v || v->type->rank != node_in(n, i)->type->rank || (i > WEIGHTS && trans != out->weight_trans) ||
            (i > WEIGHTS && v->type != all[0]->type))
            return false;
        out->weight_trans = trans;
        all[i - WEIGHTS] = v;
    }
    out->b = all[0];
    out->stack = all;
    out->n_stack = last - WEIGHTS;
    return true;
}

static bool set_sizes(struct ir_ctx *cx, const struct machine *m, const struct node *n, struct mm *out)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *w = node_in(n, WEIGHTS)->type;
    int64_t groups = out->n_stack;
    out->m = out->a->type->dims[0];
    out->k = out->a_row = out->a->type->dims[1];
    out->n = out->c_row = out->c->type->dims[1];
    out->b_row = out->b_trans ? out->k : out->n;
    if (w->rank == 3 && !expr_is_const(x, w->dims[0], &groups))
        return false;
    out->groups = groups;
    out->b_group = expr_mul(x, out->n, out->k);
    if (out->weight && !m->mac_rows)
        out->b_group = expr_mul(x, expr_align(x, out->n, 16), expr_align(x, out->k, m->c0_bytes / dtype_size(out->in)));
    return groups > 0;
}

bool mm_match_grouped(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct mm *out,
                      const char **reason)
{
    const int last = n->n_in - 1;
    if (node_attr_int(n, "sorted", 0) == 0)
        return refuse(reason, "rows that are not in the order of their matrices");
    struct value *a = node_in(n, ROWS), *w = node_in(n, WEIGHTS), *y = node_out(n, 0);
    if (!is_dense(a, 2) || !is_dense(y, 2) || !is_dense(node_in(n, INDEX), 1) || !is_dense(node_in(n, last), 1))
        return refuse(reason, "operands that do not lie row by row");
    if (w->type->dtype != a->type->dtype || !mm_has_mac(m, a->type->dtype, y->type->dtype))
        return refuse(reason,
                      "the matrix unit takes two operands of one type, f32, f16 or bf16 into floats or i8 into i32");
    *out = (struct mm){.in = a->type->dtype,
                       .out = y->type->dtype,
                       .a = a,
                       .b = w,
                       .c = y,
                       .index = node_in(n, INDEX),
                       .ends = node_in(n, last),
                       .top = node_attr_int(n, "top", 1),
                       .ranks = node_attr_int(n, "ranks", 1)};
    out->weight = read_matrices(cx, n, last, out);
    const bool turned = node_attr_int(n, "transB", 0) != 0;
    if (out->weight)
        out->weight_trans = turned == out->weight_trans; /* stored with rows n */
    else if (last == WEIGHTS + 1 && is_dense(w, 3))
        out->b_trans = turned;
    else
        return refuse(reason, "matrices that are neither constant nor one tensor");
    if (!out->weight) {
        out->b = w;
        out->n_stack = 0;
    }
    return set_sizes(cx, m, n, out) ? true : refuse(reason, "the number of matrices is not known");
}

/* ---- how many matrices are chosen --------------------------------------------------------------------------- */

double mm_expected_groups(int64_t groups, double share, double rows)
{
    const double all = (double)groups, each = fmin(share, all), tokens = fmax(rows / share, 1);
    return fmax(1, all * (1 - pow(1 - each / all, tokens)));
}

static int64_t expected_at(const struct mm *p, int64_t tokens)
{
    return (int64_t)(mm_expected_groups(p->groups, mm_share(p), (double)tokens * mm_share(p)) + 0.5);
}

/* The same as an expression: lines between the values at 1, 2, 3, 4, 6, 8, 12 .. tokens. */
static expr expected(struct ir_ctx *cx, const struct mm *p)
{
    struct expr_pool *x = &cx->exprs;
    const expr zero = expr_const(x, 0), all = expr_mul_const(x, p->m, p->ranks),
               tokens = expr_floordiv(x, all, expr_const(x, p->top));
    expr sum = expr_const(x, expected_at(p, 1));
    int64_t at = 1, have = expected_at(p, 1);
    for (int64_t next = 2, step = 1; have < p->groups && next < 1 << 24; next = at + step) {
        const int64_t value = expected_at(p, next);
        expr part = expr_max(x, zero, expr_sub(x, tokens, expr_const(x, at)));
        part = expr_min(x, part, expr_const(x, next - at));
        sum = expr_add(x, sum, expr_floordiv(x, expr_mul_const(x, part, value - have), expr_const(x, next - at)));
        have = value;
        at = next;
        step = (at & (at - 1)) == 0 && at > 1 ? at / 2 : step;
    }
    return expr_max(x, expr_const(x, 1), expr_min(x, sum, p->m));
}

enum npuc_status mm_emit_by_rows(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label,
                                 mm_emit_fn *emit)
{
    struct mm rows = *p, matrices = *p;
    rows.by_rows = true;
    const expr few = expr_cmp(&e->cx->exprs, EXPR_LE, p->m, expr_const(&e->cx->exprs, p->groups));
    return mm_emit_either(e, few, &rows, &matrices, t, label, emit);
}

/* ---- the walk ------------------------------------------------------------------------------------------------ */

void mm_groups_declare(struct mm_groups *g, const struct mm *p, struct kparams *params)
{
    g->p = p;
    g->rows = kparam(params, "rows", p->m);
    g->expected = kparam(params, "expected", expected(params->e->cx, p));
}

void mm_groups_tensors(struct mm_groups *g, struct tile_kernel *k, struct arena *a)
{
    g->index = tile_tensor(k, a, "index", DT_I64, true, false);
    g->ends = tile_tensor(k, a, "ends", DT_I64, true, false);
}

/* Place behind the last row of matrix e; without data rows are dealt out evenly to the matrices that are chosen. */
static expr load_end(struct mm_groups *g, struct tile_builder *b, const char *name, expr at, expr e)
{
    struct expr_pool *x = &b->k->exprs;
    const int32_t var = tile_var(b, name, (struct expr_range){0, INT32_MAX, 1});
    const expr next = expr_mul(x, expr_add(x, e, expr_const(x, 1)), g->rows);
    const expr guess = expr_min(x, g->rows, expr_ceildiv(x, next, g->expected));
    TILE(b, SLOAD, var, g->ends, DT_I64, at, expr_const(x, 0), g->rows, guess);
    return expr_sym(x, var);
}

static void open_group(struct mm_groups *g, struct tile_builder *b)
{
    struct expr_pool *x = &b->k->exprs;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), last = expr_const(x, g->p->groups - 1);
    const expr j = tile_loop(b, "group", g->p->by_rows ? g->rows : expr_const(x, g->p->groups));
    g->which = j;
    if (g->p->by_rows) {
        const int32_t var = tile_var(b, "which", (struct expr_range){0, g->p->groups - 1, 1});
        const expr guess = expr_floordiv(x, expr_mul(x, j, g->expected), expr_max(x, one, g->rows));
        tile_note(b, "the matrix of the row, its rows");
        TILE(b, SLOAD, var, g->index, DT_I64, j, zero, last, guess);
        g->which = expr_sym(x, var);
    }
    const expr before = expr_max(x, zero, expr_sub(x, g->which, one));
    const expr from = load_end(g, b, "from", before, expr_sub(x, g->which, one));
    const expr end = load_end(g, b, "end", g->which, g->which);
    g->first = expr_mul(x, from, expr_cmp(x, EXPR_LT, zero, g->which));
    g->n = expr_max(x, zero, expr_sub(x, end, g->first));
    if (g->p->by_rows)
        g->n = expr_mul(x, g->n, expr_cmp(x, EXPR_EQ, g->first, j));
}

expr mm_groups_open(struct mm_groups *g, struct tile_builder *b, int64_t cores, int64_t tile_m, expr columns)
{
    struct expr_pool *x = &b->k->exprs;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), m = expr_const(x, tile_m);
    b->k->blocks = expr_max(x, one, expr_min(x, expr_const(x, cores), expr_mul(x, g->rows, columns)));
    open_group(g, b);
    const expr block = expr_sym(x, b->k->sym_block), tiles = expr_mul(x, expr_ceildiv(x, g->n, m), columns);
    const expr place = g->p->by_rows ? g->first : expr_add(x, expr_floordiv(x, g->first, m), g->which);
    const expr begin = expr_mod(x, expr_mul(x, place, columns), b->k->blocks);
    const expr own = expr_mod(x, expr_add(x, expr_sub(x, block, begin), b->k->blocks), b->k->blocks);
    g->rounds = expr_ceildiv(x, expr_max(x, zero, expr_sub(x, tiles, own)), b->k->blocks);
    g->round = tile_loop(b, "i", g->rounds);
    return expr_add(x, own, expr_mul(x, g->round, b->k->blocks));
}
