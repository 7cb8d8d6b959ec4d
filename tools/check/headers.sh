#!/bin/bash
# Every header compiles alone.
source "$(dirname "$0")/lib.sh"

generated=${NPUC_BUILD:-build/release}
while read -r header; do
    # formulas over a vector type that the includer chooses
    [ "$header" = kernels/fmath.h ] && continue
    case $header in
    *_avx2.h) simd="-mavx2 -mfma -mf16c" ;;
    *_avx512.h) simd="-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni" ;;
    *) simd= ;;
    esac
    message=$(${CC:-gcc} -std=c11 -D_DEFAULT_SOURCE -fsyntax-only -Wall -Wextra -Wno-unused $simd \
        -I. -Iinclude -I"$generated" -x c "$header" 2>&1 | grep -vE 'pragma once in main file' | grep -m1 -E 'error|warning')
    [ -n "$message" ] && finding "$header does not compile alone: $message"
done < <(sources 'include/*.h' $(for f in $folders tools; do echo "$f/*.h"; done))
done_checking headers
