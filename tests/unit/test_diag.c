/* Wording, counting and escaping of diagnostics. */
#include "unit.h"

#include "base/diag.h"

#include <stdio.h>
#include <string.h>

static char last[4096];
static int n_lines;

static void keep(void *user, const char *line)
{
    (void)user;
    snprintf(last, sizeof last, "%s", line);
    n_lines++;
}

static void names_the_place(void **state)
{
    (void)state;
    struct diag d;
    diag_init(&d, keep, NULL);
    const struct diag_loc node = {"bad.onnx", "conv2", "Conv", 47};
    assert_int_equal(diag_error(&d, &node, D_SHAPE_MISMATCH, "no"), NPUC_E_INVALID);
    assert_string_equal(last, "bad.onnx: node 'conv2' (Conv, #47): error E0203: no");
    diag_note(&d, "see %d", 3);
    assert_string_equal(last, "  note: see 3");
    (void)diag_error(&d, &(struct diag_loc){"m", NULL, "Add", 2}, D_UNDEFINED_VALUE, "x");
    assert_string_equal(last,
                        "m: node (Add, #2): error E0206: input 'x' is not defined by any node, input or initializer");
    (void)diag_error(&d, &(struct diag_loc){"m", "w", NULL, -1}, D_MODEL, "no");
    assert_string_equal(last, "m: 'w': error E0201: no");
    (void)diag_error(&d, NULL, D_WIRE, 12LL, "cut");
    assert_string_equal(last, "error E0104: broken protobuf at byte 12: cut");
    assert_int_equal(diag_error(&d, NULL, D_MODEL_WARNING, "hm"), NPUC_OK);
    assert_string_equal(last, "warning W1001: hm");
    assert_int_equal(d.n_errors, 4);
    assert_int_equal(d.n_warnings, 1);
    assert_int_equal(d.first, NPUC_E_INVALID);
    assert_int_equal(diag_error(NULL, NULL, D_FILE_OPEN, "x"), NPUC_E_IO);
}

static void stops_printing(void **state)
{
    (void)state;
    struct diag d;
    diag_init(&d, keep, NULL);
    n_lines = 0;
    for (int i = 0; i < 50; i++) {
        (void)diag_error(&d, NULL, D_LIMIT, "again");
        diag_note(&d, "note");
    }
    assert_int_equal(n_lines, 40);
    assert_int_equal(d.n_errors, 50);
    assert_int_equal(d.first, NPUC_E_LIMIT);
}

static void escapes_and_cuts(void **state)
{
    (void)state;
    struct diag d;
    static char text[5000];
    diag_init(&d, keep, NULL);
    (void)diag_error(&d, &(struct diag_loc){"a\nb", NULL, NULL, -1}, D_MODEL, "x\x1b[31m");
    assert_string_equal(last, "a\\nb: error E0201: x\\x1b[31m");
    memset(text, 'y', sizeof text - 1);
    (void)diag_error(&d, NULL, D_MODEL, text);
    assert_int_equal(strlen(last), 1000);
    assert_string_equal(last + 997, "...");
}

static void codes(void **state)
{
    (void)state;
    assert_string_equal(diag_code_text(D_SHAPE_MISMATCH), "E0203");
    assert_int_equal(diag_exit_code(NPUC_OK), 0);
    assert_int_equal(diag_exit_code(NPUC_E_UNSUPPORTED), 4);
    assert_int_equal(diag_exit_code(NPUC_E_NOMEM), 5);
    assert_int_equal(diag_exit_code(NPUC_E_INTERNAL), 70);
    assert_int_equal(diag_exit_code(NPUC_E_CANCELLED), 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_the_place), cmocka_unit_test(stops_printing),
                                       cmocka_unit_test(escapes_and_cuts), cmocka_unit_test(codes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
