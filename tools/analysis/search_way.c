#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/analysis/search_priv.h"
#include "tools/term.h"

static double cost_of(const struct search *s, const struct search_option *o)
{
    return s->by_time ? o->us : o->bytes;
}

/* ---- the way */

static struct search_point everything_kept(const struct search *s)
{
    struct search_point p = {.unit = -1};
    for (int64_t i = 0; i < s->units.len; i++) {
        p.bytes += s->units.data[i].options[0].bytes;
        p.us += s->units.data[i].options[0].us;
    }
    return p;
}

/* The change with the least loss per cost saved; the first of equal ones. False: none saves anything. */
static bool best_change(const struct search *s, struct search_point *p)
{
    double least = 0;
    p->unit = -1;
    for (int64_t i = 0; i < s->units.len; i++) {
        const struct search_unit *u = &s->units.data[i];
        const struct search_option *now = &u->options[u->choice];
        for (int k = 1; k <= s->n_schemes; k++) {
            const double saved = cost_of(s, now) - cost_of(s, &u->options[k]);
            const double rate = saved > 0 ? (u->options[k].loss - now->loss) / saved : 0;
            if (s->for_caches[k] != u->caches || saved <= 0 || (p->unit >= 0 && rate >= least))
                continue;
            least = rate;
            p->unit = i;
            p->before = u->choice;
            p->after = k;
        }
    }
    return p->unit >= 0;
}

void search_make_way(struct search *s)
{
    struct search_point p = everything_kept(s);
    vec_push(s->arena, &s->way, p);
    while (best_change(s, &p)) {
        struct search_unit *u = &s->units.data[p.unit];
        const struct search_option *from = &u->options[p.before], *to = &u->options[p.after];
        p.loss += to->loss - from->loss;
        p.bytes += to->bytes - from->bytes;
        p.us += to->us - from->us;
        u->choice = p.after;
        vec_push(s->arena, &s->way, p);
    }
}

void search_go_to(struct search *s, int64_t point)
{
    for (int64_t i = 0; i < s->units.len; i++)
        s->units.data[i].choice = 0;
    for (int64_t i = 1; i <= point; i++)
        s->units.data[s->way.data[i].unit].choice = s->way.data[i].after;
}

/* ---- figures of a point */

static bool measure(struct search *s, int64_t at, int *exit_code)
{
    struct search_point *p = &s->way.data[at];
    if (p->measured)
        return true;
    search_go_to(s, at);
    if (s->ask->shows)
        fprintf(stderr, "\r\033[K  measuring point %" PRId64 " of %" PRId64 " ", at, s->way.len - 1);
    const struct search_unit *caches = search_caches(s);
    const struct variant_want want = {.base = &s->mix, .caches = caches && caches->choice > 0};
    p->measured = analysis_outputs(&s->an, &want, s->an.runs, &p->effect, exit_code);
    return p->measured;
}

static bool compile(struct search *s, int64_t at, int *exit_code)
{
    struct search_point *p = &s->way.data[at];
    const struct plan_request q = {.args = s->ask->args,
                                   .data = &s->an.data,
                                   .model = s->ask->model,
                                   .target = args_value(s->ask->args, "target"),
                                   .base = &s->mix,
                                   .context = s->ask->context};
    if (p->compiled)
        return true;
    search_go_to(s, at);
    if (s->ask->shows)
        fprintf(stderr, "\r\033[K  compiling point %" PRId64 " of %" PRId64 " ", at, s->way.len - 1);
    p->compiled = plan_figures(&q, &p->plan, &s->an.list, NULL, exit_code);
    return p->compiled;
}

/* What max-bytes limits. */
static int64_t bytes_of(const struct search *s, const struct search_point *p)
{
    return p->plan.weight_bytes + (search_caches(s) ? p->plan.cache_bytes : 0);
}

/* Is the point within the limit? Points are measured by what is limited. */
static bool holds(struct search *s, int64_t at, bool *within, int *exit_code)
{
    const struct search_point *p = &s->way.data[at];
    if (!(s->limit == LIMIT_DROP ? measure : compile)(s, at, exit_code))
        return false;
    *within = s->limit == LIMIT_DROP    ? p->effect.drop <= s->most
              : s->limit == LIMIT_BYTES ? (double)bytes_of(s, p) <= s->most
                                        : p->plan.us <= s->most;
    return true;
}

static bool out_of_reach(struct search *s, int *exit_code)
{
    const struct search_point *p = &s->way.data[s->way.len - 1];
    if (s->limit == LIMIT_BYTES)
        term_error("npuc quantize: these schemes bring the weights%s to %" PRId64
                   " bytes at least, not to %.0f; nothing written",
                   search_caches(s) ? " and caches" : "", bytes_of(s, p), s->most);
    else
        term_error("npuc quantize: these schemes bring the time to %.1f us at least, not to %.1f; nothing written",
                   p->plan.us, s->most);
    *exit_code = diag_exit_code(NPUC_E_NEGATIVE);
    return false;
}

/* Low and high differ in whether they are within; of the neighbours between that do, the one within is chosen. */
static bool bisect(struct search *s, int64_t low, int64_t high, int *exit_code)
{
    const bool drop = s->limit == LIMIT_DROP; /* grows along the way; what else is limited shrinks */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        bool within;
        if (!holds(s, middle, &within, exit_code))
            return false;
        if (within == drop)
            low = middle;
        else
            high = middle;
    }
    s->chosen = drop ? low : high;
    return true;
}

bool search_choose(struct search *s, int *exit_code)
{
    const bool drop = s->limit == LIMIT_DROP;
    const int64_t last = s->way.len - 1;
    bool end, start = false;
    if (!holds(s, last, &end, exit_code))
        return false;
    if (!drop && !end)
        return out_of_reach(s, exit_code);
    if (!drop && !holds(s, 0, &start, exit_code))
        return false;
    if (drop && end)
        s->chosen = last;
    else if (!start && !bisect(s, 0, last, exit_code))
        return false;
    const bool known = measure(s, s->chosen, exit_code) && compile(s, s->chosen, exit_code);
    search_go_to(s, s->chosen);
    if (s->ask->shows)
        fprintf(stderr, "\r\033[K");
    return known;
}
