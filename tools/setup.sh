#!/bin/bash
# Installs what building and testing need: Debian packages (as root or through sudo) and a Python virtual environment
# in build/venv. Without rights it prints the command to run and stops. Touches no network when all is present.
set -e
cd "$(dirname "$0")/.."

packages="gcc g++ cmake ninja-build pkg-config libprotobuf-c-dev protobuf-c-compiler libxxhash-dev zlib1g-dev \
libjansson-dev libcmocka-dev clang-format clang-tidy cppcheck python3-venv universal-ctags git"

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        echo "These packages are missing. Run this line, then try again:"
        echo "  sudo apt-get install -y --no-install-recommends$missing"
        exit 1
    fi
    echo "Installing:$missing"
    $as_root apt-get update -q
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -q -y --no-install-recommends $missing
fi

# The stamp is a copy of the requirements that were installed.
venv=build/venv
if ! cmp -s tests/requirements.txt $venv/installed.txt; then
    echo "Making the Python environment in $venv"
    mkdir -p build
    [ -x $venv/bin/python ] || python3 -m venv $venv
    $venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt $venv/installed.txt
fi
