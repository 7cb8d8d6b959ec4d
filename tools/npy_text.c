/* Text in .npy files: '<U7' has 7 UTF-32 code points per element, filled up with zeros. */
#include <string.h>

#include "base/size.h"
#include "tools/npy.h"

/* The next code point of UTF-8; bytes that are none stand for themselves. */
static uint32_t next_code(const struct k_string *s, int64_t *at)
{
    const uint8_t *p = (const uint8_t *)s->text + *at;
    const int more = *p >= 0xf0 && *p < 0xf8 ? 3 : *p >= 0xe0 && *p < 0xf0 ? 2 : *p >= 0xc2 && *p < 0xe0 ? 1 : 0;
    uint32_t u = more ? *p & (0x3fu >> more) : *p;
    if (s->len - *at <= more) {
        ++*at;
        return *p;
    }
    for (int i = 1; i <= more; i++)
        u = u << 6 | (p[i] & 0x3fu);
    *at += more + 1;
    return u;
}

int64_t npy_text_width(const struct k_tensor *t)
{
    const struct k_string *s = t->data;
    int64_t widest = 1;
    for (int64_t i = 0; i < k_count(t); i++) {
        int64_t n = 0;
        for (int64_t at = 0; at < s[i].len; n++)
            (void)next_code(&s[i], &at);
        widest = n > widest ? n : widest;
    }
    return widest;
}

const void *npy_data(const struct k_tensor *t, struct arena *a, int64_t *size)
{
    *size = t->size;
    if (t->dtype != DT_STRING)
        return t->data;
    const struct k_string *s = t->data;
    const int64_t width = npy_text_width(t);
    uint32_t *codes = ARENA_ARRAY(a, uint32_t, k_count(t) * width + 1);
    for (int64_t i = 0; i < k_count(t); i++)
        for (int64_t at = 0, n = 0; at < s[i].len; n++)
            codes[i * width + n] = next_code(&s[i], &at);
    *size = k_count(t) * width * 4;
    return codes;
}

static int64_t put_code(char *to, uint32_t u)
{
    if (u < 0x80) {
        to[0] = (char)u;
        return 1;
    }
    const int more = u < 0x800 ? 1 : u < 0x10000 ? 2 : 3;
    to[0] = (char)((0xff00u >> (more + 1) & 0xff) | u >> 6 * more);
    for (int i = 1; i <= more; i++)
        to[i] = (char)(0x80 | (u >> 6 * (more - i) & 0x3f));
    return more + 1;
}

bool npy_text_read(const uint8_t *bytes, int64_t size, int64_t width, struct arena *a, struct k_tensor *t)
{
    const int64_t n = k_count(t);
    int64_t codes, need;
    if (!size_mul(n, width, &codes) || !size_mul(codes, 4, &need) || need > size)
        return false;
    struct k_string *s = ARENA_ARRAY(a, struct k_string, n + 1);
    t->data = s;
    t->size = n * (int64_t)sizeof *s;
    for (int64_t i = 0; i < n; i++) {
        char *text = arena_alloc(a, 4 * width + 1, 1);
        for (int64_t k = 0; k < width; k++) {
            uint32_t u;
            memcpy(&u, bytes + (i * width + k) * 4, sizeof u);
            if (u && u < 0x110000)
                s[i].len += put_code(text + s[i].len, u);
        }
        text[s[i].len] = 0;
        s[i].text = text;
    }
    return true;
}
