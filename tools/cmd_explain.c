/* npuc explain: what a diagnostic code means. */
#include <stdio.h>
#include <string.h>

#include "base/diag.h"
#include "tools/args.h"
#include "tools/term.h"

static const struct arg_option options[] = {{NULL, NULL, NULL}};

struct explanation {
    const char *code, *name, *format;
    enum npuc_status status;
};
static const struct explanation rows[] = {
#define DIAG(code, name, status, fmt) {#code, #name, fmt, status},
#include "base/diag.def"
#undef DIAG
};
/* By hundreds of the code, as in base/diag.def. */
static const char *const families[] = {
    ['0'] = "the command line: an option or argument is wrong; see --help of the command",
    ['1'] = "a file cannot be read, or its bytes break the wire format; the message gives the byte or tensor",
    ['2'] = "the model contradicts the ONNX specification; the message names node, input, what was expected and found",
    ['3'] = "the model is valid but uses something npuc or the target cannot do; npuc check lists all such nodes",
    ['4'] = "the plan file is damaged or was not written by npuc; compile it again",
    ['5'] = "a limit or the memory of the target or host is exceeded; fix dimensions with -D or choose another target",
    ['6'] = "an input tensor or its file does not fit the plan; npuc inspect PLAN shows what it takes",
    ['7'] = "the file was made by or for another version or machine; compile again with this npuc",
};

static int explain(const char *code)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].code, code) != 0)
            continue;
        unsigned char family = (unsigned char)code[2];
        printf("%s %s, exit code %d\n", rows[i].code, rows[i].name, diag_exit_code(rows[i].status));
        if (family < NPUC_ARRAY_LEN(families) && families[family] && code[1] == '0')
            printf("%s\n", families[family]);
        return 0;
    }
    term_error("npuc explain: unknown code '%s'", code);
    return 2;
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    if (a.words.len == 0)
        for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
            printf("%s  %s\n", rows[i].code, rows[i].name);
    else if (args_words(cmd, &a, 1, &code))
        code = explain(a.words.data[0]);
    args_free(&a);
    return code;
}

const struct command command_explain = {
    .name = "explain",
    .what = "what a diagnostic code means",
    .usage = "[CODE]",
    .examples = "  npuc explain E0203\n",
    .options = options,
    .run = run,
};
