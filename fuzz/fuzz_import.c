/* Import of a whole model: any bytes end with a status; what is accepted passes the verifier. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "frontend/onnx.h"
#include "fuzz/fuzz.h"
#include "ir/text.h"

static void quiet(void *user, const char *line)
{
    (void)user;
    (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "fuzz_import_%ld.onnx", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    struct diag d;
    diag_init(&d, quiet, NULL);
    struct ir_ctx cx;
    ir_ctx_init(&cx, NULL, &d);
    struct onnx_model *keep;
    struct module *m;
    const struct onnx_options o = {.max_unpacked_size = 1 << 24, .max_inlined = 2000};
    if (onnx_import(&cx, path, &o, &keep, &m) == NPUC_OK) {
        if (ir_verify(m, "import") != NPUC_OK)
            abort();
        ir_module_free(m);
    }
    onnx_close(keep);
    ir_ctx_free(&cx);
    unlink(path);
    return 0;
}
