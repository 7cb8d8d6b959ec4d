#!/usr/bin/env python3
"""The installed package as others use it: pkg-config and CMake, C and C++, both libraries, the Python layer.

    check_package.py --build BUILD --root SOURCE
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from support import call, must, run_cases

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


class Package:
    """An installation in a scratch folder, moved once: nothing in it may know where it was made."""

    def __init__(self, build, root, scratch):
        must(["cmake", "--install", build, "--prefix", scratch / "first"])
        (scratch / "first").rename(scratch / "installed")
        self.root, self.scratch, self.prefix = root, scratch, scratch / "installed"
        config = next(self.prefix.rglob("npuc.pc"))
        self.lib = config.parent.parent
        self.env = {**os.environ, "PKG_CONFIG_PATH": str(config.parent), "LD_LIBRARY_PATH": str(self.lib)}
        self.model = root / "tests/models/llama-dynamo-op18/model.onnx"
        self.npuc = self.prefix / "bin/npuc"

    def flags(self, *words):
        return must(["pkg-config", *words], env=self.env).split()

    def run(self, *command):
        return must(command, env=self.env).strip()


def check_pkg_config(package):
    exe, plan = package.scratch / "consumer", package.scratch / "pc.plan"
    sources = [HERE / "consumer.c", HERE / "run_plan.c"]
    must(["cc", "-std=c11", *STRICT, *sources, "-o", exe, *package.flags("--cflags", "--libs", "npuc")])
    package.run(exe, package.model, plan)
    runtime = package.scratch / "runtime"
    must(["cc", "-std=c11", *STRICT, "-c", HERE / "run_plan.c", "-o", package.scratch / "run_plan.o", *package.flags("--cflags", "npurt")])
    must(["c++", "-std=c++17", *STRICT, HERE / "runtime_only.cpp", package.scratch / "run_plan.o", "-o", runtime,
          *package.flags("--cflags", "--libs", "npurt")])
    package.run(runtime, plan)


def check_cmake(package):
    project = package.scratch / "project"
    shutil.copytree(HERE, project)
    shutil.copy(HERE / "package.cmake.txt", project / "CMakeLists.txt")
    must(["cmake", "-S", project, "-B", project / "out", f"-DCMAKE_PREFIX_PATH={package.prefix}"])
    must(["cmake", "--build", project / "out"])
    results = set()
    for exe in sorted((project / "out").glob("consumer*")):
        plan = project / f"{exe.name}.plan"
        results.add(package.run(exe, package.model, plan).split(": ")[1])
        results.add(package.run(project / "out" / exe.name.replace("consumer", "runtime_only"), plan).split(": ")[1])
    assert len(results) == 1, f"static and shared libraries, compiler and runtime: {len(results)} different results, expected one"


def check_libraries(package):
    """The runtime needs libc, libm and threads only; nothing but the API is visible."""
    for name, extra in (("libnpurt.so", set()), ("libnpuc.so", {"libprotobuf-c", "libjansson"})):
        path = package.lib / name
        if not path.exists(): # built without shared libraries
            continue
        needed = set(re.findall(r"NEEDED.*\[(.*?)\.so", must(["readelf", "-d", path])))
        assert needed <= {"libc", "libm", "libpthread", "ld-linux-x86-64"} | extra, f"{name} needs {sorted(needed)}"
        symbols = [line.split()[-1].split("@")[0] for line in must(["nm", "-D", "--defined-only", path]).splitlines()]
        foreign = [s for s in symbols if not re.match(r"(npuc|npurt)_|NPU", s)]
        assert symbols and not foreign, f"{name} shows {foreign[:5]}"
    files = sorted(str(p.relative_to(package.prefix)) for p in package.prefix.rglob("*.h"))
    assert files == ["include/npuc/npuc.h", "include/npuc/npurt.h", "include/npuc/status.h"], f"headers: {files}"


def check_python(package):
    """Text in, text out, against the reference; errors carry the exit code."""
    bard, plan = package.root / "examples/bard", package.scratch / "bard.plan"
    must([package.npuc, "compile", bard / "model.onnx", "-o", plan, "--quiet"], env=package.env)
    prompt = json.loads((bard / "eval/reference.json").read_text(encoding="utf-8"))["prompts"][0]
    env = {**package.env, "NPUC_LIB": str(package.lib), "PYTHONPATH": str(package.root / "python")}
    arguments = [sys.executable, "-B", "-m", "npuc.llm", plan, "--tokenizer", bard / "tokenizer.json", "--bos", "0",
                 "--prompt", prompt["prompt"], "--new", len(prompt["greedy"])]
    text = must(arguments, env=env)
    assert text.strip() == (prompt["prompt"] + prompt["text"]).strip(), f"another text: {text[:200]!r}"
    arguments[4] = package.scratch / "absent.plan"
    done = call(arguments, env=env)
    assert done.returncode == 6 and "absent.plan" in done.stderr, f"absent plan: exit {done.returncode}, {done.stderr[-200:]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--root", required=True, type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        package = Package(options.build, options.root.resolve(), pathlib.Path(scratch))
        checks = [check_pkg_config, check_cmake, check_libraries, check_python]
        return run_cases([(f.__name__[6:], f) for f in checks], lambda check: check(package))


if __name__ == "__main__":
    sys.exit(main())
