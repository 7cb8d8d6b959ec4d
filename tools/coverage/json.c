/* The report for programs; docs/check.md describes every field. */
#include "tools/coverage/coverage.h"

static json_t *text(const char *s)
{
    return s ? json_string_nocheck(s) : json_null();
}

static void put(json_t *j, const char *key, json_t *value)
{
    json_object_set_new(j, key, value);
}

static void put_counts(json_t *j, const int64_t *n)
{
    put(j, "npu", json_integer(n[COV_NPU]));
    put(j, "host", json_integer(n[COV_HOST]));
    put(j, "unsupported", json_integer(n[COV_BAD]));
    put(j, "compile_time", json_integer(n[COV_GONE]));
}

static json_t *target_json(const struct cov_target *t)
{
    json_t *j = json_object();
    put(j, "target", text(t->id));
    put(j, "compiles", json_boolean(t->exit_code == 0));
    put(j, "exit_code", json_integer(t->exit_code));
    put_counts(j, t->n);
    put(j, "node_share", json_real(coverage_node_share(t)));
    put(j, "time_share", t->timed ? json_real(coverage_time_share(t)) : json_null());
    put(j, "us", t->timed ? json_real(t->us) : json_null());
    put(j, "npu_us", t->timed ? json_real(t->npu_us) : json_null());
    put(j, "host_us", t->timed ? json_real(t->host_us) : json_null());
    put(j, "launch_us", t->timed ? json_real(t->launch_us) : json_null());
    put(j, "bytes", t->timed ? json_real(t->bytes) : json_null());
    put(j, "not_timed_because", text(t->untimed));
    return j;
}

static json_t *row_json(const struct coverage *v, const struct cov_row *r)
{
    json_t *j = json_object(), *uses = json_object();
    put(j, "op", text(r->op));
    put(j, "domain", text(*r->domain ? r->domain : "ai.onnx"));
    put(j, "opset", r->opset ? json_integer(r->opset) : json_null());
    put(j, "count", json_integer(r->count));
    for (int i = 0; i < v->n_targets; i++) {
        const struct cov_use *u = &r->use[i];
        const double all = v->target[i].us;
        json_t *o = json_object();
        put_counts(o, u->n);
        put(o, "us", json_real(u->us));
        put(o, "time_share", json_real(all > 0 ? u->us / all : 0));
        put(o, "bytes", json_real(u->bytes));
        put(o, "reason", text(u->reason));
        put(o, "hint", text(coverage_hint(r, i)));
        put(uses, v->target[i].id, o);
    }
    put(j, "targets", uses);
    return j;
}

static json_t *lines_json(const char *const *line, int64_t n)
{
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, text(line[i]));
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
            put(o, "node", text(n->name));
            put(o, "op", text(v->rows.data[n->row].op));
            put(o, "target", text(v->target[k].id));
            put(o, "where", text(names[n->where[k]]));
            put(o, "reason", text(n->reason[k]));
            json_array_append_new(a, o);
        }
    return a;
}

json_t *coverage_json(const struct coverage *v)
{
    json_t *j = json_object(), *targets = json_array(), *rows = json_array();
    put(j, "schema", json_integer(COV_SCHEMA));
    put(j, "model", text(v->path));
    put(j, "producer", text(v->producer));
    put(j, "opset", json_integer(v->opset));
    put(j, "nodes", json_integer(v->n_nodes));
    put(j, "parameters", json_integer(v->n_params));
    put(j, "parameter_bytes", json_integer(v->param_size));
    put(j, "missing_tensors", json_integer(v->missing));
    put(j, "assumed", text(v->assumed));
    for (int i = 0; i < v->n_targets; i++)
        json_array_append_new(targets, target_json(&v->target[i]));
    for (int64_t i = 0; i < v->rows.len; i++)
        json_array_append_new(rows, row_json(v, &v->rows.data[i]));
    put(j, "targets", targets);
    put(j, "problems", lines_json(v->problems.data, v->problems.len));
    put(j, "surprises", lines_json(v->surprises.data, v->surprises.len));
    put(j, "operators", rows);
    put(j, "not_on_npu", nodes_json(v));
    put(j, "exit_code", json_integer(coverage_exit_code(v)));
    return j;
}
