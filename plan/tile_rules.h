/* Rules of single instructions, for the verifier. */
#ifndef PLAN_TILE_RULES_H
#define PLAN_TILE_RULES_H

#include "plan/tile.h"

uint32_t tile_field_spaces(const struct tile_insn *in,
                           int field); /* bit per enum tile_space that a buffer field takes */
const char *tile_value_problem(const struct tile_insn *in, int field); /* type, integer, unit, formula; NULL: fine */
const char *tile_insn_problem(const struct tile_insn *in); /* between fields, which are fine alone; NULL: fine */

#endif
