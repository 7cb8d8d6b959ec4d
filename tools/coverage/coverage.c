#include "tools/coverage/coverage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/assume.h"
#include "tools/coverage/priv.h"
#include "tools/estimate.h"
#include "tools/model_args.h"
#include "tools/term.h"

/* ---- nodes of the file ---- */

static const char *text_of(const struct survey *s, sym name)
{
    const struct strtab *st = &s->c->cx.strings;
    return str_escape(s->v->arena, str_text(st, name), str_len(st, name), 200);
}

static uint64_t key_of(const char *text, const char *more)
{
    const uint64_t h[] = {map_hash_bytes(text, (int64_t)strlen(text)), map_hash_bytes(more, (int64_t)strlen(more))};
    return map_hash_bytes(h, sizeof h);
}

static int64_t opset_of(const struct survey *s, const char *domain)
{
    const struct onnx_info *info = onnx_info(s->c->model);
    for (int64_t i = 0; i < info->n_opsets; i++)
        if (strcmp(info->opsets[i].domain, domain) == 0)
            return info->opsets[i].version;
    return 0;
}

static int64_t row_of(struct survey *s, const char *op, const char *domain)
{
    struct coverage *v = s->v;
    const uint64_t key = key_of(op, domain);
    const uint64_t *known = map_find(&v->row_of, key);
    if (known)
        return (int64_t)*known;
    const struct cov_row r = {.op = op, .domain = domain, .opset = opset_of(s, domain)};
    vec_push(v->arena, &v->rows, r);
    map_put(&v->row_of, key, (uint64_t)(v->rows.len - 1));
    return v->rows.len - 1;
}

/* The operator as the file spells it. */
static const char *op_text(const struct survey *s, const struct node *n)
{
    if (n->op == OP_Unsupported && node_attr_str(n, "op", 0))
        return text_of(s, node_attr_str(n, "op", 0));
    return n->loc->op_type ? text_of(s, n->loc->op_type) : op_table[n->op]->name;
}

static const char *domain_text(const struct survey *s, const struct node *n)
{
    return n->loc->domain ? text_of(s, n->loc->domain) : "";
}

static double work_of(const struct survey *s, const struct node *n)
{
    struct cost c = {.alu = 1};
    if (op_table[n->op]->cost && n->op != OP_Unsupported)
        op_table[n->op]->cost(&s->c->cx, n, s->symbols, &c);
    const double work = c.macs + c.alu;
    return work > 1 && work < 1e30 ? work : 1;
}

static void collect_node(struct survey *s, const struct node *n)
{
    struct coverage *v = s->v;
    if (n->op == OP_Yield || !n->loc || n->loc->n < 1)
        return;
    const char *name = text_of(s, n->loc->names[0]);
    const uint64_t key = key_of(name, "");
    if (map_find(&v->node_of, key))
        return;
    const char *op = op_text(s, n);
    const struct cov_node node = {.name = name, .row = row_of(s, op, domain_text(s, n)), .work = work_of(s, n)};
    v->rows.data[node.row].count++;
    vec_push(v->arena, &v->nodes, node);
    map_put(&v->node_of, key, (uint64_t)(v->nodes.len - 1));
}

static void collect_graph(struct survey *s, const struct graph *g)
{
    for_each_node (n, g) {
        collect_node(s, n);
        for_each_region(r, n) collect_graph(s, r);
    }
}

static void on_import(void *user, const struct graph *g)
{
    struct survey *s = user;
    if (!g)
        return;
    s->symbols = assume_symbols(&s->c->cx.exprs, &s->c->cx.strings, s->v->arena);
    collect_graph(s, g);
}

/* ---- where they run ---- */

const struct cov_node *coverage_node(const struct coverage *v, const char *name)
{
    const uint64_t *i = map_find(&v->node_of, key_of(name, ""));
    return i ? &v->nodes.data[*i] : NULL;
}

struct cov_node *survey_node(struct survey *s, const char *name)
{
    return (struct cov_node *)(uintptr_t)coverage_node(s->v, name);
}

static void note(struct survey *s, const struct node *n, enum cov_where where, const char *reason)
{
    for (int32_t i = 0; n->loc && i < n->loc->n; i++) {
        struct cov_node *c = survey_node(s, text_of(s, n->loc->names[i]));
        if (!c || c->where[s->t] >= where)
            continue;
        c->where[s->t] = (uint8_t)where;
        c->reason[s->t] = reason;
    }
}

static const char *reason_text(const struct survey *s, const struct node *n)
{
    return n->reason ? text_of(s, n->reason) : NULL;
}

/* Control flow itself is the host's work of choosing steps; its bodies are judged node by node. */
static void note_graph(struct survey *s, const struct graph *g)
{
    for_each_node (n, g) {
        const enum op op = (enum op)n->op;
        const bool opened = op == OP_Fused || op_table[op]->cls == CLS_CONTROL;
        if (op == OP_Unsupported)
            note(s, n, COV_BAD, "npuc cannot import this node");
        else if (n->place == PLACE_NPU)
            note(s, n, COV_NPU, NULL);
        else if (n->place == PLACE_HOST && op != OP_SizeOf && !opened)
            note(s, n, op_runs_on_host(op) ? COV_HOST : COV_BAD, reason_text(s, n));
        for_each_region(r, n) note_graph(s, r);
    }
}

static enum npuc_status on_optimised(void *user, const struct graph *g)
{
    struct survey *s = user;
    const struct onnx_info *info = onnx_info(s->c->model);
    note_graph(s, g);
    s->placed = true;
    return info->n_unsupported > 0 || s->c->diag.n_errors > 0 ? NPUC_E_UNSUPPORTED : NPUC_OK;
}

static void tally(struct survey *s)
{
    struct coverage *v = s->v;
    struct cov_target *t = &v->target[s->t];
    for (int64_t i = 0; i < v->nodes.len; i++) {
        const struct cov_node *c = &v->nodes.data[i];
        struct cov_use *u = &v->rows.data[c->row].use[s->t];
        u->n[c->where[s->t]]++;
        t->n[c->where[s->t]]++;
        if (!u->reason)
            u->reason = c->reason[s->t];
    }
}

/* ---- problems ---- */

static void add_line(struct coverage *v, const char *text, bool problem)
{
    for (int64_t i = 0; i < v->problems.len; i++)
        if (strcmp(v->problems.data[i], text) == 0)
            return;
    for (int64_t i = 0; i < v->surprises.len; i++)
        if (strcmp(v->surprises.data[i], text) == 0)
            return;
    const char *copy = arena_strndup(v->arena, text, (int64_t)strlen(text));
    if (problem)
        vec_push(v->arena, &v->problems, copy);
    else
        vec_push(v->arena, &v->surprises, copy);
}

/* Messages begin with the file's name, which the report says once. */
static void on_message(void *user, const char *line)
{
    const struct survey *s = user;
    const size_t prefix = strlen(s->v->path);
    const bool own = strncmp(line, s->v->path, prefix) == 0 && strncmp(line + prefix, ": ", 2) == 0;
    add_line(s->v, own ? line + prefix + 2 : line, strstr(line, ": warning ") == NULL);
}

static void note_missing_data(struct survey *s)
{
    const struct onnx_info *i = onnx_info(s->c->model);
    if (i->n_missing == 0)
        return;
    s->v->missing = i->n_missing;
    s->v->missing_line = arena_printf(
        s->v->arena,
        "tensor '%s': its data file '%s' does not exist beside the model (%lld such tensors); compiling will need it",
        str_escape(s->v->arena, i->missing_tensor, (int64_t)strlen(i->missing_tensor), 200),
        str_escape(s->v->arena, i->missing_file, (int64_t)strlen(i->missing_file), 200), (long long)i->n_missing);
    add_line(s->v, s->v->missing_line, false);
}

/* Invented sizes begin with an underscore: what is claimed of them the file's author never said. */
static bool is_authored(const struct survey *s, expr e)
{
    const struct expr_pool *x = &s->c->cx.exprs;
    for (int32_t i = 0; i < x->symbols.len; i++)
        if (expr_uses_symbol(x, e, i) && str_text(&s->c->cx.strings, x->symbols.data[i].name)[0] == '_')
            return false;
    return true;
}

/* The first open size of an input that the expression is made of. */
static bool is_declared(const struct survey *s, expr e, const char **input, const char **dim)
{
    const struct graph *g = s->c->module->funcs.data[0];
    const struct expr_pool *x = &s->c->cx.exprs;
    for (int32_t i = 0; i < g->n_inputs && is_authored(s, e); i++) {
        const struct type *t = g->inputs[i]->type;
        for (int k = 0; t->kind == TYPE_TENSOR && k < t->rank; k++) {
            const struct expr_node *d = &x->nodes.data[t->dims[k]];
            if (d->op != EXPR_SYM || !expr_uses_symbol(x, e, (int32_t)d->value))
                continue;
            *input = text_of(s, g->inputs[i]->name);
            *dim = expr_text(x, t->dims[k], s->v->arena);
            return true;
        }
    }
    return false;
}

static void note_frozen(struct survey *s)
{
    struct arena *a = s->v->arena;
    struct map seen;
    map_init(&seen, a);
    for (int64_t i = 0; i < s->claims.list.len; i++) {
        const struct ir_claim *c = &s->claims.list.data[i];
        const struct expr_range r = expr_range_of(&s->c->cx.exprs, c->size);
        const char *input, *dim;
        if (r.min == r.max || map_find(&seen, (uint64_t)c->size) || !is_declared(s, c->size, &input, &dim))
            continue;
        map_put(&seen, (uint64_t)c->size, 1);
        const char *node = c->loc && c->loc->n ? text_of(s, c->loc->names[0]) : "a node";
        const char *size = expr_text(&s->c->cx.exprs, c->size, a);
        add_line(
            s->v,
            arena_printf(a,
                         "input '%s' declares dimension %s, but '%s' (%s) works only where %s = %lld: export with a "
                         "dynamic size there, or fix the dimension with -D",
                         input, dim, node, c->loc && c->loc->op_type ? text_of(s, c->loc->op_type) : "?", size,
                         (long long)c->value),
            false);
    }
}

/* ---- one target ---- */

static void note_model(struct survey *s)
{
    const struct onnx_info *i = onnx_info(s->c->model);
    struct coverage *v = s->v;
    v->n_nodes = i->n_nodes;
    v->n_params = i->n_params;
    v->param_size = i->param_size;
    v->opset = opset_of(s, "");
    v->producer = i->producer ? str_escape(v->arena, i->producer, (int64_t)strlen(i->producer), 80) : "";
}

static void survey_begin(struct survey *s, const struct args *a)
{
    struct compilation *c = s->c;
    c->diag.sink = on_message;
    c->diag.user = s;
    c->diag.max_errors = 1000;
    c->options.survey = true;
    c->on_import = on_import;
    c->on_optimised = on_optimised;
    c->hook_user = s;
    c->claims = &s->claims;
    (void)a;
}

void coverage_add(struct coverage *v, const struct args *a, const char *target)
{
    struct survey *s = ARENA_NEW(v->arena, struct survey);
    struct cov_target *t = &v->target[v->n_targets];
    s->c = ARENA_NEW(v->arena, struct compilation);
    s->v = v;
    s->t = v->n_targets++;
    s->claims.arena = v->arena;
    if (s->t == 0) {
        map_init(&v->node_of, v->arena);
        map_init(&v->row_of, v->arena);
    }
    compilation_init(s->c);
    *t = (struct cov_target){.id = target ? target : s->c->options.target};
    if (model_args(a, s->c, &t->exit_code)) {
        s->c->options.target = t->id;
        survey_begin(s, a);
        survey_time(s, a);
        if (s->c->module) {
            note_model(s);
            note_frozen(s);
            note_missing_data(s);
        }
        if (s->placed)
            tally(s);
    }
    compilation_free(s->c);
}

int coverage_exit_code(const struct coverage *v)
{
    int code = v->missing > 0 ? diag_exit_code(NPUC_E_NEGATIVE) : 0;
    for (int i = 0; i < v->n_targets; i++) {
        const struct cov_target *t = &v->target[i];
        const int own = t->exit_code ? t->exit_code : t->n[COV_HOST] > 0 ? diag_exit_code(NPUC_E_NEGATIVE) : 0;
        code = own > code ? own : code;
    }
    return code;
}

double coverage_node_share(const struct cov_target *t)
{
    const int64_t all = t->n[COV_NPU] + t->n[COV_HOST] + t->n[COV_BAD];
    return all > 0 ? (double)t->n[COV_NPU] / (double)all : 1;
}

double coverage_time_share(const struct cov_target *t)
{
    return t->us > 0 ? 1 - t->host_us / t->us : 1;
}
