/* Target files: every machine that is compiled in, units, inheritance, snapshots, and each error with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "targets/target.h"

static char lines[4096];

static void keep(void *user, const char *line)
{
    (void)user;
    strncat(lines, line, sizeof lines - strlen(lines) - 2);
    strcat(lines, "\n");
}

static struct diag sink(void)
{
    struct diag d;
    lines[0] = 0;
    diag_init(&d, keep, NULL);
    return d;
}

static void test_all_load(void **state)
{
    (void)state;
    const char *const *ids;
    const int n = target_list(&ids);
    assert_true(n >= 7);
    for (int i = 0; i < n; i++) {
        struct diag d = sink();
        struct target t;
        assert_int_equal(target_load(&t, ids[i], &d), NPUC_OK);
        assert_string_equal(lines, "");
        assert_true(target_num(&t, TK_CLOCK) > 5e8);
        for (int k = 0; k < TK_COUNT; k++)
            assert_true(!t.value[k].set || t.value[k].source);
        target_free(&t);
    }
}

static void test_values(void **state)
{
    (void)state;
    struct diag d = sink();
    struct target t;
    assert_int_equal(target_load(&t, "ascend-910b1", &d), NPUC_OK);
    assert_string_equal(t.name, "Ascend 910B1");
    assert_string_equal(t.family, "ascend");
    assert_true(target_num(&t, TK_CLOCK) == 1.85e9);
    assert_true(target_num(&t, TK_L1_SIZE) == 524288);
    assert_true(target_num(&t, TK_HBM_BANDWIDTH) == 1.52e12);
    assert_true(target_num(&t, TK_LINK_PAIR) != target_num(&t, TK_LINK_PAIR)); /* absent: NAN */
    assert_string_equal(t.value[TK_L1_SIZE].file, "ascend-2201.target");
    assert_int_equal(t.value[TK_HBM_BANDWIDTH].confidence, TGT_DERIVED);
    target_free(&t);
}

static void test_inherited_override(void **state)
{
    (void)state;
    struct diag d = sink();
    struct target t;
    assert_int_equal(target_load(&t, "ascend-950pr", &d), NPUC_OK);
    assert_true(target_num(&t, TK_MAC_F32) == 256);
    assert_true(target_num(&t, TK_MAC_F16) == 4096);
    target_free(&t);
}

static void test_set(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"hbm.bandwidth", "--set hbm.bandwidth: expected KEY=VALUE"},
        {"hbm.width=3", "--set hbm.width=3: no such key"},
        {"hbm.bandwidth=1.8", "expected a unit like B/s, found unit ''"},
        {"hbm.bandwidth=1.8 GHz", "found unit 'GHz'"},
        {"hbm.bandwidth=fast", "expected a number in B/s, found 'fast'"},
        {"hbm.bandwidth=-1 B/s", "expected a value from"},
        {"hbm.bandwidth=1e30 B/s", "expected a value from"},
        {"hbm.bandwidth=inf B/s", "expected a number"},
        {"clock=0 Hz", "expected a value from"},
        {"cores.cube=1.5", "expected a whole number, found '1.5'"},
    };
    struct diag d = sink();
    struct target t;
    assert_int_equal(target_load(&t, "ascend-910b1", &d), NPUC_OK);
    assert_int_equal(target_set(&t, "hbm.bandwidth=1.8TB/s", &d), NPUC_OK);
    assert_true(target_num(&t, TK_HBM_BANDWIDTH) == 1.8e12);
    assert_int_equal(target_set(&t, "launch=0 us", &d), NPUC_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        d = sink();
        assert_int_equal(target_set(&t, bad[i].text, &d), NPUC_E_USAGE);
        assert_non_null(strstr(lines, bad[i].message));
    }
    target_free(&t);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"inherit = ascend-2201.target\nname = X\n", "key 'clock' is missing (core clock)"},
        {"inherit = nowhere.target\n",
         "x.target: error E0702: key 'inherit': there is no target file 'nowhere.target'"},
        {"name = X\ninherit = ascend-2201.target\n",
         "x.target:2: error E0702: key 'inherit': expected before every other key"},
        {"inherit = ascend-910b1.target\nclock 5 GHz\n", "x.target:2: error E0702: expected 'key = value'"},
        {"inherit = ascend-910b1.target\n\nclok = 5 GHz\n", "x.target:3: error E0702: key 'clok': no such key"},
        {"inherit = ascend-910b1.target\nclock = 5 GHz # vendor\n", "key 'clock': expected '# source: text (spec |"},
        {"inherit = ascend-910b1.target\nclock = 5 GHz # source: x (sure)\n", "key 'clock': expected '# source:"},
        {"inherit = ascend-910b1.target\nclock = 5 GB # source: x (spec)\n",
         "key 'clock': expected a unit like Hz, found unit 'GB'"},
        {"inherit = ascend-910b1.target\nflag = 5 cycle # source: x (spec)\nflag = 6 cycle # source: x (spec)\n",
         "x.target:3: error E0702: key 'flag': given twice in this file"},
        {"inherit = ascend-910b1.target\nname = \n", "key 'name': is empty"},
        {"inherit = ascend-910b1.target\nname = A\nname = B\n", "key 'name': given twice"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct diag d = sink();
        struct target t;
        assert_int_equal(target_read(&t, "x", bad[i].text, &d), NPUC_E_INVALID);
        if (!strstr(lines, bad[i].message))
            fail_msg("case %d: '%s' not in: %s", (int)i, bad[i].message, lines);
    }
    struct diag d = sink();
    struct target t;
    assert_int_equal(target_load(&t, "ascend-910b9", &d), NPUC_E_USAGE);
    assert_non_null(strstr(lines, "there is no target 'ascend-910b9'; known: ascend-310p3, ascend-910b1"));
    assert_int_equal(target_load(&t, "ascend-2201", &d), NPUC_E_USAGE); /* a family is no chip */
}

static void test_snapshot(void **state)
{
    (void)state;
    struct diag d = sink();
    struct target t, back;
    struct arena a;
    arena_init(&a, NULL);
    assert_int_equal(target_load(&t, "ascend-310p3", &d), NPUC_OK);
    const char *const *keys, *const *values;
    const int64_t n = target_to_pairs(&t, &a, &keys, &values);
    assert_int_equal(target_from_pairs(&back, "ascend-310p3", n, keys, values, &d), NPUC_OK);
    for (int k = 0; k < TK_COUNT; k++) {
        assert_int_equal(back.value[k].set, t.value[k].set);
        assert_true(!t.value[k].set || back.value[k].number == t.value[k].number);
    }
    assert_string_equal(back.name, t.name);
    target_free(&back);
    /* without name, family and arch, which is required */
    assert_int_equal(target_from_pairs(&back, "x", n - 3, keys + 3, values + 3, &d), NPUC_E_INVALID);
    static const char *const key[] = {"clock"};
    static const char *const zero[] = {"0 Hz"};
    assert_int_equal(target_from_pairs(&back, "x", 1, key, zero, &d), NPUC_E_INVALID);
    target_free(&t);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_load), cmocka_unit_test(test_values), cmocka_unit_test(test_inherited_override),
        cmocka_unit_test(test_set),      cmocka_unit_test(test_errors), cmocka_unit_test(test_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
