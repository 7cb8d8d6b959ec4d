"""What the trap tests share: models from text or nodes, runs on the emulated cores, references, refusals."""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import npuc
from support import difference

TARGET = "ascend-910b1"
MAX, MIN = np.iinfo(np.int64).max, np.iinfo(np.int64).min
RNG = np.random.default_rng(30)


def f32(*shape):
    """Random float32 of this shape, or one number without a shape."""
    return np.asarray(RNG.standard_normal(shape), np.float32)


def i64(*values):
    return np.array(values, np.int64)


def text(graph, opset=18, ir=10, domains=(), weights=None):
    """A model from the text form of ONNX: `g (float[N] x) => (float[N] y) { y = Relu(x) }`, functions behind it.
    weights: {name: array} initializers of the main graph."""
    imports = ", ".join(f'"{d}" : {v}' for d, v in [("", opset), *domains])
    model = parser.parse_model(f"<ir_version: {ir}, opset_import: [{imports}]>\n{graph}")
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(w), n) for n, w in (weights or {}).items())
    return model


def nodes(rows, inputs, outputs, opset=18, ir=10, domains=(), weights=None, **more):
    """A model from NodeProtos, {name: (element type, shape)} and weights {name: array}."""
    info = lambda d: [helper.make_tensor_value_info(n, t, s) for n, (t, s) in d.items()]
    graph = helper.make_graph(rows, "g", info(inputs), info(outputs),
                              [numpy_helper.from_array(np.asarray(w), n) for n, w in (weights or {}).items()])
    imports = [helper.make_opsetid(d, v) for d, v in [("", opset), *domains]]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, **more)


def run(model, feeds, report=False, **options):
    """Outputs of the model on the emulated cores, each twice: the two sessions have to agree in every bit."""
    plan = npuc.compile(model, target=TARGET, **options)
    with npuc.Session(plan) as s, npuc.Session(plan, threads=2, check_hazards=True) as checked:
        got = s.run(None, feeds)
        for a, b in zip(got, checked.run(None, feeds)):
            assert not isinstance(a, np.ndarray) or a.tobytes() == b.tobytes(), "two sessions disagree"
        return (got, s.report()["steps"]) if report else got


def oracle(model, feeds):
    """onnxruntime's results."""
    import onnxruntime as ort
    ort.set_default_logger_severity(4)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {n: np.asarray(a) for n, a in feeds.items()})


def equal(got, want, rtol=1e-5, atol=1e-5):
    assert len(got) == len(want), f"{len(got)} outputs, expected {len(want)}"
    for i, (g, w) in enumerate(zip(got, want)):
        fault = difference(np.asarray(g), np.asarray(w), {"rtol": rtol, "atol": atol})
        assert not fault, f"output {i}: {fault}"


def same(model, feeds, want=None, rtol=1e-5, atol=1e-5, **options):
    """The model gives `want` (list of arrays), or what onnxruntime gives."""
    got = run(model, feeds, **options)
    equal(got, oracle(model, feeds) if want is None else want, rtol, atol)
    return got


def fails(code, words, work, *args, **options):
    """work(...) raises NpucError with this exit code and all the words in its message."""
    try:
        work(*args, **options)
    except npuc.NpucError as e:
        missing = [w for w in words if w not in str(e)]
        assert e.code == code and not missing, f"exit {e.code}, expected {code} with {missing or words}: {e}"
        return str(e)
    raise AssertionError(f"accepted, expected exit {code} with {words}")


def refused(model, *words, code=3, **options):
    """The model does not compile; returns the message."""
    return fails(code, words, npuc.compile, model, target=TARGET, **options)
