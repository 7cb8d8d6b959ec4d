/* A model over several devices: what is asked for, and what its times and memory are then. Products, heads and caches
 * are divided by the pass `shard`, experts by `spread_experts`, which put collectives into the plan of one device;
 * stages are ranges of its steps. Everything of it is a model: see docs/clock.md. */
#ifndef TOOLS_SPREAD_H
#define TOOLS_SPREAD_H

#include "passes/division.h"
#include "tools/args.h"
#include "tools/json.h"
#include "tools/session.h"

#define SPREAD_OPTIONS                                                                                                 \
    {"devices", "N",                                                                                                   \
     "the model over N devices of the target, modelled: over all that --pp leaves unless --tp says so"},               \
        {"tp", "N", "products, heads and caches divided over N devices (tensor parallel), modelled"},                  \
        {"ep", "N",                                                                                                    \
         "N groups of devices that share the experts, each with sequences of its own (expert parallel), modelled"},    \
    {                                                                                                                  \
        "pp", "N", "layers in N stages one after the other (pipeline parallel), modelled"                              \
    }

#define SPREAD_STAGES 64
struct spread {
    int64_t devices, tensor, expert, pipeline; /* all 1: one device */
    struct division division;
};
/* Reads the options; false after a message. */
bool spread_read(struct spread *s, const struct command *cmd, const struct args *a, int *exit_code);
static inline bool spread_is_one(const struct spread *s)
{
    return s->devices == 1;
}
/* Has the target links for them, and did the division find what it needs? */
bool spread_check(const struct spread *s, const struct session *session, int *exit_code);
const char *spread_text(const struct spread *s, struct arena *a); /* "8 devices (tp 8), modelled" */
json_t *spread_json(const struct spread *s);

/* Sequences that a device takes at once of `batch`, and how often until all are through a stage. */
int64_t spread_batch(const struct spread *s, int64_t batch);
int64_t spread_turns(const struct spread *s, int64_t batch);

/* What the steps of the last run took. */
struct spread_run {
    double us, link_us;  /* of all steps; of them over links */
    int64_t n;           /* steps of the entry; 0 when there is one stage */
    double *step, *over; /* microseconds of each; bytes that live across its begin */
};
struct spread_run spread_run_of(const struct spread *s, const struct session *session, struct arena *a);
struct spread_stages {
    int n;
    int64_t begin[SPREAD_STAGES + 1]; /* steps; the last one is their number */
};
/* Stages of about the same time, cut where little lives. */
struct spread_stages spread_divide(const struct spread *s, const struct spread_run *r);
/* Microseconds until all turns are through all stages; `again`: turns begin anew as soon as they are through, and it is
 * the time of one round of all. */
double spread_us(const struct spread_run *r, const struct spread_stages *t, const struct session *session,
                 int64_t turns, bool again);
/* Bytes of weights and of caches, `cache` for each of the entry, of the stage that has most of both. */
void spread_memory(const struct spread_stages *t, const struct session *session, const double *cache, double *weights,
                   double *caches);

#endif
