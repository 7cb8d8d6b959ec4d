/* Threads: parallel work over independent items; the only place with locks. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/compiler.h"

struct pool;
/* Threads are started once; n_threads 1 (or failure to start) means everything runs in the caller. */
struct pool *pool_new(int n_threads);
void pool_free(struct pool *p);
int pool_threads(const struct pool *p); /* 1 for NULL */
int pool_processors(void);              /* of this machine; at least 1 */
/* fn(arg, item, worker) for item in [0, n); worker in [0, threads). Returns when all are done. Items are
 * handed out in ascending order. p == NULL runs serially. */
void pool_for(struct pool *p, int64_t n, void (*fn)(void *arg, int64_t item, int worker), void *arg);
/* The same for work that takes less time than waking a thread (about 20 us): threads that sleep are left asleep. */
void pool_for_short(struct pool *p, int64_t n, void (*fn)(void *arg, int64_t item, int worker), void *arg);

#endif
