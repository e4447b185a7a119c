#!/usr/bin/env python3
"""Writes the four tiny models that the tests run on: one per way in which real checkpoints differ.

Each is a Hugging Face folder of a few hundred kB with seeded random weights. Sizes are chosen to
be awkward (no multiple of a SIMD register, heads*head_dim != hidden, odd vocabulary), the query
and key weights are large enough for attention to be far from uniform, and norm weights are partly
negative. In two models one MLP neuron of layer 1 answers to token 1 (BOS) with a massive
activation, as sink neurons do, so that error measures meet a row a thousand times its neighbours.

  tiny_llama1   MHA, untied, fp32; a sink neuron
  tiny_llama2   GQA, heads*head_dim != hidden, all biases, linear RoPE scaling; fp16 in 3 shards
  tiny_llama3   GQA, tied, llama3 RoPE scaling, two eos ids, transformers 5 config; bf16; a sink neuron
  tiny_mistral  GQA, hidden no multiple of heads, sliding window of 8, transformers 4 config; fp32
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

BOS = 1


@dataclass(frozen=True)
class TinyModel:
    name: str
    seed: int
    stored: torch.dtype
    config: dict
    shards: int = 1
    sink_neuron: int | None = None  # of layer 1's MLP


def config(architecture: str, d: int, m: int, layers: int, heads: int, kv_heads: int, vocab: int, **rest) -> dict:
    """The keys that every config.json of the two families has; `rest` is what makes a model special."""
    return {
        "architectures": [f"{architecture}ForCausalLM"],
        "model_type": architecture.lower(),
        "hidden_act": "silu",
        "hidden_size": d,
        "intermediate_size": m,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 512,
        "bos_token_id": BOS,
        **rest,
    }


MODELS = [
    TinyModel("tiny_llama1", 1, torch.float32, sink_neuron=17, config=config(
        "Llama", 56, 100, 3, 4, 4, 307, rms_norm_eps=1e-6, tie_word_embeddings=False,
        eos_token_id=2, torch_dtype="float32")),
    TinyModel("tiny_llama2", 2, torch.float16, shards=3, config=config(
        "Llama", 56, 132, 3, 8, 2, 320, head_dim=12, attention_bias=True, mlp_bias=True,
        rms_norm_eps=1e-5, rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 2.0},
        tie_word_embeddings=False, eos_token_id=2, torch_dtype="float16")),
    # Wavelengths 6.3, 32, 167, ...: above, within and below the band of 16 to 64 positions.
    TinyModel("tiny_llama3", 5, torch.bfloat16, sink_neuron=40, config=config(
        "Llama", 64, 120, 4, 4, 2, 512, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        eos_token_id=[2, 3], dtype="bfloat16")),
    TinyModel("tiny_mistral", 4, torch.float32, config=config(
        "Mistral", 50, 112, 4, 6, 2, 320, head_dim=8, rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=8,
        tie_word_embeddings=False, eos_token_id=2, torch_dtype="float32")),
]


class Weights:
    """Draws tensors in a fixed order; values are fp32 and rounded to the stored type at the end."""

    def __init__(self, model: TinyModel) -> None:
        self.random = np.random.default_rng(model.seed)
        self.model = model
        self.tensors: dict[str, np.ndarray] = {}

    def normal(self, name: str, shape: tuple[int, ...], std: float) -> None:
        self.tensors[name] = (self.random.standard_normal(shape) * std).astype(np.float32)

    def linear(self, name: str, out: int, width: int, gain: float, bias: bool = False) -> None:
        """[out, width] such that inputs of rms 1 give outputs of rms `gain`."""
        self.normal(f"{name}.weight", (out, width), gain / width**0.5)
        if bias:
            self.normal(f"{name}.bias", (out,), 0.3)

    def norm(self, name: str, width: int) -> None:
        """Weights around 1, about one in ten of them negative."""
        weight = 1 + 0.3 * self.random.standard_normal(width)
        weight[self.random.random(width) < 0.1] *= -1
        self.tensors[f"{name}.weight"] = weight.astype(np.float32)

    def block(self, layer: int) -> None:
        c = self.model.config
        d, m = c["hidden_size"], c["intermediate_size"]
        h = c.get("head_dim", d // c["num_attention_heads"])
        heads, kv_heads = c["num_attention_heads"] * h, c["num_key_value_heads"] * h
        attention_bias, mlp_bias = c.get("attention_bias", False), c.get("mlp_bias", False)
        prefix = f"model.layers.{layer}"
        self.norm(f"{prefix}.input_layernorm", d)
        self.linear(f"{prefix}.self_attn.q_proj", heads, d, 1.6, attention_bias)
        self.linear(f"{prefix}.self_attn.k_proj", kv_heads, d, 1.6, attention_bias)
        self.linear(f"{prefix}.self_attn.v_proj", kv_heads, d, 1.0, attention_bias)
        self.linear(f"{prefix}.self_attn.o_proj", d, heads, 1.0, attention_bias)
        self.norm(f"{prefix}.post_attention_layernorm", d)
        self.linear(f"{prefix}.mlp.gate_proj", m, d, 1.2, mlp_bias)
        self.linear(f"{prefix}.mlp.up_proj", m, d, 1.2, mlp_bias)
        self.linear(f"{prefix}.mlp.down_proj", d, m, 1.5, mlp_bias)

    def plant_sink_neuron(self, layer: int, neuron: int) -> None:
        """Gate and up read the direction of BOS's embedding; the down column is enlarged."""
        mlp = f"model.layers.{layer}"
        bos = self.tensors["model.embed_tokens.weight"][BOS]
        reader = bos / np.linalg.norm(bos) / self.tensors[f"{mlp}.post_attention_layernorm.weight"]
        self.tensors[f"{mlp}.mlp.gate_proj.weight"][neuron] = 2 * reader
        self.tensors[f"{mlp}.mlp.up_proj.weight"][neuron] = 2 * reader
        self.tensors[f"{mlp}.mlp.down_proj.weight"][:, neuron] *= 60

    def all(self) -> dict[str, torch.Tensor]:
        c = self.model.config
        self.normal("model.embed_tokens.weight", (c["vocab_size"], c["hidden_size"]), 1.0)
        for layer in range(c["num_hidden_layers"]):
            self.block(layer)
        self.norm("model.norm", c["hidden_size"])
        if not c["tie_word_embeddings"]:
            self.linear("lm_head", c["vocab_size"], c["hidden_size"], 2.0)
        if self.model.sink_neuron is not None:
            self.plant_sink_neuron(1, self.model.sink_neuron)
        return {name: torch.from_numpy(values).to(self.model.stored) for name, values in self.tensors.items()}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], count: int) -> None:
    """Splits the tensors, in their order, into `count` files and writes the index beside them."""
    names = list(tensors)
    weight_map = {}
    for shard in range(count):
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        part = names[len(names) * shard // count : len(names) * (shard + 1) // count]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(t.nbytes for t in tensors.values())
    write_json(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def write_model(model: TinyModel, out: Path) -> None:
    folder = out / model.name
    folder.mkdir(parents=True, exist_ok=True)
    tensors = Weights(model).all()
    write_json(folder / "config.json", model.config)
    if model.shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        write_shards(folder, tensors, model.shards)
    print(f"{folder}: {sum(t.numel() for t in tensors.values())} parameters")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that receives one folder per model")
    args = parser.parse_args(argv)
    try:
        for model in MODELS:
            write_model(model, args.out)
    except OSError as error:
        print(f"make_tiny_models: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
