#include "tools/args.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/term.h"

static const struct arg_option common[] = {
    {"help", NULL, "this text"},
    {NULL, NULL, NULL},
};

static void print_options(const struct arg_option *o)
{
    for (; o->name; o++) {
        char left[64];
        bool letter = strlen(o->name) == 1;
        snprintf(left, sizeof left, "%s%s%s%s", letter ? "-" : "--", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("  %-28s %s\n", left, o->help);
    }
}

void command_help(const struct command *cmd)
{
    printf("npuc %s: %s\n\nusage: npuc %s %s\n\noptions:\n", cmd->name, cmd->what, cmd->name, cmd->usage);
    if (cmd->options)
        print_options(cmd->options);
    print_options(common);
    if (cmd->examples)
        printf("\nexamples:\n%s", cmd->examples);
}

static const struct arg_option *find(const struct arg_option *table, const char *name, size_t len)
{
    for (; table && table->name; table++)
        if (strlen(table->name) == len && strncmp(table->name, name, len) == 0)
            return table;
    return NULL;
}

static bool fail(const struct command *cmd, int *exit_code, const char *what, const char *which)
{
    term_error("npuc %s: %s%s%s (npuc %s --help)", cmd->name, what, which ? " " : "", which ? which : "", cmd->name);
    *exit_code = 2;
    return false;
}

/* One option at argv[*i]; *i moves over a separate value. */
static bool parse_option(const struct command *cmd, int argc, char **argv, int *i, struct args *out, int *exit_code)
{
    const char *text = argv[*i] + (argv[*i][1] == '-' ? 2 : 1);
    bool is_long = argv[*i][1] == '-';
    const char *eq = is_long ? strchr(text, '=') : NULL;
    size_t len = eq ? (size_t)(eq - text) : is_long ? strlen(text) : 1;
    const struct arg_option *o = find(cmd->options, text, len);
    if (!o || (!is_long && strlen(o->name) != 1) || (is_long && strlen(o->name) == 1))
        return fail(cmd, exit_code, "unknown option", argv[*i]);
    const char *value = eq ? eq + 1 : !is_long && text[1] ? text + 1 : NULL;
    if (!o->value && value)
        return fail(cmd, exit_code, "option takes no value:", argv[*i]);
    if (o->value && !value) {
        if (*i + 1 >= argc)
            return fail(cmd, exit_code, "option needs a value:", argv[*i]);
        value = argv[++*i];
    }
    struct arg_given g = {o, value};
    vec_push(&out->arena, &out->given, g);
    return true;
}

bool args_parse(const struct command *cmd, int argc, char **argv, struct args *out, int *exit_code)
{
    bool only_words = false;
    memset(out, 0, sizeof *out);
    arena_init(&out->arena, NULL);
    for (int i = 0; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            command_help(cmd);
            *exit_code = 0;
            args_free(out);
            return false;
        } else if (!only_words && argv[i][0] == '-' && argv[i][1]) {
            if (!parse_option(cmd, argc, argv, &i, out, exit_code)) {
                args_free(out);
                return false;
            }
        } else {
            vec_push(&out->arena, &out->words, argv[i]);
        }
    }
    return true;
}

void args_free(struct args *a)
{
    arena_free(&a->arena);
}

const char *args_value(const struct args *a, const char *name)
{
    const char *v = NULL;
    for (int64_t i = 0; i < a->given.len; i++)
        if (strcmp(a->given.data[i].option->name, name) == 0)
            v = a->given.data[i].value;
    return v;
}

bool args_flag(const struct args *a, const char *name)
{
    for (int64_t i = 0; i < a->given.len; i++)
        if (strcmp(a->given.data[i].option->name, name) == 0)
            return true;
    return false;
}

bool args_words(const struct command *cmd, const struct args *a, int64_t n, int *exit_code)
{
    if (a->words.len == n)
        return true;
    return fail(cmd, exit_code,
                a->words.len < n ? "an argument is missing; usage: npuc" : "too many arguments; usage: npuc",
                arena_printf((struct arena *)(uintptr_t)&a->arena, "%s %s", cmd->name, cmd->usage));
}

int args_wrong(const struct command *cmd, const char *text)
{
    term_error("npuc %s: %s (npuc %s --help)", cmd->name, text, cmd->name);
    return 2;
}

bool args_number(const struct command *cmd, const struct args *a, const char *name, struct arg_range r, int64_t *out,
                 int *exit_code)
{
    const char *v = args_value(a, name);
    char *end = NULL;
    errno = 0;
    *out = v ? strtoll(v, &end, 10) : r.otherwise;
    if (!v || (end != v && *end == '\0' && errno == 0 && *out >= r.least && *out <= r.most))
        return true;
    if (r.most == INT64_MAX)
        term_error("npuc %s: --%s takes a whole number from %" PRId64 " on, not %s", cmd->name, name, r.least, v);
    else
        term_error("npuc %s: --%s takes a whole number from %" PRId64 " to %" PRId64 ", not %s", cmd->name, name,
                   r.least, r.most, v);
    *exit_code = 2;
    return false;
}
