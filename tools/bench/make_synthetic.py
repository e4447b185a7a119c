#!/usr/bin/env python3
"""Writes a random checkpoint of a known model's exact shape, to measure memory, load and speed at a
size whose weights cannot be fetched: config.json and sharded safetensors in fp16 or bf16.

    tools/bench/make_synthetic.py --like llama-2-7b --out /tmp/synthetic-7b      # 13.5 GB
    build/sinkref bench --model /tmp/synthetic-7b --prefill 512 --decode 32 --runs 3
    rm -r /tmp/synthetic-7b

The numbers are random (normal, of the size trained weights have) but not independent: one block of
random values is written over and over, each tensor from another place in it. No kernel's time
depends on that, and gigabytes are written as fast as the disk takes them. --layers N keeps only the
first N blocks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

LLAMA_2_7B = dict(model_type="llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                  num_attention_heads=32, num_key_value_heads=32, vocab_size=32000, rms_norm_eps=1e-5,
                  rope_theta=10000.0, max_position_embeddings=4096)
LLAMA_3_8B = LLAMA_2_7B | dict(intermediate_size=14336, num_key_value_heads=8, vocab_size=128256,
                               rope_theta=500000.0, max_position_embeddings=8192)
MISTRAL_7B = LLAMA_3_8B | dict(model_type="mistral", vocab_size=32000, rope_theta=10000.0,
                               max_position_embeddings=32768, sliding_window=4096)
CONFIGS = {"llama-2-7b": LLAMA_2_7B, "llama-3-8b": LLAMA_3_8B, "mistral-7b": MISTRAL_7B}
DTYPE = {"f16": "F16", "bf16": "BF16"}
SHARD_BYTES = 5_000_000_000
BLOCK_VALUES = 1 << 24


def tensor_shapes(config: dict) -> list[tuple[str, list[int]]]:
    d, m, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = d // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = [("model.embed_tokens.weight", [vocab, d])]
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        shapes += [(block + "input_layernorm.weight", [d]),
                   (block + "self_attn.q_proj.weight", [d, d]),
                   (block + "self_attn.k_proj.weight", [kv, d]),
                   (block + "self_attn.v_proj.weight", [kv, d]),
                   (block + "self_attn.o_proj.weight", [d, d]),
                   (block + "post_attention_layernorm.weight", [d]),
                   (block + "mlp.gate_proj.weight", [m, d]),
                   (block + "mlp.up_proj.weight", [m, d]),
                   (block + "mlp.down_proj.weight", [d, m])]
    return shapes + [("model.norm.weight", [d]), ("lm_head.weight", [vocab, d])]


def stored(values: np.ndarray, dtype: str) -> bytes:
    """The values' bytes, rounded to fp16 or cut to bf16."""
    if dtype == "f16":
        return values.astype("<f2").tobytes()
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def write_tensor(file, shape: list[int], block: memoryview, ones: bytes, start: int) -> None:
    if len(shape) == 1:
        file.write(ones[: shape[0] * 2])
        return
    left, at = shape[0] * shape[1] * 2, start % len(block)
    while left > 0:
        part = block[at : at + left]
        file.write(part)
        left -= len(part)
        at = 0


def write_shard(path: Path, tensors: list[tuple[str, list[int]]], dtype: str, block: memoryview, ones: bytes) -> int:
    header, offset = {}, 0
    for name, shape in tensors:
        size = int(np.prod(shape)) * 2
        header[name] = {"dtype": DTYPE[dtype], "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, (_, shape) in enumerate(tensors):
            write_tensor(file, shape, block, ones, index * 1_234_568)
    return offset


def shards_of(tensors: list[tuple[str, list[int]]]) -> list[list[tuple[str, list[int]]]]:
    shards, size = [[]], 0
    for name, shape in tensors:
        bytes_ = int(np.prod(shape)) * 2
        if shards[-1] and size + bytes_ > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += bytes_
    return shards


def write_checkpoint(out: Path, config: dict, dtype: str) -> int:
    rng = np.random.default_rng(0)
    block = memoryview(stored(rng.standard_normal(BLOCK_VALUES, dtype=np.float32) * np.float32(0.02), dtype))
    ones = stored(np.ones(max(config["hidden_size"], 1), dtype=np.float32), dtype)
    shards = shards_of(tensor_shapes(config))
    total, index = 0, {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        total += write_shard(out / name, tensors, dtype, block, ones)
        index |= {tensor: name for tensor, _ in tensors}
        if sys.stderr.isatty():
            print(f"\r{number} of {len(shards)} shards", end="\n" if number == len(shards) else "", file=sys.stderr)
    (out / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
    architecture = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}[config["model_type"]]
    torch_dtype = {"f16": "float16", "bf16": "bfloat16"}[dtype]
    # Last: a folder without config.json is not taken for a model.
    (out / "config.json").write_text(json.dumps(
        {"architectures": [architecture], "hidden_act": "silu", "tie_word_embeddings": False,
         "torch_dtype": torch_dtype, "bos_token_id": 1, "eos_token_id": 2, **config}, indent=2))
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", choices=CONFIGS, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--dtype", choices=DTYPE, default="f16")
    parser.add_argument("--layers", type=int, help="only the first N blocks")
    arguments = parser.parse_args()
    config = dict(CONFIGS[arguments.like])
    if arguments.layers is not None:
        if not 1 <= arguments.layers <= config["num_hidden_layers"]:
            parser.error(f"--layers {arguments.layers}: expected 1 to {config['num_hidden_layers']}")
        config["num_hidden_layers"] = arguments.layers
    if arguments.out.exists():
        parser.error(f"--out {arguments.out}: is there already; choose another name or remove it")
    need = sum(int(np.prod(shape)) * 2 for _, shape in tensor_shapes(config))
    free = shutil.disk_usage(arguments.out.absolute().parent).free
    if need > free:
        parser.error(f"--out {arguments.out}: {need:,} bytes are needed, {free:,} are free")
    arguments.out.mkdir(parents=True)
    try:
        total = write_checkpoint(arguments.out, config, arguments.dtype)
    except BaseException:
        shutil.rmtree(arguments.out, ignore_errors=True)
        raise
    print(f"{arguments.out}: {total:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
