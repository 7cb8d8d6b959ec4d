/* Plan file, version 2. docs/plan-format.md describes every byte.
 *
 *     header (256 B) | section table | sections, each at a multiple of 64 B (weights: 64 KiB), in the order of their
 * ids
 *
 * All numbers are little-endian. Every byte is either under an XXH3 checksum or must be zero, and there is exactly one
 * valid encoding of a plan, so no mutated file is taken for a good one. Sections but the weights are streams of
 * records: plan/records.c describes each record once, for writing and reading. */
#ifndef PLAN_FORMAT_H
#define PLAN_FORMAT_H

#include "base/compiler.h"

#define PLAN_MAGIC "\x89NPUC\r\n\x1a"

enum {
    PLAN_HEADER_SIZE = 256,
    PLAN_TABLE_ENTRY_SIZE = 32,
    PLAN_SECTION_ALIGN = 64,
    PLAN_WEIGHTS_ALIGN = 65536,
    PLAN_TENSOR_ALIGN = 512,   /* of a weight within its section */
    PLAN_CHUNK_SIZE = 4 << 20, /* weights are checked in pieces of this size */
    PLAN_TARGET_NAME_SIZE = 64
};
/* Byte offsets in the header. Bytes 112..247 are zero. */
enum {
    PLAN_AT_MAGIC = 0,
    PLAN_AT_VERSION = 8,      /* u32 */
    PLAN_AT_HEADER_SIZE = 12, /* u32 */
    PLAN_AT_FILE_SIZE = 16,   /* u64 */
    PLAN_AT_N_SECTIONS = 24,  /* u32 */
    PLAN_AT_ENTRY_SIZE = 28,  /* u32 */
    PLAN_AT_TABLE = 32,       /* u64: offset of the section table */
    PLAN_AT_TABLE_HASH = 40,  /* u64 */
    PLAN_AT_TARGET = 48,      /* 64 bytes, zero padded */
    PLAN_AT_ZERO = 112,
    PLAN_AT_HEADER_HASH = 248 /* u64: XXH3 of bytes 0..247 */
};
/* A table entry: u32 id, u32 zero, u64 offset, u64 size, u64 XXH3. ORDER(section): the file's order. */
enum plan_section {
    PSEC_STRINGS = 1,
    PSEC_EXPRS,
    PSEC_TENSORS,
    PSEC_KERNELS,
    PSEC_STEPS,
    PSEC_ENTRIES,
    PSEC_SOURCES,
    PSEC_TARGET,
    PSEC_RECORD,
    PSEC_WEIGHTS,    /* its checksum is that of the chunk sums */
    PSEC_CHUNK_SUMS, /* u64 XXH3 of each chunk of the weights */
    PSEC_END
};
enum { PLAN_N_SECTIONS = PSEC_END - 1, PLAN_N_RECORD_SECTIONS = PSEC_WEIGHTS - 1 };

/* Limits of a plan: far above what models need, low enough that checking stays quick. */
enum {
    PLAN_MAX_STRING = 1 << 20,
    PLAN_MAX_SYMBOLS = 1 << 16,
    PLAN_MAX_RANK = 16,
    PLAN_MAX_TEMPS = 1 << 14,
    PLAN_MAX_KERNEL_TENSORS = 256,
    PLAN_MAX_BUFS = 256,
    PLAN_MAX_SLOTS = 8,
    PLAN_MAX_CODE = 1 << 18,
    PLAN_MAX_NESTING = 32,
    PLAN_MAX_COPIES = 1024, /* of a kernel, side by side */
    PLAN_MAX_BODIES = 256   /* bodies of control flow within bodies */
};

#endif
