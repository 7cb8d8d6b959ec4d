/* Interning, and escaping of text from files. */
#include "unit.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

static void interns(void **state)
{
    (void)state;
    struct arena a;
    struct strtab t;
    unit_arena(&a);
    strtab_init(&t, &a);
    assert_int_equal(str_internz(&t, ""), 0);
    const sym x = str_internz(&t, "x"), nul = str_intern(&t, "x\0y", 3);
    assert_int_equal(str_intern(&t, "xyz", 1), x);
    assert_int_not_equal(x, nul);
    assert_int_equal(str_len(&t, nul), 3);
    assert_memory_equal(str_text(&t, nul), "x\0y", 4);
    for (int i = 0; i < 2000; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        const sym s = str_internz(&t, name);
        assert_int_equal(str_internz(&t, name), s);
        assert_string_equal(str_text(&t, s), name);
    }
    assert_int_equal(t.entries.len, 2003);
    arena_free(&a);
}

static const struct {
    const char *in, *out;
    int64_t max;
} escapes[] = {
    {"plain", "plain", 100},
    {"a\nb\t\x1b[0m", "a\\nb\\t\\x1b[0m", 100},
    {"it's \"q\" \\", "it\\'s \\\"q\\\" \\\\", 100},
    {"\xc3\xa9\xe4\xb8\xad", "\xc3\xa9\xe4\xb8\xad", 100},
    {"\xc3", "\\xc3", 100},
    {"\xc0\xaf\xed\xa0\x80", "\\xc0\\xaf\\xed\\xa0\\x80", 100},
    {"\xe2\x80\xae", "\\xe2\\x80\\xae", 100},
    {"\xc2\x9b", "\\xc2\\x9b", 100},
    {"\x7f", "\\x7f", 100},
    {"abcdefgh", "abcdefgh", 8},
    {"abcdefghi", "abcde...", 8},
    {"\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad", "\xe4\xb8\xad...", 8},
    {"\n\n\n\n\n", "\\n\\n...", 8},
};

static void escapes_text(void **state)
{
    (void)state;
    struct arena a;
    unit_arena(&a);
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++) {
        const char *in = escapes[i].in;
        assert_string_equal(str_escape(&a, in, (int64_t)strlen(in), escapes[i].max), escapes[i].out);
    }
    assert_string_equal(str_escape(&a, "\0x", 2, 100), "\\x00x");
    assert_string_equal(str_escape(&a, "", 0, 100), "");
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(interns), cmocka_unit_test(escapes_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
