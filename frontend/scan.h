/* The bounded scan: first reader of every byte of a model file.
 *
 * protobuf-c recurses without limit, has no memory budget and copies every field. So the file is first walked with an
 * explicit stack, and what protobuf-c then unpacks is a skeleton made here: known fields only, sizes checked, depth and
 * memory bounded, raw_data replaced by its place in the file. A schema table says which fields are known. */
#ifndef FRONTEND_SCAN_H
#define FRONTEND_SCAN_H

#include "base/diag.h"

enum scan_msg {
    SCAN_NONE,
    SCAN_MODEL,
    SCAN_OPSET,
    SCAN_GRAPH,
    SCAN_NODE,
    SCAN_ATTRIBUTE,
    SCAN_TENSOR,
    SCAN_SEGMENT,
    SCAN_SPARSE,
    SCAN_ENTRY,
    SCAN_VALUE_INFO,
    SCAN_TYPE,
    SCAN_TYPE_TENSOR,
    SCAN_TYPE_LIST,
    SCAN_TYPE_MAP,
    SCAN_SHAPE,
    SCAN_DIM,
    SCAN_FUNCTION,
    SCAN_MSG_COUNT
};

struct scan_limits {
    int64_t max_depth;    /* messages within messages */
    int64_t max_unpacked; /* bytes protobuf-c may need for the skeleton */
};
#define SCAN_MAX_DEPTH 160       /* about 1 KiB of stack each while unpacking: works on a 256 KiB stack */
#define SCAN_MAX_NAME  (1 << 16) /* bytes of a name or other text, data excepted */

struct scan_skeleton {
    const uint8_t *data;
    int64_t size;
    int64_t unpacked; /* estimate of what unpacking takes */
};

/* Scans data[0..size) as a message of kind `root`. The skeleton is in `a`. Errors name the byte offset and field. */
NPUC_MUST_CHECK enum npuc_status scan_message(const uint8_t *data, int64_t size, enum scan_msg root,
                                              const struct scan_limits *limits, struct arena *a, struct diag *d,
                                              const char *file, struct scan_skeleton *out);

#endif
