/* Sets of element types in words. */
#include <string.h>

#include "tools/ops/print.h"

enum { MAX_FAMILY = 5 };
#define BIT(t) ((type_set)1 << (t))

/* Families in the order they are named in; a family with `ladder` may be named in part, from one size to another. */
static const struct {
    const char *name;
    bool ladder;
    enum dtype member[MAX_FAMILY];
} families[] = {
    {"float", false, {DT_F16, DT_BF16, DT_F32, DT_F64}},
    {"f8", false, {DT_F8E4M3FN, DT_F8E4M3FNUZ, DT_F8E5M2, DT_F8E5M2FNUZ, DT_HIF8}},
    {"f6", false, {DT_F6E2M3, DT_F6E3M2}},
    {"int", true, {DT_I8, DT_I16, DT_I32, DT_I64}},
    {"uint", true, {DT_U8, DT_U16, DT_U32, DT_U64}},
    {"int2..4", false, {DT_I2, DT_I4}},
    {"uint2..4", false, {DT_U2, DT_U4}},
    {"complex", false, {DT_C64, DT_C128}},
};

static const char *join(struct arena *a, const char *text, const char *more)
{
    return *text ? arena_printf(a, "%s %s", text, more) : more;
}

static type_set family_set(int64_t f)
{
    type_set s = 0;
    for (int i = 0; i < MAX_FAMILY && families[f].member[i] != DT_NONE; i++)
        s |= BIT(families[f].member[i]);
    return s;
}

/* The longest run of sizes from member `from` on. */
static int run_length(int64_t f, int from, type_set types)
{
    int n = 0;
    while (from + n < MAX_FAMILY && (types & BIT(families[f].member[from + n])))
        n++;
    return n;
}

static const char *ladder_text(struct arena *a, int64_t f, type_set types)
{
    const char *text = "";
    for (int i = 0; i < MAX_FAMILY; i++) {
        const int n = run_length(f, i, types);
        const enum dtype *t = &families[f].member[i];
        if (n == 1)
            text = join(a, text, dtype_table[*t].name);
        else if (n > 1)
            text = join(a, text, arena_printf(a, "%s..%d", dtype_table[*t].name, dtype_table[t[n - 1]].bits));
        i += n;
    }
    return text;
}

static const char *names_text(struct arena *a, type_set types)
{
    const char *text = "";
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        if (types & BIT(t))
            text = join(a, text, dtype_table[t].name);
    return text;
}

static int count(type_set s)
{
    int n = 0;
    for (; s; s &= s - 1)
        n++;
    return n;
}

const char *types_text(struct arena *a, type_set types)
{
    const type_set every = (BIT(DT_COUNT) - 1) & ~BIT(DT_NONE), absent = every & ~types;
    if (!absent)
        return "every";
    if (count(absent) <= 3)
        return arena_printf(a, "every but %s", names_text(a, absent));
    const char *text = "";
    type_set left = types;
    for (int64_t f = 0; f < NPUC_ARRAY_LEN(families); f++) {
        const type_set all = family_set(f), mine = types & all;
        left &= ~(mine == all || families[f].ladder ? all : 0);
        if (mine == all)
            text = join(a, text, families[f].name);
        else if (families[f].ladder && mine)
            text = join(a, text, ladder_text(a, f, types));
    }
    return left ? join(a, text, names_text(a, left)) : text;
}
