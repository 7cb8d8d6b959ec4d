"""npuc as a backend of onnx.backend: `import npuc.backend as backend; backend.run_model(model, [x])`.

Everything runs on the emulated cores of a target, by default with the types of the model and rounding where ONNX's own
definitions round (strict).
"""
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from ._compile import compile as compile_model
from ._errors import NpucError
from ._session import Session

TARGET, PRECISION = "ascend-910b1", "keep"


class NpucBackendRep(BackendRep):
    """A compiled model, ready to run."""

    def __init__(self, session):
        self.session = session

    def run(self, inputs, **kwargs):
        """Runs once. inputs: list or tuple in the order of the model's inputs, {name: array}, or one array.
        Returns a tuple of arrays whose fields have the outputs' names."""
        names = [a.name for a in self.session.get_inputs()]
        if len(names) < _length(inputs):
            names += [a.name for a in self.session.get_overridable_initializers()]
        if not isinstance(inputs, (dict, list, tuple)):
            inputs = [inputs]
        if not isinstance(inputs, dict):
            if len(inputs) > len(names):
                raise NpucError(2, f"{len(inputs)} inputs are given, the model has {len(names)}")
            inputs = dict(zip(names, inputs))
        outputs = [a.name for a in self.session.get_outputs()]
        return namedtupledict("Outputs", outputs)(*self.session.run(None, inputs))


def _length(inputs):
    return len(inputs) if isinstance(inputs, (list, tuple)) else 0


class NpucBackend(Backend):
    """onnx.backend.base.Backend on emulated cores. Further arguments of prepare and the run functions are those of
    npuc.compile (target, precision, strict, ...) and npuc.Session (threads, mode, check_hazards)."""

    @classmethod
    def prepare(cls, model, device="CPU", *, check=True, **kwargs):
        """Checks and compiles a ModelProto; NpucError when npuc cannot."""
        cls._device(device)
        if check:
            onnx.checker.check_model(model)
        session = {name: kwargs.pop(name) for name in ("threads", "mode", "check_hazards") if name in kwargs}
        options = {"target": TARGET, "precision": PRECISION, "strict": True, **kwargs}
        return NpucBackendRep(Session(compile_model(model, **options), **session))

    @classmethod
    def run_model(cls, model, inputs, device="CPU", **kwargs):
        """prepare and run in one."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(cls, node, inputs, device="CPU", outputs_info=None, **kwargs):
        """Runs one NodeProto on arrays; absent optional inputs take no place in `inputs`.

        outputs_info: [(numpy type, shape)] of the outputs, or None: then they are inferred. opset_version: by default the
        newest.
        """
        cls._device(device)
        opset = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        given = [name for name in node.input if name]
        arrays = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
        values = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in zip(given, arrays)]
        names = [name for name in node.output if name]
        if outputs_info is None:
            outputs = [helper.make_empty_tensor_value_info(name) for name in names]
        else:
            outputs = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(_dtype(kind)), shape)
                       for name, (kind, shape) in zip(names, outputs_info)]
        graph = helper.make_graph([node], "node", values, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, opset)])
        if outputs_info is None:
            model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        return cls.run_model(model, dict(zip(given, arrays)), device, **kwargs)

    @classmethod
    def supports_device(cls, device):
        """The emulation runs on the CPU; there is no other device."""
        return device.split(":")[0] == "CPU"

    @classmethod
    def is_compatible(cls, model, device="CPU", **kwargs):
        """True: what npuc cannot do, it says in `prepare`, with the reason."""
        return cls.supports_device(device)

    @classmethod
    def _device(cls, device):
        if not cls.supports_device(device):
            raise NpucError(2, f"device is '{device}', expected CPU")


def _dtype(kind):
    import numpy as np
    return np.dtype(kind)


prepare, run_model, run_node = NpucBackend.prepare, NpucBackend.run_model, NpucBackend.run_node
supports_device, is_compatible = NpucBackend.supports_device, NpucBackend.is_compatible
