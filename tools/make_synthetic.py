#!/usr/bin/env python3
"""Writes a checkpoint of a paper model's shapes with random bf16 weights and few layers, to measure
time and memory per layer without the real weights.

  tools/make_synthetic.py llama-2-7b --layers 2 --out /tmp/llama2-2
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np

SHAPES = {  # d, m, heads, kv heads, vocabulary, context, rope theta
    "llama-1-7b": (4096, 11008, 32, 32, 32000, 2048, 1e4),
    "llama-2-7b": (4096, 11008, 32, 32, 32000, 4096, 1e4),
    "llama-3-8b-instruct": (4096, 14336, 32, 8, 128256, 8192, 5e5),
    "mistral-7b-instruct": (4096, 14336, 32, 8, 32000, 32768, 1e4),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    d, m, heads, kv, vocabulary, context, theta = SHAPES[arguments.shape]
    h = d // heads
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "mistral" if "mistral" in arguments.shape else "llama", "hidden_act": "silu",
              "hidden_size": d, "intermediate_size": m, "num_hidden_layers": arguments.layers,
              "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocabulary,
              "max_position_embeddings": context, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
              "rope_theta": theta, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    (arguments.out / "config.json").write_text(json.dumps(config, indent=1))
    tensors = {"model.embed_tokens.weight": (vocabulary, d), "model.norm.weight": (d,), "lm_head.weight": (vocabulary, d)}
    for layer in range(arguments.layers):
        for name, shape in {"input_layernorm": (d,), "post_attention_layernorm": (d,), "self_attn.q_proj": (d, d),
                            "self_attn.k_proj": (kv * h, d), "self_attn.v_proj": (kv * h, d),
                            "self_attn.o_proj": (d, d), "mlp.gate_proj": (m, d), "mlp.up_proj": (m, d),
                            "mlp.down_proj": (d, m)}.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = shape
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(1)
    with open(arguments.out / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors.items():
            values = np.ones(shape, np.float32) if len(shape) == 1 else random.standard_normal(shape, np.float32) / 64
            out.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
