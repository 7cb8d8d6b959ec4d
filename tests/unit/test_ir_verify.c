/* Every error planted here must be found, by its own message; the unharmed module must pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/build.h"
#include "ir/text.h"

static const char text[] = "module {\n"
                           "  func @main(%c: bool[], %x: f32[4], %y: f32[4]) -> (%r: f32[4], %p: f32[2]) {\n"
                           "    %k = Constant {value=f32[4] [1, 2, 3, 4]} : f32[4]\n"
                           "    %a = Add %x, %y : f32[4]\n"
                           "    %b = Mul %a, %k : f32[4]\n"
                           "    %f = Fused %a, %b {body=(%u: f32[4], %v: f32[4]) {\n"
                           "      %w = Sub %u, %v : f32[4]\n"
                           "      Yield %w\n"
                           "    }} : f32[4]\n"
                           "    %i = If %c {then_branch=() {\n"
                           "      %t = Exp %f : f32[4]\n"
                           "      Yield %t\n"
                           "    }, else_branch=() {\n"
                           "      Yield %a\n"
                           "    }} : f32[4]\n"
                           "    %p, %q = Split %f {num_outputs=2} : f32[2], f32[2]\n"
                           "    %r = Transpose %i {perm=[0]} : f32[4]\n"
                           "    Yield %r, %p\n"
                           "  }\n"
                           "}\n";

struct world {
    struct ir_ctx cx;
    struct diag diag;
    struct module *m;
    struct graph *g;
    struct node *constant, *add, *mul, *fused, *branch, *split, *transpose, *yield;
    char found[4096];
};

static void sink(void *user, const char *line)
{
    struct world *w = user;
    strncat(w->found, line, sizeof w->found - strlen(w->found) - 2);
    strcat(w->found, "\n");
}

static void world_open(struct world *w)
{
    memset(w, 0, sizeof *w);
    diag_init(&w->diag, sink, w);
    ir_ctx_init(&w->cx, NULL, &w->diag);
    assert_int_equal(ir_parse(&w->cx, text, (int64_t)sizeof text - 1, &w->m), NPUC_OK);
    w->g = w->m->funcs.data[0];
    struct node **slot[] = {&w->constant, &w->add, &w->mul, &w->fused, &w->branch, &w->split, &w->transpose, &w->yield};
    int i = 0;
    for_each_node (n, w->g)
        *slot[i++] = n;
    assert_int_equal(ir_verify(w->m, "nothing"), NPUC_OK);
}

static void world_close(struct world *w)
{
    ir_module_free(w->m);
    ir_ctx_free(&w->cx);
}

/* ---- the errors */

static void plant_order(struct world *w)
{
    ir_move_before(w->mul, w->add);
}
static void plant_unlinked_use(struct world *w)
{
    w->add->out[0].uses = w->add->out[0].uses->next;
}
static void plant_lost_use(struct world *w)
{
    struct value *v = &w->split->out[0]; /* its only use vanishes from the list */
    v->uses = NULL;
}
static void plant_foreign_use(struct world *w)
{
    w->mul->in[0].value = &w->constant->out[0];
}
static void plant_user(struct world *w)
{
    w->mul->in[0].user = w->add;
}
static void plant_type(struct world *w)
{
    w->mul->out[0].type = w->split->out[0].type;
}
static void plant_dtype(struct world *w)
{
    w->mul->out[0].type = type_with_dtype(&w->cx, w->mul->out[0].type, DT_F16);
}
static void plant_rank(struct world *w)
{
    w->mul->out[0].type = type_tensor(&w->cx, DT_F32, 0, NULL);
}
static void plant_input_type(struct world *w)
{
    w->g->inputs[1]->type = w->split->out[0].type; /* f32[2] + f32[4] */
}
static void plant_no_type(struct world *w)
{
    w->split->out[1].type = NULL;
}
static void plant_absent_input(struct world *w)
{
    ir_set_input(w->add, 1, NULL);
}
static void plant_attr_kind(struct world *w)
{
    w->transpose->attrs[0] = (struct attr){.kind = ATTR_FLOAT, .v.f = 1};
}
static void plant_attr_missing(struct world *w)
{
    w->constant->attrs[0].kind = ATTR_NONE;
}
static void plant_list(struct world *w)
{
    w->add->prev = NULL;
}
static void plant_graph(struct world *w)
{
    w->add->graph = node_region(w->fused, 0);
}
static void plant_value_graph(struct world *w)
{
    w->add->out[0].graph = node_region(w->fused, 0);
}
static void plant_def(struct world *w)
{
    w->split->out[1].def = w->add;
}
static void plant_index(struct world *w)
{
    w->split->out[1].index = 0;
}
static void plant_id(struct world *w)
{
    w->split->out[1].id = w->split->out[0].id;
}
static void plant_big_id(struct world *w)
{
    w->split->out[1].id = w->m->n_values;
}
static void plant_early_yield(struct world *w)
{
    ir_move_before(w->yield, w->transpose);
}
static void plant_no_yield(struct world *w)
{
    ir_erase(w->yield);
}
static void plant_capture(struct world *w)
{
    ir_set_input(node_region(w->fused, 0)->first, 0, w->g->inputs[1]);
}
static void plant_region_owner(struct world *w)
{
    node_region(w->fused, 0)->owner = w->mul;
}
static void plant_region_parent(struct world *w)
{
    node_region(w->branch, 1)->parent = NULL;
}
static void plant_region_escape(struct world *w)
{
    ir_set_input(w->transpose, 0, &node_region(w->branch, 0)->first->out[0]);
}
static void plant_empty_region(struct world *w)
{
    struct graph *r = node_region(w->branch, 1);
    ir_erase(r->last);
}
static void plant_blob_size(struct world *w)
{
    struct attr *a = &w->constant->attrs[0];
    struct blob *b = ARENA_NEW(&w->m->arena, struct blob);
    *b = *a->v.t.blob;
    b->size = 12;
    a->v.t.blob = b;
}
static void plant_layout(struct world *w)
{
    const struct layout nz = {.kind = LAYOUT_NZ, .c0 = 16};
    w->g->inputs[2]->type = type_with_layout(&w->cx, w->g->inputs[2]->type, nz);
}
static void plant_cache(struct world *w)
{
    const struct layout cache = {.kind = LAYOUT_CACHE, .axis = 3, .capacity = expr_const(&w->cx.exprs, 8)};
    w->g->inputs[2]->type = type_with_layout(&w->cx, w->g->inputs[2]->type, cache);
}
static void plant_perm(struct world *w)
{
    const int64_t perm[] = {1};
    ir_set_ints(w->transpose, "perm", perm, 1);
}
static void plant_cycle_in_list(struct world *w)
{
    w->split->next = w->add;
}

static const struct plant {
    const char *name;
    void (*plant)(struct world *w);
    const char *message;
} plants[] = {
    {"order", plant_order, "operand 0 (a) is used before its definition"},
    {"unlinked use", plant_unlinked_use, "an operand is missing in its use list"},
    {"lost use", plant_lost_use, "value p: an operand is missing in its use list"},
    {"foreign use", plant_foreign_use, "the use list of a is broken"},
    {"user", plant_user, "operand 0 names another user"},
    {"type", plant_type, "output 0 (b) has type f32[2], expected f32[4]"},
    {"dtype", plant_dtype, "output 0 (b) has type f16[4], expected f32[4]"},
    {"rank", plant_rank, "output 0 (b) has type f32[], expected f32[4]"},
    {"input type", plant_input_type, "its operands contradict each other"},
    {"no type", plant_no_type, "value q has no type"},
    {"absent input", plant_absent_input, "required input 1 of Add is absent"},
    {"attribute kind", plant_attr_kind, "attribute 'perm' of Transpose is a float, expected integers"},
    {"attribute missing", plant_attr_missing, "Constant needs attribute 'value'"},
    {"node list", plant_list, "the node list is broken"},
    {"graph of a node", plant_graph, "the node says it belongs to another graph"},
    {"graph of a value", plant_value_graph, "value a says it belongs to another graph"},
    {"def", plant_def, "output 1 does not know its node"},
    {"index", plant_index, "output 1 does not know its node"},
    {"id", plant_id, "value q is defined twice"},
    {"big id", plant_big_id, "value q has an id beyond the module's"},
    {"early Yield", plant_early_yield, "Yield within a graph"},
    {"no Yield", plant_no_yield, "a graph must end with Yield"},
    {"capture", plant_capture, "operand 0 (x) comes from outside a Fused region"},
    {"owner of a body", plant_region_owner, "a body does not know its owner"},
    {"parent of a body", plant_region_parent, "a body does not know its owner"},
    {"escape from a body", plant_region_escape, "operand 0 (t) is used before its definition"},
    {"empty body", plant_empty_region, "an empty graph"},
    {"size of a constant", plant_blob_size, "the constant has 12 bytes, its type is f32[4]"},
    {"layout", plant_layout, "layout nz needs two axes"},
    {"cache", plant_cache, "a cache needs an axis and a capacity"},
    {"permutation", plant_perm, "its operands contradict each other"},
    {"cyclic list", plant_cycle_in_list, "a node list that does not end"},
};

static void planted_errors_are_found(void **state)
{
    (void)state;
    int missed = 0;
    for (size_t i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        static struct world w;
        world_open(&w);
        plants[i].plant(&w);
        const enum npuc_status s = ir_verify(w.m, "planting");
        if (s != NPUC_E_INTERNAL || !strstr(w.found, plants[i].message) || !strstr(w.found, "after planting")) {
            print_error("%s: status %d, expected '%s', found:\n%s", plants[i].name, (int)s, plants[i].message, w.found);
            missed++;
        }
        world_close(&w);
    }
    assert_int_equal(missed, 0);
}

static void verifying_changes_nothing(void **state)
{
    (void)state;
    static struct world w;
    world_open(&w);
    const char *before, *after;
    int64_t n_before, n_after;
    ir_print(w.m, &w.m->arena, &before, &n_before);
    const int32_t fresh = w.cx.n_fresh;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ir_verify(w.m, "again"), NPUC_OK);
    ir_print(w.m, &w.m->arena, &after, &n_after);
    assert_string_equal(before, after);
    assert_string_equal(before, text);
    assert_int_equal(w.cx.n_fresh, fresh);
    assert_string_equal(w.found, "");
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planted_errors_are_found),
        cmocka_unit_test(verifying_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
