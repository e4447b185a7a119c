"""One run of the engine: arrays that it fills, functions that it calls."""

from __future__ import annotations

import ctypes as c
from typing import Any, Callable, Generator, List, Optional, Sequence, Tuple, Union, TYPE_CHECKING

import numpy as np

from ._cache import ActivationCache
from ._errors import InputError
from ._hooks import HookPoint
from ._interventions import Interventions, give
from ._library import Function, Run, Token, check, lib

if TYPE_CHECKING:
    from ._model import Model

HookFunction = Callable[[np.ndarray, HookPoint], Optional[np.ndarray]]
Names = Union[None, str, Sequence[str], Callable[[str], bool]]
Positions = Union[None, int, slice, Sequence[int], np.ndarray]

CHUNK = 512  # tokens of a step: a tenth faster than the program's default


def token_ids(tokens: Any) -> np.ndarray:
    """One sequence of token ids as int32 [p]."""
    try:
        array = np.asarray(tokens)
    except Exception as error:  # a ragged list, an object that will not be an array
        raise InputError(f"tokens: expected whole numbers, found {type(tokens).__name__}: {error}") from None
    if isinstance(tokens, np.ma.MaskedArray):
        raise InputError("tokens: found a masked array, expected whole numbers; give what is not masked")
    if array.size == 0 and array.ndim <= 2:
        return np.zeros(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"tokens: expected whole numbers [p] or [b, p], found {array.dtype} of shape "
                         f"{list(array.shape)}; to_tokens gives the ids of a text")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 2**31 - 1:
        raise InputError(f"tokens: found {low if low < 0 else high}, expected token ids from 0 on")
    return np.ascontiguousarray(array, np.int32)


def token_batch(model: "Model", tokens: Any) -> List[np.ndarray]:
    """Text, ids [p], ids [b, p], or a list of texts or of lists: one int32 array a sequence."""
    if isinstance(tokens, str):
        return [model._encode(tokens)]
    if isinstance(tokens, (list, tuple)) and tokens and all(isinstance(t, str) for t in tokens):
        return [model._encode(t) for t in tokens]
    if isinstance(tokens, (list, tuple)) and tokens and all(isinstance(t, (list, tuple, np.ndarray))
                                                            for t in tokens):
        return [token_ids(t) for t in tokens]
    if getattr(tokens, "ndim", 1) == 2 and len(tokens) > 0:
        return [token_ids(row) for row in np.asarray(tokens)]
    return [token_ids(tokens)]


def one_sequence(model: "Model", tokens: Any, what: str) -> np.ndarray:
    batch = token_batch(model, tokens)
    if len(batch) != 1:
        raise InputError(f"{what}: found {len(batch)} sequences, expected one")
    return batch[0]


def one_prompt(model: "Model", tokens: Any, what: str) -> np.ndarray:
    """One sequence that is not empty."""
    ids = one_sequence(model, tokens, what)
    if not len(ids):
        raise InputError(f"{what}: found no tokens, expected at least one")
    return ids


def kept_positions(positions: Positions, length: int, what: str = "positions") -> Optional[np.ndarray]:
    """Positions from 0 on, in the order given; None: all."""
    if positions is None:
        return None
    if isinstance(positions, (bool, np.bool_, str)):
        raise InputError(f"{what}: found {positions!r}, expected whole numbers or a slice")
    try:
        if isinstance(positions, slice):
            positions = range(length)[positions]
        array = np.asarray([positions] if np.ndim(positions) == 0 else positions)
    except (TypeError, ValueError):  # a slice of fractions, a ragged list
        raise InputError(f"{what}: found {positions!r}, expected whole numbers or a slice") from None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{what}: found {array.dtype} of shape {list(array.shape)}, expected at least one whole "
                         "number, or a slice that holds one")
    bad = [p for p in array.tolist() if not -length <= p < length]
    if bad:
        raise InputError(f"{what}: there is no {what.rstrip('s')} {bad[0]}, expected {-length} to {length - 1}")
    all_ = array.astype(np.int64)
    all_ = np.where(all_ < 0, all_ + length, all_)
    if np.unique(all_).size != all_.size:
        raise InputError(f"{what}: one comes twice, expected each once")
    return np.ascontiguousarray(all_, np.uintp)


def chosen(model: "Model", names: Names, where: str) -> List[int]:
    """Indices of hooks, in the order in which they are computed."""
    if names is None:
        return list(range(len(model._hooks)))
    if callable(names):
        return [i for i, hook in enumerate(model._hooks) if names(hook.name)]
    if isinstance(names, bytes) or not hasattr(names, "__iter__"):
        raise InputError(f"{where}: found {names!r}, expected names of hooks")
    globs = [names] if isinstance(names, str) else list(names)
    if any(not isinstance(g, str) for g in globs):
        raise InputError(f"{where}: found {globs!r}, expected names of hooks")
    return model._select(",".join(globs), where) if globs else []


class Callbacks:
    """What the engine calls, by `send` of a generator: there a signal's exception is raised inside the `try`, which a
    function's first instruction would not be. An exception ends the run and is kept."""

    def __init__(self) -> None:
        self.error: Optional[BaseException] = None

    def of(self, call: Callable[[Any], None]) -> Callable[[Any], int]:
        def answers() -> Generator[int, Any, None]:
            answer = 1
            while True:
                asked = False
                try:
                    given = yield answer
                    asked = True
                    call(given)
                    answer = 1
                except BaseException as error:  # it is raised again when the engine has come back
                    if isinstance(error, GeneratorExit) and not asked:
                        return  # the generator is closed
                    self.error, answer = error, 0

        generator = answers()
        next(generator)
        return generator.send

    def reraise(self) -> None:
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # which holds this frame


class _Functions:
    """The functions of a run, as the engine calls them."""

    def __init__(self, model: "Model", fwd_hooks: Sequence[Tuple[Names, HookFunction]]) -> None:
        self.fp64, self.dtype = model._fp64, model._dtype
        self.entries: List[Tuple[Any, HookPoint, HookFunction]] = []
        if isinstance(fwd_hooks, (str, bytes)) or not hasattr(fwd_hooks, "__iter__"):
            raise InputError(f"fwd_hooks: found {fwd_hooks!r}, expected a list of (name, function)")
        for pair in fwd_hooks:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InputError(f"fwd_hooks: found {pair!r}, expected (name, function)")
            names, function = pair
            if not callable(function):
                raise InputError(f"fwd_hooks: the function for {names!r} is {function!r}, expected one to call as "
                                 "f(array, hook)")
            if names is None:
                raise InputError("fwd_hooks: found None, expected the name of a hook")
            for i in chosen(model, names, "fwd_hooks"):
                hook = model._hooks[i]
                self.entries.append((hook, HookPoint(hook.name, hook.layer), function))

    def call(self, pointer: Any) -> None:
        a = pointer.contents
        hook, point, function = self.entries[a.function]
        shape = (1, a.heads, a.rows, a.width) if hook.attention else (1, a.rows, *hook.shape)
        array = np.empty(shape, self.dtype)
        lib.sinkref_read(pointer, self.fp64, array.ctypes.data)
        point.positions = range(a.first_position, a.first_position + a.rows)
        result = function(array, point)
        values = self.checked(array if result is None else result, shape, hook.name)
        masked = hook.name.endswith("hook_attn_scores")
        try:
            check(lib.sinkref_write(pointer, self.fp64, masked, values.ctypes.data))
        except InputError as error:
            raise InputError(f"{hook.name}: {error}") from None

    def checked(self, given: Any, shape: Tuple[int, ...], name: str) -> np.ndarray:
        if not isinstance(given, np.ndarray) and not hasattr(given, "__array__"):
            raise InputError(f"{name}: the hook returned {type(given).__name__}, expected an array or None")
        array = np.asarray(given)
        if array.shape != shape or array.dtype != self.dtype:
            raise InputError(f"{name}: the hook gave {array.dtype} of shape {list(array.shape)}, expected "
                             f"{np.dtype(self.dtype)} of shape {list(shape)}")
        return np.ascontiguousarray(array)


class Result:
    """What a run leaves."""

    cache: ActivationCache
    last_logits: Optional[np.ndarray] = None
    generated: np.ndarray
    log_probs: Optional[np.ndarray] = None


def run(model: "Model", batch: List[np.ndarray], *, state: Optional[int] = None, before: int = 0,
        captures: Sequence[int] = (), positions: Optional[np.ndarray] = None,
        fwd_hooks: Sequence[Tuple[Names, HookFunction]] = (), interventions: Interventions = (),
        last_logits: bool = False, generate: int = 0,
        prompt: bool = True, targets: Optional[np.ndarray] = None,
        each: Optional[Callable[[int], Any]] = None) -> Result:
    """Runs sequences, or a state's continuation, and fills the arrays asked for."""
    functions, callbacks = _Functions(model, fwd_hooks), Callbacks()
    if functions.entries and len(batch) != 1:
        raise InputError(f"fwd_hooks: found {len(batch)} sequences, expected one; run them one after the other")
    longest = max(len(tokens) for tokens in batch)
    rows = longest + generate if positions is None else len(positions)
    keys = before + longest + generate
    result = Result()
    result.cache = ActivationCache()
    for i in captures:
        hook = model._hooks[i]
        shape = (len(batch), hook.shape[0], rows, keys) if hook.attention else (len(batch), rows, *hook.shape)
        result.cache[hook.name] = np.zeros(shape, model._dtype)
    tokens = np.concatenate(batch)
    lengths = np.array([len(t) for t in batch], np.uintp)

    r = Run(state=state, sequences=len(batch), tokens=tokens.ctypes.data, lengths=lengths.ctypes.data,
            prompt=prompt, chunk=longest if functions.entries else CHUNK)
    r.captures = len(result.cache)
    r.capture_names = (c.c_char_p * max(r.captures, 1))(*(name.encode() for name in result.cache))
    r.capture_values = (c.c_void_p * max(r.captures, 1))(*(a.ctypes.data for a in result.cache.values()))
    r.keys = keys
    if positions is not None:
        r.positions, r.position = len(positions), positions.ctypes.data
    if functions.entries:
        r.functions = len(functions.entries)
        r.function_names = (c.c_char_p * r.functions)(*(hook.name.encode() for hook, _, _ in functions.entries))
        r.function = Function(callbacks.of(functions.call))
    kept = give(model, interventions, r)
    if last_logits:
        result.last_logits = np.empty((len(batch), model.cfg.d_vocab), model._dtype)
        r.last_logits = result.last_logits.ctypes.data
    generated = np.empty(generate, np.int32)
    if generate:
        r.generate, r.generated = generate, generated.ctypes.data
        if each is not None:
            if not callable(each):
                raise InputError(f"each: found {each!r}, expected a function of a token")
            r.each = Token(callbacks.of(each))
    if targets is not None:
        result.log_probs = np.empty(longest, np.float64)
        r.targets, r.log_probs = targets.ctypes.data, result.log_probs.ctypes.data

    status = lib.sinkref_run_model(model._handle.value, c.byref(r))
    del kept  # the engine has read the arrays
    callbacks.reraise()
    check(status)
    result.generated = generated[:r.generated_count].astype(np.int64)
    if generate:
        ran = min(longest + len(result.generated), model.cfg.n_ctx - before)  # the last may not fit
        for name, array in result.cache.items():
            attention = array.ndim == 4 and name.endswith(("hook_attn_scores", "hook_pattern"))
            result.cache[name] = array[:, :, :ran, :before + ran] if attention else array[:, :ran]
    return result
