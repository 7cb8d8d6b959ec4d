"""KV caches in pages: the bits of caches in one piece, whatever the model's form, the batch and the size of a page; pages
taken and given back, shared and copied, a pool that is too small."""
import ctypes
import pathlib
import tempfile
import unittest

import numpy as np

import npuc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BARD = ROOT / "examples" / "bard" / "model.onnx"
MODELS = ROOT / "tests" / "models"


def feeds(rows, past, batch, seed=3):
    ids = np.random.default_rng([seed, past]).integers(0, 500, (1, rows)).repeat(batch, 0)
    return {"input_ids": ids, "attention_mask": np.ones((batch, past + rows), np.int64),
            "position_ids": np.arange(past, past + rows)[None].repeat(batch, 0)}


def call(session, rows, past, batch=1, seed=3):
    return [x.tobytes() for x in session.run(None, feeds(rows, past, batch, seed))]


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.plain = cls.plan("plain")
        cls.paged = cls.plan("paged", kv_page=16)
        cls.small = cls.plan("small", kv_page=16, kv_pool=6)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def plan(cls, name, **options):
        return npuc.compile(str(BARD), f"{cls.folder.name}/{name}.plan", kv_capacity=96, **options)

    def pages(self, session):
        used = ctypes.c_int64()
        total = session._api.npurt_cache_pages(session._session, ctypes.byref(used))
        return total, used.value

    def do(self, session, name, *args):
        return session._checked(getattr(session._api, f"npurt_cache_{name}")(session._session, *args))

    def test_bits_of_one_piece(self):
        for target, page, batch in (("ascend-910b1", 16, 3), ("ascend-310p3", 64, 1), ("mlu370-x4", 48, 2)):
            with self.subTest(target=target, page=page, batch=batch):
                results = []
                for options in ({}, {"kv_page": page}):
                    with npuc.Session(npuc.compile(str(BARD), target=target, precision="fp16", kv_capacity=96, **options), mode="both",
                                      check_hazards=True) as s:
                        results.append([call(s, rows, past, batch) for rows, past in ((17, 0), (1, 17), (40, 18))])
                self.assertEqual(*results)

    def test_taken_and_given_back(self):
        with npuc.Session(self.paged) as s, npuc.Session(self.plain) as want:
            self.assertEqual((call(s, 17, 0, 2), self.pages(s)), (call(want, 17, 0, 2), (12, 4)))
            call(s, 20, 17, 2)
            self.assertEqual(self.pages(s)[1], 6)
            self.do(s, "truncate", 16)
            self.assertEqual(self.pages(s)[1], 2)
            call(want, 20, 17, 2)
            self.do(want, "truncate", 16)
            self.assertEqual(call(s, 5, 16, 2, seed=8), call(want, 5, 16, 2, seed=8))

    def test_pool_too_small(self):
        with npuc.Session(self.small) as s, npuc.Session(self.plain) as want:
            for rows, past in ((30, 0), (15, 30)):
                self.assertEqual(call(s, rows, past, 2), call(want, rows, past, 2))
            with self.assertRaisesRegex(npuc.NpucError, "8 pages of 16 rows are needed for 2 sequences and the pool has 6, of which 6 are in use"):
                call(s, 4, 45, 2)
            self.assertEqual((self.pages(s), s._api.npurt_cache_length(s._session)), ((6, 6), 45))
            self.assertEqual(call(s, 3, 45, 2), call(want, 3, 45, 2))

    def test_prefix_is_shared(self):
        with npuc.Session(self.paged) as s, npuc.Session(self.plain) as want:
            call(s, 20, 0)
            self.do(s, "spread", 3)
            self.assertEqual(self.pages(s), (18, 2))
            call(want, 20, 0, 3)
            self.assertEqual(call(s, 2, 20, 3), call(want, 2, 20, 3))
            self.assertEqual(self.pages(s)[1], 1 + 3) # the full page is still that of all
            self.assertEqual(call(s, 30, 22, 3), call(want, 30, 22, 3))
            self.do(s, "truncate", 0)
            self.assertEqual(self.pages(s)[1], 0)
            with self.assertRaisesRegex(npuc.NpucError, "one sequence in pages can become several; here are 3"):
                self.do(s, "spread", 2)
        with npuc.Session(self.plain) as s:
            with self.assertRaisesRegex(npuc.NpucError, "no pages"):
                self.do(s, "spread", 2)

    def test_saved_and_forked(self):
        file = f"{self.folder.name}/rows".encode()
        with npuc.Session(self.paged) as s, npuc.Session(self.paged) as t, npuc.Session(self.paged) as u, npuc.Session(self.small) as v:
            call(s, 35, 0, 2)
            self.do(s, "save", file)
            self.do(t, "restore", file)
            u._checked(u._api.npurt_cache_fork(u._session, s._session, 35))
            want = call(s, 3, 35, 2)
            self.assertEqual(call(t, 3, 35, 2), want)
            self.assertEqual(call(u, 3, 35, 2), want)
            self.assertEqual(self.pages(u), self.pages(s))
            with self.assertRaisesRegex(npuc.NpucError, "another plan"):
                self.do(v, "restore", file)

    def test_past_given(self):
        with npuc.Session(self.paged) as s, npuc.Session(self.plain) as want:
            out = dict(zip([o.name for o in want.get_outputs()], want.run(None, feeds(21, 0, 2))))
            past = {n.replace("present", "past_key_values"): x for n, x in out.items() if n.startswith("present")}
            given = {**feeds(2, 21, 2), **past}
            self.assertEqual([x.tobytes() for x in s.run(None, given)], [x.tobytes() for x in want.run(None, given)])

    def test_forms(self):
        """Rows of its own per sequence, and the other exporters."""
        from npuc.llm import Generator
        prompts = [[5, 9, 33, 2, 7] * 5, [11, 12], [3, 1, 4, 1, 5, 9, 2, 6] * 3, [42]]
        for name in ("llama-genai-fp32", "llama-optimum-op18", "gpt2-optimum"):
            with self.subTest(name=name):
                made = []
                for options in ({}, {"kv_page": 16}):
                    with Generator(npuc.compile(str(MODELS / name / "model.onnx"), kv_capacity=64, **options), None) as g:
                        batch = prompts if g.model.takes([len(p) for p in prompts]) else prompts[:1]
                        made.append([r.tokens for r in g.generate(batch, 12)])
                self.assertEqual(*made)


if __name__ == "__main__":
    unittest.main()
