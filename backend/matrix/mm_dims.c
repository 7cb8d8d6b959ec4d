/* Sizes and strides of a product as parameters of its kernel. */
#include "backend/matrix/mm_dims.h"

#include <stdio.h>

void mm_dims_declare(struct mm_dims *d, struct kparams *params, const struct mm *p)
{
    char name[16];
    d->m = kparam(params, "m", p->m);
    d->n = kparam(params, "n", p->n);
    d->k = kparam(params, "k", p->k);
    d->a_row = kparam(params, "a_row", p->a_row);
    d->b_row = kparam(params, "b_row", p->b_row);
    d->c_row = kparam(params, "c_row", p->c_row);
    d->n_batch = p->n_batch;
    for (int i = 0; i < p->n_batch; i++) {
        const struct {
            const char *stem;
            expr ir;
            expr *to;
        } all[] = {
            {"batch", p->batch[i], &d->batch[i]},
            {"a_batch", p->a_batch[i], &d->a_batch[i]},
            {"b_batch", p->b_batch[i], &d->b_batch[i]},
            {"c_batch", p->c_batch[i], &d->c_batch[i]},
        };
        for (int j = 0; j < NPUC_ARRAY_LEN(all); j++) {
            snprintf(name, sizeof name, "%s%d", all[j].stem, i);
            *all[j].to = kparam(params, name, all[j].ir);
        }
    }
}

expr mm_batch_count(struct expr_pool *x, const struct mm_dims *d)
{
    expr n = expr_const(x, 1);
    for (int i = 0; i < d->n_batch; i++)
        n = expr_mul(x, n, d->batch[i]);
    return n;
}

expr mm_batch_offset(struct expr_pool *x, const struct mm_dims *d, expr index, const expr *stride)
{
    expr off = expr_const(x, 0);
    for (int i = d->n_batch - 1; i >= 0; i--) {
        off = expr_add(x, off, expr_mul(x, i > 0 ? expr_mod(x, index, d->batch[i]) : index, stride[i]));
        index = expr_floordiv(x, index, d->batch[i]);
    }
    return off;
}
