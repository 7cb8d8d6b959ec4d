/* The reader of Einsum equations. */
#include "kernels/einsum.h"

#include <string.h>

enum { ELLIPSIS = 255, MAX_LETTERS = 64 };

/* Labels as written; an ellipsis is one entry. */
struct raw {
    int n, ellipsis; /* how many of each */
    uint8_t at[MAX_LETTERS];
};

static int label_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    return c >= 'a' && c <= 'z' ? c - 'a' + 26 : -1;
}

/* One term up to ',', "->" or the end. */
static const char *read_term(const char *s, struct raw *t, const char **why)
{
    *t = (struct raw){0};
    for (; *s && *s != ',' && !(s[0] == '-' && s[1] == '>'); s++) {
        if (*s == ' ')
            continue;
        const bool dots = strncmp(s, "...", 3) == 0;
        const int label = dots ? ELLIPSIS : label_of(*s);
        if (label < 0 || t->n == MAX_LETTERS || (dots && t->ellipsis)) {
            *why = "a term has a character that is no letter and no single '...'";
            return NULL;
        }
        t->at[t->n++] = (uint8_t)label;
        t->ellipsis += dots;
        s += dots ? 2 : 0;
    }
    return s;
}

/* The ellipsis stands for `dots` axes, which have the highest numbers. */
static bool spell_out(struct einsum_term *t, const struct raw *raw, int dots, const char **why)
{
    *t = (struct einsum_term){0};
    *why = "a term does not have as many labels as its operand has dims";
    if (dots < 0 || raw->n - raw->ellipsis + (raw->ellipsis ? dots : 0) > K_MAX_RANK)
        return false;
    for (int i = 0; i < raw->n; i++) {
        if (raw->at[i] != ELLIPSIS)
            t->label[t->n++] = raw->at[i];
        for (int k = 0; raw->at[i] == ELLIPSIS && k < dots; k++)
            t->label[t->n++] = (uint8_t)(52 + K_MAX_RANK - dots + k);
    }
    return true;
}

/* Without "->": the ellipsis' axes, then the letters that occur once, in alphabetical order. */
static void implicit_result(struct einsum *e, const int *count, int most)
{
    e->out.n = 0;
    for (int k = 0; k < most; k++)
        e->out.label[e->out.n++] = (uint8_t)(52 + K_MAX_RANK - most + k);
    for (int i = 0; i < 52 && e->out.n < K_MAX_RANK; i++)
        if (count[i] == 1)
            e->out.label[e->out.n++] = (uint8_t)i;
}

static bool check_result(const struct einsum *e, const int *count, const char **why)
{
    bool seen[EINSUM_LABELS] = {false};
    for (int i = 0; i < e->out.n; i++) {
        const int l = e->out.label[i];
        *why = "the result has a label twice or one that no operand has";
        if (seen[l] || !count[l])
            return false;
        seen[l] = true;
    }
    return true;
}

bool einsum_read(struct einsum *e, const char *equation, int n_in, const int *ranks, const char **why)
{
    struct raw raw[EINSUM_MAX_TERMS], out = {0};
    int count[EINSUM_LABELS] = {0}, most = 0;
    const char *s = equation;
    *e = (struct einsum){0};
    do {
        *why = "it has another number of terms than the node has inputs";
        if (e->n_in == n_in || e->n_in == EINSUM_MAX_TERMS)
            return false;
        s = read_term(s, &raw[e->n_in++], why);
    } while (s && *s == ',' && *s++);
    if (!s || e->n_in != n_in)
        return false;
    const bool arrow = *s == '-';
    if (arrow && (!(s = read_term(s + 2, &out, why)) || *s)) {
        *why = s ? "text follows the result's labels" : *why;
        return false;
    }
    for (int i = 0; i < n_in; i++) {
        const int dots = raw[i].ellipsis ? ranks[i] - (raw[i].n - 1) : 0;
        if (!spell_out(&e->in[i], &raw[i], dots, why) || e->in[i].n != ranks[i])
            return false;
        most = dots > most ? dots : most;
        for (int k = 0; k < ranks[i]; k++)
            count[e->in[i].label[k]]++;
    }
    if (!arrow)
        implicit_result(e, count, most);
    else if (!spell_out(&e->out, &out, most, why))
        return false;
    return check_result(e, count, why);
}
