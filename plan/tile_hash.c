/* Identity of a kernel by content: programs, buffers, tensors and expressions, but no names and no notes. Expressions
 * hash by structure, so the order in which a pool was filled does not matter. */
#include "plan/tile.h"

#include <string.h>

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v;
    h *= 0x9e3779b97f4a7c15U;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9U;
    return h ^ h >> 32;
}

/* Operands come before their users in a pool, so one pass is enough. Terms of sums and products commute. */
static uint64_t *hash_exprs(const struct expr_pool *p, struct arena *a)
{
    uint64_t *h = ARENA_ARRAY(a, uint64_t, p->nodes.len + 1);
    if (!h)
        return NULL;
    for (int64_t i = 1; i < p->nodes.len; i++) {
        const struct expr_node *n = &p->nodes.data[i];
        const bool commutes = n->op == EXPR_SUM || n->op == EXPR_PROD;
        uint64_t sum = 0;
        h[i] = mix(mix(0x6e707563, n->op), (uint64_t)n->value);
        for (int32_t j = 0; j < n->n; j++) {
            const uint64_t part = mix(h[n->arg[j]], n->op == EXPR_SUM ? (uint64_t)n->coef[j] : 1);
            if (commutes)
                sum += part;
            else
                h[i] = mix(h[i], part);
        }
        h[i] = mix(mix(h[i], sum), (uint64_t)n->n);
    }
    return h;
}

static uint64_t hash_section(uint64_t h, const struct tile_section *s, const uint64_t *exprs)
{
    for (int64_t i = 0; i < s->bufs.len; i++) {
        const struct tile_buf *b = &s->bufs.data[i];
        h = mix(mix(h, b->space), b->dtype);
        h = mix(mix(mix(h, (uint64_t)b->slots), (uint64_t)b->slot_size), (uint64_t)b->base);
    }
    for (int64_t i = 0; i < s->code.len; i++) {
        const struct tile_insn *in = &s->code.data[i];
        const struct tile_insn_info *row = &tile_insn_table[in->op];
        h = mix(h, in->op);
        for (int f = 0; f < row->n_fields; f++)
            h = mix(h, tile_arg_is_expr(in, f) ? exprs[in->arg[f]] : (uint64_t)(uint32_t)in->arg[f]);
    }
    return h;
}

uint64_t tile_kernel_hash(const struct tile_kernel *k)
{
    struct arena scratch;
    arena_init(&scratch, k->exprs.arena->hooks);
    scratch.on_oom = k->exprs.arena->on_oom;
    scratch.oom_user = k->exprs.arena->oom_user;
    const uint64_t *exprs = hash_exprs(&k->exprs, &scratch);
    uint64_t h = mix((uint64_t)k->n_params, (uint64_t)k->exprs.symbols.len);
    if (exprs) {
        h = mix(h, k->blocks ? exprs[k->blocks] : 0);
        for (int64_t i = 0; i < k->tensors.len; i++) {
            const struct tile_tensor *t = &k->tensors.data[i];
            h = mix(h, (uint64_t)t->dtype << 2 | (uint64_t)t->is_input << 1 | (uint64_t)t->is_output);
            h = mix(h, t->bypass ? exprs[t->bypass] : 0);
        }
        for (int c = 0; c < TCORE_COUNT; c++)
            if (k->has[c])
                h = hash_section(mix(h, (uint64_t)c + 1), &k->section[c], exprs);
    }
    arena_free(&scratch);
    return h;
}
