/* Units of target files: a written unit is a factor and the base unit that keys are stored in. */
#include "targets/target_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COUNT = 1 << 20, NUMBER_MAX_CHARS = 40 };
static const double max_value = 1e18, min_positive = 1e-12;

static const struct unit {
    const char *text, *base;
    double factor;
} units[] = {
    {"B", "B", 1},
    {"kB", "B", 1e3},
    {"MB", "B", 1e6},
    {"GB", "B", 1e9},
    {"KiB", "B", 1024.0},
    {"MiB", "B", 1048576.0},
    {"GiB", "B", 1073741824.0},
    {"TiB", "B", 1099511627776.0},
    {"B/s", "B/s", 1},
    {"kB/s", "B/s", 1e3},
    {"MB/s", "B/s", 1e6},
    {"GB/s", "B/s", 1e9},
    {"TB/s", "B/s", 1e12},
    {"MiB/s", "B/s", 1048576.0},
    {"GiB/s", "B/s", 1073741824.0},
    {"TiB/s", "B/s", 1099511627776.0},
    {"Hz", "Hz", 1},
    {"kHz", "Hz", 1e3},
    {"MHz", "Hz", 1e6},
    {"GHz", "Hz", 1e9},
    {"s", "s", 1},
    {"ms", "s", 1e-3},
    {"us", "s", 1e-6},
    {"ns", "s", 1e-9},
    {"cycle", "cycle", 1},
    {"cycles", "cycle", 1},
    {"B/cycle", "B/cycle", 1},
    {"MAC/cycle", "MAC/cycle", 1},
    {"element", "element", 1},
    {"elements", "element", 1},
    {"element/cycle", "element/cycle", 1},
    {"elements/cycle", "element/cycle", 1},
    {"1/s", "1/s", 1},
    {"", "", 1},
    {"", "ratio", 1},
};

static const struct unit *unit_find(const char *text, size_t len, const char *base)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(units); i++)
        if (strlen(units[i].text) == len && memcmp(units[i].text, text, len) == 0 && strcmp(units[i].base, base) == 0)
            return &units[i];
    return NULL;
}

/* strtod accepts "inf", hexadecimal and the like; a target file has plain decimal numbers. */
static bool is_number_char(char c)
{
    return (c >= '0' && c <= '9') || c == '.' || c == 'e' || c == 'E' || c == '-' || c == '+';
}

bool target_parse_number(const char *text, int64_t len, const char *base, double *out, char why[TARGET_WHY_MAX])
{
    char number[NUMBER_MAX_CHARS];
    int64_t n = 0;
    while (n < len && n < NUMBER_MAX_CHARS - 1 && is_number_char(text[n])) {
        number[n] = text[n];
        n++;
    }
    number[n] = 0;
    char *end = number;
    const double v = strtod(number, &end);
    if (n == 0 || *end) {
        snprintf(why, TARGET_WHY_MAX, "expected a number%s%s, found '%.*s'", base[0] ? " in " : "", base,
                 (int)(len < 40 ? len : 40), text);
        return false;
    }
    int64_t u = n;
    while (u < len && text[u] == ' ')
        u++;
    const struct unit *unit = unit_find(text + u, (size_t)(len - u), base);
    if (!unit) {
        snprintf(why, TARGET_WHY_MAX, "expected %s%s, found unit '%.*s'",
                 base[0] && base[0] != 'r' ? "a unit like " : "no unit", base[0] && base[0] != 'r' ? base : "",
                 (int)(len - u < 40 ? len - u : 40), text + u);
        return false;
    }
    *out = v * unit->factor;
    return true;
}

static bool is_whole(const char *unit)
{
    return !unit[0] || strcmp(unit, "B") == 0 || strcmp(unit, "element") == 0;
}

bool target_assign(struct target *t, int key, const char *text, int64_t len, char why[TARGET_WHY_MAX])
{
    const struct target_key_info *info = &target_keys[key];
    double v;
    if (!target_parse_number(text, len, info->unit, &v, why))
        return false;
    if (strcmp(info->unit, "B") == 0)
        v = floor(v); /* 22.4 GiB */
    if (is_whole(info->unit) && v != floor(v)) {
        snprintf(why, TARGET_WHY_MAX, "expected a whole number, found '%.*s'", (int)(len < 40 ? len : 40), text);
        return false;
    }
    const double max = info->unit[0] ? max_value : MAX_COUNT;
    const double min = info->need >= 2 ? 0 : is_whole(info->unit) ? 1 : min_positive;
    if (!(v >= min && v <= max)) {
        snprintf(why, TARGET_WHY_MAX, "expected a value from %g to %g%s%s, found '%.*s'", min, max,
                 info->unit[0] ? " " : "", info->unit, (int)(len < 40 ? len : 40), text);
        return false;
    }
    t->value[key].set = true;
    t->value[key].number = v;
    t->value[key].text = arena_strndup(&t->arena, text, len);
    return true;
}
