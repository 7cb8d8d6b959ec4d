"""One operator of com.microsoft at a time: compiled, run on the emulated cores, compared with onnxruntime or a reference in numpy."""
import dataclasses
import itertools
import pathlib
import sys
import tempfile

import numpy as np

try:
    import ml_dtypes
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import call, last_line, must, run_cases

BF16 = ml_dtypes.bfloat16
DOMAINS = ["com.microsoft", "com.ms.internal.nhwc", "org.pytorch.aten", "ai.onnx.contrib", "com.microsoft.nchwc"]
TARGET = "ascend-910b1"


@dataclasses.dataclass
class Case:
    """A node. inputs: arrays, None: absent. const: places of inputs that are initializers. symbols: size -> name of the dims of
    that size in the declared inputs. want: reference (arrays) instead of onnxruntime. near: ULP of a quantised result."""

    op: str
    inputs: list
    attrs: dict = dataclasses.field(default_factory=dict)
    outputs: tuple = ("y",) # an empty name: not wanted
    const: tuple = ()
    symbols: dict = dataclasses.field(default_factory=dict)
    want: list = None
    domain: str = "com.microsoft"
    opset: int = 21
    rtol: float = 1e-4
    atol: float = 1e-5
    note: str = ""
    near: int = 1
    refused: str = "" # words of the message that is expected instead of a result
    rows: object = None # of the first output: what is compared

    @property
    def name(self):
        return f"{self.op} {self.note}".strip()


def element_type(a):
    if a.dtype == BF16:
        return TensorProto.BFLOAT16
    if a.dtype.name == "float4_e2m1fn":
        return TensorProto.FLOAT4E2M1
    return helper.np_dtype_to_tensor_dtype(a.dtype)


def tensor(a, name):
    if a.dtype == BF16 or a.dtype.name.startswith("float8"):
        return helper.make_tensor(name, element_type(a), a.shape, a.tobytes(), raw=True)
    if a.dtype.name in ("int4", "uint4", "float4_e2m1fn"): # two in a byte, the first in the low half
        codes = a.reshape(-1).view(np.uint8) & 15
        return helper.make_tensor(name, element_type(a), a.shape, (codes[::2] | codes[1::2] << 4).tobytes(), raw=True)
    return numpy_helper.from_array(a, name)


def build(case, out_types):
    names, feeds, inits, infos = [], {}, [], []
    for i, a in enumerate(case.inputs):
        names.append("" if a is None else f"x{i}")
        if a is None:
            continue
        a = np.ascontiguousarray(a) if a.ndim else a
        if i in case.const:
            inits.append(tensor(a, f"x{i}"))
        else:
            infos.append(helper.make_tensor_value_info(f"x{i}", element_type(a), [case.symbols.get(d, d) for d in a.shape]))
            feeds[f"x{i}"] = a
    while names and not names[-1]:
        names.pop()
    node = helper.make_node(case.op, names, list(case.outputs), domain=case.domain, **case.attrs)
    outs = [helper.make_tensor_value_info(n, t, None) for n, t in zip([o for o in case.outputs if o], out_types)]
    graph = helper.make_graph([node], "g", infos, outs, inits)
    opsets = [helper.make_opsetid("", case.opset)] + [helper.make_opsetid(d, 1) for d in DOMAINS]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds


def reference(model, case, feeds):
    if case.want is not None:
        return case.want
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, feeds)


def output_types(case):
    """Element types: of the reference, or what onnxruntime infers."""
    count = sum(1 for o in case.outputs if o)
    if case.want is not None:
        return [element_type(np.asarray(w)) for w in case.want]
    first = next(a for a in case.inputs if a is not None)
    guess = getattr(case, "types", None)
    return guess or [element_type(first)] * count


def run_npuc(npuc, model, feeds, folder):
    onnx.save(model, folder / "m.onnx")
    done = call([npuc, "compile", folder / "m.onnx", "--target", TARGET, "--quiet", "-o", folder / "m.plan"])
    if done.returncode:
        return done, None
    args = []
    for name, a in feeds.items():
        np.save(folder / f"{name}.npy", a.view(np.uint16) if a.dtype == BF16 else a)
        args += ["--input", f"{name}={folder / name}.npy"]
    done = call([npuc, "run", folder / "m.plan", "--check-hazards", "--threads", "1", "-o", folder / "out.npz", *args])
    if done.returncode:
        return done, None
    with np.load(folder / "out.npz") as z:
        return done, {name: z[name] for name in z.files}


def compare(case, name, got, want):
    want = np.asarray(want)
    if want.dtype == BF16 and got.dtype == np.uint16:
        got = got.view(BF16)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    if want.dtype.kind in "iub":
        far = np.abs(got.astype(np.int64) - want.astype(np.int64)).max(initial=0)
        assert far <= (case.near if want.dtype.itemsize == 1 else 0), f"{name}: off by {far}"
        return
    got, want = got.astype(np.float64), want.astype(np.float64)
    if case.rows is not None:
        got, want = got[case.rows], want[case.rows]
    ok = np.isclose(got, want, case.rtol, case.atol, equal_nan=True)
    if not ok.all():
        at = np.unravel_index(np.argmin(ok), ok.shape)
        raise AssertionError(f"{name}: {np.sum(~ok)} of {ok.size} differ, first {at}: {got[at]} expected {want[at]}")


def check(npuc, case):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        types = [TensorProto.FLOAT] * 4 if case.refused else case_types(case)
        model, feeds = build(case, types)
        want = None if case.refused else reference(model, case, feeds)
        done, got = run_npuc(npuc, model, feeds, folder)
        if case.refused:
            assert done.returncode == 4, f"exit {done.returncode}, expected a refusal: {last_line(done.stderr)}"
            assert case.refused in done.stderr, f"message: {last_line(done.stderr)}"
            return
        assert got is not None, f"exit {done.returncode}: {done.stderr.strip()[:600]}"
        for out, w in zip([o for o in case.outputs if o], want):
            compare(case, out, got[out], w)


def case_types(case):
    return case.types if getattr(case, "types", None) else output_types(case)


def case(op, inputs, types=None, **options):
    """types: element types of the outputs where they are not the first input's."""
    c = Case(op, inputs, **options)
    c.types = [helper.np_dtype_to_tensor_dtype(np.dtype(t)) for t in types] if types else None
    return c


def main(cases):
    global TARGET
    words = sys.argv[1:]
    options = {}
    while len(words) > 1 and words[0] in ("--npuc", "--target"):
        options[words[0]], words = words[1], words[2:]
    if "--npuc" not in options:
        sys.exit("usage: --npuc NPUC [--target T] [WORDS of a case's name]")
    npuc, TARGET = options["--npuc"], options.get("--target", TARGET)
    wanted = [c for c in cases if all(w in c.name for w in words)]
    return run_cases([(c.name, c) for c in wanted], lambda c: check(npuc, c))


def f32(rng, *shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def i8(rng, *shape, dtype=np.int8):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def choices(**lists):
    """Every combination as a dict."""
    return [dict(zip(lists, values)) for values in itertools.product(*lists.values())]
