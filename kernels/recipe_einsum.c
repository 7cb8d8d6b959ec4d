/* Einsum: operands from left to right. A repeated label within an operand becomes its diagonal; a label that nothing
 * further needs is summed away (64 lanes) or, where two operands share it, contracted by a product of matrices (k
 * ascending over the shared labels in the first operand's order); without one the operands are multiplied. Of more than
 * two operands of 16-bit floats the sums stay in float. */
#include <string.h>

#include "kernels/einsum.h"
#include "kernels/recipe.h"

/* An operand or partial result: its axes' labels. */
struct part {
    rval v;
    struct einsum_term t;
};
struct labels {
    bool has[EINSUM_LABELS];
};

static int find(const struct einsum_term *t, int label)
{
    for (int i = 0; i < t->n; i++)
        if (t->label[i] == label)
            return i;
    return -1;
}
static void drop_axis(struct einsum_term *t, int axis)
{
    memmove(t->label + axis, t->label + axis + 1, (size_t)(t->n - axis - 1));
    t->n--;
}
static void note(struct labels *l, const struct einsum_term *t)
{
    for (int i = 0; i < t->n; i++)
        l->has[t->label[i]] = true;
}

/* Axes in the order of `want`, whose labels p has. */
static rval ordered(struct recipe *r, const struct part *p, const struct einsum_term *want)
{
    int64_t perm[K_MAX_RANK];
    for (int i = 0; i < want->n; i++)
        perm[i] = find(&p->t, want->label[i]);
    return r_perm(r, p->v, want->n, perm);
}

/* Axes a < b of equal size n: both last, [.., n*n], every (n+1)th element. */
static void diagonal(struct recipe *r, struct part *p, int a, int b)
{
    int64_t perm[K_MAX_RANK], n = 0;
    int k = 0;
    rdim dims[K_MAX_RANK];
    const int rank = p->t.n;
    for (int i = 0; i < rank; i++)
        if (i != a && i != b) {
            dims[k] = r_dim(r, p->v, i);
            perm[k++] = i;
        }
    perm[rank - 2] = a;
    perm[rank - 1] = b;
    if (!r_size(r, p->v, a, &n)) {
        r_fail(r, "a repeated label needs a known size");
        return;
    }
    const rdim size = r->d->number(r, n);
    dims[rank - 2] = r->d->number(r, n * n);
    rval v = r_shape(r, r_perm(r, p->v, rank, perm), dims, rank - 1);
    const int64_t from = 0, to = n * n, axis = rank - 2, by = n + 1;
    v = r_node(r, "Slice", 5,
               (rval[]){v, r_ints(r, &from, 1), r_ints(r, &to, 1), r_ints(r, &axis, 1), r_ints(r, &by, 1)}, 0, NULL);
    dims[rank - 2] = size;
    p->v = r_shape(r, v, dims, rank - 1);
    const uint8_t label = p->t.label[a];
    struct einsum_term t = {.n = 0};
    for (int i = 0; i < rank; i++)
        if (i != a && i != b)
            t.label[t.n++] = p->t.label[i];
    t.label[t.n++] = label;
    p->t = t;
}

static void take_diagonals(struct recipe *r, struct part *p)
{
    for (int a = 0; a < p->t.n && r->status == NPUC_OK; a++)
        for (int b = a + 1; b < p->t.n; b++)
            if (p->t.label[a] == p->t.label[b]) {
                diagonal(r, p, a, b);
                a = -1;
                break;
            }
}

/* Sums the axes away that `need` does not have. */
static void sum_away(struct recipe *r, struct part *p, const struct labels *need)
{
    int64_t axes[K_MAX_RANK];
    int n = 0;
    for (int i = 0; i < p->t.n; i++)
        if (!need->has[p->t.label[i]])
            axes[n++] = i;
    if (!n)
        return;
    p->v = r_sum(r, p->v, axes, n, false);
    while (n-- > 0)
        drop_axis(&p->t, (int)axes[n]);
}

/* An axis of size 1 whose label is longer elsewhere is spread over it: the operand does not depend on it. */
static void drop_ones(struct recipe *r, struct part *p, int n)
{
    bool longer[EINSUM_LABELS] = {false};
    for (int k = 0; k < n; k++)
        for (int i = 0; i < p[k].t.n; i++) {
            int64_t size;
            if (!r_size(r, p[k].v, i, &size) || size != 1)
                longer[p[k].t.label[i]] = true;
        }
    for (int k = 0; k < n; k++)
        for (int i = p[k].t.n - 1; i >= 0; i--) {
            int64_t size;
            if (!longer[p[k].t.label[i]] || !r_size(r, p[k].v, i, &size) || size != 1)
                continue;
            p[k].v = r_squeeze(r, p[k].v, i);
            drop_axis(&p[k].t, i);
        }
}

static void append(struct einsum_term *t, const struct einsum_term *more)
{
    for (int i = 0; i < more->n; i++)
        t->label[t->n++] = more->label[i];
}

/* The axes of a and b: in both and needed, in both and not, in one only. */
struct split {
    struct einsum_term batch, shared, a, b;
};
static struct split split_of(const struct part *a, const struct part *b, const struct labels *need)
{
    struct split s = {0};
    for (int i = 0; i < a->t.n; i++) {
        const uint8_t l = a->t.label[i];
        struct einsum_term *to = find(&b->t, l) < 0 ? &s.a : need->has[l] ? &s.batch : &s.shared;
        to->label[to->n++] = l;
    }
    for (int i = 0; i < b->t.n; i++)
        if (find(&a->t, b->t.label[i]) < 0)
            s.b.label[s.b.n++] = b->t.label[i];
    return s;
}

static rdim size_of(struct recipe *r, const struct part *p, uint8_t label)
{
    return r_dim(r, p->v, find(&p->t, label));
}
static rdim product_of(struct recipe *r, const struct part *p, const struct einsum_term *t)
{
    rdim d = r->d->number(r, 1);
    for (int i = 0; i < t->n; i++)
        d = r->d->combine(r, '*', d, size_of(r, p, t->label[i]));
    return d;
}

/* p as [batch, rows, cols] */
static rval matrix(struct recipe *r, const struct part *p, const struct einsum_term *batch,
                   const struct einsum_term *rows, const struct einsum_term *cols)
{
    struct einsum_term want = *batch;
    rdim dims[K_MAX_RANK + 2];
    append(&want, rows);
    append(&want, cols);
    const rval v = ordered(r, p, &want);
    if (rows->n == 1 && cols->n == 1)
        return v;
    for (int i = 0; i < batch->n; i++)
        dims[i] = size_of(r, p, batch->label[i]);
    dims[batch->n] = product_of(r, p, rows);
    dims[batch->n + 1] = product_of(r, p, cols);
    return r_shape(r, v, dims, batch->n + 2);
}

static void contract(struct recipe *r, struct part *a, const struct part *b, const struct split *s)
{
    rdim dims[K_MAX_RANK];
    int n = 0;
    for (int i = 0; i < s->batch.n; i++)
        dims[n++] = size_of(r, a, s->batch.label[i]);
    for (int i = 0; i < s->a.n; i++)
        dims[n++] = size_of(r, a, s->a.label[i]);
    for (int i = 0; i < s->b.n; i++)
        dims[n++] = size_of(r, b, s->b.label[i]);
    /* b with its shared axes last lies like the right operand of a transposed product: only two axes are swapped */
    const bool across = find(&s->shared, b->t.label[b->t.n - 1]) >= 0;
    const rval left = matrix(r, a, &s->batch, &s->a, &s->shared),
               right = across ? r_swap(r, matrix(r, b, &s->batch, &s->b, &s->shared))
                              : matrix(r, b, &s->batch, &s->shared, &s->b);
    const rval v = r2(r, "MatMul", left, right);
    a->v = s->a.n == 1 && s->b.n == 1 ? v : r_shape(r, v, dims, n);
}

/* a[batch, a, 1..] * b[batch, 1.., b] */
static void multiply(struct recipe *r, struct part *a, const struct part *b, const struct split *s)
{
    struct einsum_term ta = s->batch, tb = s->batch;
    append(&ta, &s->a);
    append(&tb, &s->b);
    rval x = ordered(r, a, &ta), y = ordered(r, b, &tb);
    for (int i = 0; i < s->b.n; i++)
        x = r_unsqueeze(r, x, ta.n + i);
    for (int i = 0; i < s->a.n; i++)
        y = r_unsqueeze(r, y, s->batch.n + i);
    a->v = r2(r, "Mul", x, y);
}

static void join(struct recipe *r, struct part *a, struct part *b, const struct labels *later)
{
    struct labels need = *later;
    note(&need, &b->t);
    sum_away(r, a, &need);
    need = *later;
    note(&need, &a->t);
    sum_away(r, b, &need);
    const struct split s = split_of(a, b, later);
    if (s.batch.n + s.a.n + s.b.n > K_MAX_RANK - 2) {
        r_fail(r, "a partial result has too many dims");
        return;
    }
    if (r->status != NPUC_OK)
        return;
    if (s.shared.n)
        contract(r, a, b, &s);
    else
        multiply(r, a, b, &s);
    a->t = s.batch;
    append(&a->t, &s.a);
    append(&a->t, &s.b);
}

enum npuc_status recipe_einsum(struct recipe *r)
{
    struct einsum e;
    struct part p[EINSUM_MAX_TERMS];
    int ranks[EINSUM_MAX_TERMS] = {0};
    const char *why;
    const int n = r->c->n_in;
    if (n < 1 || n > EINSUM_MAX_TERMS || !r->in[0])
        return r_fail(r, "%d operands, expected 1 to %d", n, EINSUM_MAX_TERMS);
    const enum dtype t = r_type(r, r->in[0]), wide = dtype_is_float(t) && n > 2 ? r_wide(t) : t;
    for (int i = 0; i < n; i++)
        ranks[i] = r_rank(r, r->in[i]);
    if (!einsum_read(&e, k_attr_str(r->c, "equation", ""), n, ranks, &why))
        return r_fail(r, "equation: %s", why);
    for (int i = 0; i < n; i++) {
        p[i] = (struct part){r_cast(r, r->in[i], wide), e.in[i]};
        take_diagonals(r, &p[i]);
    }
    drop_ones(r, p, n);
    for (int i = 1; i < n && r->status == NPUC_OK; i++) {
        struct labels later = {0};
        note(&later, &e.out);
        for (int k = i + 1; k < n; k++)
            note(&later, &p[k].t);
        join(r, &p[0], &p[i], &later);
    }
    struct labels out = {0};
    note(&out, &e.out);
    if (r->status == NPUC_OK)
        sum_away(r, &p[0], &out);
    if (r->status == NPUC_OK)
        r->out[0] = r_cast(r, ordered(r, &p[0], &e.out), t);
    return r->status;
}
