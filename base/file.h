/* Files: read-only maps, atomic writing, path containment. Errors are reported through diag. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/diag.h"

struct file_map {
    const uint8_t *data;
    int64_t size;
    void *base; /* for unmapping; NULL when size is 0 */
};

/* Maps a regular file read-only (a FIFO, device or folder is refused). */
NPUC_MUST_CHECK enum npuc_status file_map_open(struct file_map *m, const char *path, struct diag *d);
void file_map_close(struct file_map *m);
void file_map_drop(const struct file_map *m, int64_t off, int64_t size); /* pages not needed soon; a hint */

/* Atomic writer: bytes go to a temporary file beside `path`; commit syncs and renames, abort removes it.
 * Signal handlers may call file_writer_abort_all (async-signal-safe) before leaving. */
struct file_writer {
    int fd;
    char path[4096], tmp[4096 + 32];
    int64_t pos;
    bool failed;
    int error; /* errno of the first failure */
    int slot;  /* in the table for file_writer_abort_all */
    uint8_t *buf;
    int64_t buf_len;
    void (*tap)(void *user, const void *p, int64_t size); /* sees what is put, e.g. for a checksum; may be NULL */
    void *tap_user;
};
NPUC_MUST_CHECK enum npuc_status file_writer_open(struct file_writer *w, const char *path, struct diag *d);
void file_writer_put(struct file_writer *w, const void *p, int64_t size); /* errors are kept until commit */
void file_writer_pad(struct file_writer *w, int64_t align);               /* zeros up to a multiple */
void file_writer_patch(struct file_writer *w, int64_t at, const void *p, int64_t size); /* within what was put */
NPUC_MUST_CHECK enum npuc_status file_writer_commit(struct file_writer *w, struct diag *d);
void file_writer_abort(struct file_writer *w); /* also after a failed commit; idempotent */
void file_writer_abort_all(void);

/* The path of `rel`, taken relative to the folder of `model`, in `a`; NULL with *why set when it leaves that
 * folder: absolute, "..", empty, a symbolic link in any component, a file with several hard links. */
const char *file_contained(struct arena *a, const char *model, const char *rel, const char **why);

#endif
