/* Times of a checked model: one call in mode clock, each step's share given to the nodes of the file behind it. */
#include <string.h>

#include "tools/assume.h"
#include "tools/coverage/priv.h"
#include "tools/estimate.h"
#include "tools/roles.h"
#include "tools/term.h"

/* A decode step behind as many tokens as the cache holds: what a language model spends its life with. */
static bool language_sizes(struct survey *s, struct session *run)
{
    const int64_t rows = npurt_cache_capacity(run->run) > 0 ? npurt_cache_capacity(run->run) : 2048;
    if (role_shapes(run->plan, run->run, 1, rows - 1, 1) != NPUC_OK)
        return false;
    s->v->assumed =
        arena_printf(s->v->arena, "a decode step, batch 1, %lld tokens in the cache", (long long)(rows - 1));
    return true;
}

static bool open_sizes(struct survey *s, struct session *run)
{
    const char *text = "";
    for (int i = 0; i < npurt_plan_symbols(run->plan); i++) {
        const struct npurt_dim *d = npurt_plan_symbol(run->plan, i);
        const int64_t size = assume_size(d->text, d->min, d->max, 1);
        if (npurt_set_symbol(run->run, d->text, size) != NPUC_OK)
            return false;
        if (d->min != d->max && d->text[0] != '_')
            text = arena_printf(s->v->arena, "%s%s%s = %lld", text, *text ? ", " : "", d->text, (long long)size);
    }
    if (*text)
        s->v->assumed = text;
    return true;
}

/* A step's time goes to its nodes in proportion to their work. */
static void give(struct survey *s, const struct npurt_step *step)
{
    double all = 0;
    for (int i = 0; i < step->n_nodes; i++) {
        const struct cov_node *n = survey_node(s, step->nodes[i]);
        all += n ? n->work : 0;
    }
    const double bytes = (double)(step->gm_read + step->gm_written);
    for (int i = 0; i < step->n_nodes && all > 0; i++) {
        const struct cov_node *n = survey_node(s, step->nodes[i]);
        if (!n)
            continue;
        struct cov_use *u = &s->v->rows.data[n->row].use[s->t];
        u->us += step->us * n->work / all;
        u->bytes += bytes * n->work / all;
    }
}

static void read_report(struct survey *s, const struct npurt_report *r)
{
    struct cov_target *t = &s->v->target[s->t];
    t->timed = true;
    t->us = r->us;
    t->npu_us = r->npu_us;
    t->host_us = r->host_us;
    t->launch_us = r->launch_us;
    for (int64_t i = 0; i < r->n_steps; i++) {
        t->bytes += (double)(r->steps[i].gm_read + r->steps[i].gm_written);
        give(s, &r->steps[i]);
    }
}

void survey_time(struct survey *s, const struct args *a)
{
    struct session run = {0};
    struct cov_target *t = &s->v->target[s->t];
    if (!estimate_model(s->c, s->v->path, &run, &t->exit_code)) {
        session_close(&run);
        return;
    }
    const bool sized = plan_is_language_model(run.plan) && !args_value(a, "D") && !args_value(a, "shape")
                           ? language_sizes(s, &run)
                           : open_sizes(s, &run);
    if (sized && npurt_run(run.run) == NPUC_OK)
        read_report(s, npurt_report(run.run));
    else
        t->untimed = arena_printf(s->v->arena, "%s", npurt_session_error(run.run));
    session_close(&run);
}
