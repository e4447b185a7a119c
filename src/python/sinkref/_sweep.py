"""Activation patching over layers, positions and heads."""

from __future__ import annotations

import ctypes as c
import json
from dataclasses import dataclass
from typing import Any, Callable, List, Tuple, TYPE_CHECKING

import numpy as np

from ._errors import InputError
from ._library import Cells, Sweep as Request, bytes_of, check, lib
from ._run import Callbacks, Positions, chosen, kept_positions, one_prompt

if TYPE_CHECKING:
    from ._model import Model

MetricFunction = Callable[[np.ndarray], np.ndarray]


_TOKENS = json.loads(lib.sinkref_metrics())  # how many, by name


class Metric:
    """One number of each row [cells, n] of logits, or of another hook's rows, in float64. The command's --metric."""

    def __init__(self, name: str, *tokens: int) -> None:
        if name not in _TOKENS or len(tokens) != _TOKENS[name]:
            raise InputError(f"Metric: found {name!r} of {len(tokens)} tokens, expected "
                             + ", ".join(f"{known} of {count}" for known, count in _TOKENS.items()))
        for token in tokens:
            if isinstance(token, bool) or not isinstance(token, (int, np.integer)) or not 0 <= token < 2**31:
                raise InputError(f"{name}: found token {token!r}, expected an id from 0 on; to_tokens gives the ids of a "
                                 "text")
        self.name, self.tokens = name, tuple(int(t) for t in tokens)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        array = np.asarray(rows)
        if array.ndim != 2 or array.size == 0 or array.dtype not in (np.float32, np.float64):
            raise InputError(f"{self.name}: found {array.dtype} of shape {list(array.shape)}, expected float32 or float64 "
                             "rows [cells, n]")
        array = np.ascontiguousarray(array)
        values = np.empty(len(array), np.float64)
        token, other = (*self.tokens, 0, 0)[:2]
        check(lib.sinkref_measure(self.name.encode(), token, other, array.ctypes.data, *array.shape,
                                  array.dtype == np.float64, values.ctypes.data))
        return values

    def __repr__(self) -> str:
        return f"{self.name}{self.tokens!r}" if self.tokens else self.name


def logit_difference(answer: int, wrong: int) -> Metric:
    """logits[answer] - logits[wrong]"""
    return Metric("logit_difference", answer, wrong)


def log_probability(answer: int) -> Metric:
    """ln softmax(logits)[answer]"""
    return Metric("log_probability", answer)


def probability(answer: int) -> Metric:
    """softmax(logits)[answer]"""
    return Metric("probability", answer)


#: the Euclidean norm of what is observed: for observed="blocks.N.hook_resid_post"
norm = Metric("norm")


@dataclass(frozen=True, eq=False)
class Sweep:
    """What patch_sweep found.

    values     [layer, position], with by_head [layer, position, head]: the metric of each patched run
    corrupted  the metric of the run that is patched, without a patch
    clean      the metric of the run that the patches come from
    layers, positions, pieces   the labels of the axes: numbers, numbers, and the position's token: its text, or "<|bos|>" and the
               like where it has none
    """

    values: np.ndarray
    corrupted: float
    clean: float
    layers: Tuple[int, ...]
    positions: Tuple[int, ...]
    pieces: Tuple[str, ...]
    hook: str

    @property
    def restored(self) -> np.ndarray:
        """(values - corrupted) / (clean - corrupted): 0 where a patch does nothing, 1 where it does all."""
        if self.clean == self.corrupted:
            raise InputError(f"restored: both runs have the metric {self.clean}, expected two; choose another metric or "
                             "other prompts")
        return (self.values - self.corrupted) / (self.clean - self.corrupted)


def patch_sweep(model: "Model", corrupted: Any, clean: Any, metric: MetricFunction, hook: str = "hook_resid_pre", *,
                layers: Positions = None, positions: Positions = None, by_head: bool = False,
                observed: str = "logits", observed_position: int = -1) -> Sweep:
    """Runs `corrupted` once for each cell, with one activation of a run of `clean` in the place of its own."""
    ids, theirs = one_prompt(model, corrupted, "corrupted"), one_prompt(model, clean, "clean")
    if not callable(metric):
        raise InputError(f"metric: found {metric!r}, expected a function of rows [cells, n], as logit_difference(a, b)")
    if not isinstance(by_head, (bool, np.bool_)):
        raise InputError(f"by_head: found {by_head!r}, expected True or False")
    if not isinstance(hook, str) or not isinstance(observed, str) or "\0" in hook:
        raise InputError(f"hook, observed: found {hook!r} and {observed!r}, expected names of hooks")
    point = c.c_size_t()
    check(lib.sinkref_block_point(model._handle.value, hook.encode("utf-8", "replace"), b"hook", c.byref(point)))
    seen = chosen(model, observed, "observed")
    if len(seen) != 1:
        raise InputError(f"observed: {observed!r} stands for {len(seen)} hooks, expected one")
    if isinstance(metric, Metric):
        check(lib.sinkref_check_observed(model._handle.value, metric.name.encode(), model._hooks[seen[0]].name.encode()))
    length = len(ids)
    at = kept_positions(-1 if observed_position is None else observed_position, length, "observed_position")
    kept = kept_positions(slice(None) if positions is None else positions, length)
    blocks = kept_positions(slice(None) if layers is None else layers, model.cfg.n_layers, "layers")
    assert at is not None and kept is not None and blocks is not None
    if at.size != 1:
        raise InputError(f"observed_position: found {observed_position!r}, expected one position")
    info, about = model._hooks[seen[0]], model._hooks[point.value]
    heads = about.shape[0] if by_head else 1
    width = int(np.prod(info.shape))
    values: List[np.ndarray] = []
    callbacks = Callbacks()

    def measured(rows: np.ndarray) -> np.ndarray:
        found = np.asarray(metric(rows))
        if found.shape != (len(rows),) or found.dtype.kind not in "fiu":
            raise InputError(f"metric: gave {found.dtype} of shape {list(found.shape)} for {len(rows)} cells, expected "
                             "one number a cell")
        return found.astype(np.float64)

    number = c.c_double if model._fp64 else c.c_float

    def result(pointer: Any) -> None:
        rows = np.ctypeslib.as_array(c.cast(pointer.contents.values, c.POINTER(number)),
                                     (pointer.contents.cells, width))
        values.append(measured(rows.copy()))

    request = Request(tokens=ids.ctypes.data, source=theirs.ctypes.data, length=length, source_length=len(theirs),
                      layers=len(blocks), positions=len(kept), layer=blocks.ctypes.data, position=kept.ctypes.data,
                      point=point.value, by_head=by_head, observed=info.name.encode(),
                      observed_position=int(at[0]), result=Cells(callbacks.of(result)))
    status = lib.sinkref_run_sweep(model._handle.value, c.byref(request))
    callbacks.reraise()
    check(status)

    def whole(run_ids: np.ndarray) -> float:
        _, cache = model.run_with_cache(run_ids, info.name, positions=int(at[0]), logits=False)
        return float(measured(cache[info.name].reshape(1, width))[0])

    shape = (len(blocks), len(kept)) + ((heads,) if by_head else ())
    try:
        pieces = tuple(bytes_of(lib.sinkref_token_name, model._handle.value, int(ids[p])).decode() for p in kept)
    except InputError:  # a model without a tokenizer
        pieces = tuple(str(int(ids[p])) for p in kept)
    return Sweep(np.concatenate(values).reshape(shape), whole(ids), whole(theirs), tuple(blocks.tolist()),
                 tuple(kept.tolist()), pieces, about.name[len("blocks.0."):])
