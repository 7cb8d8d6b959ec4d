/* One kernel for several: each has blocks of its own, of which it knows nothing.
 *
 *   blocks 0 .. n0 - 1          the first kernel's
 *   blocks n0 .. n0 + n1 - 1    the second's, which counts them from 0: IF n0 <= block { LET block1 = block - n0; ... }
 *
 * A core runs one of the programs, so buffers of different ones share their places and flags their numbers: programs
 * and places stay as they were scheduled. Tensors and parameters that several have alike are one. */
#include "backend/emit_priv.h"

#include <string.h>

struct joiner {
    struct emit *e;
    struct tile_builder b;
    struct expr_pool *x;  /* of the joint kernel */
    VEC(expr) bound;      /* by parameter: its value over the plan's symbols */
    VEC(int32_t) tensors; /* by tensor: that of the plan */
    VEC(uint8_t) divided;
    bool failed; /* an expression would be too large */
    /* of the member being copied */
    const struct join_member *m;
    struct expr_copier copier;
    expr block;
    expr *param;                 /* by its parameter */
    int32_t *symbol, *tensor_of; /* by its symbol beyond them, by its tensor */
    int32_t first_buf, first_note;
};

static bool is_divided(const struct plan_step *s, int64_t i)
{
    return s->divided && s->divided[i];
}

/* The value, or a parameter that is bound to it. */
static expr param_for(struct joiner *j, expr value, const char *name, struct expr_range range)
{
    int64_t number;
    if (value == EXPR_INVALID)
        j->failed = true;
    if (expr_is_const(&j->e->plan->exprs, value, &number))
        return expr_const(j->x, number);
    for (int64_t i = 0; i < j->bound.len; i++)
        if (j->bound.data[i] == value)
            return expr_sym(j->x, (int32_t)i);
    vec_push(j->e->arena, &j->bound, value);
    return tile_param(j->b.k, name, range);
}

static expr *declare_params(struct joiner *j, const struct join_member *m)
{
    const struct tile_kernel *k = m->kernel;
    expr *out = ARENA_ARRAY(j->e->arena, expr, k->n_params + 1);
    for (int32_t i = 0; i < k->n_params; i++) {
        const struct expr_symbol s = k->exprs.symbols.data[i];
        out[i] = param_for(j, m->step->params[i], str_text(k->exprs.strings, s.name), s.range);
    }
    return out;
}

static int32_t find_tensor(const struct joiner *j, int32_t tensor, uint8_t dtype, bool divided)
{
    for (int64_t i = 0; i < j->tensors.len; i++)
        if (j->tensors.data[i] == tensor && j->b.k->tensors.data[i].dtype == dtype && j->divided.data[i] == divided)
            return (int32_t)i;
    return -1;
}

/* Those of the member: found, or added. What several read stays in L2. */
static void declare_tensors(struct joiner *j)
{
    const struct tile_kernel *k = j->m->kernel;
    j->tensor_of = ARENA_ARRAY(j->e->arena, int32_t, k->tensors.len + 1);
    for (int64_t i = 0; i < k->tensors.len; i++) {
        const struct tile_tensor t = k->tensors.data[i];
        const int32_t of = j->m->step->tensors[i];
        const bool divided = is_divided(j->m->step, i);
        const int32_t known = find_tensor(j, of, t.dtype, divided);
        j->tensor_of[i] = known >= 0 ? known
                                     : tile_tensor(j->b.k, j->e->arena, str_text(k->exprs.strings, t.name),
                                                   (enum dtype)t.dtype, t.is_input, t.is_output);
        struct tile_tensor *own = &j->b.k->tensors.data[j->tensor_of[i]];
        own->is_input = own->is_input || t.is_input;
        own->is_output = own->is_output || t.is_output;
        own->bypass = known >= 0 ? EXPR_INVALID : expr_copy(&j->copier, t.bypass);
        if (known >= 0)
            continue;
        vec_push(j->e->arena, &j->tensors, of);
        vec_push(j->e->arena, &j->divided, (uint8_t)divided);
    }
}

/* ---- programs ---------------------------------------------------------------------------------------------------- */

static expr symbol_of(void *user, int64_t symbol)
{
    struct joiner *j = user;
    const struct tile_kernel *k = j->m->kernel;
    if (symbol < k->n_params)
        return j->param[symbol];
    if (symbol == k->sym_block)
        return j->block;
    return expr_sym(j->x, symbol == k->sym_sub ? j->b.k->sym_sub : j->symbol[symbol]);
}

static int32_t copy_arg(struct joiner *j, const struct tile_insn *in, int f)
{
    const struct tile_kernel *k = j->m->kernel;
    const enum tile_field_kind kind = tile_insn_table[in->op].fields[f].kind;
    const int32_t v = in->arg[f];
    if (kind == TF_BUF || kind == TF_BUF_OPT)
        return v < 0 ? v : v + j->first_buf;
    if (kind == TF_TENSOR || kind == TF_TENSOR_OPT)
        return v < 0 ? v : j->tensor_of[v];
    if (kind == TF_VAR) {
        const struct expr_symbol s = k->exprs.symbols.data[v];
        j->symbol[v] = tile_var(&j->b, str_text(k->exprs.strings, s.name), s.range);
        return j->symbol[v];
    }
    if (kind != TF_EXPR || !tile_arg_is_expr(in, f))
        return v;
    const expr e = expr_copy(&j->copier, v);
    j->failed = j->failed || e == EXPR_INVALID;
    return e;
}

/* Expressions first: what a LOOP or LET counts or names may not know its own variable. */
static void copy_insn(struct joiner *j, const struct tile_insn *in)
{
    const struct tile_insn_info *row = &tile_insn_table[in->op];
    struct tile_insn out = {.op = in->op, .line = (uint16_t)(in->line ? in->line + j->first_note : 0)};
    for (int f = row->n_fields - 1; f >= 0; f--)
        out.arg[f] = copy_arg(j, in, f);
    vec_push(j->e->arena, &j->b.at->code, out);
}

static void begin_member(struct joiner *j, const struct join_member *m)
{
    const struct tile_kernel *k = m->kernel;
    j->m = m;
    j->copier = (struct expr_copier){.from = &k->exprs, .to = j->x, .symbol = symbol_of, .user = j};
    map_init(&j->copier.known, j->e->arena);
    j->symbol = ARENA_ARRAY(j->e->arena, int32_t, k->exprs.symbols.len + 1);
}

static void copy_program(struct joiner *j)
{
    const struct tile_kernel *k = j->m->kernel;
    const struct tile_section *s = &k->section[TCORE_VECTOR];
    struct tile_section *at = j->b.at;
    j->first_buf = (int32_t)at->bufs.len;
    j->first_note = (int32_t)j->b.k->notes.len;
    for (int64_t i = 0; i < s->bufs.len; i++)
        vec_push(j->e->arena, &at->bufs, s->bufs.data[i]);
    for (int64_t i = 0; i < k->notes.len; i++)
        vec_push(j->e->arena, &j->b.k->notes, k->notes.data[i]);
    for (int64_t i = 0; i < s->code.len && !j->failed; i++)
        copy_insn(j, &s->code.data[i]);
}

/* The member's program on blocks first .. end - 1. */
static void write_member(struct joiner *j, expr first, expr end, bool last)
{
    struct expr_pool *x = j->x;
    const expr block = expr_sym(x, j->b.k->sym_block);
    const expr from = expr_cmp(x, EXPR_LE, first, block), to = expr_cmp(x, EXPR_LT, block, end);
    tile_if(&j->b, last ? from : expr_mul(x, from, to));
    j->block = block;
    if (first != expr_const(x, 0)) {
        const int32_t own = tile_var(&j->b, "block", (struct expr_range){0, INT32_MAX, 1});
        TILE(&j->b, LET, own, expr_sub(x, block, first));
        j->block = expr_sym(x, own);
    }
    copy_program(j);
    tile_end(&j->b);
}

/* "rotary+copy" for the kernels rotary, rotary, copy. */
static const char *joint_name(struct joiner *j, const struct join_member *members, int n)
{
    const char *name = "";
    for (int i = 0; i < n; i++) {
        bool again = false;
        for (int k = 0; k < i; k++)
            again = again || members[k].kernel->name == members[i].kernel->name;
        const char *own = str_text(members[i].kernel->exprs.strings, members[i].kernel->name);
        if (!again)
            name = *name ? arena_printf(j->e->arena, "%s+%s", name, own) : own;
    }
    return name;
}

struct joint join_kernels(struct emit *e, const struct join_member *members, int n)
{
    struct joiner *j = ARENA_NEW(e->arena, struct joiner);
    expr *first = ARENA_ARRAY(e->arena, expr, n + 1), **param = ARENA_ARRAY(e->arena, expr *, n);
    j->e = e;
    struct tile_kernel *k = tile_kernel_new(e->arena, &e->plan->strings, joint_name(j, members, n));
    j->b = (struct tile_builder){.k = k, .arena = e->arena};
    j->x = &k->exprs;
    for (int i = 0; i < n; i++)
        param[i] = declare_params(j, &members[i]);
    for (int i = 0; i <= n; i++) {
        const expr at =
            i < n ? members[i].first : expr_add(&e->plan->exprs, members[n - 1].first, members[n - 1].blocks);
        first[i] = param_for(j, at, i < n ? "first" : "blocks", (struct expr_range){0, INT32_MAX, 1});
    }
    tile_params_done(k);
    k->blocks = first[n];
    tile_section_begin(&j->b, TCORE_VECTOR);
    for (int i = 0; i < n && !j->failed; i++) {
        begin_member(j, &members[i]);
        j->param = param[i];
        declare_tensors(j);
        write_member(j, first[i], first[i + 1], i == n - 1);
    }
    return (struct joint){j->failed ? NULL : k, j->tensors.data, j->divided.data, j->bound.data};
}
