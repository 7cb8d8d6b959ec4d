/* Growing arrays in an arena: VEC(int) v = {0}; vec_push(arena, &v, 3); v.data[0], v.len. */
#ifndef BASE_VEC_H
#define BASE_VEC_H

#include "base/arena.h"

#define VEC(T)                                                                                                         \
    struct {                                                                                                           \
        T *data;                                                                                                       \
        int64_t len, cap;                                                                                              \
    }

/* Room for one more element of `size` bytes; returns the (moved) data or NULL (arena without on_oom). */
void *vec_grow(struct arena *a, void *data, int64_t len, int64_t *cap, int64_t size);

#define vec_push(a, v, x)                                                                                              \
    do {                                                                                                               \
        if ((v)->len == (v)->cap)                                                                                      \
            (v)->data = vec_grow((a), (v)->data, (v)->len, &(v)->cap, (int64_t)sizeof *(v)->data);                     \
        (v)->data[(v)->len++] = (x);                                                                                   \
    } while (0)

#endif
