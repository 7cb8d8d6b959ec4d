/* Arenas: memory belongs to a phase, nobody frees an object. A released arena is poisoned under ASan.
 *
 * Out of memory: when `on_oom` is set it is called and must not return (the compiler's one longjmp);
 * otherwise the allocation returns NULL (the runtime library). */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/compiler.h"

struct alloc_hooks {
    void *(*alloc)(void *user, size_t size);
    void (*free)(void *user, void *p, size_t size);
    void *user;
};

struct arena_block;
struct arena {
    struct arena_block *head;        /* newest block */
    char *next, *end;                /* free range of the newest block */
    const struct alloc_hooks *hooks; /* NULL: malloc and free */
    void (*on_oom)(void *user);      /* see above; may be NULL */
    void *oom_user;
    int64_t used, peak; /* bytes handed out; highest value */
};
struct arena_mark {
    struct arena_block *head;
    char *next;
    int64_t used;
};

void arena_init(struct arena *a, const struct alloc_hooks *hooks);
void arena_free(struct arena *a); /* release everything; the arena may be used again */
void *arena_alloc(struct arena *a, int64_t size, int64_t align);
void *arena_zalloc(struct arena *a, int64_t size); /* zeroed, aligned for any object */
void *arena_copy(struct arena *a, const void *p, int64_t size);
char *arena_strndup(struct arena *a, const char *s, int64_t len);
char *arena_printf(struct arena *a, const char *fmt, ...) NPUC_PRINTF(2, 3);
struct arena_mark arena_mark(const struct arena *a);
void arena_release(struct arena *a, struct arena_mark m); /* drop all that was allocated after the mark */

#define ARENA_NEW(a, T)      ((T *)arena_zalloc((a), (int64_t)sizeof(T)))
#define ARENA_ARRAY(a, T, n) ((T *)arena_array((a), (int64_t)sizeof(T), (n)))
void *arena_array(struct arena *a, int64_t elem_size, int64_t n); /* zeroed; overflow counts as out of memory */

#endif
