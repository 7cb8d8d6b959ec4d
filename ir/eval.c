/* The reference interpreter: one node after the other, each by its operator's kernel. Constants are read in place;
 * results live until the last node that needs them (eval_life.c), outputs in the caller's arena. */
#include "ir/eval.h"

#include <inttypes.h>
#include <string.h>

#include "base/pool.h"
#include "ir/eval_priv.h"

/* ---- calling a kernel */

static bool to_k_attr(struct ir_ctx *cx, const struct attr *a, const char *name, struct k_attr *out)
{
    *out = (struct k_attr){.name = name, .len = a->len};
    switch (a->kind) {
    case ATTR_INT:
        out->kind = K_ATTR_INT;
        out->v.i = a->v.i;
        return true;
    case ATTR_FLOAT:
        out->kind = K_ATTR_FLOAT;
        out->v.f = a->v.f;
        return true;
    case ATTR_STRING:
        out->kind = K_ATTR_STRING;
        out->v.s = str_text(&cx->strings, a->v.s);
        out->len = str_len(&cx->strings, a->v.s);
        return true;
    case ATTR_INTS:
        out->kind = K_ATTR_INTS;
        out->v.ints = a->v.ints;
        return true;
    case ATTR_FLOATS:
        out->kind = K_ATTR_FLOATS;
        out->v.floats = a->v.floats;
        return true;
    case ATTR_STRINGS: {
        struct k_string *s = ARENA_ARRAY(&cx->scratch, struct k_string, a->len + 1);
        for (int64_t i = 0; i < a->len; i++)
            s[i] = (struct k_string){str_text(&cx->strings, a->v.strings[i]), str_len(&cx->strings, a->v.strings[i])};
        out->kind = K_ATTR_STRINGS;
        out->v.strings = s;
        return true;
    }
    case ATTR_TENSOR: {
        struct k_tensor *t = ARENA_NEW(&cx->scratch, struct k_tensor);
        out->kind = K_ATTR_TENSOR;
        out->v.tensor = t;
        return blob_tensor(cx, a->v.t.type, a->v.t.blob, t);
    }
    case ATTR_NONE:
    case ATTR_GRAPH:
    case ATTR_TYPE: return false;
    }
    return false;
}

static const struct k_op *kernel_of(const struct node *n)
{
    const struct op_def *d = op_table[n->op];
    if (d->kernel && !d->kernel[0])
        return NULL;
    return k_op_find(d->kernel ? d->kernel : d->name);
}

static enum npuc_status eval_kernel(struct frame *f, const struct node *n, int n_in, const struct k_tensor *const *in,
                                    struct k_tensor *out)
{
    struct ir_ctx *cx = f->cx;
    const struct k_op *op = kernel_of(n);
    if (!op)
        return node_error(cx, n, D_UNSUPPORTED, "operator %s has no reference kernel", op_table[n->op]->name);
    const struct op_def *d = op_table[n->op];
    if (!k_op_takes(op->name, n_in, in))
        return node_error(cx, n, D_UNSUPPORTED, "operator %s takes no text, complex number, sequence or optional value",
                          d->name);
    const struct arena_mark mark = arena_mark(&cx->scratch);
    struct k_attr *attrs = ARENA_ARRAY(&cx->scratch, struct k_attr, d->n_attrs + 1);
    int n_attrs = 0;
    for (int i = 0; i < d->n_attrs; i++)
        if (to_k_attr(cx, &n->attrs[i], d->attrs[i].name, &attrs[n_attrs]))
            n_attrs++;
    struct k_call call = {.op = d->name,
                          .in = in,
                          .n_in = n_in,
                          .out = out,
                          .n_out = n->n_out,
                          .attrs = attrs,
                          .n_attrs = n_attrs,
                          .arena = f->a,
                          .pool = f->pool};
    enum npuc_status s = op->fn(&call);
    if (s != NPUC_OK)
        s = node_error(cx, n, s == NPUC_E_UNSUPPORTED ? D_UNSUPPORTED : D_RUN_FAULT, "%s", call.error);
    arena_release(&cx->scratch, mark);
    return s;
}

/* ---- nodes without a kernel */

static enum npuc_status eval_constant(struct frame *f, const struct node *n, struct k_tensor *out)
{
    const struct attr *a = node_attr(n, "value");
    if (a && blob_tensor(f->cx, a->v.t.type, a->v.t.blob, out))
        return NPUC_OK;
    return node_error(f->cx, n, D_MODEL, "the bytes of the constant are absent");
}

static bool all_bound(const struct frame *f, expr e)
{
    for (int64_t s = 0; s < f->n_symbols; s++)
        if (f->symbols[s] == INT64_MIN && expr_uses_symbol(&f->cx->exprs, e, (int32_t)s))
            return false;
    return true;
}

static enum npuc_status eval_size_of(struct frame *f, const struct node *n, struct k_tensor *out)
{
    const struct value *v = &n->out[0];
    const int64_t count = v->type->rank == 0 ? 1 : v->n_elems;
    *out = (struct k_tensor){.dtype = DT_I64, .rank = v->type->rank, .dims = {count}, .size = count * 8};
    int64_t *data = ARENA_ARRAY(f->a, int64_t, count + 1);
    out->data = data;
    for (int64_t i = 0; i < count; i++)
        if (!f->symbols || !v->elems || !all_bound(f, v->elems[i]) ||
            !expr_eval(&f->cx->exprs, v->elems[i], f->symbols, &data[i]))
            return node_error(f->cx, n, D_RUN_FAULT, "element %" PRId64 " cannot be computed from the bound sizes", i);
    return NPUC_OK;
}

static enum npuc_status eval_one(struct frame *f, const struct node *n, const struct k_tensor *const *in,
                                 struct k_tensor *out)
{
    switch (n->op) {
    case OP_Constant: return eval_constant(f, n, out);
    case OP_SizeOf: return eval_size_of(f, n, out);
    case OP_Fused: return frame_body(f, node_region(n, 0), in, out);
    case OP_Contents:
        for (int64_t i = 0; f->symbols && i < n->out[0].n_elems; i++) {
            const struct expr_node *e = &f->cx->exprs.nodes.data[n->out[0].elems[i]];
            if (e->op == EXPR_SYM && e->value < f->n_symbols)
                f->symbols[e->value] = k_get_i64(in[0], i);
        }
        return eval_kernel(f, n, n->n_in, in, out);
    case OP_TransData: /* the interpreter stores everything densely: the layout is the type's alone */
        out[0] = *in[0];
        return NPUC_OK;
    case OP_If: return eval_if(f, n, in, out);
    case OP_Loop: return eval_loop(f, n, in, out);
    case OP_Scan: return eval_scan(f, n, in, out);
    default: return eval_kernel(f, n, n->n_in, in, out);
    }
}

/* ---- shapes against types */

static bool is_empty(const struct k_tensor *t)
{
    return t->kind == K_TENSOR && k_count(t) == 0;
}

/* Binds the symbols that are sizes by themselves, then compares the others. Inputs without elements (n: NULL) come last
 * and contradict nobody: decoders with a branch for the first step take empty caches there, whatever the sizes. */
static enum npuc_status bind(struct frame *f, const struct node *n, const struct value *v, const struct k_tensor *t)
{
    const struct type *type = v->type;
    if (!f->symbols || type->kind != TYPE_TENSOR || type->rank < 0)
        return NPUC_OK;
    const char *name = str_text(&f->cx->strings, v->name);
    const struct diag_loc where = {.file = f->cx->file, .node = name, .index = -1};
    if (t->rank != type->rank || (type->dtype != DT_NONE && t->dtype != type->dtype))
        return diag_error_text(f->cx->diag, &where, D_INPUT_BINDING,
                               arena_printf(&f->cx->scratch, "expected %s, found %s of rank %d%s",
                                            type_text(f->cx, type), dtype_table[t->dtype].name, t->rank,
                                            n ? " (computed)" : ""));
    for (int i = 0; i < type->rank; i++) {
        const struct expr_node *e = &f->cx->exprs.nodes.data[type->dims[i]];
        if (e->op == EXPR_SYM && e->value < f->n_symbols && f->symbols[e->value] == INT64_MIN)
            f->symbols[e->value] = t->dims[i];
    }
    for (int i = 0; i < type->rank; i++) {
        int64_t expected;
        if (!all_bound(f, type->dims[i]) || !expr_eval(&f->cx->exprs, type->dims[i], f->symbols, &expected))
            continue;
        if (expected != t->dims[i] && (n || !is_empty(t)))
            return diag_error_text(f->cx->diag, &where, D_INPUT_BINDING,
                                   arena_printf(&f->cx->scratch,
                                                "size %d is %" PRId64 ", but its type %s says %" PRId64
                                                " for the sizes seen before",
                                                i, t->dims[i], type_text(f->cx, type), expected));
    }
    return NPUC_OK;
}

/* ---- graphs */

/* The values of n's operands, with room for a third. */
static enum npuc_status operands(struct frame *f, const struct node *n, const struct k_tensor ***in)
{
    *in = ARENA_ARRAY(f->a, const struct k_tensor *, n->n_in + 3);
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = n->in[i].value;
        if (v && !f->has[v->id])
            return node_error(f->cx, n, D_RUN_FAULT, "operand %d has not been computed", i);
        (*in)[i] = v ? &f->val[v->id] : NULL;
    }
    return NPUC_OK;
}

/* Where n's kernel takes a bias row that is no operand of n, or -1. */
static int start_of(const struct node *n)
{
    static const struct {
        enum op op;
        int at;
    } rows[] = {{OP_MatMul, 2}, {OP_FusedMatMul, 2}, {OP_Gemm, 2}, {OP_ScaledMatMul, 4}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (rows[i].op == n->op)
            return node_in(n, rows[i].at) || (n->op == OP_Gemm && node_attr_float(n, "beta", 1.0f) != 1.0f)
                       ? -1
                       : rows[i].at;
    return -1;
}

/* The product that `add` gives a bias row in a region of fuse_matmul; NULL when add is something else. */
static const struct node *product_before(const struct node *add, int *row)
{
    const struct node *owner = add->graph->owner;
    if (add->op != OP_Add || !owner || owner->op != OP_Fused ||
        node_attr_str(owner, "kind", 0) != str_internz(&add->graph->module->cx->strings, "matmul_epilogue"))
        return NULL;
    for (int i = 0; i < 2; i++) {
        const struct node *p = node_in(add, i)->def;
        *row = 1 - i;
        if (p && p->graph == add->graph && start_of(p) >= 0)
            return p;
    }
    return NULL;
}

/* Is n evaluated with the Add behind it, its only user? */
static bool waits(const struct node *n)
{
    int row;
    const struct use *u = n->n_out == 1 ? n->out[0].uses : NULL;
    return u && product_before(u->user, &row) == n;
}

/* A product and its bias row at once: the matrix unit starts from the row and rounds once. */
static enum npuc_status eval_epilogue(struct frame *f, const struct node *product, const struct value *row,
                                      struct k_tensor *out)
{
    const struct k_tensor **in;
    const enum npuc_status s = operands(f, product, &in);
    if (s != NPUC_OK)
        return s;
    const int at = start_of(product);
    in[at] = &f->val[row->id];
    return eval_kernel(f, product, at + 1, in, out);
}

enum npuc_status frame_node(struct frame *f, const struct node *n)
{
    int row;
    const struct k_tensor **in;
    struct k_tensor *out = ARENA_ARRAY(f->a, struct k_tensor, n->n_out + 1);
    if (waits(n)) {
        f->has[n->out[0].id] = true;
        return NPUC_OK;
    }
    enum npuc_status s = operands(f, n, &in);
    const struct node *product = product_before(n, &row);
    if (s == NPUC_OK && f->watch && f->watch->node)
        s = f->watch->node(f->watch->user, n, in);
    if (s == NPUC_OK)
        s = product ? eval_epilogue(f, product, node_in(n, row), out) : eval_one(f, n, in, out);
    if (s == NPUC_OK && f->watch && f->watch->result)
        s = f->watch->result(f->watch->user, n, in, out);
    for (int i = 0; s == NPUC_OK && i < n->n_out; i++) {
        const struct value *v = &n->out[i];
        if (v->type->kind == TYPE_NONE)
            continue;
        f->val[v->id] = out[i];
        f->has[v->id] = true;
        s = bind(f, n, v, &out[i]);
    }
    return s;
}

enum npuc_status frame_graph(struct frame *f, const struct graph *g, struct k_tensor *out)
{
    const struct node *yield = graph_yield(g);
    for (const struct node *n = g->first; n && n != yield; n = n->next) {
        const enum npuc_status s = frame_node(f, n);
        if (s != NPUC_OK)
            return s;
    }
    return frame_results(f, g, out);
}

enum npuc_status frame_results(struct frame *f, const struct graph *g, struct k_tensor *out)
{
    const struct node *yield = graph_yield(g);
    for (int i = 0; yield && i < yield->n_in; i++) {
        const struct value *v = yield->in[i].value;
        if (!v || !f->has[v->id])
            return node_error(f->cx, yield, D_RUN_FAULT, "result %d has not been computed", i);
        out[i] = f->val[v->id];
    }
    return NPUC_OK;
}

enum npuc_status frame_body(struct frame *f, const struct graph *g, const struct k_tensor *const *in,
                            struct k_tensor *out)
{
    int64_t *kept = f->symbols;
    if (kept) {
        f->symbols = ARENA_ARRAY(f->a, int64_t, f->n_symbols + 1);
        memcpy(f->symbols, kept, sizeof *kept * (size_t)f->n_symbols);
    }
    enum npuc_status s = NPUC_OK;
    for (int i = 0; s == NPUC_OK && i < g->n_inputs; i++) {
        const struct value *v = g->inputs[i];
        if (!in[i])
            continue;
        f->val[v->id] = *in[i];
        f->has[v->id] = true;
        s = bind(f, NULL, v, in[i]);
    }
    if (s == NPUC_OK)
        s = frame_graph(f, g, out);
    f->symbols = kept;
    return s;
}

static struct frame frame_new(struct ir_ctx *cx, const struct module *m, struct arena *a)
{
    return (struct frame){.cx = cx,
                          .a = a,
                          .val = ARENA_ARRAY(a, struct k_tensor, (int64_t)m->n_values + 1),
                          .has = ARENA_ARRAY(a, bool, (int64_t)m->n_values + 1),
                          .n_symbols = cx->exprs.symbols.len};
}

enum npuc_status ir_eval_node(struct ir_ctx *cx, const struct node *n, const struct k_tensor *const *in,
                              const int64_t *symbols, struct k_tensor *out, struct arena *a)
{
    struct frame f = {.cx = cx, .a = a, .n_symbols = cx->exprs.symbols.len};
    if (node_region(n, 0))
        f = frame_new(cx, n->graph->module, a);
    if (symbols) {
        f.symbols = ARENA_ARRAY(a, int64_t, f.n_symbols + 1);
        memcpy(f.symbols, symbols, sizeof *symbols * (size_t)f.n_symbols);
    }
    return eval_one(&f, n, in, out);
}

enum npuc_status ir_eval(struct ir_ctx *cx, const struct graph *g, const struct k_tensor *inputs,
                         struct k_tensor *outputs, struct arena *a)
{
    return ir_eval_watched(cx, g, inputs, outputs, a, NULL);
}

enum npuc_status ir_eval_watched(struct ir_ctx *cx, const struct graph *g, const struct k_tensor *inputs,
                                 struct k_tensor *outputs, struct arena *a, const struct ir_watch *watch)
{
    struct frame f = frame_new(cx, g->module, a);
    f.watch = watch;
    f.symbols = ARENA_ARRAY(a, int64_t, f.n_symbols + 1);
    for (int64_t i = 0; i < f.n_symbols; i++)
        f.symbols[i] = INT64_MIN;
    enum npuc_status s = NPUC_OK;
    for (int empty = 0; empty < 2; empty++)
        for (int i = 0; s == NPUC_OK && i < g->n_inputs; i++) {
            f.val[g->inputs[i]->id] = inputs[i];
            f.has[g->inputs[i]->id] = true;
            if (is_empty(&inputs[i]) == (empty != 0))
                s = bind(&f, NULL, g->inputs[i], &inputs[i]);
        }
    if (s == NPUC_OK) {
        f.pool = pool_new(pool_processors());
        s = frame_function(&f, g, outputs);
        pool_free(f.pool);
    }
    return s;
}
