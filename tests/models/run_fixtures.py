#!/usr/bin/env python3
"""Every model fixture against its recorded outputs: compiled once, each case run on the emulated cores, all outputs compared.

    run_fixtures.py --npuc NPUC [--target T] [--precision P] [--only PART] [--check-hazards] [--mode data|both] FOLDER
"""
import argparse
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import fixtures, must, run_cases


def check_fixture(options, fixture):
    run_options = ["--mode", options.mode, "--threads", "1"] + (["--check-hazards"] if options.check_hazards else [])
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        plan = scratch / "m.plan"
        must([options.npuc, "compile", fixture.model, "-o", plan, "--target", options.target, "--precision", options.precision, "--quiet"])
        for case in fixture.cases():
            out = scratch / case.name
            try:
                must([options.npuc, "run", plan, "--output-dir", out, *run_options, *fixture.input_args(case)])
                fixture.check_outputs(case, out)
            except AssertionError as e:
                raise AssertionError(f"{case.name}: {e}") from None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=pathlib.Path)
    parser.add_argument("--target", default="ascend-910b1")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--only", default="", help="fixtures whose name holds this")
    parser.add_argument("--mode", default="data", choices=["data", "both"])
    parser.add_argument("--check-hazards", action="store_true")
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    cases = [(f.name, f) for f in fixtures(options.folder, options.only)]
    return run_cases(cases, lambda fixture: check_fixture(options, fixture))


if __name__ == "__main__":
    sys.exit(main())
