/* Placement in global memory: no overlap of live items, alignment, peak near the bound, same result every time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plan/memory.h"

static uint32_t state_of_random = 1;

static int64_t random_below(int64_t n)
{
    state_of_random = state_of_random * 1664525U + 1013904223U;
    return (int64_t)(state_of_random >> 8) % n;
}

static void check_placement(const struct mem_item *items, int64_t n, int64_t align, struct mem_result r)
{
    for (int64_t i = 0; i < n; i++) {
        assert_true(items[i].offset >= 0 && items[i].offset % align == 0);
        assert_true(items[i].offset + items[i].size <= r.peak);
        for (int64_t j = 0; j < i; j++) {
            const bool time = items[i].first <= items[j].last && items[j].first <= items[i].last;
            const bool space =
                items[i].offset < items[j].offset + items[j].size && items[j].offset < items[i].offset + items[i].size;
            assert_false(time && space);
        }
    }
    assert_true(r.peak >= r.lower_bound);
}

static void test_random(void **state)
{
    (void)state;
    struct mem_item items[200], again[200];
    struct arena a;
    arena_init(&a, NULL);
    double ratio = 0;
    for (int round = 0; round < 60; round++) {
        const int64_t n = 1 + random_below(200);
        for (int64_t i = 0; i < n; i++) {
            const int32_t first = (int32_t)random_below(100);
            items[i] = (struct mem_item){
                .size = random_below(1000) * 64, .first = first, .last = first + (int32_t)random_below(6)};
        }
        memcpy(again, items, sizeof items);
        const struct mem_result r = mem_place(items, n, 512, &a);
        check_placement(items, n, 512, r);
        assert_true(mem_place(again, n, 512, &a).peak == r.peak);
        for (int64_t i = 0; i < n; i++)
            assert_true(items[i].offset == again[i].offset);
        ratio += r.lower_bound ? (double)r.peak / (double)r.lower_bound : 1;
    }
    assert_true(ratio / 60 < 1.05);
    arena_free(&a);
}

/* The shape of a transformer: a residual that lives long, wide activations that live for one step. */
static void test_layers(void **state)
{
    (void)state;
    struct mem_item items[400];
    struct arena a;
    arena_init(&a, NULL);
    int64_t n = 0;
    for (int32_t layer = 0; layer < 32; layer++) {
        const int32_t s = layer * 8;
        items[n++] = (struct mem_item){.size = 4096, .first = s, .last = s + 8};
        items[n++] = (struct mem_item){.size = 4096, .first = s, .last = s + 1};
        items[n++] = (struct mem_item){.size = 12288, .first = s + 1, .last = s + 3};
        items[n++] = (struct mem_item){.size = 32768, .first = s + 2, .last = s + 3};
        items[n++] = (struct mem_item){.size = 4096, .first = s + 3, .last = s + 5};
        items[n++] = (struct mem_item){.size = 22016, .first = s + 5, .last = s + 7};
        items[n++] = (struct mem_item){.size = 11008, .first = s + 6, .last = s + 7};
    }
    const struct mem_result r = mem_place(items, n, 512, &a);
    check_placement(items, n, 512, r);
    assert_true((double)r.peak <= 1.05 * (double)r.lower_bound);
    arena_free(&a);
}

static void test_edges(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, NULL);
    assert_true(mem_place(NULL, 0, 64, &a).peak == 0);
    struct mem_item none = {.size = 0, .first = 0, .last = 3};
    assert_true(mem_place(&none, 1, 64, &a).peak == 0);
    struct mem_item two[2] = {{.size = 10, .first = 0, .last = 1}, {.size = 10, .first = 2, .last = 2}};
    assert_true(mem_place(two, 2, 64, &a).peak == 10);
    two[1].first = 1;
    assert_true(mem_place(two, 2, 64, &a).peak == 74);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
