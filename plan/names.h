/* Names of units, memories and cores as a person who knows the machine expects them. */
#ifndef PLAN_NAMES_H
#define PLAN_NAMES_H

#include "plan/tile.h"

struct tile_names {
    const char *family;
    const char *unit[TU_COUNT], *space[TS_COUNT], *core[TCORE_COUNT];
};
const struct tile_names *tile_names_of(const char *family); /* NULL or unknown: the roles' own names, Ascend's */

#endif
