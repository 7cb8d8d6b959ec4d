/* The report for programs; docs/check.md describes every field. */
#include "tools/coverage/coverage.h"
#include "tools/json.h"

static void put_counts(json_t *j, const int64_t *n)
{
    json_put(j, "npu", json_integer(n[COV_NPU]));
    json_put(j, "host", json_integer(n[COV_HOST]));
    json_put(j, "unsupported", json_integer(n[COV_BAD]));
    json_put(j, "compile_time", json_integer(n[COV_GONE]));
}

static json_t *target_json(const struct cov_target *t)
{
    json_t *j = json_object();
    json_put(j, "target", json_text(t->id));
    json_put(j, "compiles", json_boolean(t->exit_code == 0));
    json_put(j, "exit_code", json_integer(t->exit_code));
    put_counts(j, t->n);
    json_put(j, "node_share", json_real(coverage_node_share(t)));
    json_put(j, "time_share", t->timed ? json_real(coverage_time_share(t)) : json_null());
    json_put(j, "us", t->timed ? json_real(t->us) : json_null());
    json_put(j, "npu_us", t->timed ? json_real(t->npu_us) : json_null());
    json_put(j, "host_us", t->timed ? json_real(t->host_us) : json_null());
    json_put(j, "launch_us", t->timed ? json_real(t->launch_us) : json_null());
    json_put(j, "bytes", t->timed ? json_real(t->bytes) : json_null());
    json_put(j, "not_timed_because", json_text(t->untimed));
    return j;
}

static json_t *row_json(const struct coverage *v, const struct cov_row *r)
{
    json_t *j = json_object(), *uses = json_object();
    json_put(j, "op", json_text(r->op));
    json_put(j, "domain", json_text(*r->domain ? r->domain : "ai.onnx"));
    json_put(j, "opset", r->opset ? json_integer(r->opset) : json_null());
    json_put(j, "count", json_integer(r->count));
    for (int i = 0; i < v->n_targets; i++) {
        const struct cov_use *u = &r->use[i];
        const double all = v->target[i].us;
        json_t *o = json_object();
        put_counts(o, u->n);
        json_put(o, "us", json_real(u->us));
        json_put(o, "time_share", json_real(all > 0 ? u->us / all : 0));
        json_put(o, "bytes", json_real(u->bytes));
        json_put(o, "reason", json_text(u->reason));
        json_put(o, "hint", json_text(coverage_hint(r, i)));
        json_put(uses, v->target[i].id, o);
    }
    json_put(j, "targets", uses);
    return j;
}

static json_t *lines_json(const char *const *line, int64_t n)
{
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, json_text(line[i]));
    return a;
}

static json_t *nodes_json(const struct coverage *v)
{
    static const char *const names[] = {"compile_time", "npu", "host", "unsupported"};
    json_t *a = json_array();
    for (int64_t i = 0; i < v->nodes.len; i++)
        for (int k = 0; k < v->n_targets; k++) {
            const struct cov_node *n = &v->nodes.data[i];
            if (n->where[k] < COV_HOST)
                continue;
            json_t *o = json_object();
            json_put(o, "node", json_text(n->name));
            json_put(o, "op", json_text(v->rows.data[n->row].op));
            json_put(o, "target", json_text(v->target[k].id));
            json_put(o, "where", json_text(names[n->where[k]]));
            json_put(o, "reason", json_text(n->reason[k]));
            json_array_append_new(a, o);
        }
    return a;
}

json_t *coverage_json(const struct coverage *v)
{
    json_t *j = json_object(), *targets = json_array(), *rows = json_array();
    json_put(j, "schema", json_integer(COV_SCHEMA));
    json_put(j, "model", json_text(v->path));
    json_put(j, "producer", json_text(v->producer));
    json_put(j, "opset", json_integer(v->opset));
    json_put(j, "nodes", json_integer(v->n_nodes));
    json_put(j, "parameters", json_integer(v->n_params));
    json_put(j, "parameter_bytes", json_integer(v->param_size));
    json_put(j, "missing_tensors", json_integer(v->missing));
    json_put(j, "assumed", json_text(v->assumed));
    for (int i = 0; i < v->n_targets; i++)
        json_array_append_new(targets, target_json(&v->target[i]));
    for (int64_t i = 0; i < v->rows.len; i++)
        json_array_append_new(rows, row_json(v, &v->rows.data[i]));
    json_put(j, "targets", targets);
    json_put(j, "problems", lines_json(v->problems.data, v->problems.len));
    json_put(j, "surprises", lines_json(v->surprises.data, v->surprises.len));
    json_put(j, "operators", rows);
    json_put(j, "not_on_npu", nodes_json(v));
    json_put(j, "exit_code", json_integer(coverage_exit_code(v)));
    return j;
}
