#include "runtime/comm.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *op;
    enum comm_kind kind;
} collectives[] = {{"AllGather", COMM_ALL_GATHER}, {"AllReduce", COMM_ALL_REDUCE}, {"AllToAll", COMM_ALL_TO_ALL}};

enum comm_kind comm_of(const char *op)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(collectives); i++)
        if (strcmp(collectives[i].op, op) == 0)
            return collectives[i].kind;
    return COMM_NONE;
}

static double given(const struct target *t, enum target_key k, double otherwise)
{
    const double v = target_num(t, k);
    return isnan(v) ? otherwise : v;
}

bool comm_reaches(const struct target *t, int64_t devices, const char **why)
{
    *why = isnan(target_num(t, TK_LINK_PEER))                             ? "it has no link.peer"
           : (double)devices > given(t, TK_LINK_DEVICES, (double)devices) ? "its link.devices are fewer"
                                                                          : NULL;
    return *why == NULL;
}

/* Seconds until every device has told every other one `bytes`: to its pair over link.pair, to the others at link.peer
 * over as many ports as there are, at the same time. */
static double exchange(const struct target *t, int64_t ranks, double bytes)
{
    const double peer = target_num(t, TK_LINK_PEER), pair = given(t, TK_LINK_PAIR, 0);
    const double ports = given(t, TK_LINK_PORTS, 1), others = (double)ranks - (pair > 0 ? 2 : 1);
    const double rate = peer * fmin(ports, fmax(others, 1)), far = others * bytes / rate;
    return given(t, TK_LINK_PEER_LATENCY, 0) + (pair > 0 ? fmax(far, bytes / pair) : far);
}

double comm_us(const struct target *t, enum comm_kind kind, int64_t ranks, double bytes)
{
    const double launch = target_num(t, TK_LAUNCH);
    double s = 0;
    if (ranks < 2 || kind == COMM_NONE)
        return 0;
    switch (kind) {
    case COMM_ALL_REDUCE: /* everything at once, or parts that are summed and then gathered */
        s = fmin(exchange(t, ranks, bytes), 2 * exchange(t, ranks, bytes / (double)ranks));
        break;
    case COMM_ALL_GATHER: s = exchange(t, ranks, bytes); break;
    case COMM_ALL_TO_ALL: s = exchange(t, ranks, bytes / (double)ranks); break;
    case COMM_SEND: s = given(t, TK_LINK_PEER_LATENCY, 0) + bytes / target_num(t, TK_LINK_PEER); break;
    case COMM_NONE: break;
    }
    return (launch + s) * 1e6;
}
