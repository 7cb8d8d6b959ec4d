/* Text from the protocol and the ways to report trouble about it. */
#include <stdarg.h>
#include <stdio.h>

#include "frontend/priv.h"

sym bytes_sym(struct import *im, ProtobufCBinaryData text)
{
    return text.len ? str_intern(&im->cx->strings, (const char *)text.data, (int64_t)text.len) : 0;
}

const char *sym_text(const struct import *im, sym s)
{
    return str_text(&im->cx->strings, s);
}

sym domain_sym(struct import *im, ProtobufCBinaryData domain)
{
    const sym s = bytes_sym(im, domain);
    return s == str_internz(&im->cx->strings, "ai.onnx") ? 0 : s;
}

#define FORMAT(buffer, fmt)                                                                                            \
    char buffer[700];                                                                                                  \
    do {                                                                                                               \
        va_list ap;                                                                                                    \
        va_start(ap, fmt);                                                                                             \
        vsnprintf(buffer, sizeof buffer, fmt, ap);                                                                     \
        va_end(ap);                                                                                                    \
    } while (0)

struct diag_loc onode_loc(struct import *im, const struct onode *n)
{
    const ProtobufCBinaryData own = n->pb->name;
    const char *name = own.len ? sym_text(im, bytes_sym(im, own)) : NULL;
    return (struct diag_loc){.file = im->path, .node = name, .op = sym_text(im, n->op), .index = n->index};
}

enum npuc_status onode_fail(struct import *im, const struct onode *n, enum diag_code code, const char *fmt, ...)
{
    FORMAT(text, fmt);
    const struct diag_loc loc = onode_loc(im, n);
    return diag_error(im->cx->diag, &loc, code, text);
}

enum npuc_status onode_bad_attr(struct import *im, const struct onode *n, const char *attr, const char *fmt, ...)
{
    FORMAT(text, fmt);
    const struct diag_loc loc = onode_loc(im, n);
    return diag_error(im->cx->diag, &loc, D_ATTRIBUTE, attr, text);
}

enum npuc_status name_fail(struct import *im, sym name, enum diag_code code, const char *fmt, ...)
{
    FORMAT(text, fmt);
    const struct diag_loc loc = {.file = im->path, .node = name ? sym_text(im, name) : NULL, .index = -1};
    return diag_error(im->cx->diag, &loc, code, text);
}

enum npuc_status tensor_fail(struct import *im, sym tensor, const char *fmt, ...)
{
    FORMAT(text, fmt);
    const struct diag_loc loc = {.file = im->path, .index = -1};
    return diag_error(im->cx->diag, &loc, D_TENSOR_DATA, sym_text(im, tensor), text);
}

enum npuc_status external_fail(struct import *im, sym tensor, const char *fmt, ...)
{
    FORMAT(text, fmt);
    const struct diag_loc loc = {.file = im->path, .index = -1};
    return diag_error(im->cx->diag, &loc, D_EXTERNAL_DATA, sym_text(im, tensor), text);
}

void import_warn(struct import *im, sym name, const char *fmt, ...)
{
    FORMAT(text, fmt);
    const struct diag_loc loc = {.file = im->path, .node = name ? sym_text(im, name) : NULL, .index = -1};
    (void)diag_error(im->cx->diag, &loc, D_MODEL_WARNING, text);
}
