/* Plan files: round trip, one encoding, and refusal of every damaged or forged file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "plan/format.h"
#include "plan_sample.h"

static char path[64], other[64], message[2048];

static void keep(void *user, const char *line)
{
    (void)user;
    snprintf(message, sizeof message, "%s", line);
}

static struct diag sink(void)
{
    struct diag d;
    message[0] = 0;
    diag_init(&d, keep, NULL);
    return d;
}

static uint8_t *load(const char *name, int64_t *size)
{
    FILE *f = fopen(name, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = ftell(f);
    rewind(f);
    uint8_t *p = malloc((size_t)*size + 1);
    assert_int_equal(fread(p, 1, (size_t)*size, f), (size_t)*size);
    fclose(f);
    return p;
}

static void save(const char *name, const uint8_t *p, int64_t size)
{
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, (size_t)size, f), (size_t)size);
    fclose(f);
}

static enum npuc_status try_read(const char *name)
{
    struct diag d = sink();
    struct plan p;
    plan_init(&p);
    const enum npuc_status s = plan_read(&p, name, &d);
    plan_free(&p);
    return s;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct diag d = sink();
    struct plan p, q;
    struct arena a;
    arena_init(&a, NULL);
    sample_plan(&p, &d);
    assert_int_equal(plan_write(&p, path, &sample_weights, &d), NPUC_OK);
    plan_init(&q);
    if (plan_read(&q, path, &d))
        fail_msg("%s", message);
    assert_string_equal(plan_text(&p, "all", &a), plan_text(&q, "all", &a));
    assert_null(plan_text(&p, "nothing", &a));
    assert_int_equal(q.weights_size, 1024);
    assert_int_equal(q.weights[501], (uint8_t)(501 * 7 + 1));
    assert_true(tile_kernel_hash(p.kernels.data[0]) == tile_kernel_hash(q.kernels.data[0]));
    assert_int_equal(q.steps.data[1].attrs[0].v.ints[0], 1);
    assert_int_equal(q.steps.data[1].attrs[2].len, 4);
    /* what was read is written to the same bytes, and so is the plan once more */
    int64_t n, m;
    uint8_t *one = load(path, &n);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(plan_write(round ? &p : &q, other, &sample_weights, &d), NPUC_OK);
        uint8_t *two = load(other, &m);
        assert_true(n == m && memcmp(one, two, (size_t)n) == 0);
        free(two);
    }
    free(one);
    plan_free(&q);
    plan_free(&p);
    arena_free(&a);
}

static void write_sample(void)
{
    struct diag d = sink();
    struct plan p;
    sample_plan(&p, &d);
    assert_int_equal(plan_write(&p, path, &sample_weights, &d), NPUC_OK);
    plan_free(&p);
}

static void test_every_byte(void **state)
{
    (void)state;
    int64_t n;
    write_sample();
    uint8_t *good = load(path, &n);
    save(other, good, n);
    FILE *f = fopen(other, "r+b");
    int64_t zeros = 0;
    for (int64_t i = 0; i < n; i++) {
        zeros = good[i] ? 0 : zeros + 1;
        if (zeros > 64 && i % 61 != 0)
            continue; /* padding before the weights: a sample is enough */
        const uint8_t bad = (uint8_t)(good[i] ^ 1 << i % 8);
        fseek(f, (long)i, SEEK_SET);
        fwrite(&bad, 1, 1, f);
        fflush(f);
        if (try_read(other) == NPUC_OK)
            fail_msg("byte %lld can be changed", (long long)i);
        fseek(f, (long)i, SEEK_SET);
        fwrite(&good[i], 1, 1, f);
    }
    fclose(f);
    assert_int_equal(try_read(other), NPUC_OK);
    free(good);
}

static void test_lengths(void **state)
{
    (void)state;
    int64_t n;
    write_sample();
    uint8_t *good = load(path, &n);
    good = realloc(good, (size_t)n + 1);
    good[n] = 0;
    for (int64_t cut = 0; cut < n; cut += cut < 1000 ? 37 : 1009) {
        save(other, good, cut);
        assert_true(try_read(other) != NPUC_OK);
    }
    save(other, good, n + 1);
    assert_int_equal(try_read(other), NPUC_E_INVALID);
    assert_non_null(strstr(message, "bytes, its header says"));
    save(other, (const uint8_t *)"hello", 5);
    assert_int_equal(try_read(other), NPUC_E_INVALID);
    assert_non_null(strstr(message, "not a plan file"));
    good[PLAN_AT_VERSION] = 9;
    save(other, good, n);
    assert_int_equal(try_read(other), NPUC_E_INCOMPATIBLE);
    assert_non_null(strstr(message, "format version 9"));
    free(good);
}

/* ---- forged files: an attacker recomputes the checksums --------------------------------------------------- */

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void fix_sums(uint8_t *b, int64_t n)
{
    uint8_t *table = b + PLAN_HEADER_SIZE;
    for (int s = 0; s < PLAN_N_SECTIONS; s++) {
        uint8_t *e = table + s * PLAN_TABLE_ENTRY_SIZE;
        const uint64_t off = get64(e + 8), len = get64(e + 16);
        if (s + 1 != PSEC_WEIGHTS && off <= (uint64_t)n && len <= (uint64_t)n - off)
            put64(e + 24, map_hash_bytes(b + off, (int64_t)len));
    }
    put64(b + PLAN_AT_TABLE_HASH, map_hash_bytes(table, PLAN_N_SECTIONS * PLAN_TABLE_ENTRY_SIZE));
    put64(b + PLAN_AT_HEADER_HASH, map_hash_bytes(b, PLAN_AT_HEADER_HASH));
}

static void test_forged(void **state)
{
    (void)state;
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
    int64_t n, accepted = 0, refused = 0;
    write_sample();
    uint8_t *good = load(path, &n), *bad = malloc((size_t)n);
    const int64_t end = (int64_t)get64(good + PLAN_HEADER_SIZE + (PSEC_WEIGHTS - 1) * PLAN_TABLE_ENTRY_SIZE + 8);
    int64_t last = end;
    while (last > 0 && good[last - 1] == 0)
        last--;
    for (int64_t i = PLAN_AT_VERSION; i < last; i++) {
        memcpy(bad, good, (size_t)n);
        bad[i] = i % 3 ? values[i % 5] : (uint8_t)(good[i] + 1);
        fix_sums(bad, n);
        save(other, bad, n);
        if (try_read(other) == NPUC_OK)
            accepted++;
        else
            refused++;
    }
    assert_true(refused > accepted / 4);
    free(bad);
    free(good);
}

int main(void)
{
    snprintf(path, sizeof path, "plan-test-%d.plan", (int)getpid());
    snprintf(other, sizeof other, "plan-test-%d.other", (int)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_forged),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove(path);
    remove(other);
    return failed;
}
