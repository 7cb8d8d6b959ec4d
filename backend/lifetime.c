/* First and last step of every temporary: the steps that touch it or one of its aliases. What comes into a loop lives
 * until the loop ends, and so does what leaves it from the loop's begin on: the turns share one place. Temporaries
 * that may trade their storage (PS_MOVE) live equally long. A tensor that no step touches gets an empty place at step
 * 0. */
#include "backend/emit_priv.h"

static int32_t root_of(const struct plan *p, int32_t tensor)
{
    return p->tensors.data[tensor].kind == PT_ALIAS ? p->tensors.data[tensor].base : tensor;
}

static void touch(struct plan *p, int32_t tensor, int32_t step)
{
    struct plan_tensor *t = &p->tensors.data[root_of(p, tensor)];
    if (t->kind != PT_TEMP)
        return;
    if (t->first < 0)
        t->first = step;
    t->last = step;
}

/* `begin` is the loop's step, `end` the last of its body. */
static void stretch(struct plan *p, int32_t begin, int32_t end)
{
    for (int64_t i = 0; i < p->tensors.len; i++) {
        struct plan_tensor *t = &p->tensors.data[i];
        if (t->kind != PT_TEMP || t->first < 0 || t->last < begin || t->first > end)
            continue;
        if (t->first <= begin && t->last < end)
            t->last = end;
        else if (t->first > begin && t->last > end)
            t->first = begin;
    }
}

static int32_t group_of(int32_t *parent, int32_t i)
{
    while (parent[i] != i)
        i = parent[i] = parent[parent[i]];
    return i;
}

/* Tensors that moves connect form a group with one life; inputs of the group that live for the whole run stretch it. */
static void join_moves(struct plan *p, const struct plan_entry *e, struct arena *a)
{
    const int32_t end = e->first_step + e->n_steps - 1;
    int32_t *parent = ARENA_ARRAY(a, int32_t, p->tensors.len + 1), *first = ARENA_ARRAY(a, int32_t, p->tensors.len + 1),
            *last = ARENA_ARRAY(a, int32_t, p->tensors.len + 1);
    for (int32_t i = 0; i < p->tensors.len; i++) {
        const struct plan_tensor *t = &p->tensors.data[i];
        parent[i] = i;
        first[i] = t->kind == PT_TEMP ? t->first : e->first_step;
        last[i] = t->kind == PT_TEMP ? t->last : end;
    }
    for (int64_t i = e->first_step; i <= end; i++) {
        const struct plan_step *s = &p->steps.data[i];
        if (s->kind != PS_MOVE)
            continue;
        const int32_t from = group_of(parent, root_of(p, s->tensors[0])),
                      to = group_of(parent, root_of(p, s->tensors[1]));
        parent[from] = to;
        first[to] = first[from] < first[to] ? first[from] : first[to];
        last[to] = last[from] > last[to] ? last[from] : last[to];
    }
    for (int32_t i = 0; i < p->tensors.len; i++) {
        const int32_t g = group_of(parent, i);
        if (p->tensors.data[i].kind != PT_TEMP || p->tensors.data[i].first < 0)
            continue;
        p->tensors.data[i].first = first[g];
        p->tensors.data[i].last = last[g];
    }
}

void plan_lifetimes(struct plan *p, const struct plan_entry *e, int64_t first_tensor, struct arena *a)
{
    bool moves = false;
    const int64_t begin = e->first_step, end = begin + e->n_steps;
    for (int64_t i = first_tensor; i < p->tensors.len; i++)
        p->tensors.data[i].first = p->tensors.data[i].last = p->tensors.data[i].kind == PT_TEMP ? -1 : 0;
    for (int64_t i = begin; i < end; i++) {
        const struct plan_step *s = &p->steps.data[i];
        moves = moves || s->kind == PS_MOVE;
        for (int32_t j = 0; j < s->n_in + s->n_out; j++)
            if (s->tensors[j] >= 0)
                touch(p, s->tensors[j], (int32_t)i);
    }
    for (int64_t i = end - 1; i >= begin; i--) /* inner loops stand behind those around them */
        if (p->steps.data[i].kind == PS_LOOP)
            stretch(p, (int32_t)i, (int32_t)i + p->steps.data[i].n_body[0]);
    if (moves)
        join_moves(p, e, a);
    for (int64_t i = first_tensor; i < p->tensors.len; i++)
        if (p->tensors.data[i].first < 0)
            p->tensors.data[i].first = p->tensors.data[i].last = (int32_t)begin;
}
