"""Caches of sliding windows as rings: the bits of whole caches over lengths within and beyond the window, what is left of
rows that are asked for, saved, cut, forked and shared."""
import pathlib
import tempfile
import unittest

import numpy as np
import onnx
from onnx import numpy_helper

import npuc
from npuc.llm import Generator

MODEL = pathlib.Path(__file__).resolve().parents[1] / "models" / "llama-genai-fp32" / "model.onnx"
WINDOW, ROOM, RING = 40, 100, 256


def model_with_windows(file, layers, window=WINDOW, rows=1024):
    """The model with a window in those layers of its two, and angles for so many rows."""
    model = onnx.load(str(MODEL))
    found = [n for n in model.graph.node if n.op_type == "GroupQueryAttention"]
    for layer in layers:
        next(a for a in found[layer].attribute if a.name == "local_window_size").i = window
    for t in model.graph.initializer:
        if t.name in ("cos_cache", "sin_cache"):
            half = t.dims[1]
            angle = np.arange(rows)[:, None] / 10000.0 ** (np.arange(half) / half)
            t.CopyFrom(numpy_helper.from_array((np.cos if t.name[0] == "c" else np.sin)(angle).astype(np.float32), t.name))
    onnx.save(model, str(file))


class Rings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        for name, layers in (("all", (0, 1)), ("one", (1,))):
            model_with_windows(f"{cls.folder.name}/{name}.onnx", layers)
        cls.whole, cls.ring = cls.plan("all"), cls.plan("all", kv_ring=ROOM)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def plan(cls, model, target="ascend-910b1", **options):
        options = {"kv_ring": 0, "precision": "fp16", "kv_capacity": 1024, **options}
        return npuc.compile(f"{cls.folder.name}/{model}.onnx", target=target, **options)

    def call(self, session, rows, past, batch=1, outputs=("logits",)):
        ids = np.random.default_rng([5, past]).integers(0, 300, (batch, rows))
        mask = np.ones((batch, past + rows), np.int64)
        return [x.tobytes() for x in session.run(list(outputs), {"input_ids": ids, "attention_mask": mask})]

    def calls(self, session, sizes, past=0, batch=1):
        made = []
        for rows in sizes:
            made.append(self.call(session, rows, past, batch))
            past += rows
        return made

    def do(self, session, name, *args):
        return session._checked(getattr(session._api, f"npurt_cache_{name}")(session._session, *args))

    def test_bits_of_whole_caches(self):
        sizes = [30, 10, 1, 99, 100, 1, 15, 100, 1, 60, 1, 100]
        for target, model, batch, more in (("ascend-910b1", "all", 2, {}), ("ascend-910b1", "one", 1, {"kv_page": 64}),
                                           ("ascend-310p3", "one", 2, {}), ("mlu370-x4", "all", 1, {})):
            with self.subTest(target=target, model=model):
                results = []
                for options in ({}, {"kv_ring": ROOM, **more}):
                    with npuc.Session(self.plan(model, target, **options), mode="both", check_hazards=True) as s:
                        results.append(self.calls(s, sizes, batch=batch))
                self.assertEqual(*results)

    def test_by_default(self):
        """Where sizes say that a call has few new rows."""
        for sizes, found in (([], False), (["sequence_length=1..100"], True), (["sequence_length=1..1000"], False),
                             (["sequence_length=1,64"], True), (["sequence_length=1,600"], False)):
            with self.subTest(sizes=sizes):
                plan = npuc.compile(f"{self.folder.name}/all.onnx", D=sizes, kv_capacity=2048)
                with npuc.Session(plan) as s:
                    self.assertEqual(s._api.npurt_cache_room(s._session) < 2**62, found)

    def test_what_is_missing_is_told(self):
        with npuc.Session(self.ring) as s, npuc.Session(self.whole) as want:
            outputs = ("logits", "present.0.key", "present.1.value")
            for rows, past in ((100, 0), (100, 100), (56, 200)):
                self.assertEqual(self.call(s, rows, past, outputs=outputs), self.call(want, rows, past, outputs=outputs))
            with self.assertRaisesRegex(npuc.NpucError, "'present.0.key' no longer has rows before 1:"):
                self.call(s, 1, 256, outputs=outputs)
            self.call(want, 1, 256)
            with self.assertRaisesRegex(npuc.NpucError, "218 new rows, and the ring of .* has room for 217 in a call"):
                self.call(s, 218, 257)
            self.assertEqual(self.call(s, 3, 257), self.call(want, 3, 257))

    def test_cut(self):
        with npuc.Session(self.ring) as s, npuc.Session(self.whole) as want:
            for session in (s, want):
                self.calls(session, [100, 100, 100, 50])
            with self.assertRaisesRegex(npuc.NpucError, "no longer has rows before 94, and its sliding window would read 39 rows before row 132"):
                self.do(s, "truncate", 132)
            for session in (s, want):
                self.do(session, "truncate", 133)
            self.assertEqual(self.calls(s, [7, 100, 1], 133), self.calls(want, [7, 100, 1], 133))
            for session in (s, want):
                self.do(session, "truncate", 0)
            self.assertEqual(self.calls(s, [100, 50]), self.calls(want, [100, 50]))

    def test_saved_and_forked(self):
        file = f"{self.folder.name}/rows".encode()
        with npuc.Session(self.ring) as s, npuc.Session(self.ring) as t, npuc.Session(self.ring) as u, npuc.Session(self.whole) as want:
            for session in (s, want):
                self.calls(session, [100, 100, 100], batch=2)
            self.do(s, "save", file)
            self.assertLess(pathlib.Path(file.decode()).stat().st_size, 4 * 2 * 2 * 257 * 16 * 4)
            self.do(t, "restore", file)
            u._checked(u._api.npurt_cache_fork(u._session, s._session, 280))
            after = self.calls(want, [3, 90], 300, 2)
            self.assertEqual(self.calls(s, [3, 90], 300, 2), after)
            self.assertEqual(self.calls(t, [3, 90], 300, 2), after)
            self.do(want, "truncate", 280)
            self.assertEqual(self.calls(u, [3, 90], 280, 2), self.calls(want, [3, 90], 280, 2))
            with self.assertRaisesRegex(npuc.NpucError, "no longer has rows"):
                t._checked(t._api.npurt_cache_fork(t._session, u._session, 60))

    def test_spread(self):
        with npuc.Session(self.plan("one", kv_ring=ROOM, kv_page=64)) as s, npuc.Session(self.plan("one")) as want:
            self.calls(s, [100, 100, 90])
            self.do(s, "spread", 3)
            for past, rows in ((0, 100), (100, 100), (200, 90)):
                ids = np.random.default_rng([5, past]).integers(0, 300, (1, rows)).repeat(3, 0)
                want.run(["logits"], {"input_ids": ids, "attention_mask": np.ones((3, past + rows), np.int64)})
            self.assertEqual(self.calls(s, [1, 50, 100], 290, 3), self.calls(want, [1, 50, 100], 290, 3))

    def test_past_given(self):
        with npuc.Session(self.ring) as s, npuc.Session(self.whole) as want:
            self.calls(want, [100, 100, 100, 30])
            names = [i.name for i in want.get_inputs() if i.name.startswith("past")]
            past = dict(zip(names, want.run([n.replace("past_key_values", "present") for n in names],
                                            {"input_ids": np.ones((1, 1), np.int64), "attention_mask": np.ones((1, 331), np.int64)})))
            given = {"input_ids": np.full((1, 2), 7), "attention_mask": np.ones((1, 333), np.int64), **past}
            self.assertEqual(s.run(["logits"], given)[0].tobytes(), want.run(["logits"], given)[0].tobytes())
            self.assertEqual(self.calls(s, [60, 1], 333), self.calls(want, [60, 1], 333))

    def test_generated(self):
        """Prompts longer than a call, of unequal lengths."""
        prompts = [list(np.random.default_rng(n).integers(1, 300, n)) for n in (330, 20, 150)]
        made = []
        for plan in (self.whole, self.ring):
            with Generator(plan, None) as g:
                made.append([r.tokens for r in g.generate([[int(t) for t in p] for p in prompts], 12)])
        self.assertEqual(*made)


if __name__ == "__main__":
    unittest.main()
