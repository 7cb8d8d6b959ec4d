/* protobuf-c with memory from an arena, up to a budget that the scan estimated. */
#include "frontend/priv.h"
#include "frontend/scan.h"

struct budget {
    struct arena *arena;
    int64_t left;
};

static void *budget_alloc(void *user, size_t size)
{
    struct budget *b = user;
    if (size > (size_t)INT64_MAX || (int64_t)size > b->left)
        return NULL;
    b->left -= (int64_t)size;
    return arena_alloc(b->arena, size ? (int64_t)size : 1, 16);
}

static void budget_free(void *user, void *p)
{
    (void)user;
    (void)p; /* goes with the arena */
}

enum npuc_status skeleton_unpack(const ProtobufCMessageDescriptor *kind, const struct scan_skeleton *sk,
                                 struct arena *a, struct diag *d, const char *file, ProtobufCMessage **out)
{
    struct budget b = {a, 4 * sk->unpacked + (1 << 20)};
    ProtobufCAllocator alloc = {budget_alloc, budget_free, &b};
    *out = protobuf_c_message_unpack(kind, &alloc, (size_t)sk->size, sk->data);
    const struct diag_loc loc = {.file = file, .index = -1};
    return *out ? NPUC_OK : diag_error(d, &loc, D_WIRE, 0LL, "protobuf cannot unpack it");
}
