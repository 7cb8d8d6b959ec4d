/* Constants in the form a kernel reads them, streamed into the plan in chunks of at most a few MiB.
 *
 * NZ stores a matrix of rows x cols as stripes of c0 columns: [ceil(cols/c0)][rows16][c0], both rounded up with zeros.
 * A stripe is written whole before the next one begins, so a group of stripes is collected per pass over the rows: each
 * pass reads 32 bytes or more of every source row, and of a transposed source c0 complete rows. Element types change on
 * the way out. */
#include "backend/emit_priv.h"
#include "base/half.h"
#include "base/size.h"

#include <string.h>

#define CHUNK_SIZE (4 << 20) /* bytes of source elements collected at a time */

/* ---- element types ---------------------------------------------------------------------------------------- */

static void to_f32(float *y, enum dtype from, const uint8_t *x, int64_t n)
{
    if (from == DT_F16)
        half_f16_to_f32_n(y, (const uint16_t *)(const void *)x, n);
    else if (from == DT_BF16)
        half_bf16_to_f32_n(y, (const uint16_t *)(const void *)x, n);
    else
        memcpy(y, x, (size_t)n * sizeof *y);
}

/* Writes n elements of type `from` as type `to`; `room` holds CHUNK_SIZE bytes or more. */
static void put_elements(struct file_writer *w, enum dtype to, enum dtype from, const uint8_t *x, int64_t n,
                         float *room)
{
    if (to == from) {
        file_writer_put(w, x, n * dtype_size(to));
        return;
    }
    const int64_t step = CHUNK_SIZE / 8;
    for (int64_t i = 0; i < n; i += step) {
        const int64_t len = n - i < step ? n - i : step;
        uint16_t *narrow = (uint16_t *)(void *)(room + step);
        to_f32(room, from, x + i * dtype_size(from), len);
        if (to == DT_F16)
            half_f32_to_f16_n(narrow, room, len);
        else if (to == DT_BF16)
            half_f32_to_bf16_n(narrow, room, len);
        file_writer_put(w, to == DT_F32 ? (const void *)room : (const void *)narrow, len * dtype_size(to));
    }
}

/* The same of f32 that are rounded to `via` before. */
static void put_rounded(struct file_writer *w, enum dtype via, const float *x, int64_t n, float *room)
{
    const int64_t step = CHUNK_SIZE / 8;
    for (int64_t i = 0; i < n; i += step) {
        const int64_t len = n - i < step ? n - i : step;
        uint16_t *narrow = (uint16_t *)(void *)(room + step);
        if (via == DT_F16)
            half_f32_to_f16_n(narrow, x + i, len);
        else
            half_f32_to_bf16_n(narrow, x + i, len);
        to_f32(room, via, (const uint8_t *)narrow, len);
        file_writer_put(w, room, len * (int64_t)sizeof *room);
    }
}

static bool can_store(enum dtype from, enum dtype to)
{
    const bool wide_from = from == DT_F32 || from == DT_F16 || from == DT_BF16;
    const bool wide_to = to == DT_F32 || to == DT_F16 || to == DT_BF16;
    return from == to || (wide_from && wide_to);
}

/* ---- NZ --------------------------------------------------------------------------------------------------- */

struct matrix {
    const uint8_t *data;
    int64_t rows, cols;         /* of the matrix that is stored */
    int64_t row_step, col_step; /* source elements between neighbours */
    int64_t rows_pad, c0;
    int64_t elem; /* bytes of a source element */
};

#define DEFINE_TRANSPOSE(bits)                                                                                         \
    static void transpose_u##bits(uint##bits##_t *dst, const uint##bits##_t *src, const struct matrix *m,              \
                                  int64_t rows, int64_t cols)                                                          \
    {                                                                                                                  \
        const int64_t row_step = m->row_step, col_step = m->col_step, c0 = m->c0;                                      \
        for (int64_t r = 0; r < rows; r++)                                                                             \
            for (int64_t c = 0; c < cols; c++)                                                                         \
                dst[r * c0 + c] = src[c * col_step + r * row_step];                                                    \
    }
DEFINE_TRANSPOSE(8)
DEFINE_TRANSPOSE(16)
DEFINE_TRANSPOSE(32)

/* The rows [r0, r0 + n) of stripe k1 to dst; rows beyond the matrix and columns beyond it are zero. */
static void collect_stripe(const struct matrix *m, int64_t k1, int64_t r0, int64_t n, uint8_t *dst)
{
    const int64_t c = k1 * m->c0;
    const int64_t cols = m->cols - c < m->c0 ? m->cols - c : m->c0;
    const int64_t rows = m->rows - r0 < n ? m->rows - r0 : n;
    if (cols < m->c0 || rows < n)
        memset(dst, 0, (size_t)(n * m->c0 * m->elem));
    if (rows <= 0)
        return;
    const uint8_t *src = m->data + (r0 * m->row_step + c * m->col_step) * m->elem;
    if (m->col_step == 1) {
        for (int64_t r = 0; r < rows; r++)
            memcpy(dst + r * m->c0 * m->elem, src + r * m->row_step * m->elem, (size_t)(cols * m->elem));
    } else if (m->elem == 4) {
        transpose_u32((uint32_t *)(void *)dst, (const uint32_t *)(const void *)src, m, rows, cols);
    } else if (m->elem == 2) {
        transpose_u16((uint16_t *)(void *)dst, (const uint16_t *)(const void *)src, m, rows, cols);
    } else {
        transpose_u8(dst, src, m, rows, cols);
    }
}

struct weight_buffers {
    uint8_t *chunk; /* CHUNK_SIZE */
    float *room;    /* CHUNK_SIZE */
};

static void put_nz(struct file_writer *w, const struct matrix *m, enum dtype to, enum dtype from,
                   const struct weight_buffers *b)
{
    const int64_t stripes = size_ceil_div(m->cols, m->c0);
    const int64_t row_size = m->c0 * m->elem;
    int64_t rows = CHUNK_SIZE / row_size;
    if (rows > m->rows_pad)
        rows = m->rows_pad;
    const int64_t group = rows == m->rows_pad && rows > 0 ? CHUNK_SIZE / (rows * row_size) : 1;
    for (int64_t k1 = 0; k1 < stripes; k1 += group) {
        const int64_t n = stripes - k1 < group ? stripes - k1 : group;
        for (int64_t r = 0; r < m->rows_pad; r += rows) {
            const int64_t len = m->rows_pad - r < rows ? m->rows_pad - r : rows;
            for (int64_t i = 0; i < n; i++)
                collect_stripe(m, k1 + i, r, len, b->chunk + i * len * row_size);
            put_elements(w, to, from, b->chunk, n * len * m->c0, b->room);
        }
    }
}

/* Rows one after the other, without padding; one that is longer than a chunk in pieces. */
static void put_rows(struct file_writer *w, struct matrix m, enum dtype to, enum dtype from,
                     const struct weight_buffers *b)
{
    const int64_t most = CHUNK_SIZE / m.elem;
    m.c0 = m.cols < most ? m.cols : most;
    if (m.c0 == 0)
        return;
    const int64_t rows = most / m.c0;
    for (int64_t r = 0; r < m.rows; r += rows) {
        const int64_t n = m.rows - r < rows ? m.rows - r : rows;
        for (int64_t c = 0; c < m.cols; c += m.c0) {
            const int64_t cols = m.cols - c < m.c0 ? m.cols - c : m.c0;
            collect_stripe(&m, c / m.c0, r, n, b->chunk);
            put_elements(w, to, from, b->chunk, n * cols, b->room);
        }
    }
}

/* ---- weights ---------------------------------------------------------------------------------------------- */

static bool stores_transpose(const struct emit_weight *x)
{
    return (x->form == WF_NZ_T) != x->transpose;
}

static struct matrix matrix_of(const struct emit_weight *x, const struct type *t, const struct expr_pool *p,
                               int64_t *batch)
{
    int64_t d[IR_MAX_RANK] = {0};
    *batch = 1;
    for (int i = 0; i < t->rank; i++) {
        (void)expr_is_const(p, t->dims[i], &d[i]);
        *batch *= i < t->rank - 2 ? d[i] : 1;
    }
    const int64_t rows = t->rank > 1 ? d[t->rank - 2] : 1, cols = d[t->rank - 1];
    struct matrix m = {.data = x->blob->data,
                       .elem = dtype_size(t->dtype),
                       .c0 = 32 / dtype_size((enum dtype)x->dtype),
                       .rows = rows,
                       .cols = cols,
                       .row_step = cols,
                       .col_step = 1};
    if (stores_transpose(x)) {
        m.rows = cols;
        m.cols = rows;
        m.row_step = 1;
        m.col_step = cols;
    }
    m.rows_pad = size_align(m.rows, 16);
    return m;
}

static void put_matrices(const struct emit *e, const struct emit_weight *x, struct file_writer *w,
                         const struct weight_buffers *b)
{
    const enum dtype from = x->type->dtype, to = (enum dtype)x->dtype;
    int64_t batch = 0;
    struct matrix m = matrix_of(x, x->type, &e->cx->exprs, &batch);
    const bool nz = x->form == WF_NZ || x->form == WF_NZ_T;
    const int64_t size = m.rows * m.cols * m.elem;
    for (int64_t i = 0; i < batch; i++, m.data += size) {
        if (nz)
            put_nz(w, &m, to, from, b);
        else
            put_rows(w, m, to, from, b);
    }
}

/* ---- convolutions ----------------------------------------------------------------------------------------- */

struct conv_dims {
    int64_t group, out, in, taps; /* channels of one group */
};

static struct conv_dims conv_dims_of(const struct emit_weight *x, const struct expr_pool *p)
{
    struct conv_dims c = {.group = x->group, .out = 1, .in = 1, .taps = 1};
    for (int i = 0; i < x->type->rank; i++) {
        int64_t d = 0;
        (void)expr_is_const(p, x->type->dims[i], &d);
        if (i == 0)
            c.out = d;
        else if (i == 1)
            c.in = d;
        else
            c.taps *= d;
    }
    if (x->transpose) {
        const int64_t out = c.in;
        c.in = c.out / c.group;
        c.out = out;
    } else {
        c.out /= c.group;
    }
    return c;
}

/* Filters one after the other: rows of kernel positions of all channels of the group. */
static void put_filters(const struct emit_weight *x, const struct conv_dims *c, struct file_writer *w,
                        const struct weight_buffers *b)
{
    const enum dtype from = x->type->dtype;
    struct matrix m = {.elem = dtype_size(from),
                       .c0 = c->in,
                       .rows = c->taps,
                       .cols = c->in,
                       .rows_pad = c->taps,
                       .row_step = x->transpose ? -1 : 1,
                       .col_step = x->transpose ? c->out * c->taps : c->taps};
    for (int64_t o = 0; o < c->group * c->out; o++) {
        const int64_t group = o / c->out, plain = o * c->in * c->taps,
                      turned = (group * c->in * c->out + o % c->out + 1) * c->taps - 1;
        m.data = (const uint8_t *)x->blob->data + (x->transpose ? turned : plain) * m.elem;
        put_nz(w, &m, (enum dtype)x->dtype, from, b);
    }
}

static void put_conv(const struct emit *e, const struct emit_weight *x, struct file_writer *w,
                     const struct weight_buffers *b)
{
    const enum dtype from = x->type->dtype, to = (enum dtype)x->dtype;
    const struct conv_dims c = conv_dims_of(x, &e->cx->exprs);
    struct matrix m = {.elem = dtype_size(from),
                       .c0 = 32 / dtype_size(to),
                       .rows = c.out,
                       .cols = c.in,
                       .rows_pad = size_align(c.out, 16),
                       .row_step = x->transpose ? c.taps : c.in * c.taps,
                       .col_step = x->transpose ? c.out * c.taps : c.taps};
    if (e->m->mac_rows) {
        put_filters(x, &c, w, b);
        return;
    }
    for (int64_t g = 0; g < c.group; g++)
        for (int64_t t = 0; t < c.taps; t++) {
            const int64_t tap = x->transpose ? c.taps - 1 - t : t;
            m.data = (const uint8_t *)x->blob->data + (g * c.out * c.in * c.taps + tap) * m.elem;
            put_nz(w, &m, to, from, b);
        }
}

static void put_one(const struct emit *e, const struct emit_weight *x, struct file_writer *w,
                    const struct weight_buffers *b)
{
    const enum dtype from = x->type->dtype, to = (enum dtype)x->dtype;
    const bool nd = x->form == WF_COPY || x->form == WF_CAST;
    if (x->form == WF_CONV)
        put_conv(e, x, w, b);
    else if (x->via != DT_NONE)
        put_rounded(w, (enum dtype)x->via, x->blob->data, type_const_count(e->cx, x->type), b->room);
    else if (nd && !x->transpose && from == to)
        file_writer_put(w, x->blob->data, x->blob->size);
    else if (nd && !x->transpose)
        put_elements(w, to, from, x->blob->data, type_const_count(e->cx, x->type), b->room);
    else
        put_matrices(e, x, w, b);
}

enum npuc_status weight_put(void *user, int32_t tensor, struct file_writer *w)
{
    struct emit *e = user;
    int64_t i = 0;
    while (i < e->weights.len && e->weights.data[i].tensor != tensor)
        i++;
    if (i == e->weights.len || !e->weights.data[i].blob->data)
        return NPUC_E_INTERNAL;
    const struct emit_weight *x = &e->weights.data[i];
    const struct arena_mark mark = arena_mark(&e->cx->scratch);
    const struct weight_buffers b = {arena_alloc(&e->cx->scratch, CHUNK_SIZE, 64),
                                     arena_alloc(&e->cx->scratch, CHUNK_SIZE, 64)};
    struct emit_weight one = *x;
    for (int k = 0; k < (x->n_stack > 1 ? x->n_stack : 1); k++) {
        one.blob = x->n_stack > 1 ? x->stack[k] : x->blob;
        put_one(e, &one, w, &b);
    }
    arena_release(&e->cx->scratch, mark);
    return NPUC_OK;
}

static const struct type *stored_conv(struct emit *e, const struct emit_weight *x)
{
    const struct conv_dims c = conv_dims_of(x, &e->cx->exprs);
    const int64_t c0 = 32 / dtype_size((enum dtype)x->dtype);
    const expr rows[3] = {expr_const(&e->cx->exprs, c.group * c.out), expr_const(&e->cx->exprs, c.taps),
                          expr_const(&e->cx->exprs, c.in)};
    if (e->m->mac_rows)
        return type_tensor(e->cx, (enum dtype)x->dtype, 3, rows);
    const expr dims[4] = {expr_const(&e->cx->exprs, c.group * c.taps),
                          expr_const(&e->cx->exprs, size_ceil_div(c.in, c0)),
                          expr_const(&e->cx->exprs, size_align(c.out, 16)), expr_const(&e->cx->exprs, c0)};
    return type_tensor(e->cx, (enum dtype)x->dtype, 4, dims);
}

/* Type of the stored tensor: the value's, with the dims of what is stored. */
static const struct type *stored_type(struct emit *e, const struct emit_weight *x)
{
    struct type t = *x->type;
    if (x->form == WF_CONV)
        return stored_conv(e, x);
    expr dims[IR_MAX_RANK];
    const int more = x->n_stack > 1 ? 1 : 0;
    dims[0] = expr_const(&e->cx->exprs, x->n_stack);
    for (int i = 0; i < t.rank; i++)
        dims[i + more] = t.dims[i];
    t.rank += more;
    if (x->transpose && t.rank >= 2) {
        const expr rows = dims[t.rank - 2];
        dims[t.rank - 2] = dims[t.rank - 1];
        dims[t.rank - 1] = rows;
    }
    t.dims = dims;
    t.dtype = (enum dtype)x->dtype;
    if (x->form == WF_NZ || x->form == WF_NZ_T)
        t.layout = (struct layout){.kind = x->form == WF_NZ ? LAYOUT_NZ : LAYOUT_NZ_T, .c0 = 32 / dtype_size(t.dtype)};
    return type_intern(e->cx, &t);
}

bool weight_is_cast(const struct value *v)
{
    const struct node *n = v->def;
    return n && n->op == OP_Cast && value_const(node_in(n, 0)) &&
           can_store(n->in[0].value->type->dtype, v->type->dtype);
}

/* ---- gears: each imports the model, the plan stores a constant once ---- */

static void describe(const struct emit *e, const struct emit_weight *x, struct stored_weight *out)
{
    *out = (struct stored_weight){
        .how = *x, .size = x->blob->size, .origin = str_text(&e->cx->strings, x->blob->origin), .rank = x->type->rank};
    for (int i = 0; i < x->type->rank; i++)
        (void)expr_is_const(&e->cx->exprs, x->type->dims[i], &out->dims[i]);
}

/* Bytes that are absent (plans for times alone) are told by the name of the initializer. */
static bool same_bytes(const struct stored_weight *a, const struct stored_weight *b)
{
    const void *x = a->how.blob->data, *y = b->how.blob->data;
    if (a->size != b->size || !x != !y)
        return false;
    if (!x)
        return a->origin[0] && strcmp(a->origin, b->origin) == 0;
    return x == y || memcmp(x, y, (size_t)a->size) == 0;
}

static bool same_stack(const struct emit_weight *a, const struct emit_weight *b)
{
    if (a->n_stack != b->n_stack)
        return false;
    for (int i = 1; i < a->n_stack; i++)
        if (a->stack[i]->data != b->stack[i]->data ||
            (!a->stack[i]->data && a->stack[i]->origin != b->stack[i]->origin))
            return false;
    return true;
}

static int32_t find_stored(const struct emit *e, const struct emit_weight *x)
{
    const struct shared_weights *w = e->options ? e->options->weights : NULL;
    struct stored_weight d;
    describe(e, x, &d);
    for (int64_t i = 0; w && i < w->all.len; i++) {
        const struct stored_weight *o = &w->all.data[i];
        if (o->how.form == x->form && o->how.dtype == x->dtype && o->how.transpose == x->transpose &&
            o->how.group == x->group && o->how.via == x->via && o->how.type->dtype == x->type->dtype &&
            o->rank == d.rank && memcmp(o->dims, d.dims, sizeof d.dims) == 0 && same_bytes(o, &d) &&
            same_stack(&o->how, x))
            return o->how.tensor;
    }
    return -1;
}

static void remember(const struct emit *e, const struct emit_weight *x)
{
    struct shared_weights *w = e->options ? e->options->weights : NULL;
    struct stored_weight d;
    describe(e, x, &d);
    if (w)
        vec_push(w->arena, &w->all, d);
}

static int32_t add_weight(struct emit *e, struct value *v, struct emit_weight *x)
{
    for (int64_t i = 0; i < e->weights.len; i++) {
        const struct emit_weight *o = &e->weights.data[i];
        if (o->blob == x->blob && o->type == x->type && o->form == x->form && o->dtype == x->dtype &&
            o->transpose == x->transpose && o->group == x->group && o->via == x->via && same_stack(o, x))
            return o->tensor;
    }
    x->tensor = find_stored(e, x);
    if (x->tensor >= 0) {
        vec_push(e->arena, &e->weights, *x);
        return x->tensor;
    }
    x->tensor = tensor_new(e, PT_WEIGHT, stored_type(e, x), emit_sym(e, x->blob->origin ? x->blob->origin : v->name));
    struct plan_tensor *t = &e->plan->tensors.data[x->tensor];
    int64_t size = 0;
    if (!expr_is_const(&e->plan->exprs, t->size, &size) || !x->blob->data)
        size = -1;
    t->data_size = size;
    vec_push(e->arena, &e->weights, *x);
    remember(e, x);
    return x->tensor;
}

int32_t emit_weight(struct emit *e, struct value *v, enum weight_form form, enum dtype dtype, bool transpose)
{
    const struct blob *blob = value_const(v);
    NPUC_ASSERT(blob && can_store(v->type->dtype, dtype));
    struct emit_weight x = {
        .blob = blob, .type = v->type, .form = (uint8_t)form, .dtype = (uint8_t)dtype, .transpose = transpose};
    return add_weight(e, v, &x);
}

int32_t emit_weights(struct emit *e, int n, struct value *const *v, enum weight_form form, enum dtype dtype,
                     bool transpose)
{
    const struct blob **all = ARENA_ARRAY(e->arena, const struct blob *, n);
    for (int i = 0; i < n; i++) {
        all[i] = value_const(v[i]);
        NPUC_ASSERT(all[i] && v[i]->type == v[0]->type && can_store(v[i]->type->dtype, dtype));
    }
    struct emit_weight x = {.blob = all[0],
                            .type = v[0]->type,
                            .form = (uint8_t)form,
                            .dtype = (uint8_t)dtype,
                            .transpose = transpose,
                            .stack = all,
                            .n_stack = n};
    return add_weight(e, v[0], &x);
}

bool weight_is_rounded(const struct value *v)
{
    return weight_is_cast(v) && v->type->dtype != DT_F32 && node_in(v->def, 0)->type->dtype == DT_F32;
}

int32_t emit_rounded(struct emit *e, struct value *v)
{
    struct value *from = node_in(v->def, 0);
    struct emit_weight x = {.blob = value_const(from),
                            .type = from->type,
                            .form = WF_CAST,
                            .dtype = DT_F32,
                            .via = (uint8_t)v->type->dtype};
    return add_weight(e, v, &x);
}

int32_t emit_conv_weight(struct emit *e, struct value *v, enum dtype dtype, int64_t group, bool transposed)
{
    const struct blob *blob = value_const(v);
    NPUC_ASSERT(blob && can_store(v->type->dtype, dtype) && group > 0);
    struct emit_weight x = {.blob = blob,
                            .type = v->type,
                            .form = WF_CONV,
                            .dtype = (uint8_t)dtype,
                            .transpose = transposed,
                            .group = group};
    return add_weight(e, v, &x);
}
