#!/usr/bin/env python3
"""npuc generate: what it prints and measures, chunks of the prompt, stops, draws; bits and times do not depend on how."""
import argparse
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", required=True)
    args = ap.parse_args()
    bard = pathlib.Path(args.root) / "examples" / "bard"
    prompt = json.loads((bard / "eval" / "reference.json").read_text(encoding="utf-8"))["prompts"][1]
    ids, greedy = ",".join(map(str, prompt["ids"])), prompt["greedy"][:20]
    with tempfile.TemporaryDirectory() as tmp:
        plan = pathlib.Path(tmp) / "bard.plan"
        support.must([args.npuc, "compile", bard / "model.onnx", "-o", plan, "--kv-capacity", "64", "--quiet"])

        def generate(*options, tokens=ids, new=20):
            return support.must([args.npuc, "generate", plan, "--tokens", tokens, "--new", str(new), *options])

        assert generate() == ",".join(map(str, greedy)) + "\n"
        both = json.loads(generate("--mode", "both", "--json"))
        chunks = json.loads(generate("--mode", "both", "--json", "--chunk", "4"))
        clock = json.loads(generate("--mode", "clock", "--json"))
        assert both["tokens"] == greedy and chunks["tokens"] == greedy and both["finish"] == "length"
        assert clock["tokens"] is None and [c["cycles"] for c in clock["calls"]] == [c["cycles"] for c in both["calls"]]
        n = len(prompt["ids"])
        assert [c["tokens"] for c in both["calls"]] == [n] + [1] * 19
        assert [c["tokens"] for c in chunks["calls"]] == [4] * (n // 4) + ([n % 4] if n % 4 else []) + [1] * 19
        assert abs(both["prefill_cycles"] - both["calls"][0]["cycles"]) < 1
        assert abs(both["tokens_per_s"] * both["decode_us_per_token"] / 1e6 - 1) < 1e-9
        assert both["time_to_first_token_us"] < chunks["time_to_first_token_us"] and both["host_decode_tokens_per_s"] > 0

        stopped = json.loads(generate("--stop", f"9999,{greedy[7]}", "--json"))
        assert stopped["tokens"] == greedy[:greedy.index(greedy[7]) + 1] and stopped["finish"] == "stop"
        drawn = [generate("--temperature", "1.2", "--top-p", "0.9", "--seed", s) for s in ("3", "3", "4")]
        assert drawn[0] == drawn[1] != drawn[2], drawn
        assert generate("--temperature", "0.7", "--top-k", "1") == generate()
        for options, code, words in (
            (["--tokens", ",".join(["5"] * 65)], 5, "room for 64"),
            (["--tokens", "1", "--top-p", "1.5"], 2, "--top-p"),
            (["--tokens", "1", "--temperature", "hot"], 2, "hot"),
            (["--tokens", "1", "--chunk", "0"], 2, "--chunk"),
            (["--tokens", "1", "--stop", "x"], 2, "--stop"),
        ):
            done = support.call([args.npuc, "generate", plan, *options])
            assert done.returncode == code and words in done.stderr, (options, done.returncode, done.stderr)
            assert done.stdout == "" and len(done.stderr.splitlines()) == 1, done
        done = support.call([args.npuc, "generate", plan, "--tokens", ",".join(["5"] * 60), "--new", "9"])
        assert done.returncode == 5 and len(done.stdout.split(",")) == 5 and "stopped after 5 of 9" in done.stderr, done


main()
