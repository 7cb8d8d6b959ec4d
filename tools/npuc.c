/* npuc: one program, many commands. Each command is a table row and a file cmd_<name>.c. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "npuc/npuc.h"
#include "tools/args.h"
#include "tools/term.h"

#define COMMAND(nm) extern const struct command command_##nm;
#include "tools/commands.def"
#undef COMMAND

static const struct command *const commands[] = {
#define COMMAND(nm) &command_##nm,
#include "tools/commands.def"
#undef COMMAND
};

static void print_help(void)
{
    printf("npuc: offline compiler for ONNX models and emulator of NPU cores (Huawei Ascend, Cambricon MLU)\n\n"
           "usage: npuc COMMAND [arguments]      npuc COMMAND --help tells more\n\n");
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(commands); i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->what);
    printf("\nexit codes: 0 ok, 1 negative result, 2 usage, 3 invalid model, plan or input, 4 unsupported, 5 limit or "
           "memory,\n"
           "            6 input/output, 7 incompatible, 70 internal error, 130 interrupted\n");
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        if (argc >= 2) {
            print_help();
            return 0;
        }
        term_error("npuc: no command given; 'npuc --help' lists them");
        return 2;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("npuc %s\n", npuc_version());
        return 0;
    }
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(commands); i++)
        if (strcmp(commands[i]->name, argv[1]) == 0)
            return commands[i]->run(commands[i], argc - 2, argv + 2);
    term_error("npuc: unknown command '%s'; 'npuc --help' lists them", argv[1]);
    return 2;
}

int main(int argc, char **argv)
{
    term_handle_signals();
    int code = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        if (code == 0)
            term_error("npuc: cannot write to standard output");
        code = code ? code : 6;
    }
    return code;
}
