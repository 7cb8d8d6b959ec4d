#include "tools/lm.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "kernels/tensor.h"
#include "tools/npy.h"
#include "tools/term.h"

int lm_fail(const struct lm *lm, const char *text, const char *what)
{
    term_error("%s: %s%s", lm->s.path, text, what);
    return diag_exit_code(NPUC_E_UNSUPPORTED);
}

/* ---- tokens */

static bool read_id_file(const char *path, struct arena *a, struct lm_ids *ids, int *exit_code)
{
    struct k_tensor t;
    struct diag d;
    diag_init(&d, term_diag, NULL);
    const enum npuc_status st = npy_read(path, a, &d, &t);
    if (st == NPUC_OK && dtype_table[t.dtype].cls != DTC_INT && dtype_table[t.dtype].cls != DTC_UINT) {
        term_error("%s: expected token ids, integers; found %s", path, dtype_table[t.dtype].name);
        *exit_code = diag_exit_code(NPUC_E_INVALID);
        return false;
    }
    *exit_code = diag_exit_code(st);
    for (int64_t i = 0; st == NPUC_OK && i < k_count(&t); i++)
        vec_push(a, &ids->list, k_get_i64(&t, i));
    return st == NPUC_OK;
}

bool lm_read_ids(const char *text, const char *option, struct arena *a, struct lm_ids *ids, int *exit_code)
{
    const size_t len = strlen(text);
    if (len > 4 && strcmp(text + len - 4, ".npy") == 0)
        return read_id_file(text, a, ids, exit_code);
    for (const char *s = text; *s;) {
        char *end;
        const long long v = strtoll(s, &end, 10);
        if (end == s || (*end && *end != ',') || v < 0) {
            term_error("npuc: --%s takes ids separated by commas or a .npy file, not %s", option, text);
            *exit_code = diag_exit_code(NPUC_E_USAGE);
            return false;
        }
        vec_push(a, &ids->list, (int64_t)v);
        s = *end ? end + 1 : end;
    }
    return true;
}

/* ---- the plan */

static bool find_logits(struct lm *lm)
{
    const int i = npurt_logits_output(lm->s.plan);
    if (i < 0)
        return false;
    const struct npurt_value *v = npurt_plan_output(lm->s.plan, i);
    lm->logits = v->name;
    if (v->rank > 0 && v->dims[v->rank - 1].min == v->dims[v->rank - 1].max)
        lm->vocab = v->dims[v->rank - 1].min;
    return true;
}

/* An input that is one truth value may decide between forms with and without a cache: decided, the caches show. */
static const char *deciding_input(const npurt_plan *p)
{
    for (int i = 0; i < npurt_plan_inputs(p); i++) {
        const struct npurt_value *v = npurt_plan_input(p, i);
        if (v->dtype == NPURT_BOOL && (v->rank == 0 || (v->rank == 1 && v->dims[0].max == 1)))
            return v->name;
    }
    return NULL;
}

bool lm_open_timed(struct lm *lm, const struct args *a, int default_mode, int *exit_code)
{
    if (!session_open(&lm->s, a, a->words.data[0], default_mode, exit_code))
        return false;
    if (!find_logits(lm)) {
        const char *input = deciding_input(lm->s.plan);
        if (input) {
            term_error("%s: no language model with a KV cache; its input %s may decide about one: compile it with "
                       "--value %s=1",
                       lm->s.path, input, input);
            *exit_code = diag_exit_code(NPUC_E_UNSUPPORTED);
            return false;
        }
        *exit_code =
            lm_fail(lm, "no language model with a KV cache: caches and a logits output are needed; see npuc inspect ",
                    lm->s.path);
        return false;
    }
    return true;
}

bool lm_open(struct lm *lm, const struct args *a, int default_mode, int *exit_code)
{
    if (!lm_open_timed(lm, a, default_mode, exit_code))
        return false;
    if (lm->s.mode == NPURT_CLOCK) {
        *exit_code =
            lm_fail(lm, "this needs the model's values: --mode data or both; npuc estimate gives times alone", "");
        return false;
    }
    return true;
}

/* ---- calls */

int lm_check_tokens(const struct lm *lm, const int64_t *tokens, int64_t n)
{
    for (int64_t i = 0; lm->vocab > 0 && i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= lm->vocab) {
            term_error("%s: token %" PRId64 " is outside of the model's vocabulary of %" PRId64
                       "; the ids come from another tokenizer",
                       lm->s.path, tokens[i], lm->vocab);
            return diag_exit_code(NPUC_E_INVALID);
        }
    return 0;
}

int lm_step(struct lm *lm, const int64_t *tokens, int64_t past, int64_t rows)
{
    const struct npurt_tokens t = {.ids = tokens, .batch = 1, .rows = rows, .past = past};
    const enum npuc_status st = npurt_run_tokens(lm->s.run, &t);
    return st == NPUC_OK ? 0 : session_fail(&lm->s, st);
}

int lm_take_logits(struct lm *lm, struct lm_logits *out)
{
    const enum npuc_status st = npurt_output(lm->s.run, lm->logits, &out->t);
    const struct npurt_tensor *t = &out->t;
    if (st != NPUC_OK)
        return session_fail(&lm->s, st);
    if (t->rank < 1 || (t->dtype != NPURT_F32 && t->dtype != NPURT_F16 && t->dtype != NPURT_BF16) ||
        t->dims[t->rank - 1] < 1)
        return lm_fail(lm, "this output holds no float logits: ", lm->logits);
    out->vocab = t->dims[t->rank - 1];
    lm->vocab = out->vocab;
    out->rows = 1;
    for (int i = 0; i + 1 < t->rank; i++)
        out->rows *= t->dims[i];
    return out->rows > 0 ? 0 : lm_fail(lm, "this output holds no logits: ", lm->logits);
}

float lm_logit(const struct lm_logits *l, int64_t row, int64_t token)
{
    const int64_t at = row * l->vocab + token;
    if (l->t.dtype == NPURT_F16)
        return half_f16_to_f32(((const uint16_t *)l->t.data)[at]);
    if (l->t.dtype == NPURT_BF16)
        return half_bf16_to_f32(((const uint16_t *)l->t.data)[at]);
    return ((const float *)l->t.data)[at];
}
