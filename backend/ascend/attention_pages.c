/* Keys and values whose rows lie in pages (backend/emit_pages.c): a chunk is a few runs of rows, each within one page.
 * The scalar unit of the cube core reads the pages' numbers from the block table; in a ring they follow from the number
 * of the chunk. */
#include "backend/ascend/attention.h"

#include <stdio.h>

static struct value *rows_of(const struct att *a, int operand)
{
    return operand == ATT_KEYS ? a->k : a->v;
}

int64_t att_page_run(const struct att *a, int operand)
{
    const int64_t page = a->paged[operand].page;
    return page < ATTEND_CHUNK ? page : ATTEND_CHUNK;
}

/* Between members of the batch within a page, [heads, page, size] in dimensions 1 to rank - 1. */
bool att_read_pages(struct ir_ctx *cx, struct att *a, const struct value *v, int operand, expr *batch, expr *row)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = v->type;
    const struct layout *l = &t->layout;
    const int axis = t->rank - 2;
    if (!attend_takes_pages(l->page) || l->axis != axis || axis != a->n_batch || axis < 1)
        return false;
    for (int i = 0; i < axis; i++)
        if (t->dims[i] != a->batch[i])
            return false;
    struct att_pages *p = &a->paged[operand];
    *row = t->dims[axis + 1];
    expr stride = expr_mul_const(x, *row, l->page), heads = expr_const(x, 1);
    batch[0] = expr_const(x, 0);
    for (int i = axis - 1; i > 0; i--) {
        batch[i] = stride;
        stride = expr_mul(x, stride, t->dims[i]);
        heads = expr_mul(x, heads, t->dims[i]);
    }
    *p = (struct att_pages){.page = l->page, .ring = l->ring / l->page, .heads = heads};
    p->width = expr_max(x, expr_const(x, 1), expr_floordiv(x, l->capacity, expr_const(x, l->page)));
    p->cells = expr_mul(x, t->dims[0], p->width);
    return true;
}

void att_page_params(struct att_kernel *k)
{
    char name[32];
    for (int i = 0; i < ATT_CODED; i++) {
        const struct att_pages *p = &k->a->paged[i];
        struct att_paged *to = &k->paged[i];
        if (!p->page)
            continue;
        const struct {
            const char *what;
            expr ir;
            expr *to;
        } all[] = {{"page_heads", p->heads, &to->heads},
                   {"table_width", p->width, &to->width},
                   {"table_cells", p->cells, &to->cells},
                   {"pool_pages", emit_pages(k->e, rows_of(k->a, i)).pages, &to->pages}};
        for (int64_t j = 0; j < (p->ring ? 1 : NPUC_ARRAY_LEN(all)); j++) {
            snprintf(name, sizeof name, "%c_%s", i == ATT_KEYS ? 'k' : 'v', all[j].what);
            *all[j].to = kparam(&k->f.p, name, all[j].ir);
        }
    }
}

int32_t att_rows_tensor(struct emit *e, const struct att *a, int operand)
{
    struct value *v = rows_of(a, operand);
    return a->paged[operand].page ? emit_pages(e, v).pool : emit_tensor(e, v);
}

void att_page_tensors(struct att_kernel *k)
{
    for (int i = 0; i < ATT_CODED; i++)
        if (k->a->paged[i].page && !k->a->paged[i].ring)
            k->paged[i].table = vr_declare_tensor(&k->f, emit_pages(k->e, rows_of(k->a, i)).table, DT_I32, false);
}

/* Page `j` of the sequence: from the table, or the j-th in turn. */
static expr page_number(struct att_kernel *k, int operand, expr sequence, expr j)
{
    struct expr_pool *x = &k->f.k->exprs;
    const struct att_pages *p = &k->a->paged[operand];
    const struct att_paged *at = &k->paged[operand];
    const expr zero = expr_const(x, 0), one = expr_const(x, 1);
    if (p->ring)
        return expr_add(x, expr_mul_const(x, sequence, p->ring), expr_mod(x, j, expr_const(x, p->ring)));
    const expr column = expr_min(x, j, expr_sub(x, at->width, one)),
               cell = expr_add(x, expr_mul(x, sequence, at->width), column),
               there = expr_max(x, zero, expr_min(x, cell, expr_sub(x, at->cells, one)));
    const int32_t var = tile_var(&k->f.b, "page", (struct expr_range){0, INT32_MAX, 1});
    TILE(&k->f.b, SLOAD, var, at->table, DT_I32, there, zero, expr_max(x, zero, expr_sub(x, at->pages, one)),
         expr_add(x, there, one));
    return expr_sym(x, var);
}

void att_page_runs(struct att_kernel *k, int operand, const struct att_step *s, expr run[ATT_MAX_RUNS])
{
    struct expr_pool *x = &k->f.k->exprs;
    const struct att_pages *p = &k->a->paged[operand];
    const bool keys = operand == ATT_KEYS;
    const expr page = expr_const(x, p->page), heads = expr_max(x, expr_const(x, 1), k->paged[operand].heads),
               row = keys ? k->k_row : k->v_row, sequence = expr_floordiv(x, s->it.batch, heads),
               whole = expr_mul(x, k->paged[operand].heads, expr_mul_const(x, row, p->page)),
               head = att_batch_offset(k, s->it.batch, keys ? k->k_batch : k->v_batch);
    const int64_t rows = att_page_run(k->a, operand);
    if (!p->ring)
        tile_note(&k->f.b, keys ? "where the chunk's keys lie" : "where the chunk's values lie");
    for (int64_t i = 0; i < ATTEND_CHUNK / rows; i++) {
        const expr at = expr_add(x, s->key0, expr_const(x, i * rows));
        const expr within = expr_mul(x, expr_mod(x, at, page), row),
                   number = page_number(k, operand, sequence, expr_floordiv(x, at, page));
        run[i] = tile_let(&k->f.b, keys ? "keys" : "values",
                          expr_add(x, expr_mul(x, number, whole), expr_add(x, within, head)));
    }
}
