/* Import: hand-made models become the expected core operators, or are refused with the right words. */
#include "frontend/onnx.h"

#include <stdio.h>
#include <unistd.h>

#include "ir/text.h"
#include "tests/unit/onnx_unit.h"

#define FILE_NAME "test_import.tmp.onnx"

static char messages[4096];
static char ops[2048]; /* operators of the imported function, constants left out */
static char result_type[256];

static void keep(void *user, const char *line)
{
    (void)user;
    strncat(messages, line, sizeof messages - strlen(messages) - 2);
    strcat(messages, "\n");
}

static void write_model(const struct pb *m)
{
    FILE *f = fopen(FILE_NAME, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(m->data, 1, m->len, f), m->len);
    fclose(f);
}

static void describe(struct ir_ctx *cx, const struct module *m)
{
    const struct graph *g = m->funcs.data[0];
    for_each_node (n, g)
        if (n->op != OP_Constant && n->op != OP_Yield) {
            strncat(ops, *ops ? " " : "", 2);
            strncat(ops, op_table[n->op]->name, 64);
        }
    strncpy(result_type, type_text(cx, graph_yield(g)->in[0].value->type), sizeof result_type - 1);
}

static enum npuc_status import_with(const struct pb *m, const struct onnx_options *o)
{
    messages[0] = ops[0] = result_type[0] = 0;
    write_model(m);
    struct diag d;
    diag_init(&d, keep, NULL);
    struct ir_ctx cx;
    ir_ctx_init(&cx, NULL, &d);
    struct onnx_model *model;
    struct module *module;
    enum npuc_status s = onnx_import(&cx, FILE_NAME, o, &model, &module);
    if (s == NPUC_OK) {
        s = ir_verify(module, "import");
        describe(&cx, module);
        ir_module_free(module);
    }
    onnx_close(model);
    ir_ctx_free(&cx);
    unlink(FILE_NAME);
    return s;
}

static enum npuc_status import(const struct pb *m, bool allow_missing)
{
    return import_with(m, &(struct onnx_options){.allow_missing_data = allow_missing});
}

/* Inputs x (f32 [N, 4]) and, when given, others; one result y; the nodes in `nodes`. */
struct model {
    struct pb graph;
    int opset;
};

static struct model model_new(int opset)
{
    struct model m = {.opset = opset};
    const struct pb x = pb_value("x", 1, "N 4"), y = pb_value("y", 1, NULL);
    pb_sub(&m.graph, 11, &x);
    pb_sub(&m.graph, 12, &y);
    return m;
}

static void add(struct model *m, struct pb node)
{
    pb_sub(&m->graph, 1, &node);
}

static enum npuc_status run(const struct model *m)
{
    const struct pb b = pb_model(&m->graph, m->opset);
    return import(&b, false);
}

static void expect(const struct model *m, const char *want_ops, const char *want_type)
{
    if (run(m) != NPUC_OK)
        fail_msg("%s", messages);
    assert_string_equal(ops, want_ops);
    assert_string_equal(result_type, want_type);
}

static void refused(const struct model *m, enum npuc_status s, const char *word)
{
    assert_int_equal(run(m), s);
    assert_non_null(strstr(messages, FILE_NAME));
    if (!strstr(messages, word))
        fail_msg("no '%s' in: %s", word, messages);
}

static void test_sorts_and_names(void **state)
{
    (void)state;
    struct model m = model_new(17);
    add(&m, pb_node("Relu", "", "a", "y"));
    add(&m, pb_node("Neg", "", "x", "a"));
    expect(&m, "Neg Relu", "f32[N,4]");
    assert_non_null(strstr(messages, "W1001"));
    struct model pass = model_new(17);
    add(&pass, pb_node("Dropout", "", "x", "y mask")); /* nothing reads the mask */
    expect(&pass, "Identity", "f32[N,4]");
}

static void test_refuses_bad_graphs(void **state)
{
    (void)state;
    struct model cycle = model_new(17), undefined = model_new(17), twice = model_new(17), none = model_new(17),
                 arity = model_new(17);
    add(&cycle, pb_node("Add", "", "x y", "y"));
    refused(&cycle, NPUC_E_INVALID, "cycle");
    add(&undefined, pb_node("Add", "", "x nowhere", "y"));
    refused(&undefined, NPUC_E_INVALID, "nowhere");
    add(&twice, pb_node("Relu", "", "x", "y"));
    add(&twice, pb_node("Neg", "", "x", "y"));
    refused(&twice, NPUC_E_INVALID, "already defined");
    add(&none, pb_node("Relu", "", "x", "z"));
    refused(&none, NPUC_E_INVALID, "produced by no node");
    add(&arity, pb_node("Add", "", "x -", "y"));
    refused(&arity, NPUC_E_INVALID, "input 1 is empty");
}

static void test_reports_all_unknown(void **state)
{
    (void)state;
    struct model m = model_new(17);
    add(&m, pb_node("Nope", "", "x", "a"));
    add(&m, pb_node("Nope", "", "a", "b"));
    add(&m, pb_node("Other", "my.domain", "b", "y"));
    refused(&m, NPUC_E_UNSUPPORTED, "Nope of domain ai.onnx is not supported (2 nodes)");
    assert_non_null(strstr(messages, "Other of domain my.domain"));
    struct model inner = model_new(17), young = model_new(13);
    add(&inner, pb_node("SizeOf", "npuc", "", "y"));
    refused(&inner, NPUC_E_UNSUPPORTED, "SizeOf");
    add(&young, pb_node("LayerNormalization", "", "x x", "y"));
    refused(&young, NPUC_E_INVALID, "introduced in opset 17");
}

/* A survey goes on behind what it cannot import; what follows from an unknown type is not judged. */
static void test_survey(void **state)
{
    (void)state;
    const struct onnx_options survey = {.survey = true};
    struct model m = model_new(17);
    struct pb alpha = pb_node("LeakyRelu", "", "x", "c");
    pb_attr_ints(&alpha, "alpha", (const int64_t[]){1}, 1);
    const struct pb note = pb_value("a", 1, "N 4");
    pb_sub(&m.graph, 13, &note);
    add(&m, pb_node("Nope", "", "x", "a")); /* typed by the note */
    add(&m, pb_node("Relu", "", "a", "b"));
    add(&m, alpha);
    add(&m, pb_node("Softmax", "", "c", "d")); /* reads an unknown type */
    add(&m, pb_node("Add", "", "b nowhere", "e"));
    add(&m, pb_node("Sum", "", "b d e", "y"));
    const struct pb file = pb_model(&m.graph, 17);
    assert_int_equal(import_with(&file, &survey), NPUC_OK);
    assert_string_equal(ops, "Unsupported Relu Unsupported Unsupported Unsupported Unsupported");
    assert_non_null(strstr(messages, "Nope of domain ai.onnx is not supported"));
    assert_non_null(strstr(messages, "alpha"));
    assert_non_null(strstr(messages, "nowhere"));
    assert_null(strstr(messages, "Softmax"));
    assert_int_equal(import(&file, false), NPUC_E_UNSUPPORTED);
}

static void test_attributes(void **state)
{
    (void)state;
    struct model wrong = model_new(17), twice = model_new(17), unknown = model_new(17), missing = model_new(17);
    struct pb n = pb_node("LeakyRelu", "", "x", "y");
    pb_attr_ints(&n, "alpha", (const int64_t[]){1}, 1);
    add(&wrong, n);
    refused(&wrong, NPUC_E_INVALID, "alpha");
    n = pb_node("LeakyRelu", "", "x", "y");
    pb_attr_float(&n, "alpha", 0.5f);
    pb_attr_float(&n, "alpha", 0.25f);
    add(&twice, n);
    refused(&twice, NPUC_E_INVALID, "twice");
    n = pb_node("Relu", "", "x", "y");
    pb_attr_int(&n, "colour", 3);
    add(&unknown, n);
    refused(&unknown, NPUC_E_INVALID, "colour");
    add(&missing, pb_node("Cast", "", "x", "y"));
    refused(&missing, NPUC_E_INVALID, "'to'");
}

static void test_old_opsets(void **state)
{
    (void)state;
    struct model squeeze = model_new(11), softmax = model_new(11), clip = model_new(6), split = model_new(11);
    struct pb n = pb_node("Unsqueeze", "", "x", "y");
    pb_attr_ints(&n, "axes", (const int64_t[]){0, 2}, 2);
    add(&squeeze, n);
    expect(&squeeze, "Unsqueeze", "f32[1,N,1,4]");
    n = pb_node("Softmax", "", "x", "y");
    pb_attr_int(&n, "axis", 0);
    add(&softmax, n);
    assert_int_equal(run(&softmax), NPUC_OK);
    assert_non_null(strstr(ops, "Reshape"));
    assert_string_equal(result_type, "f32[N,4]");
    n = pb_node("Clip", "", "x", "y");
    pb_attr_float(&n, "min", 0);
    add(&clip, n);
    expect(&clip, "Max", "f32[N,4]");
    n = pb_node("Split", "", "x", "y z");
    pb_attr_int(&n, "axis", 1);
    add(&split, n);
    expect(&split, "Split", "f32[N,2]");
}

/* Nodes that become plainer ones by the types of their inputs. */
static void test_plainer(void **state)
{
    (void)state;
    struct model like = model_new(21), mask = model_new(25);
    const struct pb half = pb_value("h", 10, "N 4"), row = pb_value("m", 9, "S"), k = pb_value("k", 1, "1 1 S 4"),
                    q = pb_value("q", 1, "1 1 T 4");
    pb_sub(&like.graph, 11, &half);
    add(&like, pb_node("CastLike", "", "x h", "c"));
    add(&like, pb_node("CastLike", "", "c x", "y"));
    expect(&like, "Cast Cast", "f32[N,4]");
    pb_sub(&mask.graph, 11, &q);
    pb_sub(&mask.graph, 11, &k);
    pb_sub(&mask.graph, 11, &row);
    add(&mask, pb_node("Attention", "", "q k k m", "y"));
    expect(&mask, "Unsqueeze Attention", "f32[1,1,T,4]");
}

static void test_dialects(void **state)
{
    (void)state;
    struct model skip = model_new(17), pairs = model_new(17), quick = model_new(17), packed = model_new(17);
    const int64_t four = 4;
    const float ones[] = {1, 1, 1, 1};
    const struct pb w = pb_tensor("w", 1, &four, 1, ones, sizeof ones);
    pb_sub(&skip.graph, 5, &w);
    add(&skip, pb_node("SkipSimplifiedLayerNormalization", "com.microsoft", "x x w", "n - - s"));
    add(&skip, pb_node("SimplifiedLayerNormalization", "", "s w", "m"));
    add(&skip, pb_node("Add", "", "n m", "y"));
    expect(&skip, "Add RMSNormalization RMSNormalization Add", "f32[N,4]");
    add(&pairs, pb_node("Max", "", "x x x", "y"));
    expect(&pairs, "Max Max", "f32[N,4]");
    add(&quick, pb_node("QuickGelu", "com.microsoft", "x", "y"));
    expect(&quick, "Swish", "f32[N,4]");
    struct pb n = pb_node("MatMulNBits", "com.microsoft", "x x x", "y");
    pb_attr_int(&n, "weight_prepacked", 1);
    add(&packed, n);
    refused(&packed, NPUC_E_UNSUPPORTED, "weight_prepacked");
}

/* my.Scaled(a) {alpha} = LeakyRelu(a) with the caller's alpha, or 0.5. */
static struct pb function_model(bool recursive)
{
    struct pb f = {.len = 0}, ref = {.len = 0}, domain = {.len = 0}, standard = {.len = 0};
    pb_text(&f, 1, "Scaled");
    pb_text(&f, 4, "a");
    pb_text(&f, 5, "b");
    struct pb n = recursive ? pb_node("Scaled", "my", "a", "b") : pb_node("LeakyRelu", "", "a", "b");
    if (!recursive) {
        pb_text(&ref, 1, "alpha");
        pb_text(&ref, 21, "slope");
        pb_int(&ref, 20, 1);
        pb_sub(&n, 5, &ref);
    }
    pb_sub(&f, 7, &n);
    pb_int(&standard, 2, 17);
    pb_text(&domain, 1, "my");
    pb_int(&domain, 2, 1);
    pb_sub(&f, 9, &standard);
    pb_sub(&f, 9, &domain);
    pb_text(&f, 10, "my");
    struct model m = model_new(17);
    n = pb_node("Scaled", "my", "x", "t");
    pb_attr_float(&n, "slope", 0.125f);
    add(&m, n);
    add(&m, pb_node("Scaled", "my", "t", "y"));
    struct pb b = pb_model(&m.graph, 17);
    pb_sub(&b, 8, &domain);
    pb_sub(&b, 25, &f);
    return b;
}

static void test_functions(void **state)
{
    (void)state;
    const struct pb good = function_model(false), bad = function_model(true);
    assert_int_equal(import(&good, false), NPUC_OK);
    assert_string_equal(ops, "LeakyRelu LeakyRelu");
    assert_int_equal(import(&bad, false), NPUC_E_INVALID);
    assert_non_null(strstr(messages, "calls itself"));
}

static void test_subgraph_capture(void **state)
{
    (void)state;
    struct model m = model_new(17);
    const struct pb c = pb_value("c", 9, ""), out = pb_value("t", 1, NULL);
    pb_sub(&m.graph, 11, &c);
    struct pb branch = {.len = 0};
    const struct pb neg = pb_node("Neg", "", "a", "t");
    pb_sub(&branch, 1, &neg);
    pb_sub(&branch, 12, &out);
    struct pb n = pb_node("If", "", "c", "y");
    pb_attr_graph(&n, "then_branch", &branch);
    pb_attr_graph(&n, "else_branch", &branch);
    add(&m, n);
    add(&m, pb_node("Relu", "", "x", "a")); /* captured, and defined behind the If */
    expect(&m, "Relu If", "f32[N,4]");
}

static struct pb one_tensor(const struct pb *t)
{
    struct pb graph = {.len = 0};
    const struct pb y = pb_value("y", 1, NULL), n = pb_node("Identity", "", "t", "y");
    pb_sub(&graph, 5, t);
    pb_sub(&graph, 1, &n);
    pb_sub(&graph, 12, &y);
    return pb_model(&graph, 21);
}

static void check_tensor(const struct pb *t, enum npuc_status want, const char *word)
{
    const struct pb m = one_tensor(t);
    assert_int_equal(import(&m, false), want);
    if (word && !strstr(messages, word))
        fail_msg("no '%s' in: %s", word, messages);
}

static void test_tensors(void **state)
{
    (void)state;
    const int64_t three = 3, wrap[] = {4194305, 4194305, 211106198978564}, minus = -1;
    struct pb t = pb_tensor("t", 22, &three, 1, "\x21\x03", 2);
    check_tensor(&t, NPUC_OK, NULL); /* three 4-bit elements in two bytes */
    t = pb_tensor("t", 1, &three, 1, "12345678901", 11);
    check_tensor(&t, NPUC_E_INVALID, "need 12");
    t = pb_tensor("t", 1, wrap, 3, "1234", 4);
    check_tensor(&t, NPUC_E_INVALID, "overflows");
    t = pb_tensor("t", 1, &minus, 1, "", 0);
    check_tensor(&t, NPUC_E_INVALID, "dim 0 is -1");
    t = pb_tensor("t", 99, &three, 1, "", 0);
    check_tensor(&t, NPUC_E_INVALID, "data_type is 99");
    t = pb_tensor("t", 27, &three, 1, NULL, 0); /* 6-bit elements, one entry each */
    for (int i = 0; i < 3; i++)
        pb_int(&t, 5, 33 + i);
    check_tensor(&t, NPUC_OK, NULL);
    t = pb_tensor("t", 1, &three, 1, NULL, 0);
    pb_int(&t, 7, 1);
    check_tensor(&t, NPUC_E_INVALID, "'t'");
}

static void test_external(void **state)
{
    (void)state;
    static const struct {
        const char *location;
        const char *word;
    } cases[] = {{"../secret", "refused"},
                 {"/etc/hostname", "refused"},
                 {"test_import.none", "does not exist"},
                 {"", "no location"}};
    const int64_t three = 3;
    struct pb t = {.len = 0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pb entry = {.len = 0};
        t = pb_tensor("t", 1, &three, 1, NULL, 0);
        pb_text(&entry, 1, "location");
        pb_text(&entry, 2, cases[i].location);
        pb_sub(&t, 13, &entry);
        pb_int(&t, 14, 1);
        check_tensor(&t, NPUC_E_INVALID, cases[i].word);
        if (i == 2) {
            const struct pb m = one_tensor(&t);
            assert_int_equal(import(&m, true), NPUC_OK);
        }
    }
}

static void test_dims(void **state)
{
    (void)state;
    struct model m = {.opset = 17};
    const struct pb a = pb_value("a", 1, "past seq"), b = pb_value("b", 1, "past+seq"),
                    c = pb_value("c", 1, "other+seq"), y = pb_value("y", 1, NULL), z = pb_value("z", 1, NULL);
    const struct pb *const in[] = {&a, &b, &c};
    for (int i = 0; i < 3; i++)
        pb_sub(&m.graph, 11, in[i]);
    pb_sub(&m.graph, 12, &y);
    add(&m, pb_node("Relu", "", "b", "y"));
    expect(&m, "Relu", "f32[past + seq]");
    struct model n = {.opset = 17};
    for (int i = 0; i < 3; i++)
        pb_sub(&n.graph, 11, in[i]);
    pb_sub(&n.graph, 12, &z);
    add(&n, pb_node("Relu", "", "c", "z"));
    assert_int_equal(run(&n), NPUC_OK); /* `other` stands alone nowhere: the sum is one symbol */
    assert_null(strchr(result_type, '+'));
}

static void test_foreign_files(void **state)
{
    (void)state;
    static const char *const heads[] = {"", "PK\3\4....", "\x80\4....", "GGUF...."};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct pb b = {.len = 0};
        pb_raw(&b, heads[i], strlen(heads[i]));
        assert_int_equal(import(&b, false), NPUC_E_INVALID);
        assert_non_null(strstr(messages, FILE_NAME));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sorts_and_names),
        cmocka_unit_test(test_refuses_bad_graphs),
        cmocka_unit_test(test_reports_all_unknown),
        cmocka_unit_test(test_survey),
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_old_opsets),
        cmocka_unit_test(test_plainer),
        cmocka_unit_test(test_dialects),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_subgraph_capture),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_external),
        cmocka_unit_test(test_dims),
        cmocka_unit_test(test_foreign_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
