/* What a step of attention takes on the cube core beside its loads: the longest of the copies to L0, the products and
 * the stores, when they overlap. Ranks extents; the clock does the timing. */
#include "backend/ascend/attention.h"
#include "base/size.h"

struct load {
    double copies, macs, stores; /* cycles of the units in a step */
    int64_t blocks;              /* of results */
};

/* One of the two products, in blocks of m x n results and steps of K. */
static void add(const struct machine *mc, enum dtype dtype, const int64_t shape[3], const int64_t block[3],
                struct load *to)
{
    const struct target *g = mc->target;
    const int64_t columns = size_ceil_div(shape[1], block[1]), steps = size_ceil_div(shape[2], block[2]);
    const double es = (double)dtype_size(dtype), n = (double)size_min(block[1], shape[1]),
                 k = (double)size_min(block[2], shape[2]), results = (double)shape[0] * n;
    const double copy = ((double)shape[0] * k) * es / target_num(g, TK_MTE1_L0A_RATE) +
                        n * k * es / target_num(g, TK_MTE1_L0B_RATE) + 2 * target_num(g, TK_MTE1_LATENCY);
    const double by_bytes = 4 * results / target_num(g, TK_FIX_RATE),
                 by_number = results / target_num(g, TK_FIX_ELEMENTS);
    to->copies += copy * (double)(columns * steps);
    to->macs += results * k / target_num(g, dtype == DT_F32 ? TK_MAC_F32 : TK_MAC_F16) * (double)(columns * steps);
    to->stores += (target_num(g, TK_FIX_LATENCY) + (by_bytes > by_number ? by_bytes : by_number)) * (double)columns;
    to->blocks += columns;
}

double att_step_cycles(const struct machine *m, const struct att *a, const struct att_tile *t)
{
    struct load all = {0};
    add(m, a->in, (const int64_t[3]){t->m, ATTEND_CHUNK, a->size}, (const int64_t[3]){t->m, t->n, t->k0}, &all);
    add(m, a->prob, (const int64_t[3]){t->m, a->v_size, ATTEND_CHUNK}, (const int64_t[3]){t->m, t->pn, t->pk}, &all);
    /* An accumulator comes again after `between` blocks: by then it is filled, stored and usable once more. The step
     * after begins with the first of them. */
    const int64_t rest = all.blocks % t->accs, between = all.blocks > t->accs && rest ? rest : t->accs;
    const double turn = (all.macs + all.stores + (double)all.blocks * target_num(m->target, TK_FIX_TURNROUND)) /
                        (double)size_min(between, all.blocks);
    double most = turn;
    const double units[] = {all.copies, all.macs, all.stores};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(units); i++)
        most = units[i] > most ? units[i] : most;
    return most;
}
