/* Building tile programs: kernels, parameters, buffers, instructions. Callers are generators, so misuse is a broken
 * invariant, not an error; plan/tile_verify.c judges finished programs. */
#include "plan/tile.h"

#include <string.h>

#include "base/half.h"

static const struct expr_range any_range = {INT64_MIN, INT64_MAX, 1};

struct tile_kernel *tile_kernel_new(struct arena *a, struct strtab *strings, const char *name)
{
    struct tile_kernel *k = ARENA_NEW(a, struct tile_kernel);
    expr_pool_init(&k->exprs, a, strings);
    k->name = str_internz(strings, name);
    k->sym_block = k->sym_sub = -1;
    k->section[TCORE_CUBE].core = TCORE_CUBE;
    k->section[TCORE_VECTOR].core = TCORE_VECTOR;
    return k;
}

/* A symbol of its own even when the name is taken: "i", "i.1", "i.2", ... */
static int32_t fresh_symbol(struct tile_kernel *k, const char *name, struct expr_range r)
{
    sym s = str_internz(k->exprs.strings, name);
    for (int i = 1; expr_symbol_find(&k->exprs, s) >= 0; i++)
        s = str_internz(k->exprs.strings, arena_printf(k->exprs.arena, "%s.%d", name, i));
    return expr_symbol_new(&k->exprs, s, r);
}

expr tile_param(struct tile_kernel *k, const char *name, struct expr_range r)
{
    NPUC_ASSERT(k->sym_block < 0);
    const int32_t symbol = fresh_symbol(k, name, r);
    NPUC_ASSERT(symbol == k->n_params);
    k->n_params++;
    return expr_sym(&k->exprs, symbol);
}

void tile_params_done(struct tile_kernel *k)
{
    NPUC_ASSERT(k->sym_block < 0);
    k->sym_block = fresh_symbol(k, "block", (struct expr_range){0, INT32_MAX, 1});
    k->sym_sub = fresh_symbol(k, "sub", (struct expr_range){0, 1, 1});
}

int32_t tile_tensor(struct tile_kernel *k, struct arena *a, const char *name, enum dtype t, bool is_in, bool is_out)
{
    const struct tile_tensor tensor = {str_internz(k->exprs.strings, name), (uint8_t)t, is_in, is_out, EXPR_INVALID};
    vec_push(a, &k->tensors, tensor);
    return (int32_t)k->tensors.len - 1;
}

void tile_section_begin(struct tile_builder *b, enum tile_core core)
{
    NPUC_ASSERT(b->k->sym_block >= 0);
    b->at = &b->k->section[core];
    b->k->has[core] = true;
    b->note = 0;
}

int32_t tile_buf(struct tile_builder *b, const char *name, enum tile_space s, enum dtype t, int32_t slots,
                 int64_t slot_size)
{
    const struct tile_buf buf = {
        .name = str_internz(b->k->exprs.strings, name),
        .space = (uint8_t)s,
        .dtype = (uint8_t)t,
        .slots = slots,
        .slot_size = slot_size,
        .base = -1,
    };
    vec_push(b->arena, &b->at->bufs, buf);
    return (int32_t)b->at->bufs.len - 1;
}

void tile_emit(struct tile_builder *b, enum tile_op op, int n, const int32_t *args)
{
    const struct tile_insn_info *row = &tile_insn_table[op];
    NPUC_ASSERT(row->name && n == row->n_fields);
    struct tile_insn in = {.op = (uint16_t)op, .line = b->note};
    if (n)
        memcpy(in.arg, args, (size_t)n * sizeof *args);
    vec_push(b->arena, &b->at->code, in);
}

int32_t tile_var(struct tile_builder *b, const char *name, struct expr_range r)
{
    return fresh_symbol(b->k, name, r);
}

expr tile_loop(struct tile_builder *b, const char *name, expr count)
{
    struct expr_range r = expr_range_of(&b->k->exprs, count);
    r = (struct expr_range){0, r.max == INT64_MAX || r.max < 1 ? any_range.max : r.max - 1, 1};
    const int32_t var = fresh_symbol(b->k, name, r);
    tile_emit(b, TILE_LOOP, 2, (const int32_t[]){var, count});
    return expr_sym(&b->k->exprs, var);
}

expr tile_let(struct tile_builder *b, const char *name, expr value)
{
    const enum expr_op op = value > 0 ? (enum expr_op)b->k->exprs.nodes.data[value].op : EXPR_CONST;
    if (op == EXPR_CONST || op == EXPR_SYM)
        return value;
    const int32_t var = fresh_symbol(b->k, name, expr_range_of(&b->k->exprs, value));
    tile_emit(b, TILE_LET, 2, (const int32_t[]){var, value});
    return expr_sym(&b->k->exprs, var);
}

void tile_if(struct tile_builder *b, expr cond)
{
    tile_emit(b, TILE_IF, 1, &cond);
}

void tile_end(struct tile_builder *b)
{
    int64_t closed = 0, i = b->at->code.len - 1;
    for (; i >= 0; i--) {
        const uint16_t op = b->at->code.data[i].op;
        if (op == TILE_ENDLOOP || op == TILE_ENDIF)
            closed++;
        else if ((op == TILE_LOOP || op == TILE_IF) && closed-- == 0)
            break;
    }
    NPUC_ASSERT(i >= 0);
    tile_emit(b, b->at->code.data[i].op == TILE_LOOP ? TILE_ENDLOOP : TILE_ENDIF, 0, NULL);
}

void tile_note(struct tile_builder *b, const char *text)
{
    if (!text || b->k->notes.len >= UINT16_MAX) {
        b->note = 0;
        return;
    }
    vec_push(b->arena, &b->k->notes, str_internz(b->k->exprs.strings, text));
    b->note = (uint16_t)b->k->notes.len;
}

int32_t tile_float_bits(float f)
{
    return (int32_t)half_float_bits(f);
}

bool tile_shares_loads(const struct tile_kernel *k)
{
    for (int c = 0; c < TCORE_COUNT; c++)
        for (int64_t i = 0; k->has[c] && i < k->section[c].code.len; i++)
            if (k->section[c].code.data[i].op == TILE_LOADC)
                return true;
    return false;
}
