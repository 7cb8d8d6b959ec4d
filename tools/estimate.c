#include "tools/estimate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/term.h"

static bool open_session(struct session *s, const struct npurt_options *o, int *exit_code)
{
    enum npuc_status st = npurt_session_new(s->plan, o, &s->run);
    if (st != NPUC_OK)
        *exit_code = session_fail(s, st);
    return st == NPUC_OK;
}

/* A plan without weights is small; it goes through a file, so that what is timed is what a plan holds. */
static bool temporary_path(char *path, size_t size, int *exit_code)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, size, "%s/npuc-estimate-XXXXXX", dir && dir[0] ? dir : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0) {
        term_error("npuc: cannot make a temporary file in %s", dir && dir[0] ? dir : "/tmp");
        *exit_code = 6;
        return false;
    }
    close(fd);
    return true;
}

bool estimate_model(struct compilation *c, const char *model, struct session *s, int *exit_code)
{
    char path[4096];
    *s = (struct session){.path = model, .mode = NPURT_CLOCK};
    c->options.allow_missing_data = c->options.without_weights = true;
    if (!temporary_path(path, sizeof path, exit_code))
        return false;
    term_hold(&(const char *){path}, 1);
    enum npuc_status st = compilation_write(c, model, path);
    if (st == NPUC_OK) {
        st = npurt_plan_open(path, &s->plan);
        if (st != NPUC_OK)
            term_error("%s", s->plan ? npurt_plan_error(s->plan) : "npuc: out of host memory");
    }
    unlink(path);
    term_release();
    *exit_code = diag_exit_code(st);
    return st == NPUC_OK && open_session(s, &(struct npurt_options){.mode = NPURT_CLOCK}, exit_code);
}

bool estimate_plan(const char *path, const struct args *a, struct session *s, int *exit_code)
{
    VEC(const char *) sets = {0};
    *s = (struct session){.path = path, .mode = NPURT_CLOCK};
    struct arena *arena = (struct arena *)(uintptr_t)&a->arena;
    for (int64_t i = 0; i < a->given.len; i++)
        if (strcmp(a->given.data[i].option->name, "set") == 0)
            vec_push(arena, &sets, a->given.data[i].value);
    s->sets = sets.data;
    s->n_sets = (int)sets.len;
    enum npuc_status st = npurt_plan_open(path, &s->plan);
    if (st != NPUC_OK) {
        term_error("%s", s->plan ? npurt_plan_error(s->plan) : "npuc: out of host memory");
        *exit_code = diag_exit_code(st);
        return false;
    }
    return open_session(
        s, &(struct npurt_options){.mode = NPURT_CLOCK, .target_set = s->sets, .n_target_set = s->n_sets}, exit_code);
}
