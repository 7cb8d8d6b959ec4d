/* A small plan with every kind of record, for the tests of plan/. */
#ifndef TESTS_UNIT_PLAN_SAMPLE_H
#define TESTS_UNIT_PLAN_SAMPLE_H

#include <string.h>

#include "kernels/vec.h"
#include "plan/plan.h"
#include "targets/target.h"

static inline sym sample_sym(struct plan *p, const char *s)
{
    return str_internz(&p->strings, s);
}

/* c[m, 32] = a[m, 16] x b, then doubled by the vector core; flags and cross-core flags included. */
static inline struct tile_kernel *sample_kernel(struct plan *p)
{
    struct tile_kernel *k = tile_kernel_new(&p->arena, &p->strings, "sample");
    struct tile_builder b = {.k = k, .arena = &p->arena};
    struct expr_pool *x = &k->exprs;
    const expr m = tile_param(k, "m", (struct expr_range){1, 4096, 1});
    tile_params_done(k);
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), c16 = expr_const(x, 16), c32 = expr_const(x, 32);
    const expr block = expr_sym(x, k->sym_block);
    k->blocks = expr_ceildiv(x, m, c16);
    const int32_t ta = tile_tensor(k, &p->arena, "a", DT_F16, true, false),
                  tb = tile_tensor(k, &p->arena, "b", DT_F16, true, false);
    const int32_t tc = tile_tensor(k, &p->arena, "c", DT_F32, true, true);
    tile_section_begin(&b, TCORE_CUBE);
    const int32_t l1a = tile_buf(&b, "l1a", TS_L1, DT_F16, 2, 1024), l1b = tile_buf(&b, "l1b", TS_L1, DT_F16, 1, 1024);
    const int32_t l0a = tile_buf(&b, "l0a", TS_L0A, DT_F16, 1, 512), l0b = tile_buf(&b, "l0b", TS_L0B, DT_F16, 1, 1024);
    const int32_t l0c = tile_buf(&b, "l0c", TS_L0C, DT_F32, 1, 2048);
    k->section[TCORE_CUBE].bufs.data[l1a].base = 0;
    k->section[TCORE_CUBE].bufs.data[l1b].base = 2048;
    k->section[TCORE_CUBE].bufs.data[l0a].base = k->section[TCORE_CUBE].bufs.data[l0b].base = 0;
    k->section[TCORE_CUBE].bufs.data[l0c].base = 0;
    tile_note(&b, "one tile of rows");
    const expr i = tile_loop(&b, "i", one);
    const expr row = expr_add(x, expr_mul(x, block, c16), i);
    TILE(&b, LOAD_NZ, l1a, zero, c16, ta, expr_mul(x, row, c16), DT_F16, expr_min(x, c16, expr_sub(x, m, row)), c16,
         c16, one);
    TILE(&b, LOAD_NZ, l1b, zero, c32, tb, zero, DT_F16, c32, c16, c16, one);
    TILE(&b, SET, TU_MTE2, TU_MTE1, 0, l1a);
    TILE(&b, WAIT, TU_MTE2, TU_MTE1, 0, l1a);
    TILE(&b, COPY_L0A, l0a, l1a, zero, c16, DT_F16, c16, c16, 0);
    TILE(&b, COPY_L0B, l0b, l1b, zero, c32, DT_F16, c32, c16, 0);
    TILE(&b, MAC, l0c, l0a, l0b, -1, DT_F16, c16, c32, c16, one);
    TILE(&b, FIXP, tc, expr_mul(x, row, c32), c32, l0c, c16, DT_F32, DT_F32, c16, c32, 0, -1, zero);
    TILE(&b, NEXT, l1a);
    tile_end(&b);
    TILE(&b, XSET, TU_FIX, 3);
    tile_section_begin(&b, TCORE_VECTOR);
    const int32_t ub = tile_buf(&b, "ub", TS_UB, DT_F32, 1, 2048);
    k->section[TCORE_VECTOR].bufs.data[ub].base = 64;
    TILE(&b, XWAIT, TU_MTE2, 3);
    const int32_t n = tile_var(&b, "n", (struct expr_range){0, 16, 1});
    TILE(&b, SLOAD, n, tb, DT_I32, zero, zero, c16, c16);
    tile_if(&b, tile_let(&b, "some", expr_cmp(x, EXPR_LT, zero, expr_sym(x, n))));
    TILE(&b, LOAD, ub, zero, tc, expr_mul(x, block, expr_const(x, 512)), DT_F32, one, one, one, expr_const(x, 512), one,
         one, one, one, one, one, one, one);
    TILE(&b, VEC, K_FN_Mul, DT_F32, c16, c32, ub, zero, c32, ub, zero, c32, 1, -1, tile_float_bits(2.0f), zero, 0, -1,
         zero, zero, 0, 0, 0, 0);
    TILE(&b, STORE, tc, expr_mul(x, block, expr_const(x, 512)), ub, zero, DT_F32, one, one, one, expr_const(x, 512),
         one, one, one, one, one, one, one, one);
    tile_end(&b);
    return k;
}

static inline int32_t sample_tensor(struct plan *p, const char *name, int kind, enum dtype t, const expr dims[2],
                                    expr size)
{
    const struct plan_tensor x = {.name = sample_sym(p, name),
                                  .kind = (uint8_t)kind,
                                  .dtype = (uint8_t)t,
                                  .layout = PL_ND,
                                  .rank = 2,
                                  .dims = arena_copy(&p->arena, dims, 2 * (int64_t)sizeof(expr)),
                                  .size = size,
                                  .base = -1};
    vec_push(&p->arena, &p->tensors, x);
    return (int32_t)p->tensors.len - 1;
}

static inline void sample_target(struct plan *p, struct diag *d)
{
    struct target t;
    const char *const *keys, *const *values;
    if (target_load(&t, "ascend-910b1", d))
        return;
    const int64_t n = target_to_pairs(&t, &p->arena, &keys, &values);
    for (int64_t i = 0; i < n; i++) {
        const struct plan_pair pair = {sample_sym(p, keys[i]), sample_sym(p, values[i])};
        vec_push(&p->arena, &p->target, pair);
    }
    p->target_name = sample_sym(p, "ascend-910b1");
    target_free(&t);
}

static inline void sample_steps(struct plan *p, expr m, expr half)
{
    static const int32_t launch[] = {0, 1, 2}, host[] = {2, -1, 3}, sizes[] = {4};
    static const int64_t perm[] = {1, 0};
    static const int32_t binds[] = {0, 1, 0};
    const expr *params = arena_copy(&p->arena, &m, (int64_t)sizeof m),
               *elems = arena_copy(&p->arena, &half, (int64_t)sizeof half);
    struct plan_attr *attrs = ARENA_ARRAY(&p->arena, struct plan_attr, 3);
    attrs[0] = (struct plan_attr){.name = sample_sym(p, "perm"), .kind = 3, .len = 2, .v.ints = perm};
    attrs[1] = (struct plan_attr){.name = sample_sym(p, "alpha"), .kind = 1, .v.f = 0.5f};
    attrs[2] = (struct plan_attr){.name = sample_sym(p, "mode"), .kind = 2, .len = 4, .v.s = sample_sym(p, "edge")};
    const struct plan_step steps[] = {
        {.kind = PS_LAUNCH,
         .op = sample_sym(p, "MatMul"),
         .n_in = 3,
         .tensors = launch,
         .n_params = 1,
         .params = params,
         .work = half},
        {.kind = PS_HOST,
         .op = sample_sym(p, "Transpose"),
         .n_in = 2,
         .n_out = 1,
         .tensors = host,
         .n_attrs = 3,
         .attrs = attrs,
         .n_binds = 1,
         .binds = binds,
         .source = -1,
         .reason = sample_sym(p, "a test"),
         .guard = half},
        {.kind = PS_SIZES,
         .op = sample_sym(p, "Shape"),
         .n_out = 1,
         .tensors = sizes,
         .n_params = 1,
         .params = elems,
         .source = -1},
    };
    for (int i = 0; i < 3; i++)
        vec_push(&p->arena, &p->steps, steps[i]);
}

static inline void sample_plan(struct plan *p, struct diag *d)
{
    static const int32_t inputs[] = {0}, outputs[] = {3, 4};
    static const uint8_t optional[] = {1};
    plan_init(p);
    sample_target(p, d);
    p->model_name = sample_sym(p, "model");
    struct expr_pool *x = &p->exprs;
    const expr m = expr_sym(x, expr_symbol_new(x, sample_sym(p, "seq"), (struct expr_range){1, 4096, 1}));
    const expr c16 = expr_const(x, 16), c32 = expr_const(x, 32),
               half = expr_floordiv(x, expr_add(x, m, c16), expr_const(x, 2));
    (void)expr_mul(x, m, half); /* not used: not stored */
    sample_tensor(p, "x", PT_INPUT, DT_F16, (expr[]){m, c16}, expr_mul_const(x, m, 32));
    sample_tensor(p, "w", PT_WEIGHT, DT_F16, (expr[]){c32, c16}, expr_const(x, 1024));
    sample_tensor(p, "y", PT_TEMP, DT_F32, (expr[]){m, c32}, expr_mul_const(x, m, 128));
    sample_tensor(p, "z", PT_OUTPUT, DT_F32, (expr[]){c32, m}, expr_mul_const(x, m, 128));
    sample_tensor(p, "n", PT_OUTPUT, DT_I64, (expr[]){m, m}, expr_const(x, 8));
    sample_tensor(p, "k", PT_CACHE, DT_F32, (expr[]){c32, c16}, expr_const(x, 2048));
    const int32_t view = sample_tensor(p, "k.past", PT_ALIAS, DT_F32, (expr[]){m, c16}, expr_const(x, 2048));
    struct plan_tensor *t = p->tensors.data;
    t[1].data_size = p->weights_size = 1024;
    t[2].last = 1;
    t[view].base = 5;
    t[view].base_offset = expr_const(x, 0);
    t[view].layout = PL_CACHE;
    t[view].capacity = c32;
    struct tile_kernel *k = sample_kernel(p);
    vec_push(&p->arena, &p->kernels, k);
    sample_steps(p, m, half);
    struct plan_cache *c = ARENA_NEW(&p->arena, struct plan_cache);
    *c = (struct plan_cache){.tensor = 5,
                             .input = t[view].name,
                             .output = sample_sym(p, "k.present"),
                             .in_tensor = view,
                             .out_tensor = view,
                             .past = m,
                             .present = half,
                             .grows = true,
                             .turn = -1,
                             .back = -1};
    const struct plan_entry e = {.name = sample_sym(p, "main"),
                                 .n_steps = 3,
                                 .n_inputs = 1,
                                 .n_outputs = 2,
                                 .inputs = inputs,
                                 .outputs = outputs,
                                 .input_optional = optional,
                                 .n_caches = 1,
                                 .caches = c};
    vec_push(&p->arena, &p->entries, e);
    sym *nodes = arena_copy(&p->arena, &p->model_name, (int64_t)sizeof(sym));
    const struct plan_source s = {.label = sample_sym(p, "layer0"), .n = 1, .nodes = nodes};
    vec_push(&p->arena, &p->sources, s);
    const struct plan_pair made = {sample_sym(p, "version"), sample_sym(p, "test")};
    vec_push(&p->arena, &p->record, made);
}

static inline enum npuc_status sample_weight(void *user, int32_t tensor, struct file_writer *w)
{
    uint8_t bytes[1024];
    (void)user;
    for (int i = 0; i < 1024; i++)
        bytes[i] = (uint8_t)(i * 7 + tensor);
    file_writer_put(w, bytes, 500);
    file_writer_put(w, bytes + 500, 524);
    return NPUC_OK;
}
static const struct plan_weight_source sample_weights = {sample_weight, NULL};

#endif
