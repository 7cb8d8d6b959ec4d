#include "tools/analysis/plan.h"

#include <string.h>

#include "tools/estimate.h"
#include "tools/model_args.h"
#include "tools/roles.h"

/* Adds the times of launches to the products that they come from. */
static void share_times(const struct npurt_report *r, const struct product_list *list, double *by_product)
{
    for (int64_t i = 0; i < r->n_steps; i++) {
        const struct npurt_step *s = &r->steps[i];
        int n = 0;
        for (int k = 0; k < s->n_nodes; k++)
            n += product_place(list, s->nodes[k]) >= 0;
        for (int k = 0; k < s->n_nodes; k++) {
            const int64_t at = product_place(list, s->nodes[k]);
            if (at >= 0)
                by_product[at] += s->us / n;
        }
    }
}

static bool time_run(struct session *s, struct plan_figures *out, int *exit_code)
{
    const enum npuc_status st = npurt_run(s->run);
    if (st != NPUC_OK) {
        *exit_code = session_fail(s, st);
        return false;
    }
    const struct npurt_report *r = npurt_report(s->run);
    out->us = r->us;
    out->cycles = r->cycles;
    out->weight_bytes = r->weights_size;
    out->cache_bytes = r->cache_size;
    out->memory_bytes = r->weights_size + r->cache_size + r->pool_size;
    return true;
}

/* Sizes of the first run of the data for dimensions that inputs of the model leave open; a plan need not have them all.
 */
static bool data_sizes(struct session *s, const struct calib *data, int *exit_code)
{
    const struct graph *g = data->g;
    const struct ir_ctx *cx = g->module->cx;
    struct arena a;
    arena_init(&a, NULL);
    struct k_tensor *in = ARENA_ARRAY(&a, struct k_tensor, g->n_inputs + 1);
    const enum npuc_status st = calib_inputs(data, 0, in, &a);
    for (int i = 0; st == NPUC_OK && i < g->n_inputs; i++)
        for (int d = 0; d < in[i].rank; d++) {
            const struct expr_node *e = &cx->exprs.nodes.data[g->inputs[i]->type->dims[d]];
            const sym name = e->op == EXPR_SYM ? cx->exprs.symbols.data[e->value].name : 0;
            if (name && npurt_set_symbol(s->run, str_text(&cx->strings, name), in[i].dims[d]) != NPUC_OK)
                continue; /* the plan has no such dimension any more */
        }
    arena_free(&a);
    *exit_code = diag_exit_code(st);
    return st == NPUC_OK;
}

/* One call, or for language models a prefill and the step after it. */
static bool time_plan(struct session *s, const struct plan_request *q, struct plan_figures *out, int *exit_code)
{
    const bool open = args_value(q->args, "D") || args_value(q->args, "shape");
    if (open || !plan_is_language_model(s->plan))
        return data_sizes(s, q->data, exit_code) && session_dims(s, q->args, exit_code) && time_run(s, out, exit_code);
    enum npuc_status st = role_shapes(s->plan, s->run, 1, 0, q->context);
    if (st == NPUC_OK && !time_run(s, out, exit_code))
        return false;
    out->prefill_us = out->us;
    if (st == NPUC_OK)
        st = role_shapes(s->plan, s->run, 1, q->context, 1);
    if (st == NPUC_OK)
        return time_run(s, out, exit_code);
    *exit_code = session_fail(s, st);
    return false;
}

bool plan_figures(const struct plan_request *q, struct plan_figures *out, const struct product_list *list,
                  double *by_product, int *exit_code)
{
    struct session s = {0};
    struct compilation *c = arena_zalloc(list->arena, (int64_t)sizeof *c);
    compilation_init(c);
    bool ok = model_args(q->args, c, exit_code);
    c->options.recipe = NULL;
    c->options.target = q->target ? q->target : c->options.target;
    if (q->base)
        c->quantiser = *q->base;
    if (c->options.cache_capacity > 0 && c->options.cache_capacity < q->context + 1)
        c->options.cache_capacity = q->context + 1;
    ok = ok && estimate_model(c, q->model, &s, exit_code) && time_plan(&s, q, out, exit_code);
    if (ok) {
        const char *target = npurt_plan_target(s.plan);
        out->target = arena_strndup(list->arena, target, (int64_t)strlen(target));
    }
    if (ok && by_product)
        share_times(npurt_report(s.run), list, by_product);
    session_close(&s);
    compilation_free(c);
    return ok;
}
