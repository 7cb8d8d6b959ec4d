#!/bin/bash
# clang-format on all C files; --fix rewrites them.
source "$(dirname "$0")/lib.sh"

files=$(sources '*.c' '*.h')
if [ "$1" = --fix ]; then
    echo "$files" | xargs -P "$(nproc)" -n 16 clang-format -i
    exit
fi
while IFS= read -r file; do
    [ -n "$file" ] && finding "$file: not formatted; run tools/check/format.sh --fix"
done < <(echo "$files" | xargs -P "$(nproc)" -n 16 clang-format --dry-run 2>&1 | sed -nE 's/^([^:]+):[0-9]+:[0-9]+: warning:.*/\1/p' | sort -u)
done_checking format
