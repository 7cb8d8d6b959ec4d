/* The part of `npuc check`'s report about rewrites. */
#include <stdio.h>

#include "tools/json.h"
#include "tools/rewrite/rewrite.h"

enum { NAMES_SHOWN = 4 };

static void print_effect(const struct coverage *v, const struct rewriting *r, const char *item)
{
    for (int t = 0; t < v->n_targets; t++) {
        const struct cov_target *b = &v->target[t], *n = &r->after->target[t];
        const long long all_b = b->n[COV_NPU] + b->n[COV_HOST] + b->n[COV_BAD];
        const long long all_n = n->n[COV_NPU] + n->n[COV_HOST] + n->n[COV_BAD];
        printf("%s%s: %lld of %lld nodes on the NPU -> %lld of %lld", item, b->id, (long long)b->n[COV_NPU], all_b,
               (long long)n->n[COV_NPU], all_n);
        if (b->timed && n->timed)
            printf(", %.1f %% of the time -> %.1f %%, %.3f ms -> %.3f ms", 100 * coverage_time_share(b),
                   100 * coverage_time_share(n), b->us / 1e3, n->us / 1e3);
        putchar('\n');
    }
}

static void print_applied(const struct rewriting *r, const char *item)
{
    for (int64_t i = 0; i < r->applied.len; i++) {
        const struct rewritten *x = &r->applied.data[i];
        printf("%s%s, %lld node%s: ", item, x->what, (long long)x->nodes.len, x->nodes.len == 1 ? "" : "s");
        for (int64_t k = 0; k < x->nodes.len && k < NAMES_SHOWN; k++)
            printf("%s%s", k ? ", " : "", x->nodes.data[k]);
        puts(x->nodes.len > NAMES_SHOWN ? ", ..." : "");
    }
    if (r->fixed)
        printf("%ssizes are fixed: %s\n", item, r->fixed);
}

static void print_check(const struct verification *v, const char *item)
{
    printf("%ssame results on %d sets of random inputs%s%s: largest difference %.3g, relative %.3g, allowed %.3g\n",
           item, v->sets, *v->sizes ? ", " : "", v->sizes, v->abs, v->rel, v->tolerance);
}

void rewriting_print(const struct coverage *v, const struct rewriting *r, bool markdown)
{
    const char *item = markdown ? "- " : "  ";
    printf(markdown ? "### Rewrites\n\n" : "Rewrites\n");
    print_applied(r, item);
    if (r->refused)
        printf("%snot written: %s\n", item, r->refused);
    else if (r->after) {
        print_check(&r->check, item);
        print_effect(v, r, item);
        printf("%swritten: %s\n", item, r->out);
    }
    putchar('\n');
}

static json_t *applied_json(const struct rewriting *r)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < r->applied.len; i++) {
        const struct rewritten *x = &r->applied.data[i];
        json_t *o = json_object(), *nodes = json_array();
        for (int64_t k = 0; k < x->nodes.len; k++)
            json_array_append_new(nodes, json_text(x->nodes.data[k]));
        json_put(o, "rewrite", json_text(x->name));
        json_put(o, "what", json_text(x->what));
        json_put(o, "nodes", nodes);
        json_array_append_new(list, o);
    }
    return list;
}

json_t *rewriting_json(const struct rewriting *r)
{
    json_t *o = json_object();
    json_put(o, "applied", applied_json(r));
    json_put(o, "fixed", json_text(r->fixed));
    json_put(o, "written", json_text(r->after ? r->out : NULL));
    json_put(o, "refused", json_text(r->refused));
    json_put(o, "sets", json_integer(r->check.sets));
    json_put(o, "max_abs", json_real(r->check.abs < 1e300 ? r->check.abs : 1e300));
    json_put(o, "max_rel", json_real(r->check.rel < 1e300 ? r->check.rel : 1e300));
    json_put(o, "tolerance", json_real(r->check.tolerance));
    json_t *after = r->after ? coverage_json(r->after) : NULL;
    json_put(o, "after", after ? json_incref(json_object_get(after, "targets")) : json_null());
    json_decref(after);
    return o;
}
