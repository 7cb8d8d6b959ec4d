/* What the parts of the search share. */
#ifndef TOOLS_ANALYSIS_SEARCH_PRIV_H
#define TOOLS_ANALYSIS_SEARCH_PRIV_H

#include "tools/analysis/plan.h"
#include "tools/analysis/search.h"

enum { SEARCH_SCHEMES = 16 };
enum search_limit { LIMIT_DROP, LIMIT_BYTES, LIMIT_US };
struct search_option {
    double loss, bytes, us;
};
/* Products that read one value, or all KV caches. */
struct search_unit {
    bool caches;
    VEC(int64_t) products;
    struct search_option options[SEARCH_SCHEMES + 1]; /* [0]: kept */
    double noise[SEARCH_SCHEMES + 1];                 /* local, summed over the products */
    int coarsest;
    int choice; /* of the point at hand; an index of options */
};
/* A point of the way: all units' choices before this change, then it. */
struct search_point {
    int64_t unit;
    int before, after;
    double loss, bytes, us; /* predicted, of all units */
    bool measured, compiled;
    struct effect_summary effect;
    struct plan_figures plan;
};
struct search {
    const struct search_request *ask;
    struct arena *arena;
    struct analysis an;
    enum search_limit limit;
    double most;                             /* of what is limited */
    bool by_time;                            /* the cost that a limited drop brings down */
    const char *schemes[SEARCH_SCHEMES + 1]; /* [0]: "keep" */
    struct quantiser bases[SEARCH_SCHEMES + 1];
    int n_schemes;                       /* without keep */
    bool for_caches[SEARCH_SCHEMES + 1]; /* is the scheme one of caches (quant/caches.def)? */
    int64_t *unit_of;                    /* of each product */
    VEC(struct search_unit) units;       /* in the order of the graph, caches last */
    VEC(struct search_point) way;        /* [0]: everything kept */
    struct quantiser mix;                /* of the point at hand */
    int64_t chosen;                      /* of way */
    const char *folder;                  /* of recipes of single schemes */
    const char **files;                  /* all that may be in it, then itself; n_files */
    int n_files;
};
/* search_units.c: units and what their choices cost and lose. */
struct search_unit *search_caches(const struct search *s); /* the unit of caches; NULL: no scheme is for them */
bool search_make_units(struct search *s, int *exit_code);
/* search_way.c: the way, and the point on it that the limit picks. */
void search_make_way(struct search *s);
bool search_choose(struct search *s, int *exit_code);
void search_go_to(struct search *s, int64_t point); /* sets choices */
/* search_write.c: the recipe of the chosen point, and reports. */
bool search_write(struct search *s, int *exit_code);
void search_print(const struct search *s);
json_t *search_json(const struct search *s);

#endif
