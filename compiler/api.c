/* npuc.h on top of struct compilation. */
#include <stdlib.h>
#include <string.h>

#include "compiler/compile.h"

struct npuc_compiler {
    struct compilation c;
    struct arena messages_arena;
    VEC(char) messages;
};

static void collect(void *user, const char *line)
{
    npuc_compiler *n = user;
    for (const char *s = line; *s; s++)
        vec_push(&n->messages_arena, &n->messages, *s);
    vec_push(&n->messages_arena, &n->messages, '\n');
}

npuc_compiler *npuc_compiler_new(void)
{
    npuc_compiler *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    compilation_init(&n->c);
    arena_init(&n->messages_arena, NULL);
    diag_init(&n->c.diag, collect, n);
    return n;
}

void npuc_compiler_free(npuc_compiler *n)
{
    if (!n)
        return;
    compilation_free(&n->c);
    arena_free(&n->messages_arena);
    free(n);
}

enum npuc_status npuc_set(npuc_compiler *n, const char *option, const char *value)
{
    return compilation_set(&n->c, option, value);
}

enum npuc_status npuc_compile(npuc_compiler *n, const char *model, const char *plan)
{
    return compilation_write(&n->c, model, plan);
}

const char *npuc_messages(const npuc_compiler *n)
{
    npuc_compiler *m = (npuc_compiler *)(uintptr_t)n;
    if (m->messages.len == 0 || m->messages.data[m->messages.len - 1] != '\0') {
        vec_push(&m->messages_arena, &m->messages, '\0');
        m->messages.len--;
    }
    return m->messages.len ? m->messages.data : "";
}

void npuc_on_progress(npuc_compiler *n, npuc_progress_fn *fn, void *user)
{
    n->c.progress = fn;
    n->c.progress_user = user;
}

int npuc_targets(const char *const **names)
{
    return target_list(names);
}

const char *npuc_version(void)
{
    return "0.1.0";
}
