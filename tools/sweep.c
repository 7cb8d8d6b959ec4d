#include "tools/sweep.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "runtime/rt.h"
#include "tools/roles.h"
#include "tools/term.h"

#define MOST_POINTS   100000
#define SHORT_PREFILL 2048 /* tokens of the largest prefill that is timed unless all are */

/* ---- arguments ---- */

static bool refuse(const char *spec, int *exit_code)
{
    term_error("npuc estimate: --sweep takes NAME=SIZE,SIZE,..., sizes from 1 on, at most %d names; found %s",
               SWEEP_AXES, spec);
    *exit_code = diag_exit_code(NPUC_E_USAGE);
    return false;
}

static struct sweep_axis *axis_of(struct sweep *w, const char *name, int64_t len)
{
    const bool context = len == 7 && strncmp(name, "context", 7) == 0; /* estimate's name for it */
    const char *text = context ? "seq" : arena_strndup(w->arena, name, len);
    for (int i = 0; i < w->n_axes; i++)
        if (strcmp(w->axis[i].name, text) == 0)
            return &w->axis[i];
    if (w->n_axes == SWEEP_AXES)
        return NULL;
    w->axis[w->n_axes] = (struct sweep_axis){.name = text};
    return &w->axis[w->n_axes++];
}

static bool read_axis(struct sweep *w, const char *spec, int *exit_code)
{
    const char *eq = strchr(spec, '=');
    struct sweep_axis *x = eq && eq > spec ? axis_of(w, spec, eq - spec) : NULL;
    if (!x)
        return refuse(spec, exit_code);
    for (const char *s = eq + 1;;) {
        char *end = NULL;
        const long long v = strtoll(s, &end, 10);
        if (end == s || (*end && *end != ',') || v < 1 || v > 1 << 24)
            return refuse(spec, exit_code);
        vec_push(w->arena, &x->sizes, (int64_t)v);
        if (!*end)
            return true;
        s = end + 1;
    }
}

static int64_t count_points(const struct sweep *w)
{
    int64_t n = 1;
    for (int i = 0; i < w->n_axes && n <= MOST_POINTS; i++)
        n *= w->axis[i].sizes.len;
    return n;
}

bool sweep_read(struct sweep *w, const struct args *a, int *exit_code)
{
    w->exact = args_flag(a, "exact") ? INT64_MAX : SHORT_PREFILL;
    for (int64_t i = 0; i < a->given.len; i++)
        if (strcmp(a->given.data[i].option->name, "sweep") == 0 && !read_axis(w, a->given.data[i].value, exit_code))
            return false;
    if (count_points(w) <= MOST_POINTS)
        return true;
    term_error("npuc estimate: a sweep has at most %d points", MOST_POINTS);
    *exit_code = diag_exit_code(NPUC_E_USAGE);
    return false;
}

int64_t sweep_largest(const struct sweep *w, const char *name, int64_t otherwise)
{
    int64_t most = 0;
    for (int i = 0; i < w->n_axes; i++)
        for (int64_t k = 0; strcmp(w->axis[i].name, name) == 0 && k < w->axis[i].sizes.len; k++)
            most = w->axis[i].sizes.data[k] > most ? w->axis[i].sizes.data[k] : most;
    return most > 0 ? most : otherwise;
}

static int find_axis(const struct sweep *w, const char *name)
{
    for (int i = 0; i < w->n_axes; i++)
        if (strcmp(w->axis[i].name, name) == 0)
            return i;
    return -1;
}

/* Batch first, then seq: both exist for a language model, whatever was given. */
static bool order_axes(struct sweep *w)
{
    static const char *const names[] = {"batch", "seq"};
    static const int64_t defaults[] = {1, 2048};
    for (int i = 0; i < NPUC_ARRAY_LEN(names); i++) {
        int at = find_axis(w, names[i]);
        if (at < 0) {
            if (w->n_axes == SWEEP_AXES)
                return false;
            at = w->n_axes++;
            w->axis[at] = (struct sweep_axis){.name = names[i]};
            vec_push(w->arena, &w->axis[at].sizes, defaults[i]);
        }
        const struct sweep_axis x = w->axis[at];
        w->axis[at] = w->axis[i];
        w->axis[i] = x;
    }
    return w->n_axes == NPUC_ARRAY_LEN(names);
}

int64_t sweep_batch(const struct sweep *w, const struct sweep_point *p)
{
    const int at = find_axis(w, "batch");
    return at < 0 ? 1 : p->size[at];
}

int64_t sweep_tokens(const struct sweep *w, const struct sweep_point *p)
{
    return w->language ? p->size[0] * p->size[1] : 0;
}

double sweep_need(const struct sweep_point *p)
{
    return p->weights + p->caches + p->activations;
}

/* ---- running ---- */

/* *us as the steps of one device took it. */
static int run_once(struct session *s, double *us, struct sweep_point *p)
{
    const enum npuc_status st = npurt_run(s->run);
    if (st != NPUC_OK)
        return session_fail(s, st);
    const struct npurt_report *r = npurt_report(s->run);
    *us = r->us;
    p->weights = (double)r->weights_size;
    p->activations = (double)r->pool_size > p->activations ? (double)r->pool_size : p->activations;
    return 0;
}

static int time_prefill(struct session *s, int64_t batch, int64_t seq, double *us, struct sweep_point *p)
{
    rt_forget(s->run);
    enum npuc_status st = npurt_cache_truncate(s->run, 0);
    if (st == NPUC_OK)
        st = role_shapes(s->plan, s->run, batch, 0, seq);
    return st == NPUC_OK ? run_once(s, us, p) : session_fail(s, st);
}

/* ---- continued prefills ---- */

/* first_us = at + slope * (tokens - from) + square * batch * seq^2; below `from` with the slope `below` */
struct line {
    double at, from, slope, below, square;
};
#define ANCHORS 4
struct anchor {
    int64_t batch, seq;
    double us;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Four times as many tokens as are timed otherwise, since L2 does not hold the activations of many; half of them as
 * shorter and as fewer sequences, and those that are timed otherwise. All within the batch and seq that were asked
 * for, for which the model is known to be made. */
static void choose_anchors(const struct sweep *w, struct anchor a[ANCHORS])
{
    const int64_t most = spread_batch(w->spread, sweep_largest(w, "batch", 1)), longest = sweep_largest(w, "seq", 1);
    const int64_t seq = least(most > 1 ? 2 * w->exact : 4 * w->exact, longest);
    const int64_t batch = least(most, 4 * w->exact / seq), half = seq > 1 ? seq / 2 : 1;
    const int64_t base = least(w->exact, seq);
    a[0] = (struct anchor){batch, seq, 0};
    a[1] = (struct anchor){batch, half, 0};
    a[2] = batch > 1  ? (struct anchor){batch / 2, seq, 0}
           : most > 1 ? (struct anchor){2, half, 0}
                      : (struct anchor){1, half > 1 ? half / 2 : 1, 0};
    a[3] = (struct anchor){least(most, w->exact / base), base, 0};
}

static double squares(int64_t batch, int64_t seq)
{
    return (double)batch * (double)seq * (double)seq;
}

static double tokens_of(const struct anchor *a)
{
    return (double)(a->batch * a->seq);
}

/* Through the first three; without a part of the squares where they do not tell it, or it would be negative. */
static struct line line_of(const struct anchor a[ANCHORS])
{
    const double n = tokens_of(&a[0]), q = squares(a[0].batch, a[0].seq);
    double dn[2], dq[2], dt[2];
    for (int i = 0; i < 2; i++) {
        dn[i] = n - tokens_of(&a[i + 1]);
        dq[i] = q - squares(a[i + 1].batch, a[i + 1].seq);
        dt[i] = a[0].us - a[i + 1].us;
    }
    const double det = dn[0] * dq[1] - dn[1] * dq[0];
    struct line l = {.square = det != 0 ? (dn[0] * dt[1] - dn[1] * dt[0]) / det : 0};
    l.square = l.square > 0 ? l.square : 0;
    const int far = dn[1] > dn[0]; /* the anchor with the fewest tokens */
    l.slope = dn[far] != 0 ? (dt[far] - l.square * dq[far]) / dn[far] : 0;
    l.from = n - dn[far];
    l.at = a[far + 1].us - l.square * squares(a[far + 1].batch, a[far + 1].seq);
    const double least_us = a[3].us - l.square * squares(a[3].batch, a[3].seq), apart = l.from - tokens_of(&a[3]);
    l.below = apart > 0 ? (l.at - least_us) / apart : l.slope;
    return l;
}

static double first_of(const struct line *l, int64_t batch, int64_t seq)
{
    const double beyond = (double)(batch * seq) - l->from;
    return l->at + (beyond < 0 ? l->below : l->slope) * beyond + l->square * squares(batch, seq);
}

/* The size of the activations for sizes that are not run. */
static int place_only(struct session *s, int64_t batch, struct sweep_point *p)
{
    struct rt_map map;
    struct arena arena;
    arena_init(&arena, NULL);
    enum npuc_status st = npurt_cache_truncate(s->run, 0);
    if (st == NPUC_OK)
        st = role_shapes(s->plan, s->run, batch, 0, p->size[1]);
    if (st == NPUC_OK)
        st = rt_map(s->run, &arena, &map);
    arena_free(&arena);
    p->activations = (double)s->run->pool_size;
    return st == NPUC_OK ? 0 : session_fail(s, st);
}

static int prefill_point(const struct sweep *w, struct session *s, const struct line *l, struct sweep_point *p)
{
    const int64_t batch = spread_batch(w->spread, p->size[0]), seq = p->size[1];
    if (batch * seq <= w->exact)
        return time_prefill(s, batch, seq, &p->first_us, p);
    const int code = place_only(s, batch, p);
    rt_forget(s->run); /* the step after it begins with nothing in L2 */
    p->continued = true;
    p->first_us = first_of(l, batch, seq);
    return code;
}

/* Stages instead of the steps of one device: times, and memory of the one that needs most. `first`: the prefill's
 * steps, none when it is continued, which then takes its time as the decode step does. */
static void in_stages(const struct sweep *w, const struct session *s, const struct spread_run *first,
                      const double *cache, struct arena *a, struct sweep_point *p)
{
    const struct spread_run step = spread_run_of(w->spread, s, a);
    const struct spread_stages t = spread_divide(w->spread, &step);
    const int64_t turns = spread_turns(w->spread, p->size[0]);
    const double alone = spread_us(&step, &t, s, 1, false), all = spread_us(&step, &t, s, turns, false);
    p->step_us = spread_us(&step, &t, s, turns, true);
    p->first_us = p->continued ? p->first_us * all / alone : spread_us(first, &t, s, turns, false);
    spread_memory(&t, s, cache, &p->weights, &p->caches);
}

/* Prefill into empty caches, then one token after it. */
static int language_point(const struct sweep *w, struct session *s, const struct line *l, struct sweep_point *p)
{
    struct arena a;
    arena_init(&a, NULL);
    const int64_t batch = spread_batch(w->spread, p->size[0]), seq = p->size[1];
    int code = prefill_point(w, s, l, p);
    struct spread_run first = {0};
    if (code == 0 && !p->continued)
        first = spread_run_of(w->spread, s, &a);
    const enum npuc_status st = code == 0 ? role_shapes(s->plan, s->run, batch, seq, 1) : NPUC_OK;
    if (code == 0)
        code = st == NPUC_OK ? run_once(s, &p->step_us, p) : session_fail(s, st);
    double *cache = ARENA_ARRAY(&a, double, s->run->entry->n_caches + 1);
    for (int32_t i = 0; code == 0 && i < s->run->entry->n_caches; i++) { /* storage only ever grows: rows tell */
        const struct rt_cache *x = &s->run->caches[i];
        cache[i] =
            (double)x->outer * (double)x->inner * ((double)seq + 1) * (double)spread_turns(w->spread, p->size[0]);
        p->caches += cache[i];
    }
    if (code == 0 && w->spread->pipeline > 1)
        in_stages(w, s, &first, cache, &a, p);
    arena_free(&a);
    return code;
}

static int other_point(const struct sweep *w, struct session *s, struct sweep_point *p)
{
    for (int i = 0; i < w->n_axes; i++) {
        const enum npuc_status st = npurt_set_symbol(s->run, w->axis[i].name, p->size[i]);
        if (st != NPUC_OK)
            return session_fail(s, st);
    }
    const int code = run_once(s, &p->first_us, p);
    p->caches = (double)npurt_report(s->run)->cache_size;
    return code;
}

/* ---- all points ---- */

struct worker {
    struct session s;
    int code;
};
struct work {
    struct sweep *w;
    struct sweep_target *t;
    struct worker *workers;
    struct anchor anchor[ANCHORS];
    struct line line;
    int n_anchors;
    bool after;       /* the anchors are timed: continued prefills, else all other points */
    int64_t per_item; /* points of an item: all of a size of the first axis, so that a session sees what it knows */
    atomic_int_least64_t done;
};

static void show_progress(struct work *k, int worker)
{
    const long long done = (long long)atomic_fetch_add(&k->done, 1) + 1;
    if (worker == 0 && term_is_tty(2))
        fprintf(stderr, "\r\033[K  %s: point %lld of %lld ", k->t->name, done, (long long)k->t->points.len);
}

static void time_anchor(struct anchor *a, struct worker *me)
{
    struct sweep_point unused = {0};
    if (me->code == 0)
        me->code = time_prefill(&me->s, a->batch, a->seq, &a->us, &unused);
}

static bool is_continued(const struct sweep *w, const struct sweep_point *p)
{
    return w->language && spread_batch(w->spread, p->size[0]) * p->size[1] > w->exact;
}

/* The anchors, which take longest, then the points. */
static void time_item(void *arg, int64_t item, int worker)
{
    struct work *k = arg;
    struct worker *me = &k->workers[worker];
    if (item < k->n_anchors && !k->after) {
        time_anchor(&k->anchor[item], me);
        return;
    }
    const int64_t at = k->after ? item : item - k->n_anchors;
    const int64_t last = k->t->points.len - at * k->per_item; /* the largest sizes first */
    for (int64_t i = last - k->per_item; i < last && me->code == 0; i++) {
        struct sweep_point *p = &k->t->points.data[i];
        if (is_continued(k->w, p) != k->after)
            continue;
        show_progress(k, worker);
        rt_forget(me->s.run);
        me->code = k->w->language ? language_point(k->w, &me->s, &k->line, p) : other_point(k->w, &me->s, p);
    }
}

static void list_points(const struct sweep *w, struct sweep_target *t)
{
    const int64_t n = count_points(w);
    for (int64_t i = 0; i < n; i++) {
        struct sweep_point p = {0};
        for (int64_t k = w->n_axes, rest = i; k-- > 0; rest /= w->axis[k].sizes.len)
            p.size[k] = w->axis[k].sizes.data[rest % w->axis[k].sizes.len];
        vec_push(w->arena, &t->points, p);
    }
}

static bool any_continued(const struct sweep *w, const struct sweep_target *t)
{
    for (int64_t i = 0; i < t->points.len; i++)
        if (is_continued(w, &t->points.data[i]))
            return true;
    return false;
}

/* What does not fit is timed all the same: the report says how much is missing. */
static double lift_memory(struct session *s)
{
    const double gm = target_num(&s->run->target, TK_GM_SIZE);
    s->run->target.value[TK_GM_SIZE].number = 0x1p60;
    return gm;
}

/* The first worker has the session that the caller opened. */
static int open_workers(struct work *k, const struct session *s, int n)
{
    int code = 0;
    struct rt_known *known = n > 1 ? rt_known_new() : NULL;
    s->run->sharing = known; /* without, each works by itself */
    for (int i = 0; i < n && code == 0; i++) {
        struct worker *x = &k->workers[i];
        x->s = *s;
        if (i == 0)
            continue;
        const struct npurt_options o = {.mode = NPURT_CLOCK, .target_set = s->sets, .n_target_set = s->n_sets};
        const enum npuc_status st = npurt_session_new(s->plan, &o, &x->s.run);
        if (st != NPUC_OK)
            code = session_fail(&x->s, st);
        else
            lift_memory(&x->s);
        if (x->s.run)
            x->s.run->sharing = known;
    }
    return code;
}

static void close_workers(const struct work *k, const struct session *s, int n)
{
    for (int i = 1; i < n; i++)
        npurt_session_free(k->workers[i].s.run);
    rt_known_free(s->run->sharing);
    s->run->sharing = NULL;
}

static int run_workers(struct work *k, struct pool *pool)
{
    const int64_t n = k->t->points.len;
    const int64_t rows = k->w->n_axes > 0 ? k->w->axis[0].sizes.len : 1;
    k->per_item = rows >= pool_threads(pool) ? n / rows : 1;
    if (any_continued(k->w, k->t)) {
        choose_anchors(k->w, k->anchor);
        k->n_anchors = ANCHORS;
    }
    pool_for(pool, k->n_anchors + n / k->per_item, time_item, k);
    k->after = k->n_anchors > 0;
    if (k->after) {
        k->line = line_of(k->anchor);
        pool_for(pool, n / k->per_item, time_item, k);
    }
    if (term_is_tty(2))
        fprintf(stderr, "\r\033[K");
    int code = 0;
    for (int i = 0; i < pool_threads(pool) && code == 0; i++)
        code = k->workers[i].code;
    return code;
}

int sweep_run(struct sweep *w, struct session *s, const char *target)
{
    w->language = plan_is_language_model(s->plan);
    if (w->language && !order_axes(w)) {
        term_error("npuc estimate: language models are swept over batch and seq");
        return diag_exit_code(NPUC_E_USAGE);
    }
    struct sweep_target t = {.name = arena_strndup(w->arena, target, (int64_t)strlen(target)), .gm = lift_memory(s)};
    t.gm = w->gm > 0 ? w->gm : t.gm;
    w->gm = 0;
    list_points(w, &t);
    struct pool *pool = pool_new((int)(t.points.len < pool_processors() ? t.points.len : pool_processors()));
    const int n = pool_threads(pool);
    struct work k = {.w = w, .t = &t, .workers = ARENA_ARRAY(w->arena, struct worker, n)};
    int code = open_workers(&k, s, n);
    if (code == 0)
        code = run_workers(&k, pool);
    close_workers(&k, s, n);
    pool_free(pool);
    vec_push(w->arena, &w->targets, t);
    return code;
}
