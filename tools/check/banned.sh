#!/bin/bash
# Functions that overflow, hide errors, or end the process do not belong into the libraries. base/compiler.c holds the
# one abort, behind NPUC_ASSERT.
source "$(dirname "$0")/lib.sh"
banned='strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|atoll|atof|gets|rand|srand|exit|_exit|abort|printf|puts|alloca|system|tmpnam|mktemp|setjmp'

while IFS= read -r line; do
    [ -n "$line" ] && finding "$line"
done < <(grep -nE "(^|[^A-Za-z0-9_.>])($banned)[[:space:]]*\(" $(sources $(for f in $folders; do echo "$f/*.c" "$f/*.h" "$f/*.inc"; done)) |
    grep -vE '^base/compiler\.c:[0-9]+: *abort\(' |
    grep -vE '^(compiler/[a-z_]+|plan/read)\.c:[0-9]+:.*\bsetjmp *\(' | # entry points: out of memory ends a phase here
    grep -vE ':[0-9]+:[[:space:]]*(/\*|\*|//)')
done_checking banned
