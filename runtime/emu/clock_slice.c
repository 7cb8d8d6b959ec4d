/* The part of a program that the first walk needs: what moves bytes of GM or meets other cores, and around it as many
 * loops and ifs as lead there. Everything else decides times alone, and only through the values of some operands; it is
 * replaced by marks, instructions that show these values to the observer. Two blocks with the same path, marks and
 * traffic have the same times.
 *
 * A loop or if without traffic becomes one mark of all that it computes with. It stays, with marks inside, when it
 * computes with what depends on the block: min(128, n - 640*block - i) differs in one block of many, its operands in
 * all. A slice is an ordinary program over the same values, without the expressions that nobody there asks for. */
#include "runtime/emu/clock_priv.h"

#include <string.h>

#define F(nm, f) (1u << EMU_FIELD(nm, f))
/* Operands that decide what an instruction costs, beside its types and buffers (clock_cost.c, clock_vector.c), for
 * moves also the place in GM. */
static const uint32_t decides[TILE_OP_END] = {
    [TILE_LOAD] = F(LOAD, n0) | F(LOAD, n1) | F(LOAD, n2) | F(LOAD, n3) | F(LOAD, s0) | F(LOAD, s1) | F(LOAD, s2) |
                  F(LOAD, s3) | F(LOAD, d0) | F(LOAD, d1) | F(LOAD, d2) | F(LOAD, d3),
    [TILE_STORE] = F(STORE, n0) | F(STORE, n1) | F(STORE, n2) | F(STORE, n3) | F(STORE, d0) | F(STORE, d1) |
                   F(STORE, d2) | F(STORE, d3) | F(STORE, s0) | F(STORE, s1) | F(STORE, s2) | F(STORE, s3),
    [TILE_LOAD_NZ] = F(LOAD_NZ, rows) | F(LOAD_NZ, cols) | F(LOAD_NZ, src_row) | F(LOAD_NZ, src_col),
    [TILE_FIXP] = F(FIXP, rows) | F(FIXP, cols) | F(FIXP, dst_row),
    [TILE_FIXP_NZ] = F(FIXP_NZ, rows) | F(FIXP_NZ, cols) | F(FIXP_NZ, dst_block),
    [TILE_COPY_L0A] = F(COPY_L0A, m) | F(COPY_L0A, k),
    [TILE_COPY_L0B] = F(COPY_L0B, n) | F(COPY_L0B, k),
    [TILE_COPY_BT] = F(COPY_BT, n),
    [TILE_IM2COL] = F(IM2COL, n) | F(IM2COL, k),
    [TILE_MAC] = F(MAC, m) | F(MAC, n) | F(MAC, k),
    [TILE_COPY_MX] = F(COPY_MX, rows) | F(COPY_MX, n),
    [TILE_MAC_MX] = F(MAC_MX, m) | F(MAC_MX, n) | F(MAC_MX, k),
    [TILE_MAC_ROWS] = F(MAC_ROWS, m) | F(MAC_ROWS, n) | F(MAC_ROWS, k),
    [TILE_MAC_OUT] = F(MAC_OUT, m) | F(MAC_OUT, n) | F(MAC_OUT, k),
    [TILE_COPY_ROWS] = F(COPY_ROWS, rows) | F(COPY_ROWS, cols),
    [TILE_WINDOWS] = F(WINDOWS, n) | F(WINDOWS, k) | F(WINDOWS, src_row),
    [TILE_VEC] = F(VEC, rows) | F(VEC, cols) | F(VEC, dst_off) | F(VEC, dst_row) | F(VEC, a_off) | F(VEC, a_row) |
                 F(VEC, b_off) | F(VEC, b_row) | F(VEC, c_row),
    [TILE_CAST] = F(CAST, rows) | F(CAST, cols) | F(CAST, dst_row) | F(CAST, src_row),
    [TILE_RED_ADD] = F(RED_ADD, rows) | F(RED_ADD, cols) | F(RED_ADD, init),
    [TILE_RED_END] = F(RED_END, rows),
    [TILE_FILL] = F(FILL, rows) | F(FILL, cols) | F(FILL, dst_row),
    [TILE_IOTA] = F(IOTA, rows) | F(IOTA, cols) | F(IOTA, dst_row),
    [TILE_DEQUANT] = F(DEQUANT, rows) | F(DEQUANT, cols) | F(DEQUANT, dst_row),
    [TILE_TRANSP] = F(TRANSP, rows) | F(TRANSP, cols),
    [TILE_COPY_UB] = F(COPY_UB, rows) | F(COPY_UB, cols) | F(COPY_UB, dst_row) | F(COPY_UB, src_row),
    [TILE_CASTP] = F(CASTP, n),
    [TILE_ORDER] = F(ORDER, rows) | F(ORDER, cols),
    [TILE_PICK] = F(PICK, rows) | F(PICK, cols),
    [TILE_LOOP] = F(LOOP, count),
    [TILE_IF] = F(IF, cond),
};
#undef F

uint32_t clock_decides(int op)
{
    return decides[op];
}

struct value {
    const struct emu_node *node; /* that computes it; NULL: literal, symbol or variable */
    int32_t group;
    bool by_block; /* depends on the core's number */
    bool marked;   /* shown by a mark that precedes on every path */
    bool listed;
    int32_t visit;
};
struct scope {
    int32_t start;   /* of the LOOP or IF in the slice */
    int32_t n_shown; /* values marked outside of it */
    bool shows;      /* its path is told: something in it is observed */
};
struct slicer {
    struct arena *arena;
    const struct emu_program *p;
    struct emu_program *out;
    struct value *values;
    bool *inner;             /* per group: of the loop under consideration */
    int32_t *shown, n_shown; /* values marked in the open scopes */
    int32_t *list, n_listed; /* values that the next marks show */
    struct scope *open;
    int32_t n_open;
    VEC(struct emu_ins) code;
    const struct emu_ins *quiet; /* first instruction that the next mark stands for; NULL: none */
    int32_t visit;
    bool raw;    /* the loop under consideration computes with what depends on the block */
    bool failed; /* out of memory */
};

/* Traffic, meetings of cores, variables that are no loop's. */
static bool is_traffic(int op)
{
    return (op >= TILE_LOAD && op <= TILE_STOREX) || op == TILE_LOADC || op == TILE_FIXP || op == TILE_FIXP_NZ ||
           op == TILE_XSET || op == TILE_XWAIT || op == TILE_BARRIER || op == TILE_SLOAD || op == TILE_LET;
}

static void describe_values(struct slicer *w)
{
    const struct emu_program *p = w->p;
    const struct tile_kernel *k = p->kernel;
    const int32_t core[] = {k->sym_block, k->sym_sub};
    for (int i = 0; i < NPUC_ARRAY_LEN(core); i++)
        if (core[i] >= 0 && core[i] < p->n_symbols)
            w->values[p->symbol[core[i]]] = (struct value){.group = 1, .by_block = true};
    for (int32_t i = 0; i < p->n_code; i++) {
        const struct emu_ins *in = &p->code[i];
        if (tile_insn_defines(in->op))
            w->values[in->var] = (struct value){.group = in->group, .by_block = in->op != TILE_LOOP};
    }
    for (int32_t g = 0; g < p->n_groups; g++)
        for (int32_t i = 0; i < p->groups[g].n; i++) {
            const struct emu_node *n = &p->nodes[p->groups[g].first + i];
            struct value *v = &w->values[n->at];
            *v = (struct value){.node = n, .group = g};
            for (int32_t j = 0; j < n->n; j++)
                v->by_block |= w->values[n->arg[j]].by_block;
        }
}

/* Puts on the list what v is computed from outside of the inner groups. */
static void visit(struct slicer *w, int32_t at, bool through)
{
    struct value *v = &w->values[at];
    if (v->group == 0)
        return;
    if (!w->inner[v->group]) {
        w->raw |= through && v->by_block;
        if (!v->marked && !v->listed) {
            v->listed = true;
            w->list[w->n_listed++] = at;
        }
        return;
    }
    if (v->visit == w->visit || !v->node)
        return;
    v->visit = w->visit;
    for (int32_t i = 0; i < v->node->n; i++)
        visit(w, v->node->arg[i], true);
}

static void visit_operands(struct slicer *w, const struct emu_ins *in)
{
    for (int f = 0; f < in->n_fields; f++)
        if (decides[in->op] >> f & 1)
            visit(w, in->val[f], false);
    if (!w->quiet)
        w->quiet = in;
}

static void drop_from(struct slicer *w, int32_t n)
{
    while (w->n_listed > n)
        w->values[w->list[--w->n_listed]].listed = false;
}

/* Makes the loop or if [start, end] part of the next mark; false: it has to stay. */
static bool is_quiet(struct slicer *w, int32_t start, int32_t end)
{
    const int32_t listed = w->n_listed;
    const struct emu_ins *quiet = w->quiet;
    const struct emu_program *p = w->p;
    for (int32_t i = start; i <= end; i++)
        if (is_traffic(p->code[i].op))
            return false;
    for (int32_t i = start; i <= end; i++)
        if (p->code[i].op == TILE_LOOP)
            w->inner[p->code[i].group] = true;
    w->visit++;
    w->raw = false;
    for (int32_t i = start; i <= end; i++)
        visit_operands(w, &p->code[i]);
    for (int32_t i = start; i <= end; i++)
        if (p->code[i].op == TILE_LOOP)
            w->inner[p->code[i].group] = false;
    if (!w->raw)
        return true;
    drop_from(w, listed);
    w->quiet = quiet;
    return false;
}

static void emit(struct slicer *w, const struct emu_ins *in)
{
    if (w->code.len == w->code.cap) {
        void *more = vec_grow(w->arena, w->code.data, w->code.len, &w->code.cap, (int64_t)sizeof *in);
        w->failed = !more;
        if (!more)
            return;
        w->code.data = more;
    }
    w->code.data[w->code.len++] = *in;
}

/* Emits marks for what is listed, or an empty one when nothing else tells that the path comes through here. */
static void mark(struct slicer *w)
{
    struct scope *s = &w->open[w->n_open - 1];
    if (!w->quiet || (w->n_listed == 0 && s->shows))
        return;
    for (int32_t first = 0; first < w->n_listed || !s->shows; first += TILE_MAX_ARGS) {
        struct emu_ins in = {.insn = w->quiet->insn, .op = CLOCK_MARK};
        for (int32_t i = first; i < w->n_listed && i < first + TILE_MAX_ARGS; i++)
            in.val[in.n_fields++] = w->list[i];
        emit(w, &in);
        s->shows = true;
    }
    for (int32_t i = 0; i < w->n_listed; i++) {
        w->values[w->list[i]].marked = true;
        w->shown[w->n_shown++] = w->list[i];
    }
    drop_from(w, 0);
    w->quiet = NULL;
}

static void open_scope(struct slicer *w)
{
    w->open[w->n_open++] = (struct scope){(int32_t)w->code.len - 1, w->n_shown, false};
}

static void close_scope(struct slicer *w)
{
    const struct scope s = w->open[--w->n_open];
    while (w->n_shown > s.n_shown)
        w->values[w->shown[--w->n_shown]].marked = false;
    struct emu_ins *start = &w->code.data[s.start], *end = &w->code.data[w->code.len - 1];
    end->jump = s.start + 1;
    start->jump = (int32_t)w->code.len;
}

static void slice(struct slicer *w)
{
    const struct emu_program *p = w->p;
    open_scope(w);
    for (int32_t i = 0; i < p->n_code && !w->failed; i++) {
        const struct emu_ins *in = &p->code[i];
        const bool starts = in->op == TILE_LOOP || in->op == TILE_IF;
        const bool ends = in->op == TILE_ENDLOOP || in->op == TILE_ENDIF;
        if (starts && is_quiet(w, i, in->jump - 1)) {
            i = in->jump - 1;
            continue;
        }
        if (!starts && !ends && !is_traffic(in->op)) {
            visit_operands(w, in);
            continue;
        }
        mark(w);
        emit(w, in);
        if (w->failed)
            return;
        if (ends)
            close_scope(w);
        else if (starts)
            open_scope(w);
        else if (in->op != TILE_LET) /* which nobody observes */
            w->open[w->n_open - 1].shows = true;
    }
    mark(w);
}

/* ---- expressions ---- */
/* The fields that the clock looks at: those that decide, and where in GM a move begins; all of those that it knows
 * nothing of. */
static bool is_asked(const struct emu_ins *in, int field)
{
    const uint32_t fields = in->op < TILE_OP_END ? decides[in->op] : 0;
    return fields == 0 || fields >> field & 1 || (clock_place(in->op) > 0 && clock_place(in->op) == field);
}

/* Keeps the expressions that the code's operands are computed from. */
static bool keep_nodes(struct arena *a, const struct emu_program *p, struct emu_program *out)
{
    int32_t n = 0;
    bool *needed = ARENA_ARRAY(a, bool, p->n_values);
    for (int32_t i = 0; needed && i < out->n_code; i++)
        for (int f = 0; f < out->code[i].n_fields; f++)
            needed[out->code[i].val[f]] |= is_asked(&out->code[i], f);
    for (int32_t g = p->n_groups - 1; needed && g >= 0; g--)
        for (int32_t i = p->groups[g].n - 1; i >= 0; i--) {
            const struct emu_node *x = &p->nodes[p->groups[g].first + i];
            for (int32_t j = 0; j < x->n && needed[x->at]; j++)
                needed[x->arg[j]] = true;
            n += needed[x->at];
        }
    out->nodes = ARENA_ARRAY(a, struct emu_node, n + 1);
    out->groups = ARENA_ARRAY(a, struct emu_group, p->n_groups);
    if (!needed || !out->nodes || !out->groups)
        return false;
    n = 0;
    for (int32_t g = 0; g < p->n_groups; g++) {
        out->groups[g].first = n;
        for (int32_t i = 0; i < p->groups[g].n; i++)
            if (needed[p->nodes[p->groups[g].first + i].at])
                out->nodes[n++] = p->nodes[p->groups[g].first + i];
        out->groups[g].n = n - out->groups[g].first;
    }
    return true;
}

struct emu_program *clock_slice_times(struct arena *a, const struct emu_program *p)
{
    struct emu_program *out = arena_copy(a, p, (int64_t)sizeof *p);
    return out && keep_nodes(a, p, out) ? out : NULL;
}

struct emu_program *clock_slice_new(struct arena *a, const struct emu_program *p)
{
    struct slicer w = {.arena = a, .p = p, .out = arena_copy(a, p, (int64_t)sizeof *p)};
    w.values = ARENA_ARRAY(a, struct value, p->n_values);
    w.inner = ARENA_ARRAY(a, bool, p->n_groups);
    w.shown = ARENA_ARRAY(a, int32_t, p->n_values);
    w.list = ARENA_ARRAY(a, int32_t, p->n_values);
    w.open = ARENA_ARRAY(a, struct scope, p->n_code + 1);
    if (!w.out || !w.values || !w.inner || !w.shown || !w.list || !w.open)
        return NULL;
    describe_values(&w);
    slice(&w);
    if (w.failed)
        return NULL;
    w.out->code = w.code.data;
    w.out->n_code = (int32_t)w.code.len;
    return keep_nodes(a, p, w.out) ? w.out : NULL;
}
