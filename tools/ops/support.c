#include "tools/ops/support.h"

#include <string.h>

#include "passes/pass.h"

_Static_assert(DT_COUNT <= 32, "type_set has a bit per element type");

static const char *const classes[] = {
    [CLS_FREE] = "view",           [CLS_ELEMENTWISE] = "elementwise",
    [CLS_MATMUL] = "matmul",       [CLS_CONV] = "conv",
    [CLS_REDUCE] = "reduce",       [CLS_NORM] = "normalise",
    [CLS_ATTENTION] = "attention", [CLS_MOVE] = "move",
    [CLS_WINDOW] = "window",       [CLS_SORT] = "sort",
    [CLS_RECURRENT] = "recurrent", [CLS_CONTROL] = "control",
    [CLS_FUSED] = "fused",         [CLS_HOST] = "other",
};

/* ---- examples ---- */

/* Elementwise operators need no text of their own. */
static const struct example *formula_example(struct arena *a, const struct ops_row *r, int *n)
{
    static const char *const operands[] = {"T[4,8]", "T[4,8], T[4,8]", "T[4,8], T[4,8], T[4,8]"};
    const enum op op = op_find(r->domain, r->op);
    if (op == OP_none || !op_table[op]->fn)
        return NULL;
    struct example *e = ARENA_NEW(a, struct example);
    *e = (struct example){r->domain, r->op, 0, operands[op_table[op]->min_in - 1], 1, ""};
    *n = 1;
    return e;
}

static void keep_error(void *user, const char *line)
{
    struct trial *t = user;
    const char *text = strstr(line, ": error E");
    if (t->error[0] || !text)
        return;
    text = strchr(text + 2, ':');
    if (text)
        strncpy(t->error, text + 2, sizeof t->error - 1);
}

static enum npuc_status trial_open(struct trial *t, const struct pb_piece *model)
{
    memset(t, 0, sizeof *t);
    arena_init(&t->arena, NULL);
    diag_init(&t->diag, keep_error, t);
    ir_ctx_init(&t->cx, NULL, &t->diag);
    t->cx.max_rewrites = -1;
    const struct onnx_options o = {.bytes = model->data, .n_bytes = model->size};
    return onnx_import(&t->cx, "example", &o, &t->model, &t->module);
}

static void trial_close(struct trial *t)
{
    if (t->module)
        ir_module_free(t->module);
    onnx_close(t->model);
    ir_ctx_free(&t->cx);
    arena_free(&t->arena);
}

/* ---- what it becomes ---- */

static bool is_step(const struct node *n)
{
    return n->op != OP_Constant && n->op != OP_Yield && n->op != OP_SizeOf;
}

/* The class of a composition is that of its first product, else of its last step. */
static void describe(struct ops_matrix *m, struct ops_row *r, const struct graph *g)
{
    const enum op own = op_find(r->domain, r->op);
    enum op main = own;
    const char *names = "";
    for_each_node (n, g) {
        const char *name = op_table[n->op]->name;
        if (!is_step(n))
            continue;
        if (own == OP_none && (main == OP_none || !op_has(main, T_MAC)))
            main = (enum op)n->op;
        if (!strstr(names, arena_printf(m->arena, "%s,", name)))
            names = arena_printf(m->arena, "%s%s%s,", names, *names ? " " : "", name);
    }
    r->kind = main == OP_none ? NULL : classes[op_table[main]->cls];
    if (*names && strcmp(names, arena_printf(m->arena, "%s,", r->op)) != 0)
        r->becomes = arena_strndup(m->arena, names, (int64_t)strlen(names) - 1);
}

/* ---- where it runs ---- */

static void note_reason(struct ops_matrix *m, struct ops_use *u, const char *text, enum dtype t)
{
    for (int64_t i = 0; i < u->why.len; i++)
        if (strcmp(u->why.data[i].text, text) == 0) {
            u->why.data[i].types |= (type_set)1 << t;
            return;
        }
    const struct ops_reason why = {arena_strndup(m->arena, text, (int64_t)strlen(text)), (type_set)1 << t};
    vec_push(m->arena, &u->why, why);
}

static void note_places(struct ops_matrix *m, struct ops_use *u, const struct trial *t, enum dtype type)
{
    bool npu = false, host = false;
    for_each_node (n, t->module->funcs.data[0]) {
        npu = npu || n->place == PLACE_NPU;
        if (n->place != PLACE_HOST || host)
            continue;
        host = true;
        note_reason(m, u, n->reason ? str_text(&t->cx.strings, n->reason) : "no kernel on the cores", type);
    }
    *(host ? &u->host : npu ? &u->npu : &u->view) |= (type_set)1 << type;
}

static bool has_host_kernels(const struct graph *g)
{
    for_each_node (n, g) {
        const bool region = op_has((enum op)n->op, T_REGION) || n->op == OP_Yield || n->op == OP_Constant;
        if (n->place == PLACE_HOST && !region && n->op != OP_SizeOf && !op_runs_on_host((enum op)n->op))
            return false;
    }
    return true;
}

static enum npuc_status run_passes(struct trial *t, const struct ops_target *target)
{
    int64_t n;
    const struct pass_step *steps = pass_pipeline(&n);
    struct pass_ctx px;
    pass_ctx_init(&px, t->module, &target->info);
    const struct pass_run run = {0};
    enum npuc_status s = pass_run_all(&px, steps, n, &run);
    pass_ctx_free(&px);
    if (s == NPUC_OK && !has_host_kernels(t->module->funcs.data[0]))
        s = NPUC_E_UNSUPPORTED;
    return s;
}

static void refuse(struct ops_matrix *m, struct ops_row *r, enum dtype type, const char *why)
{
    if (type == DT_F32 || !r->refused)
        r->refused = arena_strndup(m->arena, why, (int64_t)strlen(why));
}

/* One element type on one target. The host's side is the same for all: the first is told to try it. */
static bool try_target(struct ops_matrix *m, struct ops_row *r, enum dtype type, const struct pb_piece *model,
                       int target)
{
    struct trial t;
    enum npuc_status s = trial_open(&t, model);
    if (s == NPUC_OK && !r->kind)
        describe(m, r, t.module->funcs.data[0]);
    if (s == NPUC_OK && target == 0 && !trial_computes(&t))
        s = NPUC_E_UNSUPPORTED;
    if (s == NPUC_OK)
        s = run_passes(&t, &m->target[target]);
    if (s == NPUC_OK) {
        r->types |= (type_set)1 << type;
        note_places(m, &r->use[target], &t, type);
    } else {
        refuse(m, r, type, t.error);
    }
    trial_close(&t);
    return s == NPUC_OK;
}

/* The first target with the same cores: architecture and on-chip memories decide what they can do, not counts and
 * rates. */
static int twin(const struct ops_matrix *m, int target)
{
    const struct machine *b = &m->target[target].machine;
    for (int i = 0; i < target; i++) {
        const struct machine *a = &m->target[i].machine;
        bool same = a->family == b->family && target_num(a->target, TK_ARCH) == target_num(b->target, TK_ARCH);
        for (int k = 0; k < TS_COUNT; k++)
            same = same && (k == TS_GM || a->size[k] == b->size[k]) && a->align[k] == b->align[k];
        if (same)
            return i;
    }
    return target;
}

/* The passes change the module, so that each target has one of its own. */
static bool try_type(struct ops_matrix *m, struct ops_row *r, const struct example *e, enum dtype type)
{
    struct arena a;
    arena_init(&a, NULL);
    struct pb model = {.arena = &a};
    const char *why;
    bool ok = example_model(e, type, OPS_NEWEST_OPSET, &model, &why);
    if (!ok)
        refuse(m, r, type, why);
    const struct pb_piece bytes = pb_join(&model);
    for (int i = 0; ok && i < m->n_targets; i++)
        if (twin(m, i) == i)
            ok = try_target(m, r, type, &bytes, i);
    arena_free(&a);
    return ok;
}

static void try_row(struct ops_matrix *m, struct ops_row *r)
{
    if (r->refused)
        return;
    if (!r->example)
        r->example = formula_example(m->arena, r, &r->n_examples);
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        for (int i = 0; i < r->n_examples; i++)
            if (try_type(m, r, &r->example[i], (enum dtype)t))
                break;
    if (r->types)
        r->refused = NULL;
    for (int i = 0; i < m->n_targets; i++)
        r->use[i] = r->use[twin(m, i)];
}

/* ---- targets of the same abilities ---- */

static bool same_use(const struct ops_use *a, const struct ops_use *b)
{
    if (a->npu != b->npu || a->view != b->view || a->host != b->host || a->why.len != b->why.len)
        return false;
    for (int64_t i = 0; i < a->why.len; i++)
        if (a->why.data[i].types != b->why.data[i].types || strcmp(a->why.data[i].text, b->why.data[i].text) != 0)
            return false;
    return true;
}

static bool same_column(const struct ops_matrix *m, int a, int b)
{
    for (int64_t i = 0; i < m->rows.len; i++)
        if (!same_use(&m->rows.data[i].use[a], &m->rows.data[i].use[b]))
            return false;
    return true;
}

static void number_columns(struct ops_matrix *m)
{
    m->n_columns = 0;
    for (int i = 0; i < m->n_targets; i++) {
        m->target[i].column = -1;
        for (int k = 0; k < i && m->target[i].column < 0; k++)
            if (same_column(m, i, k))
                m->target[i].column = m->target[k].column;
        if (m->target[i].column < 0)
            m->target[i].column = m->n_columns++;
    }
}

void ops_try(struct ops_matrix *m)
{
    for (int64_t i = 0; i < m->rows.len; i++)
        try_row(m, &m->rows.data[i]);
    number_columns(m);
}

bool ops_add_target(struct ops_matrix *m, const char *id)
{
    struct ops_target *t = &m->target[m->n_targets];
    if (target_load(&t->target, id, m->diag) != NPUC_OK)
        return false;
    t->id = id;
    m->n_targets++;
    if (machine_init(&t->machine, &t->target, m->diag) != NPUC_OK)
        return false;
    backend_target_info(&t->machine, &t->info);
    return true;
}

void ops_free(struct ops_matrix *m)
{
    for (int i = 0; i < m->n_targets; i++)
        target_free(&m->target[i].target);
}
