/* Arenas, arrays and maps: alignment, marks, failing allocators, growth. */
#include "unit.h"

#include "base/map.h"
#include "base/size.h"
#include "base/spill.h"
#include "base/vec.h"

#include <stdlib.h>
#include <string.h>

struct counter {
    int64_t live, left; /* bytes allocated; allocations until failure */
};

static void *counted_alloc(void *user, size_t size)
{
    struct counter *c = user;
    if (c->left-- <= 0)
        return NULL;
    c->live += (int64_t)size;
    return malloc(size);
}

static void counted_free(void *user, void *p, size_t size)
{
    struct counter *c = user;
    c->live -= (int64_t)size;
    free(p);
}

static void allocates_aligned(void **state)
{
    (void)state;
    struct arena a;
    unit_arena(&a);
    for (int64_t align = 1; align <= 4096; align *= 2) {
        char *p = arena_alloc(&a, 3, align);
        assert_int_equal((uintptr_t)p % (uintptr_t)align, 0);
        memset(p, 1, 3);
    }
    int64_t *zero = ARENA_ARRAY(&a, int64_t, 100000);
    for (int i = 0; i < 100000; i += 999)
        assert_int_equal(zero[i], 0);
    assert_string_equal(arena_printf(&a, "%s-%d", "x", 7), "x-7");
    assert_string_equal(arena_strndup(&a, "abc", 2), "ab");
    assert_memory_equal(arena_copy(&a, "abc", 3), "abc", 3);
    assert_non_null(arena_alloc(&a, 0, 1));
    arena_free(&a);
    assert_int_equal(a.used, 0);
    assert_true(a.peak >= 800000);
}

static void releases_to_mark(void **state)
{
    (void)state;
    struct counter c = {.left = 1000};
    const struct alloc_hooks hooks = {counted_alloc, counted_free, &c};
    struct arena a;
    arena_init(&a, &hooks);
    char *kept = arena_strndup(&a, "kept", 4);
    const struct arena_mark m = arena_mark(&a);
    const int64_t live = c.live, used = a.used;
    for (int i = 0; i < 100; i++)
        assert_non_null(arena_zalloc(&a, 10000));
    arena_release(&a, m);
    assert_int_equal(c.live, live);
    assert_int_equal(a.used, used);
    assert_string_equal(kept, "kept");
    assert_non_null(arena_zalloc(&a, 100));
    arena_free(&a);
    assert_int_equal(c.live, 0);
}

static void returns_null_without_memory(void **state)
{
    (void)state;
    struct counter c = {.left = 1};
    const struct alloc_hooks hooks = {counted_alloc, counted_free, &c};
    struct arena a;
    arena_init(&a, &hooks);
    assert_non_null(arena_zalloc(&a, 16));
    assert_null(arena_zalloc(&a, 1 << 20));
    assert_null(arena_alloc(&a, -1, 1));
    assert_null(arena_alloc(&a, INT64_MAX, 64));
    assert_null(arena_array(&a, INT64_MAX / 2, 3));
    assert_null(arena_strndup(&a, "", INT64_MAX));
    int64_t cap = 0;
    assert_null(vec_grow(&a, NULL, 0, &cap, INT64_MAX / 2));
    arena_free(&a);
    assert_int_equal(c.live, 0);
}

/* Large blocks in files, and in memory where no file can be made. */
static void spills_large_blocks(void **state)
{
    (void)state;
    enum { LARGE = 9 << 20 };
    const char *const folders[] = {"/nonexistent", NULL};
    const char *before = getenv("TMPDIR");
    char *kept = before ? strdup(before) : NULL;
    for (int i = 0; i < 2; i++) {
        struct arena a;
        assert_int_equal(folders[i] ? setenv("TMPDIR", folders[i], 1) : unsetenv("TMPDIR"), 0);
        arena_init(&a, &spill_hooks);
        char *small = arena_zalloc(&a, 100);
        const struct arena_mark m = arena_mark(&a);
        char *large = arena_zalloc(&a, LARGE);
        assert_non_null(large);
        for (int64_t at = 0; at < LARGE; at += 4096)
            assert_int_equal(large[at], 0);
        memset(large, i + 1, LARGE);
        assert_int_equal(large[LARGE - 1], i + 1);
        assert_int_equal(small[99], 0);
        arena_release(&a, m);
        large = arena_zalloc(&a, 2 * LARGE);
        assert_int_equal(large[2 * LARGE - 1], 0);
        arena_free(&a);
    }
    assert_int_equal(kept ? setenv("TMPDIR", kept, 1) : unsetenv("TMPDIR"), 0);
    free(kept);
}

static void jump_out(void *user)
{
    longjmp(*(jmp_buf *)user, 1);
}

static void calls_on_oom(void **state)
{
    (void)state;
    struct counter c = {.left = 0};
    const struct alloc_hooks hooks = {counted_alloc, counted_free, &c};
    struct arena a;
    jmp_buf out;
    arena_init(&a, &hooks);
    a.on_oom = jump_out;
    a.oom_user = &out;
    if (!setjmp(out)) {
        (void)arena_zalloc(&a, 1);
        fail();
    }
    arena_free(&a);
}

static void grows_arrays(void **state)
{
    (void)state;
    struct arena a;
    unit_arena(&a);
    VEC(int) v = {0}, w = {0};
    for (int i = 0; i < 5000; i++) {
        vec_push(&a, &v, i);
        if (i % 3 == 0)
            vec_push(&a, &w, -i);
    }
    for (int i = 0; i < 5000; i++)
        assert_int_equal(v.data[i], i);
    for (int i = 0; i < w.len; i++)
        assert_int_equal(w.data[i], -3 * i);
    arena_free(&a);
}

static void maps_keys(void **state)
{
    (void)state;
    struct arena a;
    struct map m;
    unit_arena(&a);
    map_init(&m, &a);
    assert_null(map_find(&m, 0));
    for (uint64_t i = 0; i < 3000; i++)
        map_put(&m, i * 0x100000000u, i);
    map_put(&m, 0, 77);
    assert_int_equal(m.len, 3000);
    for (uint64_t i = 0; i < 3000; i++) {
        assert_int_equal(*map_find(&m, i * 0x100000000u), i ? i : 77);
        assert_int_equal(m.entries[i].key, i * 0x100000000u);
    }
    assert_null(map_find(&m, 5));
    assert_int_equal(map_hash_bytes("npuc", 4), map_hash_bytes("npuc", 4));
    arena_free(&a);
}

static void checks_sizes(void **state)
{
    (void)state;
    int64_t r;
    assert_true(size_mul(3, 4, &r));
    assert_int_equal(r, 12);
    assert_false(size_mul(-1, 0, &r));
    assert_false(size_mul(INT64_MAX / 2, 3, &r));
    assert_false(size_add(INT64_MAX, 1, &r));
    assert_false(size_add(5, -1, &r));
    assert_true(size_in(0, 0, 0));
    assert_true(size_in(4, 4, 8));
    assert_false(size_in(5, 4, 8));
    assert_false(size_in(INT64_MAX, 1, 8));
    assert_false(size_in(-1, 1, 8));
    assert_int_equal(size_align(17, 16), 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocates_aligned),
        cmocka_unit_test(releases_to_mark),
        cmocka_unit_test(returns_null_without_memory),
        cmocka_unit_test(spills_large_blocks),
        cmocka_unit_test(calls_on_oom),
        cmocka_unit_test(grows_arrays),
        cmocka_unit_test(maps_keys),
        cmocka_unit_test(checks_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
