/* Lowering of a section: operands become indices into one array of values, expressions are grouped by the variable that
 * is defined last among those they use. The plan verifier has checked the kernel; what memory safety rests on is
 * checked again. */
#include "runtime/emu/emu_priv.h"

#include <stdarg.h>
#include <stdio.h>

struct lowering {
    struct arena *arena;
    struct emu_program *p;
    const struct expr_pool *pool;
    int32_t *group_of;   /* per pool node; -1: unused */
    int32_t *at;         /* per pool node: index of its value */
    int32_t *defined_by; /* per symbol: group, -1 never */
    VEC(int64_t) literals;
    char *error;
    size_t cap;
};

static bool NPUC_PRINTF(2, 3) bad(struct lowering *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->error, w->cap, fmt, ap);
    va_end(ap);
    return false;
}

static bool check_field(struct lowering *w, const struct tile_insn *in, int f)
{
    const struct tile_kernel *k = w->p->kernel;
    const struct tile_field *field = &tile_insn_table[in->op].fields[f];
    const int64_t v = in->arg[f];
    int64_t lo = 0, hi = INT32_MAX;
    switch (field->kind) {
    case TF_BUF: hi = w->p->section->bufs.len - 1; break;
    case TF_BUF_OPT: lo = -1, hi = w->p->section->bufs.len - 1; break;
    case TF_TENSOR: hi = k->tensors.len - 1; break;
    case TF_TENSOR_OPT: lo = -1, hi = k->tensors.len - 1; break;
    case TF_EXPR: lo = INT32_MIN; break;
    case TF_DTYPE: lo = 1, hi = DT_COUNT - 1; break;
    case TF_UNIT: hi = TU_COUNT - 1; break;
    case TF_VAR: hi = k->exprs.symbols.len - 1; break;
    case TF_FN: hi = 255; break;
    case TF_INT:
    case TF_FLOAT: lo = INT32_MIN; break;
    }
    if (tile_arg_is_expr(in, f))
        lo = 1, hi = w->pool->nodes.len - 1;
    if (v >= lo && v <= hi)
        return true;
    return bad(w, "field %s of %s is %lld", field->name, tile_insn_table[in->op].name, (long long)v);
}

/* Jump targets, numbers of loops and groups of variables. */
static bool link_control(struct lowering *w)
{
    struct emu_program *p = w->p;
    int32_t *open = ARENA_ARRAY(w->arena, int32_t, p->n_code + 1);
    int32_t depth = 0;
    p->n_groups = 2;
    for (int32_t i = 0; open && i < p->n_code; i++) {
        struct emu_ins *in = &p->code[i];
        if (tile_insn_defines(in->op)) {
            const int32_t symbol = in->insn->arg[0];
            if (w->defined_by[symbol] >= 0)
                return bad(w, "variable %d is defined twice", symbol);
            w->defined_by[symbol] = in->group = p->n_groups++;
        }
        if (in->op == TILE_LOOP || in->op == TILE_IF) {
            in->loop = in->op == TILE_LOOP ? p->n_loops++ : -1;
            open[depth++] = i;
        } else if (in->op == TILE_ENDLOOP || in->op == TILE_ENDIF) {
            struct emu_ins *start = depth ? &p->code[open[--depth]] : NULL;
            if (!start || (start->op == TILE_LOOP) != (in->op == TILE_ENDLOOP))
                return bad(w, "%s without its start", tile_insn_table[in->op].name);
            in->jump = open[depth] + 1;
            in->loop = start->loop;
            in->group = start->group;
            start->jump = i + 1;
        }
    }
    return open && (!depth || bad(w, "a loop or if without its end"));
}

/* Marks the nodes that operands need, then assigns each to the group of its last variable. Operands precede their
 * users. */
static bool group_nodes(struct lowering *w)
{
    const struct expr_pool *pool = w->pool;
    for (int64_t e = pool->nodes.len - 1; e > 0; e--) {
        const struct expr_node *n = &pool->nodes.data[e];
        if (w->group_of[e] < 0 || n->op == EXPR_CONST || n->op == EXPR_SYM)
            continue;
        for (int32_t i = 0; i < n->n; i++) {
            if (n->arg[i] <= 0 || n->arg[i] >= e)
                return bad(w, "expression %lld refers to %d", (long long)e, n->arg[i]);
            w->group_of[n->arg[i]] = 0;
        }
    }
    for (int64_t e = 1; e < pool->nodes.len; e++) {
        const struct expr_node *n = &pool->nodes.data[e];
        if (w->group_of[e] < 0)
            continue;
        if (n->op == EXPR_SYM) {
            if (n->value < 0 || n->value >= pool->symbols.len || w->defined_by[n->value] < 0)
                return bad(w, "expression %lld uses an undefined variable", (long long)e);
            w->group_of[e] = w->defined_by[n->value];
        } else if (n->op != EXPR_CONST) {
            for (int32_t i = 0; i < n->n; i++)
                if (w->group_of[n->arg[i]] > w->group_of[e])
                    w->group_of[e] = w->group_of[n->arg[i]];
        }
    }
    return true;
}

static bool number_values(struct lowering *w)
{
    struct emu_program *p = w->p;
    const struct expr_pool *pool = w->pool;
    int32_t n_nodes = 0;
    p->n_values = (int32_t)w->literals.len;
    for (int64_t e = 1; e < pool->nodes.len; e++) {
        const uint8_t op = pool->nodes.data[e].op;
        if (w->group_of[e] >= 0) {
            w->at[e] = p->n_values++;
            n_nodes += op != EXPR_CONST && op != EXPR_SYM;
        }
    }
    for (int32_t s = 0; s < p->n_symbols; s++)
        p->symbol[s] = -1;
    p->values = ARENA_ARRAY(w->arena, int64_t, p->n_values + p->n_symbols + 1);
    p->varies = ARENA_ARRAY(w->arena, bool, p->n_values + p->n_symbols + 1);
    p->nodes = ARENA_ARRAY(w->arena, struct emu_node, n_nodes + 1);
    p->groups = ARENA_ARRAY(w->arena, struct emu_group, p->n_groups);
    if (!p->values || !p->varies || !p->nodes || !p->groups)
        return bad(w, "out of host memory");
    for (int64_t i = 0; i < w->literals.len; i++)
        p->values[i] = w->literals.data[i];
    for (int64_t e = 1; e < pool->nodes.len; e++) {
        const struct expr_node *n = &pool->nodes.data[e];
        if (w->group_of[e] < 0)
            continue;
        p->varies[w->at[e]] = w->group_of[e] > 0;
        if (n->op == EXPR_CONST)
            p->values[w->at[e]] = n->value;
        else if (n->op == EXPR_SYM)
            p->symbol[n->value] = w->at[e];
        else
            p->groups[w->group_of[e]].n++;
    }
    for (int32_t s = 0; s < p->n_symbols; s++)
        if (p->symbol[s] < 0)
            p->symbol[s] = p->n_values++; /* unused: a place to write to */
    return true;
}

static bool fill_nodes(struct lowering *w)
{
    struct emu_program *p = w->p;
    for (int32_t g = 0, first = 0; g < p->n_groups; g++) {
        p->groups[g].first = first;
        first += p->groups[g].n;
        p->groups[g].n = 0;
    }
    for (int64_t e = 1; e < w->pool->nodes.len; e++) {
        const struct expr_node *n = &w->pool->nodes.data[e];
        if (w->group_of[e] < 0 || n->op == EXPR_CONST || n->op == EXPR_SYM)
            continue;
        struct emu_group *g = &p->groups[w->group_of[e]];
        int32_t *arg = ARENA_ARRAY(w->arena, int32_t, n->n + 1);
        if (!arg)
            return bad(w, "out of host memory");
        for (int32_t i = 0; i < n->n; i++)
            arg[i] = w->at[n->arg[i]];
        p->nodes[g->first + g->n++] = (struct emu_node){n->op, n->n, w->at[e], n->value, arg, n->coef};
    }
    return true;
}

static int32_t literal(struct lowering *w, int64_t v)
{
    for (int64_t i = 0; i < w->literals.len; i++)
        if (w->literals.data[i] == v)
            return (int32_t)i;
    vec_push(w->arena, &w->literals, v);
    return (int32_t)w->literals.len - 1;
}

static bool read_code(struct lowering *w)
{
    struct emu_program *p = w->p;
    for (int32_t i = 0; i < p->n_code; i++) {
        const struct tile_insn *in = &p->section->code.data[i];
        struct emu_ins *out = &p->code[i];
        const struct tile_insn_info *info = in->op < TILE_OP_END ? &tile_insn_table[in->op] : NULL;
        if (!info || !info->name)
            return bad(w, "instruction %d has the unknown number %d", i, in->op);
        out->insn = in;
        out->op = (uint8_t)in->op;
        out->n_fields = (uint8_t)info->n_fields;
        out->unit = (uint8_t)tile_insn_unit(p->section, in);
        out->flag = in->op == TILE_SET || in->op == TILE_WAIT;
        out->orders = info->cls == TC_CTRL && in->op != TILE_SLOAD;
        for (int f = 0; f < info->n_fields; f++) {
            if (!check_field(w, in, f))
                return false;
            if (tile_arg_is_expr(in, f))
                w->group_of[in->arg[f]] = 0;
            else
                out->val[f] = literal(w, in->arg[f]);
            const enum tile_field_kind kind = info->fields[f].kind;
            if ((kind == TF_BUF || kind == TF_BUF_OPT) && in->arg[f] >= 0 && out->n_bufs < 8)
                out->buf_field[out->n_bufs++] = (uint8_t)f;
        }
    }
    return true;
}

static void resolve_operands(struct lowering *w)
{
    struct emu_program *p = w->p;
    for (int32_t i = 0; i < p->n_code; i++) {
        struct emu_ins *in = &p->code[i];
        for (int f = 0; f < in->n_fields; f++)
            if (tile_arg_is_expr(in->insn, f)) {
                in->val[f] = w->at[in->insn->arg[f]];
                if (w->group_of[in->insn->arg[f]] > 0)
                    in->moving[in->n_moving++] = (uint8_t)f;
            }
        if (tile_insn_defines(in->op))
            in->var = p->symbol[in->insn->arg[0]];
        else if (in->op == TILE_ENDLOOP)
            in->var = p->code[in->jump - 1].var;
    }
}

static bool lower(struct lowering *w)
{
    struct emu_program *p = w->p;
    const struct tile_kernel *k = p->kernel;
    for (int64_t e = 0; e < w->pool->nodes.len; e++)
        w->group_of[e] = -1;
    for (int32_t s = 0; s < p->n_symbols; s++)
        w->defined_by[s] = s < k->n_params ? 0 : s == k->sym_block || s == k->sym_sub ? 1 : -1;
    if (!read_code(w) || !link_control(w) || !group_nodes(w) || !number_values(w) || !fill_nodes(w))
        return false;
    resolve_operands(w);
    return true;
}

struct emu_program *emu_program_new(struct arena *a, const struct tile_kernel *k, enum tile_core core, char *error,
                                    size_t cap)
{
    struct emu_program *p = ARENA_NEW(a, struct emu_program);
    if (!p)
        return NULL;
    *p = (struct emu_program){.kernel = k,
                              .section = &k->section[core],
                              .n_code = (int32_t)k->section[core].code.len,
                              .n_symbols = (int32_t)k->exprs.symbols.len};
    p->code = ARENA_ARRAY(a, struct emu_ins, p->n_code + 1);
    p->symbol = ARENA_ARRAY(a, int32_t, p->n_symbols + 1);
    struct lowering w = {.arena = a, .p = p, .pool = &k->exprs, .error = error, .cap = cap};
    w.group_of = ARENA_ARRAY(a, int32_t, w.pool->nodes.len + 1);
    w.at = ARENA_ARRAY(a, int32_t, w.pool->nodes.len + 1);
    w.defined_by = ARENA_ARRAY(a, int32_t, p->n_symbols + 1);
    if (!p->code || !p->symbol || !w.group_of || !w.at || !w.defined_by) {
        snprintf(error, cap, "out of host memory");
        return NULL;
    }
    if (!lower(&w))
        return NULL;
    if (!emu_program_views(p, a)) {
        snprintf(error, cap, "out of host memory");
        return NULL;
    }
    return p;
}

/* Sizes mostly are: a division of 32 bits takes half as long. */
static inline bool is_short(int64_t a, int64_t b)
{
    return b > 0 && (((uint64_t)a | (uint64_t)b) >> 32) == 0;
}

/* Floor division and modulus; a zero divisor gives a value that no bounds check accepts. Sums wrap: an overflow is
 * found by the same checks, and expressions of branches not taken may overflow harmlessly. */
static int64_t floor_div(int64_t a, int64_t b)
{
    if (is_short(a, b))
        return (int64_t)((uint32_t)a / (uint32_t)b);
    if (b == 0 || (b == -1 && a == INT64_MIN))
        return INT64_MIN;
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t floor_mod(int64_t a, int64_t b)
{
    if (is_short(a, b))
        return (int64_t)((uint32_t)a % (uint32_t)b);
    if (b == 0)
        return INT64_MIN;
    if (b == -1)
        return 0;
    const int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

static inline int64_t eval_sum(const struct emu_node *n, const int64_t *v)
{
    uint64_t acc = (uint64_t)n->value;
    for (int32_t i = 0; i < n->n; i++)
        acc += (uint64_t)n->coef[i] * (uint64_t)v[n->arg[i]];
    return (int64_t)acc;
}

static int64_t eval_node(const struct emu_node *n, const int64_t *v)
{
    const int64_t a = n->n > 0 ? v[n->arg[0]] : 0, b = n->n > 1 ? v[n->arg[1]] : 0;
    uint64_t acc;
    switch ((enum expr_op)n->op) {
    case EXPR_CONST:
    case EXPR_SYM: return n->value;
    case EXPR_SUM: return eval_sum(n, v);
    case EXPR_PROD:
        acc = 1;
        for (int32_t i = 0; i < n->n; i++)
            acc *= (uint64_t)v[n->arg[i]];
        return (int64_t)acc;
    case EXPR_FLOORDIV: return floor_div(a, b);
    case EXPR_MOD: return floor_mod(a, b);
    case EXPR_MIN: return a < b ? a : b;
    case EXPR_MAX: return a > b ? a : b;
    case EXPR_EQ: return a == b;
    case EXPR_LT: return a < b;
    case EXPR_LE: return a <= b;
    case EXPR_SELECT: return a != 0 ? b : v[n->arg[n->n > 2 ? 2 : 0]];
    }
    return 0;
}

void emu_program_eval(const struct emu_program *p, int64_t *values, int32_t group)
{
    const struct emu_group g = p->groups[group];
    for (const struct emu_node *n = p->nodes + g.first, *end = n + g.n; n < end; n++)
        values[n->at] = n->op == EXPR_SUM ? eval_sum(n, values) : eval_node(n, values);
}
