"""Plans on the emulated NPU, in the manner of onnxruntime's InferenceSession."""
import ctypes as C
import os
import typing

import numpy as np

from . import _dtypes, _lib, _values
from ._compile import Plan, compile as compile_model
from ._errors import NpucError, status_error
from ._lib import lib, text

MAGIC = b"\x89NPUC\r\n\x1a" # how a plan file begins
MODES = {"data": 1, "clock": 2, "both": 3}


class NodeArg(typing.NamedTuple):
    """An input or output: shape holds int, or str for symbolic sizes ("batch", "past + seq"), and is None when the plan does not
    know it; type is "tensor(float)", "seq(tensor(float))" or "optional(tensor(float))"."""

    name: str
    shape: list | None
    type: str
    optional: bool = False
    cache: bool = False
    dtype: int = 0
    kind: int = _values.TENSOR

    def is_object(self):
        """Is it more than an array of numbers with a known rank?"""
        return self.kind != _values.TENSOR or self.dtype == _values.TEXT or self.shape is None


def _argument(value):
    dims = [value.dims[i] for i in range(value.rank)]
    shape = [d.min if d.min == d.max else text(d.text) for d in dims]
    kind = _values.type_name(value.kind, value.dtype)
    return NodeArg(text(value.name), shape if value.rank >= 0 else None, kind, bool(value.optional), bool(value.cache), value.dtype,
                   value.kind)


def _is_plan(path):
    with open(path, "rb") as f:
        return f.read(len(MAGIC)) == MAGIC


class Session:
    """Runs a plan.

    plan: path of a plan, a Plan, or anything npuc.compile takes (then options are its options).
    threads: host threads for the emulation; results do not depend on it.
    mode: "data" (results), "both" (results and times), "clock" (times alone: outputs are not computed).
    check_hazards: look for races between units and reads of what was never written; slow.
    Used by one thread at a time. Raises NpucError.
    """

    def __init__(self, plan, *, threads=1, mode="data", check_hazards=False, **options):
        if mode not in MODES:
            raise NpucError(2, f"mode is '{mode}', expected {', '.join(MODES)}")
        self._api, self._plan, self._session, self._kept = lib(), C.c_void_p(), C.c_void_p(), {}
        self._mode = mode
        self._file = self._plan_file(plan, options)
        path = os.fsencode(self._file)
        self._check(self._api.npurt_plan_open(path, C.byref(self._plan)), self._api.npurt_plan_error, self._plan)
        settings = _lib.Options(threads=threads, mode=MODES[mode], check_hazards=check_hazards)
        status = self._api.npurt_session_new(self._plan, C.byref(settings), C.byref(self._session))
        self._check(status, self._api.npurt_session_error, self._session)
        self._inputs = self._arguments(self._api.npurt_plan_inputs, self._api.npurt_plan_input)
        self._outputs = self._arguments(self._api.npurt_plan_outputs, self._api.npurt_plan_output)

    @staticmethod
    def _plan_file(plan, options):
        if isinstance(plan, Plan) or (isinstance(plan, (str, os.PathLike)) and _readable_plan(plan)):
            if options:
                raise NpucError(2, f"'{next(iter(options))}' is an option of compilation, and the plan is compiled already")
            return plan
        return compile_model(plan, **options)

    def _arguments(self, count, get):
        return {a.name: a for a in (_argument(get(self._plan, i).contents) for i in range(count(self._plan)))}

    def _check(self, status, message, handle):
        if status == 0:
            return
        fault = status_error(status, (text(message(handle)) if handle else None) or "")
        if not self._session:
            self.close()
        raise fault

    def _checked(self, status):
        self._check(status, self._api.npurt_session_error, self._session)

    def close(self):
        """Frees the session and its plan; a temporary plan file goes with it. May be called twice."""
        if self._session:
            self._api.npurt_session_free(self._session)
        if self._plan:
            self._api.npurt_plan_close(self._plan)
        self._session, self._plan, self._kept = C.c_void_p(), C.c_void_p(), {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_api", None):
            self.close()

    def get_inputs(self):
        """Inputs that have to be given, in the model's order: list of NodeArg."""
        return [a for a in self._inputs.values() if not a.optional]

    def get_overridable_initializers(self):
        """Inputs with a default: list of NodeArg."""
        return [a for a in self._inputs.values() if a.optional]

    def get_outputs(self):
        """Outputs in the model's order: list of NodeArg."""
        return list(self._outputs.values())

    def run(self, output_names, feeds):
        """Runs once.

        output_names: list of str, or None for all outputs in order.
        feeds: {input name: array}. Arrays have the input's element type (ml_dtypes for bfloat16, 8-bit floats and what is
        narrower than a byte) and a shape that fits; other sequences and numbers are converted. An input with a default, or
        one that belongs to a KV cache, may be missing. Text is an array of str or bytes, a sequence a list of arrays, an optional
        value is the value or None.
        Returns a list of new arrays, and of lists and None for sequences and optional values. Raises NpucError: 2 an unknown name, 3 a wrong type or shape.
        """
        self._open()
        wanted = list(self._outputs) if output_names is None else list(output_names)
        self._known(wanted, self._outputs, "output")
        self._known(feeds, self._inputs, "input")
        for name, argument in self._inputs.items():
            if argument.is_object() and name in feeds:
                self._give_object(argument, feeds[name])
            elif feeds.get(name) is None:
                self._kept.pop(name, None)
                self._checked(self._api.npurt_unset_input(self._session, name.encode()))
            else:
                self._give(argument, feeds[name])
        self._checked(self._api.npurt_run(self._session))
        return [self._take(name) for name in wanted] if self._mode != "clock" else [None] * len(wanted)

    def _open(self):
        if not self._session:
            raise NpucError(2, "the session is closed")

    @staticmethod
    def _known(names, arguments, kind):
        for name in names:
            if name not in arguments:
                raise NpucError(2, f"no {kind} is called '{name}'; there is {', '.join(arguments) or 'none'}")

    def _give(self, argument, value):
        array = value if isinstance(value, (np.ndarray, np.generic)) else np.asarray(value, _dtypes.numpy_type(argument.dtype))
        array = np.asarray(array)
        number = _dtypes.type_number(array.dtype)
        if number != argument.dtype:
            raise NpucError(3, f"input '{argument.name}' is {array.dtype}, expected {_dtypes.numpy_type(argument.dtype)}")
        if array.ndim > _lib.MAX_RANK:
            raise NpucError(3, f"input '{argument.name}' has {array.ndim} dimensions, at most {_lib.MAX_RANK} are possible")
        packed = _dtypes.pack(array, number)
        dims = (C.c_int64 * _lib.MAX_RANK)(*array.shape)
        self._kept[argument.name] = packed
        self._checked(self._api.npurt_set_input(self._session, argument.name.encode(), number, array.ndim, dims, packed.ctypes.data))

    def _give_object(self, argument, value):
        kept = [] # the session copies
        tree = _values.to_api(value, argument.dtype, argument.name, kept)
        self._checked(self._api.npurt_set_value(self._session, argument.name.encode(), C.byref(tree)))

    def _take(self, name):
        t = _lib.Tensor()
        self._checked(self._api.npurt_output(self._session, name.encode(), C.byref(t)))
        return _values.from_api(t)

    def set_symbol(self, name, value):
        """Gives a dimension that no input's shape tells, or with None takes it back."""
        self._open()
        self._checked(self._api.npurt_set_symbol(self._session, name.encode(), -1 if value is None else value))

    def report(self):
        """What the last run did: a dict with the totals of npurt.h's struct npurt_report, and "steps", a list of dicts with
        label, op, kernel, nodes, host, reason, cycles, us, macs, gm_read, gm_written, bound_by. Times need mode both or clock."""
        self._open()
        found = self._api.npurt_report(self._session)
        if not found:
            raise NpucError(1, "there is no report before the first run")
        report = found.contents
        totals = {name: _plain(getattr(report, name)) for name, _ in report._fields_ if name not in ("steps", "n_steps", "peak")}
        return {**totals, "steps": [_step(report.steps[i]) for i in range(report.n_steps)]}


def _readable_plan(path):
    try:
        return _is_plan(path)
    except OSError as e:
        raise NpucError(6, f"{os.fspath(path)}: {e.strerror}") from None


def _plain(value):
    return text(value) if isinstance(value, bytes) else value


def _step(step):
    names = ("label", "op", "kernel", "reason", "cycles", "us", "launch_us", "macs", "gm_read", "gm_written", "bound_by")
    entry = {name: _plain(getattr(step, name)) for name in names}
    return {**entry, "host": bool(step.host), "nodes": [text(step.nodes[i]) for i in range(step.n_nodes)]}
