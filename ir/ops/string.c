/* Operators on text and tokens; all of them run on the host. */
#include "ir/ops/infer.h"

static enum npuc_status begin_text(struct ir_ctx *cx, const struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    for (int i = 0; i < n->n_in && s == NPUC_OK; i++)
        s = infer_dtype_is(cx, n, i, DT_STRING, DT_STRING);
    return s;
}

static enum npuc_status out_shaped(struct ir_ctx *cx, struct node *n, int i, enum dtype t, const struct shape *s)
{
    return s->rank < 0 ? infer_out_unknown(cx, n, i, t) : infer_out(cx, n, i, t, s);
}

static enum npuc_status regex_full_match_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = begin_text(cx, n);
    const struct shape x = infer_shape(n, 0);
    return s == NPUC_OK ? out_shaped(cx, n, 0, DT_BOOL, &x) : s;
}

static enum npuc_status string_concat_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = begin_text(cx, n);
    const struct shape a = infer_shape(n, 0), b = infer_shape(n, 1);
    struct shape y;
    if (s != NPUC_OK)
        return s;
    if (!infer_broadcast(cx, &a, &b, &y))
        return node_error(cx, n, D_SHAPE_MISMATCH, "inputs of types %s and %s do not broadcast",
                          type_text(cx, n->in[0].value->type), type_text(cx, n->in[1].value->type));
    return out_shaped(cx, n, 0, DT_STRING, &y);
}

static enum npuc_status string_normalizer_legal(struct ir_ctx *cx, struct node *n)
{
    return infer_attr_in(cx, n, "case_change_action", "NONE LOWER UPPER");
}

static enum npuc_status string_normalizer_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = begin_text(cx, n);
    struct shape x = infer_shape(n, 0);
    if (s != NPUC_OK || x.rank < 0)
        return s != NPUC_OK ? s : infer_out_unknown(cx, n, 0, DT_STRING);
    if (x.rank < 1 || x.rank > 2)
        return infer_rank_error(cx, n, 0, "[C] or [1, C]");
    if (x.rank == 2)
        x.d[0] = expr_const(&cx->exprs, 1);
    x.d[x.rank - 1] = infer_fresh(cx, n, 0, x.rank - 1);
    return infer_out(cx, n, 0, DT_STRING, &x);
}

static enum npuc_status string_split_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin_text(cx, n);
    struct shape x = infer_shape(n, 0);
    if (s == NPUC_OK)
        s = out_shaped(cx, n, 1, DT_I64, &x);
    if (s != NPUC_OK || x.rank < 0)
        return s != NPUC_OK ? s : infer_out_unknown(cx, n, 0, DT_STRING);
    if (x.rank >= IR_MAX_RANK)
        return infer_rank_error(cx, n, 0, "a lower rank");
    x.d[x.rank] = infer_fresh(cx, n, 0, x.rank);
    x.rank++;
    return infer_out(cx, n, 0, DT_STRING, &x);
}

/* ---- tokens to numbers */

static enum npuc_status tf_idf_vectorizer_legal(struct ir_ctx *cx, struct node *n)
{
    const struct attr *index = node_attr(n, "ngram_indexes");
    for (int64_t i = 0; index && i < index->len; i++)
        if (index->v.ints[i] < 0 || index->v.ints[i] >= INT32_MAX)
            return node_error(cx, n, D_ATTRIBUTE, "ngram_indexes hold %lld", (long long)index->v.ints[i]);
    return infer_attr_in(cx, n, "mode", "TF IDF TFIDF");
}

static enum npuc_status tf_idf_vectorizer_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = tf_idf_vectorizer_legal(cx, n);
    if (s == NPUC_OK && infer_dtype(n, 0) != DT_STRING)
        s = infer_dtype_is(cx, n, 0, DT_I32, DT_I64);
    if (s != NPUC_OK)
        return s;
    const struct attr *index = node_attr(n, "ngram_indexes");
    int64_t width = 0;
    for (int64_t i = 0; index && i < index->len; i++)
        width = index->v.ints[i] >= width ? index->v.ints[i] + 1 : width;
    struct shape x = infer_shape(n, 0);
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 0, DT_F32);
    if (x.rank > 2)
        return infer_rank_error(cx, n, 0, "[C] or [N, C]");
    x.rank = x.rank == 2 ? 2 : 1;
    x.d[x.rank - 1] = expr_const(&cx->exprs, width);
    return infer_out(cx, n, 0, DT_F32, &x);
}

static enum npuc_status label_encoder_infer(struct ir_ctx *cx, struct node *n)
{
    static const struct {
        const char *values;
        enum dtype t;
    } forms[] = {{"values_strings", DT_STRING}, {"values_int64s", DT_I64}, {"values_floats", DT_F32}};
    const enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct attr *tensor = node_attr(n, "values_tensor");
    enum dtype t = tensor && tensor->kind == ATTR_TENSOR ? tensor->v.t.type->dtype : DT_NONE;
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(forms); i++) {
        const struct attr *a = node_attr(n, forms[i].values);
        if (a && a->kind != ATTR_NONE)
            t = forms[i].t;
    }
    if (t == DT_NONE)
        return node_error(cx, n, D_ATTRIBUTE, "it has no values");
    const struct shape x = infer_shape(n, 0);
    return out_shaped(cx, n, 0, t, &x);
}

#include "ir/ops/rows.h"

#include "ir/ops/string.def"
