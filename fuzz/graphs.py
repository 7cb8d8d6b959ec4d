"""Random ONNX graphs: values with known shapes and data, built node by node with ONNX's own inference of types."""
import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float32)] * 6 + [np.dtype(np.float16)] * 2 + [BF16, np.dtype(np.float64)]
INTS = [np.dtype(t) for t in ("int64", "int64", "int32", "int32", "int8", "uint8", "int16", "uint16", "uint32", "uint64")]
NAMES = {"bfloat16": BF16, "float": np.dtype(np.float32), "double": np.dtype(np.float64), "float16": np.dtype(np.float16),
         **{str(t): t for t in INTS}, "bool": np.dtype(bool)}
CODES = {"int4": np.dtype(ml_dtypes.int4), "uint4": np.dtype(ml_dtypes.uint4)} # of constants only
NAN = np.copysign(np.nan, -1) # as x86 makes it: which of two different ones a sum keeps is left to the order of its operands
MAX_ELEMENTS = 20000


class Skip(Exception):
    """The proposed node is not one that ONNX allows here."""


def kind_of(dtype):
    """'f' for floating point, else numpy's kind."""
    return "f" if dtype == BF16 else dtype.kind


def onnx_type(dtype):
    return onnx.TensorProto.BFLOAT16 if dtype == BF16 else helper.np_dtype_to_tensor_dtype(dtype)


class Value:
    def __init__(self, name, dtype, shape):
        self.name, self.dtype, self.shape = name, np.dtype(dtype), tuple(shape)

    @property
    def rank(self):
        return len(self.shape)

    @property
    def size(self):
        return int(np.prod(self.shape, dtype=np.int64))

    def info(self, dims=None):
        return helper.make_tensor_value_info(self.name, onnx_type(self.dtype), self.shape if dims is None else dims)


class Graph:
    """A graph under construction. rng: numpy Generator; opset: of ai.onnx."""

    def __init__(self, rng, opset):
        self.rng, self.opset = rng, opset
        self.values, self.nodes, self.inputs, self.constants = {}, [], {}, {}
        self.count = 0

    # ---- random choices

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, items):
        items = list(items)
        if not items:
            raise Skip()
        return items[int(self.rng.integers(len(items)))]

    def int(self, low, high):
        """low..high, both possible."""
        return int(self.rng.integers(low, high + 1))

    def dim(self):
        return self.pick([1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 65, 0 if self.chance(0.15) else 6, 130 if self.chance(0.2) else 3])

    def shape(self, low=0, high=4):
        dims = [self.dim() for _ in range(self.int(low, high))]
        while np.prod(dims, dtype=np.int64) > MAX_ELEMENTS:
            dims[int(np.argmax(dims))] //= 2
        return tuple(dims)

    # ---- values

    def data(self, dtype, shape, low=None, high=None):
        """An array of random contents; low..high bounds it, both possible for integers."""
        kind = kind_of(dtype)
        if kind == "b":
            return self.rng.random(shape) < 0.5
        if kind in "iu":
            info = np.iinfo(dtype)
            if low is None:
                wide = self.chance(0.1)
                low, high = (info.min, info.max) if wide else (max(info.min, -9), 9)
            return self.rng.integers(low, high, shape, endpoint=True, dtype=dtype)
        if low is not None:
            return self.rng.uniform(low, high, shape).astype(dtype)
        x = self.rng.standard_normal(shape) * self.pick([0.3, 1, 1, 4])
        if self.chance(0.15) and x.size:
            special = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, np.inf, -np.inf, NAN, 1e-30, 3e4])
            where = self.rng.random(shape) < 0.1
            x = np.where(where, special[self.rng.integers(0, len(special), shape)], x)
        with np.errstate(over="ignore"):
            return np.asarray(x).astype(dtype)

    def name(self, stem):
        self.count += 1
        return f"{stem}{self.count}"

    def given(self, array, constant=None):
        """A new input, or a constant, with this content."""
        array = np.asarray(array)
        constant = self.chance(0.4) if constant is None else constant
        value = Value(self.name("c" if constant else "x"), array.dtype, array.shape)
        (self.constants if constant else self.inputs)[value.name] = array
        self.values[value.name] = value
        return value

    def new(self, dtype, shape, low=None, high=None, constant=None):
        return self.given(self.data(np.dtype(dtype), shape, low, high), constant)

    def ints(self, *numbers, dtype=np.int64):
        return self.given(np.array(numbers, dtype), True)

    def old(self, test):
        """A value that exists and passes the test, late ones more often; None without one."""
        fitting = [v for v in self.values.values() if v.name not in self.constants and test(v)]
        if not fitting:
            return None
        return fitting[max(self.int(0, len(fitting) - 1), self.int(0, len(fitting) - 1))]

    def some(self, types, low=0, high=4):
        """A value of one of the types and of rank low..high, mostly one that exists."""
        value = self.old(lambda v: v.dtype in types and low <= v.rank <= high) if self.chance(0.85) else None
        return value or self.new(self.pick(types), self.shape(low, high), constant=False)

    def float(self, low=0, high=4):
        return self.some([t for t in FLOATS if self.opset >= 13 or t != BF16], low, high)

    def any(self, low=0, high=4):
        return self.float(low, high) if self.chance(0.7) else self.some(INTS + [np.dtype(bool)], low, high)

    def partner(self, value, types=None):
        """A value that broadcasts with `value`, of its type or one of `types`."""
        types = types or [value.dtype]

        def fits(other):
            try:
                shape = np.broadcast_shapes(value.shape, other.shape)
            except ValueError:
                return False
            return other.dtype in types and np.prod(shape, dtype=np.int64) <= MAX_ELEMENTS
        other = self.old(fits) if self.chance(0.6) else None
        if other:
            return other
        shape = [1 if self.chance(0.25) else d for d in value.shape]
        shape = shape[self.int(0, len(shape)) if self.chance(0.4) else 0:]
        return self.new(self.pick(types), shape)

    # ---- nodes

    def schema(self, op, domain=""):
        try:
            return onnx.defs.get_schema(op, self.opset, domain)
        except onnx.defs.SchemaError:
            raise Skip() from None

    def add(self, op, inputs, attributes=None, outputs=1):
        """Appends a node; inputs are values, or None for ones left out. Returns its outputs, types by ONNX's inference."""
        schema = self.schema(op)
        if schema.deprecated:
            raise Skip()
        attributes = {k: v for k, v in (attributes or {}).items() if v is not None}
        if any(k not in schema.attributes for k in attributes):
            raise Skip()
        names = [v.name if v else "" for v in inputs]
        while names and not names[-1]:
            names.pop()
        results = [self.name("v") for _ in range(outputs)]
        try:
            node = helper.make_node(op, names, results, name=f"{op}_{len(self.nodes)}", **attributes)
        except ValueError: # an empty list
            raise Skip() from None
        types = {v.name: v.info().type for v in inputs if v}
        data = {v.name: numpy_helper.from_array(self.constants[v.name], v.name) for v in inputs if v and v.name in self.constants}
        check_types(schema, inputs)
        try:
            inferred = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=[helper.make_opsetid("", self.opset)])
        except Exception: # pylint: disable=broad-except
            raise Skip() from None
        made = [tensor_value(name, inferred.get(name)) for name in results]
        if any(v.size > 4 * MAX_ELEMENTS for v in made):
            raise Skip()
        self.nodes.append(node)
        for v in made:
            self.values[v.name] = v
        return made


def check_types(schema, inputs):
    """Skip unless the schema allows the inputs' types."""
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    bound = {}
    for i, value in enumerate(inputs):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        if value is None:
            continue
        word = "tensor(%s)" % next(k for k, t in {**NAMES, **CODES}.items() if t == value.dtype)
        variadic = formal.option == onnx.defs.OpSchema.FormalParameterOption.Variadic and not formal.is_homogeneous
        if word not in allowed.get(formal.type_str, {formal.type_str}):
            raise Skip()
        if not variadic and bound.setdefault(formal.type_str, word) != word:
            raise Skip()


def tensor_value(name, proto):
    if proto is None or not proto.tensor_type.HasField("shape"):
        raise Skip()
    dims = proto.tensor_type.shape.dim
    number = proto.tensor_type.elem_type
    dtype = BF16 if number == onnx.TensorProto.BFLOAT16 else np.dtype(helper.tensor_dtype_to_np_dtype(number))
    if any(not d.HasField("dim_value") or d.dim_value < 0 for d in dims) or dtype not in NAMES.values():
        raise Skip()
    return Value(name, dtype, [d.dim_value for d in dims])


class Case:
    """A finished graph with inputs: what runs and what is made smaller."""

    def __init__(self, nodes, values, inputs, constants, opset, symbols=False):
        self.nodes, self.values, self.opset, self.symbols = nodes, values, opset, symbols
        used = {n for node in nodes for n in node.input}
        self.inputs = {k: v for k, v in inputs.items() if k in used}
        self.constants = {k: v for k, v in constants.items() if k in used}

    def made(self):
        return [o for node in self.nodes for o in node.output if o]

    def sinks(self):
        used = {n for node in self.nodes for n in node.input}
        return [o for o in self.made() if o not in used]

    def model(self, outputs):
        """outputs: names. With `symbols` the inputs' sizes but 1 are names of their own: names that meet are taken as one size."""
        inputs = []
        for name in self.inputs:
            v = self.values[name]
            inputs.append(v.info([f"{name}_{i}" if d != 1 else d for i, d in enumerate(v.shape)] if self.symbols else None))
        given = [numpy_helper.from_array(a, k) for k, a in self.constants.items()]
        results = [helper.make_empty_tensor_value_info(n) for n in outputs]
        for r in results:
            r.type.tensor_type.elem_type = onnx_type(self.values[r.name].dtype)
        graph = helper.make_graph(self.nodes, "case", inputs, results, given)
        if not self.symbols:
            for r in results:
                r.CopyFrom(self.values[r.name].info())
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def one_node(self, node):
        """The model of one node: constants stay, everything else is an input."""
        wanted = [n for n in node.input if n]
        fed = {n: None for n in wanted if n not in self.constants}
        given = [numpy_helper.from_array(self.constants[n], n) for n in dict.fromkeys(wanted) if n in self.constants]
        graph = helper.make_graph([node], "node", [self.values[n].info() for n in fed], [self.values[o].info() for o in node.output], given)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10), list(fed)

    def without(self, index, known):
        """The case without one node: its results become inputs with the contents `known`, if anything needs them."""
        nodes = self.nodes[:index] + self.nodes[index + 1:]
        inputs = dict(self.inputs)
        for name in self.nodes[index].output:
            if name in known:
                inputs[name] = known[name]
        return Case(nodes, self.values, inputs, self.constants, self.opset, self.symbols)
