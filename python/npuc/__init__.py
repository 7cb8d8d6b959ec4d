"""Python layer over the npuc command: sessions, text generation."""
from ._command import NpucError, command, run_json
from .llm import TextGenerator

__all__ = ["NpucError", "TextGenerator", "command", "run_json"]
