#!/bin/bash
# clang-tidy on the files changed since the main branch (or in the last commit), within a time limit. With --all, on
# every file and with the path-sensitive analyzer, whose findings need judgement.
#   tidy.sh [--all]    NPUC_TIDY_SECONDS: limit, default 120, with --all none
source "$(dirname "$0")/lib.sh"

build=${NPUC_BUILD:-build/release}
limit=${NPUC_TIDY_SECONDS:-120}
checks='--checks=-clang-analyzer-*'
if [ "$1" = --all ]; then
    limit=${NPUC_TIDY_SECONDS:-100000}
    checks=
    files=$(sources $(for f in $folders tools; do echo "$f/*.c"; done))
else
    since=$(git merge-base HEAD origin/main 2>/dev/null || git rev-parse -q --verify HEAD~1 || git rev-parse HEAD)
    [ "$since" = "$(git rev-parse HEAD)" ] && since=$(git rev-parse -q --verify HEAD~1 || echo HEAD)
    files=$({ git diff --name-only --diff-filter=d "$since" -- '*.c'; git diff --name-only --diff-filter=d HEAD -- '*.c'; } |
        sort -u | grep -E "^($(echo $folders tools | tr ' ' '|'))/")
fi
start=$SECONDS
done=0
total=$(echo "$files" | grep -c .)
for file in $files; do
    left=$((limit - (SECONDS - start)))
    if [ "$left" -le 0 ]; then
        echo "tidy: time limit reached after $done of $total files"
        break
    fi
    while IFS= read -r line; do
        finding "$line"
    done < <(timeout "$left" clang-tidy -p "$build" --quiet $checks "$file" 2>/dev/null | grep -E '(warning|error):' |
        grep -vE 'clang-diagnostic-(unknown-warning-option|format-nonliteral)' | sort -u)
    done=$((done + 1))
done
done_checking tidy
