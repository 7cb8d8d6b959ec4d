/* Disassembly of a tile program. One line per instruction, bodies indented:
 *
 *     load.f16    a[0] <- A[m*896] n=(1, 1, 128, 64) ...   ; mte2
 *
 * Operand fields are grouped by name: buffer or tensor x with its x_off, x_row, x_col becomes x's name and [off, row=,
 * col=]; single letters with digits (n0 n1 n2 n3) become one list. A new field in plan/insn.def prints without a change
 * here. */
#include "plan/names.h"
#include "plan/text_priv.h"

#include "kernels/vec.h"

#include <stdio.h>
#include <string.h>

enum { OPERAND_COLUMN = 12, COMMENT_COLUMN = 72, INDENT = 2 };

struct printer {
    struct text t;
    const struct tile_kernel *k;
    const struct tile_section *s;
    const struct tile_insn *in;
    const struct tile_insn_info *row;
    struct expr_short *names;
    const struct tile_names *machine;
    uint32_t done; /* fields printed, one bit each */
};

static const struct strtab *strings_of(const struct printer *p)
{
    return p->k->exprs.strings;
}

static const char *buf_name(struct printer *p, int32_t b)
{
    return b >= 0 && b < p->s->bufs.len ? text_sym(&p->t, strings_of(p), p->s->bufs.data[b].name) : "?";
}

static const char *tensor_name(struct printer *p, int32_t i)
{
    return i >= 0 && i < p->k->tensors.len ? text_sym(&p->t, strings_of(p), p->k->tensors.data[i].name) : "?";
}

static const char *dtype_name(int32_t t)
{
    return t > DT_NONE && t < DT_COUNT ? dtype_table[t].name : "?";
}

static const char *unit_name(const struct printer *p, int32_t u)
{
    return u >= 0 && u < TU_COUNT ? p->machine->unit[u] : "?";
}

static const char *var_name(struct printer *p, int32_t v)
{
    return v >= 0 && v < p->k->exprs.symbols.len ? text_sym(&p->t, strings_of(p), p->k->exprs.symbols.data[v].name)
                                                 : "?";
}

static void add_expr(struct printer *p, expr e)
{
    const struct expr_short *x = p->names;
    const bool known = e > 0 && e < x->from->nodes.len;
    text_expr(&p->t, &x->pool, !known ? EXPR_INVALID : x->name[e] ? x->name[e] : x->whole[e]);
}

static void add_float(struct printer *p, int32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    text_add(&p->t, "%.9g", (double)f);
}

static void add_value(struct printer *p, int i)
{
    const int32_t v = p->in->arg[i];
    switch (p->row->fields[i].kind) {
    case TF_BUF:
    case TF_BUF_OPT: text_add(&p->t, "%s", v < 0 ? "-" : buf_name(p, v)); break;
    case TF_TENSOR:
    case TF_TENSOR_OPT: text_add(&p->t, "%s", v < 0 ? "-" : tensor_name(p, v)); break;
    case TF_EXPR: add_expr(p, v); break;
    case TF_INT: text_add(&p->t, "%d", v); break;
    case TF_DTYPE: text_add(&p->t, "%s", dtype_name(v)); break;
    case TF_FLOAT: add_float(p, v); break;
    case TF_UNIT: text_add(&p->t, "%s", unit_name(p, v)); break;
    case TF_FN: text_add(&p->t, "%s", k_fn_info((enum k_fn)v) ? k_fn_info((enum k_fn)v)->name : "?"); break;
    case TF_VAR: text_add(&p->t, "%s", var_name(p, v)); break;
    }
    p->done |= 1U << i;
}

static bool is_operand(const struct tile_field *f)
{
    return f->kind == TF_BUF || f->kind == TF_BUF_OPT || f->kind == TF_TENSOR || f->kind == TF_TENSOR_OPT;
}

/* The part of `field` after "x_" when it belongs to operand `x`, else NULL. */
static const char *suffix_of(const char *field, const char *x)
{
    const size_t n = strlen(x);
    return strncmp(field, x, n) == 0 && field[n] == '_' ? field + n + 1 : NULL;
}

/* An absent operand shows nothing; in VEC it may be an immediate, which stands in the offset field. */
static void skip_operand(struct printer *p, int i)
{
    const char *x = p->row->fields[i].name;
    for (int j = i; j < p->row->n_fields; j++)
        if (j == i || suffix_of(p->row->fields[j].name, x))
            p->done |= 1U << j;
}

static bool is_immediate(const struct printer *p, int i)
{
    const struct k_fn_info *fn = p->in->op == TILE_VEC ? k_fn_info((enum k_fn)p->in->arg[0]) : NULL;
    const char x = p->row->fields[i].name[0];
    return p->in->arg[i] < 0 && fn && x >= 'a' && x < 'a' + fn->arity;
}

/* name[off, row=.., col=..] or #immediate */
static void add_operand(struct printer *p, int i)
{
    if (is_immediate(p, i)) {
        text_add(&p->t, "#");
        add_float(p, p->in->arg[i + 1]);
        skip_operand(p, i);
        return;
    }
    add_value(p, i);
    const char *sep = "[";
    for (int j = 0; j < p->row->n_fields; j++) {
        const char *part = suffix_of(p->row->fields[j].name, p->row->fields[i].name);
        if (!part)
            continue;
        text_add(&p->t, "%s", sep);
        if (strcmp(part, "off") != 0)
            text_add(&p->t, "%s=", part);
        add_value(p, j);
        sep = ", ";
    }
    if (sep[0] != '[')
        text_add(&p->t, "]");
}

static void add_operands(struct printer *p)
{
    int n = 0;
    for (int i = 0; i < p->row->n_fields; i++) {
        if (!is_operand(&p->row->fields[i]))
            continue;
        if (p->in->arg[i] < 0 && !is_immediate(p, i)) {
            skip_operand(p, i);
            continue;
        }
        text_add(&p->t, "%s", n == 0 ? "" : n == 1 ? " <- " : ", ");
        add_operand(p, i);
        n++;
    }
}

static bool is_list(const char *name)
{
    return name[0] && name[1] >= '0' && name[1] <= '9' && !name[2];
}

static void add_list(struct printer *p, int first)
{
    const char letter = p->row->fields[first].name[0];
    text_add(&p->t, "%c=", letter);
    for (int i = first; i < p->row->n_fields && p->row->fields[i].name[0] == letter && is_list(p->row->fields[i].name);
         i++) {
        text_add(&p->t, i == first ? "(" : ", ");
        add_value(p, i);
    }
    text_add(&p->t, ")");
}

/* Parameters of a formula: only those it has. */
static void limit_params(struct printer *p)
{
    const struct k_fn_info *fn = p->in->op == TILE_VEC ? k_fn_info((enum k_fn)p->in->arg[0]) : NULL;
    for (int i = 0; i < p->row->n_fields; i++)
        if (fn && p->row->fields[i].kind == TF_FLOAT && p->row->fields[i].name[1] - '0' >= fn->n_params)
            p->done |= 1U << i;
}

static void add_rest(struct printer *p)
{
    limit_params(p);
    for (int i = 0; i < p->row->n_fields; i++) {
        if (p->done & 1U << i)
            continue;
        text_add(&p->t, " ");
        if (is_list(p->row->fields[i].name)) {
            add_list(p, i);
            continue;
        }
        text_add(&p->t, "%s=", p->row->fields[i].name);
        add_value(p, i);
    }
}

static void add_mnemonic(struct printer *p, int depth)
{
    for (const char *c = p->row->name; *c; c++)
        text_add(&p->t, "%c", *c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    for (int i = 0; i < p->row->n_fields; i++)
        if (p->row->fields[i].kind == TF_DTYPE && !strchr(p->row->fields[i].name, '_')) {
            text_add(&p->t, ".");
            add_value(p, i);
        }
    text_column(&p->t, INDENT * depth + OPERAND_COLUMN);
    for (int i = 0; i < p->row->n_fields; i++)
        if (p->row->fields[i].kind == TF_FN) {
            add_value(p, i);
            text_add(&p->t, " ");
        }
}

static void print_loop(struct printer *p)
{
    text_add(&p->t, "for ");
    add_value(p, 0);
    text_add(&p->t, " in 0..");
    add_value(p, 1);
    text_add(&p->t, ":");
}

static void print_if(struct printer *p)
{
    text_add(&p->t, "if ");
    add_value(p, 0);
    text_add(&p->t, ":");
}

static void print_flag(struct printer *p)
{
    text_add(&p->t, "%s  ", p->in->op == TILE_SET ? "set_flag" : "wait_flag");
    add_value(p, 0);
    text_add(&p->t, " -> ");
    add_value(p, 1);
    text_add(&p->t, ", %d", p->in->arg[2]);
    if (p->in->arg[3] >= 0)
        text_add(&p->t, " + slot(%s)", buf_name(p, p->in->arg[3]));
}

static void print_sload(struct printer *p)
{
    add_value(p, 0);
    text_add(&p->t, " = sload.%s ", dtype_name(p->in->arg[2]));
    add_value(p, 1);
    text_add(&p->t, "[");
    add_value(p, 3);
    text_add(&p->t, "] in ");
    add_value(p, 4);
    text_add(&p->t, "..");
    add_value(p, 5);
    text_add(&p->t, " assume ");
    add_value(p, 6);
}

static void print_let(struct printer *p)
{
    add_value(p, 0);
    text_add(&p->t, " = ");
    add_value(p, 1);
}

static void (*const special[TILE_OP_END])(struct printer *p) = {
    [TILE_LOOP] = print_loop, [TILE_IF] = print_if,       [TILE_SET] = print_flag,
    [TILE_WAIT] = print_flag, [TILE_SLOAD] = print_sload, [TILE_LET] = print_let,
};

static void print_insn(struct printer *p, int depth)
{
    p->done = 0;
    text_add(&p->t, "%*s", INDENT * depth, "");
    if (special[p->in->op]) {
        special[p->in->op](p);
    } else {
        add_mnemonic(p, depth);
        add_operands(p);
        add_rest(p);
    }
    if (p->row->cls != TC_CTRL) {
        text_column(&p->t, COMMENT_COLUMN);
        text_add(&p->t, "; %s", unit_name(p, (int32_t)tile_insn_unit(p->s, p->in)));
    }
    text_line(&p->t);
}

static void print_section(struct printer *p, const struct tile_section *s)
{
    p->s = s;
    text_add(&p->t, "  %s:\n", p->machine->core[s->core]);
    for (int64_t i = 0; i < s->bufs.len; i++) {
        const struct tile_buf *b = &s->bufs.data[i];
        text_add(&p->t, "    buf %s: %s %s %d x %lld B", buf_name(p, (int32_t)i),
                 b->space < TS_COUNT ? p->machine->space[b->space] : "?", dtype_name(b->dtype), b->slots,
                 (long long)b->slot_size);
        text_add(&p->t, b->base >= 0 ? " at %lld" : " not placed", (long long)b->base);
        text_line(&p->t);
    }
    int depth = 2;
    uint16_t note = 0;
    for (int64_t i = 0; i < s->code.len; i++) {
        p->in = &s->code.data[i];
        p->row = p->in->op < TILE_OP_END ? &tile_insn_table[p->in->op] : &tile_insn_table[0];
        if (!p->row->name)
            continue;
        if (p->in->line && p->in->line != note && p->in->line <= p->k->notes.len) {
            note = p->in->line;
            text_add(&p->t, "%*s; %s\n", INDENT * depth, "",
                     text_sym(&p->t, strings_of(p), p->k->notes.data[note - 1]));
        }
        if (p->in->op == TILE_ENDLOOP || p->in->op == TILE_ENDIF) {
            depth -= depth > 2;
            continue;
        }
        p->t.line = p->t.s.len;
        print_insn(p, depth);
        depth += p->in->op == TILE_LOOP || p->in->op == TILE_IF;
    }
}

static void print_head(struct printer *p)
{
    const struct tile_kernel *k = p->k;
    text_add(&p->t, "kernel @%s(", text_sym(&p->t, strings_of(p), k->name));
    for (int32_t i = 0; i < k->n_params; i++)
        text_add(&p->t, "%s%s", i ? ", " : "", var_name(p, i));
    text_add(&p->t, ") blocks=");
    add_expr(p, k->blocks);
    if (k->has[TCORE_CUBE] && k->has[TCORE_VECTOR])
        text_add(&p->t, " of 1 cube and 2 vector cores");
    text_add(&p->t, "\n");
    for (int64_t i = 0; i < k->tensors.len; i++) {
        const struct tile_tensor *t = &k->tensors.data[i];
        text_add(&p->t, "  %s %s: %s",
                 t->is_input && t->is_output ? "inout"
                 : t->is_output              ? "out"
                                             : "in",
                 tensor_name(p, (int32_t)i), dtype_name(t->dtype));
        if (t->bypass) {
            text_add(&p->t, ", past L2 if ");
            add_expr(p, t->bypass);
        }
        text_add(&p->t, "\n");
    }
}

static void print_names(struct printer *p)
{
    for (expr e = 1; e < p->names->from->nodes.len; e++) {
        if (!p->names->name[e])
            continue;
        text_add(&p->t, "    ");
        text_expr(&p->t, &p->names->pool, p->names->name[e]);
        text_add(&p->t, " = %s\n", expr_text(&p->names->pool, p->names->whole[e], p->t.arena));
    }
}

const char *tile_kernel_text_of(const struct tile_kernel *k, const char *family, struct arena *a)
{
    struct printer p = {.t = {.arena = a}, .k = k, .names = expr_short_new(k, a), .machine = tile_names_of(family)};
    print_head(&p);
    for (int c = 0; c < TCORE_COUNT; c++)
        if (k->has[c])
            print_section(&p, &k->section[c]);
    if (p.names->n_names) {
        text_add(&p.t, "  where:\n");
        print_names(&p);
    }
    return text_done(&p.t);
}

const char *tile_kernel_text(const struct tile_kernel *k, struct arena *a)
{
    return tile_kernel_text_of(k, NULL, a);
}
