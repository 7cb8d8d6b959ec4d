/* Primitive fields of plan records, both directions; little-endian regardless of the host. */
#include "plan/coder_priv.h"

#include <string.h>

void plan_put_u32(uint8_t *to, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(v >> 8 * i);
}

void plan_put_u64(uint8_t *to, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(v >> 8 * i);
}

uint32_t plan_get_u32(const uint8_t *from)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v |= (uint32_t)from[i] << 8 * i;
    return v;
}

uint64_t plan_get_u64(const uint8_t *from)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v |= (uint64_t)from[i] << 8 * i;
    return v;
}

bool code_reading(const struct coder *c)
{
    return c->mode == CODER_READ;
}

void code_fail(struct coder *c, const char *error)
{
    if (!c->error)
        c->error = error;
    c->p = c->end;
}

static uint64_t code_uint(struct coder *c, uint64_t v, int size)
{
    if (c->mode == CODER_WRITE) {
        for (int i = 0; i < size; i++)
            vec_push(c->arena, &c->out, (uint8_t)(v >> 8 * i));
        return v;
    }
    if (c->mode == CODER_MARK)
        return v;
    if (c->end - c->p < size) {
        code_fail(c, "it ends in the middle of a record");
        return 0;
    }
    v = 0;
    for (int i = 0; i < size; i++)
        v |= (uint64_t)c->p[i] << 8 * i;
    c->p += size;
    return v;
}

void code_u8(struct coder *c, uint8_t *v)
{
    const uint64_t x = code_uint(c, *v, 1);
    if (code_reading(c))
        *v = (uint8_t)x;
}

void code_bool(struct coder *c, bool *v)
{
    const uint64_t x = code_uint(c, *v, 1);
    if (x > 1)
        code_fail(c, "a yes/no field holds neither");
    if (code_reading(c))
        *v = x == 1;
}

void code_u16(struct coder *c, uint16_t *v)
{
    const uint64_t x = code_uint(c, *v, 2);
    if (code_reading(c))
        *v = (uint16_t)x;
}

void code_i32(struct coder *c, int32_t *v)
{
    const uint64_t x = code_uint(c, (uint32_t)*v, 4);
    if (code_reading(c))
        *v = (int32_t)(uint32_t)x;
}

void code_i64(struct coder *c, int64_t *v)
{
    const uint64_t x = code_uint(c, (uint64_t)*v, 8);
    if (code_reading(c))
        *v = (int64_t)x;
}

void code_sym(struct coder *c, sym *v)
{
    uint64_t x = 0;
    if (c->mode == CODER_WRITE)
        x = str_intern(c->names, str_text(c->from, *v), str_len(c->from, *v));
    x = code_uint(c, x, 4);
    if (!code_reading(c))
        return;
    if (x >= (uint64_t)c->names->entries.len) {
        code_fail(c, "a string number is out of range");
        x = 0;
    }
    *v = (sym)x;
}

void code_dtype(struct coder *c, uint8_t *v)
{
    const uint64_t x = code_uint(c, *v ? (uint64_t)dtype_table[*v].onnx : 0, 1);
    if (!code_reading(c))
        return;
    *v = x ? (uint8_t)dtype_from_onnx((int64_t)x) : DT_NONE;
    if (x && *v == DT_NONE)
        code_fail(c, "an element type is unknown");
}

void code_expr(struct coder *c, expr *v)
{
    uint64_t x = 0;
    if (c->mode == CODER_MARK && *v)
        c->exprs.number[*v] = 1;
    if (c->mode == CODER_WRITE)
        x = *v ? (uint64_t)c->exprs.number[*v] : 0;
    x = code_uint(c, x, 4);
    if (!code_reading(c))
        return;
    if (x >= (uint64_t)c->exprs.pool->nodes.len) {
        code_fail(c, "an expression number is out of range");
        x = 0;
    }
    *v = (expr)x;
}

int64_t code_count(struct coder *c, int64_t n, int64_t min_size)
{
    const uint64_t x = code_uint(c, (uint64_t)n, 4);
    if (!code_reading(c))
        return n;
    if (x > (uint64_t)((c->end - c->p) / min_size)) {
        code_fail(c, "a count exceeds the bytes that are left");
        return 0;
    }
    return (int64_t)x;
}

void *code_list(struct coder *c, const void *list, int64_t n, int64_t size)
{
    if (code_reading(c))
        return n ? arena_array(c->arena, size, n) : NULL;
    void *same;
    memcpy(&same, &list, sizeof same); /* written records are not changed; the record functions take plain pointers */
    return same;
}

void code_expr_list(struct coder *c, int32_t n, const expr **list)
{
    expr *to = code_list(c, *list, n, (int64_t)sizeof *to);
    for (int32_t i = 0; i < n; i++)
        code_expr(c, &to[i]);
    *list = to;
}

void code_i32_list(struct coder *c, int32_t n, const int32_t **list)
{
    int32_t *to = code_list(c, *list, n, (int64_t)sizeof *to);
    for (int32_t i = 0; i < n; i++)
        code_i32(c, &to[i]);
    *list = to;
}

void code_sym_list(struct coder *c, int32_t n, const sym **list)
{
    sym *to = code_list(c, *list, n, (int64_t)sizeof *to);
    for (int32_t i = 0; i < n; i++)
        code_sym(c, &to[i]);
    *list = to;
}
