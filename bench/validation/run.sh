#!/bin/bash
# Estimates of published rows: run.sh NPUC TABLES OUT. Exit status: 0 within all tolerances, 1 not, 2 usage.
set -u
if [ $# -ne 3 ] || [ ! -x "$1" ] || [ ! -d "$2" ]; then
    echo "usage: run.sh NPUC TABLES OUT" >&2
    exit 2
fi
npuc=$(realpath "$1") tables=$2 out=$3 python=${PYTHON:-python3}
arguments=()
for table in ascend_gemm ascend_conv ascend_move ascend_vector ascend_attention; do
    arguments+=(--table "$tables/$table.csv")
done
"$python" "$tables/make_models.py" "${arguments[@]}" --out "$out" >&2 || exit 2
"$python" "$tables/run_validation.py" --npuc "$npuc" --index "$out/index.json" --out "$out/pred.csv"
