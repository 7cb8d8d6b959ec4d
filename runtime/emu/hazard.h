/* Race detection between the units of a block's cores, after FastTrack (Flanagan and Freund, 2009): each unit has a
 * vector clock, flags carry clocks from unit to unit, and each 32 bytes of memory remember their last writer and
 * readers. Two accesses to the same bytes, one of them a write, by units whose order no flag establishes are a race
 * even if this run happened to order them. */
#ifndef RUNTIME_EMU_HAZARD_H
#define RUNTIME_EMU_HAZARD_H

#include "runtime/emu/emu_priv.h"

/* Bytes [at, at + bytes) of a scratchpad, of GM (host address). false: emu_hazard_why has the reason. */
bool emu_hazard_access(struct emu_hazard *h, int core, enum tile_space s, int64_t at, int64_t bytes, bool write);
bool emu_hazard_gm(struct emu_hazard *h, int core, uint64_t at, int64_t bytes, bool write);
void emu_hazard_why(const struct emu_hazard *h, char *text, size_t cap);

struct emu_hazard *emu_hazard_new(const int64_t size[TS_COUNT]); /* NULL: out of memory */
void emu_hazard_free(struct emu_hazard *h);
void emu_hazard_start(struct emu_hazard *h);                                /* a new block begins */
void emu_hazard_issue(struct emu_hazard *h, int core, enum tile_unit unit); /* an instruction enters its unit's queue */
void emu_hazard_barrier(struct emu_hazard *h);                              /* all units of all cores have met */
bool emu_hazard_finish(const struct emu_hazard *h, int core); /* false: a flag is left set; see emu_hazard_left */
void emu_hazard_left(const struct emu_hazard *h, int core, char *text, size_t cap);

/* Handlers of the flag instructions. */
emu_handler emu_do_set, emu_do_wait, emu_do_xset, emu_do_xwait;

#endif
