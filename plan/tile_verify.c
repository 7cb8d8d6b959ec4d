/* Meaning of one tile program: every number an instruction holds, nesting, definitions before uses, flags that can be
 * met, buffers inside their memories. Where an access lies within a buffer depends on values and is checked as it
 * happens. */
#include "plan/tile_rules.h"
#include "plan/verify_priv.h"

#include "base/size.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_SCRATCHPAD = 1 << 26, MAX_PARAMS = 4096 };

/* Where a symbol may be used: instructions from .. to - 1 of the section. */
struct scope {
    int64_t from, to;
};
struct checker {
    const struct tile_kernel *k;
    const struct plan *p;
    const struct tile_section *s;
    const char *file;
    struct diag *d;
    struct arena *a;
    struct scope *of_symbol, *of_node;
    bool *defined;                     /* by any section */
    bool unified, rows;                /* rows: the matrix unit takes rows from UB and L0B */
    int32_t clusters;                  /* of its loads for clusters; 0: none so far */
    uint32_t sets[TU_COUNT][TU_COUNT]; /* events set, bit per event */
    uint32_t xsets[TCORE_COUNT], xwaits[TCORE_COUNT];
    char where[120];
};

static const char *place(struct checker *c, int64_t insn)
{
    const struct strtab *t = c->k->exprs.strings;
    const char *name = str_escape(c->a, str_text(t, c->k->name), str_len(t, c->k->name), 60);
    const int len = snprintf(c->where, sizeof c->where, "kernel '%s'", name ? name : "");
    if (insn >= 0 && len > 0 && (size_t)len < sizeof c->where)
        snprintf(c->where + len, sizeof c->where - (size_t)len, ", %s instruction %lld (%s)",
                 c->s->core == TCORE_CUBE ? "cube" : "vector", (long long)insn,
                 tile_insn_table[c->s->code.data[insn].op].name);
    return c->where;
}

#define REFUSE(c, insn, ...) plan_refuse((c)->file, (c)->d, place((c), (insn)), __VA_ARGS__)

static enum npuc_status check_head(struct checker *c)
{
    const struct tile_kernel *k = c->k;
    const int64_t n = k->exprs.symbols.len;
    if (k->n_params < 0 || k->n_params > MAX_PARAMS || k->sym_block != k->n_params || k->sym_sub != k->n_params + 1 ||
        k->sym_sub >= n)
        return REFUSE(c, -1, "its symbols do not begin with %d parameters, block and sub", k->n_params);
    if (k->tensors.len > PLAN_MAX_KERNEL_TENSORS)
        return REFUSE(c, -1, "it has %lld tensors, the limit is %d", (long long)k->tensors.len,
                      PLAN_MAX_KERNEL_TENSORS);
    for (int64_t i = 0; i < k->tensors.len; i++) {
        const struct tile_tensor *t = &k->tensors.data[i];
        if (t->dtype <= DT_NONE || t->dtype >= DT_COUNT || t->dtype == DT_STRING || (!t->is_input && !t->is_output))
            return REFUSE(c, -1, "tensor %lld has no element type or no use", (long long)i);
    }
    if (!k->has[TCORE_CUBE] && !k->has[TCORE_VECTOR])
        return REFUSE(c, -1, "it has no program");
    return NPUC_OK;
}

/* ---- buffers ---------------------------------------------------------------------------------------------- */

static enum npuc_status space_number(struct checker *c, int space, const char *what, int64_t *out)
{
    static const char *const key[TS_COUNT] = {"gm", "l1", "l0a", "l0b", "l0c", "bt", "ub", "l0mx", "l0mx"};
    char name[20];
    double v;
    snprintf(name, sizeof name, "%s.%s", key[space], what);
    if (!plan_target_number(c->p, name, &v) || v > MAX_SCRATCHPAD)
        return REFUSE(c, -1, "the target snapshot has no usable '%s'", name);
    *out = (int64_t)v;
    return NPUC_OK;
}

static enum npuc_status check_buf(struct checker *c, int64_t i)
{
    static const uint32_t of_core[TCORE_COUNT] = {
        [TCORE_CUBE] =
            1U << TS_L1 | 1U << TS_L0A | 1U << TS_L0B | 1U << TS_L0C | 1U << TS_BT | 1U << TS_L0A_MX | 1U << TS_L0B_MX,
        [TCORE_VECTOR] = 1U << TS_UB,
    };
    const struct tile_buf *b = &c->s->bufs.data[i];
    int64_t size, align, bytes;
    if (b->space <= TS_GM || b->space >= TS_COUNT || (!c->unified && !(of_core[c->s->core] & 1U << b->space)))
        return REFUSE(c, -1, "buffer %lld is in a memory that its core does not have", (long long)i);
    if (b->dtype <= DT_NONE || b->dtype >= DT_COUNT)
        return REFUSE(c, -1, "buffer %lld has no element type", (long long)i);
    TRY(space_number(c, b->space, "size", &size));
    TRY(space_number(c, b->space, "align", &align));
    if (b->slots < 1 || b->slots > PLAN_MAX_SLOTS || b->slot_size < 1 || align < 1 || b->slot_size % align ||
        b->base < 0 || b->base % align)
        return REFUSE(c, -1, "buffer %lld: %d slots of %lld bytes at %lld, expected multiples of %lld", (long long)i,
                      b->slots, (long long)b->slot_size, (long long)b->base, (long long)align);
    if (!size_mul(b->slots, b->slot_size, &bytes) || !size_in(b->base, bytes, size))
        return REFUSE(c, -1, "buffer %lld needs %lld bytes at %lld of a memory of %lld", (long long)i, (long long)bytes,
                      (long long)b->base, (long long)size);
    return NPUC_OK;
}

static enum npuc_status check_bufs(struct checker *c)
{
    if (c->s->bufs.len > PLAN_MAX_BUFS)
        return REFUSE(c, -1, "it has %lld buffers, the limit is %d", (long long)c->s->bufs.len, PLAN_MAX_BUFS);
    for (int64_t i = 0; i < c->s->bufs.len; i++)
        TRY(check_buf(c, i));
    return NPUC_OK;
}

/* ---- scopes ----------------------------------------------------------------------------------------------- */

static enum npuc_status define(struct checker *c, int64_t i, int64_t from)
{
    const int32_t symbol = c->s->code.data[i].arg[0];
    if (symbol <= c->k->sym_sub || symbol >= c->k->exprs.symbols.len)
        return REFUSE(c, i, "it defines no variable");
    if (c->defined[symbol])
        return REFUSE(c, i, "its variable is defined twice");
    c->defined[symbol] = true;
    c->of_symbol[symbol] = (struct scope){from, INT64_MAX};
    return NPUC_OK;
}

/* What was defined inside a block ends with it. open[] holds the instructions that began the open blocks. */
static void close_scopes(struct checker *c, int64_t start, int64_t end)
{
    for (int64_t i = start; i < end; i++) {
        const struct tile_insn *in = &c->s->code.data[i];
        if (tile_insn_defines(in->op) && c->of_symbol[in->arg[0]].to == INT64_MAX)
            c->of_symbol[in->arg[0]].to = end;
    }
}

static enum npuc_status check_nesting(struct checker *c)
{
    int64_t open[PLAN_MAX_NESTING];
    int depth = 0;
    for (int64_t i = 0; i < c->s->code.len; i++) {
        const uint16_t op = c->s->code.data[i].op;
        if (op == TILE_LOOP || op == TILE_IF) {
            if (depth == PLAN_MAX_NESTING)
                return REFUSE(c, i, "loops and conditions are nested deeper than %d", PLAN_MAX_NESTING);
            open[depth++] = i;
        }
        if (tile_insn_defines(op))
            TRY(define(c, i, i + 1));
        if (op != TILE_ENDLOOP && op != TILE_ENDIF)
            continue;
        if (depth == 0 || (c->s->code.data[open[depth - 1]].op == TILE_LOOP) != (op == TILE_ENDLOOP))
            return REFUSE(c, i, "it ends nothing");
        close_scopes(c, open[--depth], i);
    }
    return depth ? REFUSE(c, open[depth - 1], "it has no end") : NPUC_OK;
}

/* An expression may be used where all its symbols may. */
static void scope_nodes(struct checker *c)
{
    const struct expr_pool *x = &c->k->exprs;
    for (int64_t e = 1; e < x->nodes.len; e++) {
        const struct expr_node *n = &x->nodes.data[e];
        struct scope s = n->op == EXPR_SYM ? c->of_symbol[n->value] : (struct scope){0, INT64_MAX};
        for (int32_t j = 0; j < n->n; j++) {
            const struct scope o = c->of_node[n->arg[j]];
            s.from = o.from > s.from ? o.from : s.from;
            s.to = o.to < s.to ? o.to : s.to;
        }
        c->of_node[e] = s;
    }
}

static void begin_scopes(struct checker *c)
{
    for (int64_t i = 0; i < c->k->exprs.symbols.len; i++)
        c->of_symbol[i] = (struct scope){i <= c->k->sym_sub ? 0 : INT64_MAX, INT64_MAX};
}

/* ---- instructions ----------------------------------------------------------------------------------------- */

static enum npuc_status check_buffer_field(struct checker *c, int64_t i, int f)
{
    const struct tile_insn *in = &c->s->code.data[i];
    const struct tile_field *field = &tile_insn_table[in->op].fields[f];
    const int32_t v = in->arg[f];
    if (v == -1 && field->kind == TF_BUF_OPT)
        return NPUC_OK;
    if (v < 0 || v >= c->s->bufs.len)
        return REFUSE(c, i, "field '%s' is no buffer", field->name);
    const bool to_l0b = in->op == TILE_LOAD && c->s->bufs.data[v].space == TS_L0B; /* past L1 */
    if (!(tile_field_spaces(in, f) & 1U << c->s->bufs.data[v].space) || (to_l0b && !c->rows))
        return REFUSE(c, i, "buffer '%s' is in the wrong memory", field->name);
    return NPUC_OK;
}

static enum npuc_status check_tensor_field(struct checker *c, int64_t i, int f)
{
    const struct tile_insn *in = &c->s->code.data[i];
    const struct tile_insn_info *row = &tile_insn_table[in->op];
    const int32_t v = in->arg[f];
    if (v == -1 && row->fields[f].kind == TF_TENSOR_OPT)
        return NPUC_OK;
    if (v < 0 || v >= c->k->tensors.len)
        return REFUSE(c, i, "field '%s' is no tensor", row->fields[f].name);
    const struct tile_tensor *t = &c->k->tensors.data[v];
    const bool written = strcmp(row->fields[f].name, "dst") == 0;
    if (written ? !t->is_output : !t->is_input && !t->is_output)
        return REFUSE(c, i, "tensor '%s' is not declared as %s", row->fields[f].name, written ? "output" : "input");
    return NPUC_OK;
}

static enum npuc_status check_field(struct checker *c, int64_t i, int f)
{
    const struct tile_insn *in = &c->s->code.data[i];
    const struct tile_field *field = &tile_insn_table[in->op].fields[f];
    const char *problem = tile_value_problem(in, f);
    if (problem)
        return REFUSE(c, i, "field '%s' %s", field->name, problem);
    if (field->kind == TF_BUF || field->kind == TF_BUF_OPT)
        return check_buffer_field(c, i, f);
    if (field->kind == TF_TENSOR || field->kind == TF_TENSOR_OPT)
        return check_tensor_field(c, i, f);
    if (field->kind != TF_EXPR || !tile_arg_is_expr(in, f))
        return NPUC_OK;
    const int32_t e = in->arg[f];
    if (e < 1 || e >= c->k->exprs.nodes.len)
        return REFUSE(c, i, "field '%s' has no expression", field->name);
    if (i < c->of_node[e].from || i >= c->of_node[e].to)
        return REFUSE(c, i, "field '%s' uses a variable that is not defined there", field->name);
    return NPUC_OK;
}

static bool core_can(const struct checker *c, enum tile_class cls)
{
    if (c->unified || cls == TC_CTRL || cls == TC_GM_IN || cls == TC_GM_OUT)
        return true;
    return (cls == TC_VECTOR) == (c->s->core == TCORE_VECTOR);
}

static uint32_t event_bits(const struct checker *c, const struct tile_SET *f)
{
    const int slots = f->buf >= 0 ? c->s->bufs.data[f->buf].slots : 1;
    return ((1U << slots) - 1) << f->event;
}

static enum npuc_status note_flags(struct checker *c, int64_t i)
{
    const struct tile_insn *in = &c->s->code.data[i];
    const struct tile_SET *f = TILE_AS(SET, in);
    if ((in->op == TILE_SET || in->op == TILE_WAIT) && event_bits(c, f) >> TILE_MAX_EVENTS)
        return REFUSE(c, i, "events %d and on exceed the %d of a pair of units", f->event, TILE_MAX_EVENTS);
    if (in->op == TILE_SET)
        c->sets[f->src][f->dst] |= event_bits(c, f);
    if ((in->op == TILE_XSET || in->op == TILE_XWAIT) && !(c->k->has[TCORE_CUBE] && c->k->has[TCORE_VECTOR]))
        return REFUSE(c, i, "the kernel has only one kind of core");
    if (in->op == TILE_XSET)
        c->xsets[c->s->core] |= 1U << TILE_AS(XSET, in)->event;
    if (in->op == TILE_XWAIT)
        c->xwaits[c->s->core] |= 1U << TILE_AS(XWAIT, in)->event;
    return NPUC_OK;
}

/* Clusters that share loads are the same for all loads of a kernel. */
static enum npuc_status note_clusters(struct checker *c, int64_t i)
{
    const struct tile_insn *in = &c->s->code.data[i];
    if (in->op != TILE_LOADC)
        return NPUC_OK;
    const int32_t clusters = TILE_AS(LOADC, in)->clusters;
    if (c->clusters && c->clusters != clusters)
        return REFUSE(c, i, "it is for %d clusters, another one for %d", clusters, c->clusters);
    c->clusters = clusters;
    return NPUC_OK;
}

static enum npuc_status check_insn(struct checker *c, int64_t i)
{
    const struct tile_insn *in = &c->s->code.data[i];
    const struct tile_insn_info *row = &tile_insn_table[in->op];
    if (in->line > c->k->notes.len)
        return REFUSE(c, i, "its note does not exist");
    if (!core_can(c, row->cls) || (in->op >= TILE_MAC_ROWS && !c->rows))
        return REFUSE(c, i, "this kind of core has no such unit");
    for (int f = 0; f < row->n_fields; f++)
        TRY(check_field(c, i, f));
    const char *problem = tile_insn_problem(in);
    if (problem)
        return REFUSE(c, i, "%s", problem);
    TRY(note_clusters(c, i));
    return note_flags(c, i);
}

/* A flag that nobody sets would be waited for forever. */
static enum npuc_status check_waits(struct checker *c)
{
    for (int64_t i = 0; i < c->s->code.len; i++) {
        const struct tile_insn *in = &c->s->code.data[i];
        const struct tile_WAIT *w = TILE_AS(WAIT, in);
        if (in->op == TILE_WAIT && event_bits(c, TILE_AS(SET, in)) & ~c->sets[w->src][w->dst])
            return REFUSE(c, i, "no instruction sets this flag");
    }
    return NPUC_OK;
}

static enum npuc_status check_section(struct checker *c, int core)
{
    c->s = &c->k->section[core];
    memset(c->sets, 0, sizeof c->sets);
    c->clusters = 0;
    if (c->s->code.len > PLAN_MAX_CODE)
        return REFUSE(c, -1, "a program has %lld instructions, the limit is %d", (long long)c->s->code.len,
                      PLAN_MAX_CODE);
    TRY(check_bufs(c));
    begin_scopes(c);
    TRY(check_nesting(c));
    scope_nodes(c);
    for (int64_t i = 0; i < c->s->code.len; i++)
        TRY(check_insn(c, i));
    return check_waits(c);
}

/* Over parameters alone. */
static bool is_known_at_launch(const struct checker *c, expr e)
{
    return e > 0 && e < c->k->exprs.nodes.len && c->of_node[e].from <= 0;
}

static enum npuc_status check_blocks(struct checker *c)
{
    begin_scopes(c);
    for (int32_t i = c->k->n_params; i < c->k->sym_sub + 1; i++)
        c->of_symbol[i].from = INT64_MAX;
    scope_nodes(c);
    if (!is_known_at_launch(c, c->k->blocks))
        return REFUSE(c, -1, "the number of blocks is no expression of its parameters");
    for (int64_t i = 0; i < c->k->tensors.len; i++)
        if (c->k->tensors.data[i].bypass != EXPR_INVALID && !is_known_at_launch(c, c->k->tensors.data[i].bypass))
            return REFUSE(c, -1, "the way of tensor %lld past L2 is no expression of its parameters", (long long)i);
    return NPUC_OK;
}

static enum npuc_status check_kernel(struct checker *c)
{
    double unified, rows;
    TRY(check_head(c));
    if (!plan_target_number(c->p, "cores.unified", &unified))
        return REFUSE(c, -1, "the target snapshot has no usable 'cores.unified'");
    c->unified = unified > 0;
    c->rows = plan_target_number(c->p, "mac.rows", &rows) && rows > 0;
    TRY(check_blocks(c));
    for (int s = 0; s < TCORE_COUNT; s++)
        if (c->k->has[s])
            TRY(check_section(c, s));
    if ((c->xwaits[TCORE_CUBE] & ~c->xsets[TCORE_VECTOR]) || (c->xwaits[TCORE_VECTOR] & ~c->xsets[TCORE_CUBE]))
        return REFUSE(c, -1, "one kind of core waits for a flag that the other does not set");
    return NPUC_OK;
}

enum npuc_status tile_verify(const struct tile_kernel *k, const struct plan *p, const char *file, struct diag *d)
{
    struct arena a;
    arena_init(&a, NULL);
    struct checker c = {.k = k, .p = p, .file = file, .d = d, .a = &a};
    c.of_symbol = ARENA_ARRAY(&a, struct scope, k->exprs.symbols.len + 1);
    c.of_node = ARENA_ARRAY(&a, struct scope, k->exprs.nodes.len + 1);
    c.defined = ARENA_ARRAY(&a, bool, k->exprs.symbols.len + 1);
    const enum npuc_status s =
        c.of_symbol && c.of_node && c.defined ? check_kernel(&c) : diag_error(d, NULL, D_HOST_MEMORY);
    arena_free(&a);
    return s;
}
