"""What the tests in Python share: running commands a few at a time, fixtures, comparing tensors, counting results."""
import concurrent.futures
import json
import os
import pathlib
import subprocess

import numpy as np

JOBS = int(os.environ.get("NPUC_TEST_JOBS", "2"))


def call(command, seconds=120, **options):
    """Runs a command; a run that does not end counts as exit code 124. stdout and stderr are text."""
    words = [str(w) for w in command]
    try:
        return subprocess.run(words, capture_output=True, text=True, errors="backslashreplace", timeout=seconds, check=False,
                              stdin=subprocess.DEVNULL, **options)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"no end within {seconds} s")


def must(command, seconds=120, **options):
    """Runs a command that has to succeed; AssertionError with its last message otherwise. Returns its stdout."""
    done = call(command, seconds, **options)
    assert done.returncode == 0, f"{' '.join(done.args[:3])} ...: exit {done.returncode}: {last_line(done.stderr)}"
    return done.stdout


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else "(no message)"


def run_cases(cases, work):
    """work(case) for each (name, case), JOBS at a time; it fails by an exception. Prints faults, returns the exit code."""
    def guarded(item):
        try:
            work(item[1])
            return None
        except Exception as e: # a fault of the test itself is one of the case
            return str(e) if isinstance(e, AssertionError) and str(e) else f"{type(e).__name__}: {e}"
    cases = list(cases)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        faults = list(pool.map(guarded, cases))
    for (name, _), fault in zip(cases, faults):
        if fault:
            print(f"FAILED {name}: {fault}", flush=True)
    failed = sum(fault is not None for fault in faults)
    print(f"{len(cases) - failed} of {len(cases)} passed")
    return 1 if failed or not cases else 0


class Fixture:
    """A folder with model.onnx, meta.json and cases/K/{inputs,outputs}/NAME.npy."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.name = self.folder.name
        self.model = self.folder / "model.onnx"
        self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))

    def tensor(self, path):
        """The tensor a .npy file stands for: meta.json maps those whose name is no file name."""
        return self.meta.get("files", {}).get(path.name, path.stem)

    def cases(self):
        return sorted(p for p in (self.folder / "cases").iterdir() if p.is_dir())

    def input_args(self, case):
        args = []
        for f in sorted((case / "inputs").glob("*.npy")):
            args += ["--input", f"{self.tensor(f)}={f}"]
        return args

    def check_outputs(self, case, written):
        """AssertionError unless the files of `written` (--output-dir) are within the fixture's tolerance."""
        index = json.loads((written / "outputs.json").read_text(encoding="utf-8"))
        for f in sorted((case / "outputs").glob("*.npy")):
            name = self.tensor(f)
            assert name in index, f"output '{name}' is missing"
            fault = difference(np.load(written / index[name]), np.load(f), self.meta.get("tolerance", {}))
            assert not fault, f"output '{name}': {fault}"


def fixtures(folder, only=""):
    found = [Fixture(p.parent) for p in sorted(pathlib.Path(folder).glob("*/model.onnx")) if (p.parent / "cases").is_dir()]
    return [f for f in found if only in f.name]


def difference(got, want, tolerance):
    """None when equal within {rtol, atol}, else one line that says how they differ."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{list(got.shape)}, expected {want.dtype}{list(want.shape)}"
    if want.dtype.kind not in "fc":
        return None if np.array_equal(got, want) else f"{int((got != want).sum())} of {want.size} elements differ"
    rtol, atol = tolerance.get("rtol", 1e-3), tolerance.get("atol", 1e-4)
    g, w = got.astype(np.float64), want.astype(np.float64)
    close = np.isclose(g, w, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return None
    return f"{int((~close).sum())} of {w.size} elements outside rtol {rtol} atol {atol}, by up to {np.nanmax(np.abs(g - w)):.3g}"


def folder_bytes(folder):
    """{file name: contents}, to compare output folders bit for bit."""
    return {p.name: p.read_bytes() for p in sorted(pathlib.Path(folder).iterdir())}
