/* NumPy .npz archives: zip files of .npy members, stored or deflated. */
#ifndef TOOLS_NPZ_H
#define TOOLS_NPZ_H

#include "base/file.h"
#include "base/vec.h"
#include "tools/npy.h"

/* Reads member `name` ("x" means "x.npy"). Zip64 is read; encrypted and other compressed members are refused. */
NPUC_MUST_CHECK enum npuc_status npz_read(const char *path, const char *name, struct arena *a, struct diag *d,
                                          struct k_tensor *out);

struct npz_writer {
    struct file_writer *file;
    struct arena *arena;
    VEC(uint8_t) directory;
    int64_t n_members;
};
/* Members are stored uncompressed, with fixed dates, so equal arrays make equal files. */
void npz_begin(struct npz_writer *z, struct file_writer *file, struct arena *a);
NPUC_MUST_CHECK enum npuc_status npz_put(struct npz_writer *z, const char *name, const struct k_tensor *t,
                                         struct diag *d);
void npz_end(struct npz_writer *z);

#endif
