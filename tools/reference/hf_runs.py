"""Hugging Face's own LLaMA/Mistral code, run so that it can serve as a reference.

`load` gives the fp32 model; `exact` the same model in true float64; `permuted` the same model with
its hidden units in another order. `Recorder` watches a forward pass and keeps what the modules
compute under TransformerLens's names. `Patch` pins the sink neurons as the paper's code does.
Nothing here computes a layer: the numbers are those of Hugging Face's modules.
"""

from __future__ import annotations

import copy
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from weights_hash import checkpoint_sha256, used_tensors, weights_sha256

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class UserError(Exception):
    """Bad input: the message is all the user needs to see."""


# ---------------------------------------------------------------------------------- the models


def source(path: Path) -> dict[str, Path | str]:
    """How transformers is told of a Hugging Face folder or a .gguf file."""
    if path.suffix == ".gguf":
        return dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
    return dict(pretrained_model_name_or_path=path)


def tokenizer(path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(**source(path))


def load(path: Path) -> PreTrainedModel:
    """The fp32 model of a Hugging Face folder or .gguf file, with eager attention."""
    if not path.exists():
        raise UserError(f"{path}: no such folder or .gguf file")
    try:
        model = AutoModelForCausalLM.from_pretrained(**source(path), dtype=torch.float32, attn_implementation="eager")
    except Exception as error:  # transformers has no common type for what it refuses
        raise UserError(f"{path}: transformers refuses it: {' '.join(str(error).split())}") from error
    if model.config.model_type not in ("llama", "mistral"):
        raise UserError(f"{path}: model_type {model.config.model_type}, expected llama or mistral")
    return model.eval().requires_grad_(False)


def narrowed(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model in `dtype` as from_pretrained makes it. `.to(dtype)` alone would round RoPE's frequencies too."""
    rotary = model.model.rotary_emb
    frequencies = rotary.inv_freq
    model.to(dtype)
    rotary.inv_freq = frequencies
    return model


def model_sha256(model: PreTrainedModel) -> str:
    """The weights' fingerprint as the loaded fp32 model holds them (weights_hash.py)."""
    state = model.state_dict()
    names = used_tensors(state, model.config.tie_word_embeddings)
    return weights_sha256((name, state[name].numpy()) for name in names)


def require_same_weights(model: PreTrainedModel, path: Path) -> str:
    """The fingerprint; refuses a model whose weights are not those of the file, read independently."""
    loaded, stored = model_sha256(model), checkpoint_sha256(path)
    if loaded != stored:
        raise UserError(f"{path}: transformers loaded other weights ({loaded}) than the file holds ({stored})")
    return loaded


def exact_rms_norm(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """LlamaRMSNorm.forward without its two casts. x: [b,p,d] float64."""
    variance = x.pow(2).mean(-1, keepdim=True)
    return self.weight * (x * torch.rsqrt(variance + self.variance_epsilon))


def exact(model: PreTrainedModel) -> PreTrainedModel:
    """A true float64 copy. dtype=float64 alone leaves RMSNorm and the softmax in fp32.

    The softmax is widened by `Numbers`. cos and sin stay Hugging Face's fp32 tables, widened: they
    belong to the model, and its rotary module computes them in fp32 whatever the model's dtype.
    """
    twin = copy.deepcopy(model).double()
    for module in twin.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = types.MethodType(exact_rms_norm, module)
    return twin


@dataclass
class Order:
    """How `permuted` reordered the hidden units: new index i holds old unit order[i]."""

    residual: torch.Tensor  # [d]
    neurons: list[torch.Tensor]  # per layer, [m]


def permuted(model: PreTrainedModel, seed: int) -> tuple[PreTrainedModel, Order]:
    """The same function with its sums in another order: residual channels and MLP neurons shuffled."""
    random = np.random.default_rng(seed)
    c = model.config
    order = Order(
        torch.from_numpy(random.permutation(c.hidden_size)),
        [torch.from_numpy(random.permutation(c.intermediate_size)) for _ in range(c.num_hidden_layers)],
    )
    twin = copy.deepcopy(model)
    for name, parameter in twin.named_parameters():  # a tied lm_head comes up once
        rows, columns = axes_to_permute(name, order)
        if rows is not None:
            parameter.data = parameter.data[rows]
        if columns is not None:
            parameter.data = parameter.data[:, columns]
    return twin, order


def axes_to_permute(name: str, order: Order) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The new order of a parameter's rows and of its columns; None for an axis that stays."""
    module = name.split(".")[-2]
    layer = re.search(r"layers\.(\d+)\.", name)
    neurons = order.neurons[int(layer[1])] if layer else None
    rows, columns = {
        "embed_tokens": (None, order.residual),
        "lm_head": (None, order.residual),
        "q_proj": (None, order.residual),
        "k_proj": (None, order.residual),
        "v_proj": (None, order.residual),
        "o_proj": (order.residual, None),
        "gate_proj": (neurons, order.residual),
        "up_proj": (neurons, order.residual),
        "down_proj": (order.residual, neurons),
    }.get(module, (order.residual, None))  # else a norm
    return rows, columns if name.endswith("weight") else None


# ----------------------------------------------------------------------------------- the patch


@dataclass(frozen=True)
class PatchSpec:
    layer: int
    neurons: tuple[int, ...]

    @staticmethod
    def parse(text: str) -> PatchSpec:
        if not re.fullmatch(r"\d+:\d+(,\d+)*", text):
            raise UserError(f"--patch {text}: expected LAYER:N1,N2, for example 1:7890,10411")
        layer, neurons = text.split(":")
        return PatchSpec(int(layer), tuple(map(int, neurons.split(","))))

    def check(self, model: PreTrainedModel) -> None:
        c = model.config
        if self.layer >= c.num_hidden_layers or max(self.neurons) >= c.intermediate_size:
            raise UserError(
                f"--patch {self}: the model has {c.num_hidden_layers} layers of {c.intermediate_size} neurons"
            )

    def __str__(self) -> str:
        return f"{self.layer}:{','.join(map(str, self.neurons))}"


class Patch:
    """The paper's patch, a forward hook on up_proj whose output is x [b, tokens, neurons].

    Prefill keeps v = x[:, 1, n] and sets x[:, 1:, n] = v; each decode step sets x[:, 0, n] = v. A prompt
    of one token has no position 1, so nothing is kept or pinned. A prompt that is itself fed one
    token at a time is treated as the same prompt at once: the rule goes by absolute position.
    """

    def __init__(self, spec: PatchSpec, prompt_length: int, order: Order | None) -> None:
        columns = torch.tensor(spec.neurons)
        if order is not None:
            columns = torch.argsort(order.neurons[spec.layer])[columns]
        self.columns = columns
        self.active = prompt_length > 1
        self.position = 0
        self.pinned: torch.Tensor | None = None

    def __call__(self, module: torch.nn.Module, inputs: tuple, x: torch.Tensor) -> torch.Tensor:
        start, self.position = self.position, self.position + x.shape[1]
        if not self.active or self.position < 2:
            return x
        first = max(1 - start, 0)
        if self.pinned is None:
            self.pinned = x[:, first : first + 1, self.columns].clone()
        x = x.clone()
        x[:, first:, self.columns] = self.pinned
        return x


@contextmanager
def patched(model: PreTrainedModel, spec: PatchSpec | None, prompt_length: int, order: Order | None) -> Iterator[None]:
    """Applies the patch, if there is one, to every forward pass of one sequence."""
    if spec is None:
        yield
        return
    up = model.model.layers[spec.layer].mlp.up_proj
    handle = up.register_forward_hook(Patch(spec, prompt_length, order))
    try:
        yield
    finally:
        handle.remove()


# -------------------------------------------------------------------------------- the recorder


class Numbers(TorchFunctionMode):
    """Sees the two numbers that no module hands out: what goes into rsqrt and into the softmax.

    It also keeps the softmax of a float64 model in float64: Hugging Face asks for fp32 by name.
    """

    def __init__(self, on_softmax: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        super().__init__()
        self.on_softmax = on_softmax
        self.mean_square: torch.Tensor | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is F.softmax:
            if args[0].dtype == torch.float64:
                kwargs["dtype"] = torch.float64
            out = func(*args, **kwargs)
            self.on_softmax(args[0], out)
            return out
        if func is torch.rsqrt:
            self.mean_square = args[0]
        return func(*args, **kwargs)


RESIDUAL = re.compile(r"hook_embed|.*\.hook_(resid_\w+|attn_out|mlp_out)|.*ln\w*\.hook_normalized")
NEURONS = re.compile(r"blocks\.(\d+)\.mlp\.hook_(pre|pre_linear|post)")
NORMED = re.compile(r"blocks\.\d+\.hook_(resid_post|attn_out|mlp_out)")


class Recorder:
    """Keeps the wanted activations of one sequence, fed in one or several forward passes.

    `NAME.norm` [b,p] (float64 L2 norms of the rows) is offered for resid_post, attn_out and mlp_out.
    Only the rows at `positions` of the other tensors are kept.
    """

    def __init__(self, model: PreTrainedModel, wants: Callable[[str], bool], length: int,
                 positions: list[int], order: Order | None = None) -> None:
        self.model, self.wants, self.length, self.positions = model, wants, length, positions
        self.order = order
        self.pieces: dict[str, list[np.ndarray]] = {}
        self.start = self.end = 0  # the positions of the pass under way
        self.layer = 0  # whose attention is under way
        self.numbers = Numbers(self.on_softmax)

    def keep(self, name: str, x: torch.Tensor, axis: int = 1) -> None:
        """x has the positions of the pass under way along `axis`."""
        if self.wants(name):
            rows = [p - self.start for p in self.positions if self.start <= p < self.end]
            if rows:
                self.append(name, self.original_order(name, x.index_select(axis, torch.tensor(rows))))
        if NORMED.fullmatch(name) and self.wants(f"{name}.norm"):
            self.append(f"{name}.norm", torch.linalg.vector_norm(x.double(), dim=-1))

    def append(self, name: str, x: torch.Tensor) -> None:
        self.pieces.setdefault(name, []).append(x.numpy().copy())

    def original_order(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if self.order is None:
            return x
        if RESIDUAL.fullmatch(name):
            return x[..., torch.argsort(self.order.residual)]
        if match := NEURONS.fullmatch(name):
            return x[..., torch.argsort(self.order.neurons[int(match[1])])]
        return x

    def on_softmax(self, scores: torch.Tensor, pattern: torch.Tensor) -> None:
        """scores, pattern: [b,H,q,k]; the k keys are the last ones up to the end of this pass."""
        masked = scores <= torch.finfo(scores.dtype).min / 2
        before, after = self.end - scores.shape[-1], self.length - self.end
        if self.wants(f"blocks.{self.layer}.attn.hook_attn_scores"):
            scores = F.pad(scores.masked_fill(masked, -torch.inf), (before, after), value=-torch.inf)
            self.keep(f"blocks.{self.layer}.attn.hook_attn_scores", scores, axis=2)
        self.keep(f"blocks.{self.layer}.attn.hook_pattern", F.pad(pattern, (before, after)), axis=2)

    def attention(self, kind: str) -> Callable:
        """Hugging Face's attention function, preceded by a look at the rotated queries and keys."""
        own = ALL_ATTENTION_FUNCTIONS["sdpa"] if kind == "sdpa" else sys.modules[
            type(self.model).__module__].eager_attention_forward

        def recorded(module, query, key, value, *args, **kwargs):
            """query: [b,H,q,h]; key, value: [b,K,k,h], the cached ones first."""
            self.layer = module.layer_idx
            self.keep(f"blocks.{self.layer}.attn.hook_rot_q", query.transpose(1, 2))
            self.keep(f"blocks.{self.layer}.attn.hook_rot_k", key[:, :, -query.shape[2]:].transpose(1, 2))
            return own(module, query, key, value, *args, **kwargs)

        return recorded

    def on_output(self, name: str, heads: int | None = None) -> Callable:
        """A forward hook that keeps a module's output, split into heads if told so."""

        def hook(module, inputs, output):
            self.keep(name, output if heads is None else output.unflatten(-1, (heads, -1)))

        return hook

    def on_input(self, name: str, heads: int | None = None) -> Callable:
        """A forward pre-hook that keeps a module's input, split into heads if told so."""

        def hook(module, inputs):
            self.keep(name, inputs[0] if heads is None else inputs[0].unflatten(-1, (heads, -1)))

        return hook

    def on_norm(self, name: str) -> Callable:
        """Scale and normalized value, before the weight, from the number Hugging Face put into rsqrt."""

        def hook(module, inputs, output):
            mean_square = self.numbers.mean_square
            self.keep(f"{name}.hook_scale", mean_square.sqrt())
            self.keep(f"{name}.hook_normalized", inputs[0].to(mean_square.dtype) * torch.rsqrt(mean_square))

        return hook

    def begin_pass(self, module: torch.nn.Module, inputs: tuple) -> None:
        self.start, self.end = self.end, self.end + inputs[0].shape[1]

    def hook_block(self, index: int, block: torch.nn.Module) -> list:
        c, name, attn, mlp = self.model.config, f"blocks.{index}", block.self_attn, block.mlp
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        return [
            block.register_forward_pre_hook(self.on_input(f"{name}.hook_resid_pre")),
            block.input_layernorm.register_forward_hook(self.on_norm(f"{name}.ln1")),
            attn.q_proj.register_forward_hook(self.on_output(f"{name}.attn.hook_q", heads)),
            attn.k_proj.register_forward_hook(self.on_output(f"{name}.attn.hook_k", kv_heads)),
            attn.v_proj.register_forward_hook(self.on_output(f"{name}.attn.hook_v", kv_heads)),
            attn.o_proj.register_forward_pre_hook(self.on_input(f"{name}.attn.hook_z", heads)),
            attn.o_proj.register_forward_hook(self.on_output(f"{name}.hook_attn_out")),
            block.post_attention_layernorm.register_forward_pre_hook(self.on_input(f"{name}.hook_resid_mid")),
            block.post_attention_layernorm.register_forward_hook(self.on_norm(f"{name}.ln2")),
            mlp.gate_proj.register_forward_hook(self.on_output(f"{name}.mlp.hook_pre")),
            mlp.up_proj.register_forward_hook(self.on_output(f"{name}.mlp.hook_pre_linear")),
            mlp.down_proj.register_forward_pre_hook(self.on_input(f"{name}.mlp.hook_post")),
            mlp.register_forward_hook(self.on_output(f"{name}.hook_mlp_out")),
            block.register_forward_hook(self.on_output(f"{name}.hook_resid_post")),
        ]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Everything the model computes inside is recorded; hooks of a patch must be there already."""
        model = self.model.model
        handles = [
            model.embed_tokens.register_forward_pre_hook(self.begin_pass),
            model.embed_tokens.register_forward_hook(self.on_output("hook_embed")),
            model.norm.register_forward_hook(self.on_norm("ln_final")),
            self.model.lm_head.register_forward_hook(self.on_output("logits")),
        ]
        for index, block in enumerate(model.layers):
            handles += self.hook_block(index, block)
        kind = self.model.config._attn_implementation
        with ExitStack() as stack:
            for handle in handles:
                stack.callback(handle.remove)
            stack.enter_context(replaced_attention(kind, self.attention(kind)))
            stack.enter_context(self.numbers)
            yield

    def tensors(self) -> dict[str, np.ndarray]:
        """Every recorded tensor, its passes joined along the position axis."""
        joined = {}
        for name, pieces in self.pieces.items():
            axis = 2 if name.endswith(("hook_attn_scores", "hook_pattern")) else 1
            joined[name] = np.concatenate(pieces, axis=axis)
        return joined


@contextmanager
def replaced_attention(kind: str, function: Callable) -> Iterator[None]:
    """Registers `function` under the name of one of transformers' attention implementations."""
    ALL_ATTENTION_FUNCTIONS[kind] = function
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[kind]


# ------------------------------------------------------------------------------------ the runs


@dataclass(frozen=True)
class Request:
    """What to run and what to keep of it."""

    tokens: torch.Tensor  # [b,p] int64
    wants: Callable[[str], bool]
    positions: list[int]
    patch: PatchSpec | None = None


def record(model: PreTrainedModel, request: Request, attention: str = "eager", chunk: int | None = None,
           order: Order | None = None) -> dict[str, np.ndarray]:
    """One evaluation of the prompt, at once or in chunks with a cache, as {hook name: array}."""
    length = request.tokens.shape[1]
    recorder = Recorder(model, request.wants, length, request.positions, order)
    model.set_attn_implementation(attention)
    cache = DynamicCache(config=model.config) if chunk else None
    try:
        with torch.no_grad(), patched(model, request.patch, length, order), recorder.recording():
            for part in request.tokens.split(chunk or length, dim=1):
                model(part, past_key_values=cache, use_cache=chunk is not None)
    finally:
        model.set_attn_implementation("eager")
    return recorder.tensors()


def record_in_batch(model: PreTrainedModel, request: Request, copies: int) -> dict[str, np.ndarray]:
    """The prompt among copies of itself; the first of them is returned."""
    batch = request.tokens.shape[0]
    together = record(model, replace(request, tokens=request.tokens.repeat(copies, 1)))
    return {name: array[:batch] for name, array in together.items()}


def generate(model: PreTrainedModel, request: Request, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` greedy tokens [b,n] (eos does not stop it) and the gap top1 - top2 of each [b,n].

    Prefill and decode with a cache, as users run it. `Numbers` is active so that a float64 model
    stays one.
    """
    part, cache, tokens, gaps = request.tokens, DynamicCache(config=model.config), [], []
    with torch.no_grad(), patched(model, request.patch, part.shape[1], None), Numbers(lambda scores, pattern: None):
        for _ in range(count):
            logits = model(part, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
            best = logits.topk(2, dim=-1)
            part = logits.argmax(dim=-1, keepdim=True)
            tokens.append(part)
            gaps.append(best.values[:, :1] - best.values[:, 1:])
    return torch.cat(tokens, dim=1).numpy(), torch.cat(gaps, dim=1).numpy()
