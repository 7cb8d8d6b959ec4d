#!/bin/bash
# Everything that must hold before a change is merged. Each step prints one line; the output of a failing step follows.
# All steps run even when one fails. Environment: NPUC_JOBS (default: processors, at most 4).
cd "$(dirname "$0")/.." || exit 2
jobs=${NPUC_JOBS:-$(n=$(nproc); echo $((n < 4 ? n : 4)))}
mkdir -p build
failed=

step() { # step NAME COMMAND...
    local name=$1 start=$SECONDS log=build/check-$1.log
    shift
    if "$@" >"$log" 2>&1; then
        printf 'ok      %-12s %4d s\n' "$name" $((SECONDS - start))
    else
        printf 'FAILED  %-12s %4d s\n' "$name" $((SECONDS - start))
        sed 's/^/    /' "$log" | tail -n 60
        failed="$failed $name"
        return 1
    fi
}

build() { # build PRESET [OPTION...]
    local preset=$1
    shift
    cmake --preset "$preset" -DNPUC_WERROR=ON "$@" && cmake --build --preset "$preset" -j "$jobs" -- --quiet
}

run_tests() { # run_tests PRESET [OPTION...]
    local preset=$1
    shift
    ctest --preset "$preset" -j "$jobs" "$@"
}

step setup tools/setup.sh || exit 1
export PATH="$PWD/build/venv/bin:$PATH" NPUC_PYTHON="$PWD/build/venv/bin/python"
for check in layers names banned size format; do
    step $check tools/check/$check.sh
done
# A second build, without SIMD and in another folder: tests/equality compares its plans and results with those of the first.
build_scalar() {
    cmake --preset scalar -DNPUC_WERROR=ON -DNPUC_TESTS=OFF -DNPUC_SHARED=OFF &&
        cmake --build --preset scalar -j "$jobs" --target npuc-cli -- --quiet
}
scalar=
step scalar-build build_scalar && scalar=$PWD/build/scalar/npuc
if step build build release -DNPUC_SCALAR="$scalar"; then
    # What needs one processor runs where the tests leave one idle.
    export NPUC_TIDY_SECONDS=${NPUC_TIDY_SECONDS:-240}
    step headers nice tools/check/headers.sh &
    headers=$!
    step tidy nice tools/check/tidy.sh &
    tidy=$!
    step tests run_tests release
    wait $headers || failed="$failed headers"
    wait $tidy || failed="$failed tidy"
fi
# The sanitizer build runs the unit tests, every fixture and every operator of each type once; the emulator is several times slower there.
if step asan-build build asan-ubsan; then
    step asan-tests run_tests asan-ubsan -R "^(unit/|models/fixtures$|cli/ops$)" -E "_template$"
fi
if [ -n "$failed" ]; then
    echo "make check failed:$failed"
    exit 1
fi
echo "make check: all passed"
