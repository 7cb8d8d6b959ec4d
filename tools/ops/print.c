#include "tools/ops/print.h"

#include <stdio.h>
#include <string.h>

#include "tools/table.h"

/* What docs/operators.md says before its tables. */
static const char header[] =
    "# Operators\n"
    "\n"
    "Made by `npuc ops --md`; a test compares. The content is found out by compiling: a small node of every operator\n"
    "(tools/ops/examples.def) goes through the importer and the passes with every element type and target, and the "
    "same\n"
    "functions that place the nodes of a model say where it runs. It shows what an operator can do at all: a model's "
    "sizes\n"
    "and attributes may send a node to the host nevertheless, which `npuc check MODEL` tells node by node.\n"
    "\n"
    "| column | what |\n"
    "| --- | --- |\n"
    "| Opsets | of the operator's domain that are read; older forms become the newest at import |\n"
    "| Class | what kind of work it is; of an operator that is composed of others, that of its first product or last "
    "step |\n"
    "| Types | element types of its data for which it compiles (values to be quantised: the quantised type) |\n"
    "| NPU: target | of these, the types with all work on the cores. all: every one of them; view: no work at run "
    "time; -: none |\n"
    "| On the host, because | why the other types are not on the cores |\n"
    "| Imported as | the core operators that replace it, where they have other names |\n"
    "\n"
    "Types: float is f16, bf16, f32 and f64; f8 the four with a mantissa; f6 both; int and uint all of 8 to 64 bits, "
    "i8..32 a\n"
    "part of them; int2..4 and uint2..4 those of parts of a byte; complex both; every: all 28.\n"
    "\n"
    "`npuc ops --json` holds the same for programs: `schema` (1), `targets`, `types`, and per row of `operators` `op`, "
    "`domain`,\n"
    "`opset_from`, `opset_to` (null: the newest), `class`, `imported_as`, `refused` (the reason, or null), `examples` "
    "(nodes in\n"
    "the form of tools/ops/example.h), `types`, and per target in `on` the types `npu`, `view`, `host` and the "
    "`reasons`.\n";

struct page {
    const struct ops_matrix *m;
    struct arena *a;
    bool markdown;
};

static const char *domain_name(const char *domain)
{
    return *domain ? domain : "ai.onnx";
}

/* The first target of a column. */
static int column_target(const struct ops_matrix *m, int column)
{
    int t = 0;
    while (m->target[t].column != column)
        t++;
    return t;
}

/* "ascend-910b1, 910b2": names of the same beginning are shortened. */
static const char *column_name(const struct page *p, int column)
{
    const char *text = "", *before = "";
    for (int t = 0; t < p->m->n_targets; t++) {
        const char *id = p->m->target[t].id, *dash = strchr(id, '-');
        if (p->m->target[t].column != column)
            continue;
        const bool same = dash && strncmp(before, id, (size_t)(dash - id) + 1) == 0;
        text = *text ? arena_printf(p->a, "%s, %s", text, same ? dash + 1 : id) : id;
        before = id;
    }
    return text;
}

static const char *npu_text(struct arena *a, const struct ops_row *r, const struct ops_use *u)
{
    if (u->view == r->types)
        return "view";
    const type_set idle = u->npu | u->view;
    return idle == r->types ? "all" : idle ? types_text(a, idle) : "-";
}

/* The reasons of all columns, each once, with its types unless they are all that are on the host. */
static const char *why_text(const struct page *p, const struct ops_row *r)
{
    const char *text = "";
    for (int c = 0; c < p->m->n_columns; c++) {
        const struct ops_use *u = &r->use[column_target(p->m, c)];
        for (int64_t i = 0; i < u->why.len; i++) {
            const struct ops_reason *w = &u->why.data[i];
            if (strstr(text, w->text))
                continue;
            const char *types = w->types == u->host ? "" : types_text(p->a, w->types);
            text = arena_printf(p->a, "%s%s%s%s%s", text, *text ? "; " : "", types, *types ? ": " : "", w->text);
        }
    }
    return text;
}

static const char *opsets_text(struct arena *a, const struct ops_row *r)
{
    if (*r->domain)
        return arena_printf(a, "%d", r->from);
    const int to = r->to ? r->to : OPS_NEWEST_OPSET;
    return r->from == to ? arena_printf(a, "%d", to) : arena_printf(a, "%d to %d", r->from, to);
}

static void put_row(const struct page *p, struct table *t, const struct ops_row *r, bool becomes)
{
    table_put(t, r->op);
    table_put(t, opsets_text(p->a, r));
    table_put(t, r->kind);
    table_put(t, types_text(p->a, r->types));
    for (int c = 0; c < p->m->n_columns; c++)
        table_put(t, npu_text(p->a, r, &r->use[column_target(p->m, c)]));
    table_put(t, why_text(p, r));
    if (becomes)
        table_put(t, r->becomes);
}

static void show(const struct page *p, const struct table *t)
{
    if (p->markdown)
        table_markdown(t, stdout);
    else
        table_text(t, stdout);
}

/* The rows of one domain that compile; *count of them. */
static void print_domain(const struct page *p, const char *domain, int64_t *count)
{
    struct table t;
    const bool becomes = *domain != 0;
    char *align = arena_zalloc(p->a, p->m->n_columns + 8);
    memset(align, 'l', (size_t)p->m->n_columns + 5 + becomes);
    table_init(&t, p->a, align);
    static const char *const first[] = {"Operator", "Opsets", "Class", "Types"};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(first); i++)
        table_put(&t, first[i]);
    for (int c = 0; c < p->m->n_columns; c++)
        table_put(&t, arena_printf(p->a, "NPU: %s", column_name(p, c)));
    table_put(&t, "On the host, because");
    if (becomes)
        table_put(&t, "Imported as");
    *count = 0;
    for (int64_t i = 0; i < p->m->rows.len; i++) {
        const struct ops_row *r = &p->m->rows.data[i];
        if (strcmp(r->domain, domain) != 0 || !r->types)
            continue;
        put_row(p, &t, r, becomes);
        ++*count;
    }
    if (*count == 0)
        return;
    printf(p->markdown ? "\n## %s\n\n%lld operators.\n\n" : "\n%s: %lld operators\n\n", domain_name(domain),
           (long long)*count);
    show(p, &t);
}

static void print_refused(const struct page *p)
{
    struct table t;
    table_init(&t, p->a, "lll");
    static const char *const first[] = {"Domain", "Operator", "Why, and what to do"};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(first); i++)
        table_put(&t, first[i]);
    bool any = false;
    for (int64_t i = 0; i < p->m->rows.len; i++) {
        const struct ops_row *r = &p->m->rows.data[i];
        if (r->types)
            continue;
        any = true;
        table_put(&t, domain_name(r->domain));
        table_put(&t, r->op);
        table_put(&t, r->refused ? r->refused : "no example is known");
    }
    if (!any)
        return;
    printf(p->markdown ? "\n## Not compiled\n\n" : "\nNot compiled\n\n");
    show(p, &t);
}

static void print_page(const struct page *p)
{
    const char *domain = NULL;
    for (int64_t i = 0, n; i < p->m->rows.len; i++) {
        const char *next = p->m->rows.data[i].domain;
        if (domain && strcmp(domain, next) == 0)
            continue;
        domain = next;
        print_domain(p, domain, &n);
    }
    print_refused(p);
}

void ops_print_text(const struct ops_matrix *m)
{
    const struct page p = {m, m->arena, false};
    print_page(&p);
}

void ops_print_markdown(const struct ops_matrix *m)
{
    const struct page p = {m, m->arena, true};
    fputs(header, stdout);
    print_page(&p);
}
