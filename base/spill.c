#include "base/spill.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t spill_min = (size_t)8 << 20;

/* An open file without a name and with room for `size` bytes, or -1. */
static int nameless_file(size_t size)
{
    const char *folder = getenv("TMPDIR");
    char path[PATH_MAX];
    const int n = snprintf(path, sizeof path, "%s/npuc-XXXXXX", folder && folder[0] ? folder : "/var/tmp");
    const int fd = n > 0 && n < (int)sizeof path ? mkstemp(path) : -1;
    if (fd < 0)
        return -1;
    if (unlink(path) == 0 && posix_fallocate(fd, 0, (off_t)size) == 0)
        return fd;
    close(fd);
    return -1;
}

static void *spill_alloc(void *user, size_t size)
{
    (void)user;
    if (size < spill_min)
        return malloc(size);
    const int fd = nameless_file(size);
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (fd >= 0)
        close(fd);
    return p == MAP_FAILED ? NULL : p;
}

static void spill_free(void *user, void *p, size_t size)
{
    (void)user;
    if (size < spill_min)
        free(p);
    else
        munmap(p, size);
}

const struct alloc_hooks spill_hooks = {.alloc = spill_alloc, .free = spill_free};
