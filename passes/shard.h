/* How values lie over the devices that share a model: what the rules of operators (shard_rules.c) and the pass
 * (shard.c) tell each other. */
#ifndef PASSES_SHARD_H
#define PASSES_SHARD_H

#include "passes/pass.h"

/* A device has the whole value; its part of axis `axis`; or whole rows of summands, whose sum over the devices is the
 * value. */
enum cut_kind { CUT_WHOLE, CUT_SPLIT, CUT_PARTIAL };
struct cut {
    enum cut_kind kind;
    int axis;     /* of SPLIT, else 0 */
    int64_t ways; /* devices that have different parts; 1 of WHOLE */
    int32_t seed; /* node whose weight was divided so that this came; -1: none */
};
#define CUT_NONE ((struct cut){.kind = CUT_WHOLE, .ways = 1, .seed = -1})

struct shard {
    struct pass_ctx *px;
    struct division *d;
    struct graph *g;
    struct cut *cut;   /* by value: how it lies */
    struct cut **want; /* by node: how it wants its operands */
    int64_t *most;     /* by node: devices that its weight may be divided over; 0: not told */
    const char **why;  /* by node: the reason when they became fewer */
    double *gathered;  /* by node: 1 when what it made had to be brought together before another product took it */
    int64_t n_values, n_nodes;
    double weight_bytes; /* of all constants */
    bool again;          /* something became less divided */
    struct map brought;  /* values in other cuts */
};

/* One node under analysis; want and out are CUT_NONE to begin with. */
struct shard_node {
    struct shard *s;
    struct node *n;
    struct cut *want; /* n_in */
    struct cut *out;  /* n_out */
};

struct shard_rule {
    enum op op;
    void (*read)(struct shard_node *c);
    /* After operands came to lie as wanted: what else of the node speaks of sizes. May be NULL. */
    enum npuc_status (*apply)(struct shard_node *c);
};
/* Never NULL: an operator without a rule takes whole operands. */
const struct shard_rule *shard_rule_of(const struct node *n);

/* ---- for the rules ---- */
struct cut shard_split(int axis, const struct cut *like);         /* over the devices of `like` */
struct cut shard_cut(const struct shard_node *c, int i);          /* of operand i; CUT_NONE when absent */
bool shard_is_weight(const struct value *v);                      /* a constant, or made of one by moving or decoding */
double shard_bytes(const struct shard *s, const struct value *v); /* 0 when not constant */
/* May `size` be divided as `c` says? If not, its seed is divided over fewer devices, for the reason `what`. */
bool shard_divides(struct shard_node *c, struct cut *cut, expr size, const char *what);
void shard_lower(struct shard_node *c, int32_t seed, int64_t ways, const char *what);
/* Devices for the product itself to divide its weight over, which has `size` columns; 1: none. */
int64_t shard_ways(struct shard_node *c, expr size);
/* The part of a constant weight, as `c` says, before what b inserts; NULL after a reported error. */
struct value *shard_weight(struct shard *s, struct builder *b, struct value *v, const struct cut *c);
/* Part of size. */
expr shard_part(const struct shard *s, expr size, int64_t ways);
/* The dims of a value cut so. */
void shard_dims(const struct shard *s, const struct type *t, const struct cut *c, expr out[IR_MAX_RANK]);

/* ---- rules of shard_heads.c ---- */
void shard_rotary(struct shard_node *c);
void shard_attention(struct shard_node *c);
void shard_grouped_query(struct shard_node *c);
void shard_multi_head(struct shard_node *c);
enum npuc_status shard_fewer_heads(struct shard_node *c);

#endif
