#!/usr/bin/env python3
"""Estimates of published rows: builds their ONNX models, runs `npuc estimate` on each, prints errors by class.

  validate.py --npuc build/npuc --tables FOLDER --out FOLDER [--doc docs/validation.md]

--tables holds the measurement tables (ascend_*.csv, mlu_*.csv) with their tools make_models.py and run_validation.py; a table that
is not there is left out. --doc replaces the figures between the two marks of that page. Needs onnx and numpy.
Exit status: 0, or 2 when nothing could be run.
"""
import argparse
import csv
import itertools
import json
import pathlib
import statistics
import subprocess
import sys

TABLES = ["ascend_gemm", "ascend_conv", "ascend_move", "ascend_vector", "ascend_attention", "mlu_micro", "mlu_model_zoo"]
# Mean error, per cent.
GOAL = {"gemm_large": 6, "streaming": 6, "small_kernel": 12, "attention": 12, "conv": 10, "mlu_int8_b1": 18, "mlu_other": 12}
MARKS = ("<!-- figures: validate.py -->", "<!-- end of figures -->")
WORST = 5  # rows shown of a class


def run(a):
    """Models and options of every row, then one estimate each: pred.csv and index.json in the output folder."""
    tables = [a.tables / f"{t}.csv" for t in TABLES]
    given = [word for t in tables if t.exists() for word in ("--table", str(t))]
    if not given:
        print(f"validate.py: no table in {a.tables}", file=sys.stderr)
        sys.exit(2)
    make = [sys.executable, a.tables / "make_models.py", *given, "--out", a.out]
    test = [sys.executable, a.tables / "run_validation.py", "--npuc", a.npuc, "--index", a.out / "index.json", "--out",
            a.out / "pred.csv"]
    if subprocess.run(make, check=False, stdout=subprocess.DEVNULL).returncode:
        sys.exit(2)
    if subprocess.run(test, check=False, stdout=subprocess.DEVNULL).returncode > 1:
        sys.exit(2)


def read(out):
    index = {e["id"]: e for e in json.loads((out / "index.json").read_text())["entries"]}
    rows = []
    with open(out / "pred.csv", newline="", encoding="utf-8") as f:
        for r in csv.DictReader(f):
            r["target"] = index[r["id"]]["target"]
            rows.append(r)
    return rows


def figures(rows):
    """Lines of Markdown: a table of classes, one of the worst rows of each that count."""
    lines = ["| class | rows | mean error | median | bias | worst | goal |", "|---|---|---|---|---|---|---|"]
    counted = [r for r in rows if r["use"] == "fit" and r["class"] != "microkernel"]
    for title, chosen in (("", counted), (" (rows of doubt)", [r for r in rows if r["use"] == "caution"])):
        for c in sorted({r["class"] for r in chosen} - {"microkernel"}):
            of = [r for r in chosen if r["class"] == c]
            e = sorted((100 * float(r["error"]) for r in of if r["error"]), key=abs)
            if not e:
                continue
            goal = f"{GOAL[c]} %" if c in GOAL and not title else ""
            missing = f" ({len(of) - len(e)} without estimate)" if len(of) > len(e) else ""
            lines.append(f"| {c}{title} | {len(of)}{missing} | {statistics.mean(map(abs, e)):.1f} % "
                         f"| {statistics.median(map(abs, e)):.1f} % | {sum(e) / len(e):+.1f} % | {e[-1]:+.1f} % | {goal} |")
    lines += ["", "| row | target | measured us | estimate us | error |", "|---|---|---|---|---|"]
    known = sorted((r for r in counted if r["error"]), key=lambda r: (r["class"], -abs(float(r["error"]))))
    shown = [r for _, of in itertools.groupby(known, lambda r: r["class"]) for r in list(of)[:WORST]]
    for r in shown:
        lines.append(f"| {r['id']} | {r['target']} | {float(r['measured_us']):.1f} | {float(r['pred_us']):.1f} "
                     f"| {100 * float(r['error']):+.1f} % |")
    return lines


def write(doc, lines):
    text = doc.read_text(encoding="utf-8")
    head, rest = text.split(MARKS[0], 1)
    tail = rest.split(MARKS[1], 1)[1]
    doc.write_text(head + MARKS[0] + "\n" + "\n".join(lines) + "\n" + MARKS[1] + tail, encoding="utf-8")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--npuc", required=True, type=pathlib.Path)
    ap.add_argument("--tables", required=True, type=pathlib.Path)
    ap.add_argument("--out", required=True, type=pathlib.Path)
    ap.add_argument("--doc", type=pathlib.Path)
    a = ap.parse_args()
    run(a)
    lines = figures(read(a.out))
    print("\n".join(lines))
    if a.doc:
        write(a.doc, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
