/* Every byte the data observer touches goes through here: one range check per operand against the buffer's slot or the
 * tensor, and with hazards on a record of the touched ranges. So no plan, however broken, reaches memory that is not
 * its own. */
#include "runtime/emu/hazard.h"

#include "base/size.h"

#include <stdarg.h>
#include <stdio.h>

bool emu_fault(struct emu_data *d, const struct emu_op *op, const char *fmt, ...)
{
    const struct tile_kernel *k = d->launch->kernel;
    const struct strtab *strings = k->exprs.strings;
    const struct emu_core_id id = d->core->id;
    const long at = (long)(op->insn - d->section->code.data);
    int n =
        snprintf(d->error, sizeof d->launch->error,
                 "kernel '%.80s', %s core %d.%d, instruction %ld (%s): ", str_text(strings, k->name),
                 id.kind == TCORE_CUBE ? "cube" : "vector", id.block, id.sub, at, tile_insn_table[op->insn->op].name);
    va_list ap;
    va_start(ap, fmt);
    if (n > 0 && (size_t)n < sizeof d->launch->error)
        vsnprintf(d->error + n, sizeof d->launch->error - (size_t)n, fmt, ap);
    va_end(ap);
    return false;
}

int32_t emu_esize(struct emu_data *d, const struct emu_op *op, int64_t dtype)
{
    const int32_t size = dtype_size((enum dtype)dtype);
    if (size == 0)
        emu_fault(d, op, "%s elements have no address of their own", dtype_table[dtype].name);
    return size;
}

bool emu_extents(struct emu_data *d, const struct emu_op *op, int n, const int64_t *extent, bool *empty)
{
    *empty = false;
    for (int i = 0; i < n; i++) {
        if (extent[i] < 0)
            return emu_fault(d, op, "negative extent %lld", (long long)extent[i]);
        *empty |= extent[i] == 0;
    }
    return true;
}

struct emu_span emu_rows(int64_t off, int64_t rows, int64_t row, int64_t cols, int64_t col, int32_t size)
{
    return (struct emu_span){off, {1, 1, rows, cols}, {0, 0, row, col}, size};
}

/* Adds what n steps reach; false: too far to be anything's. */
static inline bool reach(int64_t n, int64_t stride, int64_t *first, int64_t *last)
{
    const int64_t limit = (int64_t)1 << 56;
    int64_t step;
    if (n <= 1)
        return true;
    if (__builtin_mul_overflow(n - 1, stride, &step) || step > limit || step < -limit)
        return false;
    *(step < 0 ? first : last) += step;
    return true;
}

/* First and one past the last byte, relative to the operand's start. Offset and products are bounded, so that no sum
 * overflows. */
static inline bool span_bytes(const struct emu_span *s, int64_t *lo, int64_t *hi)
{
    int64_t first = s->off, last = s->off;
    if (s->off < 0 || s->off > (int64_t)1 << 56 || !reach(s->n[0], s->stride[0], &first, &last) ||
        !reach(s->n[1], s->stride[1], &first, &last) || !reach(s->n[2], s->stride[2], &first, &last) ||
        !reach(s->n[3], s->stride[3], &first, &last))
        return false;
    *lo = first * s->size;
    *hi = (last + 1) * s->size;
    return true;
}

static inline bool is_empty(const struct emu_span *s)
{
    return s->n[0] <= 0 || s->n[1] <= 0 || s->n[2] <= 0 || s->n[3] <= 0;
}

/* Where the recorded runs of bytes lie. */
struct run_target {
    struct emu_data *data;
    int space;    /* enum tile_space, or TS_GM */
    int64_t base; /* of the operand within the space, or its host address */
    bool write;
};
static bool record_run(const struct run_target *t, int64_t at, int64_t bytes)
{
    if (t->space == TS_GM)
        return emu_hazard_gm(t->data->hazard, t->data->hazard_core, (uint64_t)(t->base + at), bytes, t->write);
    return emu_hazard_access(t->data->hazard, t->data->hazard_core, (enum tile_space)t->space, t->base + at, bytes,
                             t->write);
}

static bool record_span(const struct run_target *t, const struct emu_span *s)
{
    int64_t run = s->size, n[4], stride[4];
    int dims = 4;
    for (int i = 0; i < 4; i++) {
        n[i] = s->n[i];
        stride[i] = s->stride[i] * s->size;
    }
    while (dims > 0 && (n[dims - 1] == 1 || stride[dims - 1] == run)) {
        run *= n[dims - 1];
        dims--;
    }
    for (int i = dims; i < 4; i++)
        n[i] = 1;
    int64_t i[4];
    for (i[0] = 0; i[0] < n[0]; i[0]++)
        for (i[1] = 0; i[1] < n[1]; i[1]++)
            for (i[2] = 0; i[2] < n[2]; i[2]++)
                for (i[3] = 0; i[3] < n[3]; i[3]++)
                    if (!record_run(t,
                                    s->off * s->size + i[0] * stride[0] + i[1] * stride[1] + i[2] * stride[2] +
                                        i[3] * stride[3],
                                    run))
                        return false;
    return true;
}

static bool report_hazard(struct emu_data *d, const struct emu_op *op, const char *what, const char *name)
{
    char why[192];
    emu_hazard_why(d->hazard, why, sizeof why);
    return emu_fault(d, op, "%s '%.64s': %s", what, name, why);
}

static const char *name_of(const struct emu_data *d, sym name)
{
    return str_text(d->launch->kernel->exprs.strings, name);
}

void *emu_buf_unsettled(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write)
{
    const struct tile_buf *b = &d->section->bufs.data[op->arg[field]];
    const int64_t base = b->base + op->slot[field] * b->slot_size;
    int64_t lo, hi;
    if (is_empty(s))
        return d->mem->at[b->space] + base;
    if (!span_bytes(s, &lo, &hi) || lo < 0 || hi > b->slot_size) {
        emu_fault(d, op, "%s of %lld x %lld x %lld x %lld elements from %lld is outside of buffer '%.64s' (%lld bytes)",
                  write ? "write" : "read", (long long)s->n[0], (long long)s->n[1], (long long)s->n[2],
                  (long long)s->n[3], (long long)s->off, name_of(d, b->name), (long long)b->slot_size);
        return NULL;
    }
    if (d->hazard && !record_span(&(struct run_target){d, b->space, base, write}, s)) {
        report_hazard(d, op, "buffer", name_of(d, b->name));
        return NULL;
    }
    return d->mem->at[b->space] + base + s->off * s->size;
}

void *emu_buf(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write)
{
    void *p = emu_buf_unsettled(d, op, field, s, write);
    if (p && d->views)
        emu_view_settle(d, op, field);
    return p;
}

/* Only what some tensor of the launch writes can race. */
static bool is_shared(const struct emu_launch *l, const struct emu_tensor *t)
{
    for (int64_t i = 0; i < l->kernel->tensors.len; i++) {
        const struct emu_tensor *o = &l->tensors[i];
        if (l->kernel->tensors.data[i].is_output && o->data && o->data < t->data + t->size &&
            t->data < o->data + o->size)
            return true;
    }
    return false;
}

/* Rows along one dimension keep their gaps, anything else is taken for all that lies between. */
static struct emu_runs runs_of(const struct emu_span *s, const uint8_t *data, int64_t lo, int64_t hi)
{
    const bool rows = s->n[0] == 1 && s->n[2] == 1 && s->stride[3] == 1;
    return rows && s->n[1] > 1
               ? (struct emu_runs){data + s->off * s->size, s->n[3] * s->size, s->n[1], s->stride[1] * s->size}
               : (struct emu_runs){data + lo, hi - lo, 1, 0};
}

static void *find_gm(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write,
                     struct emu_runs *runs)
{
    const int64_t number = op->arg[field];
    const struct emu_tensor *t = &d->launch->tensors[number];
    const sym name = d->launch->kernel->tensors.data[number].name;
    const int64_t size = t->part > 0 ? t->part : t->size, skip = t->part * emu_copy_of(d->launch, d->core->id.block);
    int64_t lo, hi;
    static char nothing[16];
    *runs = (struct emu_runs){.n = 0};
    if (is_empty(s))
        return t->data ? (void *)t->data : nothing;
    if (!span_bytes(s, &lo, &hi) || lo < 0 || hi > size) {
        emu_fault(d, op, "%s of %lld x %lld x %lld x %lld elements from %lld is outside of tensor '%.64s' (%lld bytes)",
                  write ? "write" : "read", (long long)s->n[0], (long long)s->n[1], (long long)s->n[2],
                  (long long)s->n[3], (long long)s->off, name_of(d, name), (long long)size);
        return NULL;
    }
    if (!t->data || (write && t->read_only)) {
        emu_fault(d, op, "tensor '%.64s' %s", name_of(d, name),
                  t->data ? "may not be written" : "has no data in this plan");
        return NULL;
    }
    if (d->hazard && is_shared(d->launch, t) &&
        !record_span(&(struct run_target){d, TS_GM, (int64_t)(uintptr_t)t->data + skip, write}, s)) {
        report_hazard(d, op, "tensor", name_of(d, name));
        return NULL;
    }
    if (d->block->shows_written || d->block->made_from)
        *runs = runs_of(s, t->data + skip, lo, hi);
    if (write && d->block->shows_written)
        emu_views_settle(d->block, runs);
    return t->data + skip + s->off * s->size;
}

void *emu_gm_unmade(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write)
{
    struct emu_runs runs;
    return find_gm(d, op, field, s, write, &runs);
}

void *emu_gm(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write)
{
    struct emu_runs runs;
    void *p = find_gm(d, op, field, s, write, &runs);
    if (p && runs.n)
        emu_made_now(d->block, &runs);
    return p;
}
