/* Command lines: a table of options per command makes the parser and --help. */
#ifndef TOOLS_ARGS_H
#define TOOLS_ARGS_H

#include "base/arena.h"
#include "base/vec.h"

struct arg_option {
    const char *name;  /* "target": --target T; one letter: -o FILE */
    const char *value; /* placeholder in --help, NULL: a flag */
    const char *help;
};
struct command {
    const char *name, *what;          /* one line for `npuc --help` */
    const char *usage;                /* "MODEL -o PLAN [options]" */
    const char *examples;             /* lines that run as printed */
    const struct arg_option *options; /* ends with name NULL */
    int (*run)(const struct command *cmd, int argc, char **argv);
};
struct arg_given {
    const struct arg_option *option;
    const char *value;
};
struct args {
    struct arena arena;
    VEC(struct arg_given) given; /* in order */
    VEC(const char *) words;     /* positional */
};

/* Parses; on --help prints it and returns 0 in *exit_code with false; on an error prints one line and returns 2. */
bool args_parse(const struct command *cmd, int argc, char **argv, struct args *out, int *exit_code);
void args_free(struct args *a);
const char *args_value(const struct args *a, const char *name); /* last given, or NULL */
bool args_flag(const struct args *a, const char *name);
/* Exactly n positional words, or a message and false. */
bool args_words(const struct command *cmd, const struct args *a, int64_t n, int *exit_code);
/* Wrong use: `text` and where to look, on one line; the exit code. */
int args_wrong(const struct command *cmd, const char *text);
/* The value of --name as a whole number from `least` to `most`, `otherwise` when it is not given; a message and false.
 */
struct arg_range {
    int64_t least, most, otherwise;
};
bool args_number(const struct command *cmd, const struct args *a, const char *name, struct arg_range r, int64_t *out,
                 int *exit_code);
void command_help(const struct command *cmd);

#endif
