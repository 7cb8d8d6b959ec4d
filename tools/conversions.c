#include "tools/conversions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/type.h"
#include "runtime/rt.h"
#include "tools/assume.h"
#include "tools/json.h"
#include "tools/roles.h"
#include "tools/table.h"

#define MAX_ROWS 24 /* of the table; JSON has all */
#define MAX_DIMS 64
#define MAX_TEXT 40

_Static_assert(PL_NC1HWC0 == (int)LAYOUT_NC1HWC0 && PL_NHWC == (int)LAYOUT_NHWC && PL_CACHE == (int)LAYOUT_CACHE,
               "layouts of plans have the words of the graph's");

static const char *text_of(const struct npurt_session *s, sym name, struct arena *a)
{
    const struct strtab *t = &s->plan->strings;
    return str_escape(a, str_text(t, name), str_len(t, name), MAX_TEXT);
}

static bool is_conversion(const struct plan_step *step)
{
    return step->kind == PS_LAUNCH && step->reason;
}

/* The first tensor of a launch that is read, or written. */
static const struct plan_tensor *operand(const struct npurt_session *s, const struct plan_step *step, bool written)
{
    const struct tile_kernel *k = s->plan->kernels.data[step->kernel];
    for (int32_t i = 0; i < step->n_in && i < k->tensors.len; i++)
        if (step->tensors[i] >= 0 && (written ? k->tensors.data[i].is_output : k->tensors.data[i].is_input))
            return &s->plan->tensors.data[step->tensors[i]];
    return NULL;
}

static const char *layout_of(const struct plan_tensor *t, bool turned, struct arena *a)
{
    if (!t)
        return "?";
    if (t->layout == PL_NC1HWC0)
        return arena_printf(a, "%s, c0 %d", layout_words[t->layout], t->c0);
    return t->layout == PL_CACHE ? "cache" : turned && t->layout == PL_ND ? "ND, turned" : layout_words[t->layout];
}

static const char *dims_of(const struct npurt_session *s, const struct plan_tensor *t, struct arena *a)
{
    char text[MAX_DIMS] = "";
    int at = 0;
    for (int32_t i = 0; t && i < t->rank && at < MAX_DIMS - 1; i++) {
        int64_t v = 0;
        const bool known = rt_value(s, t->dims[i], &v);
        at += snprintf(text + at, (size_t)(MAX_DIMS - at), known ? "%s%lld" : "%s?", i ? "x" : "", (long long)v);
    }
    return t ? arena_printf(a, "%s %s", dtype_table[t->dtype].name, text) : "";
}

static int64_t bytes_of(const struct npurt_session *s, const struct plan_tensor *t)
{
    int64_t v = 0;
    return t && rt_value(s, t->size, &v) ? v : 0;
}

static void note(struct conversions *c, const struct npurt_session *s, const struct plan_step *step,
                 const struct npurt_step *ran, struct arena *a)
{
    const struct plan_tensor *from = operand(s, step, false), *to = operand(s, step, true);
    const struct plan_source *source = step->source >= 0 ? &s->plan->sources.data[step->source] : NULL;
    const bool turned = strcmp(str_text(&s->plan->strings, step->op), "Transpose") == 0;
    const struct conversion v = {.tensor = from ? text_of(s, from->name, a) : "",
                                 .dims = dims_of(s, from, a),
                                 .from = layout_of(from, false, a),
                                 .to = layout_of(to, turned, a),
                                 .node = source ? text_of(s, source->label, a) : "",
                                 .kernel = text_of(s, s->plan->kernels.data[step->kernel]->name, a),
                                 .why = arena_printf(a, "%s", str_text(&s->plan->strings, step->reason)),
                                 .bytes = (bytes_of(s, from) + bytes_of(s, to)) * ran->count,
                                 .count = ran->count,
                                 .us = ran->us,
                                 .cycles = ran->cycles};
    vec_push(a, &c->list, v);
    c->count += v.count;
    c->bytes += v.bytes;
    c->us += v.us;
    c->cycles += v.cycles;
}

static int by_time(const void *a, const void *b)
{
    const struct conversion *x = a, *y = b;
    return x->us < y->us ? 1 : x->us > y->us ? -1 : x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : 0;
}

void conversions_of(struct conversions *c, const struct session *s, struct arena *a)
{
    const struct npurt_session *run = s->run;
    *c = (struct conversions){.total_us = npurt_report(s->run)->us};
    for (int64_t i = 0; i < run->plan->steps.len; i++)
        if (run->record_of[i] >= 0 && is_conversion(&run->plan->steps.data[i]))
            note(c, run, &run->plan->steps.data[i], &run->report_steps.data[run->record_of[i]], a);
    if (c->list.len)
        qsort(c->list.data, (size_t)c->list.len, sizeof *c->list.data, by_time);
}

/* ---- text ---- */

static double share(const struct conversions *c, double us)
{
    return c->total_us > 0 ? 100 * us / c->total_us : 0;
}

const char *conversions_line(const struct conversions *c, struct arena *a)
{
    char size[BYTES_TEXT];
    if (c->count == 0)
        return "no layout conversions";
    return arena_printf(a, "%lld layout conversion%s left, %s, %.1f %% of the time", (long long)c->count,
                        c->count == 1 ? "" : "s", bytes_text(size, (double)c->bytes), share(c, c->us));
}

static void put_row(const struct conversions *c, struct table *t, const struct conversion *v, struct arena *a)
{
    char size[BYTES_TEXT];
    table_put(t, v->tensor);
    table_put(t, v->node);
    table_put(t, v->dims);
    table_put(t, arena_printf(a, "%s -> %s", v->from, v->to));
    table_put(t, arena_printf(a, "%s", bytes_text(size, (double)v->bytes)));
    table_put(t, arena_printf(a, "%.0f", v->cycles));
    table_put(t, arena_printf(a, "%.2f", v->us));
    table_put(t, arena_printf(a, "%.1f %%", share(c, v->us)));
    table_put(t, v->why);
}

void conversions_table(const struct conversions *c, FILE *f, struct arena *a)
{
    static const char *const heads[] = {"tensor", "node", "shape", "layouts", "bytes", "cycles", "us", "share", "why"};
    struct table t;
    fprintf(f, "layouts     %s\n", conversions_line(c, a));
    if (c->count == 0)
        return;
    table_init(&t, a, "llllrrrrl");
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(heads); i++)
        table_put(&t, heads[i]);
    double rest = 0;
    for (int64_t i = 0; i < c->list.len; i++) {
        if (i < MAX_ROWS)
            put_row(c, &t, &c->list.data[i], a);
        else
            rest += c->list.data[i].us;
    }
    table_text(&t, f);
    if (c->list.len > MAX_ROWS)
        fprintf(f, "and %lld more of %.2f us (--json lists them)\n", (long long)(c->list.len - MAX_ROWS), rest);
}

json_t *conversions_json(const struct conversions *c)
{
    json_t *j = json_object(), *list = json_array();
    for (int64_t i = 0; i < c->list.len; i++) {
        const struct conversion *v = &c->list.data[i];
        json_t *row = json_object();
        json_put(row, "tensor", json_text(v->tensor));
        json_put(row, "node", json_text(v->node));
        json_put(row, "shape", json_text(v->dims));
        json_put(row, "from", json_text(v->from));
        json_put(row, "to", json_text(v->to));
        json_put(row, "kernel", json_text(v->kernel));
        json_put(row, "count", json_integer(v->count));
        json_put(row, "bytes", json_integer(v->bytes));
        json_put(row, "cycles", json_real(v->cycles));
        json_put(row, "us", json_real(v->us));
        json_put(row, "why", json_text(v->why));
        json_array_append_new(list, row);
    }
    json_put(j, "count", json_integer(c->count));
    json_put(j, "bytes", json_integer(c->bytes));
    json_put(j, "cycles", json_real(c->cycles));
    json_put(j, "us", json_real(c->us));
    json_put(j, "total_us", json_real(c->total_us));
    json_put(j, "conversions", list);
    return j;
}

/* ---- a plan by itself ---- */

/* Is it the number of rows that caches hold? The session knows. */
static bool is_past(const struct plan *p, const struct plan_entry *e, int64_t symbol)
{
    for (int32_t i = 0; i < e->n_caches; i++) {
        const struct expr_node *n = &p->exprs.nodes.data[e->caches[i].past];
        if (e->caches[i].grows && n->op == EXPR_SYM && n->value == symbol)
            return true;
    }
    return false;
}

static bool is_any_given(const struct npurt_session *s)
{
    for (int64_t i = 0; i < s->plan->exprs.symbols.len; i++)
        if (s->user_symbol[i] >= 0)
            return true;
    return false;
}

/* Symbols that inputs have and nobody gave; a gear's sizes are those of the first entry. */
static enum npuc_status assume_rest(struct session *s)
{
    struct npurt_session *run = s->run;
    const struct plan_entry *first = &run->plan->entries.data[0];
    if (plan_is_language_model(s->plan) && !is_any_given(run)) {
        const enum npuc_status st = role_shapes(s->plan, run, 1, 0, assume_size("tokens", 1, INT64_MAX, 1));
        return st == NPUC_OK ? npurt_run(run) : st;
    }
    for (int32_t i = 0; i < first->n_fixed; i++)
        if (run->user_symbol[first->fixed[i].symbol] < 0)
            run->user_symbol[first->fixed[i].symbol] = first->fixed[i].value;
    for (int64_t i = 0; i < run->plan->exprs.symbols.len; i++) {
        const struct expr_symbol *y = &run->plan->exprs.symbols.data[i];
        const char *name = str_text(&run->plan->strings, y->name);
        if (run->user_symbol[i] < 0 && !run->late_symbol[i] && !is_past(run->plan, first, i))
            run->user_symbol[i] = assume_size(name, y->range.min, y->range.max, y->range.multiple);
    }
    return npurt_run(s->run);
}

int conversions_print(const char *plan, const struct args *a, bool json)
{
    struct arena *arena = (struct arena *)(uintptr_t)&a->arena;
    struct session s;
    struct conversions c;
    int code = 0;
    if (session_open(&s, a, plan, NPURT_CLOCK, &code) && session_dims(&s, a, &code)) {
        const enum npuc_status st = assume_rest(&s);
        if (st != NPUC_OK) {
            code = session_fail(&s, st);
        } else {
            conversions_of(&c, &s, arena);
            if (json)
                print_json(conversions_json(&c));
            else
                conversions_table(&c, stdout, arena);
        }
    }
    session_close(&s);
    return code;
}

const char *conversions_of_file(const char *plan, struct arena *a)
{
    struct session s = {.path = plan, .mode = NPURT_CLOCK};
    struct conversions c = {0};
    const char *line = NULL;
    if (npurt_plan_open(plan, &s.plan) == NPUC_OK &&
        npurt_session_new(s.plan, &(struct npurt_options){.mode = NPURT_CLOCK}, &s.run) == NPUC_OK) {
        int64_t n = 0;
        for (int64_t i = 0; i < s.run->plan->steps.len; i++)
            n += is_conversion(&s.run->plan->steps.data[i]);
        const bool timed = n > 0 && assume_rest(&s) == NPUC_OK;
        if (timed)
            conversions_of(&c, &s, a);
        line = timed || n == 0
                   ? conversions_line(&c, a)
                   : arena_printf(a, "%lld steps convert layouts; with sizes (-D) inspect times them", (long long)n);
    }
    session_close(&s);
    return line;
}
