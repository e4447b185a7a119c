#!/usr/bin/env python3
"""The fingerprint of a model's weights, the same for every container that holds the same numbers.

For every tensor that the model uses, in sorted order of its Hugging Face name, one line

    name|d0,d1|sha256 of the values as little-endian fp32 in C order, in hex\\n

and the fingerprint is the SHA-256 of all lines together. Values are widened (fp16, bf16) or
dequantised (GGUF) to fp32 first, and the rows of a GGUF's Q and K go back to Hugging Face's
order, so a checkpoint keeps its fingerprint when its container changes without changing a number.
A tied lm_head and stray rotary tables are no part of it: the model does not read them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

GGUF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def weights_sha256(tensors: Iterable[tuple[str, np.ndarray]]) -> str:
    """The fingerprint of (Hugging Face name, fp32 array) pairs, given in any order."""
    lines = []
    for name, values in tensors:
        data = np.ascontiguousarray(values, dtype="<f4")
        shape = ",".join(map(str, data.shape))
        lines.append(f"{name}|{shape}|{hashlib.sha256(data).hexdigest()}\n")
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line.split("|")[0])).encode()).hexdigest()


def used_tensors(names: Iterable[str], tied: bool) -> list[str]:
    """Leaves out what the model never reads: `rotary_emb.inv_freq`, and lm_head if it is tied."""
    return [n for n in names if "rotary_emb" not in n and not (tied and n == "lm_head.weight")]


def folder_tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The fp32 tensors of a Hugging Face folder, sharded or not."""
    import torch
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    tied = config.get("tie_word_embeddings", False)
    index = folder / "model.safetensors.index.json"
    shards = ["model.safetensors"]
    if index.exists():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    for shard in shards:
        with safe_open(folder / shard, framework="pt") as tensors:
            for name in used_tensors(tensors.keys(), tied):
                yield name, tensors.get_tensor(name).to(torch.float32).numpy()


def gguf_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if not match or match[2] not in GGUF_NAMES:
        raise ValueError(f"{name}: not a tensor of the llama architecture")
    layer = f"model.layers.{match[1]}." if match[1] else ""
    return f"{layer}{GGUF_NAMES[match[2]]}.{match[3]}"


def half_split_rows(rows: np.ndarray, heads: int) -> np.ndarray:
    """GGUF keeps the two halves of a rotary pair in adjacent rows; Hugging Face h/2 rows apart.

    rows: [heads*h, ...]; returns the same rows in Hugging Face's order.
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def gguf_tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The dequantised fp32 tensors of a GGUF file under their Hugging Face names."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    heads = {
        "self_attn.q_proj": reader.fields["llama.attention.head_count"].contents(),
        "self_attn.k_proj": reader.fields["llama.attention.head_count_kv"].contents(),
    }
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":  # a RoPE table, not a weight
            continue
        name = gguf_name(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        projection = ".".join(name.split(".")[-3:-1])
        if projection in heads:
            values = half_split_rows(values, heads[projection])
        yield name, values


def checkpoint_sha256(path: Path) -> str:
    """The fingerprint of a Hugging Face folder or a .gguf file."""
    return weights_sha256(gguf_tensors(path) if path.suffix == ".gguf" else folder_tensors(path))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="Hugging Face folder or .gguf file")
    args = parser.parse_args()
    try:
        print(checkpoint_sha256(args.model))
    except (OSError, ValueError, KeyError) as error:
        print(f"weights_hash: {args.model}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
