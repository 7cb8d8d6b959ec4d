/* An analysis as tables, JSON, CSV and a page for a browser. */
#ifndef TOOLS_ANALYSIS_PRESENT_H
#define TOOLS_ANALYSIS_PRESENT_H

#include <jansson.h>

#include "tools/analysis/measure.h"

/* Places of products, those first that matter most: by the outputs' error alone where it was measured, else by local
 * error. Products that no recipe codes are left out. */
int64_t *analysis_ranking(const struct analysis *an, const struct comparison *c, int64_t *n);

/* Tables on stdout; of products the first `top` of the ranking, all with 0. */
void analysis_print(const struct analysis *an, int64_t top);
json_t *analysis_json(const struct analysis *an);
/* A line per recipe and product. Files: 0, or an exit code after a message. */
int analysis_write_csv(const struct analysis *an, const char *path);
/* The page shows an object {"analyses": [...]} of results of analysis_json. */
int analysis_write_page(json_t *data, const char *path, struct diag *d);
const char *quant_operand_words(const struct quant_operand *o, struct arena *a); /* "int8 channel"; "" for none */

#endif
