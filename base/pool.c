/* Workers sleep until a job is posted, then take items from one atomic counter; the caller works as worker 0. */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct worker {
    struct pool *pool;
    pthread_t thread;
    int number;
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t posted, finished;
    /* under the lock */
    uint64_t generation; /* of the job; a worker takes part in each one once */
    int n_busy;          /* workers that have not left the job */
    bool leaving;
    /* constant during a job */
    int64_t n_items;
    void (*fn)(void *arg, int64_t item, int worker);
    void *arg;
    _Atomic int64_t next;

    int n_threads; /* the caller included */
    struct worker workers[];
};

static void take_items(struct pool *p, int worker)
{
    for (;;) {
        const int64_t item = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (item >= p->n_items)
            return;
        p->fn(p->arg, item, worker);
    }
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    struct pool *p = w->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->generation == seen && !p->leaving)
            pthread_cond_wait(&p->posted, &p->lock);
        if (p->leaving)
            break;
        seen = p->generation;
        pthread_mutex_unlock(&p->lock);
        take_items(p, w->number);
        pthread_mutex_lock(&p->lock);
        if (--p->n_busy == 0)
            pthread_cond_signal(&p->finished);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct pool *pool_new(int n_threads)
{
    if (n_threads <= 1)
        return NULL;
    struct pool *p = calloc(1, sizeof *p + (size_t)n_threads * sizeof p->workers[0]);
    if (!p)
        return NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->posted, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->n_threads = 1;
    for (int i = 1; i < n_threads; i++) {
        struct worker *w = &p->workers[i];
        *w = (struct worker){.pool = p, .number = i};
        if (pthread_create(&w->thread, NULL, worker_main, w))
            break;
        p->n_threads++;
    }
    return p;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->leaving = true;
    pthread_cond_broadcast(&p->posted);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->n_threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->posted);
    pthread_cond_destroy(&p->finished);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int pool_threads(const struct pool *p)
{
    return p ? p->n_threads : 1;
}

void pool_for(struct pool *p, int64_t n, void (*fn)(void *arg, int64_t item, int worker), void *arg)
{
    if (!p || p->n_threads == 1 || n <= 1) {
        for (int64_t i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->n_items = n;
    p->fn = fn;
    p->arg = arg;
    atomic_store(&p->next, 0);
    p->n_busy = p->n_threads - 1;
    p->generation++;
    pthread_cond_broadcast(&p->posted);
    pthread_mutex_unlock(&p->lock);
    take_items(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->n_busy)
        pthread_cond_wait(&p->finished, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
