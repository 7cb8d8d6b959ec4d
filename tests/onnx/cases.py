"""The official test cases of the package onnx, and the rows of skips.tsv that speak of them."""
import dataclasses
import pathlib
import pickle
import re
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

SUITES = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
PACKAGE = pathlib.Path(onnx.__file__).resolve().parent


@dataclasses.dataclass
class Case:
    """A model with data sets, or the folder or light model they are read from."""

    suite: str
    name: str
    rtol: float
    atol: float
    model: object = None
    data_sets: list = None
    folder: pathlib.Path = None
    light: pathlib.Path = None
    ops: list = dataclasses.field(default_factory=list)
    kinds: set = dataclasses.field(default_factory=set)

    def load(self):
        """(ModelProto, [(inputs, outputs)]), arrays as the official runner makes them."""
        if self.data_sets is not None:
            return self.model, [([_array(a) for a in ins], [_array(a) for a in outs]) for ins, outs in self.data_sets]
        if self.light:
            return self._load_light()
        model = onnx.load(self.folder / "model.onnx")
        sets = sorted(self.folder.glob("test_data_set*"))
        return model, [(_protos(d, "input", model.graph.input), _protos(d, "output", model.graph.output)) for d in sets]

    def _load_light(self):
        model = onnx.load(self.light)
        inits = {i.name for i in model.graph.initializer}
        inputs = [Runner.generate_dummy_data(x, name=self.name) for x in model.graph.input if x.name not in inits]
        stem = str(self.light.with_suffix(""))
        outputs = [numpy_helper.to_array(onnx.load_tensor(f"{stem}_output_{i}.pb")) for i in range(len(model.graph.output))]
        return model, [(inputs, outputs)]

    def describe(self):
        """Fills ops and kinds (sequence, optional, string) from the model."""
        model = self.load()[0] if self.light is None else onnx.load(self.light)
        self.ops = sorted({f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in _nodes(model)})
        for value in [*model.graph.input, *model.graph.output]:
            kind = value.type.WhichOneof("value")
            text = kind == "tensor_type" and value.type.tensor_type.elem_type == onnx.TensorProto.STRING
            self.kinds.add("string" if text else kind.removesuffix("_type"))
        return self


def _array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _protos(folder, kind, values):
    result, runner = [], Runner.__new__(Runner)
    for i in range(len(list(folder.glob(f"{kind}_*.pb")))):
        Runner._load_proto(runner, str(folder / f"{kind}_{i}.pb"), result, values[i].type)
    return result


def _nodes(model):
    graphs = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            yield node
            graphs += [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]


def _official(suite):
    kind = "real" if suite == "light" else suite
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for c in load_model_tests(kind=kind):
            case = Case(suite, c.name, c.rtol, c.atol, c.model, c.data_sets)
            if c.model_dir:
                case.folder = pathlib.Path(c.model_dir)
            elif c.url and c.url.startswith("onnx/backend/test/data/light/"):
                case.light = PACKAGE.parent / c.url
            elif c.model is None:
                continue # a model that would have to be downloaded
            yield case.describe()


def load_cases(suites, cache=None):
    """All cases of the suites, sorted. cache: file to keep them in, since making the node cases takes ten seconds."""
    stamp = (onnx.__version__, tuple(suites))
    if cache and pathlib.Path(cache).exists():
        found, cases = pickle.loads(pathlib.Path(cache).read_bytes())
        if found == stamp:
            return cases
    cases = sorted((c for suite in suites for c in _official(suite)), key=lambda c: (SUITES.index(c.suite), c.name))
    if cache:
        pathlib.Path(cache).write_bytes(pickle.dumps((stamp, cases)))
    return cases


class Skips:
    """Rows `what pattern reason`: what is op, kind or name; the pattern is a regular expression for the whole of it."""

    def __init__(self, path):
        self.rows, self.used = [], set()
        for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            what, pattern, reason = line.split("\t")
            if what not in ("op", "kind", "name"):
                raise ValueError(f"{path}:{number}: '{what}', expected op, kind or name")
            self.rows.append((what, re.compile(pattern), reason))

    def reason(self, case):
        """Why the case is expected to fail, or None."""
        found = None
        for i, (what, pattern, reason) in enumerate(self.rows):
            texts = {"op": case.ops, "kind": case.kinds, "name": [case.name]}[what]
            if any(pattern.fullmatch(t) for t in texts):
                self.used.add(i)
                found = found or reason
        return found

    def unused(self):
        """Patterns that no case has matched."""
        return [row[1].pattern for i, row in enumerate(self.rows) if i not in self.used]
