/* A compiled plan without the runtime: the graph of infer_unit.h is emitted for the target that NPUC_TEST_TARGET names
 * (ascend-910b1), and its launches run on the emulated cores with hazard checks. */
#ifndef TESTS_UNIT_BACKEND_UNIT_H
#define TESTS_UNIT_BACKEND_UNIT_H

#include "infer_unit.h"

#include <unistd.h>

#include "backend/backend.h"
#include "runtime/emu/emu.h"

struct backend_unit {
    struct infer_unit *f;
    struct target target;
    struct machine machine;
    struct plan plan;
    struct plan_weight_source weights;
    struct tiling tiling;
    int64_t symbols[16]; /* values of the plan's symbols */
    uint8_t *bytes[256]; /* per tensor */
    int64_t size[256];
    struct emu_machine *cores;
    int n_launched;
    bool unchecked; /* without hazard checks: moves may be views, and what is made of codes may be put off */
};

static inline void backend_setup(struct backend_unit *u, struct infer_unit *f)
{
    const char *target = getenv("NPUC_TEST_TARGET");
    memset(u, 0, sizeof *u);
    u->f = f;
    assert_int_equal(target_load(&u->target, target ? target : "ascend-910b1", &f->diag), NPUC_OK);
    assert_int_equal(machine_init(&u->machine, &u->target, &f->diag), NPUC_OK);
    u->cores = emu_machine_new(&u->target);
    plan_init(&u->plan);
    u->plan.arena.on_oom = unit_oom;
    f->m->arena.on_oom = unit_oom;
}

static inline void backend_teardown(struct backend_unit *u)
{
    for (int i = 0; i < 256; i++)
        free(u->bytes[i]);
    emu_machine_free(u->cores);
    plan_free(&u->plan);
    target_free(&u->target);
}

static inline void backend_compile(struct backend_unit *u)
{
    const struct backend_options o = {.tiling = &u->tiling};
    const enum npuc_status st = backend_emit(&u->f->cx, u->f->m, &u->machine, &o, &u->plan, &u->weights);
    if (st != NPUC_OK)
        fail_msg("%s", u->f->last);
}

static inline void backend_bind(struct backend_unit *u, const char *name, int64_t v)
{
    const int32_t s = expr_symbol_find(&u->plan.exprs, str_internz(&u->plan.strings, name));
    assert_in_range(s, 0, 15);
    u->symbols[s] = v;
}

static inline int64_t backend_value(struct backend_unit *u, expr e)
{
    int64_t v = 0;
    assert_true(expr_eval(&u->plan.exprs, e, u->symbols, &v));
    return v;
}

/* Bytes of a weight, through a file as plans are written. */
static inline void backend_weight(struct backend_unit *u, int32_t t)
{
    struct file_writer w;
    struct file_map map;
    char path[64];
    snprintf(path, sizeof path, "backend_unit_%d.tmp", (int)getpid());
    assert_int_equal(file_writer_open(&w, path, &u->f->diag), NPUC_OK);
    assert_int_equal(u->weights.put(u->weights.user, t, &w), NPUC_OK);
    assert_int_equal(file_writer_commit(&w, &u->f->diag), NPUC_OK);
    assert_int_equal(file_map_open(&map, path, &u->f->diag), NPUC_OK);
    assert_int_equal(map.size, u->plan.tensors.data[t].data_size);
    memcpy(u->bytes[t], map.data, (size_t)map.size);
    file_map_close(&map);
    unlink(path);
}

static inline void backend_allocate(struct backend_unit *u)
{
    assert_in_range(u->plan.tensors.len, 0, 256);
    for (int32_t i = 0; i < (int32_t)u->plan.tensors.len; i++) {
        const struct plan_tensor *t = &u->plan.tensors.data[i];
        if (t->kind == PT_ALIAS)
            continue;
        u->size[i] = backend_value(u, t->size);
        u->bytes[i] = calloc(1, (size_t)u->size[i] + 1);
        if (t->kind == PT_WEIGHT)
            backend_weight(u, i);
    }
}

/* A workspace of the step alone. */
static inline bool backend_is_brief(const struct backend_unit *u, const struct plan_step *s, int32_t i)
{
    const struct plan_tensor *t = &u->plan.tensors.data[i];
    const int64_t at = s - u->plan.steps.data;
    return t->kind == PT_TEMP && t->first == at && t->last == at;
}

static inline void backend_launch(struct backend_unit *u, const struct plan_step *s)
{
    int64_t params[64];
    struct emu_tensor tensors[32];
    struct emu_launch l = {.kernel = u->plan.kernels.data[s->kernel],
                           .params = params,
                           .tensors = tensors,
                           .machine = u->cores,
                           .target = &u->target,
                           .copies = s->copies};
    for (int32_t i = 0; i < s->n_params; i++)
        params[i] = backend_value(u, s->params[i]);
    for (int32_t i = 0; i < s->n_in; i++) {
        const struct plan_tensor *t = &u->plan.tensors.data[s->tensors[i]];
        const int32_t base = t->kind == PT_ALIAS ? t->base : s->tensors[i];
        tensors[i] = (struct emu_tensor){.data = u->bytes[base],
                                         .size = u->size[base],
                                         .address = (int64_t)base << 32,
                                         .part = s->copies > 0 && s->divided[i] ? u->size[base] / s->copies : 0,
                                         .read_only = t->kind == PT_WEIGHT,
                                         .brief = backend_is_brief(u, s, base),
                                         .dtype = (enum dtype)t->dtype};
    }
    assert_true(expr_eval(&l.kernel->exprs, l.kernel->blocks, params, &l.blocks));
    l.blocks *= s->copies > 1 ? s->copies : 1;
    if (emu_run_data(&l, NULL, !u->unchecked) != NPUC_OK) {
        struct arena a;
        unit_arena(&a);
        fail_msg("%s\n%s", l.error, tile_kernel_text(l.kernel, &a));
    }
    u->n_launched++;
}

static inline void backend_run(struct backend_unit *u)
{
    u->n_launched = 0;
    for (int64_t i = 0; i < u->plan.steps.len; i++) {
        const struct plan_step *s = &u->plan.steps.data[i];
        if (s->guard != EXPR_INVALID && !backend_value(u, s->guard))
            continue;
        assert_int_equal(s->kind, PS_LAUNCH);
        backend_launch(u, s);
    }
}

static inline uint8_t *backend_bytes(struct backend_unit *u, const char *name)
{
    const sym want = str_internz(&u->plan.strings, name);
    for (int64_t i = 0; i < u->plan.tensors.len; i++)
        if (u->plan.tensors.data[i].name == want && u->plan.tensors.data[i].kind != PT_ALIAS)
            return u->bytes[i];
    fail_msg("no tensor '%s'", name);
    return NULL;
}

static inline void backend_yield(struct infer_unit *f, int n, struct value *const *v)
{
    (void)ir_new(&f->b, OP_Yield, n, v, 0);
}

#endif
