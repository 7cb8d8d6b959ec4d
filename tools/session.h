/* A plan and a session opened from the command line, with errors printed. */
#ifndef TOOLS_SESSION_H
#define TOOLS_SESSION_H

#include "base/diag.h"
#include "npuc/npurt.h"
#include "tools/args.h"

#define SESSION_OPTIONS                                                                                                \
    {"mode", "MODE", "data, clock or both; default data"},                                                             \
        {"threads", "N", "threads of the emulation; results do not depend on it"},                                     \
    {                                                                                                                  \
        "check-hazards", NULL, "check that flags order all accesses of the tile programs (slow)"                       \
    }

struct session {
    npurt_plan *plan;
    npurt_session *run;
    int mode;
    const char *path;
    const char *const *sets; /* changed constants that a session in mode clock was opened with, n_sets of them */
    int n_sets;
};
/* false after a message; *exit_code is set. `default_mode` where --mode is not given. */
bool session_open(struct session *s, const struct args *a, const char *path, int default_mode, int *exit_code);
void session_close(struct session *s);
int session_fail(const struct session *s, enum npuc_status status); /* prints the session's error; its exit code */
/* --input NAME=FILE options; -D NAME=SIZE options. */
bool session_inputs(struct session *s, struct args *a, struct diag *d, int *exit_code);
bool session_dims(struct session *s, const struct args *a, int *exit_code);

#endif
