/* Between the files of this folder: units, embedded files, the reader. */
#ifndef TARGETS_TARGET_PRIV_H
#define TARGETS_TARGET_PRIV_H

#include "targets/target.h"

struct target_file {
    const char *name; /* "ascend-910b1.target" */
    const char *text;
};
/* Generated from the .target files by targets/embed.cmake. */
extern const struct target_file target_files[];
extern const int target_n_files;
extern const char *const target_ids[]; /* files with a name, i.e. chips, sorted */
extern const int target_n_ids;

enum { TARGET_WHY_MAX = 200 };

/* "1.8 TB/s" -> number in `base` units; false with a message in why. */
NPUC_MUST_CHECK bool target_parse_number(const char *text, int64_t len, const char *base, double *out,
                                         char why[TARGET_WHY_MAX]);
int target_key_find(const char *name, int64_t len); /* TK_COUNT when unknown */
/* Sets a key from text after checking unit and range; false with a message in why. */
NPUC_MUST_CHECK bool target_assign(struct target *t, int key, const char *text, int64_t len, char why[TARGET_WHY_MAX]);
/* Reads one file's text (and what it inherits) into t. */
NPUC_MUST_CHECK enum npuc_status target_read_text(struct target *t, const char *file, const char *text, struct diag *d);
/* Reports required keys that are missing, and a missing name or family. */
NPUC_MUST_CHECK enum npuc_status target_check(const struct target *t, const char *file, struct diag *d);

#endif
