#!/usr/bin/env python3
"""The official ONNX test cases, compiled and run on the emulated cores.

    run_suite.py [--target T ...] [--suite S ...] [--filter REGEX] [--shard I/N] [--json OUT] ...

A case is judged by the official runner's own comparison with the case's tolerances. Cases that skips.tsv names have to fail;
all others have to pass. Exit code 1 on anything else. PYTHONPATH and NPUC_LIB say which npuc is meant; without them it is the
one of this source tree.
"""
import argparse
import collections
import json
import os
import pathlib
import re
import sys
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "python")]
import numpy as np
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt, Runner

import npuc.backend
from cases import SUITES, Skips, load_cases
from workers import run_isolated

# Host steps that are no node of the model and do no work of one: they give a view, or a size to what follows (Contents reads
# the few integers that become sizes and launch parameters).
FREE_HOST = {"SizeOf", "Contents", "Shape", "Size", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
FAST = 7 # --fast: every so many'th case


def parse_arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--target", action="append", help="default: ascend-910b1; may be repeated")
    ap.add_argument("--suite", action="append", choices=SUITES, help="default: all; may be repeated")
    ap.add_argument("--filter", default="", help="regular expression that the case's name contains")
    ap.add_argument("--names", help="file with the names of the cases to run, first word of each line")
    ap.add_argument("--op", default="", help="regular expression for the whole name of an operator the case has")
    ap.add_argument("--shard", default="1/1", help="I/N: every N'th case, from the I'th on")
    ap.add_argument("--fast", action="store_true", help=f"every {FAST}th case")
    ap.add_argument("--precision", default="keep")
    ap.add_argument("--check-hazards", action="store_true", help="look for races in every tile program")
    ap.add_argument("-j", "--jobs", type=int, default=int(os.environ.get("NPUC_TEST_JOBS", "2")))
    ap.add_argument("--seconds", type=float, default=60, help="limit of a case")
    ap.add_argument("--floor", type=float, default=0, help="least share of relevant cases wholly on NPU units, in percent")
    ap.add_argument("--json", help="write a record per case")
    ap.add_argument("--cache", help="file that keeps the loaded cases")
    ap.add_argument("--list-failures", action="store_true", help="a line per unexpected result: name, operators, message")
    ap.add_argument("--host-reasons", action="store_true", help="what runs on the host, and why, by frequency")
    return ap.parse_args()


def select(cases, options):
    """The cases the options name, in order."""
    if options.names:
        lines = pathlib.Path(options.names).read_text(encoding="utf-8").splitlines()
        wanted = {line.split()[0] for line in lines if line.strip()}
        cases = [c for c in cases if c.name in wanted]
    cases = [c for c in cases if re.search(options.filter, c.name)]
    if options.op:
        cases = [c for c in cases if any(re.fullmatch(options.op, op) for op in c.ops)]
    first, step = map(int, options.shard.split("/"))
    cases = cases[first - 1 :: step]
    return cases[::FAST] if options.fast else cases


def spread(outputs):
    """Elements of sequences as outputs of their own, with the sequences' lengths: the official comparison takes no sequence
    that holds a scalar."""
    flat = [np.array([len(o) if isinstance(o, (list, tuple)) else -1 for o in outputs])]
    for o in outputs:
        flat += spread(o) if isinstance(o, (list, tuple)) else [np.zeros(0) if o is None else np.asarray(o)]
    return flat


def run_case(case, target, options):
    """Compiles, runs and judges; {"fault": None or text, "host": [[operator, reason]], "steps": n}."""
    found = {"fault": None, "host": [], "steps": 0}
    try:
        model, data_sets = case.load()
        rep = npuc.backend.prepare(model, target=target, precision=options.precision, check_hazards=options.check_hazards)
        for inputs, wanted in data_sets:
            outputs = list(rep.run(inputs))
            report = rep.session.report()
            found["steps"] += len(report["steps"])
            found["host"] += [[s["op"], s["reason"] or ""] for s in report["steps"] if s["host"] and s["op"] not in FREE_HOST]
            Runner.assert_similar_outputs(spread(wanted), spread(outputs), rtol=case.rtol, atol=case.atol)
        rep.session.close()
    except BackendIsNotSupposedToImplementIt as e:
        found["fault"] = f"the official runner would count this as passed: {e}"
    except Exception as e: # whatever goes wrong is the case's failure
        found["fault"] = first_line(e)
    return found


def first_line(e):
    text = " ".join(line.strip() for line in str(e).splitlines() if line.strip())
    text = re.sub(r"\S*/npuc-\w+/", "", text) # the temporary folder tells nothing
    kind = type(e).__name__
    if kind in ("NpucError", "AssertionError"):
        return text[:300]
    where = traceback.extract_tb(e.__traceback__)[-1]
    return f"{kind}: {text[:250]} ({pathlib.Path(where.filename).name}:{where.lineno})"


def run_target(cases, target, skips, options):
    """A record per case, in the order of the cases."""
    records = [None] * len(cases)
    work = lambda i: run_case(cases[i], target, options)
    for i, found, fault, seconds in run_isolated(len(cases), work, options.jobs, options.seconds):
        case = cases[i]
        found = found or {"fault": fault, "host": [], "steps": 0}
        skip, failed = skips.reason(case), found["fault"] is not None
        if fault:
            status = "failed" # a crash or a hang is never expected
        else:
            status = ("skipped" if failed else "unexpected") if skip else ("failed" if failed else "passed")
        records[i] = {"name": case.name, "suite": case.suite, "target": target, "ops": case.ops, "status": status,
                      "skip": skip, "seconds": round(seconds, 3), **found}
    return records


def summarise(target, records, options):
    """Prints what a person wants to know; returns whether all is as it has to be."""
    relevant = [r for r in records if r["skip"] is None]
    wrong = [r for r in records if r["status"] in ("failed", "unexpected")]
    count = collections.Counter(r["status"] for r in records)
    print(f"\n{target}: {len(records)} cases, {len(relevant)} relevant: {count['passed']} passed, "
          f"{len([r for r in relevant if r['status'] == 'failed'])} failed; "
          f"{count['skipped']} skipped, {count['unexpected']} of the skipped passed")
    for suite in SUITES:
        part = [r for r in relevant if r["suite"] == suite]
        if part:
            print(f"  {suite:18} {sum(r['status'] == 'passed' for r in part):5} of {len(part)}")
    on_npu = [r for r in relevant if r["status"] == "passed" and not r["host"]]
    share = 100 * len(on_npu) / max(len(relevant), 1)
    print(f"  wholly on NPU units: {len(on_npu)} of {len(relevant)} relevant cases = {share:.1f} %")
    if wrong:
        by_op = collections.Counter(main_op(r) for r in wrong)
        print("  unexpected by operator: " + ", ".join(f"{op} {n}" for op, n in by_op.most_common()))
    if options.host_reasons:
        reasons = collections.Counter((op, why) for r in relevant for op, why in {tuple(h) for h in r["host"]})
        for (op, why), n in reasons.most_common():
            print(f"  host {n:4}  {op}: {why}")
    for r in wrong if options.list_failures else wrong[:40]:
        print(f"FAILED {r['name']} [{','.join(r['ops'][:4])}]: {r['fault'] or 'passed, but is listed in skips.tsv: ' + r['skip']}")
    if len(wrong) > 40 and not options.list_failures:
        print(f"... and {len(wrong) - 40} more, see --list-failures")
    if share < options.floor:
        print(f"FAILED {share:.1f} % wholly on NPU units, at least {options.floor} % are expected")
    return not wrong and share >= options.floor


def main_op(record):
    """The operator a case is about: its only one, or the one its name has."""
    name = record["name"].replace("_", "").lower()
    ops = [op.split("::")[-1] for op in record["ops"]]
    return next((op for op in sorted(ops, key=len, reverse=True) if op.lower() in name), ops[0] if len(ops) == 1 else "(several)")


def main():
    options = parse_arguments()
    skips, good, all_records = Skips(HERE / "skips.tsv"), True, []
    cases = select(load_cases(options.suite or SUITES, options.cache), options)
    if not cases:
        print("no case is selected")
        return 2
    print(f"npuc {npuc.version()}, targets {', '.join(npuc.targets())}") # an absent library ends here, not in every case
    for target in options.target or ["ascend-910b1"]:
        records = run_target(cases, target, skips, options)
        good = summarise(target, records, options) and good
        all_records += records
    complete = not (options.filter or options.op or options.names or options.fast or options.suite) and options.shard == "1/1"
    for pattern in skips.unused() if complete else []:
        print(f"FAILED skips.tsv: no case matches {pattern}")
        good = False
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(all_records, indent=1), encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
