/* Plots of a sweep as SVG: per target a row of panels, times over the last axis with a line per combination of the
 * other sizes, both axes logarithmic. */
#include <inttypes.h>
#include <math.h>

#include "tools/sweep.h"

enum { WIDE = 460, HIGH = 260, LEFT = 64, TOP = 34, RIGHT = 78, BOTTOM = 34, GAP = 20 };

struct panel {
    const struct sweep *w;
    const struct sweep_target *t;
    FILE *f;
    int x, y; /* of the plotting area */
    double low[2], high[2];
    double (*value)(const struct sweep *w, const struct sweep_point *p);
};

static double first_ms(const struct sweep *w, const struct sweep_point *p)
{
    (void)w;
    return 1e-3 * p->first_us;
}

static double tokens_per_s(const struct sweep *w, const struct sweep_point *p)
{
    return p->step_us > 0 ? 1e6 * (double)sweep_batch(w, p) / p->step_us : 0;
}

static int64_t last_size(const struct panel *q, const struct sweep_point *p)
{
    return q->w->n_axes > 0 ? p->size[q->w->n_axes - 1] : 1;
}

static void widen(struct panel *q, int axis, double v)
{
    if (!(v > 0))
        return;
    q->low[axis] = v < q->low[axis] ? v : q->low[axis];
    q->high[axis] = v > q->high[axis] ? v : q->high[axis];
}

static double place(const struct panel *q, int axis, double v)
{
    const double low = log(q->low[axis]), span = log(q->high[axis]) - low;
    const double part = span > 0 ? (log(v) - low) / span : 0.5;
    return axis == 0 ? q->x + part * (WIDE - LEFT - RIGHT) : q->y + (1 - part) * (HIGH - TOP - BOTTOM);
}

/* Powers of ten on the vertical axis, the sizes on the horizontal one. */
static void draw_frame(const struct panel *q, const char *title)
{
    const int w = WIDE - LEFT - RIGHT, h = HIGH - TOP - BOTTOM;
    fprintf(q->f, "<text x=\"%d\" y=\"%d\" font-weight=\"600\">", q->x, q->y - 14);
    sweep_escape(q->f, q->t->name);
    if (!spread_is_one(q->w->spread))
        fprintf(q->f, ", %s", spread_text(q->w->spread, q->w->arena));
    fprintf(q->f, ": %s</text>\n", title);
    for (double v = pow(10, floor(log10(q->low[1]))); v <= q->high[1]; v *= 10)
        for (int k = 1; k < 10; k += k == 1 ? 1 : k == 2 ? 3 : 5) {
            const double tick = k * v, at = place(q, 1, tick);
            if (tick < q->low[1] || tick > q->high[1])
                continue;
            fprintf(q->f, "<path d=\"M%d %.1fh%d\" stroke-opacity=\".15\"/>", q->x, at, w);
            fprintf(q->f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", q->x - 6, at + 4, tick);
        }
    fprintf(q->f, "<path d=\"M%d %dv%dh%d\" stroke-opacity=\".6\"/>\n", q->x, q->y, h, w);
    if (q->w->n_axes == 0)
        return;
    const struct sweep_axis *last = &q->w->axis[q->w->n_axes - 1];
    for (int64_t i = 0; i < last->sizes.len; i++)
        fprintf(q->f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%" PRId64 "</text>\n",
                place(q, 0, (double)last->sizes.data[i]), q->y + h + 16, last->sizes.data[i]);
    fprintf(q->f, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", q->x + w / 2, q->y + h + 30);
    sweep_escape(q->f, last->name);
    fprintf(q->f, "</text>\n");
}

/* Points [from, to) are one line; their name stands at its end. */
static void draw_line(const struct panel *q, int64_t from, int64_t to, int64_t number)
{
    const struct sweep_point *p = q->t->points.data;
    const int hue = (int)(number * 67 % 360);
    fprintf(q->f, "<g stroke=\"hsl(%d 65%% 48%%)\" fill=\"none\"><path stroke-width=\"2\" d=\"", hue);
    for (int64_t i = from; i < to; i++)
        fprintf(q->f, "%s%.1f %.1f", i > from ? "L" : "M", place(q, 0, (double)last_size(q, &p[i])),
                place(q, 1, q->value(q->w, &p[i])));
    fprintf(q->f, "\"/>\n");
    for (int64_t i = from; i < to; i++) {
        const bool fits = q->t->gm <= 0 || sweep_need(&p[i]) <= q->t->gm;
        fprintf(q->f,
                "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"><title>%" PRId64 ": %.4g%s</title></circle>\n",
                place(q, 0, (double)last_size(q, &p[i])), place(q, 1, q->value(q->w, &p[i])),
                fits ? "currentColor" : "none", last_size(q, &p[i]), q->value(q->w, &p[i]),
                fits ? "" : " (does not fit the memory)");
    }
    fprintf(q->f, "</g><text x=\"%d\" y=\"%.1f\">", WIDE - LEFT - RIGHT + q->x + 8,
            place(q, 1, q->value(q->w, &p[to - 1])) + 4);
    for (int i = 0; i + 1 < q->w->n_axes; i++) {
        sweep_escape(q->f, q->w->axis[i].name);
        fprintf(q->f, " %" PRId64 " ", p[from].size[i]);
    }
    fprintf(q->f, "</text>\n");
}

static void draw_panel(struct panel *q, const char *title)
{
    const int64_t n = q->t->points.len;
    const int64_t per = q->w->n_axes > 0 ? q->w->axis[q->w->n_axes - 1].sizes.len : 1;
    for (int i = 0; i < 2; i++) {
        q->low[i] = 1e300;
        q->high[i] = 0;
    }
    for (int64_t i = 0; i < n; i++) {
        widen(q, 0, (double)last_size(q, &q->t->points.data[i]));
        widen(q, 1, q->value(q->w, &q->t->points.data[i]));
    }
    if (n == 0 || q->high[1] <= 0)
        return;
    q->low[1] /= 1.3;
    q->high[1] *= 1.3;
    draw_frame(q, title);
    for (int64_t i = 0; i < n; i += per)
        draw_line(q, i, i + per, i / per);
}

void sweep_svg(const struct sweep *w, FILE *f)
{
    static const struct {
        const char *title;
        double (*value)(const struct sweep *w, const struct sweep_point *p);
        bool language;
    } panels[] = {{"ms to the first token", first_ms, true},
                  {"tokens/s, all sequences", tokens_per_s, true},
                  {"ms per call", first_ms, false}};
    int columns = w->language ? 2 : 1, column = 0;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"system-ui,sans-serif\" "
            "font-size=\"11\" stroke-width=\"1\">\n<style>svg{color:#222;background:#fff}text{fill:currentColor}"
            "path{stroke:currentColor;fill:none}g path,g circle{stroke:inherit}"
            "@media(prefers-color-scheme:dark){svg{color:#ddd;background:#161616}}</style>\n",
            columns * WIDE + GAP, (int)w->targets.len * HIGH + GAP);
    for (int64_t i = 0; i < w->targets.len; i++) {
        column = 0;
        for (int64_t k = 0; k < NPUC_ARRAY_LEN(panels); k++) {
            struct panel q = {.w = w,
                              .t = &w->targets.data[i],
                              .f = f,
                              .x = column * WIDE + LEFT,
                              .y = (int)i * HIGH + TOP,
                              .value = panels[k].value};
            if (panels[k].language != w->language)
                continue;
            draw_panel(&q, panels[k].title);
            column++;
        }
    }
    fprintf(f, "</svg>\n");
}
