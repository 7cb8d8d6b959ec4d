/* Launches that do not need each other as one: the two rotary embeddings of a layer, the rows appended to its two
 * caches, operands of a Concat.
 *
 *   launch rotary (q)                            launch rotary+copy (q, k, v)     when their blocks fit the cores
 *   launch rotary (k)              becomes
 *   launch copy   (append k)                     launch copy (append k)
 *   launch copy   (append v)
 *
 * A launch costs more than small kernels do, and small ones leave most cores idle. Each keeps its own blocks
 * (join_kernel.c), so no bit changes. Requirements: (1) vector cores alone do the work, without barriers, flags between
 * cores or loads for a cluster; (2) the launches have one guard, as many copies and the same cores; (3) nothing between
 * the first and the later one touches what that one writes, or writes what it touches, unless it is part of an earlier
 * joint launch, which must then have run; (4) together they have no more
 * blocks than cores: where sizes decide it, launches of more and of fewer of them have guards of which one holds; (5)
 * none converts a layout, which reports name. Left alone: bodies of control flow, and what stands behind a step that is
 * no launch. */
#include "backend/emit_priv.h"

#include <string.h>

enum { MAX_JOINED = 8, REACH = 16 }; /* launches in one; steps looked ahead */

struct joins {
    struct emitter *em;
    struct plan *p;
    const struct plan_step *steps; /* of the entry, as they were */
    int64_t n, first;              /* how many, number of the first one in the plan */
    bool *taken;                   /* by step: has gone into a joint launch */
    expr *without;                 /* by taken step: when it is launched alone all the same; EXPR_INVALID: never */
    expr *fits;                    /* by taken step: when the joint launch runs, guards apart; EXPR_INVALID: always */
    VEC(struct plan_step) out;
};

static bool has_own_blocks(const struct tile_kernel *k)
{
    const struct tile_section *s = &k->section[TCORE_VECTOR];
    if (k->has[TCORE_CUBE] || !k->has[TCORE_VECTOR])
        return false;
    for (int64_t i = 0; i < s->code.len; i++) {
        const uint16_t op = s->code.data[i].op;
        const enum tile_class cls = tile_insn_table[op].cls;
        if (op == TILE_BARRIER || op == TILE_XSET || op == TILE_XWAIT ||
            (cls != TC_CTRL && cls != TC_GM_IN && cls != TC_GM_OUT && cls != TC_VECTOR))
            return false;
    }
    return true;
}

static bool is_joinable(const struct joins *j, int64_t i)
{
    const struct plan_step *s = &j->steps[i];
    return s->kind == PS_LAUNCH && !s->reason && s->work == EXPR_INVALID &&
           has_own_blocks(j->p->kernels.data[s->kernel]);
}

static int32_t cores_of(const struct joins *j, int64_t i)
{
    const int64_t step = j->first + i;
    return step < j->em->cores.len ? j->em->cores.data[step] : 0;
}

static bool writes(const struct joins *j, const struct plan_step *s, int32_t i)
{
    return j->p->kernels.data[s->kernel]->tensors.data[i].is_output;
}

/* Do two launches touch the same bytes, one of them writing? Tensors that share a base count as the same. */
static bool meet(const struct joins *j, const struct plan_step *a, const struct plan_step *b)
{
    const struct plan_tensor *t = j->p->tensors.data;
    for (int32_t i = 0; i < a->n_in; i++)
        for (int32_t k = 0; k < b->n_in; k++) {
            const int32_t x = a->tensors[i], y = b->tensors[k];
            const int32_t rx = t[x].kind == PT_ALIAS ? t[x].base : x, ry = t[y].kind == PT_ALIAS ? t[y].base : y;
            if (rx == ry && (writes(j, a, i) || writes(j, b, k)))
                return true;
        }
    return false;
}

static expr step_param(void *user, int64_t symbol)
{
    const struct plan_step *const *s = user;
    return symbol < (*s)->n_params ? (*s)->params[symbol] : EXPR_INVALID;
}

/* The step's number of blocks over the plan's symbols. */
static expr blocks_of(const struct joins *j, const struct plan_step *s)
{
    const struct tile_kernel *k = j->p->kernels.data[s->kernel];
    struct expr_copier c = {.from = &k->exprs, .to = &j->p->exprs, .symbol = step_param, .user = &s};
    map_init(&c.known, j->em->e.arena);
    return expr_copy(&c, k->blocks);
}

static void add_member(const struct joins *j, struct join_member *m, int *n, int64_t i)
{
    const struct plan_step *s = &j->steps[i];
    struct expr_pool *x = &j->p->exprs;
    const expr first = *n ? expr_add(x, m[*n - 1].first, m[*n - 1].blocks) : expr_const(x, 0);
    m[(*n)++] = (struct join_member){j->p->kernels.data[s->kernel], s, first, blocks_of(j, s)};
}

static expr end_of(const struct joins *j, const struct join_member *m, int n)
{
    return expr_add(&j->p->exprs, m[n - 1].first, m[n - 1].blocks);
}

static bool never_fits(const struct joins *j, expr blocks, int32_t cores)
{
    return blocks == EXPR_INVALID || expr_range_of(&j->p->exprs, blocks).min > cores;
}

/* May step k run with step i, before all that stands between? *need: where a joint launch must have run for that, the
 * condition of it; one for all steps of a launch. */
static bool may_move(const struct joins *j, int64_t i, int64_t k, expr *need)
{
    const struct plan_step *a = &j->steps[i], *b = &j->steps[k];
    if (!is_joinable(j, k) || a->guard != b->guard || a->copies != b->copies || cores_of(j, i) != cores_of(j, k))
        return false;
    for (int64_t m = i; m < k; m++) {
        if ((j->taken[m] && !j->fits[m]) || !meet(j, &j->steps[m], b))
            continue;
        if (!j->taken[m] || (*need && *need != j->fits[m]))
            return false;
        *need = j->fits[m];
    }
    return true;
}

/* Steps that can run with step i, itself the first. */
static int collect(const struct joins *j, int64_t i, int64_t *found, struct join_member *m, expr *need)
{
    int n = 0;
    *need = EXPR_INVALID;
    if (!is_joinable(j, i) || cores_of(j, i) < 1)
        return 0;
    found[0] = i;
    add_member(j, m, &n, i);
    for (int64_t k = i + 1; k < j->n && k < i + REACH && n < MAX_JOINED && j->steps[k].kind == PS_LAUNCH; k++) {
        expr needs = *need;
        if (j->taken[k] || !may_move(j, i, k, &needs))
            continue;
        found[n] = k;
        add_member(j, m, &n, k);
        if (never_fits(j, end_of(j, m, n), cores_of(j, i)))
            n--;
        else
            *need = needs;
    }
    return n;
}

/* A source for all of them. */
static int32_t joint_source(const struct joins *j, const struct join_member *m, int n)
{
    struct plan *p = j->p;
    struct plan_source s = {0};
    int32_t total = 0;
    for (int i = 0; i < n; i++) {
        if (m[i].step->source < 0)
            return m[0].step->source;
        total += p->sources.data[m[i].step->source].n;
    }
    sym *nodes = ARENA_ARRAY(&p->arena, sym, total);
    for (int i = 0; i < n; i++) {
        const struct plan_source *own = &p->sources.data[m[i].step->source];
        for (int32_t k = 0; k < own->n; k++) {
            bool again = false;
            for (int32_t o = 0; o < s.n; o++)
                again = again || nodes[o] == own->nodes[k];
            if (!again)
                nodes[s.n++] = own->nodes[k];
        }
    }
    s.nodes = nodes;
    s.label = nodes[0];
    vec_push(&p->arena, &p->sources, s);
    return (int32_t)p->sources.len - 1;
}

/* Is the operator among those of "A+B+C"? */
static bool names(const char *all, const char *one, size_t len)
{
    while (*all) {
        const size_t n = strcspn(all, "+");
        if (n == len && strncmp(all, one, len) == 0)
            return true;
        all += n + (all[n] == '+');
    }
    return false;
}

/* The vendor's name of a region, the operator's of other steps. */
static sym vendor_label(const struct plan *p, const struct plan_step *s)
{
    const sym name = s->source >= 0 ? p->sources.data[s->source].fused_as : 0;
    return name ? name : s->op;
}

/* "RotaryEmbedding+CacheAppend", each operator once. */
static sym joint_label(const struct joins *j, const struct join_member *m, int n)
{
    const char *name = "";
    for (int i = 0; i < n; i++)
        for (const char *at = str_text(&j->p->strings, vendor_label(j->p, m[i].step)); *at; at += *at == '+') {
            const size_t len = strcspn(at, "+");
            if (!names(name, at, len))
                name = arena_printf(j->em->e.arena, "%s%s%.*s", name, *name ? "+" : "", (int)len, at);
            at += len;
        }
    return str_internz(&j->p->strings, name);
}

static bool push_joint(struct joins *j, const struct join_member *m, int n, expr guard)
{
    struct plan *p = j->p;
    const struct joint joint = join_kernels(&j->em->e, m, n);
    if (!joint.kernel)
        return false;
    struct plan_step s = *m[0].step;
    s.kernel = kernel_number(&j->em->e, joint.kernel);
    s.source = joint_source(j, m, n);
    s.op = joint_label(j, m, n);
    s.guard = guard;
    s.n_in = (int32_t)joint.kernel->tensors.len;
    s.tensors = arena_copy(&p->arena, joint.tensors, s.n_in * (int64_t)sizeof *s.tensors);
    s.n_params = joint.kernel->n_params;
    s.params = s.n_params ? arena_copy(&p->arena, joint.params, s.n_params * (int64_t)sizeof *s.params) : NULL;
    s.divided = s.copies > 0 ? arena_copy(&p->arena, joint.divided, s.n_in) : NULL;
    vec_push(j->em->e.arena, &j->out, s);
    return true;
}

/* When the first n of the members run as one: they fit, and what they need has been. */
static expr fits_of(const struct joins *j, const struct join_member *m, int n, int64_t i, expr need)
{
    struct expr_pool *x = &j->p->exprs;
    const expr end = end_of(j, m, n), cores = expr_const(x, cores_of(j, i)), one = expr_const(x, 1);
    const expr fits = expr_proves_le(x, end, cores) ? one : expr_cmp(x, EXPR_LE, end, cores);
    return need ? expr_mul(x, fits, need) : fits;
}

/* `guard` and not `cond`; guard itself where cond is EXPR_INVALID. */
static expr unless(const struct joins *j, expr guard, expr cond)
{
    struct expr_pool *x = &j->p->exprs;
    return cond ? expr_mul(x, guard, expr_cmp(x, EXPR_EQ, cond, expr_const(x, 0))) : guard;
}

/* Tries to join others with step i: all of them for sizes with which they fit, else as many of the first as do. Those
 * that are left out have a launch of their own. */
static void join(struct joins *j, int64_t i)
{
    struct expr_pool *x = &j->p->exprs;
    struct join_member m[MAX_JOINED];
    int64_t found[MAX_JOINED];
    expr need, fits[MAX_JOINED + 1], more = EXPR_INVALID;
    const int n = collect(j, i, found, m, &need);
    const expr kept = j->steps[i].guard, one = expr_const(x, 1), outer = kept ? kept : one;
    int least = n + 1; /* members of the smallest joint launch */
    for (int k = n; k > 1 && more != one; k--) {
        fits[k] = fits_of(j, m, k, i, need);
        const expr guard = fits[k] ? unless(j, expr_mul(x, outer, fits[k]), more) : EXPR_INVALID;
        if (!guard || !unless(j, outer, fits[k]) || (fits[k] != one && j->steps[i].copies > 0))
            break;
        if (!push_joint(j, m, k, guard == one ? EXPR_INVALID : guard))
            break;
        more = fits[k];
        least = k;
    }
    for (int k = 0; k < n && least <= n; k++) {
        const expr own = fits[k + 1 > least ? k + 1 : least];
        j->taken[found[k]] = true;
        j->fits[found[k]] = own == one ? EXPR_INVALID : own;
        j->without[found[k]] = own == one ? EXPR_INVALID : unless(j, outer, own);
    }
}

static void put_own(struct joins *j, int64_t i)
{
    struct plan_step own = j->steps[i];
    if (j->taken[i] && !j->without[i])
        return;
    if (j->taken[i])
        own.guard = j->without[i];
    vec_push(j->em->e.arena, &j->out, own);
}

/* Kernels that no step launches any more go, so that the others keep their order. */
static void drop_kernels(struct plan *p, struct arena *a)
{
    int32_t *number = ARENA_ARRAY(a, int32_t, p->kernels.len + 1), n = 0;
    for (int64_t i = 0; i < p->steps.len; i++)
        if (p->steps.data[i].kind == PS_LAUNCH)
            number[p->steps.data[i].kernel] = 1;
    for (int64_t i = 0; i < p->kernels.len; i++) {
        if (!number[i])
            continue;
        p->kernels.data[n] = p->kernels.data[i];
        number[i] = n++;
    }
    p->kernels.len = n;
    for (int64_t i = 0; i < p->steps.len; i++)
        if (p->steps.data[i].kind == PS_LAUNCH)
            p->steps.data[i].kernel = number[p->steps.data[i].kernel];
}

void emit_join(struct emitter *em)
{
    struct plan *p = em->e.plan;
    struct joins j = {.em = em, .p = p, .first = em->entry->first_step};
    j.n = p->steps.len - j.first;
    j.steps = arena_copy(em->e.arena, p->steps.data + j.first, j.n * (int64_t)sizeof *j.steps);
    j.taken = ARENA_ARRAY(em->e.arena, bool, j.n + 1);
    j.without = ARENA_ARRAY(em->e.arena, expr, j.n + 1);
    j.fits = ARENA_ARRAY(em->e.arena, expr, j.n + 1);
    for (int64_t i = 0, body = 0; i < j.n; i++) {
        const struct plan_step *s = &j.steps[i];
        if (body == 0 && !j.taken[i])
            join(&j, i);
        put_own(&j, i);
        body -= body > 0;
        if (body == 0 && plan_step_nests(s->kind))
            body = s->n_body[0] + s->n_body[1];
    }
    p->steps.len = j.first;
    for (int64_t i = 0; i < j.out.len; i++)
        vec_push(&p->arena, &p->steps, j.out.data[i]);
    drop_kernels(p, em->e.arena);
}
