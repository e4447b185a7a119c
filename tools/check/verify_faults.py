"""The faults that test_verify_faults.py seeds: each with the tensor where it shows first and the name it must get."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from verify_alterations import (
    activation, attention, base, blocks, each_attention, eps, grouped_modulo, half_norm, layer_norm,
    neighbours, no_bias, no_scale, norm_weight, one_more, other_output, patch, permuted, rotary_output, rounded_cache,
    scale_by_dim, scaled_embedding, set_frequencies, shifted_positions, silu_on_up, swap_gate_up, transpose_q, windowed,
)

TOKENS = [1, 5, 9, 33, 7, 7, 7, 7, 7, 7, 7, 7, 12, 44, 101, 17, 18, 250, 3, 77, 63, 5, 9, 200, 31, 8]
NO_PATTERN = ("hook_embed,blocks.*.hook_resid_*,*.hook_attn_out,*.hook_mlp_out,*.hook_scale,*.hook_normalized,"
              "*.mlp.hook_*,logits,*.attn.hook_?,*.attn.hook_rot_?,*.hook_attn_scores")


@dataclass
class Fault:
    name: str
    first: str  # expected first tensor
    slug: str  # expected name
    apply: Callable[[PreTrainedModel], object] = lambda model: None  # may return a context manager
    tokens: list[int] = field(default_factory=lambda: list(TOKENS))  # theirs
    arguments: list[str] = field(default_factory=list)  # of verify
    hooks: str = "*"
    metadata: dict[str, str] = field(default_factory=dict)


def faults_of(model: PreTrainedModel) -> list[Fault]:
    c = model.config
    scaled = "linear" in json.dumps(c.to_dict()) or "llama3" in json.dumps(c.to_dict())
    q, rot, scores, pre, post = (f"blocks.0.{n}" for n in (
        "attn.hook_q", "attn.hook_rot_q", "attn.hook_attn_scores", "mlp.hook_pre", "mlp.hook_post"))
    other_eps = 1e-6 if c.rms_norm_eps > 2e-6 else 1e-5
    right = ["--tokens", ",".join(map(str, TOKENS))]
    patched = ["--patch", "1:3,11"]
    window = getattr(c, "sliding_window", None)
    ln2 = lambda m: [blocks(m)[1].post_attention_layernorm]
    final = lambda m: [m.model.norm]
    gelu_tanh = lambda x: F.gelu(x, approximate="tanh")
    up1 = "blocks.1.mlp.hook_pre_linear"
    faults = [
        Fault("rope base", rot, "rope_base", base(750_000.0)),
        Fault("rope frequencies a quarter", rot, "rope_scaling", set_frequencies(lambda f: f / 4)),
        Fault("rope pairs neighbours", rot, "rope_pairing", neighbours),
        Fault("rope the other way", rot, "rope_direction", rotary_output(lambda cos, sin: (cos, -sin))),
        Fault("rope left out", rot, "rope_missing",
              rotary_output(lambda cos, sin: (torch.ones_like(cos), torch.zeros_like(sin)))),
        Fault("positions from 1", rot, "positions", shifted_positions(lambda p: p + 1)),
        Fault("positions 0, 0, 1, 2", rot, "positions", shifted_positions(lambda p: (p - 1).clamp(min=0))),
        Fault("BOS doubled", "tokens", "bos", tokens=[1] + TOKENS, arguments=right),
        Fault("BOS missing", "tokens", "bos", tokens=TOKENS[1:], arguments=right),
        Fault("eps", "blocks.0.ln1.hook_scale", "norm_eps", eps(other_eps)),
        Fault("eps 1e-3", "blocks.0.ln1.hook_scale", "norm_eps", eps(1e-3)),
        Fault("norm weight left out", q, "norm_weight", norm_weight(torch.ones_like)),
        Fault("norm weight twice", q, "norm_weight", norm_weight(lambda w: w * w)),
        Fault("final norm's weight left out", "logits", "norm_weight", norm_weight(torch.ones_like, final)),
        Fault("norm in fp16", q, "norm_precision", half_norm(torch.float16)),
        Fault("norm in bf16", q, "norm_precision", half_norm(torch.bfloat16)),
        Fault("LayerNorm", "blocks.0.ln1.hook_scale", "norm_kind", layer_norm),
        Fault("window one too small" if window else "a window", scores, "sliding_window",
              windowed((window or 10) - 1)),
        Fault("rows of q and k interleaved", q, "qk_rows", permuted(True, True, False)),
        Fault("rows of q un-permuted twice", q, "qk_rows", permuted(True, False, True)),
        Fault("no 1/sqrt(d)", scores, "attention_scale", each_attention(no_scale)),
        Fault("1/d", scores, "attention_scale", each_attention(scale_by_dim)),
        Fault("gate and up swapped", pre, "gate_up", swap_gate_up),
        Fault("silu on up", post, "gate_up", silu_on_up),
        Fault("tanh gelu", post, "activation", activation(gelu_tanh)),
        Fault("erf gelu in block 1", "blocks.1.mlp.hook_post", "activation", activation(F.gelu, only=1)),
        Fault("relu", post, "activation", activation(F.relu)),
        Fault("output not tied" if c.tie_word_embeddings else "output tied", "logits", "tied_output", other_output),
        Fault("softmax_1", "blocks.0.attn.hook_z", "softmax_one", attention(one_more), hooks=NO_PATTERN),
        Fault("fp16 cache", scores, "kv_cache", attention(rounded_cache)),
        Fault("embedding scaled", "hook_embed", "embedding_scale", scaled_embedding),
        Fault("patch at the wrong layer", up1, "patch", patch(2, [3, 11]), arguments=patched),
        Fault("patch at the wrong neuron", up1, "patch", patch(1, [3, 12]), arguments=patched),
        Fault("patch at position 0 too", up1, "patch", patch(1, [3, 11], at_zero=True), arguments=patched),
        Fault("patch on the gate", "blocks.1.mlp.hook_pre", "patch", patch(1, [3, 11], gate=True), arguments=patched),
        Fault("patch left out", up1, "patch", arguments=patched),
        Fault("patch where none should be", up1, "patch", patch(1, [3, 11])),
        Fault("base seen in logits alone", "logits", "rope_base", base(1_000_000.0),
              hooks="logits"),
        Fault("gelu seen in residuals alone", "blocks.0.hook_resid_post", "activation", activation(gelu_tanh),
              hooks="blocks.*.hook_resid_post,logits"),
    ]
    if scaled:
        faults.append(Fault("rope scaling left out", rot, "rope_scaling", base(c.rope_parameters["rope_theta"])))
    if c.num_key_value_heads not in (1, c.num_attention_heads):
        faults.append(Fault("heads share keys modulo", scores, "gqa_mapping", grouped_modulo))
    if blocks(model)[0].self_attn.q_proj.weight.shape[0] == c.hidden_size:
        faults.append(Fault("q transposed", q, "qk_rows", each_attention(transpose_q)))
    if window:
        faults.append(Fault("window one too large", scores, "sliding_window", windowed(window + 1)))
        faults.append(Fault("window left out", scores, "sliding_window", windowed(10_000)))
    if getattr(c, "attention_bias", False):
        faults.append(Fault("biases left out", q, "bias", no_bias))
    return faults
