// The headers in C++, and the runtime library without the compiler: runs a plan given on the command line.
#include <npuc/npuc.h>
#include <npuc/npurt.h>

#include "consumer.h"

static_assert(NPUC_OK == 0, "statuses are the exit codes of the command");

int main(int argc, char **argv)
{
    const npurt_tensor empty{};
    return argc == 2 && empty.size == 0 ? run_plan(argv[1]) : 2;
}
