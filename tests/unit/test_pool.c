/* Every item runs exactly once, on a worker in range, however many threads there are. */
#include "unit.h"

#include "base/pool.h"

#include <stdatomic.h>
#include <unistd.h>

enum { N_ITEMS = 1000 };

struct job {
    _Atomic int runs[N_ITEMS];
    int64_t per_worker[8];
    int threads;
};

static void run_item(void *arg, int64_t item, int worker)
{
    struct job *j = arg;
    if (worker >= 0 && worker < j->threads)
        j->per_worker[worker]++; /* no other thread has this worker number */
    atomic_fetch_add(&j->runs[item], 1);
}

static void check_items(bool short_jobs)
{
    for (int threads = 0; threads <= 5; threads++) {
        struct pool *p = pool_new(threads);
        assert_int_equal(pool_threads(p), threads > 1 ? threads : 1);
        for (int64_t n = 0; n <= N_ITEMS; n = n < 4 ? n + 1 : n * 3) {
            struct job j = {.threads = pool_threads(p)};
            (short_jobs ? pool_for_short : pool_for)(p, n, run_item, &j);
            int64_t sum = 0;
            for (int i = 0; i < 8; i++)
                sum += j.per_worker[i];
            assert_int_equal(sum, n);
            for (int64_t i = 0; i < N_ITEMS; i++)
                assert_int_equal(atomic_load(&j.runs[i]), i < n);
        }
        pool_free(p);
    }
}

static void runs_each_item_once(void **state)
{
    (void)state;
    check_items(false);
    check_items(true);
}

/* Jobs that follow each other faster than workers can join them, and workers that have gone to sleep. */
static void runs_many_jobs(void **state)
{
    (void)state;
    struct pool *p = pool_new(2);
    for (int i = 0; i < 20000; i++) {
        struct job j = {.threads = pool_threads(p)};
        if (i % 4000 == 0)
            usleep(2000);
        (i % 3 ? pool_for_short : pool_for)(p, 2 + i % 3, run_item, &j);
        assert_int_equal(j.per_worker[0] + j.per_worker[1], 2 + i % 3);
    }
    pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs_each_item_once), cmocka_unit_test(runs_many_jobs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
