/* The compile entry points. The only setjmp of the compiler is here: arenas that run out of memory come back to
 * guarded(), where everything the compilation holds is known and released by compilation_free. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "base/spill.h"
#include "base/stopwatch.h"
#include "compiler/compile.h"
#include "ir/text.h"

/* ---- life ---- */

void compilation_init(struct compilation *c)
{
    memset(c, 0, sizeof *c);
    arena_init(&c->arena, NULL);
    c->options.max_rewrites = -1;
    c->options.cache_capacity = 2048;
    c->options.cache_ring = -1;
    c->options.target = "ascend-910b1";
}

void compilation_free(struct compilation *c)
{
    gears_free(c);
    if (c->has_plan)
        plan_free(&c->plan);
    if (c->has_px)
        pass_ctx_free(&c->px);
    if (c->module)
        ir_module_free(c->module);
    onnx_close(c->model);
    quant_recipe_close(&c->recipe);
    if (c->has_cx)
        ir_ctx_free(&c->cx);
    if (c->has_target)
        target_free(&c->target);
    arena_free(&c->arena);
}

/* ---- progress ---- */

static void stage_done(struct compilation *c, const char *stage, const char *text)
{
    if (c->progress)
        c->progress(c->progress_user, stage, text, stopwatch_since(c->stage_start));
    c->stage_start = stopwatch_ns();
}

/* ---- out of memory ---- */

static void out_of_memory(void *user)
{
    longjmp(*(jmp_buf *)user, 1);
}

static void set_oom(struct compilation *c, jmp_buf *at)
{
    struct arena *arenas[] = {&c->arena,
                              &c->cx.arena,
                              &c->cx.scratch,
                              c->module ? &c->module->arena : NULL,
                              c->has_px ? &c->px.arena : NULL,
                              c->has_plan ? &c->plan.arena : NULL};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(arenas); i++) {
        if (!arenas[i])
            continue;
        arenas[i]->on_oom = at ? out_of_memory : NULL;
        arenas[i]->oom_user = at;
    }
}

typedef enum npuc_status step_fn(struct compilation *c, const char *model, const char *plan);

static enum npuc_status guarded(struct compilation *c, step_fn *step, const char *model, const char *plan)
{
    jmp_buf at;
    enum npuc_status s;
    if (!c->has_cx) {
        ir_ctx_init(&c->cx, &spill_hooks, &c->diag);
        c->has_cx = true;
    }
    if (setjmp(at) == 0) {
        set_oom(c, &at);
        s = step(c, model, plan);
    } else {
        s = diag_error(&c->diag, &(struct diag_loc){.file = model, .index = -1}, D_HOST_MEMORY);
    }
    set_oom(c, NULL);
    return s;
}

/* ---- steps ---- */

static int64_t count_nodes(const struct module *m)
{
    int64_t n = 0;
    for_each_node (k, m->funcs.data[0])
        n += k->op != OP_Constant && k->op != OP_Yield;
    return n;
}

/* A key of the target that counts cores, set to fewer. */
static enum npuc_status use_fewer(struct compilation *c, enum target_key key, int64_t n)
{
    const char *name = target_keys[key].name;
    const double has = target_num(&c->target, key);
    if ((double)n > has)
        return diag_error(&c->diag, NULL, D_USAGE,
                          arena_printf(&c->arena, "%lld cores are more than %s of %s, which is %.0f", (long long)n,
                                       name, c->options.target, has));
    return target_set(&c->target, arena_printf(&c->arena, "%s=%lld", name, (long long)n), &c->diag);
}

/* Cube cores bring their vector cores; a count of vector cores alone leaves the cube cores as they are. */
static enum npuc_status limit_cores(struct compilation *c)
{
    const double per_cube = target_num(&c->target, TK_CORES_VECTOR_PER_CUBE);
    const int64_t n = c->options.cores, with = per_cube > 0 ? n * (int64_t)per_cube : n;
    const int64_t vectors = c->options.vector_cores ? c->options.vector_cores : with;
    enum npuc_status s = n ? use_fewer(c, TK_CORES_CUBE, n) : NPUC_OK;
    if (s == NPUC_OK && vectors && target_num(&c->target, TK_CORES_VECTOR) > 0)
        s = use_fewer(c, TK_CORES_VECTOR, vectors);
    return s;
}

static enum npuc_status load_target(struct compilation *c)
{
    if (c->has_target)
        return NPUC_OK;
    enum npuc_status s = target_load(&c->target, c->options.target, &c->diag);
    if (s != NPUC_OK)
        return s;
    c->has_target = true;
    for (int64_t i = 0; i < c->options.sets.len && s == NPUC_OK; i++)
        s = target_set(&c->target, c->options.sets.data[i], &c->diag);
    if (s == NPUC_OK)
        s = limit_cores(c);
    if (s == NPUC_OK)
        s = machine_init(&c->machine, &c->target, &c->diag);
    if (s == NPUC_OK)
        backend_target_info(&c->machine, &c->info);
    return s;
}

static enum npuc_status step_import(struct compilation *c, const char *model, const char *plan)
{
    (void)plan;
    c->stage_start = stopwatch_ns();
    enum npuc_status s = load_target(c);
    if (s != NPUC_OK)
        return s;
    c->cx.file = model;
    c->cx.max_rewrites = c->options.max_rewrites;
    struct onnx_options o = {.allow_missing_data = c->options.allow_missing_data, .survey = c->options.survey};
    c->cx.claims = c->claims;
    s = onnx_import(&c->cx, model, &o, &c->model, &c->module);
    if (s != NPUC_OK)
        return s;
    const struct onnx_info *info = onnx_info(c->model);
    stage_done(c, "read",
               arena_printf(&c->arena, "%lld nodes, %.1f M parameters (%.1f MiB)", (long long)info->n_nodes,
                            (double)info->n_params / 1e6, (double)info->param_size / 1048576.0));
    s = compilation_bind(c);
    if (s == NPUC_OK)
        s = compilation_boundary(c);
    c->cx.claims = NULL;
    c->n_imported = count_nodes(c->module);
    if (c->on_import)
        c->on_import(c->hook_user, c->module->funcs.data[0]);
    return s != NPUC_OK ? s : ir_verify(c->module, "import");
}

static enum npuc_status step_optimise(struct compilation *c, const char *model, const char *plan)
{
    int64_t n;
    const struct pass_step *steps = pass_pipeline(&n);
    enum npuc_status s = step_import(c, model, plan);
    if (s != NPUC_OK)
        return s;
    if (c->options.recipe) {
        s = quant_recipe_read(&c->recipe, c->options.recipe, &c->arena, &c->diag);
        if (s != NPUC_OK)
            return s;
        c->quantiser = quant_recipe_quantiser(&c->recipe);
    }
    pass_ctx_init(&c->px, c->module, &c->info);
    c->has_px = true;
    c->px.options.cache_capacity = c->options.cache_capacity;
    c->px.options.cache_page = c->options.cache_page;
    c->px.options.cache_ring = c->options.cache_ring;
    if (c->options.cache_ring < 0 && gears_exceed(c, PASS_RING_ROOM))
        c->px.options.cache_ring = 0; /* gears share their caches */
    if (c->options.precision) {
        c->px.options.precision = c->options.precision->precision;
        c->px.options.integer = c->options.precision->integer;
        c->px.options.whole = c->options.precision->whole;
    }
    c->px.options.strict = c->options.strict;
    c->px.options.division = c->options.division;
    c->px.options.plain_maps = c->options.plain_maps;
    c->px.options.quantiser = c->quantiser.product ? &c->quantiser : NULL;
    struct pass_run run = {
        .verify_each = c->options.verify_each, .stop_after = c->options.stop_after, .dump_dir = c->options.dump_dir};
    s = pass_run_all(&c->px, steps, n, &run);
    if (s == NPUC_OK && c->options.recipe)
        s = quant_recipe_check_used(&c->recipe, &c->diag);
    if (s == NPUC_OK)
        stage_done(
            c, "passes",
            arena_printf(&c->arena, "%lld -> %lld nodes", (long long)c->n_imported, (long long)count_nodes(c->module)));
    if (s == NPUC_OK && c->on_optimised)
        s = c->on_optimised(c->hook_user, c->module->funcs.data[0]);
    return s;
}

static enum npuc_status step_emit(struct compilation *c, const char *model, const char *plan)
{
    enum npuc_status s = step_optimise(c, model, plan);
    if (s != NPUC_OK)
        return s;
    plan_init(&c->plan);
    c->has_plan = true;
    s = gears_emit(c, model);
    if (s == NPUC_OK)
        s = compilation_fits(c);
    for (int64_t i = 0; i < c->plan.tensors.len && c->options.without_weights; i++)
        if (c->plan.tensors.data[i].kind == PT_WEIGHT)
            c->plan.tensors.data[i].data_size = -1;
    if (s == NPUC_OK)
        stage_done(c, "kernels",
                   arena_printf(&c->arena, "%lld kernels, %lld steps", (long long)c->plan.kernels.len,
                                (long long)c->plan.steps.len));
    return s;
}

/* Integer modes have stand-ins for scales and codes. */
static enum npuc_status check_can_run(struct compilation *c)
{
    const struct precision_mode *p = c->options.precision;
    if (!p || p->integer == DT_NONE || c->options.without_weights)
        return NPUC_OK;
    return diag_error(&c->diag, NULL, D_USAGE,
                      arena_printf(&c->arena,
                                   "precision %s: its scales are not known, so that such a plan can be timed (npuc "
                                   "estimate) but not run; quantise the model first (QDQ or MatMulInteger), or use "
                                   "fp32, fp16 or bf16",
                                   p->name));
}

static enum npuc_status step_write(struct compilation *c, const char *model, const char *plan)
{
    enum npuc_status s = check_can_run(c);
    if (s == NPUC_OK)
        s = step_emit(c, model, plan);
    if (s != NPUC_OK)
        return s;
    s = plan_write(&c->plan, plan, &c->weights, &c->diag);
    if (s == NPUC_OK)
        stage_done(c, "write", plan);
    return s;
}

enum npuc_status compilation_import(struct compilation *c, const char *model)
{
    return guarded(c, step_import, model, NULL);
}

enum npuc_status compilation_optimise(struct compilation *c, const char *model)
{
    return guarded(c, step_optimise, model, NULL);
}

enum npuc_status compilation_emit(struct compilation *c, const char *model)
{
    return guarded(c, step_emit, model, NULL);
}

enum npuc_status compilation_write(struct compilation *c, const char *model, const char *plan)
{
    return guarded(c, step_write, model, plan);
}
