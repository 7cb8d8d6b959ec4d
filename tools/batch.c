#include "tools/batch.h"

/* Do the logits have a row for every token? Else only those of the last one are there. */
static bool gives_all_rows(const struct lm *lm)
{
    const struct npurt_value *v = npurt_plan_output(lm->s.plan, npurt_logits_output(lm->s.plan));
    return v && v->rank > 1 && v->dims[v->rank - 2].min != v->dims[v->rank - 2].max;
}

static bool are_equal(const struct lm_sequence *list, int64_t n)
{
    for (int64_t i = 1; i < n; i++)
        if (list[i].n_prompt != list[0].n_prompt)
            return false;
    return true;
}

bool lm_batch_takes(const struct lm *lm, const struct lm_sequence *list, int64_t n)
{
    const int form = npurt_batch_form(lm->s.plan);
    if (n == 1 || form == NPURT_BATCH_ONE)
        return n == 1;
    return are_equal(list, n) || form == NPURT_BATCH_FILLED || (form == NPURT_BATCH_OWN && gives_all_rows(lm));
}

void lm_batch_init(struct lm_batch *b, struct lm *lm, struct lm_sequence *list, int64_t n)
{
    *b = (struct lm_batch){.lm = lm, .list = list, .n = n};
    b->apart = npurt_batch_form(lm->s.plan) == NPURT_BATCH_OWN && !are_equal(list, n);
    for (int64_t i = 0; i < n; i++)
        if (list[i].n_prompt > b->longest)
            b->longest = list[i].n_prompt;
    b->ids = ARENA_ARRAY(lm->arena, int64_t, n * b->longest + 1);
    b->own = ARENA_ARRAY(lm->arena, int64_t, n + 1);
    b->filling = ARENA_ARRAY(lm->arena, int64_t, n + 1);
    for (int64_t i = 0; i < n; i++)
        b->filling[i] = b->apart ? 0 : b->longest - list[i].n_prompt;
}

int64_t lm_batch_common(const struct lm_batch *b)
{
    const int64_t page = npurt_cache_page(b->lm->s.run), *first = b->list[0].tokens.list.data;
    int64_t same = b->list[0].n_prompt - 1; /* each has a token of its own call */
    for (int64_t i = 0; i < b->n; i++) {
        const struct lm_sequence *q = &b->list[i];
        int64_t k = 0;
        while (k < same && k < q->n_prompt - 1 && q->tokens.list.data[k] == first[k])
            k++;
        same = b->filling[i] > 0 ? 0 : k;
    }
    return b->n > 1 && page > 0 ? same - same % page : 0;
}

int lm_batch_read_common(struct lm_batch *b, int64_t common, int64_t start, int64_t most, int64_t *rows)
{
    npurt_session *s = b->lm->s.run;
    const int64_t room = npurt_cache_room(s), left = common - start;
    *rows = most < room ? most : room;
    *rows = *rows < left ? *rows : left;
    const int code = lm_step(b->lm, &b->list[0].tokens.list.data[start], start, *rows);
    if (code != 0 || *rows < left)
        return code;
    const enum npuc_status st = npurt_cache_spread(s, b->n);
    return st == NPUC_OK ? 0 : session_fail(&b->lm->s, st);
}

static int run(struct lm_batch *b, int64_t past, int64_t rows)
{
    const struct npurt_tokens t = {.ids = b->ids,
                                   .batch = b->n,
                                   .rows = rows,
                                   .past = past,
                                   .filling = b->apart ? NULL : b->filling,
                                   .own = b->apart ? b->own : NULL};
    enum npuc_status st = NPUC_OK;
    if (npurt_cache_length(b->lm->s.run) > past)
        st = npurt_cache_truncate(b->lm->s.run, past);
    if (st == NPUC_OK)
        st = npurt_run_tokens(b->lm->s.run, &t);
    b->held = st == NPUC_OK ? past + rows : b->held;
    return st == NPUC_OK ? 0 : session_fail(&b->lm->s, st);
}

/* Token at place `at` of prompt i with what fills it up, which may be any token. */
static int64_t token_at(const struct lm_batch *b, int64_t i, int64_t at)
{
    const struct lm_sequence *q = &b->list[i];
    const int64_t k = at - b->filling[i];
    return q->tokens.list.data[k >= 0 && k < q->n_prompt ? k : 0];
}

int lm_batch_read(struct lm_batch *b, int64_t start, int64_t most, int64_t *rows)
{
    int64_t least = 1; /* every sequence has a token that it sees */
    for (int64_t i = 0; i < b->n; i++)
        if (b->filling[i] + 1 - start > least)
            least = b->filling[i] + 1 - start;
    const int64_t room = npurt_cache_room(b->lm->s.run);
    most = most < room ? most : room;
    *rows = most > least ? most : least;
    if (*rows > b->longest - start)
        *rows = b->longest - start;
    for (int64_t i = 0; i < b->n; i++) {
        b->own[i] = start < b->list[i].n_prompt ? start : b->list[i].n_prompt;
        for (int64_t k = 0; k < *rows; k++)
            b->ids[i * *rows + k] = token_at(b, i, start + k);
    }
    return run(b, start, *rows);
}

bool lm_batch_ends(const struct lm_batch *b, int64_t i, int64_t start, int64_t rows, int64_t *row)
{
    const int64_t last = b->apart ? b->list[i].n_prompt - 1 : b->longest - 1;
    *row = b->apart ? last - start : -1;
    return last >= start && last < start + rows;
}

int lm_batch_step(struct lm_batch *b)
{
    int64_t past = b->apart ? 0 : b->held;
    for (int64_t i = 0; i < b->n; i++) {
        const struct lm_sequence *q = &b->list[i];
        b->own[i] = q->finish ? 0 : q->tokens.list.len - 1;
        b->ids[i] = q->tokens.list.data[q->tokens.list.len - 1];
        if (b->apart && b->own[i] > past)
            past = b->own[i];
    }
    return run(b, past, 1);
}

bool lm_batch_full(const struct lm_batch *b, int64_t i)
{
    const int64_t room = npurt_cache_capacity(b->lm->s.run);
    return room > 0 && (b->apart ? b->list[i].tokens.list.len - 1 : b->held) >= room;
}

int lm_batch_pick(struct lm_batch *b, int64_t i, int64_t row, const struct npurt_sampling *how, int64_t *token)
{
    const struct lm_sequence *q = &b->list[i];
    if (b->n > 1) {
        struct lm_logits all;
        const int code = lm_take_logits(b->lm, &all);
        if (code != 0)
            return code;
        const int64_t per = all.rows / b->n;
        row = i * per + (row < 0 ? per + row : row);
    }
    const enum npuc_status st = npurt_sample(b->lm->s.run, row, how, q->tokens.list.data, q->tokens.list.len, token);
    return st == NPUC_OK ? 0 : session_fail(&b->lm->s, st);
}
