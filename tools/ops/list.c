/* Which operators there are: the rows of ONNX's own, of the rules, of core operators from other domains and of the
 * refusals. */
#include <stdlib.h>
#include <string.h>

#include "ir/op.h"
#include "tools/ops/support.h"

static const struct {
    const char *domain, *op;
    int from, to;
} rules[] = {
#define RULE(domain, op, from, to, fn) {domain, op, from, to},
#include "frontend/rules.def"
#undef RULE
};
enum { NO_END = 99 };

static struct ops_row *find(struct ops_matrix *m, const char *domain, const char *op)
{
    for (int64_t i = 0; i < m->rows.len; i++)
        if (strcmp(m->rows.data[i].domain, domain) == 0 && strcmp(m->rows.data[i].op, op) == 0)
            return &m->rows.data[i];
    return NULL;
}

static struct ops_row *add(struct ops_matrix *m, const char *domain, const char *op, int from)
{
    struct ops_row *known = find(m, domain, op);
    if (known)
        return known;
    struct ops_row row = {.domain = domain, .op = op, .from = from};
    row.example = example_find(domain, op, &row.n_examples);
    vec_push(m->arena, &m->rows, row);
    return &m->rows.data[m->rows.len - 1];
}

/* Operators that only old opsets have end with their last rule. */
static void add_rules(struct ops_matrix *m)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++) {
        struct ops_row *r = add(m, rules[i].domain, rules[i].op, 1);
        if (op_find(r->domain, r->op) == OP_none)
            r->to = rules[i].to > r->to ? rules[i].to : r->to;
    }
    for (int64_t i = 0; i < m->rows.len; i++)
        if (m->rows.data[i].to == NO_END)
            m->rows.data[i].to = 0;
}

/* Rows of com.microsoft that share their name with an ONNX operator end in _ms. */
static const char *onnx_name(struct ops_matrix *m, const char *name)
{
    const int64_t n = (int64_t)strlen(name);
    return n > 3 && strcmp(name + n - 3, "_ms") == 0 ? arena_strndup(m->arena, name, n - 3) : name;
}

static void add_core(struct ops_matrix *m)
{
    for (int op = OP_none + 1; op < OP_count; op++) {
        const struct op_def *d = op_table[op];
        if (d->domain[0] && strcmp(d->domain, "npuc") != 0)
            (void)add(m, d->domain, onnx_name(m, d->name), d->since);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct ops_row *x = a, *y = b;
    const int domain = strcmp(x->domain, y->domain);
    return domain ? domain : strcmp(x->op, y->op);
}

static bool wanted(const char *op, const char *const *names, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (strcmp(names[i], op) == 0)
            return true;
    return n == 0;
}

void ops_list(struct ops_matrix *m, const char *const *names, int64_t n_names)
{
#define ONNX(name, first) (void)add(m, "", #name, first);
#include "frontend/onnx_ops.def"
#undef ONNX
    add_rules(m);
    add_core(m);
#define REFUSED(domain, op, why) add(m, domain, op, 1)->refused = why;
#include "frontend/refused.def"
#undef REFUSED
    int64_t kept = 0;
    for (int64_t i = 0; i < m->rows.len; i++)
        if (wanted(m->rows.data[i].op, names, n_names))
            m->rows.data[kept++] = m->rows.data[i];
    m->rows.len = kept;
    qsort(m->rows.data, (size_t)kept, sizeof *m->rows.data, by_name);
}
