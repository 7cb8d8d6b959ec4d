/* Writing a plan: records are encoded in memory, weights are streamed, header and table are patched in at the end. The
 * bytes depend on the plan alone. */
#include "plan/chunk_priv.h"
#include "plan/coder_priv.h"

#include "base/size.h"

#include <string.h>

struct section_bytes {
    const uint8_t *data;
    int64_t size;
};
struct plan_output {
    struct plan *p;
    struct file_writer w;
    struct diag *d;
    const char *path;
    struct section_bytes section[PSEC_END]; /* encoded records */
    uint8_t table[PLAN_N_SECTIONS][PLAN_TABLE_ENTRY_SIZE];
};

static void encode_section(struct plan_output *o, struct coder *c, int section)
{
    c->out.data = NULL;
    c->out.len = c->out.cap = 0;
    code_section(c, o->p, section);
    o->section[section] = (struct section_bytes){c->out.data, c->out.len};
}

/* Strings last: their order is that of first use. */
static void encode_records(struct plan_output *o, struct strtab *names)
{
    struct plan *p = o->p;
    struct coder c = {.mode = CODER_MARK, .arena = &p->arena, .from = &p->strings, .names = names};
    expr_numbers_begin(&c, &p->exprs);
    for (int s = PSEC_TENSORS; s <= PLAN_N_RECORD_SECTIONS; s++)
        code_section(&c, p, s);
    expr_numbers_assign(&c);
    c.mode = CODER_WRITE;
    for (int s = PSEC_EXPRS; s <= PLAN_N_RECORD_SECTIONS; s++)
        encode_section(o, &c, s);
    encode_section(o, &c, PSEC_STRINGS);
}

/* Places the weights; false when their sizes overflow. */
static bool place_weights(struct plan *p)
{
    int64_t end = 0;
    for (int64_t i = 0; i < p->tensors.len; i++) {
        struct plan_tensor *t = &p->tensors.data[i];
        if (t->kind != PT_WEIGHT || t->data_size < 0)
            continue;
        if (end > INT64_MAX - PLAN_WEIGHTS_ALIGN)
            return false;
        t->data_offset = size_align(end, PLAN_TENSOR_ALIGN);
        if (!size_add(t->data_offset, t->data_size, &end))
            return false;
    }
    p->weights_size = end;
    return true;
}

static void put_entry(struct plan_output *o, int section, int64_t offset, uint64_t hash)
{
    uint8_t *e = o->table[section - 1];
    plan_put_u32(e, (uint32_t)section);
    plan_put_u32(e + 4, 0);
    plan_put_u64(e + 8, (uint64_t)offset);
    plan_put_u64(e + 16, (uint64_t)(o->w.pos - offset));
    plan_put_u64(e + 24, hash);
}

static enum npuc_status bug(struct plan_output *o, const char *what)
{
    return diag_error(o->d, &(struct diag_loc){.file = o->path, .index = -1}, D_VERIFY, what);
}

static enum npuc_status stream_weights(struct plan_output *o, const struct plan_weight_source *src)
{
    const int64_t start = o->w.pos;
    for (int64_t i = 0; i < o->p->tensors.len; i++) {
        const struct plan_tensor *t = &o->p->tensors.data[i];
        if (t->kind != PT_WEIGHT || t->data_size < 0)
            continue;
        file_writer_pad(&o->w, PLAN_TENSOR_ALIGN);
        const int64_t at = o->w.pos;
        const enum npuc_status s = src->put(src->user, (int32_t)i, &o->w);
        if (s)
            return s;
        if (at - start != t->data_offset || o->w.pos - at != t->data_size)
            return bug(o, "a weight was written with another size than declared");
    }
    return NPUC_OK;
}

/* The weights and the sums of their chunks. */
static enum npuc_status write_weights(struct plan_output *o, const struct plan_weight_source *src)
{
    file_writer_pad(&o->w, PLAN_WEIGHTS_ALIGN);
    const int64_t offset = o->w.pos;
    struct chunk_hasher *h = chunk_hasher_new(&o->p->arena, o->p->weights_size);
    if (!h)
        return diag_error(o->d, NULL, D_HOST_MEMORY);
    o->w.tap = chunk_hasher_add;
    o->w.tap_user = h;
    const enum npuc_status s = stream_weights(o, src);
    o->w.tap = NULL;
    if (s)
        return s;
    const uint64_t *sums;
    const int64_t n = chunk_hasher_end(h, &sums);
    uint8_t *bytes = ARENA_ARRAY(&o->p->arena, uint8_t, 8 * n + 1);
    if (!bytes)
        return diag_error(o->d, NULL, D_HOST_MEMORY);
    for (int64_t i = 0; i < n; i++)
        plan_put_u64(bytes + 8 * i, sums[i]);
    const uint64_t hash = plan_hash(bytes, 8 * n);
    put_entry(o, PSEC_WEIGHTS, offset, hash);
    file_writer_pad(&o->w, PLAN_SECTION_ALIGN);
    const int64_t sums_offset = o->w.pos;
    file_writer_put(&o->w, bytes, 8 * n);
    put_entry(o, PSEC_CHUNK_SUMS, sums_offset, hash);
    return NPUC_OK;
}

static void write_header(struct plan_output *o)
{
    uint8_t h[PLAN_HEADER_SIZE] = {0};
    memcpy(h + PLAN_AT_MAGIC, PLAN_MAGIC, sizeof PLAN_MAGIC - 1);
    plan_put_u32(h + PLAN_AT_VERSION, PLAN_VERSION);
    plan_put_u32(h + PLAN_AT_HEADER_SIZE, PLAN_HEADER_SIZE);
    plan_put_u64(h + PLAN_AT_FILE_SIZE, (uint64_t)o->w.pos);
    plan_put_u32(h + PLAN_AT_N_SECTIONS, PLAN_N_SECTIONS);
    plan_put_u32(h + PLAN_AT_ENTRY_SIZE, PLAN_TABLE_ENTRY_SIZE);
    plan_put_u64(h + PLAN_AT_TABLE, PLAN_HEADER_SIZE);
    plan_put_u64(h + PLAN_AT_TABLE_HASH, plan_hash(o->table, (int64_t)sizeof o->table));
    const int64_t len = str_len(&o->p->strings, o->p->target_name);
    memcpy(h + PLAN_AT_TARGET, str_text(&o->p->strings, o->p->target_name),
           (size_t)(len < PLAN_TARGET_NAME_SIZE ? len : PLAN_TARGET_NAME_SIZE));
    plan_put_u64(h + PLAN_AT_HEADER_HASH, plan_hash(h, PLAN_AT_HEADER_HASH));
    file_writer_patch(&o->w, 0, h, (int64_t)sizeof h);
    file_writer_patch(&o->w, PLAN_HEADER_SIZE, o->table, (int64_t)sizeof o->table);
}

static enum npuc_status write_file(struct plan_output *o, const struct plan_weight_source *src)
{
    static const uint8_t zeros[PLAN_HEADER_SIZE + PLAN_N_SECTIONS * PLAN_TABLE_ENTRY_SIZE];
    file_writer_put(&o->w, zeros, (int64_t)sizeof zeros);
    for (int s = PSEC_STRINGS; s <= PLAN_N_RECORD_SECTIONS; s++) {
        file_writer_pad(&o->w, PLAN_SECTION_ALIGN);
        const int64_t offset = o->w.pos;
        file_writer_put(&o->w, o->section[s].data, o->section[s].size);
        put_entry(o, s, offset, plan_hash(o->section[s].data, o->section[s].size));
    }
    const enum npuc_status status = write_weights(o, src);
    if (status)
        return status;
    write_header(o);
    return file_writer_commit(&o->w, o->d);
}

enum npuc_status plan_write(struct plan *p, const char *path, const struct plan_weight_source *src, struct diag *d)
{
    const struct arena_mark mark = arena_mark(&p->arena);
    struct plan_output *o = ARENA_NEW(&p->arena, struct plan_output);
    struct strtab names;
    if (!o)
        return diag_error(d, NULL, D_HOST_MEMORY);
    o->p = p;
    o->d = d;
    o->path = path;
    strtab_init(&names, &p->arena);
    enum npuc_status s;
    if (!place_weights(p)) {
        s = bug(o, "the sizes of the weights overflow");
    } else {
        encode_records(o, &names);
        s = file_writer_open(&o->w, path, d);
        if (!s)
            s = write_file(o, src);
        if (s)
            file_writer_abort(&o->w);
    }
    arena_release(&p->arena, mark);
    return s;
}
