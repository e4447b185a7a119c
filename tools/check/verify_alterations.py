"""Alterations of Hugging Face's own LLaMA and Mistral in memory, as porters' mistakes would have it.

Each is a function of a model, or gives one. What it returns may be a context manager, within which it holds.
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


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
