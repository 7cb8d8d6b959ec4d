#include "tools/report.h"

#include <stdlib.h>
#include <string.h>

#include "tools/json.h"
#include "tools/table.h"

enum { S, MTE2, MTE3, MTE1, M, FIX, V }; /* ORDER(unit), as npurt_unit_name */
#define MAX_ROWS 24
#define NAME_LEN 34

/* Steps with the same operator and kernel are one row. */
struct row {
    const char *op, *kernel, *first_node, *bound_by, *reason;
    int64_t count;
    int n_nodes, host;
    double us, cycles;
    double busy[NPURT_CORES][NPURT_UNITS], core_cycles[NPURT_CORES];
    int64_t gm_read;
};

static int same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static struct row *find_row(struct row *rows, int64_t *n, const struct npurt_step *s)
{
    for (int64_t i = 0; i < *n; i++)
        if (same(rows[i].op, s->op) && same(rows[i].kernel, s->kernel) && rows[i].host == s->host)
            return &rows[i];
    struct row *r = &rows[(*n)++];
    *r = (struct row){.op = s->op,
                      .kernel = s->kernel,
                      .host = s->host,
                      .bound_by = s->bound_by,
                      .reason = s->reason,
                      .first_node = s->n_nodes ? s->nodes[0] : "",
                      .n_nodes = s->n_nodes};
    return r;
}

static void add_step(struct row *r, const struct npurt_step *s)
{
    r->count += s->count;
    r->us += s->us;
    r->cycles += s->cycles;
    r->gm_read += s->gm_read;
    for (int c = 0; c < NPURT_CORES; c++) {
        r->core_cycles[c] += s->cycles * s->cores[c];
        for (int u = 0; u < NPURT_UNITS; u++)
            r->busy[c][u] += s->busy[c][u];
    }
}

static int by_time(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return x->us < y->us ? 1 : x->us > y->us ? -1 : strcmp(x->op ? x->op : "", y->op ? y->op : "");
}

/* Busy share of a unit in per cent: of the core kind that has it (matrix units: cube cores; V and MTE3: vector cores),
 * or of the one that runs the kernel. */
static double share(const struct row *r, int unit)
{
    int core = unit == V || unit == MTE3 ? 1 : 0;
    if (r->core_cycles[core] <= 0)
        core = 1 - core;
    return r->core_cycles[core] > 0 ? 100.0 * r->busy[core][unit] / r->core_cycles[core] : 0.0;
}

static void print_row(FILE *f, const struct row *r)
{
    char name[80], from[80], read[BYTES_TEXT];
    snprintf(name, sizeof name, "%s%s%s", r->op ? r->op : "?", r->kernel ? " " : "",
             r->kernel ? r->kernel
             : r->host ? " (host)"
                       : "");
    if (r->count > 1 || r->n_nodes > 1)
        snprintf(from, sizeof from, "%.*s", 26, r->first_node);
    else
        snprintf(from, sizeof from, "%.*s", 30, r->first_node);
    fprintf(f, "%-*.*s %5lld  %-30.30s %9.2f %10.0f", NAME_LEN, NAME_LEN, name, (long long)r->count, from, r->us,
            r->cycles);
    if (same(r->bound_by, "link"))
        fprintf(f, "  over the links to other devices: modelled\n");
    else if (r->host)
        fprintf(f, "  host: %s\n", r->reason && r->reason[0] ? r->reason : "sizes of tensors, when shapes are bound");
    else
        fprintf(f, " %4.0f%% %4.0f%% %4.0f%% %4.0f%%  %-8s %10s\n", share(r, M), share(r, V), share(r, MTE2),
                share(r, FIX), r->bound_by ? r->bound_by : "", bytes_text(read, (double)r->gm_read));
}

/* Bytes per path between memories, those that are used. */
static void print_paths(FILE *f, const struct npurt_report *r)
{
    int64_t hit = 0, miss = 0;
    char buf[BYTES_TEXT];
    fprintf(f, "bytes      ");
    for (int from = 0; from < NPURT_SPACES; from++)
        for (int to = 0; to < NPURT_SPACES; to++) {
            int64_t sum = 0;
            for (int64_t i = 0; i < r->n_steps; i++)
                sum += r->steps[i].bytes[from][to];
            if (sum > 0)
                fprintf(f, " %s>%s %s ", r->space_names[from], r->space_names[to], bytes_text(buf, (double)sum));
        }
    for (int64_t i = 0; i < r->n_steps; i++) {
        hit += r->steps[i].l2_hit;
        miss += r->steps[i].l2_miss;
    }
    fprintf(f, " L2 hits %.0f %%\n", hit + miss > 0 ? 100.0 * (double)hit / (double)(hit + miss) : 0.0);
}

/* Share of the cores' time, launches left out, in which a unit works. */
static void print_busy(FILE *f, const struct npurt_report *r)
{
    double total[NPURT_CORES] = {0}, busy[NPURT_CORES][NPURT_UNITS] = {{0}};
    for (int64_t i = 0; i < r->n_steps; i++) {
        const struct npurt_step *s = &r->steps[i];
        double work = s->us > 0 ? s->cycles * (s->us - s->launch_us) / s->us : 0;
        for (int c = 0; c < NPURT_CORES; c++) {
            total[c] += work * s->cores[c];
            for (int u = 0; u < NPURT_UNITS; u++)
                busy[c][u] += s->busy[c][u];
        }
    }
    fprintf(f, "busy       ");
    for (int c = 0; c < NPURT_CORES; c++) {
        if (total[c] <= 0)
            continue;
        fprintf(f, " %s cores:", r->core_names[c]);
        for (int u = 0; u < NPURT_UNITS; u++)
            if (busy[c][u] > 0)
                fprintf(f, " %s %.0f %%", r->unit_names[u], 100.0 * busy[c][u] / total[c]);
    }
    fprintf(f, "  (of the time between launches)\n");
}

void report_summary(FILE *f, const struct npurt_report *r)
{
    char a[BYTES_TEXT], b[BYTES_TEXT], c[BYTES_TEXT], d[BYTES_TEXT];
    double share_launch = r->us > 0 ? 100.0 * r->launch_us / r->us : 0,
           share_host = r->us > 0 ? 100.0 * r->host_us / r->us : 0;
    fprintf(f, "total       %.1f us, %.0f cycles; %lld launches (launch cost %.0f %%), %lld on the host (%.1f %%)\n",
            r->us, r->cycles, (long long)r->n_launches, share_launch, (long long)r->n_host, share_host);
    print_busy(f, r);
    print_paths(f, r);
    fprintf(f, "GM traffic  %s read, %s written\n", bytes_text(a, (double)r->gm_read),
            bytes_text(b, (double)r->gm_written));
    fprintf(f, "GM memory   weights %s, caches %s, activations %s (lower bound %s)\n",
            bytes_text(a, (double)r->weights_size), bytes_text(b, (double)r->cache_size),
            bytes_text(c, (double)r->pool_size), bytes_text(d, (double)r->pool_lower_bound));
    fprintf(f, "on chip    ");
    for (int s = 1; s < NPURT_SPACES; s++)
        if (r->peak[s] > 0)
            fprintf(f, " %s %s", r->space_names[s], bytes_text(a, (double)r->peak[s]));
    fprintf(f, "\n");
}

void report_print(FILE *f, const struct npurt_report *r, const char *title)
{
    int64_t n = 0;
    double rest = 0;
    struct row *rows = calloc((size_t)(r->n_steps > 0 ? r->n_steps : 1), sizeof *rows);
    if (!rows)
        return;
    for (int64_t i = 0; i < r->n_steps; i++)
        add_step(find_row(rows, &n, &r->steps[i]), &r->steps[i]);
    qsort(rows, (size_t)n, sizeof *rows, by_time);
    fprintf(f, "%s (%.2f GHz)  %s\n", r->target, r->clock_hz / 1e9, title);
    fprintf(f, "%-*s %5s  %-30s %9s %10s  %4s  %4s %5s %5s  %-8s %10s\n", NAME_LEN, "kernel", "calls", "from",
            "time us", "cycles", r->unit_names[M], r->unit_names[V], r->unit_names[MTE2], r->unit_names[FIX],
            "bound by", "GM read");
    for (int64_t i = 0; i < n; i++) {
        if (i < MAX_ROWS)
            print_row(f, &rows[i]);
        else
            rest += rows[i].us;
    }
    if (n > MAX_ROWS)
        fprintf(f, "%-*s %5lld  %-30s %9.2f\n", NAME_LEN, "others", (long long)(n - MAX_ROWS), "", rest);
    report_summary(f, r);
    free(rows);
}

static json_t *step_json(const struct npurt_step *s)
{
    json_t *nodes = json_array(), *busy = json_object();
    for (int i = 0; i < s->n_nodes; i++)
        json_array_append_new(nodes, json_text(s->nodes[i]));
    for (int c = 0; c < NPURT_CORES; c++)
        for (int u = 0; u < NPURT_UNITS; u++) {
            char key[32];
            snprintf(key, sizeof key, "%s.%s", c ? "vector" : "cube", npurt_unit_name(u));
            if (s->busy[c][u] > 0)
                json_put(busy, key, json_real(s->busy[c][u]));
        }
    json_t *j = json_object();
    json_put(j, "label", json_text(s->label ? s->label : ""));
    json_put(j, "op", json_text(s->op ? s->op : ""));
    json_put(j, "kernel", json_text(s->kernel));
    json_put(j, "nodes", nodes);
    json_put(j, "host", json_boolean(s->host));
    json_put(j, "reason", json_text(s->reason));
    json_put(j, "count", json_integer(s->count));
    json_put(j, "us", json_real(s->us));
    json_put(j, "cycles", json_real(s->cycles));
    json_put(j, "busy_cycles", busy);
    json_put(j, "gm_read_bytes", json_integer(s->gm_read));
    json_put(j, "gm_written_bytes", json_integer(s->gm_written));
    json_put(j, "bound_by", json_text(s->bound_by));
    return j;
}

json_t *report_json(const struct npurt_report *r)
{
    json_t *steps = json_array(), *peak = json_object(), *j = json_object();
    for (int64_t i = 0; i < r->n_steps; i++)
        json_array_append_new(steps, step_json(&r->steps[i]));
    for (int s = 0; s < NPURT_SPACES; s++)
        json_put(peak, npurt_space_name(s), json_integer(r->peak[s]));
    json_put(j, "target", json_text(r->target));
    json_put(j, "us", json_real(r->us));
    json_put(j, "cycles", json_real(r->cycles));
    json_put(j, "npu_us", json_real(r->npu_us));
    json_put(j, "host_us", json_real(r->host_us));
    json_put(j, "launch_us", json_real(r->launch_us));
    json_put(j, "gm_read_bytes", json_integer(r->gm_read));
    json_put(j, "gm_written_bytes", json_integer(r->gm_written));
    json_put(j, "weights_bytes", json_integer(r->weights_size));
    json_put(j, "cache_bytes", json_integer(r->cache_size));
    json_put(j, "activation_bytes", json_integer(r->pool_size));
    json_put(j, "activation_lower_bound", json_integer(r->pool_lower_bound));
    json_put(j, "peak_bytes", peak);
    json_put(j, "steps", steps);
    return j;
}

json_t *report_pipes(const struct npurt_report *r)
{
    static const char *const names[] = {
        [S] = "scalar", [MTE2] = "mte2", [MTE3] = "mte3", [MTE1] = "mte1", [M] = "mac", [FIX] = "fixp", [V] = "vec"};
    json_t *j = json_object();
    for (int u = 0; u < NPURT_UNITS; u++) {
        double us = 0;
        for (int64_t i = 0; i < r->n_steps; i++) {
            const struct npurt_step *s = &r->steps[i];
            const int core = u == V || u == MTE3 || s->cores[0] == 0 ? 1 : 0;
            if (s->cores[core] > 0)
                us += 1e6 * s->busy[core][u] / s->cores[core] / r->clock_hz;
        }
        json_put(j, names[u], json_real(us));
    }
    return j;
}
