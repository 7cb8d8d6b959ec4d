/* Target files: `key = value unit  # source: text (confidence)`, `inherit = file`. Unknown keys are errors: the known
 * keys, their units and meaning are rows of targets/keys.def. */
#ifndef TARGETS_TARGET_H
#define TARGETS_TARGET_H

#include "base/diag.h"
#include "base/str.h"

enum target_confidence { TGT_SPEC, TGT_SILICON, TGT_SIMULATOR, TGT_DERIVED, TGT_GUESS };
enum target_key {
#define KEY(id, ...) TK_##id,
#include "targets/keys.def"
#undef KEY
    TK_COUNT
};
struct target_key_info {
    const char *name; /* "hbm.bandwidth" */
    const char *unit; /* base unit of the stored number: "B/cycle", "B", "Hz", "cycle", "s", "" ... */
    const char *help;
    int need; /* 1 required, 0 optional; 2 and 3: the same, and may be zero */
};
extern const struct target_key_info target_keys[TK_COUNT];

struct target_value {
    bool set;
    double number;    /* in the key's base unit */
    const char *text; /* as written */
    const char *source;
    enum target_confidence confidence;
    const char *file; /* which file of the inherit chain */
};
struct target {
    struct arena arena;
    const char *id;     /* "ascend-910b1" */
    const char *name;   /* "Ascend 910B1" */
    const char *family; /* "ascend" | "mlu" */
    struct target_value value[TK_COUNT];
};
/* Target files are compiled into the library (so an installed npuc needs no data path); target_load finds one by id,
 * or reads a file whose name ends in .target (it may inherit from those compiled in); target_read parses text. A
 * listing for `npuc targets`. After a failure *t holds nothing that must be freed. */
NPUC_MUST_CHECK enum npuc_status target_load(struct target *t, const char *id, struct diag *d);
NPUC_MUST_CHECK enum npuc_status target_read(struct target *t, const char *id, const char *text, struct diag *d);
void target_free(struct target *t);
int target_list(const char *const **ids);
/* `--set key=value`: "hbm.bandwidth=1.8TB/s". */
NPUC_MUST_CHECK enum npuc_status target_set(struct target *t, const char *assignment, struct diag *d);
double target_num(const struct target *t, enum target_key k); /* the number, or the key's absence as NAN */
/* Seconds of a launch that starts so many cores, besides the slowest of them; a matrix core counts with its vector
 * cores. */
double target_launch(const struct target *t, int64_t cores);
/* The snapshot of a plan: name, family and every set key; arrays of the same length in `a`. target_from_pairs reads it.
 */
int64_t target_to_pairs(const struct target *t, struct arena *a, const char *const **keys, const char *const **values);
/* Text for the plan's snapshot ("32 B/cycle") and back. */
const char *target_value_text(const struct target *t, enum target_key k, struct arena *a);
/* Rebuilds a target from a snapshot (key, text pairs) so that the runtime needs no target file. */
NPUC_MUST_CHECK enum npuc_status target_from_pairs(struct target *t, const char *id, int64_t n, const char *const *keys,
                                                   const char *const *values, struct diag *d);

#endif
