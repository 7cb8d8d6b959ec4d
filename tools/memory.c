#include "tools/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/names.h"
#include "runtime/rt.h"
#include "tools/json.h"
#include "tools/session.h"
#include "tools/table.h"

#define BAR_WIDTH   48
#define GRAPH_ROWS  24
#define MAX_WEIGHTS 8 /* rows of the table; JSON has all */

struct level { /* a memory on chip */
    int64_t used, size;
    const char *kernel;
};
struct view {
    struct arena *a;
    struct session *s;
    struct rt_map map;
    struct level level[TS_COUNT];
    int64_t n_steps, *live; /* bytes of temporaries, inputs and outputs while a step runs */
};

static const char *const kinds[PLAN_TENSOR_KINDS] = {[PT_WEIGHT] = "weight",
                                                     [PT_INPUT] = "input",
                                                     [PT_OUTPUT] = "output",
                                                     [PT_TEMP] = "temporary",
                                                     [PT_CACHE] = "cache"};

static const struct plan_tensor *tensor_of(const struct view *v, const struct rt_place *p)
{
    return &v->s->run->plan->tensors.data[p->tensor];
}

static const char *name_of(const struct view *v, sym name)
{
    const struct strtab *t = &v->s->run->plan->strings;
    return str_escape(v->a, str_text(t, name), str_len(t, name), 60);
}

/* ---- gathering ---- */

static void note_kernel(struct view *v, const struct tile_kernel *k)
{
    for (int c = 0; c < TCORE_COUNT; c++) {
        int64_t used[TS_COUNT] = {0};
        for (int64_t b = 0; k->has[c] && b < k->section[c].bufs.len; b++) {
            const struct tile_buf *buf = &k->section[c].bufs.data[b];
            const int64_t end = buf->base + buf->slots * buf->slot_size;
            used[buf->space] = end > used[buf->space] ? end : used[buf->space];
        }
        for (int i = 0; i < TS_COUNT; i++)
            if (used[i] > v->level[i].used) {
                v->level[i].used = used[i];
                v->level[i].kernel = name_of(v, k->name);
            }
    }
}

static void note_levels(struct view *v)
{
    static const enum target_key sizes[TS_COUNT] = {
        [TS_L1] = TK_L1_SIZE,   [TS_L0A] = TK_L0A_SIZE, [TS_L0B] = TK_L0B_SIZE,
        [TS_L0C] = TK_L0C_SIZE, [TS_BT] = TK_BT_SIZE,   [TS_UB] = TK_UB_SIZE};
    const struct npurt_session *s = v->s->run;
    for (int i = TS_GM + 1; i < TS_COUNT; i++)
        v->level[i].size = (int64_t)target_num(&s->target, sizes[i]);
    for (int32_t i = 0; i < s->entry->n_steps; i++) {
        const struct plan_step *step = &s->plan->steps.data[s->entry->first_step + i];
        if (step->kind == PS_LAUNCH)
            note_kernel(v, s->plan->kernels.data[step->kernel]);
    }
}

static void note_lives(struct view *v)
{
    v->n_steps = v->s->run->entry->n_steps;
    v->live = ARENA_ARRAY(v->a, int64_t, v->n_steps + 1);
    for (int64_t i = 0; i < v->map.n; i++) {
        const struct rt_place *p = &v->map.places[i];
        const uint8_t kind = tensor_of(v, p)->kind;
        if (kind == PT_WEIGHT || kind == PT_CACHE)
            continue;
        for (int64_t k = p->first; k <= p->last && k < v->n_steps; k++)
            v->live[k] += p->size;
    }
}

static double over_bound(const struct npurt_session *s)
{
    return s->pool_lower_bound > 0 ? (double)s->pool_size / (double)s->pool_lower_bound - 1 : 0;
}

static int64_t caches_of(const struct npurt_session *s)
{
    int64_t n = 0;
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        n += s->caches[i].size;
    return n;
}

/* ---- text ---- */

static const char *bytes(const struct view *v, int64_t n)
{
    char buf[BYTES_TEXT];
    return arena_printf(v->a, "%s", bytes_text(buf, (double)n));
}

/* What caches of sliding windows have, and what whole ones would. */
static void print_rings(const struct view *v)
{
    const struct npurt_session *s = v->s->run;
    int64_t have = 0, n = 0;
    double whole = 0;
    for (int32_t i = 0; i < s->entry->n_caches; i++)
        if (s->entry->caches[i].ring) {
            n++;
            have += s->caches[i].size;
            whole += (double)s->caches[i].size / (double)s->caches[i].ring * (double)s->caches[i].capacity;
        }
    if (n > 0)
        printf("rings          %lld caches keep the rows of their sliding windows: %s instead of %s\n", (long long)n,
               bytes(v, have), bytes(v, (int64_t)whole));
}

static void print_totals(const struct view *v)
{
    const struct npurt_session *s = v->s->run;
    const struct tile_names *names = tile_names_of(s->target.family);
    printf("global memory  %s of %s: weights %s, caches %s, activations %s (at least %s are live at once, %+.1f %%)\n",
           bytes(v, s->weights_size + caches_of(s) + s->pool_size),
           bytes(v, (int64_t)target_num(&s->target, TK_GM_SIZE)), bytes(v, s->weights_size), bytes(v, caches_of(s)),
           bytes(v, s->pool_size), bytes(v, s->pool_lower_bound), 100 * over_bound(s));
    if (s->pages.page > 0)
        printf("pages          %lld of %lld rows for each cache, for %lld sequences of up to %lld pages\n",
               (long long)s->pages.total - 1, (long long)s->pages.page, (long long)s->pages.sequences,
               (long long)s->pages.width);
    print_rings(v);
    for (int i = TS_GM + 1; i < TS_COUNT; i++)
        if (v->level[i].used > 0)
            printf("%-14s %s of %s a core, in %s\n", names->space[i], bytes(v, v->level[i].used),
                   bytes(v, v->level[i].size), v->level[i].kernel);
}

static void put_place(struct table *t, const struct view *v, const struct rt_place *p)
{
    const struct plan_tensor *x = tensor_of(v, p);
    const bool stays = x->kind == PT_WEIGHT || x->kind == PT_CACHE;
    table_put(t, arena_printf(v->a, "%lld", (long long)p->address));
    table_put(t, bytes(v, p->size));
    table_put(t, kinds[x->kind]);
    table_put(t, stays ? "always" : arena_printf(v->a, "%d..%d", p->first, p->last));
    table_put(t, name_of(v, x->name));
}

static void print_places(const struct view *v)
{
    static const char *const head[] = {"offset", "size", "what", "steps", "tensor"};
    struct table t;
    int64_t weights = 0, left = 0, left_size = 0;
    table_init(&t, v->a, "rrlll");
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(head); i++)
        table_put(&t, head[i]);
    for (int64_t i = 0; i < v->map.n; i++) {
        const struct rt_place *p = &v->map.places[i];
        if (tensor_of(v, p)->kind == PT_WEIGHT && weights++ >= MAX_WEIGHTS) {
            left++;
            left_size += p->size;
            continue;
        }
        put_place(&t, v, p);
    }
    table_text(&t, stdout);
    if (left)
        printf("and %lld more weights of %s (--json lists them)\n", (long long)left, bytes(v, left_size));
}

/* Live bytes over the steps; several steps share a row when there are many, the row shows the most of them. */
static void print_graph(const struct view *v)
{
    const struct npurt_session *s = v->s->run;
    const int64_t per_row = (v->n_steps + GRAPH_ROWS - 1) / GRAPH_ROWS;
    for (int64_t i = 0; i < v->n_steps; i += per_row) {
        int64_t at = i;
        for (int64_t k = i; k < i + per_row && k < v->n_steps; k++)
            at = v->live[k] > v->live[at] ? k : at;
        const struct plan_step *step = &s->plan->steps.data[s->entry->first_step + at];
        const int64_t n = s->pool_size > 0 ? v->live[at] * BAR_WIDTH / s->pool_size : 0;
        printf("step %4lld %-10s ", (long long)at, bytes(v, v->live[at]));
        for (int64_t k = 0; k < BAR_WIDTH; k++)
            putchar(k < n ? '#' : '.');
        printf(" %s\n", name_of(v, step->op));
    }
}

/* ---- JSON ---- */

static json_t *place_json(const struct view *v, const struct rt_place *p)
{
    const struct plan_tensor *x = tensor_of(v, p);
    json_t *j = json_object();
    json_put(j, "tensor", json_text(str_text(&v->s->run->plan->strings, x->name)));
    json_put(j, "kind", json_text(kinds[x->kind]));
    json_put(j, "offset", json_integer(p->address));
    json_put(j, "size", json_integer(p->size));
    json_put(j, "first_step", json_integer(p->first));
    json_put(j, "last_step", json_integer(p->last));
    return j;
}

static void put_json(const struct view *v)
{
    const struct npurt_session *s = v->s->run;
    json_t *j = json_object(), *places = json_array(), *levels = json_object(), *live = json_array();
    for (int64_t i = 0; i < v->map.n; i++)
        json_array_append_new(places, place_json(v, &v->map.places[i]));
    for (int i = TS_GM + 1; i < TS_COUNT; i++) {
        json_t *level = json_object();
        json_put(level, "used", json_integer(v->level[i].used));
        json_put(level, "size", json_integer(v->level[i].size));
        json_put(level, "kernel", json_text(v->level[i].kernel));
        json_put(levels, npurt_space_name(i), level);
    }
    for (int64_t i = 0; i < v->n_steps; i++)
        json_array_append_new(live, json_integer(v->live[i]));
    json_put(j, "gm_size", json_integer((int64_t)target_num(&s->target, TK_GM_SIZE)));
    json_put(j, "weights_bytes", json_integer(s->weights_size));
    json_put(j, "cache_bytes", json_integer(caches_of(s)));
    json_put(j, "activation_bytes", json_integer(s->pool_size));
    json_put(j, "activation_lower_bound", json_integer(s->pool_lower_bound));
    json_put(j, "fragmentation", json_real(over_bound(s)));
    json_put(j, "on_chip", levels);
    json_put(j, "live_bytes", live);
    json_put(j, "places", places);
    print_json(j);
}

int memory_map(const char *plan, const struct args *a, bool json)
{
    struct session s;
    struct view v = {.a = (struct arena *)(uintptr_t)&a->arena, .s = &s};
    int code = 0;
    if (session_open(&s, a, plan, NPURT_CLOCK, &code) && session_dims(&s, a, &code)) {
        const enum npuc_status st = rt_map(s.run, v.a, &v.map);
        if (st != NPUC_OK) {
            code = session_fail(&s, st);
        } else {
            note_levels(&v);
            note_lives(&v);
            if (json) {
                put_json(&v);
            } else {
                print_totals(&v);
                print_places(&v);
                print_graph(&v);
            }
        }
    }
    session_close(&s);
    return code;
}
