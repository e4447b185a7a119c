"""What a run is made to do differently, as data."""

from __future__ import annotations

import ctypes as c
from typing import Any, List, Mapping, Sequence, Tuple, Union, TYPE_CHECKING

import numpy as np

from ._errors import InputError
from ._library import Run, bytes_of, lib

if TYPE_CHECKING:
    from ._model import Model

Parts = Union[None, int, Sequence[int], np.ndarray]
Where = Union[None, int, slice, str, Sequence[int], np.ndarray]
Values = Union[np.ndarray, Mapping[str, np.ndarray], Sequence[float]]


class Intervention:
    """A change of named activations: one of the functions below makes it, or `Intervention(text)` from the grammar of
    --intervene. A run takes a list of them, which act in their order.

    hook       a name or a glob
    positions  None: all; numbers and slices, of which negative ones count from the prompt's end; a slice without
               an end holds what is generated too
    parts      heads (of q, k, v, z, scores, pattern) or elements (neurons); None: all
    along      a direction: only the component along it is changed
    values     an array of a trace's shape [b, p, ...], or a cache, whose array of the hook's name it is
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise InputError(f"Intervention: found {text!r}, expected text as of --intervene")
        self._hook, self._left, self._action = text, "", ""
        self._along: Any = None
        self._values: Any = None

    @classmethod
    def _made(cls, hook: str, positions: Where, parts: Parts, along: Any, action: str, values: Any = None
              ) -> "Intervention":
        if not isinstance(hook, str) or any(mark in hook for mark in "@#=;"):
            raise InputError(f"Intervention: found {hook!r}, expected the name of a hook")
        self = cls(hook)
        if positions is not None:
            self._left += "@" + _positions(positions)
        if parts is not None and along is not None:
            raise InputError("Intervention: found parts and along, expected one of them")
        if parts is not None:
            numbers = np.atleast_1d(np.asarray(parts))
            if numbers.ndim != 1 or numbers.size == 0 or numbers.dtype.kind not in "iu":
                raise InputError(f"Intervention: found parts {parts!r}, expected numbers of heads or elements")
            self._left += "#" + ",".join(str(n) for n in numbers.tolist())
        self._along, self._action, self._values = along, action, values
        return self

    @classmethod
    def zero(cls, hook: str, positions: Where = None, parts: Parts = None, along: Any = None) -> "Intervention":
        """Zero-ablation. Of a direction: the component along it is taken out."""
        return cls._made(hook, positions, parts, along, "zero")

    @classmethod
    def mean(cls, hook: str, values: Values, positions: Where = None, parts: Parts = None, along: Any = None
             ) -> "Intervention":
        """Mean-ablation: the mean of `values` over all their positions, or a vector as it is."""
        return cls._made(hook, positions, parts, along, "mean:", values)

    @classmethod
    def patch(cls, hook: str, values: Values, positions: Where = None, parts: Parts = None, along: Any = None
              ) -> "Intervention":
        """Patching from another run: its value at the same position."""
        return cls._made(hook, positions, parts, along, "from:", values)

    @classmethod
    def resample(cls, hook: str, values: Values, positions: Where = None, parts: Parts = None, along: Any = None
                 ) -> "Intervention":
        """Resample-ablation: at each position the value of one that its number draws from all of `values`."""
        return cls._made(hook, positions, parts, along, "resample:", values)

    @classmethod
    def steer(cls, hook: str, vector: Values, factor: float = 1.0, positions: Where = None, parts: Parts = None
              ) -> "Intervention":
        """Adds factor · vector, as fp32 (fp64 for precision="fp64")."""
        if isinstance(factor, bool) or not isinstance(factor, (int, float, np.integer, np.floating)):
            raise InputError(f"Intervention.steer: found factor {factor!r}, expected a number")
        return cls._made(hook, positions, parts, None, f"add:{float(factor)!r}*", vector)

    @classmethod
    def pin(cls, hook: str, position: int = 1, positions: Where = None, parts: Parts = None, along: Any = None
            ) -> "Intervention":
        """What the prompt has at `position` stays at every later one: the paper's patch for neurons of
        hook_pre_linear and position 1."""
        if isinstance(position, bool) or not isinstance(position, (int, np.integer)) or position < 0:
            raise InputError(f"Intervention.pin: found position {position!r}, expected one from 0 on")
        return cls._made(hook, positions, parts, along, f"pin:{int(position)}")

    def __repr__(self) -> str:
        return f"Intervention({self._hook + self._left + ('=' + self._action if self._action else '')!r})"

    def _texts(self, model: "Model", arrays: List[np.ndarray]) -> List[str]:
        """The grammar's, for each hook where a cache is given; arrays are named by their place in the list."""
        if not self._action:
            return [self._hook]
        left = self._left
        if self._along is not None:
            left += "#along:" + _place(self._along, arrays, "along")
        if self._values is None:
            return [f"{self._hook}{left}={self._action}"]
        if not isinstance(self._values, Mapping):
            return [f"{self._hook}{left}={self._action}{_place(self._values, arrays, 'values')}"]
        names = [model._hooks[i].name for i in model._select(self._hook, "Intervention")]
        missing = [name for name in names if name not in self._values]
        if missing:
            raise InputError(f"Intervention: the cache has no {missing[0]}, expected the values of all hooks of "
                             f"{self._hook!r}")
        return [f"{name}{left}={self._action}{_place(self._values[name], arrays, name)}" for name in names]


Interventions = Union[str, Intervention, Sequence[Union[str, Intervention]]]


def changed_hooks(model: "Model", length: int, position: int, interventions: Interventions) -> List[str]:
    """The hooks that interventions may change at one position of a prompt of `length` tokens."""
    lengths = np.array([length], np.uintp)
    request = Run(lengths=lengths.ctypes.data)
    kept = give(model, interventions, request)
    indices = bytes_of(lib.sinkref_changed_hooks, model._handle.value, c.byref(request), position)
    del kept
    return [model._hooks[i].name for i in np.frombuffer(indices, np.uintp)]


def _positions(positions: Where) -> str:
    if isinstance(positions, str):
        return positions
    alone = isinstance(positions, (int, np.integer, slice)) or not hasattr(positions, "__iter__")
    items = [positions] if alone else list(positions)  # type: ignore
    texts = []
    for item in items:
        if isinstance(item, slice) and item.step is None:
            texts.append(f"{'' if item.start is None else int(item.start)}:{'' if item.stop is None else int(item.stop)}")
        elif isinstance(item, (int, np.integer)) and not isinstance(item, bool):
            texts.append(str(int(item)))
        else:
            raise InputError(f"Intervention: found position {item!r}, expected numbers and slices without a step")
    if not texts:
        raise InputError("Intervention: found no positions, expected at least one; None stands for all")
    return ",".join(texts)


def _place(values: Any, arrays: List[np.ndarray], what: str) -> str:
    """The array's name in the grammar."""
    try:
        array = np.ascontiguousarray(values, np.float64)
    except Exception:
        raise InputError(f"Intervention: {what}: found {type(values).__name__}, expected numbers") from None
    if array.ndim == 0 or array.size == 0:
        raise InputError(f"Intervention: {what}: found an array of shape {list(array.shape)}, expected [b, p, ...] or "
                         "a vector")
    arrays.append(array)
    return f"&{len(arrays) - 1}"


def give(model: "Model", interventions: Interventions, run: Run) -> Tuple[Any, ...]:
    """Puts interventions into a run. What it returns has to live as long as the run."""
    if isinstance(interventions, (str, Intervention)):
        interventions = [interventions]
    if not hasattr(interventions, "__iter__"):
        raise InputError(f"interventions: found {interventions!r}, expected a list of Intervention")
    arrays: List[np.ndarray] = []
    texts: List[str] = []
    for one in interventions:
        if isinstance(one, str):
            one = Intervention(one)
        if not isinstance(one, Intervention):
            raise InputError(f"interventions: found {one!r}, expected Intervention or text")
        texts += one._texts(model, arrays)
    if not texts:
        return ()
    n = len(arrays)
    shapes = [np.array(a.shape, np.uintp) for a in arrays]
    run.interventions = ";".join(texts).encode("utf-8", "replace")
    run.given = n
    run.given_values = (c.c_void_p * max(n, 1))(*(a.ctypes.data for a in arrays))
    run.given_shapes = (c.c_void_p * max(n, 1))(*(s.ctypes.data for s in shapes))
    run.given_dimensions = (c.c_size_t * max(n, 1))(*(a.ndim for a in arrays))
    return (arrays, shapes)
