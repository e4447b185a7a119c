"""What a hook function is told."""

from __future__ import annotations

from typing import Any, Dict, Optional


class HookPoint:
    """Where a function is called: `f(array, hook)`.

    name       the hook's name, as "blocks.3.hook_resid_post"
    positions  range of the absolute positions that the array holds
    ctx        a dict of the function's own, kept over the calls of one run
    """

    __slots__ = ("name", "positions", "ctx", "_layer")

    def __init__(self, name: str, layer: Optional[int]) -> None:
        self.name = name
        self.positions = range(0)
        self.ctx: Dict[Any, Any] = {}
        self._layer = layer

    def layer(self) -> Optional[int]:
        """The block's number; None outside the blocks."""
        return self._layer

    def __repr__(self) -> str:
        return f"HookPoint({self.name!r})"
