"""Activation patching over layers, positions and heads."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass
from typing import Any, Callable, List, Tuple, TYPE_CHECKING

import numpy as np

from ._errors import InputError
from ._library import Cells, Sweep as Request, check, lib
from ._run import Callbacks, Positions, chosen, kept_positions, one_sequence

if TYPE_CHECKING:
    from ._model import Model

Metric = Callable[[np.ndarray], np.ndarray]


def logit_difference(right: int, wrong: int) -> Metric:
    """logits[right] - logits[wrong]"""
    return lambda logits: logits[:, right] - logits[:, wrong]


def log_probability(token: int) -> Metric:
    """ln softmax(logits)[token], in float64"""
    def metric(logits: np.ndarray) -> np.ndarray:
        x = logits.astype(np.float64)
        x -= x.max(1, keepdims=True)
        return x[:, token] - np.log(np.exp(x).sum(1))
    return metric


def probability(token: int) -> Metric:
    """softmax(logits)[token], in float64"""
    ln = log_probability(token)
    return lambda logits: np.exp(ln(logits))


def norm(rows: np.ndarray) -> np.ndarray:
    """The Euclidean norm of what is observed, in float64: for observed="blocks.N.hook_resid_post"."""
    return np.linalg.norm(rows.astype(np.float64), axis=1)


@dataclass(frozen=True)
class Sweep:
    """What patch_sweep found.

    values     [layer, position], with by_head [layer, position, head]: the metric of each patched run
    baseline   the metric of the run that is patched, without a patch
    source     the metric of the run that the patches come from
    layers, positions, pieces   the labels of the axes: numbers, numbers, and the text of the position's token
    """

    values: np.ndarray
    baseline: float
    source: float
    layers: Tuple[int, ...]
    positions: Tuple[int, ...]
    pieces: Tuple[str, ...]
    hook: str

    @property
    def restored(self) -> np.ndarray:
        """(values - baseline) / (source - baseline): 0 where a patch does nothing, 1 where it does all."""
        return (self.values - self.baseline) / (self.source - self.baseline)


def patch_sweep(model: "Model", tokens: Any, source: Any, metric: Metric, hook: str = "hook_resid_pre", *,
                layers: Positions = None, positions: Positions = None, by_head: bool = False,
                observed: str = "logits", observed_position: int = -1) -> Sweep:
    """Runs `tokens` once for each cell, with one activation of a run of `source` in the place of its own."""
    ids, theirs = one_sequence(model, tokens, "tokens"), one_sequence(model, source, "source")
    if not callable(metric):
        raise InputError(f"metric: found {metric!r}, expected a function of rows [cells, n], as logit_difference(a, b)")
    if not isinstance(hook, str) or not isinstance(observed, str):
        raise InputError("hook, observed: expected names of hooks")
    point = chosen(model, f"blocks.0.{hook}", "hook")
    seen = chosen(model, observed, "observed")
    if len(point) != 1 or len(seen) != 1:
        raise InputError("hook, observed: found globs, expected one name each, hook without its layer as hook_resid_pre")
    length = len(ids)
    at = kept_positions(observed_position, length)
    kept = kept_positions(slice(None) if positions is None else positions, length)
    blocks = kept_positions(slice(None) if layers is None else layers, model.cfg.n_layers)
    assert at is not None and kept is not None and blocks is not None
    if at.size != 1:
        raise InputError(f"observed_position: found {observed_position!r}, expected one position")
    info, about = model._hooks[seen[0]], model._hooks[point[0]]
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
                      point=about.name.encode(), by_head=by_head, observed=info.name.encode(),
                      observed_position=int(at[0]), result=Cells(callbacks.of(result)))
    status = lib.sinkref_run_sweep(model._handle.value, c.byref(request))
    callbacks.reraise()
    check(status)

    def whole(run_ids: np.ndarray) -> float:
        _, cache = model.run_with_cache(run_ids, info.name, positions=int(at[0]), logits=False)
        return float(measured(cache[info.name].reshape(1, width))[0])

    shape = (len(blocks), len(kept)) + ((heads,) if by_head else ())
    try:
        pieces = tuple(model.to_string([int(ids[p])]) for p in kept)
    except InputError:  # a model without a tokenizer
        pieces = tuple(str(int(ids[p])) for p in kept)
    return Sweep(np.concatenate(values).reshape(shape), whole(ids), whole(theirs), tuple(blocks.tolist()),
                 tuple(kept.tolist()), pieces, hook)
