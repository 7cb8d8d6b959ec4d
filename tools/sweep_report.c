/* The results of a sweep as a table, JSON, CSV, and the page around the plots of sweep_plot.c. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "tools/sweep.h"
#include "tools/table.h"
#include "tools/term.h"

static double per_second(double n, double us)
{
    return us > 0 ? 1e6 * n / us : 0;
}

static double missing(const struct sweep_target *t, const struct sweep_point *p)
{
    return t->gm > 0 && sweep_need(p) > t->gm ? sweep_need(p) - t->gm : 0;
}

/* ---- table ---- */

static void put(struct table *t, const char *fmt, ...) NPUC_PRINTF(2, 3);
static void put(struct table *t, const char *fmt, ...)
{
    char text[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    table_put(t, arena_strndup(t->arena, text, (int64_t)strlen(text)));
}

static void put_head(struct table *t, const struct sweep *w)
{
    static const char *const language[] = {"first token ms", "prefill tok/s", "step ms", "tok/s", NULL};
    static const char *const other[] = {"call ms", "per s", NULL};
    table_put(t, "target");
    for (int i = 0; i < w->n_axes; i++)
        table_put(t, w->axis[i].name);
    for (const char *const *s = w->language ? language : other; *s; s++)
        table_put(t, *s);
    table_put(t, spread_is_one(w->spread) ? "memory" : "memory per device");
    table_put(t, "");
}

static void put_row(struct table *t, const struct sweep *w, const struct sweep_target *x, const struct sweep_point *p)
{
    char bytes[BYTES_TEXT];
    const double batch = (double)sweep_batch(w, p), over = missing(x, p);
    table_put(t, x->name);
    for (int i = 0; i < w->n_axes; i++)
        put(t, "%" PRId64, p->size[i]);
    put(t, "%s%.3f", p->continued ? "~" : "", 1e-3 * p->first_us);
    put(t, "%.0f", per_second(w->language ? (double)sweep_tokens(w, p) : batch, p->first_us));
    if (w->language) {
        put(t, "%.3f", 1e-3 * p->step_us);
        put(t, "%.1f", per_second(batch, p->step_us));
    }
    put(t, "%s", bytes_text(bytes, sweep_need(p)));
    if (over > 0)
        put(t, "does not fit: %s too much", bytes_text(bytes, over));
    else
        table_put(t, "");
}

/* How many devices the figures are of, and what stays whole on each of them. */
static void spread_lines(const struct sweep *w)
{
    if (spread_is_one(w->spread))
        return;
    printf("%s: one device of them is emulated, its links are calculated\n", spread_text(w->spread, w->arena));
    for (int64_t i = 0; i < w->spread->division.notes.len; i++)
        printf("note: %s\n", w->spread->division.notes.data[i]);
}

void sweep_table(const struct sweep *w)
{
    struct table t;
    char align[3 + SWEEP_AXES + 5] = "l";
    const int n = w->n_axes + (w->language ? 4 : 2) + 1;
    memset(align + 1, 'r', (size_t)n);
    align[n + 1] = 'l';
    table_init(&t, w->arena, align);
    put_head(&t, w);
    for (int64_t i = 0; i < w->targets.len; i++)
        for (int64_t k = 0; k < w->targets.data[i].points.len; k++)
            put_row(&t, w, &w->targets.data[i], &w->targets.data[i].points.data[k]);
    table_text(&t, stdout);
    spread_lines(w);
}

/* ---- JSON, CSV ---- */

/* The figures of a point, one row: name, value. Sizes and the target come before them. */
struct figure {
    const char *name;
    double value;
};
#define FIGURES 10
static int figures_of(const struct sweep *w, const struct sweep_target *t, const struct sweep_point *p,
                      struct figure out[FIGURES])
{
    int n = 0;
    const double batch = (double)sweep_batch(w, p);
    if (w->language) {
        out[n++] = (struct figure){"time_to_first_token_us", p->first_us};
        out[n++] = (struct figure){"prefill_tokens_per_s", per_second((double)sweep_tokens(w, p), p->first_us)};
        out[n++] = (struct figure){"decode_us_per_step", p->step_us};
        out[n++] = (struct figure){"tokens_per_s", per_second(batch, p->step_us)};
    } else {
        out[n++] = (struct figure){"call_us", p->first_us};
    }
    out[n++] = (struct figure){"weights_bytes", p->weights};
    out[n++] = (struct figure){"cache_bytes", p->caches};
    out[n++] = (struct figure){"activation_bytes", p->activations};
    out[n++] = (struct figure){"memory_bytes", sweep_need(p)};
    out[n++] = (struct figure){"missing_bytes", missing(t, p)};
    return n;
}

json_t *sweep_json(const struct sweep *w)
{
    json_t *all = json_object(), *points = json_array();
    for (int64_t i = 0; i < w->targets.len; i++)
        for (int64_t k = 0; k < w->targets.data[i].points.len; k++) {
            const struct sweep_point *p = &w->targets.data[i].points.data[k];
            struct figure figure[FIGURES];
            const int n = figures_of(w, &w->targets.data[i], p, figure);
            json_t *j = json_object();
            json_put(j, "target", json_text(w->targets.data[i].name));
            for (int x = 0; x < w->n_axes; x++)
                json_put(j, w->axis[x].name, json_integer(p->size[x]));
            for (int f = 0; f < n; f++)
                json_put(j, figure[f].name, json_real(figure[f].value));
            if (w->language)
                json_put(j, "continued", json_boolean(p->continued));
            if (!spread_is_one(w->spread))
                json_put(j, "spread", spread_json(w->spread));
            json_put(j, "fits", json_boolean(missing(&w->targets.data[i], p) == 0));
            json_array_append_new(points, j);
        }
    json_put(all, "model", json_text(w->model));
    json_put(all, "host_seconds", json_real(w->seconds));
    json_put(all, "points", points);
    return all;
}

static void write_csv(const struct sweep *w, FILE *f)
{
    const struct spread *s = w->spread;
    for (int64_t i = 0; i < w->targets.len; i++)
        for (int64_t k = 0; k < w->targets.data[i].points.len; k++) {
            const struct sweep_point *p = &w->targets.data[i].points.data[k];
            struct figure figure[FIGURES];
            const int n = figures_of(w, &w->targets.data[i], p, figure);
            if (i == 0 && k == 0) {
                fprintf(f, "target");
                for (int x = 0; x < w->n_axes; x++)
                    fprintf(f, ",%s", w->axis[x].name);
                for (int c = 0; c < n; c++)
                    fprintf(f, ",%s", figure[c].name);
                fprintf(f, spread_is_one(s) ? "\n"
                                            : ",devices,tensor_parallel,expert_parallel,pipeline_parallel,modelled\n");
            }
            fprintf(f, "%s", w->targets.data[i].name);
            for (int x = 0; x < w->n_axes; x++)
                fprintf(f, ",%" PRId64, p->size[x]);
            for (int c = 0; c < n; c++)
                fprintf(f, ",%.12g", figure[c].value);
            if (!spread_is_one(s))
                fprintf(f, ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",yes", s->devices, s->tensor, s->expert,
                        s->pipeline);
            fprintf(f, "\n");
        }
}

/* ---- the page ---- */

void sweep_escape(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (*s == '<' || *s == '>' || *s == '&' || *s == '"')
            fprintf(f, "&#%d;", *s);
        else
            fputc((unsigned char)*s < 0x20 ? ' ' : *s, f);
    }
}

static void html_rows(const struct sweep *w, FILE *f)
{
    for (int64_t i = 0; i < w->targets.len; i++)
        for (int64_t k = 0; k < w->targets.data[i].points.len; k++) {
            const struct sweep_target *t = &w->targets.data[i];
            const struct sweep_point *p = &t->points.data[k];
            char bytes[BYTES_TEXT];
            fprintf(f, "<tr><td>");
            sweep_escape(f, t->name);
            for (int x = 0; x < w->n_axes; x++)
                fprintf(f, "<td>%" PRId64, p->size[x]);
            fprintf(f, "<td>%s%.3f", p->continued ? "~" : "", 1e-3 * p->first_us);
            if (w->language)
                fprintf(f, "<td>%.3f<td>%.1f", 1e-3 * p->step_us, per_second((double)sweep_batch(w, p), p->step_us));
            fprintf(f, "<td>%s", bytes_text(bytes, sweep_need(p)));
            fprintf(f, "<td>%s\n", missing(t, p) > 0 ? bytes_text(bytes, missing(t, p)) : "");
        }
}

static void write_html(const struct sweep *w, FILE *f)
{
    fprintf(f, "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>npuc estimate: ");
    sweep_escape(f, w->model);
    fprintf(f, "</title>\n<style>\n:root{color-scheme:light dark}\n"
               "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem}\n"
               "table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%%}\n"
               "th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #8884}\n"
               "th:first-child,td:first-child{text-align:left}\nsvg{width:100%%;height:auto}\n</style>\n<h1>");
    sweep_escape(f, w->model);
    fprintf(f, "</h1>\n<p>Estimated by npuc on emulated cores; no hardware was measured. Times with ~ are "
               "continued from shorter prefills.</p>\n");
    if (!spread_is_one(w->spread))
        fprintf(f,
                "<p>%s: one device of them is emulated, its links are calculated. Memory is that of one device.</p>\n",
                spread_text(w->spread, w->arena));
    sweep_svg(w, f);
    fprintf(f, "<table><thead><tr><th>target");
    for (int x = 0; x < w->n_axes; x++) {
        fprintf(f, "<th>");
        sweep_escape(f, w->axis[x].name);
    }
    fprintf(f, "%s<th>memory<th>too much</thead>\n",
            w->language ? "<th>first token ms<th>step ms<th>tokens/s" : "<th>call ms");
    html_rows(w, f);
    fprintf(f, "</table></html>\n");
}

static void write_svg(const struct sweep *w, FILE *f)
{
    fprintf(f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    sweep_svg(w, f);
}

bool sweep_files(const struct sweep *w, const struct args *a, int *exit_code)
{
    static const struct {
        const char *option;
        void (*write)(const struct sweep *w, FILE *f);
    } kinds[] = {{"csv", write_csv}, {"html", write_html}, {"svg", write_svg}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(kinds); i++) {
        const char *path = args_value(a, kinds[i].option);
        FILE *f = path ? fopen(path, "wb") : NULL;
        if (!path)
            continue;
        if (f)
            kinds[i].write(w, f);
        const bool failed = !f || ferror(f);
        if ((f && fclose(f) != 0) || failed) {
            term_error("%s: cannot write", path);
            *exit_code = diag_exit_code(NPUC_E_IO);
            return false;
        }
    }
    return true;
}
