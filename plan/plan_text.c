/* Text of a plan for `npuc inspect`, one function per part. */
#include "plan/text_priv.h"

#include "plan/plan.h"

#include <string.h>

static const char *const kind_names[] = {"weight", "input", "output", "temp", "cache", "view", "object"};
static const char *const layout_names[] = {"ND", "NZ", "NZ^T", "NC1HWC0", "FRACTAL_Z", "NHWC", "cache"};

struct part {
    struct text t;
    struct plan *p;
};

static const char *name_of(struct part *x, sym s)
{
    return text_sym(&x->t, &x->p->strings, s);
}

static void add_expr(struct part *x, expr e)
{
    text_expr(&x->t, &x->p->exprs, e);
}

enum {
    LONGEST_EXPR = 64
}; /* characters of a step's expression; those of block counts over open sizes have thousands */

/* The expression, or its beginning. */
static void add_short_expr(struct part *x, expr e)
{
    const int64_t start = x->t.s.len;
    add_expr(x, e);
    if (x->t.s.len - start > LONGEST_EXPR) {
        x->t.s.len = start + LONGEST_EXPR;
        text_add(&x->t, "...");
    }
}

static void print_summary(struct part *x)
{
    const struct plan *p = x->p;
    int64_t n_kind[PLAN_TENSOR_KINDS] = {0}, n_step[PLAN_STEP_KINDS] = {0};
    for (int64_t i = 0; i < p->tensors.len; i++)
        n_kind[p->tensors.data[i].kind]++;
    for (int64_t i = 0; i < p->steps.len; i++)
        n_step[p->steps.data[i].kind]++;
    text_add(&x->t, "plan of '%s' for %s, format version %d\n", name_of(x, p->model_name), name_of(x, p->target_name),
             PLAN_VERSION);
    for (int64_t i = 0; i < p->record.len; i++)
        text_add(&x->t, "  %s: %s\n", name_of(x, p->record.data[i].key), name_of(x, p->record.data[i].value));
    text_add(&x->t, "  %lld steps: %lld launches of %lld kernels, %lld on the host, %lld sizes",
             (long long)p->steps.len, (long long)n_step[PS_LAUNCH], (long long)p->kernels.len,
             (long long)n_step[PS_HOST], (long long)n_step[PS_SIZES]);
    if (n_step[PS_IF] + n_step[PS_LOOP])
        text_add(&x->t, ", %lld branches, %lld loops", (long long)n_step[PS_IF], (long long)n_step[PS_LOOP]);
    text_add(&x->t, "\n");
    text_add(&x->t, "  %lld tensors:", (long long)p->tensors.len);
    for (int k = 0; k < PLAN_TENSOR_KINDS; k++)
        text_add(&x->t, "%s %lld %s", k ? "," : "", (long long)n_kind[k], kind_names[k]);
    text_add(&x->t, "\n  %lld B of weights\n", (long long)p->weights_size);
}

static void print_tensor_type(struct part *x, const struct plan_tensor *t)
{
    static const char *const objects[] = {"", "any rank of ", "sequence of ", "optional of "};
    if (t->kind == PT_OBJECT)
        text_add(&x->t, "%s", objects[t->axis]);
    text_add(&x->t, "%s[", t->dtype < DT_COUNT ? dtype_table[t->dtype].name : "?");
    for (int32_t i = 0; i < t->rank; i++) {
        text_add(&x->t, i ? ", " : "");
        add_expr(x, t->dims[i]);
    }
    text_add(&x->t, "]");
    if (t->layout != PL_ND)
        text_add(&x->t, " %s", layout_names[t->layout]);
}

static void print_entry(struct part *x, const struct plan_entry *e)
{
    const struct plan *p = x->p;
    text_add(&x->t, "entry %s: steps %d..%d\n", name_of(x, e->name), e->first_step, e->first_step + e->n_steps - 1);
    for (int32_t i = 0; i < e->n_inputs + e->n_outputs; i++) {
        const bool input = i < e->n_inputs;
        const struct plan_tensor *t = &p->tensors.data[input ? e->inputs[i] : e->outputs[i - e->n_inputs]];
        text_add(&x->t, "  %s %s: ", input ? "in " : "out", name_of(x, t->name));
        print_tensor_type(x, t);
        text_add(&x->t, input && e->input_optional[i] ? " optional\n" : "\n");
    }
    for (int32_t i = 0; i < e->n_fixed; i++)
        text_add(&x->t, "  for %s = %lld\n", name_of(x, p->exprs.symbols.data[e->fixed[i].symbol].name),
                 (long long)e->fixed[i].value);
    for (int32_t i = 0; i < e->n_caches; i++) {
        const struct plan_cache *c = &e->caches[i];
        if (!c->input)
            continue; /* scales of another one */
        text_add(&x->t, "  cache %s -> %s: rows ", name_of(x, c->input), name_of(x, c->output));
        add_expr(x, c->past);
        text_add(&x->t, " -> ");
        add_expr(x, c->present);
        text_add(&x->t, " on axis %d", c->axis);
        if (c->code)
            text_add(&x->t, ", %s codes%s", dtype_table[c->code].name, c->shifted ? " with zero points" : "");
        if (c->turn >= 0)
            text_add(&x->t, ", turned by t%d", c->turn);
        if (c->back >= 0)
            text_add(&x->t, ", back by t%d", c->back);
        if (c->ring)
            text_add(&x->t, ", the last %lld rows in %s, of which %lld are read", (long long)c->ring,
                     name_of(x, p->tensors.data[c->tensor].name), (long long)c->window);
        else if (c->page)
            text_add(&x->t, ", pages of %lld rows in %s by %s", (long long)c->page,
                     name_of(x, p->tensors.data[c->tensor].name), name_of(x, p->tensors.data[c->table].name));
        text_add(&x->t, "\n");
    }
}

static void print_entries(struct part *x)
{
    for (int64_t i = 0; i < x->p->entries.len; i++)
        print_entry(x, &x->p->entries.data[i]);
}

static void print_tensors(struct part *x)
{
    for (int64_t i = 0; i < x->p->tensors.len; i++) {
        const struct plan_tensor *t = &x->p->tensors.data[i];
        text_add(&x->t, "t%lld %s %s: ", (long long)i, kind_names[t->kind], name_of(x, t->name));
        print_tensor_type(x, t);
        text_add(&x->t, ", ");
        add_expr(x, t->size);
        text_add(&x->t, " B");
        if (t->kind == PT_WEIGHT)
            text_add(&x->t, t->data_size < 0 ? ", without data" : " at %lld", (long long)t->data_offset);
        if (t->kind == PT_TEMP)
            text_add(&x->t, t->parts ? ", steps %d..%d, in the shared memory of clusters: %d" : ", steps %d..%d",
                     t->first, t->last, t->parts);
        if (t->kind == PT_ALIAS) {
            text_add(&x->t, " of t%d + ", t->base);
            add_expr(x, t->base_offset);
        }
        text_add(&x->t, "\n");
    }
}

static void print_args(struct part *x, const struct plan_step *s)
{
    for (int32_t i = 0; i < s->n_in + s->n_out; i++) {
        text_add(&x->t, i == s->n_in ? " -> " : i ? ", " : "");
        text_add(&x->t, s->tensors[i] < 0 ? "-" : "t%d", s->tensors[i]);
    }
    for (int32_t i = 0; i < s->n_params; i++) {
        text_add(&x->t, i ? ", " : "; ");
        add_short_expr(x, s->params[i]);
    }
}

static void print_binds(struct part *x, const struct plan_step *s)
{
    for (int32_t i = 0; i < s->n_binds; i++)
        text_add(&x->t, "%s%s", i ? ", " : "; binds ", name_of(x, x->p->exprs.symbols.data[s->binds[3 * i + 2]].name));
}

static void print_step(struct part *x, int64_t i)
{
    static const char *const step_names[] = {"launch", "host", "sizes", "if", "loop", "copy", "move", "append"};
    const struct plan_step *s = &x->p->steps.data[i];
    text_add(&x->t, "%lld %s%s%s", (long long)i, step_names[s->kind], s->op ? " " : "", s->op ? name_of(x, s->op) : "");
    if (s->kind == PS_LAUNCH) {
        const struct tile_kernel *k = x->p->kernels.data[s->kernel];
        text_add(&x->t, " @%s", text_sym(&x->t, k->exprs.strings, k->name));
    }
    text_add(&x->t, "(");
    print_args(x, s);
    text_add(&x->t, ")");
    if (s->kind == PS_LAUNCH && s->copies > 0)
        text_add(&x->t, " x %d", s->copies);
    if (s->kind == PS_LAUNCH && s->copies == PLAN_APART)
        text_add(&x->t, " apart");
    if (s->kind > PS_SIZES)
        print_binds(x, s);
    if (s->guard) {
        text_add(&x->t, " when ");
        add_short_expr(x, s->guard);
    }
    if (s->source >= 0)
        text_add(&x->t, "  ; %s", name_of(x, x->p->sources.data[s->source].label));
    if (s->reason)
        text_add(&x->t, " (%s)", name_of(x, s->reason));
    text_add(&x->t, "\n");
}

/* Steps [first, first + n) and what is nested in them, `depth` levels in. Verified plans nest PLAN_MAX_BODIES deep. */
static void print_range(struct part *x, int64_t first, int64_t n, int depth)
{
    for (int64_t i = first; i < first + n; i++) {
        const struct plan_step *s = &x->p->steps.data[i];
        text_add(&x->t, "%*s", 2 * depth, "");
        print_step(x, i);
        if (!plan_step_nests(s->kind))
            continue;
        print_range(x, i + 1, s->n_body[0], depth + 1);
        if (s->kind == PS_IF)
            text_add(&x->t, "%*selse\n", 2 * depth, "");
        print_range(x, i + 1 + s->n_body[0], s->n_body[1], depth + 1);
        i += s->n_body[0] + s->n_body[1];
    }
}

static void print_steps(struct part *x)
{
    print_range(x, 0, x->p->steps.len, 0);
}

static const char *family_of(const struct part *x)
{
    for (int64_t i = 0; i < x->p->target.len; i++)
        if (strcmp(str_text(&x->p->strings, x->p->target.data[i].key), "family") == 0)
            return str_text(&x->p->strings, x->p->target.data[i].value);
    return NULL;
}

static void print_kernels(struct part *x)
{
    for (int64_t i = 0; i < x->p->kernels.len; i++) {
        const char *text = tile_kernel_text_of(x->p->kernels.data[i], family_of(x), x->t.arena);
        text_add(&x->t, "%s%s", i ? "\n" : "", text ? text : "");
    }
}

static void print_symbols(struct part *x)
{
    for (int64_t i = 0; i < x->p->exprs.symbols.len; i++) {
        const struct expr_symbol *s = &x->p->exprs.symbols.data[i];
        text_add(&x->t, "%s", name_of(x, s->name));
        if (s->range.min != INT64_MIN)
            text_add(&x->t, " >= %lld", (long long)s->range.min);
        if (s->range.max != INT64_MAX)
            text_add(&x->t, " <= %lld", (long long)s->range.max);
        if (s->range.multiple > 1)
            text_add(&x->t, " multiple of %lld", (long long)s->range.multiple);
        text_add(&x->t, "\n");
    }
}

static void print_target(struct part *x)
{
    for (int64_t i = 0; i < x->p->target.len; i++)
        text_add(&x->t, "%s = %s\n", name_of(x, x->p->target.data[i].key), name_of(x, x->p->target.data[i].value));
}

static const struct {
    const char *name;
    void (*print)(struct part *x);
} parts[] = {
    {"summary", print_summary}, {"entries", print_entries}, {"symbols", print_symbols}, {"tensors", print_tensors},
    {"steps", print_steps},     {"kernels", print_kernels}, {"target", print_target},
};

const char *plan_text(struct plan *p, const char *what, struct arena *a)
{
    struct part x = {.t = {.arena = a}, .p = p};
    const bool all = strcmp(what, "all") == 0;
    bool known = all;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(parts); i++) {
        if (!all && strcmp(parts[i].name, what) != 0)
            continue;
        known = true;
        if (all)
            text_add(&x.t, "%s---- %s\n", i ? "\n" : "", parts[i].name);
        parts[i].print(&x);
    }
    return known ? text_done(&x.t) : NULL;
}
