"""Finding and calling the npuc command."""
import json
import os
import shutil
import subprocess

from ._errors import NpucError


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
