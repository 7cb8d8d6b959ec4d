/* Recipes: operators written as a sequence of other core operators.
 *
 * One text serves twice. The kernel of such an operator runs the recipe on tensors (k_op_recipe); a pass writes the
 * same recipe into the graph as nodes (passes/lower_recipe.c). So an operator on the cores and its kernel give the same
 * bits, and a recipe knows neither tensors nor nodes: it sees handles.
 *
 * A recipe returns NPUC_OK with its outputs set, or an error with a message (r_fail). When a pass meets an error the
 * node stays what it is and its kernel runs on the host. After a failed step every other step returns NULL. */
#ifndef KERNELS_RECIPE_H
#define KERNELS_RECIPE_H

#include "kernels/tensor.h"

typedef const void *rval; /* a tensor or a value */
typedef int64_t rdim;     /* a size: a number, or an expression */

enum { R_MAX_OUT = 4, R_MAX_STATE = 2, R_MAX_ITEMS = 6, R_MAX_STACKED = 3 };

struct recipe;
/* One iteration: item[i] is scan->item[i] without its first axis; sets next[n_state] and stacked[n_stacked]. */
typedef void r_body(struct recipe *r, void *arg, const rval *state, const rval *item, rval *next, rval *stacked);
struct r_scan {
    int n_state, n_item, n_stacked;
    rval state[R_MAX_STATE];     /* before the first iteration; then after the last */
    rval item[R_MAX_ITEMS];      /* walked along axis 0 */
    rval stacked[R_MAX_STACKED]; /* results of all iterations along a new axis 0, in the items' order */
    bool reverse;                /* from the last item to the first */
    r_body *body;
    void *arg;
};

/* Who carries a recipe out. NULL results: the step failed and r->status is set. */
struct r_driver {
    rval (*node)(struct recipe *r, const char *op, int n_in, const rval *in, int n_attrs, const struct k_attr *attrs);
    rval (*constant)(struct recipe *r, enum dtype t, int rank, const int64_t *dims, const void *data);
    rval (*sizes)(struct recipe *r, const rdim *d, int n); /* i64 [n] */
    void (*scan)(struct recipe *r, struct r_scan *s);
    enum dtype (*type)(rval v);
    int (*rank)(rval v);
    rdim (*dim)(struct recipe *r, rval v, int axis);
    bool (*whole)(struct recipe *r, rval v, int64_t index, int64_t *out); /* element of an integer tensor, if known */
    bool (*known)(struct recipe *r, rdim d, int64_t *out);
    rdim (*number)(struct recipe *r, int64_t v);
    rdim (*combine)(struct recipe *r, char op, rdim a, rdim b); /* + - * / (floor) */
};
struct recipe {
    const struct r_driver *d;
    struct k_call *c;    /* attributes, numbers of inputs and outputs, arena, message; tensors for the kernel only */
    void *cx;            /* the driver's */
    rval in[16];         /* NULL: absent */
    rval out[R_MAX_OUT]; /* only those that are wanted need to be set */
    enum npuc_status status; /* first failure */
};
typedef enum npuc_status recipe_fn(struct recipe *r);
recipe_fn *recipe_find(const char *op); /* NULL: the operator has none */

#define RECIPE(op, fn) recipe_fn fn;
#include "kernels/recipes.def"
#undef RECIPE

enum npuc_status r_fail(struct recipe *r, const char *fmt, ...) NPUC_PRINTF(2, 3);

/* Steps in one call each */
rval r1(struct recipe *r, const char *op, rval x);
rval r2(struct recipe *r, const char *op, rval x, rval y);
rval r3(struct recipe *r, const char *op, rval x, rval y, rval z);
rval r_attr1(struct recipe *r, const char *op, rval x, struct k_attr a); /* with one attribute */
rval r_node(struct recipe *r, const char *op, int n_in, const rval *in, int n_attrs, const struct k_attr *attrs);
struct k_attr r_int(const char *name, int64_t v);
rval r_cast(struct recipe *r, rval x, enum dtype t);   /* x itself when it has the type */
rval r_real(struct recipe *r, enum dtype t, double v); /* scalar constant */
rval r_ints(struct recipe *r, const int64_t *v, int64_t n);
rval r_full(struct recipe *r, enum dtype t, double v, const rdim *d, int n); /* a tensor of equal elements */
rval r_zeros(struct recipe *r, enum dtype t, const rdim *d, int n);
rval r_shape(struct recipe *r, rval x, const rdim *d, int n); /* Reshape */
rval r_perm(struct recipe *r, rval x, int n, const int64_t *perm);
rval r_swap(struct recipe *r, rval x); /* the last two axes */
rval r_unsqueeze(struct recipe *r, rval x, int64_t axis);
rval r_squeeze(struct recipe *r, rval x, int64_t axis);
rval r_slice(struct recipe *r, rval x, int64_t axis, int64_t from, int64_t to);
rval r_slice_dims(struct recipe *r, rval x, int64_t axis, rdim from, rdim to);
rval r_concat(struct recipe *r, const rval *x, int n, int64_t axis);
rval r_sum(struct recipe *r, rval x, const int64_t *axes, int64_t n, bool keep); /* ReduceSum; n 0: over all axes */
rval r_expand(struct recipe *r, rval x, const rdim *d, int n);
rdim r_dim(struct recipe *r, rval x, int axis); /* axis from the end when negative */
bool r_size(struct recipe *r, rval x, int axis, int64_t *out);
enum dtype r_type(struct recipe *r, rval x);
int r_rank(struct recipe *r, rval x);
enum dtype r_wide(enum dtype t); /* what a recipe computes in: f64 for f64, else f32 */

#endif
