#include "tools/json.h"

#include <math.h>
#include <stdio.h>

json_t *json_text(const char *s)
{
    json_t *j = s ? json_string(s) : NULL;
    return j ? j : json_null();
}

json_t *json_number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

void json_put(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

void print_json(json_t *j)
{
    json_dumpf(j, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(j);
}
