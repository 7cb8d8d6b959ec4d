#include "tools/session.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/tensor_io.h"
#include "tools/term.h"

static bool usage(int *exit_code, const char *what, const char *which)
{
    term_error("npuc: %s: %s", what, which);
    *exit_code = 2;
    return false;
}

static bool read_mode(const char *text, int *mode)
{
    static const struct {
        const char *name;
        int mode;
    } modes[] = {{"data", NPURT_DATA}, {"clock", NPURT_CLOCK}, {"both", NPURT_BOTH}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(modes); i++) {
        if (strcmp(modes[i].name, text) == 0) {
            *mode = modes[i].mode;
            return true;
        }
    }
    return false;
}

static int default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 16 ? 16 : (int)n;
}

bool session_open(struct session *s, const struct args *a, const char *path, int default_mode, int *exit_code)
{
    struct npurt_options o = {
        .mode = default_mode, .threads = default_threads(), .check_hazards = args_flag(a, "check-hazards")};
    const char *mode = args_value(a, "mode"), *threads = args_value(a, "threads");
    *s = (struct session){.path = path};
    if (mode && !read_mode(mode, &o.mode))
        return usage(exit_code, "--mode takes data, clock or both, not", mode);
    char *end = NULL;
    if (threads && ((o.threads = (int)strtol(threads, &end, 10)) < 1 || *end || o.threads > 1024))
        return usage(exit_code, "--threads takes a number of 1 to 1024, not", threads);
    s->mode = o.mode;
    enum npuc_status st = npurt_plan_open(path, &s->plan);
    if (st != NPUC_OK) {
        term_error("%s", s->plan ? npurt_plan_error(s->plan) : "npuc: out of host memory");
        *exit_code = diag_exit_code(st);
        return false;
    }
    st = npurt_session_new(s->plan, &o, &s->run);
    if (st != NPUC_OK) {
        *exit_code = session_fail(s, st);
        return false;
    }
    return true;
}

void session_close(struct session *s)
{
    npurt_session_free(s->run);
    npurt_plan_close(s->plan);
}

int session_fail(const struct session *s, enum npuc_status status)
{
    const char *text = s->run ? npurt_session_error(s->run) : "out of host memory";
    bool named = strstr(text, s->path) != NULL;
    term_error("%s%s%s", named ? "" : s->path, named ? "" : ": ", text);
    return diag_exit_code(status);
}

static const struct npurt_value *find_input(const struct session *s, const char *name)
{
    for (int i = 0; i < npurt_plan_inputs(s->plan); i++)
        if (strcmp(npurt_plan_input(s->plan, i)->name, name) == 0)
            return npurt_plan_input(s->plan, i);
    return NULL;
}

static bool unknown_input(const struct session *s, struct args *a, const char *name, int *exit_code)
{
    const char *list = "";
    int n = npurt_plan_inputs(s->plan);
    for (int i = 0; i < n && i < 8; i++)
        list = arena_printf(&a->arena, "%s%s'%s'", list, i ? ", " : "", npurt_plan_input(s->plan, i)->name);
    term_error("%s: no input '%s'; inputs: %s%s", s->path, name, list, n > 8 ? ", ..." : "");
    *exit_code = 2;
    return false;
}

static bool one_input(struct session *s, struct args *a, struct diag *d, const char *spec, int *exit_code)
{
    const char *eq = NULL;
    /* the name may hold '=': the longest prefix that is an input counts */
    for (const char *p = strchr(spec, '='); p; p = strchr(p + 1, '='))
        if (!eq || find_input(s, arena_strndup(&a->arena, spec, p - spec)))
            eq = p;
    if (!eq)
        return usage(exit_code, "--input takes NAME=FILE, not", spec);
    const char *name = arena_strndup(&a->arena, spec, eq - spec);
    const struct npurt_value *v = find_input(s, name);
    if (!v)
        return unknown_input(s, a, name, exit_code);
    struct k_tensor t;
    enum npuc_status st = tensor_read(eq + 1, name, &a->arena, d, &t);
    if (st != NPUC_OK) {
        *exit_code = diag_exit_code(st);
        return false;
    }
    st = npurt_set_input(s->run, name, dtype_table[t.dtype].onnx, t.rank, t.dims, t.data ? t.data : "");
    if (st != NPUC_OK) {
        term_error("%s: %s", eq + 1, npurt_session_error(s->run));
        *exit_code = diag_exit_code(st);
        return false;
    }
    return true;
}

bool session_inputs(struct session *s, struct args *a, struct diag *d, int *exit_code)
{
    for (int64_t i = 0; i < a->given.len; i++)
        if (strcmp(a->given.data[i].option->name, "input") == 0 &&
            !one_input(s, a, d, a->given.data[i].value, exit_code))
            return false;
    return true;
}

bool session_dims(struct session *s, const struct args *a, int *exit_code)
{
    for (int64_t i = 0; i < a->given.len; i++) {
        const char *v = a->given.data[i].value, *eq = v ? strchr(v, '=') : NULL;
        char name[256], *end = NULL;
        if (strcmp(a->given.data[i].option->name, "D") != 0)
            continue;
        if (!eq || eq - v >= (long)sizeof name)
            return usage(exit_code, "-D takes NAME=SIZE, not", v);
        memcpy(name, v, (size_t)(eq - v));
        name[eq - v] = '\0';
        long long size = strtoll(eq + 1, &end, 10);
        if (end == eq + 1 || *end || size < 0)
            return usage(exit_code, "-D takes NAME=SIZE, not", v);
        enum npuc_status st = npurt_set_symbol(s->run, name, size);
        if (st != NPUC_OK) {
            *exit_code = session_fail(s, st);
            return false;
        }
    }
    return true;
}
