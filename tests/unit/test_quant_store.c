/* The data file of a recipe: what is written reads back, and what is broken is refused. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "quant/codes.h"
#include "quant/recipe.h"
#include "unit.h"

struct world {
    struct arena arena;
    struct diag d;
    char path[64];
};

static int begin(void **state)
{
    struct world *w = test_calloc(1, sizeof *w);
    arena_init(&w->arena, NULL);
    diag_init(&w->d, NULL, NULL);
    snprintf(w->path, sizeof w->path, "quant-store-%d.safetensors", (int)getpid());
    *state = w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    unlink(w->path);
    arena_free(&w->arena);
    test_free(w);
    return 0;
}

static void test_codes(void **state)
{
    struct world *w = *state;
    static const enum dtype types[] = {DT_I8, DT_U8, DT_I4, DT_U4, DT_I2, DT_F8E4M3FN, DT_F4E2M1, DT_F6E2M3};
    float data[3 * 7];
    int16_t codes[3 * 7], zeros[3 * 2];
    float scales[3 * 2];
    for (int t = 0; t < (int)NPUC_ARRAY_LEN(types); t++) {
        const int bits = dtype_table[types[t]].bits, low = dtype_table[types[t]].cls == DTC_INT ? 1 << (bits - 1) : 0;
        const bool whole = dtype_is_integer(types[t]);
        const struct quant_operand o = {.codes = types[t], .per = QUANT_PER_GROUP, .group = 4, .shifted = whole};
        const struct quant_matrix m = {data, 3, 7, DT_F32, NULL};
        for (int i = 0; i < 21; i++)
            codes[i] = (int16_t)(i * 37 % (1 << bits) - low);
        for (int i = 0; i < 6; i++) {
            scales[i] = 0.5f + (float)i;
            zeros[i] = (int16_t)(i % (1 << bits) - low);
        }
        const struct quant_codes out = {codes, scales, whole ? zeros : NULL, 2};
        struct quant_store_writer writer;
        assert_int_equal(quant_store_create(&writer, w->path, 1, 8, &w->d), NPUC_OK);
        assert_true(quant_save_codes(&writer, "a \"name\"", &o, &m, &out, &w->arena));
        assert_int_equal(quant_store_commit(&writer, &w->d), NPUC_OK);
        struct quant_store s;
        struct quant_codes in;
        assert_int_equal(quant_store_open(&s, w->path, &w->arena, &w->d), NPUC_OK);
        assert_null(quant_load_codes(&s, "a \"name\"", &o, &m, &in, &w->arena));
        assert_memory_equal(in.codes, codes, sizeof codes);
        assert_memory_equal(in.scales, scales, sizeof scales);
        if (whole)
            assert_memory_equal(in.zeros, zeros, sizeof zeros);
        const struct quant_matrix other = {data, 3, 9, DT_F32, NULL};
        assert_non_null(quant_load_codes(&s, "a \"name\"", &o, &other, &in, &w->arena));
        assert_non_null(quant_load_codes(&s, "b", &o, &m, &in, &w->arena));
        quant_store_close(&s);
    }
}

static void write_raw(const struct world *w, const char *header, int64_t claimed, int64_t data)
{
    FILE *f = fopen(w->path, "wb");
    assert_non_null(f);
    fwrite(&claimed, 8, 1, f);
    fputs(header, f);
    for (int64_t i = 0; i < data; i++)
        fputc(0, f);
    fclose(f);
}

static void test_broken(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *header;
        int64_t claimed; /* -1: its length */
        bool good;
    } cases[] = {
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1, true},
        {"{}", -1, true},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", INT64_MAX, false},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 5, false},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", -1, false},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", -1, false},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", -1, false},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,8],\"data_offsets\":[0,8]}}", -1, false},
        {"{\"x\":{\"dtype\":\"F99\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1, false},
        {"{\"x\":7}", -1, false},
        {"[]", -1, false},
        {"", -1, false},
    };
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(cases); i++) {
        const int64_t len = (int64_t)strlen(cases[i].header);
        struct quant_store s;
        write_raw(w, cases[i].header, cases[i].claimed < 0 ? len : cases[i].claimed, 8);
        const enum npuc_status got = quant_store_open(&s, w->path, &w->arena, &w->d);
        assert_int_equal(got == NPUC_OK, cases[i].good);
        quant_store_close(&s);
    }
}

static void test_recipe(void **state)
{
    struct world *w = *state;
    static const char text[] = "version = 1\ndata = x.safetensors\n[a]\nweight = int4 group=32 zero by=minmax data\n"
                               "smooth = data\nrotate = hadamard\ncorrect = data\n[past]\nkv = int8 token\n";
    struct quant_recipe r, again;
    int64_t len;
    assert_int_equal(quant_recipe_parse(&r, "r", text, sizeof text - 1, &w->arena, &w->d), NPUC_OK);
    const char *out = quant_recipe_text(&r, &w->arena, &len);
    assert_int_equal(quant_recipe_parse(&again, "r", out, len, &w->arena, &w->d), NPUC_OK);
    const struct quant_entry *e = quant_recipe_find(&again, "a");
    assert_non_null(e);
    assert_true(e->smooth && e->correct && e->form.weight.data && e->form.rotate == QUANT_HADAMARD);
    e = quant_recipe_find(&again, "past");
    assert_true(e && e->cache.codes == DT_I8 && quant_recipe_has_caches(&again));
    static const char *const wrong[] = {
        "version = 1\n[past]\nkv = int8 token\nkeep = it\n",
        "version = 1\n[a]\nweight = int8 data\n", /* no data file */
        "version = 1\ndata = x\n[a]\nweight = int8\nsmooth = 3\n",
        "version = 1\n[a]\nweight = int8\nrotate = fourier\n",
        "version = 1\ndata = x\n[a]\ninput = int8 token data\n",
        "version = 1\n[a]\nkeep = it\nrotate = hadamard\n",
        "version = 1\n[a]\nweight = int8\n[a]\nweight = int8\n",
        "version = 1\nweight = int8\n",
    };
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(wrong); i++)
        assert_int_not_equal(quant_recipe_parse(&r, "r", wrong[i], (int64_t)strlen(wrong[i]), &w->arena, &w->d),
                             NPUC_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_codes, begin, end),
        cmocka_unit_test_setup_teardown(test_broken, begin, end),
        cmocka_unit_test_setup_teardown(test_recipe, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
