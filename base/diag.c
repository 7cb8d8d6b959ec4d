/* Formatting of diagnostics. A line is built in a fixed buffer and escaped as a whole, so that no name from a file
 * can reach a terminal raw. */
#include "base/diag.h"

#include "base/str_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINE_MAX_BYTES = 1000, DEFAULT_MAX_ERRORS = 20 };

static const struct {
    const char *code, *format;
    enum npuc_status status;
} diag_table[D_COUNT] = {
#define DIAG(code, name, status, fmt) [D_##name] = {#code, fmt, status},
#include "base/diag.def"
#undef DIAG
};

/* Text under construction; what does not fit is dropped, the escaper marks the cut. */
struct line {
    char text[2 * LINE_MAX_BYTES];
    int64_t len;
};

static void line_vadd(struct line *l, const char *fmt, va_list args)
{
    const int64_t room = (int64_t)sizeof l->text - l->len;
    const int n = vsnprintf(l->text + l->len, (size_t)room, fmt, args);
    if (n > 0)
        l->len += n < room ? n : room - 1;
}

NPUC_PRINTF(2, 3) static void line_add(struct line *l, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    line_vadd(l, fmt, args);
    va_end(args);
}

static void line_location(struct line *l, const struct diag_loc *loc)
{
    if (!loc)
        return;
    if (loc->file)
        line_add(l, "%s: ", loc->file);
    const bool numbered = loc->op && loc->index >= 0;
    if (loc->node && loc->node[0])
        line_add(l, loc->op ? "node '%s'" : "'%s'", loc->node);
    else if (loc->op)
        line_add(l, "node");
    else
        return;
    if (numbered)
        line_add(l, " (%s, #%lld)", loc->op, (long long)loc->index);
    else if (loc->op)
        line_add(l, " (%s)", loc->op);
    line_add(l, ": ");
}

static void line_send(const struct diag *d, const struct line *l)
{
    char out[LINE_MAX_BYTES + 1];
    (void)str_escape_to(out, (int64_t)sizeof out, l->text, l->len, false);
    if (d->sink)
        d->sink(d->user, out);
}

void diag_init(struct diag *d, diag_sink *sink, void *user)
{
    *d = (struct diag){.sink = sink, .user = user, .max_errors = DEFAULT_MAX_ERRORS};
}

/* Counts the message and begins its line; false when it is not to be printed. */
static bool line_begin(struct line *l, struct diag *d, const struct diag_loc *loc, enum diag_code code)
{
    NPUC_ASSERT(code < D_COUNT);
    const enum npuc_status status = diag_table[code].status;
    if (!d)
        return false;
    if (status == NPUC_OK)
        d->n_warnings++;
    else if (d->n_errors++ == 0)
        d->first = status;
    if (status != NPUC_OK && d->n_errors > d->max_errors)
        return false;
    line_location(l, loc);
    line_add(l, "%s %s: ", status == NPUC_OK ? "warning" : "error", diag_table[code].code);
    return true;
}

enum npuc_status diag_error(struct diag *d, const struct diag_loc *loc, enum diag_code code, ...)
{
    struct line l = {.len = 0};
    if (line_begin(&l, d, loc, code)) {
        va_list args;
        va_start(args, code);
        line_vadd(&l, diag_table[code].format, args);
        va_end(args);
        line_send(d, &l);
    }
    return diag_table[code].status;
}

enum npuc_status diag_error_text(struct diag *d, const struct diag_loc *loc, enum diag_code code, const char *text)
{
    struct line l = {.len = 0};
    if (line_begin(&l, d, loc, code)) {
        line_add(&l, "%s", text);
        line_send(d, &l);
    }
    return diag_table[code].status;
}

void diag_note(struct diag *d, const char *fmt, ...)
{
    if (!d || d->n_errors > d->max_errors)
        return;
    struct line l = {.len = 0};
    line_add(&l, "  note: ");
    va_list args;
    va_start(args, fmt);
    line_vadd(&l, fmt, args);
    va_end(args);
    line_send(d, &l);
}

const char *diag_code_text(enum diag_code code)
{
    NPUC_ASSERT(code < D_COUNT);
    return diag_table[code].code;
}

int diag_exit_code(enum npuc_status s)
{
    static const int exit_code[] = {
        [NPUC_OK] = 0,          [NPUC_E_NEGATIVE] = 1,    [NPUC_E_USAGE] = 2,
        [NPUC_E_INVALID] = 3,   [NPUC_E_UNSUPPORTED] = 4, [NPUC_E_LIMIT] = 5,
        [NPUC_E_NOMEM] = 5,     [NPUC_E_IO] = 6,          [NPUC_E_INCOMPATIBLE] = 7,
        [NPUC_E_INTERNAL] = 70, [NPUC_E_CANCELLED] = 130,
    };
    NPUC_ASSERT((int64_t)s < NPUC_ARRAY_LEN(exit_code));
    return exit_code[s];
}
