/* Diagnostics: one table of messages, one way to print them. The libraries never print; they report to a sink. */
#ifndef BASE_DIAG_H
#define BASE_DIAG_H

#include "base/arena.h"
#include "npuc/status.h"

enum diag_code {
#define DIAG(code, name, status, fmt) D_##name,
#include "base/diag.def"
#undef DIAG
    D_COUNT
};

/* Where: any part may be NULL or negative. Text from files need not be escaped; the sink's text is. */
struct diag_loc {
    const char *file; /* path as the user gave it */
    const char *node; /* ONNX node name, tensor name or field */
    const char *op;   /* operator type */
    int64_t index;    /* node number in the file, or -1 */
};

/* Receives one finished line without newline, e.g.
 * "bad.onnx: node 'conv2' (Conv, #47): error E0203: input 'W' has ..." Notes start with "  note: ". */
typedef void diag_sink(void *user, const char *line);

struct diag {
    diag_sink *sink;
    void *user;
    int n_errors, n_warnings, max_errors; /* further errors are counted, not printed (default 20) */
    enum npuc_status first;               /* status of the first error; NPUC_OK when none */
};

void diag_init(struct diag *d, diag_sink *sink, void *user);
/* Reports a row of diag.def; returns its status, so that `return diag_error(...)` reads well. Arguments must
 * match the row's format. A line is at most 1,000 bytes, control characters are escaped. */
enum npuc_status diag_error(struct diag *d, const struct diag_loc *loc, enum diag_code code, ...);
/* The same with a finished text in place of the row's format. */
enum npuc_status diag_error_text(struct diag *d, const struct diag_loc *loc, enum diag_code code, const char *text);
void diag_note(struct diag *d, const char *fmt, ...) NPUC_PRINTF(2, 3);
const char *diag_code_text(enum diag_code code); /* "E0203" */
int diag_exit_code(enum npuc_status s);          /* DESIGN section 10 */

#endif
