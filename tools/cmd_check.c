/* npuc check: where every operator of a model would run, and why, before anything is compiled. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/model_args.h"
#include "tools/report.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    MODEL_OPTIONS,
    {"nodes", NULL, "list every node that runs on the host"},
    {"json", NULL, "as JSON on stdout"},
    {NULL, NULL, NULL},
};

enum where { GONE, ON_NPU, ON_HOST }; /* GONE: folded at compile time, or a view */
struct op_row {
    sym type;
    int64_t n[3];
    sym reason; /* of the first one on the host */
};
struct coverage {
    struct compilation *c;
    struct arena *arena;
    struct map node_where; /* sym of the ONNX node -> enum where */
    struct map node_reason;
    struct map row_of; /* sym of the operator type -> row */
    VEC(struct op_row) rows;
    VEC(sym) nodes, types; /* of the file, in order */
    int64_t total[3];
    int64_t n_unsupported; /* nodes of the optimised graph that can run nowhere */
};

static struct strtab *strings(const struct coverage *v)
{
    return &v->c->cx.strings;
}

/* Nodes of the imported graph by their ONNX names. */
static void collect_nodes(void *user, const struct graph *g)
{
    struct coverage *v = user;
    for_each_node (n, g) {
        if (n->op == OP_Yield || !n->loc || n->loc->n < 1)
            continue;
        sym name = n->loc->names[0];
        if (map_find(&v->node_where, name))
            continue;
        map_put(&v->node_where, name, GONE);
        vec_push(v->arena, &v->nodes, name);
        vec_push(v->arena, &v->types,
                 n->loc->op_type ? n->loc->op_type : str_internz(strings(v), op_table[n->op]->name));
    }
}

/* A host node speaks for all ONNX nodes behind it; the NPU for those the host does not claim. */
static void note_node(struct coverage *v, const struct node *n)
{
    if ((n->place != PLACE_NPU && n->place != PLACE_HOST) || !n->loc || n->op == OP_SizeOf)
        return;
    for (int32_t i = 0; i < n->loc->n; i++) {
        uint64_t *w = map_find(&v->node_where, n->loc->names[i]);
        if (!w || *w == ON_HOST)
            continue;
        *w = n->place == PLACE_HOST ? ON_HOST : ON_NPU;
        if (n->place == PLACE_HOST)
            map_put(&v->node_reason, n->loc->names[i], n->reason);
    }
}

static struct op_row *row_of(struct coverage *v, sym type)
{
    uint64_t *i = map_find(&v->row_of, type);
    if (i)
        return &v->rows.data[*i];
    struct op_row r = {.type = type};
    map_put(&v->row_of, type, (uint64_t)v->rows.len);
    vec_push(v->arena, &v->rows, r);
    return &v->rows.data[v->rows.len - 1];
}

static void tally(struct coverage *v)
{
    for (int64_t i = 0; i < v->nodes.len; i++) {
        enum where w = (enum where) * map_find(&v->node_where, v->nodes.data[i]);
        struct op_row *r = row_of(v, v->types.data[i]);
        r->n[w]++;
        v->total[w]++;
        if (w == ON_HOST && !r->reason)
            r->reason = (sym)*map_find(&v->node_reason, v->nodes.data[i]);
    }
}

static void print_table(const struct coverage *v, const char *path, bool list_nodes)
{
    int64_t all = v->total[0] + v->total[1] + v->total[2];
    printf("%s on %s: %lld of %lld nodes run on the NPU, %lld are done at compile time, %lld run on the host\n", path,
           v->c->target.id, (long long)v->total[ON_NPU], (long long)all, (long long)v->total[GONE],
           (long long)v->total[ON_HOST]);
    printf("%-28s %6s %6s %9s %6s  %s\n", "operator", "count", "npu", "compiled", "host", "why on the host");
    for (int64_t i = 0; i < v->rows.len; i++) {
        const struct op_row *r = &v->rows.data[i];
        printf("%-28s %6lld %6lld %9lld %6lld  %s\n",
               str_escape(v->arena, str_text(strings(v), r->type), str_len(strings(v), r->type), 28),
               (long long)(r->n[0] + r->n[1] + r->n[2]), (long long)r->n[ON_NPU], (long long)r->n[GONE],
               (long long)r->n[ON_HOST], r->reason ? str_text(strings(v), r->reason) : "");
    }
    for (int64_t i = 0; i < v->nodes.len && list_nodes; i++)
        if (*map_find(&v->node_where, v->nodes.data[i]) == ON_HOST)
            printf("host: %s (%s): %s\n",
                   str_escape(v->arena, str_text(strings(v), v->nodes.data[i]), str_len(strings(v), v->nodes.data[i]),
                              200),
                   str_text(strings(v), v->types.data[i]),
                   str_text(strings(v), (sym)*map_find(&v->node_reason, v->nodes.data[i])));
}

static void print_as_json(const struct coverage *v, const char *path)
{
    json_t *j = json_object(), *ops = json_array();
    for (int64_t i = 0; i < v->rows.len; i++) {
        const struct op_row *r = &v->rows.data[i];
        json_t *o = json_object();
        json_object_set_new(o, "op", json_string_nocheck(str_text(strings(v), r->type)));
        json_object_set_new(o, "npu", json_integer(r->n[ON_NPU]));
        json_object_set_new(o, "compile_time", json_integer(r->n[GONE]));
        json_object_set_new(o, "host", json_integer(r->n[ON_HOST]));
        json_object_set_new(o, "reason",
                            r->reason ? json_string_nocheck(str_text(strings(v), r->reason)) : json_null());
        json_array_append_new(ops, o);
    }
    json_object_set_new(j, "model", json_string_nocheck(path));
    json_object_set_new(j, "target", json_string_nocheck(v->c->target.id));
    json_object_set_new(j, "npu", json_integer(v->total[ON_NPU]));
    json_object_set_new(j, "compile_time", json_integer(v->total[GONE]));
    json_object_set_new(j, "host", json_integer(v->total[ON_HOST]));
    json_object_set_new(j, "operators", ops);
    print_json(j);
}

/* Placement is read off the optimised graph, with regions opened. */
static void note_graph(struct coverage *v, const struct graph *g)
{
    for_each_node (n, g) {
        note_node(v, n);
        bool free = n->place != PLACE_HOST || n->op == OP_SizeOf || n->op == OP_Fused;
        if (!free && !op_runs_on_host((enum op)n->op)) {
            node_error(v->c->module->cx, n, D_UNSUPPORTED_OP, "%s can run neither on the NPU nor on the host: %s",
                       op_table[n->op]->name, n->reason ? str_text(strings(v), n->reason) : "no kernel");
            v->n_unsupported++;
        }
        if (n->op == OP_Fused)
            note_graph(v, node_region(n, 0));
    }
}

/* Coverage needs no weights, but a compilation would. */
static void note_missing_data(const struct coverage *v)
{
    const struct onnx_info *i = onnx_info(v->c->model);
    if (i->n_missing > 0)
        term_error("%s: tensor '%s': its data file '%s' does not exist beside the model (%lld such tensors); compiling "
                   "will need it",
                   v->c->cx.file, str_escape(v->arena, i->missing_tensor, (int64_t)strlen(i->missing_tensor), 200),
                   str_escape(v->arena, i->missing_file, (int64_t)strlen(i->missing_file), 200),
                   (long long)i->n_missing);
}

static int check_target(const struct args *a, const char *path, const char *target)
{
    struct arena *arena = (struct arena *)(uintptr_t)&a->arena;
    struct compilation *c = ARENA_NEW(arena, struct compilation);
    struct coverage *v = ARENA_NEW(arena, struct coverage);
    int code = 0;
    compilation_init(c);
    v->c = c;
    v->arena = arena;
    map_init(&v->node_where, arena);
    map_init(&v->node_reason, arena);
    map_init(&v->row_of, arena);
    if (model_args(a, c, &code)) {
        if (target)
            c->options.target = target;
        c->options.allow_missing_data = true;
        c->on_import = collect_nodes;
        c->on_import_user = v;
        enum npuc_status s = compilation_optimise(c, path);
        code = diag_exit_code(s);
        if (s == NPUC_OK) {
            note_graph(v, c->module->funcs.data[0]);
            tally(v);
            note_missing_data(v);
            code = v->n_unsupported > 0                 ? diag_exit_code(NPUC_E_UNSUPPORTED)
                   : onnx_info(c->model)->n_missing > 0 ? diag_exit_code(NPUC_E_NEGATIVE)
                                                        : 0;
            if (args_flag(a, "json"))
                print_as_json(v, path);
            else
                print_table(v, path, args_flag(a, "nodes"));
        }
    }
    compilation_free(c);
    return code;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    if (args_words(cmd, &a, 1, &code)) {
        const char *list = args_value(&a, "target"), *t = list;
        do {
            const char *comma = t ? strchr(t, ',') : NULL;
            const char *one = t ? arena_strndup(&a.arena, t, comma ? comma - t : (int64_t)strlen(t)) : NULL;
            code = check_target(&a, a.words.data[0], one);
            t = comma ? comma + 1 : NULL;
        } while (t && code == 0);
    }
    args_free(&a);
    return code;
}

const struct command command_check = {
    .name = "check",
    .what = "where every operator of a model would run, and why",
    .usage = "MODEL [--target T[,T2...]] [options]",
    .examples =
        "  npuc check examples/bard/model.onnx --target ascend-910b1\n  npuc check examples/bard/model.onnx --nodes\n",
    .options = options,
    .run = run,
};
