"""npuc from Python: compile ONNX models, run plans on emulated NPUs, generate text. docs/python.md has examples."""
from ._command import command, run_json
from ._compile import Plan, compile, targets, version
from ._errors import NpucError
from ._session import NodeArg, Session

__all__ = ["NodeArg", "NpucError", "Plan", "Session", "TextGenerator", "command", "compile", "run_json", "targets", "version"]


def __getattr__(name):
    if name == "TextGenerator": # needs the package tokenizers, which nothing else does
        from .llm import TextGenerator
        return TextGenerator
    raise AttributeError(f"module 'npuc' has no attribute '{name}'")
