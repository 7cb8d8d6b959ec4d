#!/bin/bash
# Who may include whom: an #include that crosses the layers is a finding.
source "$(dirname "$0")/lib.sh"

allowed() {
    case $1 in
    base) echo 'base' ;;
    kernels | targets) echo "base|$1" ;;
    plan) echo 'base|kernels|plan' ;; # kernels: the numbers of the formulas are part of the plan format
    ir) echo 'base|kernels|ir' ;;
    frontend) echo "base|ir|frontend" ;;
    passes) echo 'base|kernels|ir|passes' ;; # kernels: codes of constants are packed there
    quant) echo 'base|kernels|ir|quant' ;;
    backend) echo 'base|kernels|ir|plan|targets|backend' ;; # kernels: the same numbers
    runtime) echo 'base|kernels|targets|plan|runtime' ;;
    compiler) echo 'base|kernels|ir|frontend|passes|quant|targets|plan|backend|compiler' ;; # the driver: all but runtime
    examples | bench) echo 'npuc' ;;
    esac
}

for folder in $folders examples bench; do
    [ -d "$folder" ] || continue
    while IFS= read -r line; do
        [ -n "$line" ] && finding "$line  ($folder may include: $(allowed "$folder" | tr '|' ' '), npuc)"
    done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include "[a-z_]+/' --include='*.[ch]' --include='*.inc' --include='*.def' "$folder" |
        grep -vE "include \"($(allowed "$folder")|npuc)/")
done
done_checking layers
