/* The bounded scan: what it keeps, drops and refuses. */
#include "frontend/scan.h"

#include "frontend/onnx.pb-c.h"
#include "tests/unit/onnx_unit.h"

static char last[1024];

static void keep(void *user, const char *line)
{
    (void)user;
    strncpy(last, line, sizeof last - 1);
}

static struct arena arena;

static enum npuc_status scan(const struct pb *b, enum scan_msg root, int64_t budget, struct scan_skeleton *out)
{
    struct diag d;
    diag_init(&d, keep, NULL);
    last[0] = 0;
    const struct scan_limits limits = {SCAN_MAX_DEPTH, budget};
    return scan_message(b->data, (int64_t)b->len, root, &limits, &arena, &d, "m.onnx", out);
}

static void refused(const struct pb *b, enum scan_msg root, const char *word)
{
    struct scan_skeleton sk;
    assert_int_not_equal(scan(b, root, 1 << 20, &sk), NPUC_OK);
    assert_non_null(strstr(last, "m.onnx"));
    assert_non_null(strstr(last, word));
}

static Onnx__TensorProto *tensor(const struct pb *b)
{
    struct scan_skeleton sk;
    assert_int_equal(scan(b, SCAN_TENSOR, 1 << 20, &sk), NPUC_OK);
    Onnx__TensorProto *t = onnx__tensor_proto__unpack(NULL, (size_t)sk.size, sk.data);
    assert_non_null(t);
    return t;
}

static void test_raw_data_stays(void **state)
{
    (void)state;
    const int64_t dims[] = {2, 3};
    static const uint8_t raw[24] = {1, 2, 3};
    const struct pb b = pb_tensor("w", 1, dims, 2, raw, sizeof raw);
    Onnx__TensorProto *t = tensor(&b);
    assert_int_equal(t->raw_size, 24);
    assert_memory_equal(b.data + t->raw_offset, raw, 24);
    assert_int_equal(t->n_dims, 2);
    onnx__tensor_proto__free_unpacked(t, NULL);
}

static void test_packed_or_not(void **state)
{
    (void)state;
    struct pb packed = {.len = 0}, single = {.len = 0};
    const uint8_t dims[] = {3, 0x80, 1, 5}, f[] = {0, 0, 0x80, 0x3f, 0, 0, 0, 0x40};
    pb_bytes(&packed, 1, dims, sizeof dims);
    pb_bytes(&packed, 4, f, sizeof f);
    for (int i = 0; i < 3; i++)
        pb_int(&single, 1, (const int64_t[]){3, 128, 5}[i]);
    pb_f32(&single, 4, 1);
    pb_f32(&single, 4, 2);
    const struct pb *const both[] = {&packed, &single};
    for (int i = 0; i < 2; i++) {
        Onnx__TensorProto *t = tensor(both[i]);
        assert_int_equal(t->n_dims, 3);
        assert_int_equal(t->dims[1], 128);
        assert_int_equal(t->n_float_data, 2);
        assert_true(t->float_data[1] == 2.0f);
        onnx__tensor_proto__free_unpacked(t, NULL);
    }
}

static void test_drops_unknown(void **state)
{
    (void)state;
    struct pb b = {.len = 0};
    pb_text(&b, 8, "w");
    pb_int(&b, 8, 7);            /* a known number with another wire type */
    pb_text(&b, 12, "doc");      /* not declared */
    pb_int(&b, 100000, 1 << 20); /* what only the scan may write */
    pb_f32(&b, 99, 1);
    Onnx__TensorProto *t = tensor(&b);
    assert_int_equal(t->name.len, 1);
    assert_false(t->has_raw_offset);
    assert_int_equal(t->base.n_unknown_fields, 0);
    onnx__tensor_proto__free_unpacked(t, NULL);
}

static void test_refuses_broken_wire(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *word;
    } cases[] = {
        {"\x08", 1, "truncated varint"},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, "64 bits"},
        {"\x00\x00", 2, "field number 0"},
        {"\x3a\x05\x0a", 3, "past the end"},
        {"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "past the end"},
        {"\x0b\x0c", 2, "wire type 3"},
        {"\x0e", 1, "wire type 6"},
        {"\x0f", 1, "wire type 7"},
        {"\x3a\x00\x3a\x00", 4, "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pb b = {.len = 0};
        pb_raw(&b, cases[i].bytes, cases[i].len);
        refused(&b, SCAN_MODEL, cases[i].word);
    }
}

static void test_refuses_bad_packing(void **state)
{
    (void)state;
    struct pb odd = {.len = 0}, cut = {.len = 0};
    pb_bytes(&odd, 4, "\0\0\0", 3);
    pb_bytes(&cut, 1, "\x01\x80", 2);
    refused(&odd, SCAN_TENSOR, "no multiple");
    refused(&cut, SCAN_TENSOR, "truncated varint");
}

/* A model whose graph nests `levels` graphs: graph > node > attribute > graph ... */
static struct pb nested(int levels)
{
    static const unsigned fields[] = {6, 5, 1}; /* of attribute, node, graph */
    struct pb at = {.len = 0}, model = {.len = 0};
    for (int i = 0; i < 3 * levels; i++) {
        struct pb outer = {.len = 0};
        pb_sub(&outer, fields[i % 3], &at);
        at = outer;
    }
    pb_sub(&model, 7, &at);
    return model;
}

static void test_bounds_depth(void **state)
{
    (void)state;
    const int most = (SCAN_MAX_DEPTH - 2) / 3; /* behind the model and its graph */
    const struct pb ok = nested(most), bad = nested(most + 1);
    struct scan_skeleton sk;
    assert_int_equal(scan(&ok, SCAN_MODEL, 1 << 20, &sk), NPUC_OK);
    refused(&bad, SCAN_MODEL, "too deep");
}

static void test_bounds_memory_and_names(void **state)
{
    (void)state;
    struct pb graph = {.len = 0};
    for (int i = 0; i < 4000; i++)
        pb_raw(&graph, "\x0a\x00", 2); /* an empty node */
    struct scan_skeleton sk;
    assert_int_equal(scan(&graph, SCAN_GRAPH, 100000, &sk), NPUC_E_LIMIT);
    assert_non_null(strstr(last, "node"));
    static uint8_t name[SCAN_MAX_NAME + 8];
    memset(name, 'n', sizeof name);
    name[0] = 0x1a;
    name[1] = 0x81, name[2] = 0x80, name[3] = 0x04; /* a node name of 65,537 bytes */
    struct diag d;
    diag_init(&d, keep, NULL);
    const struct scan_limits limits = {SCAN_MAX_DEPTH, 1 << 20};
    assert_int_equal(scan_message(name, SCAN_MAX_NAME + 5, SCAN_NODE, &limits, &arena, &d, "m.onnx", &sk),
                     NPUC_E_LIMIT);
    assert_non_null(strstr(last, "name"));
}

/* Whatever is cut off or flipped, the scan ends with a status and never reads past the end (sanitizer builds see it).
 */
static void test_survives_damage(void **state)
{
    (void)state;
    const struct pb node = pb_node("Relu", "", "x", "y"), x = pb_value("x", 1, "N 4"), y = pb_value("y", 1, "N 4");
    struct pb graph = {.len = 0};
    pb_sub(&graph, 1, &node);
    pb_sub(&graph, 11, &x);
    pb_sub(&graph, 12, &y);
    const struct pb model = pb_model(&graph, 17);
    struct scan_skeleton sk;
    uint64_t seed = 1;
    for (int i = 0; i < 4000; i++) {
        struct pb b = model;
        b.len = i % 2 ? b.len : (size_t)(unit_random(&seed) % b.len);
        for (int k = 0; k < i % 4 && b.len; k++)
            b.data[unit_random(&seed) % b.len] ^= (uint8_t)(1u << unit_random(&seed) % 8);
        const struct arena_mark m = arena_mark(&arena);
        if (scan(&b, SCAN_MODEL, 1 << 20, &sk) == NPUC_OK) {
            Onnx__ModelProto *p = onnx__model_proto__unpack(NULL, (size_t)sk.size, sk.data);
            assert_non_null(p); /* a skeleton always unpacks */
            onnx__model_proto__free_unpacked(p, NULL);
        }
        arena_release(&arena, m);
    }
}

int main(void)
{
    unit_arena(&arena);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw_data_stays),          cmocka_unit_test(test_packed_or_not),
        cmocka_unit_test(test_drops_unknown),           cmocka_unit_test(test_refuses_broken_wire),
        cmocka_unit_test(test_refuses_bad_packing),     cmocka_unit_test(test_bounds_depth),
        cmocka_unit_test(test_bounds_memory_and_names), cmocka_unit_test(test_survives_damage),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(&arena);
    return failed;
}
