/* Kernels of text: patterns, splitting, case, tokens. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "kernels/op.h"

static struct arena arena;

static struct k_string str(const char *s)
{
    return (struct k_string){s, (int64_t)strlen(s)};
}

static enum npuc_status match(const char *pattern, const char *s, bool *y)
{
    struct k_string text = str(s);
    const struct k_tensor x = {.dtype = DT_STRING, .data = &text, .size = sizeof text}, *in[] = {&x};
    const struct k_attr a = {.name = "pattern", .kind = K_ATTR_STRING, .len = (int64_t)strlen(pattern), .v.s = pattern};
    struct k_tensor out = {.data = y, .size = 1};
    struct k_call c = {.op = "RegexFullMatch",
                       .in = in,
                       .n_in = 1,
                       .out = &out,
                       .n_out = 1,
                       .attrs = &a,
                       .n_attrs = 1,
                       .arena = &arena};
    return k_op_regex_full_match(&c);
}

static void patterns(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool full;
    } rows[] = {
        {"a+b?", "aab", true},
        {"a+b?", "aabb", false},
        {"a|ab", "ab", true},
        {"[\\w.-]+", "a-b.c_9", true},
        {"[^a-c]+", "xyz", true},
        {"[^a-c]+", "xbz", false},
        {"\\d{2,3}", "12", true},
        {"\\d{2,3}", "1234", false},
        {"\\D\\S\\W", "a! ", true},
        {".", "\xc3\xa9", true},
        {".", "\n", false},
        {"(?s).", "\n", true},
        {"..", "\xc3\xa9", false},
        {"[^x]", "\xe2\x82\xac", true},
        {"\xc3\xa9+", "\xc3\xa9\xc3\xa9", true},
        {"[\xc3\xa9z]", "z", true},
        {"[\xc3\xa9z]", "\xc3\xa9", true},
        {"(?i)AbC", "aBc", true},
        {"(?:ab)*?c", "ababc", true},
        {"(?P<n>x)", "x", true},
        {"\\x41\\x{e9}", "A\xc3\xa9", true},
        {"[]a]+", "a]", true},
        {"[\\]\\^\\[-]+", "]^[-", true},
        {"[-^]+", "^-", true},
        {"x{,2}", "x{,2}", true},
        {"\\bfoo\\b", "foo", true},
        {"", "", true},
        {"[[:alpha:]]+", "abc", true},
        {"^a$", "a", true},
        {"(\\W|^)a", "a", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool y = !rows[i].full;
        if (match(rows[i].pattern, rows[i].text, &y) != NPUC_OK || y != rows[i].full)
            fail_msg("'%s' on '%s' is not %d", rows[i].pattern, rows[i].text, rows[i].full);
    }
}

static void bad_patterns(void **state)
{
    static const char *const rows[] = {"(",       ")",     "[a",    "*a",   "a**",     "\\1",
                                       "\\pL",    "(?m)a", "[z-a]", "\\xg", "a{5000}", "((a{900}){900}){900}",
                                       "[[:x:]]", "\\"};
    (void)state;
    bool y;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (match(rows[i], "a", &y) == NPUC_OK)
            fail_msg("'%s' was taken", rows[i]);
}

static void check_split(const char *s, const char *delimiter, int64_t most, const char *joined)
{
    struct k_string text = str(s);
    const struct k_tensor x = {.dtype = DT_STRING, .rank = 1, .dims = {1}, .data = &text, .size = sizeof text},
                          *in[] = {&x};
    const struct k_attr a[] = {
        {.name = "maxsplit", .kind = K_ATTR_INT, .v.i = most},
        {.name = "delimiter", .kind = K_ATTR_STRING, .len = (int64_t)strlen(delimiter), .v.s = delimiter}};
    struct k_tensor out[2] = {0};
    struct k_call c = {
        .op = "StringSplit", .in = in, .n_in = 1, .out = out, .n_out = 2, .attrs = a, .n_attrs = 2, .arena = &arena};
    assert_int_equal(k_op_string_split(&c), NPUC_OK);
    char got[200] = "";
    const struct k_string *y = out[0].data;
    for (int64_t i = 0; i < out[0].dims[1]; i++) {
        const size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "<%.*s>", (int)y[i].len, y[i].text);
    }
    assert_string_equal(got, joined);
}

static void splitting(void **state)
{
    (void)state;
    check_split("  a  b c ", "", -1, "<a><b><c>");
    check_split("  a  b c ", "", 1, "<a><b c >");
    check_split("  a ", "", 0, "<a >");
    check_split(" ", "", -1, "");
    check_split("a,,b,", ",", -1, "<a><><b><>");
    check_split("a,,b,", ",", 1, "<a><,b,>");
    check_split("", ",", -1, "<>");
    check_split("a--b-", "--", -1, "<a><b->");
}

static void check_case(const char *s, const char *action, const char *wanted)
{
    struct k_string text = str(s);
    const struct k_tensor x = {.dtype = DT_STRING, .rank = 1, .dims = {1}, .data = &text, .size = sizeof text},
                          *in[] = {&x};
    const struct k_attr a = {
        .name = "case_change_action", .kind = K_ATTR_STRING, .len = (int64_t)strlen(action), .v.s = action};
    struct k_tensor out = {0};
    struct k_call c = {.op = "StringNormalizer",
                       .in = in,
                       .n_in = 1,
                       .out = &out,
                       .n_out = 1,
                       .attrs = &a,
                       .n_attrs = 1,
                       .arena = &arena};
    assert_int_equal(k_op_string_normalizer(&c), NPUC_OK);
    assert_string_equal(((const struct k_string *)out.data)->text, wanted);
}

static void cases(void **state)
{
    (void)state;
    check_case("Mon\xc3\xa4y", "UPPER", "MON\xc3\x84Y");
    check_case("\xc5\xb9\xc4\x80\xc3\x97", "LOWER", "\xc5\xba\xc4\x81\xc3\x97");
    check_case("\xce\x91\xd0\xaf\xd0\x80", "LOWER", "\xce\xb1\xd1\x8f\xd1\x90");
    check_case("\xff\xc3", "UPPER", "\xff\xc3"); /* no UTF-8: left as it is */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns),
        cmocka_unit_test(bad_patterns),
        cmocka_unit_test(splitting),
        cmocka_unit_test(cases),
    };
    arena_init(&arena, NULL);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(&arena);
    return failed;
}
