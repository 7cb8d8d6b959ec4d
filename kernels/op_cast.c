/* Cast, CastLike, BitCast and casts to and from strings. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "kernels/op.h"

/* Powers of two for f8e8m0: the exponent that `mode` (up, down, nearest) asks for; from there on nothing is rounded. */
static uint8_t scale_code(float v, const char *mode, bool saturate)
{
    if (!strcmp(mode, "nearest"))
        return half_f32_to_small(DT_F8E8M0, v, saturate);
    if (!(fabsf(v) < INFINITY))
        return v == v && saturate ? 0xfe : 0xff;
    return half_f32_to_e8m0(v, strcmp(mode, "up") ? HALF_DOWN : HALF_UP, saturate);
}
static enum npuc_status to_scale(struct k_call *c, const struct k_tensor *x)
{
    const char *mode = k_attr_str(c, "round_mode", "up");
    const bool saturate = k_attr_int(c, "saturate", 1);
    uint8_t *y = k_out(c, 0, DT_F8E8M0, x->rank, x->dims);
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0; i < k_count(x); i++) {
        float v;
        k_load_f32(&v, x->dtype, x->data, i, 1);
        y[i] = scale_code(v, mode, saturate);
    }
    return NPUC_OK;
}

static enum npuc_status from_text(struct k_call *c, const struct k_tensor *x, enum dtype to)
{
    if (!k_out(c, 0, to, x->rank, x->dims))
        return k_no_memory(c);
    const struct k_string *s = x->data;
    for (int64_t i = 0; i < k_count(x); i++) {
        char text[64] = {0};
        char *end;
        memcpy(text, s[i].text, (size_t)(s[i].len < 63 ? s[i].len : 63));
        if (dtype_is_integer(to)) {
            const long long v = strtoll(text, &end, 10);
            if (end == text)
                return k_fail(c, NPUC_E_INVALID, "\"%s\" is no number", text);
            k_set_i64(&c->out[0], i, v);
        } else {
            const double v = strtod(text, &end);
            if (end == text)
                return k_fail(c, NPUC_E_INVALID, "\"%s\" is no number", text);
            k_set_f64(&c->out[0], i, v);
        }
    }
    return NPUC_OK;
}
static enum npuc_status to_text(struct k_call *c, const struct k_tensor *x)
{
    struct k_string *y = k_out(c, 0, DT_STRING, x->rank, x->dims);
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0; i < k_count(x); i++) {
        const char *text = dtype_is_float(x->dtype) ? arena_printf(c->arena, "%.9g", k_get_f64(x, i))
                                                    : arena_printf(c->arena, "%lld", (long long)k_get_i64(x, i));
        if (!text)
            return k_no_memory(c);
        y[i] = (struct k_string){text, (int64_t)strlen(text)};
    }
    return NPUC_OK;
}

static enum npuc_status cast_to(struct k_call *c, enum dtype to)
{
    const struct k_tensor *x = c->in[0];
    if (to == x->dtype)
        return k_op_identity(c);
    if (x->dtype == DT_STRING && k_wide_of(to) != K_WIDE_NONE)
        return from_text(c, x, to);
    if (k_wide_of(x->dtype) == K_WIDE_NONE || (k_wide_of(to) == K_WIDE_NONE && to != DT_STRING))
        return k_fail(c, NPUC_E_UNSUPPORTED, "no conversion from %s to %s", dtype_table[x->dtype].name,
                      dtype_table[to].name);
    if (to == DT_STRING)
        return to_text(c, x);
    if (to == DT_F8E8M0)
        return to_scale(c, x);
    void *y = k_out(c, 0, to, x->rank, x->dims);
    if (!y)
        return k_no_memory(c);
    memset(y, 0, (size_t)c->out[0].size);
    k_cast(to, y, x->dtype, x->data, k_count(x), k_attr_int(c, "saturate", 1) != 0);
    return NPUC_OK;
}

enum npuc_status k_op_cast(struct k_call *c)
{
    return k_has(c, 1, 1) ? cast_to(c, dtype_from_onnx(k_attr_int(c, "to", 0))) : NPUC_E_INVALID;
}
enum npuc_status k_op_cast_like(struct k_call *c)
{
    return k_has(c, 2, 1) ? cast_to(c, c->in[1]->dtype) : NPUC_E_INVALID;
}
enum npuc_status k_op_bit_cast(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const enum dtype to = dtype_from_onnx(k_attr_int(c, "to", 0));
    if (dtype_table[to].bits != dtype_table[x->dtype].bits || to == DT_NONE)
        return k_fail(c, NPUC_E_INVALID, "%s and %s differ in width", dtype_table[x->dtype].name, dtype_table[to].name);
    void *y = k_out(c, 0, to, x->rank, x->dims);
    if (!y)
        return k_no_memory(c);
    memmove(y, x->data, (size_t)c->out[0].size);
    return NPUC_OK;
}
