#include "passes/product_names.h"

#include <inttypes.h>

/* Who has a name: sym -> its struct loc, which what passes make of a node has, too. */
static void take_name(struct pass_ctx *px, struct node *n, struct map *owners)
{
    const sym first = n->loc->names[0];
    sym name = first;
    const uint64_t *owner;
    for (int64_t k = 2; (owner = map_find(owners, name)) != NULL; k++) {
        if (*owner == (uint64_t)(uintptr_t)n->loc)
            return;
        name = str_internz(&px->cx->strings,
                           arena_printf(&px->arena, "%s#%" PRId64, str_text(&px->cx->strings, first), k));
    }
    if (name != first) {
        struct loc *own = ARENA_NEW(&px->m->arena, struct loc);
        *own = *n->loc;
        own->names = ARENA_ARRAY(&px->m->arena, sym, own->n);
        for (int32_t i = 0; i < own->n; i++)
            own->names[i] = i == 0 ? name : n->loc->names[i];
        n->loc = own;
    }
    map_put(owners, name, (uint64_t)(uintptr_t)n->loc);
}

static void walk(struct pass_ctx *px, struct graph *g, struct map *owners)
{
    for_each_node (n, g) {
        if ((op_table[n->op]->traits & T_MAC) && n->loc && n->loc->n > 0)
            take_name(px, n, owners);
        for_each_region(r, n) walk(px, r, owners);
    }
}

void product_names(struct pass_ctx *px)
{
    struct map owners;
    map_init(&owners, &px->arena);
    for (int64_t i = 0; i < px->m->funcs.len; i++)
        walk(px, px->m->funcs.data[i], &owners);
}
