/* The report for people: as text and as Markdown, from the same tables. */
#include <stdlib.h>
#include <string.h>

#include "tools/coverage/coverage.h"
#include "tools/table.h"

struct page {
    const struct coverage *v;
    struct arena *a;
    bool markdown, nodes;
};

/* 1234567 as "1,234,567" */
static const char *count_text(struct arena *a, int64_t n)
{
    const char *digits = arena_printf(a, "%lld", (long long)n);
    const int64_t len = (int64_t)strlen(digits);
    char *out = arena_alloc(a, 2 * len + 1, 1), *p = out;
    for (int64_t i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            *p++ = ',';
        *p++ = digits[i];
    }
    *p = 0;
    return out;
}

static const char *share_text(struct arena *a, double share)
{
    const double percent = 100 * share;
    if (share <= 0)
        return "0 %";
    return percent < 0.05 ? "< 0.1 %" : arena_printf(a, percent >= 99.95 ? "%.0f %%" : "%.1f %%", percent);
}

static int64_t running(const struct cov_target *t)
{
    return t->n[COV_NPU] + t->n[COV_HOST] + t->n[COV_BAD];
}

static const char *summary(const struct page *p, const struct cov_target *t)
{
    struct arena *a = p->a;
    const char *rest =
        t->n[COV_GONE] > 0 ? arena_printf(a, "; %s more are done at compile time", count_text(a, t->n[COV_GONE])) : "";
    if (t->exit_code && running(t) + t->n[COV_GONE] == 0)
        return arena_printf(a, "cannot be compiled for %s", t->id);
    if (t->n[COV_BAD] > 0)
        return arena_printf(a, "cannot be compiled: %s of %s nodes have no form on %s; %s on the host%s",
                            count_text(a, t->n[COV_BAD]), count_text(a, running(t)), t->id,
                            count_text(a, t->n[COV_HOST]), rest);
    const char *time =
        t->timed ? arena_printf(a, " = %s of the estimated time", share_text(a, coverage_time_share(t))) : "";
    return arena_printf(a, "%s: %s of %s nodes on the NPU%s; %s on the host%s", t->exit_code ? "stops" : "runs",
                        count_text(a, t->n[COV_NPU]), count_text(a, running(t)), time, count_text(a, t->n[COV_HOST]),
                        rest);
}

static const char *verdict(const struct page *p, const struct cov_target *t)
{
    if (t->exit_code)
        return "cannot be compiled";
    if (t->n[COV_HOST] == 0)
        return "compiles";
    return arena_printf(p->a, "compiles, %s node%s on the host", count_text(p->a, t->n[COV_HOST]),
                        t->n[COV_HOST] == 1 ? "" : "s");
}

static void show(const struct page *p, const struct table *t)
{
    if (p->markdown)
        table_markdown(t, stdout);
    else
        table_text(t, stdout);
    putchar('\n');
}

static void print_targets(const struct page *p)
{
    struct table t;
    table_init(&t, p->a, "lrrrrl");
    const char *const head[] = {"target", "nodes on NPU", "time on NPU", "one call", "bytes moved", "verdict"};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        table_put(&t, head[i]);
    for (int i = 0; i < p->v->n_targets; i++) {
        const struct cov_target *c = &p->v->target[i];
        table_put(&t, c->id);
        table_put(&t, arena_printf(p->a, "%s / %s", count_text(p->a, c->n[COV_NPU]), count_text(p->a, running(c))));
        table_put(&t, c->timed ? share_text(p->a, coverage_time_share(c)) : "-");
        table_put(&t, c->timed ? arena_printf(p->a, "%.3f ms", c->us / 1e3) : "-");
        table_put(&t, c->timed ? bytes_text(arena_alloc(p->a, BYTES_TEXT, 1), c->bytes) : "-");
        table_put(&t, verdict(p, c));
    }
    show(p, &t);
}

/* "npu 97.1 %", "host 2.4 %", "no", "compile time" */
static const char *use_text(const struct page *p, const struct cov_row *r, int target)
{
    const struct cov_use *u = &r->use[target];
    const struct cov_target *t = &p->v->target[target];
    const char *share = t->timed && t->us > 0 && u->us > 0 ? share_text(p->a, u->us / t->us) : "";
    if (u->n[COV_BAD] > 0)
        return "no";
    if (u->n[COV_NPU] + u->n[COV_HOST] == 0)
        return u->n[COV_GONE] ? "compile time" : "-";
    const char *where = u->n[COV_HOST] == 0  ? "npu"
                        : u->n[COV_NPU] == 0 ? "host"
                                             : arena_printf(p->a, "npu, %lld on host", (long long)u->n[COV_HOST]);
    return arena_printf(p->a, "%s%s%s", where, *share ? " " : "", share);
}

struct order {
    const struct page *p;
    const struct cov_row *row;
    double weight;
};

/* Trouble first, then what takes the time, then the names. */
static int by_weight(const void *x, const void *y)
{
    const struct order *a = x, *b = y;
    if (a->weight != b->weight)
        return a->weight < b->weight ? 1 : -1;
    const int d = strcmp(a->row->op, b->row->op);
    return d ? d : strcmp(a->row->domain, b->row->domain);
}

static double weight_of(const struct coverage *v, const struct cov_row *r)
{
    double w = 0;
    for (int i = 0; i < v->n_targets; i++) {
        const struct cov_use *u = &r->use[i];
        w += v->target[i].us > 0 ? u->us / v->target[i].us : 0;
        w += u->n[COV_BAD] > 0 ? 1e6 : u->n[COV_HOST] > 0 ? 1e3 : u->n[COV_NPU] > 0 ? 1e-6 : 0;
    }
    return w;
}

static const char *advice(const struct page *p, const struct cov_row *r)
{
    for (int i = 0; i < p->v->n_targets; i++) {
        const char *hint = coverage_hint(r, i), *reason = r->use[i].reason;
        if (r->use[i].n[COV_HOST] + r->use[i].n[COV_BAD] == 0)
            continue;
        const char *why = reason ? reason : "no kernel for it on the target's cores";
        return hint ? arena_printf(p->a, "%s. %s", why, hint) : why;
    }
    return "";
}

static void print_operators(const struct page *p)
{
    const struct coverage *v = p->v;
    struct table t;
    char align[COV_MAX_TARGETS + 8] = "lrr";
    memset(align + 3, 'l', (size_t)v->n_targets + 1);
    table_init(&t, p->a, align);
    table_put(&t, "operator");
    table_put(&t, "count");
    table_put(&t, "opset");
    for (int i = 0; i < v->n_targets; i++)
        table_put(&t, v->target[i].id);
    table_put(&t, "why, and what to do");
    struct order *o = ARENA_ARRAY(p->a, struct order, v->rows.len + 1);
    for (int64_t i = 0; i < v->rows.len; i++)
        o[i] = (struct order){p, &v->rows.data[i], weight_of(v, &v->rows.data[i])};
    qsort(o, (size_t)v->rows.len, sizeof *o, by_weight);
    for (int64_t i = 0; i < v->rows.len; i++) {
        const struct cov_row *r = o[i].row;
        table_put(&t, *r->domain ? arena_printf(p->a, "%s.%s", r->domain, r->op) : r->op);
        table_put(&t, count_text(p->a, r->count));
        table_put(&t, r->opset ? count_text(p->a, r->opset) : "-");
        for (int k = 0; k < v->n_targets; k++)
            table_put(&t, use_text(p, r, k));
        table_put(&t, advice(p, r));
    }
    show(p, &t);
}

static void print_nodes(const struct page *p)
{
    static const char *const names[] = {"compile time", "npu", "host", "no"};
    struct table t;
    table_init(&t, p->a, "llll");
    table_put(&t, "node");
    table_put(&t, "operator");
    table_put(&t, "target");
    table_put(&t, "where and why");
    for (int64_t i = 0; i < p->v->nodes.len; i++)
        for (int k = 0; k < p->v->n_targets; k++) {
            const struct cov_node *n = &p->v->nodes.data[i];
            if (n->where[k] < COV_HOST)
                continue;
            table_put(&t, n->name);
            table_put(&t, p->v->rows.data[n->row].op);
            table_put(&t, p->v->target[k].id);
            table_put(&t, arena_printf(p->a, "%s: %s", names[n->where[k]],
                                       n->reason[k] ? n->reason[k] : "no kernel for it on the target's cores"));
        }
    show(p, &t);
}

static void print_lines(const struct page *p, const char *title, const char *const *line, int64_t n)
{
    if (n == 0)
        return;
    printf(p->markdown ? "### %s\n\n" : "%s\n", title);
    for (int64_t i = 0; i < n; i++)
        printf(p->markdown ? "- %s\n" : "  %s\n", line[i]);
    putchar('\n');
}

static void print_page(const struct page *p)
{
    const struct coverage *v = p->v;
    printf("%s%s: opset %lld, %s nodes, %.1f M parameters (%s)%s%s\n%s", p->markdown ? "## " : "", v->path,
           (long long)v->opset, count_text(p->a, v->n_nodes), (double)v->n_params / 1e6,
           bytes_text(arena_alloc(p->a, BYTES_TEXT, 1), (double)v->param_size),
           v->producer && *v->producer ? ", by " : "", v->producer ? v->producer : "", p->markdown ? "\n" : "");
    for (int i = 0; i < v->n_targets; i++)
        printf(v->n_targets > 1 ? "%s%s: %s\n" : "%.0s%.0s%s\n", p->markdown ? "- " : "  ", v->target[i].id,
               summary(p, &v->target[i]));
    putchar('\n');
    if (v->n_targets > 1 || v->target[0].timed)
        print_targets(p);
    if (v->assumed)
        printf("Times are for %s; -D NAME=SIZE sets others.\n\n", v->assumed);
    print_lines(p, "Problems", v->problems.data, v->problems.len);
    print_lines(p, "Worth knowing", v->surprises.data, v->surprises.len);
    if (v->rows.len > 0)
        print_operators(p);
    if (p->nodes)
        print_nodes(p);
}

void coverage_print_text(const struct coverage *v, bool list_nodes)
{
    print_page(&(struct page){.v = v, .a = v->arena, .nodes = list_nodes});
}

void coverage_print_markdown(const struct coverage *v, bool list_nodes)
{
    print_page(&(struct page){.v = v, .a = v->arena, .nodes = list_nodes, .markdown = true});
}
