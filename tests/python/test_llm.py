"""npuc.llm: bard's reference continuations, choosing tokens against a reference in numpy, batches, stop texts, chats."""
import ctypes
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import onnx
from onnx import helper

import npuc
from npuc import _tokens
from npuc._text import Growing, Text
from npuc.llm import Generator, Sampling

BARD = pathlib.Path(__file__).resolve().parents[2] / "examples" / "bard"
MODELS = BARD.parents[1] / "tests" / "models"
PROMPTS = json.loads((BARD / "eval" / "reference.json").read_text(encoding="utf-8"))["prompts"]
MASK = 2**64 - 1


def watched(generator, prompts, new_tokens, **options):
    """Per prompt the logits that its tokens were chosen by, as bytes."""
    model, seen = generator.model, [[] for _ in prompts]
    pick = model.pick

    def look(sampling, draw, before, sequence=0, batch=1, row=-1):
        t = npuc._lib.Tensor()
        model._api.npurt_output(model._run, model._logits.encode(), ctypes.byref(t))
        size = t.size // int(np.prod(t.dims[:t.rank - 1]))
        seen[sequence].append(ctypes.string_at(t.data, t.size)[size * model._row(sequence, batch, row):][:size])
        return pick(sampling, draw, before, sequence, batch, row)

    model.pick = look
    generator.generate(prompts, new_tokens, **options)
    del model.pick
    return seen


def split_mix(seed, draw):
    """Number `draw` of SplitMix64, in [0, 1)."""
    z = seed
    for _ in range(draw + 1):
        z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return ((z ^ (z >> 31)) >> 11) / 2**53


def choose(logits, how, draw, before):
    """The definition in npurt.h, step by step."""
    logits = logits.astype(np.float32).copy()
    for t in set(before) if how.repeat_penalty else ():
        x, penalty = logits[t], np.float32(how.repeat_penalty)
        logits[t] = x / penalty if x > 0 else x * penalty
    if how.temperature == 0:
        return int(np.argmax(logits))
    order = np.lexsort((np.arange(len(logits)), -logits))
    weights = np.exp((logits[order].astype(np.float64) - logits.max()) / how.temperature)
    if not (0 < how.top_k < len(order) or 0 < how.top_p < 1 or how.min_p): # the ids are walked as they are
        order, weights = np.arange(len(logits)), np.exp((logits.astype(np.float64) - logits.max()) / how.temperature)
        return int(order[np.searchsorted(np.cumsum(weights), split_mix(how.seed, draw) * weights.sum(), side="right")])
    kept = min(how.top_k or len(order), len(order))
    if 0 < how.top_p < 1:
        share = np.cumsum(weights[:kept]) / weights[:kept].sum()
        kept = min(kept, int(np.searchsorted(share, how.top_p)) + 1)
    kept = min(kept, int((weights >= how.min_p).sum()))
    ids, w = order[:kept], weights[:kept]
    return int(ids[np.searchsorted(np.cumsum(w), split_mix(how.seed, draw) * w.sum(), side="right")])


class Bard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.plan = npuc.compile(str(BARD / "model.onnx"), f"{cls.folder.name}/bard.plan", kv_capacity=128)
        cls.bard = Generator(cls.plan, str(BARD), bos=0)

    @classmethod
    def tearDownClass(cls):
        cls.bard.close()
        cls.folder.cleanup()

    def test_reference(self):
        for p in PROMPTS[:2]:
            self.assertEqual(self.bard.encode(p["prompt"]), p["ids"])
            result = self.bard.generate(p["prompt"], 32)
            self.assertEqual(result.tokens, p["greedy"][:32])
            self.assertEqual(result.text, self.bard.text.decode(p["greedy"][:32]))
            self.assertEqual((result.finish, result.prompt_tokens, result.times.decode_steps), ("length", len(p["ids"]), 31))

    def test_stream_is_the_text(self):
        pieces = list(self.bard.stream(PROMPTS[0]["prompt"], 24))
        self.assertEqual([p.token for p in pieces], PROMPTS[0]["greedy"][:24])
        self.assertEqual("".join(p.text for p in pieces), self.bard.text.decode(PROMPTS[0]["greedy"][:24]))
        self.assertEqual([p.finish for p in pieces], [None] * 23 + ["length"])

    def test_batch_of_unequal_lengths(self):
        results = self.bard.generate([p["prompt"] for p in PROMPTS], 16)
        for r, p in zip(results, PROMPTS):
            self.assertEqual(r.tokens, p["greedy"][:16])

    def test_rows_of_its_own(self):
        """A sequence with rows of its own in the caches has the bits that it has alone; so it has in chunks."""
        prompts = [[5, 9, 33, 2, 7], [11, 12], [3, 1, 4, 1, 5, 9, 2, 6], [42]]
        for name in ("llama-genai-fp32", "llama-hand-static24"):
            plan = npuc.compile(str(MODELS / name / "model.onnx"), f"{self.folder.name}/{name}.plan", kv_capacity=32)
            with Generator(plan, None) as model:
                self.assertEqual(model.model.form, _tokens.Batch.OWN)
                alone = [watched(model, [p], 6)[0] for p in prompts]
                for options in ({}, {"chunk": 3}):
                    self.assertEqual(watched(model, prompts, 6, **options), alone, (name, options))
                with self.assertRaises(npuc.NpucError) as fault:
                    model.model.feed([[1], [2]], own=[0, 40])
                self.assertEqual(fault.exception.code, 2)
        with self.assertRaises(npuc.NpucError) as fault:
            self.bard.model.keep(0)
            self.bard.model.feed([[1], [2]], own=[-1, 0])
        self.assertIn("rows per sequence", str(fault.exception))

    def test_lengths_as_inputs(self):
        """GroupQueryAttention whose seqlens_k and total_sequence_length are inputs of the model, no mask beside them."""
        folder = pathlib.Path(self.folder.name)
        model = onnx.load(MODELS / "llama-genai-fp32" / "model.onnx")
        graph = model.graph
        lengths = dict(zip(next(n for n in graph.node if n.op_type == "GroupQueryAttention").input[5:7], ("seqlens_k", "total_sequence_length")))
        nodes, needed = [], {o.name for o in graph.output}
        for node in reversed(graph.node):
            if needed.intersection(node.output) and not set(lengths).intersection(node.output):
                needed.update(node.input)
                nodes.insert(0, node)
                for i, name in enumerate(node.input):
                    node.input[i] = lengths.get(name, name)
        inputs = [i for i in graph.input if i.name != "attention_mask"]
        inputs += [helper.make_tensor_value_info("seqlens_k", onnx.TensorProto.INT32, ["batch_size"]),
                   helper.make_tensor_value_info("total_sequence_length", onnx.TensorProto.INT32, [])]
        for field, value in ((graph.node, nodes), (graph.input, inputs)):
            del field[:]
            field.extend(value)
        onnx.save(model, folder / "direct.onnx")
        plan = [npuc.compile(str(m), f"{folder}/{i}.plan", kv_capacity=32)
                for i, m in enumerate((MODELS / "llama-genai-fp32" / "model.onnx", folder / "direct.onnx"))]
        prompts = [[5, 9, 33, 2, 7], [11, 12], [3, 1, 4, 1, 5, 9, 2, 6]]
        with Generator(plan[0], None) as masked, Generator(plan[1], None) as direct:
            self.assertEqual(direct.model.form, _tokens.Batch.OWN)
            self.assertEqual(watched(direct, prompts, 6), watched(masked, prompts, 6))

    def test_batch_draws_apart(self):
        same = self.bard.generate(["O ", "O "], 12, temperature=1.5, seed=5)
        alone = [self.bard.generate("O ", 12, temperature=1.5, seed=s).tokens for s in (5, 6)]
        self.assertEqual([r.tokens for r in same], alone)

    def test_chunks_and_reuse(self):
        ids = PROMPTS[1]["ids"]
        want = self.bard.generate(ids, 12).tokens
        seen = []
        self.assertEqual(self.bard.generate(ids, 12, chunk=4, progress=lambda *p: seen.append(p)).tokens, want)
        self.assertEqual(seen[-1], (len(ids), len(ids)))
        self.assertEqual(self.bard.generate(ids + want[:6], 6, reuse=True).tokens, want[6:])
        self.assertLess(self.bard.times.prefill_tokens, 3)

    def test_choosing(self):
        ids, rng = PROMPTS[0]["ids"], np.random.default_rng(7)
        model = self.bard.model
        model.keep(0)
        model.feed([ids])
        logits = self.logits()
        for draw in range(60):
            how = Sampling(temperature=float(rng.choice([0, 0.3, 1, 2.5])), top_k=int(rng.choice([0, 1, 4, 40, 5000])),
                           top_p=float(rng.choice([0, 0.3, 0.9, 1])), min_p=float(rng.choice([0, 0.02, 0.5])),
                           repeat_penalty=float(rng.choice([0, 1, 1.3])), seed=int(rng.integers(2**63)))
            self.assertEqual(model.pick(how, draw, ids + ids), choose(logits, how, draw, ids), (how, draw))

    def logits(self):
        t = npuc._lib.Tensor()
        model = self.bard.model
        model._api.npurt_output(model._run, b"logits", ctypes.byref(t))
        rows = np.frombuffer(ctypes.string_at(t.data, t.size), np.float32).reshape(-1, t.dims[t.rank - 1])
        return rows[-1]

    def test_seeds(self):
        texts = [self.bard.generate("ROMEO", 20, temperature=1.0, top_p=0.95, seed=s).text for s in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_stop_texts(self):
        whole = self.bard.text.decode(PROMPTS[0]["greedy"])
        stop = whole[11:16]
        result = self.bard.generate(PROMPTS[0]["prompt"], 64, stop=[stop, "never seen"])
        self.assertEqual((result.text, result.finish), (whole[:whole.find(stop)], "stop"))

    def test_stop_tokens(self):
        greedy = PROMPTS[0]["greedy"]
        with Generator(self.plan, None, eos=[greedy[5]]) as model:
            result = model.generate(PROMPTS[0]["ids"], 64)
        self.assertEqual((result.tokens, result.finish), (greedy[:greedy.index(greedy[5]) + 1], "stop"))

    def test_full_caches(self):
        result = self.bard.generate([5] * 120, 64)
        self.assertEqual((len(result.tokens), result.finish), (9, "capacity"))

    def test_faults_keep_the_state(self):
        for prompt, options, code, words in (([70000], {}, 3, "another tokenizer"), ([], {}, 3, "no token"),
                                             ([1] * 129, {}, 5, "room for 128"), ("O", {"top_p": 3.0}, 2, "top_p is 3"),
                                             ("O", {"warmth": 1}, 2, "'warmth'")):
            with self.assertRaises(npuc.NpucError) as fault:
                self.bard.generate(prompt, 4, **options)
            self.assertEqual(fault.exception.code, code, prompt)
            self.assertIn(words, str(fault.exception))
            self.assertEqual(self.bard.generate(PROMPTS[0]["ids"], 4).tokens, PROMPTS[0]["greedy"][:4])

    def test_times(self):
        with Generator(self.plan, None, mode="both") as model:
            times = model.generate([1, 2, 3], 3).times
        self.assertGreater(times.prefill_us, 0)
        self.assertGreater(times.decode_us, 0)

    def test_other_tokenizer(self):
        from tokenizers import Tokenizer
        other = Tokenizer.from_file(str(BARD / "tokenizer.json"))
        other.add_tokens(["one more"])
        with self.assertRaises(npuc.NpucError) as fault:
            Generator(self.plan, other)
        self.assertIn("1537", str(fault.exception))

    def test_command(self):
        env = {**os.environ, "PYTHONPATH": str(BARD.parents[1] / "python")}
        base = [sys.executable, "-B", "-m", "npuc.llm", self.plan.path, "--tokenizer", str(BARD), "--bos", "0", "--new", "16"]
        p = PROMPTS[0]
        done = subprocess.run([*base, "--prompt", p["prompt"]], env=env, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, p["prompt"] + self.bard.text.decode(p["greedy"][:16]) + "\n")
        done = subprocess.run([*base, "--prompt", p["prompt"], "--json"], env=env, capture_output=True, text=True, check=True)
        self.assertEqual(json.loads(done.stdout)[0]["tokens"], p["greedy"][:16])
        done = subprocess.run([*base, "--prompt", "O", "--top-p", "7"], env=env, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1))


class Texts(unittest.TestCase):
    def test_growing(self):
        """Characters of several tokens appear whole, stop texts are held back while they may come."""
        text = Text(str(BARD))
        ids = text.encode("naïve, ROMEO: O")
        growing = Growing(text)
        pieces = [growing.push(i) for i in ids] + [growing.finish()]
        self.assertEqual("".join(pieces), text.decode(ids))
        self.assertFalse(any("\ufffd" in p for p in pieces))
        growing = Growing(text, ["ROMEO: X", "MEO"])
        self.assertEqual("".join([growing.push(i) for i in ids]), "naïve, RO")
        self.assertTrue(growing.stopped)

    @unittest.skipUnless(importlib.util.find_spec("jinja2"), "jinja2 is not here")
    def test_chat(self):
        with tempfile.TemporaryDirectory() as d:
            folder = pathlib.Path(d)
            (folder / "tokenizer.json").write_bytes((BARD / "tokenizer.json").read_bytes())
            (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<|endoftext|>"}, "chat_template":
                "{{ bos_token }}{% for m in messages %}\n{% if m.role == 'bad' %}{{ raise_exception('role') }}{% endif %}"
                "{{ m.role | upper }}.\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}BARD.\n{% endif %}"}))
            text = Text(d)
            self.assertEqual(text.chat([{"role": "romeo", "content": "O"}]), "<|endoftext|>ROMEO.\nO\nBARD.\n")
            with self.assertRaises(npuc.NpucError) as fault:
                text.chat([{"role": "bad", "content": "O"}])
            self.assertEqual(fault.exception.code, 3)

    def test_no_template(self):
        with self.assertRaises(npuc.NpucError) as fault:
            Text(str(BARD)).chat([{"role": "user", "content": "O"}])
        self.assertEqual(fault.exception.code, 4)

    def test_sampling_fields(self):
        """Sampling says what the C structure says."""
        names = [name for name, _ in npuc._lib.Sampling._fields_ if name != "draw"]
        self.assertEqual([f.name for f in _tokens.dataclasses.fields(Sampling)], names)


if __name__ == "__main__":
    unittest.main()
