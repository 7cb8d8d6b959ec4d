"""npuc.compile and npuc.Session: shapes, types, empty arrays, reports, errors."""
import pathlib
import tempfile
import threading
import unittest

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto as T, helper

import npuc
from npuc import _dtypes


def model(nodes, inputs, outputs, initializers=(), opset=23):
    """A ModelProto; inputs and outputs are (name, type, shape)."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value(*i) for i in inputs], [value(*o) for o in outputs], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def scaled():
    """y = x * w + b: batch is free, b has a default."""
    w = helper.make_tensor("w", T.FLOAT, [3], [1, 2, 3])
    nodes = [helper.make_node("Mul", ["x", "w"], ["t"]), helper.make_node("Add", ["t", "c"], ["y"])]
    return model(nodes, [("x", T.FLOAT, ["batch", 3]), ("c", T.FLOAT, [3])], [("y", T.FLOAT, ["batch", 3])], [w])


class Compile(unittest.TestCase):
    def test_three_kinds_of_model(self):
        proto = scaled()
        x, c = np.ones((2, 3), np.float32), np.zeros(3, np.float32)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "m.onnx"
            onnx.save(proto, path)
            for given in (path, str(path), proto, proto.SerializeToString()):
                with npuc.Session(npuc.compile(given)) as s:
                    np.testing.assert_array_equal(s.run(None, {"x": x, "c": c})[0], [[1, 2, 3]] * 2)
            plan = npuc.compile(path, pathlib.Path(folder) / "m.plan", target="ascend-310p3", D=["batch=1..8"])
            with npuc.Session(plan.path) as s:
                self.assertEqual("ascend-310p3", s.run(["y"], {"x": x, "c": c}) and s.report()["target"])
            plan.close()
            self.assertTrue(pathlib.Path(plan.path).exists(), "a plan with a name stays")

    def test_temporary_plan_goes(self):
        with npuc.compile(scaled()) as plan:
            self.assertTrue(pathlib.Path(plan).exists())
        self.assertFalse(pathlib.Path(plan).exists())

    def test_errors(self):
        for code, given, options in ((2, scaled(), {"target": "abacus"}), (2, scaled(), {"no_such_option": 1}), (2, 7, {}),
                                     (3, b"no model", {}), (6, "absent.onnx", {}), (2, scaled(), {"precision": "fp7"})):
            with self.assertRaises(npuc.NpucError) as e:
                npuc.compile(given, **options)
            self.assertEqual(code, e.exception.code, str(e.exception))
            self.assertTrue(str(e.exception).strip())
        unknown = model([helper.make_node("Frobnicate", ["x"], ["y"])], [("x", 1, [2])], [("y", 1, [2])])
        with self.assertRaisesRegex(npuc.NpucError, "Frobnicate"):
            npuc.compile(unknown)

    def test_targets(self):
        self.assertIn("ascend-910b1", npuc.targets())


class Run(unittest.TestCase):
    def setUp(self):
        self.session = npuc.Session(scaled())
        self.addCleanup(self.session.close)

    def test_signature(self):
        x, c = self.session.get_inputs()
        self.assertEqual(("x", ["batch", 3], "tensor(float)"), (x.name, x.shape, x.type))
        self.assertEqual([3], c.shape)
        self.assertEqual([("y", ["batch", 3])], [(o.name, o.shape) for o in self.session.get_outputs()])

    def test_sizes_from_zero_on(self):
        for batch in (4, 1, 0, 7):
            x = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)
            y, = self.session.run(["y"], {"x": x, "c": [1, 1, 1]})
            np.testing.assert_array_equal(y, x * [1, 2, 3] + 1)
            self.assertEqual((batch, 3), y.shape)

    def test_strided_and_results_are_kept(self):
        x = np.arange(12, dtype=np.float32).reshape(3, 4).T[:, ::-1]
        first, = self.session.run(None, {"x": x, "c": np.zeros(3, np.float32)})
        before = first.copy()
        self.session.run(None, {"x": x + 1, "c": np.zeros(3, np.float32)})
        np.testing.assert_array_equal(first, before)
        np.testing.assert_array_equal(first, x * np.float32([1, 2, 3]))

    def test_errors(self):
        x, c = np.zeros((2, 3), np.float32), np.zeros(3, np.float32)
        for code, names, feeds, word in ((2, ["z"], {"x": x, "c": c}, "'z'"), (2, None, {"q": x, "c": c}, "'q'"),
                                         (3, None, {"x": x.astype(np.float64), "c": c}, "float64"),
                                         (3, None, {"x": x[:, :2], "c": c}, "x"), (3, None, {"x": x[0], "c": c}, "x"),
                                         (None, None, {"c": c}, "batch")):
            with self.assertRaises(npuc.NpucError) as e:
                self.session.run(names, feeds)
            self.assertIn(word, str(e.exception))
            self.assertIn(e.exception.code, (code,) if code else (2, 3))
        np.testing.assert_array_equal(self.session.run(None, {"x": x, "c": c})[0], x)

    def test_report(self):
        with self.assertRaises(npuc.NpucError):
            npuc.Session(scaled(), mode="fast")
        with npuc.Session(scaled(), mode="both", check_hazards=True) as s:
            s.run(None, {"x": np.ones((2, 3), np.float32), "c": np.ones(3, np.float32)})
            report = s.report()
        self.assertGreater(report["us"], 0)
        self.assertEqual([False], [step["host"] for step in report["steps"]])
        self.assertEqual(0, report["n_host"])

    def test_closed(self):
        self.session.close()
        self.session.close()
        with self.assertRaisesRegex(npuc.NpucError, "closed"):
            self.session.run(None, {})

    def test_threads_have_sessions_of_their_own(self):
        plan, wrong = npuc.compile(scaled()), []

        def work(k):
            with npuc.Session(plan) as s:
                for i in range(20):
                    x = np.full((i % 5, 3), k, np.float32)
                    wrong.extend([1] * (not np.array_equal(s.run(None, {"x": x, "c": [0, 0, 0]})[0], x * [1, 2, 3])))
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([], wrong)


class Types(unittest.TestCase):
    def test_every_element_type_passes_through(self):
        for number, (name, kind, bits) in _dtypes.TYPES.items():
            if bits == 0:
                continue # texts are no numbers; see the cases of tests/onnx
            with self.subTest(name):
                codes = np.arange(15, dtype=np.uint8)
                if bits < 8:
                    x = _dtypes.unpack(_dtypes.pack(codes % (1 << bits), 2), 2, (15,)) # plain bytes
                    x = (x.view(kind) if not name.startswith("int") else (x.astype(np.int8) - (1 << (bits - 1))).astype(kind))
                else:
                    x = codes.astype(kind)
                x = x.reshape(3, 5)
                m = model([helper.make_node("Transpose", ["x"], ["y"])], [("x", number, [3, 5])], [("y", number, [5, 3])], opset=25)
                with npuc.Session(m) as s:
                    self.assertEqual(f"tensor({name})", s.get_inputs()[0].type)
                    y, = s.run(None, {"x": x})
                self.assertEqual((np.dtype(kind), (5, 3)), (y.dtype, y.shape))
                self.assertEqual(x.T.tobytes(), y.tobytes())

    def test_packing_is_low_bits_first(self):
        x = np.array([-8, 7, 3], ml_dtypes.int4)
        packed = _dtypes.pack(x, T.INT4)
        self.assertEqual([0x78, 0x03], packed.tolist())
        self.assertEqual([-8, 7, 3], _dtypes.unpack(packed, T.INT4, (3,)).astype(int).tolist())


if __name__ == "__main__":
    unittest.main()
