#include "quant/operand.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/weight.h"

static const struct {
    const char *name;
    enum dtype codes;
    double most;
} formats[] = {
#define FORMAT(nm, dt, top, ...) {#nm, DT_##dt, top},
#include "quant/formats.def"
#undef FORMAT
};

static bool read_whole(const char *s, int64_t least, int64_t most, int64_t *out)
{
    char *end;
    *out = strtoll(s, &end, 10);
    return end != s && !*end && *out >= least && *out <= most;
}

static bool read_format(const char *word, struct quant_operand *o)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(formats); i++)
        if (strcmp(formats[i].name, word) == 0) {
            o->codes = formats[i].codes;
            o->most = formats[i].most;
        }
    return o->codes != DT_NONE;
}

static const char words[] = "expected tensor, channel, token, group=N, scales=e8m0, e8m0-ceil, e4m3 or uint8, zero, "
                            "zero=Z, scale=S, cast, dynamic, "
                            "narrow, divisor=most|full|side, round=even|away, by=NAME or data";

/* What scales of groups are coded in, other than the model's floats. */
static const struct {
    const char *name;
    enum dtype type;
    bool ceil;
} scale_types[] = {
    {"e8m0", DT_F8E8M0, false}, {"e8m0-ceil", DT_F8E8M0, true}, {"e4m3", DT_F8E4M3FN, false}, {"uint8", DT_U8, false}};

static const char *read_scales(const char *value, struct quant_operand *o)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(scale_types); i++)
        if (strcmp(scale_types[i].name, value) == 0) {
            o->scales = scale_types[i].type;
            o->ceil = scale_types[i].ceil;
            return NULL;
        }
    return "scales: expected e8m0, e8m0-ceil, e4m3 or uint8";
}

static const char *scales_text(const struct quant_operand *o)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(scale_types); i++)
        if (scale_types[i].type == o->scales && scale_types[i].ceil == o->ceil)
            return scale_types[i].name;
    return NULL;
}

static const char *const divisors[] = {"most", "full", "side"}; /* enum quant_divisor */

/* round=, divisor=; NULL or what is wrong. */
static const char *read_rule(const char *word, const char *value, struct quant_operand *o)
{
    if (strcmp(word, "round") == 0) {
        o->away = strcmp(value, "away") == 0;
        return o->away || strcmp(value, "even") == 0 ? NULL : "round: expected even or away";
    }
    if (strcmp(word, "divisor") != 0)
        return words;
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(divisors); i++)
        if (strcmp(value, divisors[i]) == 0) {
            o->divisor = (enum quant_divisor)i;
            return NULL;
        }
    return "divisor: expected most (127), full (128) or side (127 or 128 by the side of the largest element)";
}

/* Words that stand alone; false: it is none of them. */
static bool read_flag_word(const char *word, struct quant_operand *o)
{
    const struct {
        const char *word;
        bool *flag;
    } flags[] = {{"zero", &o->shifted},
                 {"data", &o->data},
                 {"cast", &o->cast},
                 {"dynamic", &o->dynamic},
                 {"narrow", &o->narrow}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(flags); i++)
        if (strcmp(word, flags[i].word) == 0)
            return *flags[i].flag = true;
    return false;
}

/* A word behind the format; NULL or what is wrong with it. */
static const char *read_word(char *word, struct quant_operand *o, struct arena *a)
{
    static const char *const shares[] = {"tensor", "channel", "token"}; /* enum quant_per */
    char *value = strchr(word, '='), *end;
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(shares); i++)
        if (strcmp(word, shares[i]) == 0) {
            o->per = (enum quant_per)i;
            return NULL;
        }
    if (read_flag_word(word, o))
        return NULL;
    if (!value)
        return words;
    *value++ = '\0';
    if (strcmp(word, "group") == 0) {
        o->per = QUANT_PER_GROUP;
        return read_whole(value, 1, INT64_MAX, &o->group) ? NULL : "group: expected a number of elements";
    }
    if (strcmp(word, "zero") == 0) {
        o->shifted = true;
        return read_whole(value, INT16_MIN, INT16_MAX, &o->zero) ? NULL : "zero: expected a code";
    }
    if (strcmp(word, "scale") == 0) {
        o->scale = strtod(value, &end);
        return end != value && !*end && isfinite(o->scale) && o->scale > 0 ? NULL : "scale: expected a positive number";
    }
    if (strcmp(word, "scales") == 0)
        return read_scales(value, o);
    if (strcmp(word, "by") == 0) {
        o->by = arena_strndup(a, value, (int64_t)strlen(value));
        return NULL;
    }
    return read_rule(word, value, o);
}

const char *quant_operand_read(struct quant_operand *o, char *word, struct arena *a)
{
    if (o->codes == DT_NONE)
        return read_format(word, o) ? NULL : "expected a format (npuc quantize --help lists them)";
    return read_word(word, o, a);
}

/* Divisors belong to symmetric integers, narrow codes to signed ones. */
static const char *check_rule(const struct quant_operand *o)
{
    if (dtype_is_float(o->codes) && (o->away || o->narrow || o->divisor))
        return "float codes are rounded to even and have no divisor; expected neither round, narrow nor divisor";
    if (o->divisor && (o->shifted || o->scales))
        return "codes with a zero point or coded scales have no divisor";
    return o->narrow && dtype_table[o->codes].cls != DTC_INT ? "narrow: expected signed codes" : NULL;
}

/* What holds of both operands. */
static const char *check_operand(const struct quant_operand *o)
{
    const bool is_float = dtype_is_float(o->codes);
    if (is_float && (o->shifted || o->zero != 0))
        return "float codes have no zero points";
    if (o->scales != DT_NONE && o->per != QUANT_PER_GROUP)
        return "scales: those of groups alone have a type of their own; expected group=N";
    if (o->scales == DT_U8 && (is_float || dtype_table[o->codes].bits > 4))
        return "scales: uint8 multiplies codes to bytes; expected int4 or uint4";
    if (o->scales != DT_NONE && o->scales != DT_U8 && (o->shifted || dtype_table[o->codes].cls == DTC_UINT))
        return "scales: codes with zero points have scales of the model's type, or uint8";
    return check_rule(o);
}

const char *quant_operand_check_weight(const struct quant_operand *o)
{
    if (o->dynamic)
        return "a weight's scales are not those of run time; expected no dynamic";
    if (o->per == QUANT_PER_TOKEN || o->scale != 0 || o->zero != 0 || o->cast)
        return "a weight has no scale per token, and its numbers come from by=NAME; expected tensor, channel or "
               "group=N";
    if (dtype_table[o->codes].bits > 8)
        return "expected a format of at most 8 bits for a weight";
    if (o->by && !quant_weight_find(o->by))
        return "by: expected an algorithm for weights (npuc quantize --help lists them)";
    return check_operand(o);
}

/* One scale at run time is what DynamicQuantizeLinear computes. */
static const char *check_dynamic(const struct quant_operand *o)
{
    return o->per != QUANT_PER_TENSOR || o->scale != 0 || !o->shifted || o->zero != 0 || o->codes != DT_U8 || o->away ||
                   o->cast
               ? "one scale computed at run time is that of DynamicQuantizeLinear: expected uint8 dynamic zero"
               : NULL;
}

const char *quant_operand_check_input(struct quant_operand *o)
{
    const bool coded = o->per == QUANT_PER_TOKEN || o->per == QUANT_PER_GROUP;
    const bool is_unsigned = dtype_table[o->codes].cls == DTC_UINT;
    if (o->dynamic && !coded)
        return check_dynamic(o);
    o->dynamic = coded;
    if (o->data)
        return "an input has no codes in a data file";
    if (dtype_is_integer(o->codes) && dtype_table[o->codes].bits < 8)
        return "expected int8, uint8, int16 or a float as the format of an input";
    if (o->scales == DT_F8E4M3FN || o->scales == DT_U8)
        return "scales of e4m3 and uint8 are those of weights; expected e8m0 or e8m0-ceil";
    if (o->per == QUANT_PER_GROUP && (o->away || o->narrow))
        return "inputs in groups are coded as QuantizeLinear does; expected neither round nor narrow";
    if (coded && o->divisor == QUANT_DIVISOR_SIDE)
        return "a scale of run time takes the largest magnitude alone: expected no divisor=side";
    if (coded && (o->scale != 0 || o->shifted || is_unsigned))
        return "a scale per token or group is computed at run time: expected it without scale and zero, and no "
               "unsigned codes";
    if (o->per == QUANT_PER_CHANNEL || (o->cast && (coded || o->scale != 0 || !dtype_is_float(o->codes))))
        return "expected tensor, token, group=N or, of floats, cast for an input";
    if (!coded && !o->cast && o->scale == 0)
        return "expected scale=S, or token, group=N or dynamic for scales that are computed at run time";
    const int64_t least = is_unsigned ? 0 : -(INT64_C(1) << (dtype_table[o->codes].bits - 1));
    if (o->zero < least || o->zero - least >= INT64_C(1) << dtype_table[o->codes].bits)
        return "zero: expected a code of the format";
    return check_operand(o);
}

/* ---- writing */

static const char *rule_text(const struct quant_operand *o, struct arena *a)
{
    const char *divisor = o->divisor ? arena_printf(a, " divisor=%s", divisors[o->divisor]) : "";
    return arena_printf(a, "%s%s%s%s", o->dynamic && o->per == QUANT_PER_TENSOR ? " dynamic" : "", divisor,
                        o->narrow ? " narrow" : "", o->away ? " round=away" : "");
}

const char *quant_operand_text(const struct quant_operand *o, struct arena *a)
{
    const char *name = "", *share = "";
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(formats); i++)
        if (formats[i].codes == o->codes)
            name = formats[i].name;
    switch (o->per) {
    case QUANT_PER_TENSOR: share = ""; break;
    case QUANT_PER_CHANNEL: share = " channel"; break;
    case QUANT_PER_TOKEN: share = " token"; break;
    case QUANT_PER_GROUP: share = arena_printf(a, " group=%" PRId64, o->group); break;
    }
    const char *type = scales_text(o), *scales = type ? arena_printf(a, " scales=%s", type) : "";
    const char *scale = o->scale > 0 ? arena_printf(a, " scale=%.9g", o->scale) : "";
    const char *zero = !o->shifted ? "" : o->scale > 0 ? arena_printf(a, " zero=%" PRId64, o->zero) : " zero";
    return arena_printf(a, "%s%s%s%s%s%s%s%s%s%s", name, share, scales, scale, zero, rule_text(o, a),
                        o->cast ? " cast" : "", o->by ? " by=" : "", o->by ? o->by : "", o->data ? " data" : "");
}
