#!/usr/bin/env python3
"""Recomputes every checksum of a damaged plan, as a forger would (docs/plan-format.md). Checksums of parts that lie outside of the
file stay as they are. Needs libxxhash.

    seal_plan.py PLAN
"""
import ctypes
import ctypes.util
import pathlib
import struct
import sys

TABLE, N_SECTIONS, ENTRY, HEADER_SUM = 256, 11, 32, 248
WEIGHTS, CHUNKS, CHUNK_SIZE = 10, 11, 4 << 20

_xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
_xxhash.XXH3_64bits.restype = ctypes.c_uint64
_xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def checksum(data):
    return struct.pack("<Q", _xxhash.XXH3_64bits(bytes(data), len(data)))


def section(plan, number):
    """(offset, size) as the table says, or None when that is not inside of the file."""
    offset, size = struct.unpack_from("<QQ", plan, TABLE + (number - 1) * ENTRY + 8)
    return (offset, size) if offset <= len(plan) and size <= len(plan) - offset else None


def seal(plan):
    """Bytes of the plan with its sums made right."""
    plan = bytearray(plan)
    if len(plan) < TABLE + N_SECTIONS * ENTRY:
        return bytes(plan)
    weights, chunks = section(plan, WEIGHTS), section(plan, CHUNKS)
    if weights and chunks:
        for i in range(chunks[1] // 8):
            first = i * CHUNK_SIZE
            if first < weights[1]:
                part = plan[weights[0] + first:weights[0] + min(first + CHUNK_SIZE, weights[1])]
                plan[chunks[0] + 8 * i:chunks[0] + 8 * i + 8] = checksum(part)
    for number in range(1, N_SECTIONS + 1):
        place = section(plan, CHUNKS if number == WEIGHTS else number)
        if place:
            at = TABLE + (number - 1) * ENTRY + 24
            plan[at:at + 8] = checksum(plan[place[0]:place[0] + place[1]])
    plan[40:48] = checksum(plan[TABLE:TABLE + N_SECTIONS * ENTRY])
    plan[HEADER_SUM:HEADER_SUM + 8] = checksum(plan[:HEADER_SUM])
    return bytes(plan)


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1])
    path.write_bytes(seal(path.read_bytes()))
