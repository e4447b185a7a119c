"""A sequence that is kept: its KV cache, to be continued and forked."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence, Tuple, Union, TYPE_CHECKING

import numpy as np

from ._cache import ActivationCache
from ._errors import InputError
from ._interventions import Interventions
from ._library import Handle, lib, made
from ._run import HookFunction, Names, Positions, chosen, kept_positions, one_sequence, run

if TYPE_CHECKING:
    from ._model import Model


def run_and_keep(model: "Model", batch: List[np.ndarray], names: Names, positions: Positions, logits: Union[bool, str],
                 fwd_hooks: Sequence[Tuple[Names, HookFunction]], interventions: Interventions,
                 state: Optional[int] = None, before: int = 0) -> Tuple[Optional[np.ndarray], ActivationCache]:
    """The logits asked for, and the activations: run_with_cache of a model and of a state."""
    if not (isinstance(logits, (bool, np.bool_)) or isinstance(logits, str) and logits == "last"):
        raise InputError(f'logits: found {logits!r}, expected True, "last" or False')
    asked, head, last = chosen(model, names, "names"), len(model._hooks) - 1, isinstance(logits, str)
    captures = [*asked, head] if logits and not last and head not in asked else asked
    if state is None and not captures and not last and not fwd_hooks:
        raise InputError("names: nothing is asked for, expected names of hooks or logits")
    result = run(model, batch, state=state, before=before, captures=captures,
                 positions=kept_positions(positions, max(len(ids) for ids in batch)), fwd_hooks=fwd_hooks,
                 interventions=interventions, last_logits=last)
    values = result.last_logits if last else result.cache.get("logits") if logits else None
    if head not in asked:
        result.cache.pop("logits", None)
    return values, result.cache


class State:
    """The tokens run so far with their keys and values. `Model.start()` makes one.

    A run that fails, or that a hook or Ctrl-C ends, leaves it as it was.
    """

    def __init__(self, model: "Model", _handle: Optional[int] = None, _tokens: Optional[np.ndarray] = None) -> None:
        self.model = model
        handle = made(lib.sinkref_start, model._handle.value) if _handle is None else _handle
        self._handle = Handle(handle, lib.sinkref_state_close)
        self._tokens = np.zeros(0, np.int64) if _tokens is None else _tokens

    @property
    def tokens(self) -> np.ndarray:
        """int64 [1, p]"""
        return self._tokens[None].copy()

    def __len__(self) -> int:
        return len(self._tokens)

    def __repr__(self) -> str:
        return f"State({len(self)} tokens of {self.model!r})"

    def fork(self, positions: Optional[int] = None) -> "State":
        """A copy of the first `positions` (all) that goes its own way."""
        kept = len(self) if positions is None else positions
        if isinstance(kept, bool) or not isinstance(kept, (int, np.integer)) or not 0 <= kept <= len(self):
            raise InputError(f"fork: found {positions!r}, expected 0 to {len(self)} positions")
        return State(self.model, made(lib.sinkref_fork, self._handle.value, int(kept)), self._tokens[:kept].copy())

    def append(self, tokens: Any, logits: Union[bool, str] = True,
               fwd_hooks: Sequence[Tuple[Names, HookFunction]] = (), interventions: Interventions = ()
               ) -> Optional[np.ndarray]:
        """Runs more tokens. Returns their logits [1, n, d_vocab], the last position's [1, d_vocab] for
        logits="last", or None for False."""
        return self.run_with_cache(tokens, (), None, logits, fwd_hooks, interventions)[0]

    def run_with_cache(self, tokens: Any, names: Names = None, positions: Positions = None,
                       logits: Union[bool, str] = True, fwd_hooks: Sequence[Tuple[Names, HookFunction]] = (),
                       interventions: Interventions = ()) -> Tuple[Optional[np.ndarray], ActivationCache]:
        """Runs more tokens and keeps activations of them. As `Model.run_with_cache`; `positions` count from the
        first of the new tokens, and the keys of scores and pattern are all so far."""
        ids = one_sequence(self.model, tokens, "tokens")
        found = run_and_keep(self.model, [ids], names, positions, logits, fwd_hooks, interventions,
                             self._handle.value, len(self))
        self._tokens = np.concatenate([self._tokens, ids])
        return found

    def run_with_hooks(self, tokens: Any, fwd_hooks: Sequence[Tuple[Names, HookFunction]],
                       logits: Union[bool, str] = True, interventions: Interventions = ()) -> Optional[np.ndarray]:
        """As `Model.run_with_hooks`, after the tokens so far."""
        return self.append(tokens, logits, fwd_hooks, interventions)

    def generate(self, count: int, tokens: Any = None, each: Optional[Callable[[int], object]] = None,
                 names: Names = (), fwd_hooks: Sequence[Tuple[Names, HookFunction]] = (),
                 interventions: Interventions = ()) -> Union[np.ndarray, Tuple[np.ndarray, ActivationCache]]:
        """Runs `tokens` (without them: the last one again), then at most `count` more, greedily. As
        `Model.generate`; the state then holds them all."""
        if tokens is None:
            if len(self) == 0:
                raise InputError("generate: the state is empty, expected tokens to continue")
            shorter = self.fork(len(self) - 1)
            new = shorter.generate(count, self._tokens[-1:], each, names, fwd_hooks, interventions)
            self._handle, self._tokens = shorter._handle, shorter._tokens
            return new
        ids = one_sequence(self.model, tokens, "tokens")
        count = self.model._new_tokens(count, len(self) + len(ids))
        captures = chosen(self.model, names, "names")
        result = run(self.model, [ids], state=self._handle.value, before=len(self), captures=captures,
                     fwd_hooks=fwd_hooks, interventions=interventions, generate=count, each=each)
        ran = lib.sinkref_state_length(self._handle.value)
        self._tokens = np.concatenate([self._tokens, ids, result.generated])[:ran]
        return (result.generated, result.cache) if captures else result.generated
