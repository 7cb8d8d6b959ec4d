"""The one exception of this package, and what its codes mean."""

# enum npuc_status -> exit code of the npuc command (npuc --help lists them)
EXIT_CODES = (0, 1, 2, 3, 4, 5, 5, 6, 7, 70, 130)


class NpucError(RuntimeError):
    """Something failed; `code` is the exit code the npuc command has for it, the text its message."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def status_error(status, text):
    """The NpucError of a status of the C API; several lines are kept, nothing becomes a plain sentence."""
    code = EXIT_CODES[status] if 0 <= status < len(EXIT_CODES) else 70
    return NpucError(code, text.strip() or f"npuc reported status {status} without a message")
