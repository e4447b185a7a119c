"""Which part of the model writes a logit, a norm or an attention score, and the logit lens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, List, Tuple, TYPE_CHECKING

import numpy as np

from ._cache import ActivationCache
from ._errors import InputError
from ._interventions import Intervention, Interventions, changed_hooks
from ._library import check, lib, two_of
from ._run import Positions, kept_positions, one_prompt

if TYPE_CHECKING:
    from ._model import Model


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each part adds to `total`, in float64.

    values, labels   one number and name a part: "embed", "0.attn", "0.head.3", "0.mlp", "0.neuron.17", "0.bias"
    total            what the engine computed
    bound            the engine's rounding can make no more than this of total - sum(values)
    """

    values: np.ndarray
    labels: Tuple[str, ...]
    total: float
    bound: float

    @property
    def remainder(self) -> float:
        """What rounding has made of the sum."""
        return self.total - float(self.values.sum())

    def top(self, count: int = 10) -> List[Tuple[str, float]]:
        """The parts that add or take most."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:count]
        return [(self.labels[i], float(self.values[i])) for i in order]


class _Parts:
    """The parts of a residual stream at one position, each projected on a direction."""

    def __init__(self, model: "Model", cache: ActivationCache, by: str, direction: np.ndarray) -> None:
        self.model, self.cache, self.by, self.d = model, cache, by, direction
        self.unit = 2.0 ** (-53 if model._fp64 else -24)
        self.values: List[np.ndarray] = []
        self.labels: List[str] = []
        self.bound = 0.0
        self.magnitude = 0.0  # of all terms: what numpy's own sums may be off by

    def at(self, name: str, layer: int) -> np.ndarray:
        return self.cache[name, layer][0, 0].astype(np.float64)

    def add(self, labels: List[str], values: Any, magnitude: float) -> None:
        self.labels += labels
        self.values.append(np.atleast_1d(np.asarray(values, np.float64)))
        self.magnitude += magnitude

    def product(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Each x[i]·W[i]·d, where out = x W + bias is a product of the engine. x (n), w (n, d_model)."""
        terms = x * (w.astype(np.float64) @ self.d)
        absolute = float(np.abs(x) @ (np.abs(w).astype(np.float64) @ np.abs(self.d)))
        k = lib.sinkref_chain_roundings(len(x)) * self.unit
        self.bound += k / (1 - k) * absolute
        if bias.any():
            self.bound += self.unit * float(np.abs(out) @ np.abs(self.d))
        self.magnitude += absolute
        return terms

    def bias(self, layer: int, what: str, bias: np.ndarray) -> None:
        if bias.any():
            b = bias.astype(np.float64)
            self.add([f"{layer}.{what}.bias"], b @ self.d, float(np.abs(b) @ np.abs(self.d)))

    def written(self, layer: int, stream: str) -> None:
        """One addition to the residual stream."""
        self.bound += self.unit * float(np.abs(self.at(stream, layer)) @ np.abs(self.d))

    def run(self, layers: int) -> None:
        m, c = self.model, self.model.cfg
        embed = self.cache["hook_embed"][0, 0].astype(np.float64)
        self.add(["embed"], embed @ self.d, float(np.abs(embed) @ np.abs(self.d)))
        for layer in range(layers):
            out = self.at("attn_out", layer)
            if self.by == "layer":
                self.add([f"{layer}.attn"], out @ self.d, float(np.abs(out) @ np.abs(self.d)))
            else:
                z, w, b = self.at("z", layer).reshape(-1), m.W_O[layer].reshape(-1, c.d_model), m.b_O[layer]
                terms = self.product(z, w, b, out).reshape(c.n_heads, c.d_head).sum(1)
                self.add([f"{layer}.head.{h}" for h in range(c.n_heads)], terms, 0)
                self.bias(layer, "attn", b)
            self.written(layer, "resid_mid")
            out = self.at("mlp_out", layer)
            if self.by == "neuron":
                b = m.b_out[layer]
                self.add([f"{layer}.neuron.{i}" for i in range(c.d_mlp)],
                         self.product(self.at("post", layer), m.W_out[layer], b, out), 0)
                self.bias(layer, "mlp", b)
            else:
                self.add([f"{layer}.mlp"], out @ self.d, float(np.abs(out) @ np.abs(self.d)))
            self.written(layer, "resid_post")

    def result(self, total: float) -> Attribution:
        values = np.concatenate(self.values)
        own = (len(values) + self.model.cfg.d_model) * 2.0 ** -53 * self.magnitude
        return Attribution(values, tuple(self.labels), total, self.bound + 2 * own)


def _accounted(model: "Model", length: int, position: int, by: str, interventions: Interventions) -> None:
    """Refuses a change, at the position that is split, of what the parts add up to: no part has it."""
    sums = ["hook_resid_pre", "hook_resid_mid", "hook_resid_post", "ln_final.hook_scale", "ln_final.hook_normalized",
            "logits"]
    sums += {"layer": [], "head": ["hook_attn_out"], "neuron": ["hook_attn_out", "hook_mlp_out"]}[by]
    for name in changed_hooks(model, length, position, interventions):
        if name.endswith(tuple(sums)):
            raise InputError(f"interventions: {name} is changed at position {position}, which no part of a split by "
                             f"{by!r} has; expected other hooks than {', '.join(sums)}, or other positions")


def _cache(model: "Model", tokens: Any, by: str, layers: int, position: int, more: List[str],
           interventions: Interventions) -> ActivationCache:
    if by not in ("layer", "head", "neuron"):
        raise InputError(f'by: found {by!r}, expected "layer", "head" or "neuron"')
    ids = one_prompt(model, tokens, "tokens")
    if not isinstance(interventions, (str, Intervention)) and hasattr(interventions, "__iter__"):
        interventions = list(interventions)  # which are read twice
    if isinstance(position, bool) or not isinstance(position, (int, np.integer)):
        raise InputError(f"position: found {position!r}, expected one")
    kept = kept_positions(int(position), len(ids))
    assert kept is not None
    _accounted(model, len(ids), int(kept[0]), by, interventions)
    ends = ["hook_attn_out", "hook_mlp_out", "hook_resid_mid", "hook_resid_post"]
    ends += ["attn.hook_z"] if by != "layer" else []
    ends += ["mlp.hook_post"] if by == "neuron" else []
    names = ["hook_embed", *more] + [f"blocks.{layer}.{end}" for layer in range(layers) for end in ends]
    return model.run_with_cache(ids, names, int(kept[0]), logits=False, interventions=interventions)[1]


def attribute_logit(model: "Model", tokens: Any, token: int, position: int = -1, by: str = "head",
                    interventions: Interventions = ()) -> Attribution:
    c = model.cfg
    if isinstance(token, bool) or not isinstance(token, (int, np.integer)) or not 0 <= token < c.d_vocab:
        raise InputError(f"token: found {token!r}, expected an id from 0 to {c.d_vocab - 1}")
    cache = _cache(model, tokens, by, c.n_layers, position, ["ln_final.hook_scale", "logits"], interventions)
    scale = float(cache["ln_final.hook_scale"][0, 0, 0])
    direction = model.ln_final_w.astype(np.float64) * model.W_U[:, token].astype(np.float64) / scale
    parts = _Parts(model, cache, by, direction)
    parts.run(c.n_layers)
    # Divided by the scale, multiplied by the weight, then a chain.
    k = (2 + lib.sinkref_chain_roundings(c.d_model)) * parts.unit
    last = np.abs(cache["resid_post", c.n_layers - 1][0, 0].astype(np.float64))
    parts.bound += k / (1 - k) * float(last @ np.abs(direction))
    return parts.result(float(cache["logits"][0, 0, token]))


def attribute_norm(model: "Model", tokens: Any, layer: int, position: int = -1, by: str = "head",
                   interventions: Interventions = ()) -> Attribution:
    n = model.cfg.n_layers
    if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)) or not -n <= layer < n:
        raise InputError(f"layer: found {layer!r}, expected 0 to {n - 1}")
    layer = int(layer) % n
    cache = _cache(model, tokens, by, layer + 1, position, [], interventions)
    stream = cache["resid_post", layer][0, 0].astype(np.float64)
    norm = float(np.linalg.norm(stream))
    if norm == 0:
        raise InputError(f"attribute_norm: the norm after layer {layer} is 0, expected a stream that has a direction")
    parts = _Parts(model, cache, by, stream / norm)
    parts.run(layer + 1)
    return parts.result(norm)


def lens(model: "Model", tokens: Any, positions: Positions = None) -> np.ndarray:
    ids = one_prompt(model, tokens, "tokens")
    kept = kept_positions(slice(None) if positions is None else positions, len(ids))
    assert kept is not None
    logits = np.empty((model.cfg.n_layers, len(kept), model.cfg.d_vocab), model._dtype)
    check(lib.sinkref_lens(model._handle.value, ids.ctypes.data, len(ids), kept.ctypes.data, len(kept),
                           logits.ctypes.data))
    return logits


@dataclass(frozen=True, eq=False)
class ScoreAttribution:
    """What each pair of writers adds to an attention score, in float64.

    values        [query writer, key writer]
    query_labels, key_labels   "embed", "0.head.3" or "0.attn", "0.mlp", "0.attn.bias" (of W_O), "bias" (of W_Q or W_K)
    total         the score as the engine computed it: q·k / sqrt(d_head)
    bound         the engine's rounding can make no more than this of total - sum(values)
    """

    values: np.ndarray
    query_labels: Tuple[str, ...]
    key_labels: Tuple[str, ...]
    total: float
    bound: float

    @property
    def remainder(self) -> float:
        """What rounding has made of the sum."""
        return self.total - float(self.values.sum())

    @property
    def by_query(self) -> np.ndarray:
        """[query writer]: what each adds against the whole key."""
        return self.values.sum(1)

    @property
    def by_key(self) -> np.ndarray:
        """[key writer]: what each adds against the whole query."""
        return self.values.sum(0)

    def top(self, count: int = 10) -> List[Tuple[str, str, float]]:
        """The pairs that add or take most."""
        order = np.argsort(-np.abs(self.values), axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, self.values.shape)
        return [(self.query_labels[i], self.key_labels[j], float(self.values[i, j])) for i, j in zip(rows, columns)]


def attribute_score(model: "Model", tokens: Any, layer: int, head: int, query: int = -1, key: int = 0, by: str = "head"
                    ) -> ScoreAttribution:
    if by not in ("layer", "head"):
        raise InputError(f'by: found {by!r}, expected "layer" or "head"')
    ids = one_prompt(model, tokens, "tokens")
    numbers = []
    for name, number, limit in (("layer", layer, model.cfg.n_layers), ("head", head, model.cfg.n_heads),
                                ("query", query, len(ids)), ("key", key, len(ids))):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not -limit <= number < limit:
            raise InputError(f"{name}: found {number!r}, expected {-limit} to {limit - 1}")
        numbers.append(int(number) % limit)
    about, values = two_of(lib.sinkref_attribute_score, model._handle.value, ids.ctypes.data, len(ids), *numbers,
                           by == "head")
    found = json.loads(about)
    queries, keys = tuple(found["query_labels"]), tuple(found["key_labels"])
    return ScoreAttribution(np.frombuffer(values, np.float64).reshape(len(queries), len(keys)).copy(), queries, keys,
                            found["score"], found["bound"])
