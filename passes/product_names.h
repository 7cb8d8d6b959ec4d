/* Names by which recipes tell products apart. */
#ifndef PASSES_PRODUCT_NAMES_H
#define PASSES_PRODUCT_NAMES_H

#include "passes/pass.h"

/* Of products of the module that come from several nodes of one name, as exporters give branches of an If, the second
 * gets the name "NAME#2", and so on, in the order of the file. Changes nothing when called again. */
void product_names(struct pass_ctx *px);

#endif
