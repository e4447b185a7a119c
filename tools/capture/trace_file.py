"""The trace files that `sinkref verify` reads: safetensors with TransformerLens's names and shapes.

`tokens` [b,p] int64, activations [b,p,…] in fp32, fp16 or bf16 as they were, and strings in the metadata:
dtype (of the arithmetic), kv_cache, engine, model, and what else the engine knows.
"""

from __future__ import annotations

import fnmatch
import os
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


def chosen(tensors: dict[str, torch.Tensor], hooks: str) -> dict[str, torch.Tensor]:
    """The tensors whose name matches one of the comma-separated globs, and the tokens."""
    globs = hooks.split(",")
    return {name: x for name, x in tensors.items()
            if name == "tokens" or any(fnmatch.fnmatchcase(name, glob) for glob in globs)}


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
