#!/usr/bin/env python3
"""Seeds faults into Hugging Face's own models and demands that `sinkref verify` finds and names them.

Each fault alters the code, the weights or the configuration of a model in memory; its run is captured
with tools/capture/hf.py and verified. Demanded: every fault is detected, its first divergent tensor is
right, at least 80 % are named right, and none is named wrongly with certainty.

    test_verify_faults.py            the tiny models
    test_verify_faults.py --smollm2  some of them on SmolLM2-135M too
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools" / "capture")]

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

import hf_runs
from hf import capture

SINKREF = ROOT / "build" / "sinkref"
OUTPUTS = ROOT / "reference_outputs"
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
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


# ------------------------------------------------------------------------- alterations of a model


def code(model: PreTrainedModel) -> types.ModuleType:
    """The module that holds apply_rotary_pos_emb, repeat_kv and eager_attention_forward."""
    return sys.modules[type(model).__module__]


@contextmanager
def replaced(module: types.ModuleType, name: str, function: Callable) -> Iterator[None]:
    own = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, own)


def blocks(model: PreTrainedModel) -> torch.nn.ModuleList:
    return model.model.layers


def norms(model: PreTrainedModel) -> list[torch.nn.Module]:
    return [m for m in model.modules() if type(m).__name__.endswith("RMSNorm")]


def set_frequencies(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    def apply(model: PreTrainedModel) -> None:
        rotary = model.model.rotary_emb
        rotary.inv_freq = change(rotary.inv_freq.clone())

    return apply


def base(theta: float) -> Callable:
    def change(f: torch.Tensor) -> torch.Tensor:
        h = 2 * len(f)
        return 1.0 / (theta ** (torch.arange(0, h, 2, dtype=torch.int64).float() / h))

    return set_frequencies(change)


def rotary_output(change: Callable) -> Callable:
    """Changes cos and sin."""

    def apply(model: PreTrainedModel) -> None:
        model.model.rotary_emb.register_forward_hook(lambda module, inputs, output: change(*output))

    return apply


def shifted_positions(shift: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    def apply(model: PreTrainedModel) -> None:
        rotary = model.model.rotary_emb
        own = rotary.forward
        rotary.forward = lambda x, position_ids, **kw: own(x, position_ids=shift(position_ids), **kw)

    return apply


def neighbours(model: PreTrainedModel):
    def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        c, s = cos[..., :half].unsqueeze(1), sin[..., :half].unsqueeze(1)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * c - odd * s, odd * c + even * s), dim=-1).flatten(-2)

    return replaced(code(model), "apply_rotary_pos_emb",
                    lambda q, k, cos, sin, *args, **kw: (rotate(q, cos, sin), rotate(k, cos, sin)))


def eps(value: float, chosen: Callable = norms) -> Callable:
    def apply(model: PreTrainedModel) -> None:
        for norm in chosen(model):
            norm.variance_epsilon = value

    return apply


def norm_weight(change: Callable[[torch.Tensor], torch.Tensor], chosen: Callable = norms) -> Callable:
    def apply(model: PreTrainedModel) -> None:
        for norm in chosen(model):
            norm.weight.data = change(norm.weight.data)

    return apply


def half_norm(dtype: torch.dtype) -> Callable:
    def forward(self, x):
        quotient = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.weight.to(dtype) * quotient.to(dtype)).float()

    def apply(model: PreTrainedModel) -> None:
        for norm in norms(model):
            norm.forward = types.MethodType(forward, norm)

    return apply


def layer_norm(model: PreTrainedModel) -> None:
    def forward(self, x):
        x = x - x.mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    for norm in norms(model):
        norm.forward = types.MethodType(forward, norm)


def attention(change: Callable) -> Callable:
    """Wraps eager attention: change(own, module, query, key, value, mask, **kw)."""

    def apply(model: PreTrainedModel):
        own = code(model).eager_attention_forward
        return replaced(code(model), "eager_attention_forward",
                        lambda module, q, k, v, mask, **kw: change(own, module, q, k, v, mask, **kw))

    return apply


def windowed(width: int) -> Callable:
    def change(own, module, q, k, v, mask, **kw):
        n = k.shape[2]
        distance = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        seen = (distance >= 0) & (distance < width)
        mask = torch.zeros(n, n).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
        return own(module, q, k, v, mask, **kw)

    return attention(change)


def one_more(own, module, q, k, v, mask, **kw):
    """softmax_1, as a factor on the values' sum: Σ e^s / (1 + Σ e^s)."""
    out, pattern = own(module, q, k, v, mask, **kw)
    n_rep = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(n_rep, 1).transpose(2, 3) * module.scaling
    scores = scores + mask[..., : k.shape[2]] if mask is not None else scores
    factor = torch.sigmoid(torch.logsumexp(scores, dim=-1))  # [b,H,q]
    return out * factor.transpose(1, 2)[..., None], pattern


def grouped_modulo(model: PreTrainedModel):
    return replaced(code(model), "repeat_kv", lambda x, n: x.repeat(1, n, 1, 1))


def rounded_cache(own, module, q, k, v, mask, **kw):
    return own(module, q, k.half().float(), v.half().float(), mask, **kw)


def each_attention(change: Callable) -> Callable:
    def apply(model: PreTrainedModel) -> None:
        for block in blocks(model):
            change(block.self_attn)

    return apply


def interleave(linear: torch.nn.Linear, h: int, undo: bool) -> None:
    rows = linear.out_features
    order = torch.arange(rows).view(-1, 2, h // 2).transpose(1, 2).reshape(-1)
    order = torch.argsort(order) if undo else order
    linear.weight.data = linear.weight.data[order]
    if linear.bias is not None:
        linear.bias.data = linear.bias.data[order]


def permuted(q: bool, k: bool, undo: bool) -> Callable:
    def change(a: torch.nn.Module) -> None:
        for chosen, linear in ((q, a.q_proj), (k, a.k_proj)):
            if chosen:
                interleave(linear, a.head_dim, undo)

    return each_attention(change)


def transpose_q(a: torch.nn.Module) -> None:
    a.q_proj.weight.data = a.q_proj.weight.data.t().contiguous()


def no_scale(a: torch.nn.Module) -> None:
    a.scaling = 1.0


def scale_by_dim(a: torch.nn.Module) -> None:
    a.scaling = 1.0 / a.head_dim


def swap_gate_up(model: PreTrainedModel) -> None:
    for block in blocks(model):
        mlp = block.mlp
        mlp.gate_proj.weight.data, mlp.up_proj.weight.data = mlp.up_proj.weight.data, mlp.gate_proj.weight.data
        if mlp.gate_proj.bias is not None:
            mlp.gate_proj.bias.data, mlp.up_proj.bias.data = mlp.up_proj.bias.data, mlp.gate_proj.bias.data


def silu_on_up(model: PreTrainedModel) -> None:
    def forward(self, x):
        return self.down_proj(self.gate_proj(x) * self.act_fn(self.up_proj(x)))

    for block in blocks(model):
        block.mlp.forward = types.MethodType(forward, block.mlp)


class Activation(torch.nn.Module):
    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.forward = function


def activation(function: Callable, only: int | None = None) -> Callable:
    def apply(model: PreTrainedModel) -> None:
        for index, block in enumerate(blocks(model)):
            if only in (None, index):
                block.mlp.act_fn = Activation(function)

    return apply


def no_bias(model: PreTrainedModel) -> None:
    for block in blocks(model):
        for linear in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            linear.bias.data.zero_()


def other_output(model: PreTrainedModel) -> None:
    """A tied output gets weights of its own; an untied one is tied."""
    table = model.model.embed_tokens.weight.data
    if model.config.tie_word_embeddings:
        torch.manual_seed(5)
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(table) * table.std())
    else:
        model.lm_head.weight = torch.nn.Parameter(table.clone())


def scaled_embedding(model: PreTrainedModel) -> None:
    model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: output * math.sqrt(model.config.hidden_size))


def patch(layer: int, neurons: list[int], at_zero: bool = False, source: int = 1, gate: bool = False) -> Callable:
    def apply(model: PreTrainedModel) -> None:
        def pin(module, inputs, x):
            x = x.clone()
            x[:, (0 if at_zero else 1):, neurons] = x[:, source : source + 1, neurons]
            return x

        mlp = blocks(model)[layer].mlp
        (mlp.gate_proj if gate else mlp.up_proj).register_forward_hook(pin)

    return apply


# -------------------------------------------------------------------------------------- the faults


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


# -------------------------------------------------------------------------------------- the verdict


def verify(path: Path, trace: Path, arguments: list[str]) -> tuple[int, dict]:
    command = [SINKREF, "verify", "--model", path, "--candidate", trace, "--json", *arguments]
    # Threads that wait must not spin: PyTorch's hold the cores.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr}")
    return done.returncode, json.loads(done.stdout)


def seed(original: PreTrainedModel, fault: Fault, trace: Path) -> None:
    model = copy.deepcopy(original)
    context = fault.apply(model)
    with context if hasattr(context, "__enter__") else nullcontext():
        capture(model, fault.tokens, trace, fault.hooks, metadata=fault.metadata)


def run(path: Path, scratch: Path, only: str) -> list[tuple[bool, bool, bool, bool]]:
    """Per fault: detected, first tensor right, named right, wrong name as certain."""
    original = hf_runs.load(path)
    results = []
    for fault in faults_of(original):
        if only not in fault.name:
            continue
        trace = scratch / "theirs.safetensors"
        seed(original, fault, trace)
        exit_code, report = verify(path, trace, fault.arguments)
        first = (report["first"] or {}).get("tensor")
        named = [(d["fault"], d["certainty"]) for d in report["diagnosis"]]
        detected = exit_code == 1 and report["verdict"] == "differ"
        right = bool(named) and named[0][0] == fault.slug
        wrong = any(name != fault.slug and certainty == "certain" for name, certainty in named)
        results.append((detected, first == fault.first, right, wrong))
        mark = "ok  " if all((detected, first == fault.first, right, not wrong)) else "BAD "
        print(f"{mark} {path.name:14} {fault.name:30} first {first} named {named}", flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny_llama1,tiny_llama2,tiny_llama3,tiny_mistral")
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    args = parser.parse_args()
    paths = [OUTPUTS / name for name in args.models.split(",") if name]
    if args.smollm2:
        paths.append(SMOLLM2)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in paths:
            results += run(path, Path(scratch), args.only)
    detected, first, named, wrong = (sum(column) for column in zip(*results))
    n = len(results)
    print(f"{n} faults: {detected} detected, {first} at the right tensor, {named} named right, "
          f"{wrong} named wrongly as certain")
    return 0 if n and detected == n and first == n and named >= 0.8 * n and wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
