/* npuc: the compiler. A model in, a plan file out.
 *
 *     npuc_compiler *c = npuc_compiler_new();
 *     npuc_set(c, "target", "ascend-910b1");
 *     if (npuc_compile(c, "model.onnx", "model.plan") != NPUC_OK)
 *         fputs(npuc_messages(c), stderr);
 *     npuc_compiler_free(c);
 *
 * A compiler is used by one thread at a time; several may live side by side. Nothing is printed. */
#ifndef NPUC_NPUC_H
#define NPUC_NPUC_H

#include "npuc/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct npuc_compiler npuc_compiler;

npuc_compiler *npuc_compiler_new(void); /* NULL: out of memory */
void npuc_compiler_free(npuc_compiler *c);

/* Options, as on the command line without dashes: "target", "precision" (fp32, fp16, bf16, keep), "D" ("seq=1..4096",
 * may be repeated), "shape" ("x=1x3x224x224", may be repeated), "kv-capacity" (rows), "set" ("hbm.bandwidth=1.8TB/s",
 * may be repeated), "tile" ("m=64,n=128"), "strict" (0 or 1: round where the
 * steps of the model and of ONNX's function bodies round), "verify-each" (0 or 1), "dump-dir", "stop-after",
 * "max-rewrites". NPUC_E_USAGE for an unknown name or a value that does not parse; the message is in npuc_messages. */
enum npuc_status npuc_set(npuc_compiler *c, const char *option, const char *value);

/* Compiles `model` and writes `plan` atomically: on failure nothing is left behind. */
enum npuc_status npuc_compile(npuc_compiler *c, const char *model, const char *plan);

/* Messages of the last call, one per line; valid until the next call on this compiler. Empty when there were none. */
const char *npuc_messages(const npuc_compiler *c);

/* Called at the end of each stage ("read", "import", ...) with a line about it. */
typedef void npuc_progress_fn(void *user, const char *stage, const char *text, double seconds);
void npuc_on_progress(npuc_compiler *c, npuc_progress_fn *fn, void *user);

/* Targets npuc was built with: count, and names in *names. */
int npuc_targets(const char *const **names);
const char *npuc_version(void);

#ifdef __cplusplus
}
#endif
#endif
