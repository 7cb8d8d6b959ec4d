/* Abbreviations for printing a kernel: an expression that stands in several places gets a name, "e1", and is printed
 * once. The kernel's pool is copied with each named node replaced by a symbol; nothing of the kernel is changed. */
#include "plan/text_priv.h"

enum { MIN_USES = 2, MIN_WEIGHT = 5 };

static void count_fields(struct expr_short *x, const struct tile_section *s)
{
    for (int64_t i = 0; i < s->code.len; i++)
        for (int f = 0; f < tile_insn_table[s->code.data[i].op].n_fields; f++) {
            const expr e = s->code.data[i].arg[f];
            if (tile_arg_is_expr(&s->code.data[i], f) && e > 0 && e < x->from->nodes.len)
                x->uses[e]++;
        }
}

/* From users to operands, so that what only an unused node refers to is not counted. */
static void count_uses(struct expr_short *x, const struct tile_kernel *k)
{
    if (k->blocks > 0 && k->blocks < x->from->nodes.len)
        x->uses[k->blocks]++;
    for (int64_t i = 0; i < k->tensors.len; i++) {
        const expr e = k->tensors.data[i].bypass;
        if (e > 0 && e < x->from->nodes.len)
            x->uses[e]++;
    }
    for (int c = 0; c < TCORE_COUNT; c++)
        if (k->has[c])
            count_fields(x, &k->section[c]);
    for (int64_t e = x->from->nodes.len - 1; e > 0; e--) {
        const struct expr_node *n = &x->from->nodes.data[e];
        for (int32_t i = 0; i < n->n && x->uses[e]; i++)
            x->uses[n->arg[i]]++;
    }
}

static expr copy_node(struct expr_short *x, expr e)
{
    struct expr_node n = x->from->nodes.data[e];
    expr args[EXPR_MAX_TERMS];
    for (int32_t i = 0; i < n.n && i < EXPR_MAX_TERMS; i++) {
        const expr a = n.arg[i];
        args[i] = x->name[a] ? x->name[a] : x->whole[a];
    }
    n.arg = n.n ? args : NULL;
    return expr_intern(&x->pool, &n);
}

static expr new_name(struct expr_short *x)
{
    sym s;
    do
        s = str_internz(x->pool.strings, arena_printf(x->pool.arena, "e%d", ++x->n_names));
    while (expr_symbol_find(&x->pool, s) >= 0);
    return expr_sym(&x->pool, expr_symbol_new(&x->pool, s, (struct expr_range){INT64_MIN, INT64_MAX, 1}));
}

static void copy_nodes(struct expr_short *x)
{
    for (expr e = 1; e < x->from->nodes.len; e++) {
        if (!x->uses[e])
            continue;
        const struct expr_node *n = &x->from->nodes.data[e];
        x->whole[e] = copy_node(x, e);
        if (n->op == EXPR_CONST || n->op == EXPR_SYM || x->uses[e] < MIN_USES ||
            x->pool.nodes.data[x->whole[e]].weight < MIN_WEIGHT)
            continue;
        x->name[e] = new_name(x);
    }
}

struct expr_short *expr_short_new(const struct tile_kernel *k, struct arena *a)
{
    struct expr_short *x = ARENA_NEW(a, struct expr_short);
    struct strtab *strings = ARENA_NEW(a, struct strtab);
    const struct expr_pool *from = &k->exprs;
    x->from = from;
    x->uses = ARENA_ARRAY(a, int32_t, from->nodes.len + 1);
    x->whole = ARENA_ARRAY(a, expr, from->nodes.len + 1);
    x->name = ARENA_ARRAY(a, expr, from->nodes.len + 1);
    strtab_init(strings, a);
    expr_pool_init(&x->pool, a, strings);
    for (int64_t i = 0; i < from->symbols.len; i++) {
        const sym s = from->symbols.data[i].name;
        (void)expr_symbol_new(&x->pool, str_intern(strings, str_text(from->strings, s), str_len(from->strings, s)),
                              from->symbols.data[i].range);
    }
    count_uses(x, k);
    copy_nodes(x);
    return x;
}
