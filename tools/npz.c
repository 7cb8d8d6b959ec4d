#include "tools/npz.h"

#include <string.h>
#include <zlib.h>

#include "base/size.h"

enum { LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50, END64 = 0x06064b50, LOCATOR64 = 0x07064b50 };
enum { LOCAL_SIZE = 30, CENTRAL_SIZE = 46, END_SIZE = 22, LOCATOR_SIZE = 20 };

static uint64_t get(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static enum npuc_status broken(struct diag *d, const char *path, const char *what)
{
    return diag_error(d, &(struct diag_loc){.file = path, .index = -1}, D_INPUT_FILE, what);
}

/* ---- reading ---- */

struct member {
    int method, flags;
    int64_t packed, size, offset;
};

/* Where the central directory is: from the end record, or its 64-bit form. */
static bool find_directory(const struct file_map *m, int64_t *offset, int64_t *count)
{
    int64_t lowest = m->size > 65557 ? m->size - 65557 : 0;
    for (int64_t at = m->size - END_SIZE; at >= lowest; at--) {
        if (get(m->data + at, 4) != END)
            continue;
        *count = (int64_t)get(m->data + at + 10, 2);
        *offset = (int64_t)get(m->data + at + 16, 4);
        if (*offset != 0xffffffff)
            return *offset <= at;
        if (at < LOCATOR_SIZE || get(m->data + at - LOCATOR_SIZE, 4) != LOCATOR64)
            return false;
        uint64_t at64 = get(m->data + at - LOCATOR_SIZE + 8, 8);
        if (at64 > (uint64_t)m->size || !size_in((int64_t)at64, 56, m->size) || get(m->data + at64, 4) != END64)
            return false;
        *count = (int64_t)get(m->data + at64 + 32, 8);
        *offset = (int64_t)get(m->data + at64 + 48, 8);
        return *offset >= 0 && *offset <= at;
    }
    return false;
}

/* 64-bit sizes and offset from the extra field, in order, for those that are all ones in the record. */
static void apply_zip64(const uint8_t *extra, int64_t len, struct member *f)
{
    for (int64_t at = 0; at + 4 <= len;) {
        int64_t id = (int64_t)get(extra + at, 2), n = (int64_t)get(extra + at + 2, 2), p = at + 4;
        if (p + n > len)
            return;
        int64_t *fields[3] = {&f->size, &f->packed, &f->offset};
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*fields[i] != 0xffffffff || p + 8 > at + 4 + n)
                continue;
            *fields[i] = (int64_t)get(extra + p, 8);
            p += 8;
        }
        at += 4 + n;
    }
}

static bool name_is(const uint8_t *p, int64_t len, const char *want)
{
    int64_t n = (int64_t)strlen(want);
    if (len != n && len != n + 4)
        return false;
    return memcmp(p, want, (size_t)n) == 0 && (len == n || memcmp(p + n, ".npy", 4) == 0);
}

static bool find_member(const struct file_map *m, const char *name, struct member *out)
{
    int64_t at, count;
    if (m->size < END_SIZE || !find_directory(m, &at, &count))
        return false;
    for (int64_t i = 0; i < count && size_in(at, CENTRAL_SIZE, m->size) && get(m->data + at, 4) == CENTRAL; i++) {
        const uint8_t *p = m->data + at;
        int64_t n = (int64_t)get(p + 28, 2), extra = (int64_t)get(p + 30, 2), comment = (int64_t)get(p + 32, 2);
        if (!size_in(at + CENTRAL_SIZE, n + extra + comment, m->size))
            return false;
        if (name_is(p + CENTRAL_SIZE, n, name)) {
            *out = (struct member){(int)get(p + 10, 2), (int)get(p + 8, 2), (int64_t)get(p + 20, 4),
                                   (int64_t)get(p + 24, 4), (int64_t)get(p + 42, 4)};
            apply_zip64(p + CENTRAL_SIZE + n, extra, out);
            return true;
        }
        at += CENTRAL_SIZE + n + extra + comment;
    }
    return false;
}

static bool inflate_all(uint8_t *dst, int64_t size, const uint8_t *src, int64_t packed)
{
    z_stream z;
    memset(&z, 0, sizeof z);
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return false;
    int r = Z_OK;
    while (r == Z_OK) {
        if (z.avail_in == 0 && packed > 0) {
            z.next_in = (Bytef *)(uintptr_t)src;
            z.avail_in = (uInt)(packed > 1 << 30 ? 1 << 30 : packed);
            src += z.avail_in;
            packed -= z.avail_in;
        }
        int64_t left = size - (int64_t)z.total_out;
        z.next_out = dst + z.total_out;
        z.avail_out = (uInt)(left > 1 << 30 ? 1 << 30 : left);
        r = inflate(&z, Z_NO_FLUSH);
    }
    bool ok = r == Z_STREAM_END && (int64_t)z.total_out == size;
    inflateEnd(&z);
    return ok;
}

static enum npuc_status read_member(const char *path, const struct file_map *m, const struct member *f, struct arena *a,
                                    struct diag *d, struct k_tensor *out)
{
    if (!size_in(f->offset, LOCAL_SIZE, m->size) || get(m->data + f->offset, 4) != LOCAL)
        return broken(d, path, "broken zip archive: a member's header is not where the directory says");
    int64_t data =
        f->offset + LOCAL_SIZE + (int64_t)get(m->data + f->offset + 26, 2) + (int64_t)get(m->data + f->offset + 28, 2);
    if ((f->flags & 1) != 0 || (f->method != 0 && f->method != 8))
        return broken(d, path, "an encrypted member, or a compression other than deflate");
    if (!size_in(data, f->packed, m->size) || f->size < 0 || f->size / 1040 > f->packed)
        return broken(d, path, "broken zip archive: a member's size is impossible");
    if (f->method == 0)
        return f->size == f->packed ? npy_parse(path, m->data + data, f->size, a, d, out)
                                    : broken(d, path, "broken zip archive: a stored member has two sizes");
    uint8_t *bytes = arena_alloc(a, f->size > 0 ? f->size : 1, 64);
    if (!bytes || !inflate_all(bytes, f->size, m->data + data, f->packed))
        return broken(d, path, "broken zip archive: a member does not decompress");
    return npy_parse(path, bytes, f->size, a, d, out);
}

enum npuc_status npz_read(const char *path, const char *name, struct arena *a, struct diag *d, struct k_tensor *out)
{
    struct file_map m;
    struct member f;
    enum npuc_status s = file_map_open(&m, path, d);
    if (s != NPUC_OK)
        return s;
    if (!find_member(&m, name, &f))
        s = broken(d, path, arena_printf(a, "no member '%s' in this archive (or it is no .npz file)", name));
    else
        s = read_member(path, &m, &f, a, d, out);
    file_map_close(&m);
    return s;
}

/* ---- writing ---- */

static void put(struct npz_writer *z, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        vec_push(z->arena, &z->directory, (uint8_t)(v >> (8 * i)));
}

/* The fields shared by a member's local header and its directory entry, from "version needed" to the extra length. */
static void put_common(struct npz_writer *z, uint32_t crc, int64_t name_len, int extra)
{
    put(z, 45, 2); /* needs zip64 */
    put(z, 0, 2);
    put(z, 0, 2);          /* stored */
    put(z, 0x00210000, 4); /* 1980-01-01 */
    put(z, crc, 4);
    put(z, 0xffffffff, 4);
    put(z, 0xffffffff, 4);
    put(z, (uint64_t)name_len, 2);
    put(z, (uint64_t)extra, 2);
}

static void put_name(struct npz_writer *z, const char *name)
{
    for (const char *s = name; *s; s++)
        put(z, (uint8_t)*s, 1);
    for (const char *s = ".npy"; *s; s++)
        put(z, (uint8_t)*s, 1);
}

static uint32_t checksum(const char *head, int64_t head_len, const struct k_tensor *t)
{
    uLong crc = crc32_z(0, (const Bytef *)head, (z_size_t)head_len);
    return (uint32_t)crc32_z(crc, t->data, (z_size_t)t->size);
}

void npz_begin(struct npz_writer *z, struct file_writer *file, struct arena *a)
{
    *z = (struct npz_writer){.file = file, .arena = a};
}

enum npuc_status npz_put(struct npz_writer *z, const char *name, const struct k_tensor *t, struct diag *d)
{
    int64_t head_len, at = z->file->pos, name_len = (int64_t)strlen(name) + 4;
    const char *head = npy_header(t, z->arena, &head_len);
    if (!head)
        return broken(
            d, name,
            arena_printf(z->arena, "numpy has no type for %s; use --output-format pb", dtype_table[t->dtype].name));
    struct k_tensor stored = *t; /* text as numpy has it */
    const void *data = npy_data(t, z->arena, &stored.size);
    memcpy(&stored.data, &data, sizeof data);
    uint32_t crc = checksum(head, head_len, &stored);
    int64_t size = head_len + stored.size, begin = z->directory.len;
    put(z, LOCAL, 4); /* built behind the directory, written, dropped */
    put_common(z, crc, name_len, 20);
    put_name(z, name);
    put(z, 1, 2);
    put(z, 16, 2);
    put(z, (uint64_t)size, 8);
    put(z, (uint64_t)size, 8);
    file_writer_put(z->file, z->directory.data + begin, z->directory.len - begin);
    z->directory.len = begin;
    file_writer_put(z->file, head, head_len);
    file_writer_put(z->file, stored.data, stored.size);
    put(z, CENTRAL, 4);
    put(z, 45, 2);
    put_common(z, crc, name_len, 28);
    put(z, 0, 2);
    put(z, 0, 2);
    put(z, 0, 2);
    put(z, 0, 4);
    put(z, 0xffffffff, 4);
    put_name(z, name);
    put(z, 1, 2);
    put(z, 24, 2);
    put(z, (uint64_t)size, 8);
    put(z, (uint64_t)size, 8);
    put(z, (uint64_t)at, 8);
    z->n_members++;
    return NPUC_OK;
}

void npz_end(struct npz_writer *z)
{
    int64_t at = z->file->pos, size = z->directory.len;
    put(z, END64, 4);
    put(z, 44, 8);
    put(z, 45, 2);
    put(z, 45, 2);
    put(z, 0, 4);
    put(z, 0, 4);
    put(z, (uint64_t)z->n_members, 8);
    put(z, (uint64_t)z->n_members, 8);
    put(z, (uint64_t)size, 8);
    put(z, (uint64_t)at, 8);
    put(z, LOCATOR64, 4);
    put(z, 0, 4);
    put(z, (uint64_t)(at + size), 8);
    put(z, 1, 4);
    put(z, END, 4);
    put(z, 0, 4);
    put(z, 0xffff, 2);
    put(z, 0xffff, 2);
    put(z, 0xffffffff, 4);
    put(z, 0xffffffff, 4);
    put(z, 0, 2);
    file_writer_put(z->file, z->directory.data, z->directory.len);
}
