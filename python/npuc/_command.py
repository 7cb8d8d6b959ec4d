"""Finding and calling the npuc command."""
import json
import os
import shutil
import subprocess


class NpucError(RuntimeError):
    """A command failed; `code` is its exit code (npuc --help lists them), the text its last message."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def command():
    """Path of the npuc program: $NPUC, else the one on PATH."""
    path = os.environ.get("NPUC") or shutil.which("npuc")
    if not path:
        raise NpucError(6, "npuc not found: set NPUC or put it on PATH")
    return path


def run_json(*args):
    """Runs `npuc ARGS` and returns its standard output as parsed JSON. Raises NpucError on a non-zero exit code."""
    done = subprocess.run([command(), *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise NpucError(done.returncode, lines[-1] if lines else f"npuc exited with {done.returncode}")
    return json.loads(done.stdout)
