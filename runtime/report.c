/* What a run did, step by step, and the sums. */
#include "plan/names.h"
#include "runtime/comm.h"
#include "runtime/rt.h"

#include <string.h>

void rt_report_begin(npurt_session *s)
{
    s->report_steps.len = 0;
    for (int64_t i = 0; i < s->plan->steps.len; i++)
        s->record_of[i] = -1;
    memset(s->choice, 0, (size_t)s->plan->steps.len);
    const struct tile_names *names = tile_names_of(s->has_target ? s->target.family : NULL);
    s->report = (struct npurt_report){.unit_names = names->unit,
                                      .space_names = names->space,
                                      .core_names = names->core,
                                      .target = str_text(&s->plan->strings, s->plan->target_name),
                                      .clock_hz = target_num(&s->target, TK_CLOCK)};
}

static void describe_source(npurt_session *s, const struct plan_step *step, struct npurt_step *r)
{
    const struct strtab *strings = &s->plan->strings;
    if (step->source < 0 || step->source >= s->plan->sources.len)
        return;
    const struct plan_source *src = &s->plan->sources.data[step->source];
    const char **nodes = ARENA_ARRAY(&s->arena, const char *, src->n + 1);
    for (int32_t i = 0; nodes && i < src->n; i++)
        nodes[i] = str_text(strings, src->nodes[i]);
    r->label = str_text(strings, src->label);
    r->nodes = nodes;
    r->n_nodes = nodes ? src->n : 0;
    if (src->fused_as)
        r->op = str_text(strings, src->fused_as);
}

/* Names are looked up once per step and session; later runs copy them. */
static const struct npurt_step *step_names(npurt_session *s, const struct plan_step *step)
{
    const int64_t number = step - s->plan->steps.data;
    if (s->step_names[number])
        return s->step_names[number];
    struct npurt_step *r = ARENA_NEW(&s->arena, struct npurt_step);
    if (!r)
        return NULL;
    r->op = str_text(&s->plan->strings, step->op);
    r->label = r->op;
    r->host = step->kind != PS_LAUNCH && comm_of(r->op) == COMM_NONE;
    if (step->kind == PS_LAUNCH)
        r->kernel = str_text(&s->plan->strings, s->plan->kernels.data[step->kernel]->name);
    if (step->reason)
        r->reason = str_text(&s->plan->strings, step->reason);
    describe_source(s, step, r);
    return s->step_names[number] = r;
}

void rt_note_step(npurt_session *s, const struct plan_step *step)
{
    const int64_t number = step - s->plan->steps.data;
    int64_t macs;
    if (s->trial) {
        s->note = s->trial;
        return;
    }
    if (s->record_of[number] < 0) {
        const struct npurt_step *names = step_names(s, step);
        s->record_of[number] = s->report_steps.len;
        vec_push(&s->arena, &s->report_steps, names ? *names : (struct npurt_step){0});
    }
    s->note = &s->report_steps.data[s->record_of[number]];
    s->note->count++;
    if (step->work != EXPR_INVALID && rt_value(s, step->work, &macs))
        s->note->macs += (double)macs;
}

void rt_report_end(npurt_session *s)
{
    struct npurt_report *r = &s->report;
    r->steps = s->report_steps.data;
    r->n_steps = s->report_steps.len;
    for (int64_t i = 0; i < r->n_steps; i++) {
        const struct npurt_step *x = &r->steps[i];
        r->us += x->us;
        *(x->host ? &r->host_us : &r->npu_us) += x->us;
        r->launch_us += x->launch_us;
        r->cycles += x->cycles;
        r->gm_read += x->gm_read;
        r->gm_written += x->gm_written;
        *(x->host ? &r->n_host : &r->n_launches) += x->count;
        for (int k = 0; k < NPURT_SPACES; k++)
            if (x->peak[k] > r->peak[k])
                r->peak[k] = x->peak[k];
    }
    r->weights_size = s->weights_size;
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        r->cache_size += s->caches[i].size;
    r->pool_size = s->pool_size;
    r->pool_lower_bound = s->pool_lower_bound;
    r->peak[TS_GM] = r->weights_size + r->cache_size + r->pool_size;
}

const struct npurt_report *npurt_report(npurt_session *s)
{
    return &s->report;
}

const char *npurt_unit_name(int unit)
{
    _Static_assert(TU_COUNT == NPURT_UNITS && TS_COUNT == NPURT_SPACES && TCORE_COUNT == NPURT_CORES,
                   "npurt.h mirrors plan/tile.h");
    return unit >= 0 && unit < TU_COUNT ? tile_names_of(NULL)->unit[unit] : "";
}

const char *npurt_space_name(int space)
{
    return space >= 0 && space < TS_COUNT ? tile_names_of(NULL)->space[space] : "";
}
