/* The records of a plan file: one function per record, used for writing and for reading. The order of the lines is the
 * order of the bytes. */
#include "plan/coder_priv.h"

#include <string.h>

enum {
    STRING_MIN = 4,
    TENSOR_MIN = 56,
    KERNEL_MIN = 32,
    STEP_MIN = 53,
    ATTR_MIN = 9,
    ENTRY_MIN = 28,
    SOURCE_MIN = 12,
    PAIR_MIN = 8
};
enum { CACHE_MIN = 79, BUF_MIN = 26, INSN_MIN = 4, KERNEL_TENSOR_MIN = 11 };

static void code_strings(struct coder *c)
{
    const int64_t n = code_count(c, c->names->entries.len - 1, STRING_MIN);
    for (int64_t i = 1; i <= n && !c->error; i++) {
        int64_t len = code_count(c, code_reading(c) ? 0 : str_len(c->names, (sym)i), 1);
        if (code_reading(c)) {
            if (len > PLAN_MAX_STRING || str_intern(c->names, (const char *)c->p, len) != (sym)i)
                code_fail(c, len > PLAN_MAX_STRING ? "a string is too long" : "a string is repeated");
            else
                c->p += len;
            continue;
        }
        for (int64_t k = 0; k < len; k++)
            vec_push(c->arena, &c->out, (uint8_t)str_text(c->names, (sym)i)[k]);
    }
}

static void code_tensor(struct coder *c, struct plan_tensor *t)
{
    code_sym(c, &t->name);
    code_u8(c, &t->kind);
    code_dtype(c, &t->dtype);
    code_u8(c, &t->layout);
    uint8_t axis = (uint8_t)t->axis;
    code_u8(c, &axis);
    t->axis = (int8_t)axis;
    code_i32(c, &t->c0);
    t->rank = (int32_t)code_count(c, t->rank, 4);
    code_expr_list(c, t->rank, &t->dims);
    code_expr(c, &t->capacity);
    code_expr(c, &t->size);
    code_i32(c, &t->base);
    code_expr(c, &t->base_offset);
    code_i32(c, &t->first);
    code_i32(c, &t->last);
    code_i64(c, &t->data_offset);
    code_i64(c, &t->data_size);
    if (t->kind == PT_TEMP)
        code_i32(c, &t->parts);
}

/* ---- kernels ---------------------------------------------------------------------------------------------- */

static void code_insn_field(struct coder *c, struct tile_insn *in, int f)
{
    const enum tile_field_kind kind = tile_insn_table[in->op].fields[f].kind;
    if (kind == TF_DTYPE) {
        uint8_t t = (uint8_t)in->arg[f];
        code_dtype(c, &t);
        in->arg[f] = t;
    } else if (kind == TF_EXPR && tile_arg_is_expr(in, f)) {
        code_expr(c, &in->arg[f]);
    } else {
        code_i32(c, &in->arg[f]);
    }
}

static void code_insn(struct coder *c, struct tile_insn *in)
{
    code_u16(c, &in->op);
    code_u16(c, &in->line);
    if (in->op >= TILE_OP_END || !tile_insn_table[in->op].name) {
        code_fail(c, "there is no such instruction");
        in->op = TILE_none;
        return;
    }
    for (int f = 0; f < tile_insn_table[in->op].n_fields; f++)
        code_insn_field(c, in, f);
}

static void code_buf(struct coder *c, struct tile_buf *b)
{
    code_sym(c, &b->name);
    code_u8(c, &b->space);
    code_dtype(c, &b->dtype);
    code_i32(c, &b->slots);
    code_i64(c, &b->slot_size);
    code_i64(c, &b->base);
}

static void code_tile_section(struct coder *c, struct tile_section *s)
{
    CODE_VEC(c, &s->bufs, BUF_MIN);
    for (int64_t i = 0; i < s->bufs.len; i++)
        code_buf(c, &s->bufs.data[i]);
    CODE_VEC(c, &s->code, INSN_MIN);
    for (int64_t i = 0; i < s->code.len && !c->error; i++)
        code_insn(c, &s->code.data[i]);
}

static void code_kernel_fields(struct coder *c, struct tile_kernel *k)
{
    code_i32(c, &k->n_params);
    code_i32(c, &k->sym_block);
    code_i32(c, &k->sym_sub);
    code_expr(c, &k->blocks);
    CODE_VEC(c, &k->tensors, KERNEL_TENSOR_MIN);
    for (int64_t i = 0; i < k->tensors.len; i++) {
        struct tile_tensor *t = &k->tensors.data[i];
        code_sym(c, &t->name);
        code_dtype(c, &t->dtype);
        code_bool(c, &t->is_input);
        code_bool(c, &t->is_output);
        code_expr(c, &t->bypass);
    }
    CODE_VEC(c, &k->notes, 4);
    for (int64_t i = 0; i < k->notes.len; i++)
        code_sym(c, &k->notes.data[i]);
    for (int s = 0; s < TCORE_COUNT; s++) {
        code_bool(c, &k->has[s]);
        k->section[s].core = (enum tile_core)s;
        if (k->has[s])
            code_tile_section(c, &k->section[s]);
    }
}

/* A kernel has its own pool: its expressions come first, so that they are there when its code is read. */
static void code_kernel(struct coder *c, struct tile_kernel *k)
{
    const struct expr_numbers outer = c->exprs;
    const struct strtab *from = c->from;
    const enum coder_mode mode = c->mode;
    if (mode == CODER_READ) {
        expr_pool_init(&k->exprs, c->arena, c->names);
        c->exprs = (struct expr_numbers){.pool = &k->exprs};
    } else {
        c->from = k->exprs.strings;
        expr_numbers_begin(c, &k->exprs);
        c->mode = CODER_MARK;
        code_kernel_fields(c, k);
        expr_numbers_assign(c);
        c->mode = mode;
    }
    code_sym(c, &k->name);
    code_pool(c);
    code_kernel_fields(c, k);
    c->exprs = outer;
    c->from = from;
}

static void code_kernels(struct coder *c, struct plan *p)
{
    CODE_VEC(c, &p->kernels, KERNEL_MIN);
    for (int64_t i = 0; i < p->kernels.len && !c->error; i++) {
        if (code_reading(c))
            p->kernels.data[i] = ARENA_NEW(c->arena, struct tile_kernel);
        if (c->mode != CODER_MARK) /* their pools are their own */
            code_kernel(c, p->kernels.data[i]);
    }
}

/* ---- schedule --------------------------------------------------------------------------------------------- */

static void code_f32(struct coder *c, float *v)
{
    int32_t bits;
    memcpy(&bits, v, sizeof bits);
    code_i32(c, &bits);
    memcpy(v, &bits, sizeof bits);
}

static void code_f64(struct coder *c, double *v)
{
    int64_t bits;
    memcpy(&bits, v, sizeof bits);
    code_i64(c, &bits);
    memcpy(v, &bits, sizeof bits);
}

enum { ATTR_INT, ATTR_FLOAT, ATTR_STRING, ATTR_INTS, ATTR_FLOATS, ATTR_STRINGS, ATTR_TENSOR };

static void code_attr_list(struct coder *c, struct plan_attr *a)
{
    a->len = code_count(c, a->len, a->kind == ATTR_INTS ? 8 : 4);
    if (a->kind == ATTR_INTS) {
        int64_t *v = code_list(c, a->v.ints, a->len, (int64_t)sizeof *v);
        for (int64_t i = 0; i < a->len; i++)
            code_i64(c, &v[i]);
        a->v.ints = v;
    } else if (a->kind == ATTR_FLOATS) {
        float *v = code_list(c, a->v.floats, a->len, (int64_t)sizeof *v);
        for (int64_t i = 0; i < a->len; i++)
            code_f32(c, &v[i]);
        a->v.floats = v;
    } else {
        code_sym_list(c, (int32_t)a->len, &a->v.strings);
    }
}

static void code_attr(struct coder *c, struct plan_attr *a)
{
    code_sym(c, &a->name);
    code_u8(c, &a->kind);
    switch (a->kind) {
    case ATTR_INT: code_i64(c, &a->v.i); break;
    case ATTR_FLOAT: code_f32(c, &a->v.f); break;
    case ATTR_TENSOR: code_i32(c, &a->v.tensor); break;
    case ATTR_STRING:
        code_sym(c, &a->v.s);
        if (code_reading(c))
            a->len = str_len(c->names, a->v.s);
        break;
    case ATTR_INTS:
    case ATTR_FLOATS:
    case ATTR_STRINGS: code_attr_list(c, a); break;
    default: code_fail(c, "an attribute has an unknown kind"); break;
    }
}

static void code_copies(struct coder *c, struct plan_step *s)
{
    code_i32(c, &s->copies);
    uint8_t *divided = s->copies > 0 ? code_list(c, s->divided, s->n_in, 1) : NULL;
    for (int32_t i = 0; divided && i < s->n_in; i++)
        code_u8(c, &divided[i]);
    s->divided = divided;
}

static void code_step(struct coder *c, struct plan_step *s)
{
    code_u8(c, &s->kind);
    code_expr(c, &s->guard);
    code_i32(c, &s->kernel);
    code_sym(c, &s->op);
    s->n_in = (int32_t)code_count(c, s->n_in, 4);
    s->n_out = (int32_t)code_count(c, s->n_out, 4);
    if (code_reading(c) && ((int64_t)s->n_in + s->n_out) * 4 > c->end - c->p) {
        code_fail(c, "a count exceeds the bytes that are left");
        s->n_in = s->n_out = 0;
    }
    code_i32_list(c, s->n_in + s->n_out, &s->tensors);
    s->n_params = (int32_t)code_count(c, s->n_params, 4);
    code_expr_list(c, s->n_params, &s->params);
    s->n_attrs = (int32_t)code_count(c, s->n_attrs, ATTR_MIN);
    struct plan_attr *attrs = code_list(c, s->attrs, s->n_attrs, (int64_t)sizeof *attrs);
    for (int32_t i = 0; i < s->n_attrs; i++)
        code_attr(c, &attrs[i]);
    s->attrs = attrs;
    s->n_binds = (int32_t)code_count(c, s->n_binds, 12);
    code_i32_list(c, 3 * s->n_binds, &s->binds);
    code_i32(c, &s->source);
    code_sym(c, &s->reason);
    code_f64(c, &s->macs);
    code_expr(c, &s->work);
    for (int i = 0; plan_step_nests(s->kind) && i < 2; i++)
        code_i32(c, &s->n_body[i]);
    if (s->kind == PS_LAUNCH)
        code_copies(c, s);
}

static void code_cache(struct coder *c, struct plan_cache *k)
{
    code_i32(c, &k->tensor);
    code_sym(c, &k->input);
    code_sym(c, &k->output);
    code_i32(c, &k->in_tensor);
    code_i32(c, &k->out_tensor);
    uint8_t axis = (uint8_t)k->axis;
    code_u8(c, &axis);
    k->axis = (int8_t)axis;
    code_expr(c, &k->past);
    code_expr(c, &k->present);
    code_bool(c, &k->grows);
    code_bool(c, &k->placed);
    code_u8(c, &k->code);
    code_bool(c, &k->shifted);
    code_i32(c, &k->scales);
    code_i32(c, &k->turn);
    code_i32(c, &k->back);
    code_i64(c, &k->page);
    code_i32(c, &k->table);
    code_i64(c, &k->ring);
    code_i64(c, &k->window);
    code_i64(c, &k->capacity);
}

static void code_shapes(struct coder *c, struct plan_entry *e)
{
    struct plan_shape *shapes = code_list(c, e->shapes, e->n_inputs, (int64_t)sizeof *shapes), none = {0};
    for (int32_t i = 0; i < e->n_inputs; i++) {
        struct plan_shape *s = shapes ? &shapes[i] : &none;
        s->n = (int32_t)code_count(c, s->n, 4);
        code_expr_list(c, s->n, &s->dims);
    }
    e->shapes = shapes;
    e->n_fixed = (int32_t)code_count(c, e->n_fixed, 12);
    struct plan_fixed *fixed = code_list(c, e->fixed, e->n_fixed, (int64_t)sizeof *fixed);
    for (int32_t i = 0; i < e->n_fixed; i++) {
        code_i32(c, &fixed[i].symbol);
        code_i64(c, &fixed[i].value);
    }
    e->fixed = fixed;
}

static void code_entry(struct coder *c, struct plan_entry *e)
{
    code_sym(c, &e->name);
    code_i32(c, &e->first_step);
    code_i32(c, &e->n_steps);
    e->n_inputs = (int32_t)code_count(c, e->n_inputs, 5);
    code_i32_list(c, e->n_inputs, &e->inputs);
    uint8_t *optional = code_list(c, e->input_optional, e->n_inputs, 1);
    for (int32_t i = 0; i < e->n_inputs; i++) {
        uint8_t none = 0;
        code_u8(c, optional ? &optional[i] : &none);
    }
    e->input_optional = optional;
    code_shapes(c, e);
    e->n_outputs = (int32_t)code_count(c, e->n_outputs, 4);
    code_i32_list(c, e->n_outputs, &e->outputs);
    e->n_caches = (int32_t)code_count(c, e->n_caches, CACHE_MIN);
    struct plan_cache *caches = code_list(c, e->caches, e->n_caches, (int64_t)sizeof *caches);
    for (int32_t i = 0; i < e->n_caches; i++)
        code_cache(c, &caches[i]);
    e->caches = caches;
}

static void code_source(struct coder *c, struct plan_source *s)
{
    code_sym(c, &s->label);
    code_sym(c, &s->fused_as);
    s->n = (int32_t)code_count(c, s->n, 4);
    code_sym_list(c, s->n, &s->nodes);
}

static void code_pair(struct coder *c, struct plan_pair *pair)
{
    code_sym(c, &pair->key);
    code_sym(c, &pair->value);
}

#define CODE_ALL(c, v, min_size, code)                                                                                 \
    do {                                                                                                               \
        CODE_VEC(c, v, min_size);                                                                                      \
        for (int64_t i_ = 0; i_ < (v)->len && !(c)->error; i_++)                                                       \
            code((c), &(v)->data[i_]);                                                                                 \
    } while (0)

void code_section(struct coder *c, struct plan *p, int section)
{
    switch (section) {
    case PSEC_STRINGS: code_strings(c); break;
    case PSEC_EXPRS: code_pool(c); break;
    case PSEC_TENSORS: CODE_ALL(c, &p->tensors, TENSOR_MIN, code_tensor); break;
    case PSEC_KERNELS: code_kernels(c, p); break;
    case PSEC_STEPS: CODE_ALL(c, &p->steps, STEP_MIN, code_step); break;
    case PSEC_ENTRIES: CODE_ALL(c, &p->entries, ENTRY_MIN, code_entry); break;
    case PSEC_SOURCES: CODE_ALL(c, &p->sources, SOURCE_MIN, code_source); break;
    case PSEC_TARGET:
        code_sym(c, &p->target_name);
        CODE_ALL(c, &p->target, PAIR_MIN, code_pair);
        break;
    case PSEC_RECORD:
        code_sym(c, &p->model_name);
        CODE_ALL(c, &p->record, PAIR_MIN, code_pair);
        break;
    default: break;
    }
}
