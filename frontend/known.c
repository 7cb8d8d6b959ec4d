/* Which operators of the file can be imported at all. The whole model is looked through before anything is built, so
 * that one run reports every unsupported operator. */
#include <inttypes.h>
#include <string.h>

#include "frontend/priv.h"
#include "frontend/rules.h"

static const struct {
    const char *name;
    int first;
} onnx_ops[] = {
#define ONNX(name, first) {#name, first},
#include "frontend/onnx_ops.def"
#undef ONNX
};

/* 0: no operator of ai.onnx. */
static int introduced(const char *name)
{
    int64_t lo = 0, hi = NPUC_ARRAY_LEN(onnx_ops);
    while (lo < hi) {
        const int64_t mid = (lo + hi) / 2;
        const int order = strcmp(onnx_ops[mid].name, name);
        if (order == 0)
            return onnx_ops[mid].first;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

#define KNOWN_BIT 0x10000u

static uint64_t lookup(struct import *im, sym domain, sym op)
{
    const uint64_t key = (uint64_t)domain << 32 | op;
    const uint64_t *found = map_find(&im->operators, key);
    if (found)
        return *found;
    const char *d = sym_text(im, domain), *name = sym_text(im, op);
    const bool foreign = strcmp(d, "npuc") == 0; /* our own operators are not for files */
    uint64_t v = op_find(d, name);
    const bool ruled = rules_have(d, name);
    if (!foreign && (ruled || (v != OP_none && (*d || introduced(name)))))
        v |= KNOWN_BIT;
    map_put(&im->operators, key, v);
    return v;
}

bool operator_known(struct import *im, sym domain, sym op)
{
    return (lookup(im, domain, op) & KNOWN_BIT) != 0;
}

enum op operator_find(struct import *im, sym domain, sym op)
{
    return (enum op)(lookup(im, domain, op) & (KNOWN_BIT - 1));
}

struct unknown {
    sym domain, op;
    int64_t n;
    int64_t too_new; /* opset that brought it, if the model imports an older one */
    struct diag_loc first;
};
struct job {
    Onnx__NodeProto *const *nodes;
    int64_t n;
    const struct opset_list *opsets;
};
struct survey {
    struct import *im;
    VEC(struct job) jobs;
    VEC(struct unknown) unknown;
    struct map index;     /* domain and op -> index + 1 into unknown */
    struct map functions; /* address -> 1 */
};

static void note_unknown(struct survey *v, const Onnx__NodeProto *n, sym domain, sym op, int64_t too_new, int64_t index)
{
    struct import *im = v->im;
    const uint64_t key = (uint64_t)domain << 32 | op;
    const uint64_t *found = map_find(&v->index, key);
    if (found) {
        v->unknown.data[*found - 1].n++;
        return;
    }
    const struct unknown u = {domain,
                              op,
                              1,
                              too_new,
                              {.file = im->path,
                               .node = n->name.len ? sym_text(im, bytes_sym(im, n->name)) : NULL,
                               .op = sym_text(im, op),
                               .index = index}};
    vec_push(&im->tmp, &v->unknown, u);
    map_put(&v->index, key, (uint64_t)v->unknown.len);
}

static enum npuc_status add_function(struct survey *v, const Onnx__FunctionProto *fn)
{
    struct import *im = v->im;
    if (map_find(&v->functions, (uint64_t)(uintptr_t)fn))
        return NPUC_OK;
    map_put(&v->functions, (uint64_t)(uintptr_t)fn, 1);
    struct opset_list *opsets = ARENA_NEW(&im->tmp, struct opset_list);
    *opsets = im->opsets;
    const enum npuc_status s =
        fn->n_opset_import ? opsets_read(im, fn->opset_import, (int64_t)fn->n_opset_import, opsets) : NPUC_OK;
    const struct job job = {fn->node, (int64_t)fn->n_node, opsets};
    vec_push(&im->tmp, &v->jobs, job);
    for (size_t i = 0; i < fn->n_output; i++)
        map_put(&im->used, bytes_sym(im, fn->output[i]), 1);
    return s;
}

static void add_graph(struct survey *v, const Onnx__GraphProto *g, const struct opset_list *opsets)
{
    struct import *im = v->im;
    const struct job job = {g->node, (int64_t)g->n_node, opsets};
    vec_push(&im->tmp, &v->jobs, job);
    for (size_t i = 0; i < g->n_output; i++)
        map_put(&im->used, bytes_sym(im, g->output[i]->name), 1);
}

static enum npuc_status survey_node(struct survey *v, const struct job *job, int64_t i)
{
    struct import *im = v->im;
    const Onnx__NodeProto *n = job->nodes[i];
    const sym domain = domain_sym(im, n->domain), op = bytes_sym(im, n->op_type);
    const struct diag_loc loc = {.file = im->path,
                                 .node = n->name.len ? sym_text(im, bytes_sym(im, n->name)) : NULL,
                                 .op = sym_text(im, op),
                                 .index = i};
    if (!op)
        return diag_error(im->cx->diag, &loc, D_MODEL, "the node has no op_type");
    const int64_t version = opset_version(im, job->opsets, domain);
    if (!domain && version == 0)
        return diag_error(im->cx->diag, &loc, D_MODEL,
                          "the operator is of ai.onnx, but opset_import does not name this domain");
    for (size_t k = 0; k < n->n_input; k++)
        map_put(&im->used, bytes_sym(im, n->input[k]), 1);
    for (size_t k = 0; k < n->n_attribute; k++)
        if (n->attribute[k]->g)
            add_graph(v, n->attribute[k]->g, job->opsets);
    if (operator_known(im, domain, op)) {
        const int first = domain ? 0 : introduced(sym_text(im, op));
        if (first > version)
            note_unknown(v, n, domain, op, first, i);
    } else {
        const Onnx__FunctionProto *fn = function_find(im, domain, op, bytes_sym(im, n->overload));
        if (fn)
            return add_function(v, fn);
        note_unknown(v, n, domain, op, 0, i);
    }
    return NPUC_OK;
}

static enum npuc_status report(struct survey *v)
{
    struct import *im = v->im;
    enum npuc_status first = NPUC_OK;
    for (int64_t i = 0; i < v->unknown.len; i++) {
        const struct unknown *u = &v->unknown.data[i];
        const char *domain = u->domain ? sym_text(im, u->domain) : "ai.onnx", *op = sym_text(im, u->op);
        const char *why = u->too_new ? NULL : rules_refusal(domain, op);
        const char *times = u->n > 1 ? arena_printf(&im->tmp, " (%" PRId64 " nodes)", u->n) : "";
        const char *text = u->too_new
                               ? arena_printf(&im->tmp,
                                              "operator %.200s was introduced in opset %" PRId64
                                              ", the model imports opset %" PRId64 "%s",
                                              op, u->too_new, opset_version(im, &im->opsets, 0), times)
                               : arena_printf(&im->tmp, "operator %.200s of domain %.200s is not supported%s%s%s", op,
                                              domain, times, why ? ": " : "", why ? why : "");
        const enum npuc_status s = diag_error(im->cx->diag, &u->first, u->too_new ? D_MODEL : D_UNSUPPORTED_OP, text);
        first = first == NPUC_OK ? s : first;
    }
    return first;
}

enum npuc_status operators_check(struct import *im)
{
    struct survey v = {.im = im};
    map_init(&v.index, &im->tmp);
    map_init(&v.functions, &im->tmp);
    add_graph(&v, im->pb->graph, &im->opsets);
    for (int64_t j = 0; j < v.jobs.len; j++) {
        const struct job job = v.jobs.data[j];
        im->model->info.n_nodes += job.n;
        for (int64_t i = 0; i < job.n; i++) {
            const enum npuc_status s = survey_node(&v, &job, i);
            if (s != NPUC_OK)
                return s;
        }
    }
    return report(&v);
}
