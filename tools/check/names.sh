#!/bin/bash
# Files speak of the product alone: no machine paths, no open ends without an issue number, no personal notes.
source "$(dirname "$0")/lib.sh"

texts=$(sources '*.c' '*.h' '*.inc' '*.def' '*.md' '*.sh' '*.py' '*.cmake' '*.txt' '*.json' '*.target' '*.ir' Makefile '.ci/*' |
    grep -vE '^(tools/check/|tests/models/|examples/bard/)')
while IFS= read -r line; do
    [ -n "$line" ] && finding "machine path: $line"
done < <(grep -nE '(^|[^A-Za-z0-9_.])/(work|tmp|opt|home|root)/' $texts)
while IFS= read -r line; do
    [ -n "$line" ] && finding "open end: $line"
done < <(grep -nE '\b(TODO|FIXME|XXX)\b' $texts | grep -vE 'TODO\(#[0-9]+\)|XXXXXX')
done_checking names
