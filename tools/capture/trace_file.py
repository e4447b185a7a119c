"""The trace files that `sinkref verify` reads: safetensors with TransformerLens's names and shapes.

`tokens` [b,p] int64, activations [b,p,…] in fp32, fp16 or bf16 as they were, and strings in the metadata:
dtype (of the arithmetic), kv_cache, engine, model, and what else the engine knows.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def parse_tokens(text: str) -> list[int]:
    """`1,5,7x3` -> [1, 5, 7, 7, 7]."""
    tokens: list[int] = []
    for item in text.split(","):
        number, _, times = item.partition("x")
        tokens += [int(number)] * int(times or 1)
    return tokens


def matching(names: Iterable[str], hooks: str) -> list[str]:
    """The names that match one of the comma-separated globs."""
    globs = hooks.split(",")
    return [name for name in names if any(fnmatch.fnmatchcase(name, glob) for glob in globs)]


def in_every_layer(names: Iterable[str]) -> list[str]:
    """Adds what one layer has and another lacks: a hole in a trace must show."""
    kinds = dict.fromkeys(re.sub(r"^blocks\.\d+\.", "blocks.*.", name) for name in names)
    layers = {int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)\.", name))}
    return [name for kind in kinds
            for name in ([kind.replace("*", str(layer)) for layer in sorted(layers)] if "*" in kind else [kind])]


def save_chosen(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], hooks: str) -> None:
    """The tokens, and of an engine's tensors those that the globs choose; verify is told which it may miss."""
    activations = [name for name in tensors if name != "tokens"]
    asked = {} if hooks == "*" else {"hooks": ",".join(matching(in_every_layer(activations), hooks))}
    kept = {name: tensors[name] for name in ["tokens", *matching(activations, hooks)]}
    save(path, kept, metadata | asked)


def save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes beside the target and renames, so that nothing half-written stays behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        # Engines hand out one tensor under two names; the file holds each on its own.
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, partial,
                  {key: str(value) for key, value in metadata.items()})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
