/* Maps, atomic writing and path containment, in a folder of their own. */
#include "unit.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static char last[2048];

static void keep(void *user, const char *line)
{
    (void)user;
    snprintf(last, sizeof last, "%s", line);
}

static const char *in_folder(const char *name)
{
    static char path[8][256];
    static int turn;
    turn = (turn + 1) % 8;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.40s/npuc-file-XXXXXX", base ? base : P_tmpdir);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"out", "link", "hard", "fifo", "sub/w", "sub", "w", "big"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)remove(in_folder(names[i]));
    return rmdir(folder); /* fails when a temporary file was left */
}

static void put_file(const char *name, const char *text)
{
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void writes_atomically(void **state)
{
    (void)state;
    struct diag d;
    struct file_writer w;
    struct file_map m;
    diag_init(&d, keep, NULL);
    put_file("out", "old");
    assert_int_equal(file_writer_open(&w, in_folder("out"), &d), NPUC_OK);
    file_writer_put(&w, "abc", 3);
    file_writer_pad(&w, 16);
    file_writer_put(&w, "z", 1);
    file_writer_patch(&w, 1, "BC", 2);
    assert_int_equal(w.pos, 17);
    assert_int_equal(file_map_open(&m, in_folder("out"), &d), NPUC_OK);
    assert_int_equal(m.size, 3);
    file_map_close(&m);
    assert_int_equal(file_writer_commit(&w, &d), NPUC_OK);
    assert_int_equal(file_map_open(&m, in_folder("out"), &d), NPUC_OK);
    assert_int_equal(m.size, 17);
    assert_memory_equal(m.data, "aBC\0\0\0\0\0\0\0\0\0\0\0\0\0z", 17);
    file_map_close(&m);
    file_writer_abort(&w);
}

static void writes_large_files(void **state)
{
    (void)state;
    struct diag d;
    struct file_writer w;
    struct file_map m;
    diag_init(&d, keep, NULL);
    const int64_t size = 3 << 20;
    char *block = calloc(1, (size_t)size);
    assert_non_null(block);
    assert_int_equal(file_writer_open(&w, in_folder("big"), &d), NPUC_OK);
    file_writer_put(&w, "head", 4);
    file_writer_put(&w, block, size);
    file_writer_pad(&w, 65536);
    file_writer_put(&w, "tail", 4);
    file_writer_patch(&w, 0, "HEAD", 4);
    file_writer_patch(&w, w.pos - 4, "T", 1);
    assert_int_equal(file_writer_commit(&w, &d), NPUC_OK);
    assert_int_equal(file_map_open(&m, in_folder("big"), &d), NPUC_OK);
    assert_int_equal(m.size, size + 65536 + 4);
    assert_memory_equal(m.data, "HEAD", 4);
    file_map_drop(&m, 0, m.size);
    assert_memory_equal(m.data + m.size - 4, "Tail", 4);
    file_map_close(&m);
    free(block);
}

static void leaves_nothing_on_abort(void **state)
{
    (void)state;
    struct diag d;
    struct file_writer w[20];
    diag_init(&d, keep, NULL);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(file_writer_open(&w[i], in_folder("w"), &d), NPUC_OK);
        file_writer_put(&w[i], "x", 1);
    }
    file_writer_abort_all();
    assert_int_equal(file_writer_commit(&w[0], &d), NPUC_E_IO);
    for (int i = 0; i < 20; i++)
        file_writer_abort(&w[i]);
    assert_int_not_equal(access(in_folder("w"), F_OK), 0);
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    struct diag d;
    struct file_map m;
    struct file_writer w;
    diag_init(&d, keep, NULL);
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_int_equal(file_map_open(&m, in_folder("fifo"), &d), NPUC_E_IO);
    assert_non_null(strstr(last, "not a regular file"));
    assert_int_equal(file_map_open(&m, folder, &d), NPUC_E_IO);
    assert_non_null(strstr(last, "it is a directory, expected a file"));
    assert_int_equal(file_map_open(&m, in_folder("none"), &d), NPUC_E_IO);
    assert_non_null(strstr(last, "error E0101: cannot open: No such file"));
    assert_int_equal(file_writer_open(&w, folder, &d), NPUC_E_IO);
    file_writer_abort(&w);
    assert_int_equal(file_writer_open(&w, "/dev/null", &d), NPUC_E_IO);
    assert_int_equal(file_writer_open(&w, in_folder("none/x"), &d), NPUC_E_IO);
    assert_int_equal(file_writer_open(&w, "", &d), NPUC_E_IO);
}

static void writes_through_links(void **state)
{
    (void)state;
    struct diag d;
    struct file_writer w;
    struct stat st;
    diag_init(&d, keep, NULL);
    put_file("w", "old");
    assert_int_equal(chmod(in_folder("w"), 0640), 0);
    assert_int_equal(symlink("w", in_folder("link")), 0);
    assert_int_equal(file_writer_open(&w, in_folder("link"), &d), NPUC_OK);
    file_writer_put(&w, "newer", 5);
    assert_int_equal(file_writer_commit(&w, &d), NPUC_OK);
    assert_int_equal(lstat(in_folder("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(in_folder("w"), &st), 0);
    assert_int_equal(st.st_size, 5);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void contains_paths(void **state)
{
    (void)state;
    struct arena a;
    unit_arena(&a);
    char model[256];
    const char *why;
    snprintf(model, sizeof model, "%s", in_folder("m.onnx"));
    assert_int_equal(mkdir(in_folder("sub"), 0700), 0);
    put_file("sub/w", "x");
    assert_int_equal(link(in_folder("sub/w"), in_folder("hard")), 0);
    assert_int_equal(unlink(in_folder("hard")), 0);
    assert_string_equal(file_contained(&a, model, "sub/w", &why), in_folder("sub/w"));
    assert_string_equal(file_contained(&a, model, "absent", &why), in_folder("absent"));
    assert_string_equal(file_contained(&a, "m.onnx", "./w.bin", &why), "./w.bin");
    static const char *const refused[] = {"",       "/etc/passwd", "..",   "../x", "sub/../../x",
                                          "sub/..", ".",           "sub/", "link"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_null(file_contained(&a, model, refused[i], &why));
        assert_non_null(why);
    }
    assert_int_equal(link(in_folder("sub/w"), in_folder("hard")), 0);
    assert_null(file_contained(&a, model, "sub/w", &why));
    assert_int_equal(unlink(in_folder("link")), 0);
    assert_int_equal(symlink("sub", in_folder("link")), 0);
    assert_null(file_contained(&a, model, "link/w", &why));
    assert_non_null(strstr(why, "symbolic link"));
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_atomically),       cmocka_unit_test(writes_large_files),
        cmocka_unit_test(leaves_nothing_on_abort), cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(writes_through_links),    cmocka_unit_test(contains_paths),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
