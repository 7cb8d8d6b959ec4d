#!/usr/bin/env python3
"""Global memory of the fixtures: the plan takes little more than what is live at once, and the map keeps its promises.

    check_memory.py --npuc NPUC [--target T] [--only NAME] [--table] MODELS

MODELS: folder of fixtures. --table prints bytes, bound and what is lost per fixture.
"""
import argparse
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import call, fixtures, must, run_cases

LIMIT = 0.05  # of the bytes that are live at once


def check_fragmentation(options, fixture):
    with tempfile.TemporaryDirectory() as scratch:
        plan = pathlib.Path(scratch) / "a.plan"
        must([options.npuc, "compile", fixture.model, "-o", plan, "--target", options.target, "--quiet"])
        for case in fixture.cases():
            report = json.loads(must([options.npuc, "run", plan, "--mode", "clock", "--json", *fixture.input_args(case)]))
            size, bound = report["activation_bytes"], report["activation_lower_bound"]
            lost = size / bound - 1 if bound else 0
            if options.table:
                print(f"{fixture.name:36} {case.name:16} {size:12} {bound:12} {100 * lost:+6.2f} %", flush=True)
            assert lost <= LIMIT, f"{case.name}: {size} bytes for {bound} live ones, {100 * lost:.1f} % more"


def overlap(a, b):
    time = a["first_step"] <= b["last_step"] and b["first_step"] <= a["last_step"]
    space = a["offset"] < b["offset"] + b["size"] and b["offset"] < a["offset"] + a["size"]
    return time and space


def check_map(options, _):
    """Nothing that lives at the same time shares bytes; sums and peaks are what the parts say."""
    model = options.models / "bert-tiny-optimum" / "model.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        plan = pathlib.Path(scratch) / "a.plan"
        must([options.npuc, "compile", model, "-o", plan, "--target", options.target, "--quiet"])
        sizes = ["-D", "batch_size=3", "-D", "sequence_length=21"]
        m = json.loads(must([options.npuc, "inspect", plan, "--memory", "--json", *sizes]))
        places = m["places"]
        assert len(places) > 20 and {p["kind"] for p in places} >= {"weight", "input", "output", "temporary"}, "kinds are missing"
        for i, a in enumerate(places):
            assert a["offset"] % 512 == 0, f"{a['tensor']} is not aligned"
            for b in places[:i]:
                assert not overlap(a, b), f"{a['tensor']} and {b['tensor']} overlap"
        end = max(p["offset"] + p["size"] for p in places)
        total = m["weights_bytes"] + m["cache_bytes"] + m["activation_bytes"]
        assert 0 <= total - end < 512, f"the map ends at {end}, the totals at {total}"
        assert max(m["live_bytes"]) <= m["activation_lower_bound"], "more bytes live than the bound says"
        for space, level in m["on_chip"].items():
            assert 0 <= level["used"] <= level["size"], f"{space}: {level['used']} bytes of {level['size']}"
        text = must([options.npuc, "inspect", plan, "--memory", *sizes])
        assert "global memory" in text and "temporary" in text and "step" in text, "the table is incomplete"
        missing = call([options.npuc, "inspect", plan, "--memory", "-D", "batch_size=3"])
        assert missing.returncode == 3 and "sequence_length" in missing.stderr, f"exit {missing.returncode}: {missing.stderr}"
        of_model = call([options.npuc, "inspect", model, "--memory"])
        assert of_model.returncode == 2, f"the map of a model: exit {of_model.returncode}"


def check_too_large(options, _):
    """A machine with too little memory is told how much is missing, what takes it and what to change."""
    model = options.models / "bert-tiny-optimum" / "model.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        plan = pathlib.Path(scratch) / "a.plan"
        must([options.npuc, "compile", model, "-o", plan, "--target", options.target, "--set", "gm.size=1MiB", "--quiet"])
        done = call([options.npuc, "run", plan, "--mode", "clock", "-D", "batch_size=64", "-D", "sequence_length=64"])
        assert done.returncode == 5, f"exit {done.returncode}: {done.stderr}"
        for part in ("too much", "weights", "caches", "activations", "largest", "smaller batch"):
            assert part in done.stderr, f"the message does not say '{part}': {done.stderr}"
        small = call([options.npuc, "compile", model, "-o", plan, "--target", options.target, "--set", "gm.size=64KiB", "--quiet"])
        assert small.returncode == 5 and "weights" in small.stderr, f"exit {small.returncode}: {small.stderr}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=pathlib.Path)
    parser.add_argument("--target", default="ascend-910b1")
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("models", type=pathlib.Path)
    options = parser.parse_args()
    work = [("map", (check_map, None)), ("too large", (check_too_large, None))]
    work = [w for w in work if options.only in w[0]]
    work += [(f.name, (check_fragmentation, f)) for f in fixtures(options.models, options.only)]
    return run_cases(work, lambda w: w[0](options, w[1]))


if __name__ == "__main__":
    sys.exit(main())
