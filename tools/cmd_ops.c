/* npuc ops: the operators npuc knows, generated from the tables. */
#include <stdio.h>

#include "ir/op.h"
#include "kernels/tensor.h"
#include "tools/args.h"

static const struct arg_option options[] = {
    {"json", NULL, "as JSON"},
    {NULL, NULL, NULL},
};
static const char *const classes[] = {
    [CLS_FREE] = "view",           [CLS_ELEMENTWISE] = "elementwise",
    [CLS_MATMUL] = "matmul",       [CLS_CONV] = "conv",
    [CLS_REDUCE] = "reduce",       [CLS_NORM] = "normalise",
    [CLS_ATTENTION] = "attention", [CLS_MOVE] = "move",
    [CLS_WINDOW] = "window",       [CLS_SORT] = "sort",
    [CLS_RECURRENT] = "recurrent", [CLS_CONTROL] = "control",
    [CLS_FUSED] = "fused",         [CLS_HOST] = "host",
};

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = 0, n = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    bool json = args_flag(&a, "json");
    if (args_words(cmd, &a, 0, &code)) {
        printf(json ? "[" : "%-28s %-14s %6s  %-12s %s\n", "operator", "domain", "opset", "class", "reference kernel");
        for (int op = OP_none + 1; op < OP_count; op++, n++) {
            const struct op_def *d = op_table[op];
            bool kernel = k_op_find(d->kernel ? d->kernel : d->name) != NULL;
            const char *domain = d->domain[0] ? d->domain : "ai.onnx";
            if (json)
                printf("%s{\"op\": \"%s\", \"domain\": \"%s\", \"since\": %d, \"class\": \"%s\", \"kernel\": %s}",
                       n ? ",\n " : "", d->name, domain, d->since, classes[d->cls], kernel ? "true" : "false");
            else
                printf("%-28s %-14s %6d  %-12s %s\n", d->name, domain, d->since, classes[d->cls], kernel ? "yes" : "-");
        }
        printf(json ? "]\n" : "%d operators\n", n);
    }
    args_free(&a);
    return code;
}

const struct command command_ops = {
    .name = "ops",
    .what = "the operators npuc knows",
    .usage = "[--json]",
    .examples = "  npuc ops\n",
    .options = options,
    .run = run,
};
