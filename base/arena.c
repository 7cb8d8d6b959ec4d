/* Arena blocks double in size up to a limit; a large request gets a block of its own. Under ASan everything not
 * handed out is poisoned and a red zone follows each object. */
#include "base/arena.h"

#include "base/size.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_MIN = 1 << 14, BLOCK_MAX = 1 << 22, RED_ZONE = NPUC_ASAN ? 16 : 0 };

struct arena_block {
    struct arena_block *older;
    int64_t size; /* with this header */
    char *end;
    max_align_t data[];
};

static void *hook_alloc(const struct alloc_hooks *h, int64_t size)
{
    return h ? h->alloc(h->user, (size_t)size) : malloc((size_t)size);
}

static void block_free(const struct arena *a, struct arena_block *b)
{
    const size_t size = (size_t)b->size;
    NPUC_UNPOISON(b, size);
    if (a->hooks)
        a->hooks->free(a->hooks->user, b, size);
    else
        free(b);
}

static void *out_of_memory(struct arena *a)
{
    if (a->on_oom) {
        a->on_oom(a->oom_user);
        NPUC_ASSERT(!"on_oom returned");
    }
    return NULL;
}

static bool block_new(struct arena *a, int64_t need)
{
    int64_t size = a->head ? 2 * a->head->size : BLOCK_MIN;
    if (size > BLOCK_MAX)
        size = BLOCK_MAX;
    if (!size_add(need, (int64_t)sizeof(struct arena_block), &need))
        return false;
    if (size < need)
        size = need;
    struct arena_block *b = hook_alloc(a->hooks, size);
    if (!b)
        return false;
    b->older = a->head;
    b->size = size;
    b->end = (char *)b + size;
    a->head = b;
    a->next = (char *)b->data;
    a->end = b->end;
    NPUC_POISON(a->next, (size_t)(a->end - a->next));
    return true;
}

void arena_init(struct arena *a, const struct alloc_hooks *hooks)
{
    *a = (struct arena){.hooks = hooks};
}

void arena_free(struct arena *a)
{
    arena_release(a, (struct arena_mark){0});
}

static char *align_up(char *p, int64_t align)
{
    const uintptr_t rest = (uintptr_t)p & (uintptr_t)(align - 1);
    return rest ? p + (align - (int64_t)rest) : p;
}

void *arena_alloc(struct arena *a, int64_t size, int64_t align)
{
    NPUC_ASSERT(align > 0 && (align & (align - 1)) == 0);
    int64_t need;
    if (!size_add(size, align + RED_ZONE, &need))
        return out_of_memory(a);
    if (need > a->end - a->next && !block_new(a, need))
        return out_of_memory(a);
    char *p = align_up(a->next, align);
    NPUC_UNPOISON(p, (size_t)size);
    a->next = p + size + RED_ZONE;
    a->used += size;
    if (a->peak < a->used)
        a->peak = a->used;
    return p;
}

void *arena_zalloc(struct arena *a, int64_t size)
{
    void *p = arena_alloc(a, size, (int64_t) _Alignof(max_align_t));
    return p ? memset(p, 0, (size_t)size) : NULL;
}

void *arena_array(struct arena *a, int64_t elem_size, int64_t n)
{
    int64_t size;
    return size_mul(elem_size, n, &size) ? arena_zalloc(a, size) : out_of_memory(a);
}

void *arena_copy(struct arena *a, const void *p, int64_t size)
{
    void *to = arena_alloc(a, size, (int64_t) _Alignof(max_align_t));
    if (to && size > 0)
        memcpy(to, p, (size_t)size);
    return to;
}

char *arena_strndup(struct arena *a, const char *s, int64_t len)
{
    int64_t size;
    char *to = size_add(len, 1, &size) ? arena_alloc(a, size, 1) : out_of_memory(a);
    if (!to)
        return NULL;
    if (len > 0)
        memcpy(to, s, (size_t)len);
    to[len] = 0;
    return to;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *to = len >= 0 ? arena_alloc(a, (int64_t)len + 1, 1) : NULL;
    if (to)
        vsnprintf(to, (size_t)len + 1, fmt, again);
    va_end(again);
    return to;
}

struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){a->head, a->next, a->used};
}

void arena_release(struct arena *a, struct arena_mark m)
{
    while (a->head != m.head) {
        NPUC_ASSERT(a->head);
        struct arena_block *older = a->head->older;
        block_free(a, a->head);
        a->head = older;
    }
    a->next = m.next;
    a->end = a->head ? a->head->end : NULL;
    a->used = m.used;
    if (a->head)
        NPUC_POISON(a->next, (size_t)(a->end - a->next));
}
