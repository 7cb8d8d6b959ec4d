#include <string.h>

#include "tools/json.h"
#include "tools/ops/print.h"

static json_t *types_json(type_set types)
{
    json_t *list = json_array();
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        if (types & (type_set)1 << t)
            json_array_append_new(list, json_text(dtype_table[t].name));
    return list;
}

static json_t *use_json(const struct ops_use *u)
{
    json_t *j = json_object(), *reasons = json_array();
    json_put(j, "npu", types_json(u->npu));
    json_put(j, "view", types_json(u->view));
    json_put(j, "host", types_json(u->host));
    for (int64_t i = 0; i < u->why.len; i++) {
        json_t *why = json_object();
        json_put(why, "reason", json_text(u->why.data[i].text));
        json_put(why, "types", types_json(u->why.data[i].types));
        json_array_append_new(reasons, why);
    }
    json_put(j, "reasons", reasons);
    return j;
}

static json_t *example_json(const struct example *e)
{
    json_t *j = json_object();
    json_put(j, "opset", json_integer(e->opset ? e->opset : *e->domain ? 1 : OPS_NEWEST_OPSET));
    json_put(j, "inputs", json_text(e->inputs));
    json_put(j, "outputs", json_integer(e->n_out));
    json_put(j, "attributes", json_text(e->attrs));
    return j;
}

static json_t *row_json(const struct ops_matrix *m, const struct ops_row *r)
{
    json_t *j = json_object(), *on = json_object(), *examples = json_array();
    for (int i = 0; i < r->n_examples; i++)
        json_array_append_new(examples, example_json(&r->example[i]));
    json_put(j, "op", json_text(r->op));
    json_put(j, "domain", json_text(*r->domain ? r->domain : "ai.onnx"));
    json_put(j, "opset_from", json_integer(r->from));
    json_put(j, "opset_to", r->to ? json_integer(r->to) : json_null());
    json_put(j, "class", json_text(r->kind));
    json_put(j, "imported_as", json_text(r->becomes));
    json_put(j, "refused", json_text(r->refused));
    json_put(j, "examples", examples);
    json_put(j, "types", types_json(r->types));
    for (int i = 0; i < m->n_targets; i++)
        json_put(on, m->target[i].id, use_json(&r->use[i]));
    json_put(j, "on", on);
    return j;
}

json_t *ops_json(const struct ops_matrix *m)
{
    json_t *j = json_object(), *targets = json_array(), *rows = json_array();
    json_put(j, "schema", json_integer(1));
    for (int i = 0; i < m->n_targets; i++)
        json_array_append_new(targets, json_text(m->target[i].id));
    json_put(j, "targets", targets);
    json_put(j, "types", types_json(~(type_set)1));
    for (int64_t i = 0; i < m->rows.len; i++)
        json_array_append_new(rows, row_json(m, &m->rows.data[i]));
    json_put(j, "operators", rows);
    return j;
}
