/* Which values residency.c will keep in the shared memory of clusters, told from the graph: tiles and bands are chosen
 * before there are steps. The rule is the same; a node counts as one step, and its kernel keeps its weights there, up
 * to what a core holds of them. */
#include "backend/emit_priv.h"
#include "base/size.h"

enum { VOLUME_RANK = 5 };

struct marking {
    struct emitter *em;
    struct shared_use *use;
    const struct value **over; /* by value: the one whose place it takes; NULL: none */
    int32_t *apart; /* by value with bytes of its own: copies of the nodes that touch it; -1: it cannot stay */
};

static const struct value *root_of(const struct marking *k, const struct value *v)
{
    for (;;) {
        const bool view = v->def && op_has((enum op)v->def->op, T_VIEW) && node_in(v->def, 0);
        if (!view && !k->over[v->id])
            return v;
        v = view ? node_in(v->def, 0) : k->over[v->id];
    }
}

/* A result that takes the place of the operand read at its rows, where nothing else reads that (emit_tensor_over). */
static void note_over(const struct marking *k, struct node *n, const struct machine *m)
{
    struct emit *e = &k->em->e;
    struct row_use use = {0};
    const char *why = NULL;
    const struct gen *g = find_gen(m, e->cx, n, &why);
    if (!g || !g->rows || !g->rows(m, e->cx, n, &use) || !use.same || !use.same->uses || use.same->uses->next)
        return;
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i) && n->out[i].type == use.same->type && use.same->def)
            k->over[n->out[i].id] = use.same;
}

static void touch(const struct marking *k, const struct value *v, int32_t step, int32_t copies)
{
    if (!v)
        return;
    const struct value *root = root_of(k, v);
    k->apart[root->id] = copies < 1 || (k->apart[root->id] && k->apart[root->id] != copies) ? -1 : copies;
    if (!k->use->first[root->id])
        k->use->first[root->id] = step;
    k->use->last[root->id] = step;
}

static int64_t bytes_of(const struct emit *e, const struct value *v)
{
    const int64_t count = v->type->kind == TYPE_TENSOR ? type_const_count(e->cx, v->type) : -1;
    return count < 0 ? -1 : count * dtype_size(v->type->dtype);
}

static int32_t copies_of(const struct marking *k, struct node *n)
{
    struct emit *e = &k->em->e;
    struct machine_part part = {.copies = 0};
    if (n->place != PLACE_NPU || !e->m->family->part(e->m, e->cx, n, &part) || part.copies < 1)
        return 0;
    if (!emit_may_divide(e, n, part.copies))
        return 0;
    note_over(k, n, &part.m);
    return part.copies;
}

/* Windows of three axes are gathered by IO-DMA. */
static bool is_volume(const struct node *n)
{
    return n->n_out > 0 && node_out(n, 0) && n->out[0].type->kind == TYPE_TENSOR && n->out[0].type->rank == VOLUME_RANK;
}

static int64_t touch_all(const struct marking *k, struct node *n, int32_t step)
{
    const struct emit *e = &k->em->e;
    const int32_t copies = copies_of(k, n);
    int64_t weights = 0;
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = node_in(n, i);
        if (v && (value_const(v) || weight_is_cast(v)))
            weights += bytes_of(e, v) > 0 ? bytes_of(e, v) : 0;
        else
            touch(k, v, step, is_volume(n) ? -1 : copies);
    }
    for (int i = 0; i < n->n_out; i++)
        touch(k, node_out(n, i), step, copies);
    return size_min(weights, e->m->size[TS_L0B]);
}

/* A temporary of the function with so many bytes in each part. */
static bool may_stay(const struct marking *k, const struct value *v, int64_t *bytes)
{
    const struct emit *e = &k->em->e;
    const int32_t at = e->tensor_of[v->id];
    if (k->apart[v->id] < 1 || !v->def || e->line_of[v->id].pitch > 0 || e->part_of[v->id] ||
        (at >= 0 && e->plan->tensors.data[at].kind != PT_TEMP))
        return false;
    *bytes = bytes_of(e, v);
    if (*bytes < 1 || *bytes % k->apart[v->id] != 0)
        return false;
    *bytes /= k->apart[v->id];
    return true;
}

static int64_t candidates(const struct marking *k, struct stay *list)
{
    int64_t n = 0;
    for_each_node (node, k->em->graph)
        for (int i = 0; i < node->n_out; i++) {
            const struct value *v = node_out(node, i);
            struct stay s = {0};
            if (!v || !may_stay(k, v, &s.bytes))
                continue;
            s.id = (int32_t)v->id;
            s.first = k->use->first[v->id];
            s.last = k->use->last[v->id];
            list[n++] = s;
        }
    return n;
}

void emit_mark_near(struct emitter *em)
{
    struct emit *e = &em->e;
    if (!e->m->family->part)
        return;
    const int64_t n = (int64_t)e->module->n_values + 1;
    int64_t nodes = 1;
    for_each_node (node, em->graph)
        nodes++;
    struct shared_use *use = ARENA_NEW(e->arena, struct shared_use);
    *use = (struct shared_use){.first = arena_zalloc(e->arena, n * (int64_t)sizeof(int32_t)),
                               .last = arena_zalloc(e->arena, n * (int64_t)sizeof(int32_t)),
                               .used = arena_zalloc(e->arena, (nodes + 1) * (int64_t)sizeof(int64_t))};
    const struct marking k = {em, use, arena_zalloc(e->arena, n * (int64_t)sizeof(struct value *)),
                              arena_zalloc(e->arena, n * (int64_t)sizeof(int32_t))};
    int32_t step = 0;
    for_each_node (node, em->graph)
        if (node->op != OP_Constant && !op_has((enum op)node->op, T_VIEW)) {
            step++;
            use->used[step] = touch_all(&k, node, step);
        }
    struct stay *list = ARENA_ARRAY(e->arena, struct stay, n);
    const int64_t count = candidates(&k, list);
    residency_keep(list, count, use->used, e->m->size[TS_L1]);
    bool *near = arena_zalloc(e->arena, n * (int64_t)sizeof *near);
    for (int64_t i = 0; i < count; i++)
        near[list[i].id] = list[i].kept;
    for (int64_t i = 0; i + 1 < n; i++)
        if (k.over[i])
            near[i] = near[root_of(&k, k.over[i])->id];
    e->near = near;
    em->shared = use;
}
