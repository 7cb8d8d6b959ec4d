/* npuc inspect: what is in a plan or a model. */
#include <stdio.h>
#include <string.h>

#include "ir/text.h"
#include "tools/conversions.h"
#include "tools/json.h"
#include "tools/memory.h"
#include "tools/model_args.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"what", "PART",
     "plan: summary, entries, tensors, steps, kernels, symbols, target, all, conversions (of layouts, timed at the "
     "sizes "
     "given by -D); model: summary, ir, optimised"},
    {"json", NULL, "the summary as JSON on stdout"},
    {"memory", NULL, "plan: the memory map for the sizes given by -D: places, sizes, lives, peaks of every memory"},
    {"verify", NULL, "only check; exit code 0 when the file is sound"},
    MODEL_OPTIONS,
    {NULL, NULL, NULL},
};

static void plan_json(const struct plan *p)
{
    json_t *j = json_object(), *inputs = json_array(), *outputs = json_array();
    int64_t host = 0, launches = 0;
    for (int64_t i = 0; i < p->steps.len; i++) {
        host += p->steps.data[i].kind == PS_HOST;
        launches += p->steps.data[i].kind == PS_LAUNCH;
    }
    for (int64_t e = 0; e < p->entries.len && e < 1; e++) {
        const struct plan_entry *entry = &p->entries.data[e];
        for (int32_t i = 0; i < entry->n_inputs; i++)
            json_array_append_new(inputs,
                                  json_string_nocheck(str_text(&p->strings, p->tensors.data[entry->inputs[i]].name)));
        for (int32_t i = 0; i < entry->n_outputs; i++)
            json_array_append_new(outputs,
                                  json_string_nocheck(str_text(&p->strings, p->tensors.data[entry->outputs[i]].name)));
    }
    json_object_set_new(j, "kind", json_string("plan"));
    json_object_set_new(j, "target", json_string_nocheck(str_text(&p->strings, p->target_name)));
    json_object_set_new(j, "format_version", json_integer(PLAN_VERSION));
    json_object_set_new(j, "kernels", json_integer(p->kernels.len));
    json_object_set_new(j, "steps", json_integer(p->steps.len));
    json_object_set_new(j, "launches", json_integer(launches));
    json_object_set_new(j, "host_steps", json_integer(host));
    json_object_set_new(j, "weight_bytes", json_integer(p->weights_size));
    json_object_set_new(j, "inputs", inputs);
    json_object_set_new(j, "outputs", outputs);
    print_json(j);
}

static void model_json(const struct compilation *c)
{
    const struct onnx_info *i = onnx_info(c->model);
    const struct graph *g = c->module->funcs.data[0];
    struct ir_ctx *cx = c->module->cx;
    json_t *j = json_object(), *inputs = json_object(), *outputs = json_object();
    for (int32_t k = 0; k < g->n_inputs; k++)
        json_object_set_new_nocheck(inputs, str_text(&cx->strings, g->inputs[k]->name),
                                    json_string_nocheck(type_text(cx, g->inputs[k]->type)));
    const struct node *y = graph_yield(g);
    for (int k = 0; k < y->n_in; k++)
        json_object_set_new_nocheck(outputs, str_text(&cx->strings, y->in[k].value->name),
                                    json_string_nocheck(type_text(cx, y->in[k].value->type)));
    json_object_set_new(j, "kind", json_string("model"));
    json_object_set_new(j, "ir_version", json_integer(i->ir_version));
    json_object_set_new(j, "nodes", json_integer(i->n_nodes));
    json_object_set_new(j, "core_operators", json_integer(c->n_imported));
    json_object_set_new(j, "parameters", json_integer(i->n_params));
    json_object_set_new(j, "parameter_bytes", json_integer(i->param_size));
    json_object_set_new(j, "inputs", inputs);
    json_object_set_new(j, "outputs", outputs);
    print_json(j);
}

static int inspect_plan(const char *path, const char *what, bool verify, bool json)
{
    static const char *const parts[] = {"summary", "entries", "tensors", "steps",
                                        "kernels", "symbols", "target",  "all"};
    struct plan p;
    struct diag d;
    bool known = false;
    diag_init(&d, term_diag, NULL);
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(parts); i++)
        known = known || strcmp(parts[i], what) == 0;
    if (!known) {
        term_error("npuc inspect: %s: a plan has no part '%s' (npuc inspect --help)", path, what);
        return 2;
    }
    plan_init(&p);
    enum npuc_status s = plan_read(&p, path, &d);
    if (s == NPUC_OK) {
        struct arena a;
        arena_init(&a, NULL);
        if (json)
            plan_json(&p);
        else if (verify)
            printf("%s: sound\n", path);
        else
            fputs(plan_text(&p, what, &a), stdout);
        arena_free(&a);
    }
    plan_free(&p);
    return diag_exit_code(s);
}

static void print_summary(const struct compilation *c, const char *path)
{
    const struct onnx_info *i = onnx_info(c->model);
    const struct graph *g = c->module->funcs.data[0];
    printf("%s: %s %s, IR version %lld", path, i->producer, i->producer_version, (long long)i->ir_version);
    for (int64_t k = 0; k < i->n_opsets; k++)
        printf(", %s %lld", i->opsets[k].domain[0] ? i->opsets[k].domain : "opset", (long long)i->opsets[k].version);
    printf("\nnodes       %lld in the file, %lld core operators\n", (long long)i->n_nodes, (long long)c->n_imported);
    printf("parameters  %.2f M in %.1f MiB%s", (double)i->n_params / 1e6, (double)i->param_size / 1048576.0,
           i->n_external ? "" : "\n");
    if (i->n_external)
        printf(" (%.1f MiB outside of the file%s)\n", (double)i->external_size / 1048576.0,
               i->n_missing ? ", absent" : "");
    struct ir_ctx *cx = c->module->cx;
    for (int32_t k = 0; k < g->n_inputs; k++)
        printf("input       %-32s %s\n", str_text(&cx->strings, g->inputs[k]->name), type_text(cx, g->inputs[k]->type));
    const struct node *y = graph_yield(g);
    for (int k = 0; k < y->n_in; k++)
        printf("output      %-32s %s\n", str_text(&cx->strings, y->in[k].value->name),
               type_text(cx, y->in[k].value->type));
}

static int inspect_model(const struct args *a, const char *path, const char *what)
{
    struct compilation *c = arena_zalloc((struct arena *)(uintptr_t)&a->arena, (int64_t)sizeof *c);
    int code = 0;
    compilation_init(c);
    if (model_args(a, c, &code)) {
        bool optimised = strcmp(what, "optimised") == 0;
        c->options.allow_missing_data = true;
        enum npuc_status s = optimised ? compilation_optimise(c, path) : compilation_import(c, path);
        code = diag_exit_code(s);
        if (s == NPUC_OK && args_flag(a, "json")) {
            model_json(c);
        } else if (s == NPUC_OK && (optimised || strcmp(what, "ir") == 0)) {
            const char *text;
            int64_t len;
            ir_print(c->module, &c->arena, &text, &len);
            fwrite(text, 1, (size_t)len, stdout);
        } else if (s == NPUC_OK) {
            print_summary(c, path);
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
        const char *what = args_value(&a, "what");
        const char *path = a.words.data[0];
        if (!what)
            what = "summary";
        if (args_flag(&a, "memory") && !file_is_plan(path)) {
            term_error("npuc inspect: %s: a memory map is made of a plan; compile the model first", path);
            code = 2;
        } else if (args_flag(&a, "memory")) {
            code = memory_map(path, &a, args_flag(&a, "json"));
        } else if (strcmp(what, "conversions") == 0 && file_is_plan(path)) {
            code = conversions_print(path, &a, args_flag(&a, "json"));
        } else {
            code = file_is_plan(path) ? inspect_plan(path, what, args_flag(&a, "verify"), args_flag(&a, "json"))
                                      : inspect_model(&a, path, what);
        }
    }
    args_free(&a);
    return code;
}

const struct command command_inspect = {
    .name = "inspect",
    .what = "what is in a model or a plan: summary, graph, tensors, steps, tile programs",
    .usage = "FILE [--what PART] [--memory] [--verify]",
    .examples =
        "  npuc inspect examples/bard/model.onnx\n  npuc inspect bard.plan --what kernels\n  npuc inspect "
        "bard.plan --verify\n  npuc inspect bard.plan --what conversions -D batch_size=1 -D sequence_length=12 -D "
        "past_sequence_length=0\n  npuc inspect bard.plan --memory -D batch_size=1 -D sequence_length=12 -D "
        "past_sequence_length=0\n",
    .options = options,
    .run = run,
};
