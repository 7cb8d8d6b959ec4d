/* A program that knows include/npuc only: compiles a model, runs the plan on zeros, twice with equal results.
 * usage: consumer MODEL PLAN [TARGET]; with no MODEL ("-") the plan is taken as it is. */
#include "consumer.h"

#include <npuc/npuc.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    npuc_compiler *c = npuc_compiler_new();
    if (!c)
        return 5;
    if (npuc_set(c, "target", "no-such-target") == NPUC_OK && npuc_compile(c, argv[1], argv[2]) == NPUC_OK) {
        fprintf(stderr, "an unknown target was accepted\n");
        return 1;
    }
    if (strstr(npuc_messages(c), "no-such-target") == NULL) {
        fprintf(stderr, "the message does not name the target: %s\n", npuc_messages(c));
        return 1;
    }
    npuc_compiler_free(c);

    c = npuc_compiler_new();
    if (!c || npuc_set(c, "target", argc > 3 ? argv[3] : "ascend-910b1") != NPUC_OK ||
        npuc_compile(c, argv[1], argv[2]) != NPUC_OK) {
        fprintf(stderr, "%s", c ? npuc_messages(c) : "out of memory\n");
        return 1;
    }
    npuc_compiler_free(c);
    return run_plan(argv[2]);
}
