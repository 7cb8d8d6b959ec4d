"""onnx's own runner, unchanged, drives npuc.backend; run_node and the device rules."""
import unittest

import numpy as np
import onnx
from onnx import helper
from onnx.backend.test.runner import Runner

import npuc
import npuc.backend

CASES = r"^test_(add|matmul_2d|softmax_axis_1|reduce_sum_keepdims_example|transpose_all_permutations_0|operator_addmm|Conv1d)_cpu$"


class OfficialRunner(unittest.TestCase):
    def test_cases_pass(self):
        suite = Runner(npuc.backend, __name__).include(CASES).test_suite
        result = unittest.TestResult()
        suite.run(result)
        ran = result.testsRun - len(result.skipped)
        self.assertEqual([], [str(test) + text for test, text in result.failures + result.errors])
        self.assertEqual(7, ran)


class Backend(unittest.TestCase):
    def test_run_node(self):
        x = np.array([[-1, 2], [3, -4]], np.float32)
        node = helper.make_node("Relu", ["x"], ["y"])
        np.testing.assert_array_equal(npuc.backend.run_node(node, [x]).y, np.maximum(x, 0))
        clip = helper.make_node("Clip", ["x", "", "high"], ["y"])
        got = npuc.backend.run_node(clip, [x, np.float32(1)], outputs_info=[(np.float32, (2, 2))], target="ascend-950pr")
        np.testing.assert_array_equal(got[0], np.minimum(x, 1))

    def test_prepare_and_feeds(self):
        node = helper.make_node("Sub", ["a", "b"], ["c"])
        info = lambda n: helper.make_tensor_value_info(n, 1, ["n"])
        m = helper.make_model(helper.make_graph([node], "g", [info("a"), info("b")], [info("c")]))
        rep = npuc.backend.prepare(m, "CPU", threads=2)
        a, b = np.float32([5, 7]), np.float32([1, 2])
        for feeds in ([a, b], (a, b), {"b": b, "a": a}):
            np.testing.assert_array_equal(rep.run(feeds).c, [4, 5])
        with self.assertRaisesRegex(npuc.NpucError, "3 inputs"):
            rep.run([a, b, b])

    def test_devices(self):
        self.assertTrue(npuc.backend.supports_device("CPU"))
        self.assertTrue(npuc.backend.supports_device("CPU:1"))
        self.assertFalse(npuc.backend.supports_device("CUDA"))
        with self.assertRaisesRegex(npuc.NpucError, "CUDA"):
            npuc.backend.prepare(onnx.ModelProto(), "CUDA")


if __name__ == "__main__":
    unittest.main()
