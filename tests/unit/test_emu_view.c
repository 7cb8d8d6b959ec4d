/* Moves that only show their bytes: random programs give the same bits with views and with every move a copy. */
#include "tests/unit/emu_unit.h"

enum { GROUPS = 12, ROWS = 48, C0 = 8, GROUP = ROWS * C0, SLOT = GROUPS * GROUP, OUTS = 24, OUT = 16 * ROWS };

struct random {
    uint32_t state;
};
static int32_t below(struct random *r, int32_t n)
{
    r->state = r->state * 1664525u + 1013904223u;
    return (int32_t)((r->state >> 8) % (uint32_t)n);
}

struct view_program {
    struct emu_unit u;
    struct random random;
    int32_t weights, plain, out; /* tensors */
    int32_t a1, b1, a0, b0, c;   /* buffers */
    int n_out;
};

static void whole_slots(struct view_program *p)
{
    struct emu_unit *u = &p->u;
    for (int i = 0; i < 2; i++) {
        unit_load(u, p->a1, 0, p->plain, i, DT_F32, 16 * C0 * GROUPS);
        unit_load(u, p->b1, 0, p->plain, 7 * i, DT_F32, SLOT);
        TILE(&u->b, COPY_L0A, p->a0, p->a1, num(u, 0), num(u, 16), DT_F32, num(u, 16), num(u, C0 * GROUPS), 0);
        TILE(&u->b, COPY_L0B, p->b0, p->b1, num(u, 0), num(u, ROWS), DT_F32, num(u, ROWS), num(u, C0 * GROUPS), 0);
        TILE(&u->b, NEXT, p->b1);
        TILE(&u->b, NEXT, p->b0);
    }
}

/* Some column blocks of some groups, from weights or from memory that may change, to some group of the slot. */
static void step_load(struct view_program *p)
{
    struct emu_unit *u = &p->u;
    const int blocks = 1 + below(&p->random, 3), first = below(&p->random, 4 - blocks),
              n = 1 + below(&p->random, GROUPS);
    const int run = blocks * 16 * C0, from = below(&p->random, GROUPS - n + 1),
              to = below(&p->random, SLOT / run - n + 1);
    const expr zero = num(u, 0), one = num(u, 1);
    TILE(&u->b, LOAD, p->b1, num(u, to * run), below(&p->random, 4) ? p->weights : p->plain,
         num(u, from * GROUP + first * 16 * C0), DT_F32, one, num(u, n), one, num(u, run), zero, num(u, GROUP), zero,
         one, zero, num(u, run), zero, one);
}

static void step_copy(struct view_program *p)
{
    struct emu_unit *u = &p->u;
    const int pitch = (1 + below(&p->random, 3)) * 16, whole = (1 + below(&p->random, pitch / 16)) * 16;
    const int rows = below(&p->random, 4) ? whole : 1 + below(&p->random, pitch),
              k1 = 1 + below(&p->random, GROUPS - 1);
    const int group = below(&p->random, SLOT / (pitch * C0) - k1),
              row = below(&p->random, (pitch - rows) / 16 + 1) * 16;
    const int k = k1 * C0 - below(&p->random, 2) * below(&p->random, C0);
    if (row + rows <= pitch)
        TILE(&u->b, COPY_L0B, p->b0, p->b1, num(u, (group * pitch + row) * C0), num(u, pitch), DT_F32, num(u, rows),
             num(u, k), 0);
}

static void step_mac(struct view_program *p)
{
    struct emu_unit *u = &p->u;
    const int m = below(&p->random, 2) ? 1 : 16, n = 1 + below(&p->random, ROWS),
              k = 1 + below(&p->random, GROUPS * C0);
    if (p->n_out == OUTS)
        return;
    TILE(&u->b, MAC, p->c, p->a0, p->b0, -1, DT_F32, num(u, m), num(u, n), num(u, k), num(u, 1));
    TILE(&u->b, FIXP, p->out, num(u, p->n_out++ * OUT), num(u, ROWS), p->c, num(u, 16), DT_F32, DT_F32, num(u, m),
         num(u, n), 0, -1, num(u, 0));
}

static void random_program(struct view_program *p)
{
    whole_slots(p);
    for (int i = 0; i < 120; i++) {
        const int what = below(&p->random, 8);
        if (what < 3)
            step_load(p);
        else if (what < 5)
            step_copy(p);
        else if (what < 7)
            step_mac(p);
        else
            TILE(&p->u.b, NEXT, below(&p->random, 2) ? p->b1 : p->b0);
    }
}

static void begin(struct view_program *p, uint32_t seed, float *weights, float *plain, float *out)
{
    struct emu_unit *u = &p->u;
    *p = (struct view_program){.random = {seed}};
    unit_begin(u, TCORE_CUBE);
    p->weights = unit_tensor(u, DT_F32, weights, SLOT * sizeof *weights);
    p->plain = unit_tensor(u, DT_F32, plain, 2 * SLOT * sizeof *plain);
    p->out = unit_tensor(u, DT_F32, out, OUTS * OUT * sizeof *out);
    u->tensors[p->weights].read_only = true;
    p->a1 = unit_buf(u, TS_L1, 1, 16 * C0 * GROUPS * 4);
    p->b1 = unit_buf(u, TS_L1, 2, SLOT * 4);
    p->a0 = unit_buf(u, TS_L0A, 1, 16 * C0 * GROUPS * 4);
    p->b0 = unit_buf(u, TS_L0B, 2, SLOT * 4);
    p->c = unit_buf(u, TS_L0C, 1, OUT * 4);
}

static void run(struct view_program *p, bool views)
{
    p->u.machine->no_views = !views;
    const enum npuc_status s = unit_run(&p->u, 1, false);
    if (s != NPUC_OK)
        print_error("%s\n", p->u.error);
    assert_int_equal(s, NPUC_OK);
}

static void test_same_bits(void **state)
{
    (void)state;
    static float weights[SLOT], plain[2 * SLOT], shown[OUTS * OUT], copied[OUTS * OUT];
    for (int i = 0; i < 2 * SLOT; i++) {
        plain[i] = (float)(i * 7 % 113 - 50) / 16;
        weights[i / 2] = (float)(i * 11 % 127 - 60) / 8;
    }
    for (uint32_t seed = 1; seed <= 200; seed++) {
        struct view_program p;
        begin(&p, seed, weights, plain, shown);
        random_program(&p);
        memset(shown, 0, sizeof shown);
        run(&p, true);
        memcpy(copied, shown, sizeof copied);
        memset(shown, 0, sizeof shown);
        run(&p, false);
        assert_true(p.n_out > 4);
        assert_memory_equal(copied, shown, sizeof copied);
        unit_end(&p.u);
    }
}

/* Buffers that share memory copy: the write to one is seen in the other. */
static void test_shared_memory(void **state)
{
    (void)state;
    static float weights[SLOT], plain[2 * SLOT], out[OUTS * OUT], first[OUT];
    for (int i = 0; i < SLOT; i++) {
        weights[i] = (float)(i % 31);
        plain[i] = plain[SLOT + i] = (float)(i % 17) + 1;
    }
    for (int views = 0; views < 2; views++) {
        struct view_program p;
        begin(&p, 1, weights, plain, out);
        whole_slots(&p);
        const int32_t twin = unit_buf(&p.u, TS_L1, 1, SLOT * 4);
        p.u.b.at->bufs.data[twin].base = p.u.b.at->bufs.data[p.b1].base;
        unit_load(&p.u, p.b1, 0, p.weights, 0, DT_F32, SLOT);
        unit_load(&p.u, twin, 0, p.plain, 0, DT_F32, GROUP);
        TILE(&p.u.b, COPY_L0B, p.b0, p.b1, num(&p.u, 0), num(&p.u, ROWS), DT_F32, num(&p.u, ROWS), num(&p.u, 16), 0);
        p.random.state = 5;
        step_mac(&p);
        memset(out, 0, sizeof out);
        run(&p, views);
        if (views)
            assert_memory_equal(first, out, sizeof first);
        memcpy(first, out, sizeof first);
        unit_end(&p.u);
    }
}

/* The weights are read where they are: a view is what the multiply-accumulate gets. */
static void test_no_copy(void **state)
{
    (void)state;
    static float weights[SLOT], plain[2 * SLOT], out[OUTS * OUT];
    struct view_program p;
    begin(&p, 3, weights, plain, out);
    whole_slots(&p);
    unit_load(&p.u, p.b1, 0, p.weights, 0, DT_F32, SLOT);
    TILE(&p.u.b, COPY_L0B, p.b0, p.b1, num(&p.u, 16 * C0), num(&p.u, ROWS), DT_F32, num(&p.u, 32), num(&p.u, 40), 0);
    run(&p, true);
    const struct emu_core *core = &p.u.machine->blocks[0]->core[0];
    const struct emu_view *l0b = &core->views[core->prog->first_view[p.b0]];
    assert_ptr_equal(l0b->src, weights + 16 * C0);
    assert_int_equal(l0b->pitch, GROUP * 4);
    assert_int_equal(l0b->run, 32 * C0 * 4);
    assert_int_equal(l0b->n, 5);
    unit_end(&p.u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits), cmocka_unit_test(test_shared_memory),
                                       cmocka_unit_test(test_no_copy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
