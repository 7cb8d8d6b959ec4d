/* The names, generated from plan/names.def. */
#include "plan/names.h"

#include <string.h>

static const struct tile_names all[] = {
#define NAMES(family, units, spaces, cube, vector) {#family, units, spaces, {cube, vector}},
#include "plan/names.def"
#undef NAMES
};

const struct tile_names *tile_names_of(const char *family)
{
    for (int64_t i = 0; family && i < NPUC_ARRAY_LEN(all); i++)
        if (strcmp(all[i].family, family) == 0)
            return &all[i];
    return &all[0];
}
