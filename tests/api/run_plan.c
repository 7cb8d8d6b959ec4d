/* What a host program does with a plan: open, ask, bind, run in two modes, read outputs and the report. */
#include "consumer.h"

#include <npuc/npurt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES (1 << 20)
static const unsigned char zeros[MAX_BYTES];

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

/* Zeros in every input, dimensions as small as they may be but not empty. */
static int bind_zeros(npurt_plan *p, npurt_session *s)
{
    for (int i = 0; i < npurt_plan_inputs(p); i++) {
        const struct npurt_value *v = npurt_plan_input(p, i);
        int64_t dims[NPURT_MAX_RANK], n = 8;
        if (v->cache)
            continue;
        for (int d = 0; d < v->rank; d++) {
            dims[d] = v->dims[d].min > 0 ? v->dims[d].min : 1;
            n *= dims[d];
        }
        if (n > MAX_BYTES)
            return fail(v->name, "larger than this test provides for");
        if (npurt_set_input(s, v->name, v->dtype, v->rank, dims, zeros) != NPUC_OK)
            return fail(v->name, npurt_session_error(s));
    }
    return npurt_plan_input(p, npurt_plan_inputs(p)) ? fail("inputs", "one more than there are") : 0;
}

/* XOR-and-rotate over all outputs. */
static int digest(npurt_plan *p, npurt_session *s, uint64_t *sum)
{
    *sum = 0;
    for (int i = 0; i < npurt_plan_outputs(p); i++) {
        struct npurt_tensor t;
        const char *name = npurt_plan_output(p, i)->name;
        if (npurt_output(s, name, &t) != NPUC_OK)
            return fail(name, npurt_session_error(s));
        for (int64_t k = 0; k < t.size; k++)
            *sum = (*sum << 7 | *sum >> 57) ^ ((const unsigned char *)t.data)[k];
    }
    return 0;
}

static int run_once(npurt_plan *p, int mode, int threads, uint64_t *sum)
{
    struct npurt_options o;
    npurt_session *s = NULL;
    memset(&o, 0, sizeof o);
    o.mode = mode;
    o.threads = threads;
    int code = npurt_session_new(p, &o, &s) == NPUC_OK ? bind_zeros(p, s) : fail("session", "not made");
    if (code == 0 && npurt_run(s) != NPUC_OK)
        code = fail("run", npurt_session_error(s));
    if (code == 0 && npurt_set_input(s, "no such input", NPURT_F32, 0, NULL, zeros) == NPUC_OK)
        code = fail("input", "a name that does not exist was accepted");
    if (code == 0)
        code = digest(p, s, sum);
    if (code == 0 && mode == NPURT_BOTH && npurt_report(s)->cycles <= 0)
        code = fail("report", "no cycles");
    npurt_session_free(s);
    return code;
}

int run_plan(const char *path)
{
    npurt_plan *p = NULL;
    uint64_t first = 0, second = 1;
    if (npurt_plan_open(path, &p) != NPUC_OK) {
        fprintf(stderr, "%s\n", p ? npurt_plan_error(p) : "out of memory");
        npurt_plan_close(p);
        return 1;
    }
    int code = run_once(p, NPURT_DATA, 1, &first);
    if (code == 0)
        code = run_once(p, NPURT_BOTH, 2, &second);
    if (code == 0 && first != second)
        code = fail("outputs", "modes data and both differ");
    npurt_plan_close(p);
    if (code == 0)
        printf("%s: %016llx\n", path, (unsigned long long)first);
    return code;
}
