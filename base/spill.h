/* Hooks for arenas that may hold more than the host's memory: blocks of 8 MiB and more are maps of files that have no
 * name any more, in TMPDIR or else /var/tmp. The host writes their pages out when it needs the memory, and they are
 * gone with the map. Room on the disk is taken at once, so a full disk shows here: such a block is plain memory then.
 */
#ifndef BASE_SPILL_H
#define BASE_SPILL_H

#include "base/arena.h"

extern const struct alloc_hooks spill_hooks;

#endif
