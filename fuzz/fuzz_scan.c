/* The wire scan: any bytes end with a status, and what it lets through protobuf-c can unpack. */
#include <stdlib.h>

#include "frontend/onnx.pb-c.h"
#include "frontend/scan.h"
#include "fuzz/fuzz.h"

static void quiet(void *user, const char *line)
{
    (void)user;
    (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct diag d;
    arena_init(&a, NULL);
    diag_init(&d, quiet, NULL);
    const struct scan_limits limits = {SCAN_MAX_DEPTH, 1 << 24};
    struct scan_skeleton sk;
    if (scan_message(data, (int64_t)size, SCAN_MODEL, &limits, &a, &d, "fuzz.onnx", &sk) == NPUC_OK) {
        Onnx__ModelProto *m = onnx__model_proto__unpack(NULL, (size_t)sk.size, sk.data);
        if (!m)
            abort();
        onnx__model_proto__free_unpacked(m, NULL);
    }
    arena_free(&a);
    return 0;
}
