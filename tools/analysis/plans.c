#include "tools/analysis/plans.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/distance.h"
#include "tools/json.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/term.h"

static bool run_plan(struct session *s, struct args *a, const char *path, int *exit_code)
{
    struct diag d;
    diag_init(&d, term_diag, NULL);
    if (!session_open(s, a, path, NPURT_DATA, exit_code) || !session_inputs(s, a, &d, exit_code))
        return false;
    const enum npuc_status st = npurt_run(s->run);
    if (st != NPUC_OK)
        *exit_code = session_fail(s, st);
    return st == NPUC_OK;
}

/* False when there is none of this name, or no tensor of numbers. */
static bool take(const struct session *s, const char *name, struct k_tensor *out)
{
    struct npurt_tensor t;
    if (npurt_output(s->run, name, &t) != NPUC_OK || t.kind != NPURT_TENSOR || !t.data)
        return false;
    *out = (struct k_tensor){.dtype = dtype_from_onnx(t.dtype), .rank = t.rank, .size = t.size};
    out->data = (void *)(uintptr_t)t.data;
    memcpy(out->dims, t.dims, sizeof *out->dims * (size_t)t.rank);
    return out->dtype != DT_STRING && out->dtype != DT_NONE;
}

/* Does the output say the same in both? NULL: it was measured; else why not. */
static const char *measure(const struct session *x, const struct session *y, const char *name, struct metric_error *e)
{
    struct k_tensor a, b;
    if (!take(x, name, &a))
        return "no tensor of numbers";
    if (!take(y, name, &b))
        return "the other plan has no such output";
    return metric_add(e, &a, &b) ? NULL : "the other plan gives another shape";
}

static void put_row(struct table *t, struct arena *a, const char *name, const struct metric_error *e, const char *why)
{
    const double db = metric_sqnr(e);
    table_put(t, name);
    table_put(t, why ? why : isfinite(db) ? arena_printf(a, "%.1f", db) : "equal");
    table_put(t, why ? "" : arena_printf(a, "%.9f", metric_cosine(e)));
    table_put(t, why ? "" : arena_printf(a, "%.3g", metric_mse(e)));
    table_put(t, why ? "" : arena_printf(a, "%.3g", e->most));
    table_put(t, e->bad > 0 ? arena_printf(a, "%lld not finite", (long long)e->bad) : "");
}

static json_t *row_json(const char *name, const struct metric_error *e, const char *why)
{
    json_t *j = json_object();
    json_put(j, "name", json_text(name));
    if (why) {
        json_put(j, "why_not", json_text(why));
        return j;
    }
    json_put(j, "sqnr_db", json_number(metric_sqnr(e)));
    json_put(j, "cosine", json_number(metric_cosine(e)));
    json_put(j, "mse", json_number(metric_mse(e)));
    json_put(j, "max_error", json_number(e->most));
    json_put(j, "not_finite", json_integer(e->bad));
    return j;
}

static void compare_outputs(struct args *a, const struct session *x, const struct session *y)
{
    static const char *const heads[] = {"output", "dB", "cosine", "mean square", "max error", ""};
    struct table t;
    json_t *list = json_array();
    table_init(&t, &a->arena, "lrrrrl");
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(heads); i++)
        table_put(&t, heads[i]);
    for (int i = 0; i < npurt_plan_outputs(x->plan); i++) {
        const char *name = npurt_plan_output(x->plan, i)->name;
        struct metric_error e = {0};
        const char *why = measure(x, y, name, &e);
        put_row(&t, &a->arena, name, &e, why);
        json_array_append_new(list, row_json(name, &e, why));
    }
    if (args_flag(a, "json"))
        print_json(json_pack("{s:O}", "outputs", list));
    else
        table_text(&t, stdout);
    json_decref(list);
}

int plans_compare(struct args *a)
{
    struct session x = {0}, y = {0};
    int code = 0;
    if (run_plan(&x, a, a->words.data[0], &code) && run_plan(&y, a, a->words.data[1], &code))
        compare_outputs(a, &x, &y);
    session_close(&x);
    session_close(&y);
    return code;
}
