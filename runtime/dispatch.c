/* Walking the steps of a run. */
#include "runtime/rt.h"

#include <stdio.h>

static bool launch_cancelled(void *user)
{
    npurt_session *s = user;
    return atomic_load_explicit(&s->cancel, memory_order_relaxed) != 0;
}

static int64_t core_limit(const npurt_session *s, const struct tile_kernel *k)
{
    const int64_t cube = (int64_t)target_num(&s->target, TK_CORES_CUBE),
                  vector = (int64_t)target_num(&s->target, TK_CORES_VECTOR);
    if (!k->has[TCORE_CUBE])
        return vector;
    return k->has[TCORE_VECTOR] && vector / 2 < cube && target_num(&s->target, TK_CORES_UNIFIED) < 1 ? vector / 2
                                                                                                     : cube;
}

/* A workspace: this step alone knows it. */
static bool is_brief(const npurt_session *s, const struct plan_step *step, int32_t n)
{
    const struct plan_tensor *t = &s->plan->tensors.data[n];
    const int64_t at = step - s->plan->steps.data;
    return t->kind == PT_TEMP && t->first == at && t->last == at;
}

static enum npuc_status launch_operands(npurt_session *s, const struct plan_step *step, struct emu_tensor *t,
                                        int64_t *params)
{
    for (int32_t i = 0; i < step->n_params; i++)
        if (!rt_value(s, step->params[i], &params[i]))
            return rt_fail(s, D_RUN_FAULT, "a parameter of kernel '%s' is not known when it is launched",
                           rt_name(s, s->plan->kernels.data[step->kernel]->name));
    for (int32_t i = 0; i < step->n_in; i++) {
        const int32_t n = step->tensors[i];
        if (n < 0)
            continue;
        const struct rt_tensor *r = &s->tensors[n];
        if (!r->known || !s->tensors[r->root].known || (!r->data && s->mode & NPURT_DATA && r->size > 0)) {
            const enum npuc_status st = rt_place_late(s, n);
            if (st != NPUC_OK && !(s->plan->tensors.data[n].kind == PT_WEIGHT))
                return st;
            if (!r->known && s->plan->tensors.data[n].kind == PT_ALIAS)
                return rt_fail(s, D_RUN_FAULT, "'%s' does not have the sizes of the tensor that it views",
                               rt_name(s, s->plan->tensors.data[n].name));
        }
        const enum dtype type = (enum dtype)s->plan->tensors.data[n].dtype;
        const int align = dtype_size(type) < 8 ? dtype_size(type) : 8;
        if (align > 1 && (uintptr_t)r->data % (uintptr_t)align != 0)
            return rt_fail(s, D_RUN_FAULT, "tensor '%s' is not aligned for its type",
                           rt_name(s, s->plan->tensors.data[n].name));
        t[i] = (struct emu_tensor){.data = r->data,
                                   .size = r->size,
                                   .address = r->address,
                                   .dtype = type,
                                   .read_only = r->read_only,
                                   .brief = is_brief(s, step, n)};
    }
    return NPUC_OK;
}

/* Equal parts of what the copies divide. */
static enum npuc_status divide_operands(npurt_session *s, const struct plan_step *step, struct emu_tensor *t)
{
    for (int32_t i = 0; i < step->n_in && step->copies > 0; i++) {
        const struct plan_tensor *root = &s->plan->tensors.data[s->tensors[step->tensors[i]].root];
        t[i].on_chip = root->kind == PT_TEMP && root->parts > 0;
        if (!step->divided[i])
            continue;
        if (t[i].size % step->copies != 0)
            return rt_fail(s, D_RUN_FAULT, "%lld bytes of tensor '%s' have no %d equal parts", (long long)t[i].size,
                           rt_name(s, s->plan->tensors.data[step->tensors[i]].name), step->copies);
        t[i].part = t[i].size / step->copies;
    }
    return NPUC_OK;
}

static enum npuc_status launch(npurt_session *s, const struct plan_step *step)
{
    const struct tile_kernel *k = s->plan->kernels.data[step->kernel];
    struct emu_tensor *tensors = ARENA_ARRAY(&s->scratch, struct emu_tensor, step->n_in + k->tensors.len + 1);
    int64_t *params = ARENA_ARRAY(&s->scratch, int64_t, step->n_params + k->exprs.symbols.len + 1);
    if (!tensors || !params)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    enum npuc_status st = launch_operands(s, step, tensors, params);
    if (st == NPUC_OK)
        st = divide_operands(s, step, tensors);
    if (st != NPUC_OK)
        return st;
    struct emu_launch l = {.kernel = k,
                           .params = params,
                           .tensors = tensors,
                           .target = &s->target,
                           .machine = s->machine,
                           .cancelled = launch_cancelled,
                           .cancel_user = s,
                           .copies = step->copies};
    const int64_t copies = step->copies > 1 ? step->copies : 1;
    if (!expr_eval(&k->exprs, k->blocks, params, &l.blocks) || l.blocks < 0 || l.blocks > core_limit(s, k) / copies)
        return rt_fail(s, D_RUN_FAULT, "kernel '%s' asks for %lld cores", rt_name(s, k->name), (long long)l.blocks);
    l.blocks *= copies;
    if (s->mode & NPURT_DATA && l.blocks > 0)
        st = emu_run_data(&l, s->pool, s->options.check_hazards != 0);
    if (st == NPUC_E_CANCELLED)
        return st;
    if (st != NPUC_OK)
        return rt_fail(s, st == NPUC_E_NOMEM ? D_HOST_MEMORY : D_RUN_FAULT, "node '%s' (%s): %s", rt_source(s, step),
                       rt_name(s, step->op), l.error);
    return s->mode & NPURT_CLOCK ? rt_time_launch(s, step, &l) : NPUC_OK;
}

static enum npuc_status run_host(npurt_session *s, const struct plan_step *step)
{
    const enum npuc_status st = step->kind == PS_HOST ? rt_host(s, step) : rt_sizes(s, step);
    if (st == NPUC_OK && s->mode & NPURT_CLOCK)
        rt_time_host(s, step);
    return st;
}

static enum npuc_status run_step(npurt_session *s, const struct plan_step *step)
{
    static enum npuc_status (*const run[PLAN_STEP_KINDS])(npurt_session *, const struct plan_step *) = {
        [PS_LAUNCH] = launch, [PS_HOST] = run_host,    [PS_SIZES] = run_host,   [PS_IF] = rt_if,
        [PS_LOOP] = rt_loop,  [PS_COPY] = rt_transfer, [PS_MOVE] = rt_transfer, [PS_APPEND] = rt_append,
    };
    int64_t guard = 1;
    if (step->guard != EXPR_INVALID && !rt_value(s, step->guard, &guard))
        return rt_fail(s, D_RUN_FAULT, "the condition of step '%s' is not known when it is needed",
                       rt_name(s, step->op));
    if (!guard)
        return NPUC_OK;
    if (step->kind != PS_COPY && step->kind != PS_MOVE) /* they note themselves when bytes move */
        rt_note_step(s, step);
    return run[step->kind](s, step);
}

/* The user hears of the steps of the entry, not of each turn of a loop. */
static bool stopped(npurt_session *s, int64_t i)
{
    const struct plan_entry *e = s->entry;
    const bool stop = s->depth == 0 && s->options.progress &&
                      s->options.progress(s->options.progress_user, i - e->first_step, e->n_steps) != 0;
    if (!stop && !atomic_load_explicit(&s->cancel, memory_order_relaxed))
        return false;
    snprintf(s->error, sizeof s->error, "cancelled");
    return true;
}

enum npuc_status rt_steps(npurt_session *s, int64_t first, int64_t n)
{
    enum npuc_status st = NPUC_OK;
    for (int64_t i = first; st == NPUC_OK && i < first + n; i++) {
        const struct plan_step *step = &s->plan->steps.data[i];
        if (stopped(s, i))
            return NPUC_E_CANCELLED;
        const struct arena_mark mark = arena_mark(&s->scratch);
        s->depth += plan_step_nests(step->kind);
        st = run_step(s, step);
        s->depth -= plan_step_nests(step->kind);
        arena_release(&s->scratch, mark);
        if (plan_step_nests(step->kind))
            i += (int64_t)step->n_body[0] + step->n_body[1];
    }
    return st;
}

enum npuc_status rt_dispatch(npurt_session *s)
{
    const struct plan_entry *e = s->entry;
    rt_report_begin(s);
    s->depth = 0;
    s->trial = NULL;
    const enum npuc_status st = rt_steps(s, e->first_step, e->n_steps);
    if (st == NPUC_OK)
        rt_report_end(s);
    return st;
}
