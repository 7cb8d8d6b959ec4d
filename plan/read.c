/* Reading a plan, first stage: structure. Nothing in the file is believed before it has been checked: sizes, checksums,
 * offsets, then records one by one. plan/verify.c is the second stage. */
#include "plan/coder_priv.h"

#include "base/pool.h"
#include "base/size.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct plan_input {
    struct plan *p;
    struct diag *d;
    const char *path;
    const uint8_t *data;
    int64_t size;
    int64_t offset[PSEC_END], length[PSEC_END];
    uint64_t hash[PSEC_END];
    jmp_buf out_of_memory;
};

static const char *const section_names[PSEC_END] = {
    [PSEC_STRINGS] = "strings", [PSEC_EXPRS] = "expressions",     [PSEC_TENSORS] = "tensors",
    [PSEC_KERNELS] = "kernels", [PSEC_STEPS] = "steps",           [PSEC_ENTRIES] = "entries",
    [PSEC_SOURCES] = "sources", [PSEC_TARGET] = "target",         [PSEC_RECORD] = "record",
    [PSEC_WEIGHTS] = "weights", [PSEC_CHUNK_SUMS] = "chunk sums",
};

NPUC_PRINTF(3, 4)
static enum npuc_status refuse(const struct plan_input *in, enum diag_code code, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return diag_error(in->d, &(struct diag_loc){.file = in->path, .index = -1}, code, text);
}

static bool all_zero(const uint8_t *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static enum npuc_status check_header(const struct plan_input *in)
{
    const uint8_t *h = in->data;
    if (in->size < (int64_t)sizeof PLAN_MAGIC - 1 || memcmp(h, PLAN_MAGIC, sizeof PLAN_MAGIC - 1) != 0)
        return refuse(in, D_PLAN_STRUCTURE, "not a plan file: it does not begin with a plan's magic bytes");
    if (in->size < PLAN_HEADER_SIZE)
        return refuse(in, D_PLAN_STRUCTURE, "the file has %lld bytes, a plan has at least %d", (long long)in->size,
                      PLAN_HEADER_SIZE);
    const uint32_t version = plan_get_u32(h + PLAN_AT_VERSION);
    if (version != PLAN_VERSION)
        return refuse(in, D_PLAN_VERSION,
                      "the plan has format version %u, this npuc reads version %d; compile the model again", version,
                      PLAN_VERSION);
    if (plan_get_u64(h + PLAN_AT_HEADER_HASH) != plan_hash(h, PLAN_AT_HEADER_HASH))
        return refuse(in, D_PLAN_CHECKSUM, "the header's checksum is wrong: the file is damaged");
    const uint64_t size = plan_get_u64(h + PLAN_AT_FILE_SIZE);
    if (size != (uint64_t)in->size)
        return refuse(in, D_PLAN_STRUCTURE, "the file has %lld bytes, its header says %llu", (long long)in->size,
                      (unsigned long long)size);
    if (plan_get_u32(h + PLAN_AT_HEADER_SIZE) != PLAN_HEADER_SIZE ||
        plan_get_u32(h + PLAN_AT_N_SECTIONS) != PLAN_N_SECTIONS ||
        plan_get_u32(h + PLAN_AT_ENTRY_SIZE) != PLAN_TABLE_ENTRY_SIZE ||
        plan_get_u64(h + PLAN_AT_TABLE) != PLAN_HEADER_SIZE)
        return refuse(in, D_PLAN_STRUCTURE, "the header does not describe the sections of a version %d plan",
                      PLAN_VERSION);
    if (!all_zero(h + PLAN_AT_ZERO, PLAN_AT_HEADER_HASH - PLAN_AT_ZERO))
        return refuse(in, D_PLAN_STRUCTURE, "reserved bytes of the header are not zero");
    return NPUC_OK;
}

/* Sections stand in the order of their ids, each at the first aligned place after the one before; what is between is
 * zero. */
static enum npuc_status check_table(struct plan_input *in)
{
    const int64_t table_size = (int64_t)PLAN_N_SECTIONS * PLAN_TABLE_ENTRY_SIZE;
    int64_t end = PLAN_HEADER_SIZE + table_size;
    const uint8_t *e = in->data + PLAN_HEADER_SIZE;
    if (in->size < end)
        return refuse(in, D_PLAN_STRUCTURE, "the file ends within the section table");
    if (plan_get_u64(in->data + PLAN_AT_TABLE_HASH) != plan_hash(e, table_size))
        return refuse(in, D_PLAN_CHECKSUM, "the section table's checksum is wrong: the file is damaged");
    for (int s = 1; s < PSEC_END; s++, e += PLAN_TABLE_ENTRY_SIZE) {
        const int64_t offset = (int64_t)plan_get_u64(e + 8), length = (int64_t)plan_get_u64(e + 16);
        const int64_t want = size_align(end, s == PSEC_WEIGHTS ? PLAN_WEIGHTS_ALIGN : PLAN_SECTION_ALIGN);
        if (plan_get_u32(e) != (uint32_t)s || plan_get_u32(e + 4) != 0)
            return refuse(in, D_PLAN_STRUCTURE, "entry %d of the section table is not that of section '%s'", s - 1,
                          section_names[s]);
        if (offset != want || !size_in(offset, length, in->size))
            return refuse(in, D_PLAN_STRUCTURE,
                          "section '%s' is at %lld with %lld bytes, expected at %lld within a file of %lld bytes",
                          section_names[s], (long long)offset, (long long)length, (long long)want, (long long)in->size);
        if (!all_zero(in->data + end, offset - end))
            return refuse(in, D_PLAN_STRUCTURE, "bytes before section '%s' are not zero", section_names[s]);
        in->offset[s] = offset;
        in->length[s] = length;
        in->hash[s] = plan_get_u64(e + 24);
        end = offset + length;
    }
    if (end != in->size)
        return refuse(in, D_PLAN_STRUCTURE, "%lld bytes follow the last section", (long long)(in->size - end));
    return NPUC_OK;
}

struct weight_check {
    const uint8_t *weights, *sums;
    int64_t size;
    _Atomic int64_t bad; /* lowest chunk with a wrong sum; INT64_MAX none */
};
static void check_chunk(void *arg, int64_t i, int worker)
{
    struct weight_check *c = arg;
    const int64_t at = i * PLAN_CHUNK_SIZE, left = c->size - at;
    int64_t lowest = atomic_load(&c->bad);
    (void)worker;
    if (i > lowest ||
        plan_get_u64(c->sums + 8 * i) == plan_hash(c->weights + at, left < PLAN_CHUNK_SIZE ? left : PLAN_CHUNK_SIZE))
        return;
    while (i < lowest && !atomic_compare_exchange_weak(&c->bad, &lowest, i))
        ;
}

/* All processors work on it, up to 8: hundreds of megabytes are mapped and summed at every start. */
static enum npuc_status check_weights(const struct plan_input *in)
{
    enum { FEW_CHUNKS = 8, MOST_THREADS = 8 };
    const uint8_t *weights = in->data + in->offset[PSEC_WEIGHTS], *sums = in->data + in->offset[PSEC_CHUNK_SUMS];
    const int64_t size = in->length[PSEC_WEIGHTS], n = size_ceil_div(size, PLAN_CHUNK_SIZE);
    if (in->length[PSEC_CHUNK_SUMS] != 8 * n || in->hash[PSEC_WEIGHTS] != in->hash[PSEC_CHUNK_SUMS])
        return refuse(in, D_PLAN_STRUCTURE, "the chunk sums do not belong to %lld bytes of weights", (long long)size);
    const int threads = pool_processors() < MOST_THREADS ? pool_processors() : MOST_THREADS;
    struct pool *pool = n > FEW_CHUNKS ? pool_new(threads) : NULL;
    struct weight_check c = {.weights = weights, .sums = sums, .size = size};
    atomic_init(&c.bad, INT64_MAX);
    pool_for(pool, n, check_chunk, &c);
    pool_free(pool);
    const int64_t bad = atomic_load(&c.bad);
    if (bad == INT64_MAX)
        return NPUC_OK;
    return refuse(in, D_PLAN_CHECKSUM, "the checksum of the weights at byte %lld is wrong: the file is damaged",
                  (long long)(in->offset[PSEC_WEIGHTS] + bad * PLAN_CHUNK_SIZE));
}

static enum npuc_status check_sums(const struct plan_input *in)
{
    for (int s = 1; s < PSEC_END; s++)
        if (s != PSEC_WEIGHTS && in->hash[s] != plan_hash(in->data + in->offset[s], in->length[s]))
            return refuse(in, D_PLAN_CHECKSUM, "the checksum of section '%s' is wrong: the file is damaged",
                          section_names[s]);
    return check_weights(in);
}

static enum npuc_status read_records(struct plan_input *in)
{
    struct plan *p = in->p;
    struct coder c = {.mode = CODER_READ, .arena = &p->arena, .from = &p->strings, .names = &p->strings};
    c.exprs.pool = &p->exprs;
    for (int s = PSEC_STRINGS; s <= PLAN_N_RECORD_SECTIONS; s++) {
        c.p = in->data + in->offset[s];
        c.end = c.p + in->length[s];
        code_section(&c, p, s);
        if (!c.error && c.p != c.end)
            code_fail(&c, "bytes are left over");
        if (c.error)
            return refuse(in, D_PLAN_STRUCTURE, "section '%s': %s", section_names[s], c.error);
    }
    p->weights = in->data + in->offset[PSEC_WEIGHTS];
    p->weights_size = in->length[PSEC_WEIGHTS];
    const char *name = (const char *)in->data + PLAN_AT_TARGET;
    char want[PLAN_TARGET_NAME_SIZE] = {0};
    const int64_t len = str_len(&p->strings, p->target_name);
    memcpy(want, str_text(&p->strings, p->target_name),
           (size_t)(len < PLAN_TARGET_NAME_SIZE ? len : PLAN_TARGET_NAME_SIZE));
    if (memcmp(name, want, sizeof want) != 0)
        return refuse(in, D_PLAN_STRUCTURE, "the header names another target than the target section");
    return NPUC_OK;
}

static enum npuc_status read_map(struct plan_input *in)
{
    enum npuc_status s = check_header(in);
    if (!s)
        s = check_table(in);
    if (!s)
        s = check_sums(in);
    if (!s)
        s = read_records(in);
    return s ? s : plan_verify(in->p, in->path, in->d);
}

static void leave(void *user)
{
    struct plan_input *in = user;
    longjmp(in->out_of_memory, 1);
}

/* The one non-local exit of this folder: when memory runs out while records are read. Only arena memory and the map,
 * both owned by the plan, are held across it. */
enum npuc_status plan_read(struct plan *p, const char *path, struct diag *d)
{
    struct plan_input in = {.p = p, .d = d, .path = path};
    enum npuc_status s = file_map_open(&p->map, path, d);
    if (s)
        return s;
    in.data = p->map.data;
    in.size = p->map.size;
    p->arena.on_oom = leave;
    p->arena.oom_user = &in;
    if (setjmp(in.out_of_memory) == 0)
        s = read_map(&in);
    else
        s = diag_error(d, &(struct diag_loc){.file = path, .index = -1}, D_HOST_MEMORY);
    p->arena.on_oom = NULL;
    p->arena.oom_user = NULL;
    return s;
}

void plan_init(struct plan *p)
{
    *p = (struct plan){0};
    arena_init(&p->arena, NULL);
    strtab_init(&p->strings, &p->arena);
    expr_pool_init(&p->exprs, &p->arena, &p->strings);
}

void plan_free(struct plan *p)
{
    file_map_close(&p->map);
    arena_free(&p->arena);
    *p = (struct plan){0};
}
