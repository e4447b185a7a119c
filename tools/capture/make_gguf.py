#!/usr/bin/env python3
"""Writes a Hugging Face LLaMA (folder or .gguf) as an fp32 GGUF, so that llama.cpp runs the same numbers.

    make_gguf.py reference_outputs/tiny_llama1 tiny.gguf

Only what llama.cpp's `llama` architecture computes: RoPE with linear or llama3 scaling, biases, tied output;
no sliding window. It carries no tokenizer: run it on token ids.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "reference")]

import gguf
import numpy as np

import hf_runs

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{match[1]}.{NAMES[match[2]]}.{kind}"
    return f"{OUTER[stem]}.{kind}"


def interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """llama.cpp turns neighbours: within each head, row i of the first half goes to 2i, of the second to 2i + 1."""
    shape = rows.shape
    return rows.reshape(-1, 2, head_dim // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write(model, path: Path) -> None:
    c = model.config
    head_dim = model.model.layers[0].self_attn.head_dim
    if getattr(c, "sliding_window", None):
        raise hf_runs.UserError("llama.cpp's llama architecture has no sliding window")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_vocab_size(c.vocab_size)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("no_vocab")
    if c.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(c.rope_parameters["factor"])
    elif c.rope_parameters["rope_type"] == "llama3":
        exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        plain = 1.0 / np.float64(c.rope_parameters["rope_theta"]) ** exponent
        divisors = plain / model.model.rotary_emb.inv_freq.double().numpy()
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        array = value.float().numpy()
        if re.search(r"[qk]_proj", name):
            array = interleaved(array, head_dim)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        write(hf_runs.load(args.model), args.out)
    except hf_runs.UserError as error:
        print(f"make_gguf.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
