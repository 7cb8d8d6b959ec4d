"""Models to plans."""
import ctypes as C
import os
import pathlib
import tempfile
import weakref

from ._errors import NpucError, status_error
from ._lib import lib, text


class Plan(os.PathLike):
    """A plan file. A temporary one is removed with the object, or by `close`."""

    def __init__(self, path, messages="", folder=None):
        self.path, self.messages = str(path), messages
        self._remove = weakref.finalize(self, folder.cleanup) if folder else None

    def __fspath__(self):
        return self.path

    def __repr__(self):
        return f"Plan({self.path!r})"

    def close(self):
        """Removes a temporary plan; a plan with a name of its own stays."""
        if self._remove:
            self._remove()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def version():
    """The library's version, str."""
    return text(lib().npuc_version())


def targets():
    """Names of the targets the library knows, list of str."""
    names = C.POINTER(C.c_char_p)()
    return [text(names[i]) for i in range(lib().npuc_targets(C.byref(names)))]


def _option_pairs(options):
    """(name, value) texts for npuc_set; lists are options given several times, mappings become NAME=VALUE."""
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, dict):
            value = [f"{k}={v if not isinstance(v, (tuple, list)) else 'x'.join(map(str, v))}" for k, v in value.items()]
        for one in value if isinstance(value, (list, tuple)) else [value]:
            yield name.replace("_", "-"), str(int(one) if isinstance(one, bool) else one)


def _model_path(model, folder):
    """The path of a file with the model; bytes and ModelProto are written into `folder`."""
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    if hasattr(model, "SerializeToString"):
        model = model.SerializeToString()
    if not isinstance(model, (bytes, bytearray, memoryview)):
        raise NpucError(2, f"a model is a path, bytes or a ModelProto, not {type(model).__name__}")
    path = pathlib.Path(folder) / "model.onnx"
    path.write_bytes(model)
    return str(path)


def compile(model, plan=None, *, target="ascend-910b1", precision="keep", **options):
    """Compiles a model and returns its Plan.

    model: path, bytes, or onnx.ModelProto (external data are found only beside a path).
    plan: path to write; None makes a temporary file that lives as long as the result.
    precision: fp32, fp16, bf16, or keep (types of the model).
    options: those of the command, "_" for "-": D=["seq=1..128"], shape={"x": (1, 3, 8, 8)}, kv_capacity=256,
    set=["hbm.bandwidth=1.8TB/s"], tile="m=64,n=128".
    Raises NpucError: 2 an option, 3 the model, 4 what the target cannot do, 5 limits, 6 files.
    """
    api = lib()
    folder = tempfile.TemporaryDirectory(prefix="npuc-") if plan is None or not isinstance(model, (str, os.PathLike)) else None
    path = os.fspath(plan) if plan is not None else str(pathlib.Path(folder.name) / "model.plan")
    compiler = api.npuc_compiler_new()
    if not compiler:
        raise NpucError(5, "no memory for a compiler")
    try:
        for name, value in _option_pairs({"target": target, "precision": precision, **options}):
            _check(api, compiler, api.npuc_set(compiler, name.encode(), value.encode()))
        source = _model_path(model, folder.name if folder else None)
        _check(api, compiler, api.npuc_compile(compiler, os.fsencode(source), os.fsencode(path)))
        messages = text(api.npuc_messages(compiler))
    except BaseException:
        if folder:
            folder.cleanup()
        raise
    finally:
        api.npuc_compiler_free(compiler)
    if plan is not None and folder:
        folder.cleanup()
    return Plan(path, messages, folder if plan is None else None)


def _check(api, compiler, status):
    if status != 0:
        raise status_error(status, text(api.npuc_messages(compiler)))
