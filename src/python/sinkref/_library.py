"""The C interface (src/python/interface.h), as ctypes calls it."""

from __future__ import annotations

import ctypes as c
import os
from pathlib import Path
from typing import Tuple

from ._errors import InputError, InternalError

DONE, INPUT_ERROR, STOPPED, SIGNAL, NO_MEMORY = range(5)


class Activation(c.Structure):
    _fields_ = [(name, c.c_size_t) for name in ("function", "sequence", "first_position", "heads", "rows",
                                                "width", "stride", "head_stride")] + [("values", c.c_void_p)]


Function = c.CFUNCTYPE(c.c_int, c.POINTER(Activation))
Token = c.CFUNCTYPE(c.c_int, c.c_int32)


class Rows(c.Structure):
    _fields_ = [("first", c.c_size_t), ("cells", c.c_size_t), ("values", c.c_void_p)]


Cells = c.CFUNCTYPE(c.c_int, c.POINTER(Rows))


class Run(c.Structure):
    _fields_ = [
        ("state", c.c_void_p),
        ("sequences", c.c_size_t),
        ("tokens", c.c_void_p),
        ("lengths", c.c_void_p),
        ("prompt", c.c_int),
        ("chunk", c.c_size_t),
        ("captures", c.c_size_t),
        ("capture_names", c.POINTER(c.c_char_p)),
        ("capture_values", c.POINTER(c.c_void_p)),
        ("keys", c.c_size_t),
        ("positions", c.c_size_t),
        ("position", c.c_void_p),
        ("functions", c.c_size_t),
        ("function_names", c.POINTER(c.c_char_p)),
        ("function", Function),
        ("interventions", c.c_char_p),
        ("given", c.c_size_t),
        ("given_values", c.POINTER(c.c_void_p)),
        ("given_shapes", c.POINTER(c.c_void_p)),
        ("given_dimensions", c.POINTER(c.c_size_t)),
        ("last_logits", c.c_void_p),
        ("generate", c.c_size_t),
        ("generated", c.c_void_p),
        ("generated_count", c.c_size_t),
        ("each", Token),
        ("targets", c.c_void_p),
        ("log_probs", c.c_void_p),
    ]


class Sweep(c.Structure):
    _fields_ = [
        ("tokens", c.c_void_p),
        ("source", c.c_void_p),
        ("length", c.c_size_t),
        ("source_length", c.c_size_t),
        ("layers", c.c_size_t),
        ("positions", c.c_size_t),
        ("layer", c.c_void_p),
        ("position", c.c_void_p),
        ("point", c.c_size_t),
        ("by_head", c.c_int),
        ("observed", c.c_char_p),
        ("observed_position", c.c_size_t),
        ("result", Cells),
    ]


_path = os.environ.get("SINKREF_PYTHON_LIBRARY") or str(Path(__file__).parent / "libsinkref_python.so")
try:
    lib = c.CDLL(_path)  # calls release the interpreter's lock
except OSError as error:
    raise ImportError(f"{_path}: {error}; install the wheel, or build with meson's -Dpython=enabled") from None

_pointer = c.POINTER(c.c_void_p)


def _declare(name: str, result: object, *arguments: object) -> None:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


_declare("sinkref_error", c.c_char_p)
_declare("sinkref_version", c.c_char_p)
_declare("sinkref_arithmetic_version", c.c_int)
_declare("sinkref_set_threads", None, c.c_size_t)
_declare("sinkref_threads", c.c_size_t)
_declare("sinkref_set_interpreter", None, *5 * [c.c_void_p])
_declare("sinkref_open", c.c_int, c.c_char_p, c.c_char_p, c.c_int, c.c_int, _pointer)
_declare("sinkref_close", None, c.c_void_p)
_declare("sinkref_describe", c.c_char_p, c.c_void_p)
_declare("sinkref_select", c.c_int, c.c_void_p, c.c_char_p, c.c_char_p, _pointer)
_declare("sinkref_encode", c.c_int, c.c_void_p, c.c_char_p, c.c_size_t, c.c_int, _pointer)
_declare("sinkref_decode", c.c_int, c.c_void_p, c.c_void_p, c.c_size_t, _pointer)
_declare("sinkref_token_name", c.c_int, c.c_void_p, c.c_size_t, _pointer)
_declare("sinkref_weight", c.c_int, c.c_void_p, c.c_char_p, c.c_void_p)
_declare("sinkref_buffer_bytes", c.c_size_t, c.c_void_p)
_declare("sinkref_buffer_data", c.c_void_p, c.c_void_p)
_declare("sinkref_buffer_free", None, c.c_void_p)
_declare("sinkref_start", c.c_int, c.c_void_p, _pointer)
_declare("sinkref_fork", c.c_int, c.c_void_p, c.c_size_t, _pointer)
_declare("sinkref_state_close", None, c.c_void_p)
_declare("sinkref_state_length", c.c_size_t, c.c_void_p)
_declare("sinkref_run_model", c.c_int, c.c_void_p, c.POINTER(Run))
_declare("sinkref_run_sweep", c.c_int, c.c_void_p, c.POINTER(Sweep))
_declare("sinkref_block_point", c.c_int, c.c_void_p, c.c_char_p, c.c_char_p, c.POINTER(c.c_size_t))
_declare("sinkref_chain_roundings", c.c_size_t, c.c_size_t)
_declare("sinkref_metrics", c.c_char_p)
_declare("sinkref_check_observed", c.c_int, c.c_void_p, c.c_char_p, c.c_char_p)
_declare("sinkref_measure", c.c_int, c.c_char_p, c.c_size_t, c.c_size_t, c.c_void_p, c.c_size_t, c.c_size_t, c.c_int,
         c.c_void_p)
_declare("sinkref_lens", c.c_int, c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p, c.c_size_t, c.c_void_p)
_declare("sinkref_attribute_score", c.c_int, c.c_void_p, c.c_void_p, *5 * [c.c_size_t], c.c_int, _pointer, _pointer)
_declare("sinkref_interventions", c.c_int, c.c_void_p, c.POINTER(Run), _pointer)
_declare("sinkref_changed_hooks", c.c_int, c.c_void_p, c.POINTER(Run), c.c_size_t, _pointer)
_declare("sinkref_read", None, c.POINTER(Activation), c.c_int, c.c_void_p)
_declare("sinkref_write", c.c_int, c.POINTER(Activation), c.c_int, c.c_int, c.c_void_p)

# A signal that comes while the engine runs is seen by the engine, which asks the interpreter.
_raise = c.PyDLL(_path).sinkref_raise
_raise.restype, _raise.argtypes = None, ()
lib.sinkref_set_interpreter(*(c.cast(getattr(c.pythonapi, name), c.c_void_p) for name in (
    "PyGILState_Ensure", "PyGILState_Release", "PyErr_CheckSignals", "PyErr_Fetch", "PyErr_Restore")))


def check(status: int) -> None:
    """Turns a status into an exception."""
    if status == DONE:
        return
    if status == SIGNAL:
        _raise()
    message = lib.sinkref_error().decode("utf-8", "replace")
    if status == INPUT_ERROR:
        raise InputError(message)
    if status == NO_MEMORY:
        raise MemoryError(message)
    if status == STOPPED:  # a signal came between the engine and a callback's first instruction
        raise KeyboardInterrupt
    raise InternalError(message)


class Handle:
    """An object of the library, closed with the last reference."""

    __slots__ = ("value", "_close")

    def __init__(self, value: int, close: object) -> None:
        self.value = value
        self._close = close

    def __del__(self) -> None:
        self._close(self.value)  # type: ignore[operator]


def made(function: object, *arguments: object) -> int:
    """The handle that a function gives through its last argument."""
    handle = c.c_void_p()
    check(function(*arguments, c.byref(handle)))  # type: ignore[operator]
    assert handle.value is not None
    return handle.value


def _taken(buffer: int) -> bytes:
    """A buffer's bytes; it is freed."""
    try:
        return c.string_at(lib.sinkref_buffer_data(buffer), lib.sinkref_buffer_bytes(buffer))
    finally:
        lib.sinkref_buffer_free(buffer)


def bytes_of(function: object, *arguments: object) -> bytes:
    """The bytes of the buffer that a function gives through its last argument."""
    return _taken(made(function, *arguments))


def two_of(function: object, *arguments: object) -> Tuple[bytes, bytes]:
    """The bytes of the two buffers that a function gives through its last arguments."""
    first = c.c_void_p()
    second = made(function, *arguments, c.byref(first))
    assert first.value is not None
    return _taken(first.value), _taken(second)


def version() -> str:
    """The program's version."""
    return lib.sinkref_version().decode()


def arithmetic_version() -> int:
    """The version of the arithmetic: two runs of one version have the same bits."""
    return lib.sinkref_arithmetic_version()


def set_threads(count: int) -> None:
    """Threads that a run may use, of all models; 0: as many as the process may keep busy. Changes no bit."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 1024:
        raise InputError(f"set_threads: found {count!r}, expected 0 to 1024")
    lib.sinkref_set_threads(count)


def threads() -> int:
    """Threads that a run may use."""
    return lib.sinkref_threads()
