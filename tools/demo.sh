#!/bin/bash
# Builds npuc, compiles the example model for an emulated Ascend 910B1, generates text on its cores and shows the report.
set -e
cd "$(dirname "$0")/.."
tools/setup.sh
echo "Building npuc"
make --no-print-directory all >build/demo-build.log 2>&1 || { tail -n 30 build/demo-build.log; exit 1; }
echo
exec build/venv/bin/python examples/bard/demo.py build/release/npuc "$@"
