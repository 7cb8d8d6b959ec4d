#!/usr/bin/env python3
"""npuc generate: what it prints and measures, chunks of the prompt, stops, draws; bits and times do not depend on how."""
import argparse
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support


def check_batch(args, tmp, bard, prompts):
    """Several prompts: the greedy tokens of each alone, whatever the model does about unequal lengths."""
    texts = [",".join(map(str, p["ids"])) for p in prompts[:3]]
    (tmp / "prompts.txt").write_text("".join(t + "\n" for t in texts), encoding="utf-8")
    done = support.must([args.npuc, "generate", bard, "--tokens", tmp / "prompts.txt", "--new", "8"])
    assert done == "".join(",".join(map(str, p["greedy"][:8])) + "\n" for p in prompts[:3]), done
    both = json.loads(support.must([args.npuc, "generate", bard, "--tokens", tmp / "prompts.txt", "--new", "8", "--mode", "both", "--json"]))
    assert [s["tokens"] for s in both["sequences"]] == [p["greedy"][:8] for p in prompts[:3]] and len(both["calls"]) == 8
    assert [s["prompt_tokens"] for s in both["sequences"]] == [len(p["ids"]) for p in prompts[:3]]
    texts = ["5,9,33,2,7", "11,12", "3,1,4,1,5,9,2,6", "42"]
    together = [o for t in texts for o in ("--tokens", t)]
    for name in ("llama-genai-fp32", "llama-hand-static24", "llama-mobius", "llama-hand-op23-causal3d", "qwen2-genai-fp32", "llama-genai-fp16"):
        plan = tmp / f"{name}.plan"
        support.must([args.npuc, "compile", pathlib.Path(args.root) / "tests" / "models" / name / "model.onnx", "-o", plan,
                      "--kv-capacity", "16", "--quiet"])
        options = ["--new", "8", "--temperature", "0.5", "--top-k", "1"]
        alone = "".join(support.must([args.npuc, "generate", plan, "--tokens", t, *options]) for t in texts)
        for chunk in ([], ["--chunk", "3"], ["--mode", "both"]):
            ids = support.must([args.npuc, "generate", plan, *together, *options, *chunk])
            assert "".join(ids.splitlines(True)[:4]) == alone, (name, chunk, ids, alone)
        stopped = json.loads(support.must([args.npuc, "generate", plan, *together, "--new", "8", "--stop", alone.split(",")[2], "--json"]))
        for text, s in zip(texts, stopped["sequences"]):
            one = json.loads(support.must([args.npuc, "generate", plan, "--tokens", text, "--new", "8", "--stop", alone.split(",")[2], "--json"]))
            assert (s["tokens"], s["finish"]) == (one["tokens"], one["finish"]), (name, s, one)
    full = support.call([args.npuc, "generate", tmp / "llama-genai-fp32.plan", *together, "--new", "12", "--json"])
    assert full.returncode == 5 and "stopped after 9 of 12" in full.stderr, full
    ends = [(s["finish"], len(s["tokens"])) for s in json.loads(full.stdout)["sequences"]]
    assert ends == [("length", 12), ("length", 12), ("capacity", 9), ("length", 12)], ends


def check_states(args, tmp):
    """An input that is no KV cache, like the state of a convolution, is named, with what can be done."""
    import onnx
    from onnx import TensorProto as T, helper as h, numpy_helper
    import numpy as np
    weight = numpy_helper.from_array(np.ones((8, 4), np.float32), "table")
    nodes = [h.make_node("Gather", ["table", "input_ids"], ["rows"]), h.make_node("Add", ["rows", "past.0.conv"], ["sum"]),
             h.make_node("Unsqueeze", ["sum", "one"], ["key"]),
             h.make_node("Concat", ["past_key_values.0.key", "key"], ["present.0.key"], axis=2),
             h.make_node("ReduceSum", ["present.0.key", "axes"], ["past"], keepdims=0),
             h.make_node("Add", ["sum", "past"], ["all"]), h.make_node("MatMul", ["all", "head"], ["logits"])]
    axes = [numpy_helper.from_array(np.array([1]), "one"), numpy_helper.from_array(np.array([2]), "axes")]
    head = numpy_helper.from_array(np.ones((4, 8), np.float32), "head")
    graph = h.make_graph(nodes, "state", [h.make_tensor_value_info("input_ids", T.INT64, ["batch", "seq"]),
                                          h.make_tensor_value_info("past.0.conv", T.FLOAT, ["batch", 1, 4]),
                                          h.make_tensor_value_info("past_key_values.0.key", T.FLOAT, ["batch", 1, "past", 4])],
                         [h.make_tensor_value_info("logits", T.FLOAT, ["batch", "seq", 8]),
                          h.make_tensor_value_info("present.0.key", T.FLOAT, ["batch", 1, "total", 4])], [weight, head, *axes])
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9), tmp / "state.onnx")
    support.must([args.npuc, "compile", tmp / "state.onnx", "-o", tmp / "state.plan", "--quiet"])
    done = support.call([args.npuc, "generate", tmp / "state.plan", "--tokens", "1,2", "--new", "2"])
    assert done.returncode == 4 and "for: past.0.conv; " in done.stderr and "npuc run --input" in done.stderr, done


def check_pages(args, tmp, model, prompts):
    """Caches in pages: the tokens of caches in one piece; what takes part, a bad size and a pool that is too small are told."""
    def compile_with(name, *options):
        done = support.call([args.npuc, "compile", model, "-o", tmp / name, "--kv-capacity", "64", *options])
        assert done.returncode == 0, done
        return done.stderr

    texts = [o for p in prompts[:3] for o in ("--tokens", ",".join(map(str, p["ids"])))]
    assert "10 of 10 caches in pages of 16 rows" in compile_with("paged.plan", "--kv-page", "16")
    tokens = support.must([args.npuc, "generate", tmp / "paged.plan", *texts, "--new", "8"])
    assert tokens == "".join(",".join(map(str, p["greedy"][:8])) + "\n" for p in prompts[:3]), tokens
    compile_with("small.plan", "--kv-page", "16", "--kv-pool", "2", "--quiet")
    full = support.call([args.npuc, "generate", tmp / "small.plan", *texts, "--new", "8"])
    assert full.returncode == 5 and "--kv-pool" in full.stderr, full
    start = ",".join(str(5 + i % 7) for i in range(37))
    for name, tails in (("paged.plan", ("11,2", "12,9", "11,3")), ("llama-genai-fp32", ("11", "12,9", "11,3,8,40"))):
        texts = [f"{start},{tail}" for tail in tails]
        together = [o for t in texts for o in ("--tokens", t)]
        plan = tmp / name
        if not plan.exists():
            support.must([args.npuc, "compile", pathlib.Path(args.root) / "tests" / "models" / name / "model.onnx", "-o", plan,
                          "--kv-capacity", "64", "--kv-page", "16", "--quiet"])
        alone = [json.loads(support.must([args.npuc, "generate", plan, "--tokens", t, "--new", "4", "--json"])) for t in texts]
        for chunk, calls in ((["--mode", "both"], [32, 5 + len(tails[2].split(","))]), (["--chunk", "20", "--mode", "both"], [20, 12])):
            shared = json.loads(support.must([args.npuc, "generate", plan, *together, "--new", "4", "--json", *chunk]))
            assert [s["tokens"] for s in shared["sequences"]] == [a["tokens"] for a in alone], (name, shared, alone)
            assert [c["tokens"] for c in shared["calls"]][:len(calls)] == calls, (name, shared["calls"])
            clock = json.loads(support.must([args.npuc, "generate", plan, *together, "--new", "4", "--json", "--mode", "clock", *chunk[:-2]]))
            assert [c["cycles"] for c in clock["calls"]] == [c["cycles"] for c in shared["calls"]], (name, clock["calls"])
            assert "pages" not in clock, clock
            assert shared["pages_used"] == 2 + 3 < sum(a["pages_used"] for a in alone), (name, shared)
    compile_with("gears.plan", "--kv-page", "16", "--quiet", "-D", "sequence_length=1,16,20")
    compile_with("whole.plan", "--quiet")
    for n, count in ((16, 1), (20, 2)):
        texts = [o for i in range(count) for o in ("--tokens", ",".join(str(5 + i + k) for k in range(n)))]
        tokens = [support.must([args.npuc, "generate", tmp / f"{plan}.plan", *texts, "--new", "20"]) for plan in ("gears", "whole")]
        assert tokens[0] == tokens[1], (n, tokens)
    two = support.call([args.npuc, "compile", model, "-o", tmp / "bad.plan", "--kv-page", "16", "-D", "batch_size=1,2", "--quiet"])
    assert two.returncode == 2 and "gears change the shape of cache" in two.stderr and not (tmp / "bad.plan").exists(), two
    bad = support.call([args.npuc, "compile", model, "-o", tmp / "bad.plan", "--kv-page", "17"])
    assert bad.returncode == 2 and "a multiple of 16" in bad.stderr and not (tmp / "bad.plan").exists(), bad


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", required=True)
    args = ap.parse_args()
    bard = pathlib.Path(args.root) / "examples" / "bard"
    prompts = json.loads((bard / "eval" / "reference.json").read_text(encoding="utf-8"))["prompts"]
    prompt = prompts[1]
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
        check_batch(args, pathlib.Path(tmp), plan, prompts)
        check_states(args, pathlib.Path(tmp))
        check_pages(args, pathlib.Path(tmp), bard / "model.onnx", prompts)
        for options, code, words in (
            (["--tokens", "1", "--tokens", ""], 2, "holds no token"),
            (["--tokens", pathlib.Path(tmp) / "none.txt"], 6, "none.txt"),
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
