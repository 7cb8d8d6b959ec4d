#include "tools/spread.h"

#include <string.h>

#include "runtime/comm.h"
#include "runtime/rt.h"
#include "tools/term.h"

#define MOST_DEVICES 65536

bool spread_read(struct spread *s, const struct command *cmd, const struct args *a, int *exit_code)
{
    const struct arg_range stages = {1, SPREAD_STAGES, 1}, groups = {1, MOST_DEVICES, 1}, none = {1, MOST_DEVICES, 0};
    int64_t devices = 0, tensor = 0;
    if (!args_number(cmd, a, "devices", none, &devices, exit_code) ||
        !args_number(cmd, a, "tp", none, &tensor, exit_code) ||
        !args_number(cmd, a, "ep", groups, &s->expert, exit_code) ||
        !args_number(cmd, a, "pp", stages, &s->pipeline, exit_code))
        return false;
    const int64_t others = s->pipeline * s->expert;
    s->tensor = tensor > 0 ? tensor : devices > 0 && devices % others == 0 ? devices / others : 1;
    s->devices = devices > 0 ? devices : s->tensor * others;
    s->division =
        (struct division){.tensor = s->tensor, .expert = s->expert, .arena = (struct arena *)(uintptr_t)&a->arena};
    if (s->devices == s->tensor * others && s->devices <= MOST_DEVICES)
        return true;
    term_error("npuc estimate: --devices %lld, but tp %lld x ep %lld x pp %lld are %lld", (long long)s->devices,
               (long long)s->tensor, (long long)s->expert, (long long)s->pipeline, (long long)(s->tensor * others));
    *exit_code = diag_exit_code(NPUC_E_USAGE);
    return false;
}

bool spread_check(const struct spread *s, const struct session *session, int *exit_code)
{
    const char *why;
    if (spread_is_one(s) || comm_reaches(&session->run->target, s->devices, &why))
        return true;
    term_error("npuc estimate: target '%s' does not reach %lld devices: %s; --set changes it",
               npurt_plan_target(session->plan), (long long)s->devices, why);
    *exit_code = diag_exit_code(NPUC_E_USAGE);
    return false;
}

const char *spread_text(const struct spread *s, struct arena *a)
{
    const char *ep = s->expert > 1 ? arena_printf(a, ", ep %lld", (long long)s->expert) : "";
    const char *pp = s->pipeline > 1 ? arena_printf(a, ", pp %lld", (long long)s->pipeline) : "";
    return arena_printf(a, "%lld devices (tp %lld%s%s), modelled", (long long)s->devices, (long long)s->tensor, ep, pp);
}

json_t *spread_json(const struct spread *s)
{
    json_t *j = json_object(), *notes = json_array();
    for (int64_t i = 0; i < s->division.notes.len; i++)
        json_array_append_new(notes, json_text(s->division.notes.data[i]));
    json_put(j, "devices", json_integer(s->devices));
    json_put(j, "tensor_parallel", json_integer(s->tensor));
    json_put(j, "expert_parallel", json_integer(s->expert));
    json_put(j, "pipeline_parallel", json_integer(s->pipeline));
    json_put(j, "modelled", json_boolean(true));
    json_put(j, "notes", notes);
    return j;
}

/* Sequences of a group of those that share the experts. */
static int64_t group_batch(const struct spread *s, int64_t batch)
{
    return (batch + s->expert - 1) / s->expert;
}

int64_t spread_turns(const struct spread *s, int64_t batch)
{
    const int64_t own = group_batch(s, batch);
    return own < s->pipeline ? own : s->pipeline;
}

int64_t spread_batch(const struct spread *s, int64_t batch)
{
    const int64_t turns = spread_turns(s, batch);
    return (group_batch(s, batch) + turns - 1) / turns;
}

/* ---- runs ---- */

/* over[i]: bytes of temporaries made before step i and needed from it on. */
static void bytes_over(npurt_session *run, double *over, int64_t n)
{
    struct rt_map map;
    struct arena a;
    arena_init(&a, NULL);
    if (rt_map(run, &a, &map) == NPUC_OK)
        for (int64_t i = 0; i < map.n; i++) {
            const struct rt_place *p = &map.places[i];
            const bool made = run->plan->tensors.data[p->tensor].kind == PT_TEMP;
            for (int64_t k = p->first + 1; made && k <= p->last && k < n; k++)
                over[k] += (double)p->size;
        }
    arena_free(&a);
}

struct spread_run spread_run_of(const struct spread *s, const struct session *session, struct arena *a)
{
    npurt_session *run = session->run;
    const struct npurt_report *r = npurt_report(run);
    struct spread_run out = {.us = r->us};
    for (int64_t i = 0; i < r->n_steps; i++)
        out.link_us += r->steps[i].bound_by && strcmp(r->steps[i].bound_by, "link") == 0 ? r->steps[i].us : 0;
    if (s->pipeline < 2)
        return out;
    out.n = run->entry->n_steps;
    out.step = ARENA_ARRAY(a, double, out.n + 1);
    out.over = ARENA_ARRAY(a, double, out.n + 1);
    for (int64_t i = 0; i < out.n; i++) {
        const int64_t at = run->record_of[run->entry->first_step + i];
        out.step[i] = at >= 0 ? r->steps[at].us : 0;
    }
    bytes_over(run, out.over, out.n);
    return out;
}

/* ---- stages ---- */

/* The step within `from`..`to` across whose begin the least lives; the nearest to `wish` of equal ones. */
static int64_t narrowest(const struct spread_run *r, int64_t from, int64_t to, int64_t wish)
{
    int64_t best = wish;
    for (int64_t i = from; i <= to; i++) {
        const int64_t d = i < wish ? wish - i : i - wish, was = best < wish ? wish - best : best - wish;
        if (r->over[i] < r->over[best] || (r->over[i] <= r->over[best] && d < was))
            best = i;
    }
    return best;
}

struct spread_stages spread_divide(const struct spread *s, const struct spread_run *r)
{
    struct spread_stages t = {.n = (int)s->pipeline};
    double sum = 0;
    int64_t at = 0;
    for (int k = 1; k < t.n; k++) {
        const double wish = r->us * k / t.n;
        while (at < r->n && sum + r->step[at] / 2 < wish)
            sum += r->step[at++];
        const int64_t reach = r->n / (8 * t.n), low = at - reach, high = at + reach;
        const int64_t cut =
            narrowest(r, low > t.begin[k - 1] ? low : t.begin[k - 1], high < r->n ? high : r->n - 1, at);
        t.begin[k] = cut;
    }
    t.begin[t.n] = r->n;
    return t;
}

double spread_us(const struct spread_run *r, const struct spread_stages *t, const struct session *session,
                 int64_t turns, bool again)
{
    double sum = 0, most = 0;
    if (r->n == 0)
        return r->us;
    for (int k = 0; k < t->n; k++) {
        double us = k > 0 ? comm_us(&session->run->target, COMM_SEND, 2, r->over[t->begin[k]]) : 0;
        for (int64_t i = t->begin[k]; i < t->begin[k + 1]; i++)
            us += r->step[i];
        sum += us;
        most = us > most ? us : most;
    }
    if (again)
        return (double)turns * most > sum ? (double)turns * most : sum;
    return sum + (double)(turns - 1) * most;
}

static bool stage_uses(const struct spread_stages *t, const npurt_session *run, int stage, int32_t root)
{
    for (int64_t i = t->begin[stage]; i < t->begin[stage + 1]; i++) {
        const struct plan_step *step = &run->plan->steps.data[run->entry->first_step + i];
        for (int32_t k = 0; k < step->n_in + step->n_out; k++)
            if (step->tensors[k] >= 0 && run->tensors[step->tensors[k]].root == root)
                return true;
    }
    return false;
}

void spread_memory(const struct spread_stages *t, const struct session *session, const double *cache, double *weights,
                   double *caches)
{
    const npurt_session *run = session->run;
    double most = -1;
    for (int k = 0; k < t->n; k++) {
        double w = 0, c = 0;
        for (int32_t i = 0; i < run->plan->tensors.len; i++)
            if (run->plan->tensors.data[i].kind == PT_WEIGHT && stage_uses(t, run, k, i))
                w += (double)rt_weight_size(run, &run->plan->tensors.data[i]);
        for (int32_t i = 0; i < run->entry->n_caches; i++)
            if (stage_uses(t, run, k, run->entry->caches[i].tensor))
                c += cache[i];
        if (w + c > most) {
            most = w + c;
            *weights = w;
            *caches = c;
        }
    }
}
