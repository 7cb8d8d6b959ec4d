"""npuc from Python: compile ONNX models, run plans on emulated NPUs, generate text. docs/python.md has examples."""
from ._command import command, run_json
from ._compile import Plan, compile, targets, version
from ._errors import NpucError
from ._session import NodeArg, Session

__all__ = ["Generator", "NodeArg", "NpucError", "Plan", "Session", "command", "compile", "run_json", "targets", "version"]


def __getattr__(name):
    if name == "Generator": # left out of the way of `python -m npuc.llm`
        from .llm import Generator
        return Generator
    raise AttributeError(f"module 'npuc' has no attribute '{name}'")
