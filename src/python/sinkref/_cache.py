"""Activations by name."""

from __future__ import annotations

import difflib
from typing import Dict, Tuple, Union

import numpy as np

_outside = ("hook_embed", "logits")


class ActivationCache(Dict[str, np.ndarray]):
    """Activations by hook name, in the order in which they are computed.

    Shapes are those of a trace: [b, p, ...], and [b, H, q, k] for scores and pattern. TransformerLens's
    shorthand works: `cache["resid_post", 3]` is `cache["blocks.3.hook_resid_post"]`.
    """

    def __missing__(self, key: Union[str, Tuple[str, int]]) -> np.ndarray:
        if isinstance(key, tuple) and len(key) == 2:
            short, layer = key
            ends = (f".hook_{short}", f".{short}")
            for name in self:
                if name.startswith(f"blocks.{layer}.") and name.endswith(ends):
                    return self[name]
        elif isinstance(key, str) and key.startswith("hook_") is False and "hook_" + key in self:
            return self["hook_" + key]
        near = difflib.get_close_matches(str(key), self, n=1, cutoff=0.4)
        raise KeyError(f"{key!r} is not in the cache" + (f"; did you mean {near[0]!r}?" if near else ""))
