"""Activations by name."""

from __future__ import annotations

import difflib
from typing import Dict, Tuple, Union

import numpy as np


class ActivationCache(Dict[str, np.ndarray]):
    """Activations by hook name, in the order in which they are computed.

    Shapes are those of a trace: [b, p, ...], and [b, H, q, k] for scores and pattern. TransformerLens's
    shorthand works: `cache["resid_post", 3]` is `cache["blocks.3.hook_resid_post"]`, `cache["scale", 3, "ln2"]` is
    `cache["blocks.3.ln2.hook_scale"]`.
    """

    def __missing__(self, key: Union[str, Tuple[str, int], Tuple[str, int, str]]) -> np.ndarray:
        if isinstance(key, tuple) and len(key) in (2, 3):
            part = f"blocks.{key[1]}." + (f"{key[2]}." if len(key) == 3 else "")
            ends = (f".hook_{key[0]}", f".{key[0]}")
            meant = [name for name in self if name.startswith(part) and name.endswith(ends)]
            if len(meant) == 1:
                return self[meant[0]]
            if meant:
                raise KeyError(f"{key!r} may be {' or '.join(repr(name) for name in meant)}")
        elif isinstance(key, str) and f"hook_{key}" in self:
            return self[f"hook_{key}"]
        near = difflib.get_close_matches(str(key), self, n=1, cutoff=0.4)
        raise KeyError(f"{key!r} is not in the cache" + (f"; did you mean {near[0]!r}?" if near else ""))
