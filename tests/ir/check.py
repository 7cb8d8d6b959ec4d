#!/usr/bin/env python3
"""Runs the text tests of IR passes: each .ir file carries its command and the text it must print.

    ; RUN: npuc-opt -p dce %s          command; %s is a file with the case's text, %d the folder of the test; "not" in front: it must fail
    ; CHECK-LABEL: case name           starts afresh: variables are forgotten; found after the last match
    ; CHECK: %y = Add [[a:%.*]], %b    found after the last match; [[a:regex]] binds, [[a]] must equal, {{regex}} matches
    ; CHECK-NEXT: text                 on the next line
    ; CHECK-NOT: text                  nowhere between the matches around it
    ; CHECK-EMPTY:                     the command prints nothing
    ; EVAL: n=3 ints=5                 on random inputs (sizes of symbols given, integers below 5) the function's results
                                       have the same bits before and after the passes
    ; EVAL-CLOSE: n=3 rtol=1e-5        the results are close
    ; ----                             the next case of the file (the RUN line of the first holds unless it has its own)

Standard error follows standard output. Runs of blanks count as one. A case that starts with "; ROUNDTRIP" needs no CHECK:
the output must equal the case's text without comments."""
import argparse
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile

DIRECTIVE = re.compile(r";\s*(RUN|ROUNDTRIP|EVAL(?:-CLOSE)?|CHECK(?:-NEXT|-NOT|-LABEL|-EMPTY)?)(?::\s?(.*?))?\s*$")
PART = re.compile(r"\[\[(\w+):(.*?)\]\]|\[\[(\w+)\]\]|\{\{(.*?)\}\}")


class Mismatch(Exception):
    pass


def blanks(text):
    return re.sub(r"[ \t]+", " ", text.strip())


def pattern(text, variables):
    """A regular expression for the text of a CHECK line, and the names that it binds."""
    out, at, bound = "", 0, []
    text = blanks(text)
    for m in PART.finditer(text):
        out += re.escape(text[at:m.start()])
        if m.group(1):
            bound.append(m.group(1))
            # "%.*" would swallow the rest of the line: a name ends at a blank, comma or bracket
            out += f"(?P<{m.group(1)}>{m.group(2).replace('%.*', '%[^ ,)]+')})"
        elif m.group(3):
            name = m.group(3)
            if name in bound:
                out += f"(?P={name})"
            elif name in variables:
                out += re.escape(variables[name]) + r"(?![\w.])"
            else:
                raise Mismatch(f"variable {name} is not bound")
        else:
            out += m.group(4)
        at = m.end()
    return re.compile(out + re.escape(text[at:])), bound


def find(lines, start, stop, regex):
    for i in range(start, min(stop, len(lines))):
        m = regex.search(lines[i])
        if m:
            return i, m
    return None, None


def match(checks, output):
    """Raises Mismatch with the line that failed."""
    lines = [blanks(line) for line in output.splitlines()]
    variables, at, forbidden = {}, 0, []
    for kind, text in checks + [("END", "")]:
        if kind == "CHECK-NOT":
            forbidden.append(text)
            continue
        if kind == "CHECK-EMPTY":
            if output.strip():
                raise Mismatch("expected no output")
            continue
        if kind == "CHECK-LABEL":
            variables = {}
        found, m = len(lines), None
        if kind != "END":
            regex, bound = pattern(text, variables)
            found, m = find(lines, at, at + 1 if kind == "CHECK-NEXT" else len(lines), regex)
            if m is None:
                raise Mismatch(f"{kind}: {text}\n      not found from output line {at + 1} on")
            variables.update({name: m.group(name) for name in bound})
        for text_not in forbidden:
            where, hit = find(lines, at, found, pattern(text_not, variables)[0])
            if hit:
                raise Mismatch(f"CHECK-NOT: {text_not}\n      found in output line {where + 1}: {lines[where]}")
        forbidden, at = [], found + 1


def random_inputs(text, settings, folder):
    """One .npy per input of the first function; --input options that name them."""
    import numpy as np
    types = {"f32": np.float32, "f16": np.float16, "f64": np.float64, "i64": np.int64, "i32": np.int32, "bool": np.bool_,
             "u8": np.uint8, "i8": np.int8}
    codes = {"f8e4m3fn": (0, 0x78, 8), "f8e5m2": (0, 0x78, 8), "f8e8m0": (121, 133, 8), "f4e2m1": (0, 128, 4)} # from, below, bits
    random, arguments = np.random.default_rng(7), []
    head = re.search(r"func @\S+?\((.*?)\) ->", text, flags=re.S).group(1)
    for name, kind, dims in re.findall(r"%([^ :,]+): (\w+)\[([^\]]*)\]", head):
        shape = [int(eval(d, {"__builtins__": {}}, settings)) for d in dims.split(",") if d.strip()]
        path = os.path.join(folder, f"in{len(arguments)}.npy")
        if kind in codes: # numpy lacks the type: raw bytes
            lo, hi, bits = codes[kind]
            count = (math.prod(shape) * bits + 7) // 8
            signs = random.integers(0, 2, count) * 128 if lo == 0 else 0
            (random.integers(lo, hi, count) + signs).astype(np.uint8).tofile(path)
            arguments += ["--input", f"{name}={path}:{kind}:{'x'.join(map(str, shape))}"]
            continue
        dtype = types[kind]
        if np.issubdtype(dtype, np.floating):
            value = random.standard_normal(shape).astype(dtype)
        else:
            value = random.integers(0, 2 if kind == "bool" else int(settings.get("ints", 4)), shape).astype(dtype)
        np.save(path, value)
        arguments += ["--input", f"{name}={path}"]
    return arguments


def evaluate(command, folder):
    import numpy as np
    os.mkdir(folder)
    done = subprocess.run(command + ["--eval", "--output-dir", folder], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Mismatch(f"evaluation: exit status {done.returncode}\n{done.stderr}")
    return {name: np.load(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}


def same_results(opt, words, path, text, check):
    """The results of the function before and after the passes agree, bit for bit or closely."""
    import numpy as np
    kind, settings = check[0], {k: float(v) for k, v in (w.split("=") for w in check[1].split())}
    folder = os.path.dirname(path)
    inputs = random_inputs(text, settings, folder)
    before = evaluate([opt, path] + inputs, os.path.join(folder, "before"))
    after = evaluate(words + inputs, os.path.join(folder, "after"))
    if list(before) != list(after):
        raise Mismatch(f"{kind}: results {list(before)} became {list(after)}")
    for name, x in before.items():
        y = after[name]
        if kind == "EVAL":
            same = x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        else:
            rtol = settings.get("rtol", 1e-5)
            same = x.dtype == y.dtype and x.shape == y.shape and np.allclose(x, y, rtol=rtol, atol=rtol, equal_nan=True)
        if not same:
            raise Mismatch(f"{kind}: result {name} differs\n      before: {x.ravel()[:8]}\n      after:  {y.ravel()[:8]}")


def run_case(options, run, text, checks, roundtrip, home):
    must_fail = run.startswith("not ")
    words = shlex.split(run[4:] if must_fail else run)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "case.ir")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        words = [options.opt if w == "npuc-opt" else w.replace("%s", path).replace("%t", folder).replace("%d", home)
                 for w in words]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        for check in [c for c in checks if c[0].startswith("EVAL")]:
            same_results(options.opt, words, path, text, check)
    checks = [c for c in checks if not c[0].startswith("EVAL")]
    output = done.stdout + done.stderr
    if must_fail != (done.returncode != 0) or done.returncode < 0:
        raise Mismatch(f"exit status {done.returncode}\n" + output)
    try:
        if roundtrip and output != text:
            raise Mismatch("the output differs from the text")
        match(checks, output)
    except Mismatch as e:
        raise Mismatch(f"{e}\n--- output\n{output}---") from None


def cases(path):
    """(first line, RUN, text, checks, roundtrip) of each case."""
    run, number = None, 1
    with open(path, encoding="utf-8") as f:
        parts = re.split(r"^; ----.*\n", f.read(), flags=re.M)
    for part in parts:
        checks, kept, roundtrip = [], [], False
        for line in part.splitlines(keepends=True):
            m = DIRECTIVE.match(line.strip())
            if m and m.group(1) == "RUN":
                run = m.group(2)
            elif m and m.group(1) == "ROUNDTRIP":
                roundtrip = True
            elif m:
                checks.append((m.group(1), m.group(2) or ""))
            else:
                kept.append(line)
        if roundtrip:
            kept = [line for line in kept if not line.startswith(";")]
        yield number, run, "".join(kept), checks, roundtrip
        number += part.count("\n") + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", default="npuc-opt", help="the npuc-opt to test")
    parser.add_argument("paths", nargs="+", help=".ir files, or folders of them")
    options = parser.parse_args()
    files = []
    for path in options.paths:
        names = sorted(os.listdir(path)) if os.path.isdir(path) else [""]
        files += [os.path.join(path, n) if n else path for n in names if not n or n.endswith(".ir")]
    n_cases, failed = 0, 0
    for path in files:
        for number, run, text, checks, roundtrip in cases(path):
            n_cases += 1
            try:
                if not run or not (checks or roundtrip):
                    raise Mismatch("the case has no RUN or no CHECK line")
                run_case(options, run, text, checks, roundtrip, os.path.dirname(path))
            except Mismatch as e:
                failed += 1
                print(f"{path}:{number}: {e}")
    print(f"{n_cases - failed} of {n_cases} cases passed")
    return 1 if failed or not n_cases else 0


if __name__ == "__main__":
    sys.exit(main())
