/* What commands write JSON with. */
#ifndef TOOLS_JSON_H
#define TOOLS_JSON_H

#include <jansson.h>

json_t *json_text(const char *s); /* null for NULL, and for bytes that are no UTF-8 */
json_t *json_number(double v);    /* null for infinities and NaN, which JSON has no words for */
/* As json_object_set_new, which fails without memory alone. */
void json_put(json_t *object, const char *key, json_t *value);
void print_json(json_t *j); /* to stdout with a newline; takes the reference */

#endif
