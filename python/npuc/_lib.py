"""The C API (include/npuc/npuc.h, npurt.h) through ctypes: declarations, and where the shared library is."""
import ctypes as C
import functools
import os
import pathlib

from ._errors import NpucError

MAX_RANK = 16
UNITS, SPACES, CORES = 7, 9, 2
NAME = "libnpuc.so"


class Dim(C.Structure):
    _fields_ = [("text", C.c_char_p), ("min", C.c_int64), ("max", C.c_int64)]


class Value(C.Structure):
    _fields_ = [("name", C.c_char_p), ("dtype", C.c_int), ("rank", C.c_int), ("dims", C.POINTER(Dim)), ("optional", C.c_int),
                ("cache", C.c_int), ("kind", C.c_int)]


class Tensor(C.Structure):
    _fields_ = [("dtype", C.c_int), ("rank", C.c_int), ("dims", C.c_int64 * MAX_RANK), ("data", C.c_void_p), ("size", C.c_int64),
                ("kind", C.c_int)]


class String(C.Structure):
    _fields_ = [("text", C.c_char_p), ("size", C.c_int64)]


ProgressFn = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_int64, C.c_int64)


class Options(C.Structure):
    _fields_ = [("threads", C.c_int), ("mode", C.c_int), ("check_hazards", C.c_int), ("progress", ProgressFn),
                ("progress_user", C.c_void_p), ("target_set", C.POINTER(C.c_char_p)), ("n_target_set", C.c_int)]


class Step(C.Structure):
    _fields_ = [("label", C.c_char_p), ("op", C.c_char_p), ("kernel", C.c_char_p), ("nodes", C.POINTER(C.c_char_p)),
                ("n_nodes", C.c_int), ("host", C.c_int), ("reason", C.c_char_p), ("cycles", C.c_double), ("us", C.c_double),
                ("launch_us", C.c_double), ("busy", (C.c_double * UNITS) * CORES), ("cores", C.c_int32 * CORES),
                ("bytes", (C.c_int64 * SPACES) * SPACES), ("gm_read", C.c_int64), ("gm_written", C.c_int64),
                ("l2_hit", C.c_int64), ("l2_miss", C.c_int64), ("peak", C.c_int64 * SPACES), ("macs", C.c_double),
                ("bound_by", C.c_char_p), ("count", C.c_int64)]


class Report(C.Structure):
    _fields_ = [("target", C.c_char_p), ("clock_hz", C.c_double), ("steps", C.POINTER(Step)), ("n_steps", C.c_int64),
                ("us", C.c_double), ("npu_us", C.c_double), ("host_us", C.c_double), ("launch_us", C.c_double),
                ("cycles", C.c_double), ("gm_read", C.c_int64), ("gm_written", C.c_int64), ("weights_size", C.c_int64),
                ("cache_size", C.c_int64), ("pool_size", C.c_int64), ("pool_lower_bound", C.c_int64),
                ("peak", C.c_int64 * SPACES), ("n_host", C.c_int64), ("n_launches", C.c_int64),
                ("unit_names", C.POINTER(C.c_char_p)), ("space_names", C.POINTER(C.c_char_p)),
                ("core_names", C.POINTER(C.c_char_p))]


class Tokens(C.Structure):
    _fields_ = [("ids", C.POINTER(C.c_int64)), ("batch", C.c_int64), ("rows", C.c_int64), ("past", C.c_int64),
                ("filling", C.POINTER(C.c_int64)), ("own", C.POINTER(C.c_int64))]


class Sampling(C.Structure):
    _fields_ = [("temperature", C.c_double), ("top_k", C.c_int64), ("top_p", C.c_double), ("min_p", C.c_double),
                ("repeat_penalty", C.c_double), ("seed", C.c_uint64), ("draw", C.c_uint64)]


_HANDLE, _TEXT = C.c_void_p, C.c_char_p
_FUNCTIONS = { # name: (result, arguments)
    "npuc_compiler_new": (_HANDLE, []),
    "npuc_compiler_free": (None, [_HANDLE]),
    "npuc_set": (C.c_int, [_HANDLE, _TEXT, _TEXT]),
    "npuc_compile": (C.c_int, [_HANDLE, _TEXT, _TEXT]),
    "npuc_messages": (_TEXT, [_HANDLE]),
    "npuc_targets": (C.c_int, [C.POINTER(C.POINTER(_TEXT))]),
    "npuc_version": (_TEXT, []),
    "npurt_plan_open": (C.c_int, [_TEXT, C.POINTER(_HANDLE)]),
    "npurt_plan_close": (None, [_HANDLE]),
    "npurt_plan_error": (_TEXT, [_HANDLE]),
    "npurt_plan_target": (_TEXT, [_HANDLE]),
    "npurt_plan_inputs": (C.c_int, [_HANDLE]),
    "npurt_plan_outputs": (C.c_int, [_HANDLE]),
    "npurt_plan_input": (C.POINTER(Value), [_HANDLE, C.c_int]),
    "npurt_plan_output": (C.POINTER(Value), [_HANDLE, C.c_int]),
    "npurt_session_new": (C.c_int, [_HANDLE, C.POINTER(Options), C.POINTER(_HANDLE)]),
    "npurt_session_free": (None, [_HANDLE]),
    "npurt_session_error": (_TEXT, [_HANDLE]),
    "npurt_set_input": (C.c_int, [_HANDLE, _TEXT, C.c_int, C.c_int, C.POINTER(C.c_int64), C.c_void_p]),
    "npurt_set_value": (C.c_int, [_HANDLE, _TEXT, C.POINTER(Tensor)]),
    "npurt_unset_input": (C.c_int, [_HANDLE, _TEXT]),
    "npurt_set_symbol": (C.c_int, [_HANDLE, _TEXT, C.c_int64]),
    "npurt_run": (C.c_int, [_HANDLE]),
    "npurt_cancel": (None, [_HANDLE]),
    "npurt_output": (C.c_int, [_HANDLE, _TEXT, C.POINTER(Tensor)]),
    "npurt_report": (C.POINTER(Report), [_HANDLE]),
    "npurt_cache_length": (C.c_int64, [_HANDLE]),
    "npurt_cache_truncate": (C.c_int, [_HANDLE, C.c_int64]),
    "npurt_cache_capacity": (C.c_int64, [_HANDLE]),
    "npurt_cache_room": (C.c_int64, [_HANDLE]),
    "npurt_cache_save": (C.c_int, [_HANDLE, _TEXT]),
    "npurt_cache_restore": (C.c_int, [_HANDLE, _TEXT]),
    "npurt_cache_fork": (C.c_int, [_HANDLE, _HANDLE, C.c_int64]),
    "npurt_cache_pages": (C.c_int64, [_HANDLE, C.POINTER(C.c_int64)]),
    "npurt_cache_page": (C.c_int64, [_HANDLE]),
    "npurt_cache_spread": (C.c_int, [_HANDLE, C.c_int64]),
    "npurt_input_role": (C.c_int, [_HANDLE, C.c_int]),
    "npurt_logits_output": (C.c_int, [_HANDLE]),
    "npurt_batch_form": (C.c_int, [_HANDLE]),
    "npurt_run_tokens": (C.c_int, [_HANDLE, C.POINTER(Tokens)]),
    "npurt_sample": (C.c_int, [_HANDLE, C.c_int64, C.POINTER(Sampling), C.POINTER(C.c_int64), C.c_int64, C.POINTER(C.c_int64)]),
    "npurt_unit_name": (_TEXT, [C.c_int]),
    "npurt_space_name": (_TEXT, [C.c_int]),
}


def candidates():
    """Where the library may be, best first: $NPUC_LIB (file or folder), beside the package, a build of this source tree,
    the loader's own search path."""
    given = os.environ.get("NPUC_LIB")
    if given:
        path = pathlib.Path(given)
        return [str(path / NAME) if path.is_dir() else given]
    here = pathlib.Path(__file__).resolve().parent
    near = [here / NAME, here.parents[1] / "build" / "release" / NAME]
    return [str(p) for p in near if p.exists()] + [NAME, f"{NAME}.0"]


@functools.cache
def lib():
    """The shared library with its functions declared. NpucError (code 6) when there is none."""
    faults = []
    for path in candidates():
        try:
            library = C.CDLL(path)
        except OSError as e:
            faults.append(str(e))
            continue
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        return library
    raise NpucError(6, f"{NAME} not found, set NPUC_LIB to it: {faults[0]}")


def text(raw):
    """A C string as str; None stays None."""
    return None if raw is None else raw.decode("utf-8", "backslashreplace")
