/* File access that leaves nothing half-written: maps for reading, temporary file plus rename for writing. */
#include "base/file.h"

#include "base/size.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_SIZE = 1 << 18, N_SLOTS = 16, N_TRIES = 100 };

/* Temporary files in existence, for signal handlers. State: 0 free, 1 being filled or removed, 2 valid. */
static struct {
    _Atomic int state;
    char path[sizeof(((struct file_writer *)0)->tmp)];
} slots[N_SLOTS];

static enum npuc_status file_error(struct diag *d, const char *path, enum diag_code code, const char *what)
{
    return diag_error(d, &(struct diag_loc){.file = path, .index = -1}, code, what);
}

static const char *map_fd(struct file_map *m, int fd)
{
    struct stat st;
    if (fstat(fd, &st))
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? "it is a directory, expected a file" : "not a regular file";
    m->size = st.st_size;
    if (m->size == 0)
        return NULL;
    void *base = mmap(NULL, (size_t)m->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return strerror(errno);
    m->base = base;
    m->data = base;
    return NULL;
}

enum npuc_status file_map_open(struct file_map *m, const char *path, struct diag *d)
{
    *m = (struct file_map){0};
    /* O_NONBLOCK: opening a FIFO must not wait for its writer */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return file_error(d, path, D_FILE_OPEN, strerror(errno));
    const char *why = map_fd(m, fd);
    close(fd);
    if (why) {
        *m = (struct file_map){0};
        return file_error(d, path, D_FILE_OPEN, why);
    }
    return NPUC_OK;
}

void file_map_close(struct file_map *m)
{
    if (m->base)
        munmap(m->base, (size_t)m->size);
    *m = (struct file_map){0};
}

void file_map_drop(const struct file_map *m, int64_t off, int64_t size)
{
    const int64_t page = sysconf(_SC_PAGESIZE);
    if (!m->base || !size_in(off, size, m->size))
        return;
    const int64_t first = size_align(off, page), last = (off + size) / page * page;
    if (first < last)
        (void)madvise((char *)m->base + first, (size_t)(last - first), MADV_DONTNEED);
}

static int slot_take(const char *tmp)
{
    for (int i = 0; i < N_SLOTS; i++) {
        int expected = 0;
        if (!atomic_compare_exchange_strong(&slots[i].state, &expected, 1))
            continue;
        memcpy(slots[i].path, tmp, strlen(tmp) + 1);
        atomic_store(&slots[i].state, 2);
        return i;
    }
    return -1; /* more writers than slots: this one is not covered */
}

static void slot_drop(struct file_writer *w)
{
    if (w->slot >= 0)
        atomic_store(&slots[w->slot].state, 0);
    w->slot = -1;
}

void file_writer_abort_all(void)
{
    for (int i = 0; i < N_SLOTS; i++) {
        int expected = 2;
        if (atomic_compare_exchange_strong(&slots[i].state, &expected, 1)) {
            unlink(slots[i].path);
            atomic_store(&slots[i].state, 0);
        }
    }
}

static void writer_fail(struct file_writer *w, int error)
{
    if (!w->failed)
        w->error = error;
    w->failed = true;
}

/* Where the bytes finally go: through a symbolic link to its file, which must be a writable regular one. */
static const char *resolve_target(struct file_writer *w, const char *path, mode_t *mode)
{
    struct stat st;
    if (!path[0] || strlen(path) >= sizeof w->path)
        return path[0] ? strerror(ENAMETOOLONG) : "the name is empty";
    memcpy(w->path, path, strlen(path) + 1);
    if (stat(path, &st))
        return errno == ENOENT && lstat(path, &st) ? NULL : strerror(errno);
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? "it is a directory, expected a file" : "not a regular file";
    if (access(path, W_OK))
        return strerror(errno);
    *mode = st.st_mode & 0777;
    char *real = realpath(path, NULL);
    if (!real || strlen(real) >= sizeof w->path) {
        free(real);
        return strerror(ENAMETOOLONG);
    }
    memcpy(w->path, real, strlen(real) + 1);
    free(real);
    return NULL;
}

static int create_beside(struct file_writer *w)
{
    for (int i = 0; i < N_TRIES; i++) {
        snprintf(w->tmp, sizeof w->tmp, "%s.%ld-%d.tmp", w->path, (long)getpid(), i);
        const int fd = open(w->tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

enum npuc_status file_writer_open(struct file_writer *w, const char *path, struct diag *d)
{
    *w = (struct file_writer){.fd = -1, .slot = -1};
    mode_t mode = 0;
    const char *why = resolve_target(w, path, &mode);
    if (why)
        return file_error(d, path, D_FILE_WRITE, why);
    w->buf = malloc(BUFFER_SIZE);
    if (!w->buf)
        return file_error(d, path, D_HOST_MEMORY, NULL);
    w->fd = create_beside(w);
    if (w->fd < 0) {
        why = strerror(errno);
        file_writer_abort(w);
        return file_error(d, path, D_FILE_WRITE, why);
    }
    w->slot = slot_take(w->tmp);
    if (mode && fchmod(w->fd, mode))
        writer_fail(w, errno);
    return NPUC_OK;
}

static void write_all(struct file_writer *w, const uint8_t *p, int64_t size)
{
    while (size > 0 && !w->failed) {
        const ssize_t n = write(w->fd, p, (size_t)size);
        if (n < 0 && errno != EINTR)
            writer_fail(w, errno);
        if (n > 0) {
            p += n;
            size -= n;
        }
    }
}

static void writer_flush(struct file_writer *w)
{
    write_all(w, w->buf, w->buf_len);
    w->buf_len = 0;
}

void file_writer_put(struct file_writer *w, const void *p, int64_t size)
{
    NPUC_ASSERT(size >= 0);
    w->pos += size;
    if (w->tap)
        w->tap(w->tap_user, p, size);
    if (size > BUFFER_SIZE - w->buf_len)
        writer_flush(w);
    if (size >= BUFFER_SIZE) {
        write_all(w, p, size);
        return;
    }
    if (size)
        memcpy(w->buf + w->buf_len, p, (size_t)size);
    w->buf_len += size;
}

void file_writer_pad(struct file_writer *w, int64_t align)
{
    static const uint8_t zeros[4096];
    int64_t left = size_align(w->pos, align) - w->pos;
    while (left > 0) {
        const int64_t n = left < (int64_t)sizeof zeros ? left : (int64_t)sizeof zeros;
        file_writer_put(w, zeros, n);
        left -= n;
    }
}

void file_writer_patch(struct file_writer *w, int64_t at, const void *p, int64_t size)
{
    NPUC_ASSERT(size_in(at, size, w->pos));
    const int64_t flushed = w->pos - w->buf_len;
    if (at >= flushed) {
        memcpy(w->buf + (at - flushed), p, (size_t)size);
        return;
    }
    writer_flush(w);
    const uint8_t *from = p;
    while (size > 0 && !w->failed) {
        const ssize_t n = pwrite(w->fd, from, (size_t)size, at);
        if (n < 0 && errno != EINTR)
            writer_fail(w, errno);
        if (n > 0) {
            from += n;
            at += n;
            size -= n;
        }
    }
}

/* The rename itself must survive a crash; file systems that cannot sync a folder are accepted. */
static void sync_folder(const char *path)
{
    char folder[sizeof(((struct file_writer *)0)->path)];
    const char *slash = strrchr(path, '/');
    const size_t len = slash ? (size_t)(slash - path) + 1 : 0;
    memcpy(folder, len ? path : "./", len ? len : 2);
    folder[len ? len : 2] = 0;
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

enum npuc_status file_writer_commit(struct file_writer *w, struct diag *d)
{
    NPUC_ASSERT(w->fd >= 0);
    writer_flush(w);
    if (!w->failed && fsync(w->fd))
        writer_fail(w, errno);
    if (close(w->fd))
        writer_fail(w, errno);
    w->fd = -1;
    if (!w->failed && rename(w->tmp, w->path))
        writer_fail(w, errno);
    if (w->failed) {
        const int error = w->error;
        file_writer_abort(w);
        return file_error(d, w->path, D_FILE_WRITE, strerror(error));
    }
    w->tmp[0] = 0;
    slot_drop(w);
    sync_folder(w->path);
    file_writer_abort(w); /* releases the buffer */
    return NPUC_OK;
}

void file_writer_abort(struct file_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    if (w->slot >= 0 || (w->tmp[0] && w->buf))
        unlink(w->tmp);
    slot_drop(w);
    w->tmp[0] = 0;
    free(w->buf);
    w->buf = NULL;
}

/* Why the file or folder at `path` may not be part of an external location; NULL when it may, or is not there. */
static const char *component_refused(const char *path, bool last)
{
    struct stat st;
    if (lstat(path, &st))
        return NULL;
    if (S_ISLNK(st.st_mode))
        return "it passes through a symbolic link";
    if (last && S_ISREG(st.st_mode) && st.st_nlink > 1)
        return "the file has several hard links";
    return NULL;
}

static const char *rel_refused(const char *rel)
{
    if (!rel[0])
        return "the location is empty";
    if (rel[0] == '/')
        return "the location is an absolute path";
    bool names_a_file = false;
    for (const char *p = rel; *p; p += strspn(p, "/")) {
        const size_t len = strcspn(p, "/");
        if (len == 2 && !memcmp(p, "..", 2))
            return "the location leaves the model's folder (\"..\")";
        names_a_file = !(len == 1 && *p == '.') && p[len] != '/';
        p += len;
    }
    return names_a_file ? NULL : "the location names no file";
}

const char *file_contained(struct arena *a, const char *model, const char *rel, const char **why)
{
    const char *slash = strrchr(model, '/');
    const int folder = slash ? (int)(slash - model) + 1 : 0;
    *why = rel_refused(rel);
    char *path = *why ? NULL : arena_printf(a, "%.*s%s", folder, model, rel);
    if (!path)
        return NULL;
    for (char *p = path + folder; !*why && *p;) {
        p += strcspn(p, "/");
        const char kept = *p;
        *p = 0;
        *why = component_refused(path, !kept);
        *p = kept;
        p += strspn(p, "/");
    }
    return *why ? NULL : path;
}
