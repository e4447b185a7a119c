"""Weights as arrays, widened to fp32 when they are asked for, in TransformerLens's orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, Iterator, Tuple

import numpy as np

from ._errors import InputError
from ._library import check, lib

if TYPE_CHECKING:
    from ._library import Handle
    from ._model import Config


class PerLayer:
    """`model.W_O[layer]`: read when it is asked for, kept nowhere."""

    def __init__(self, layers: int, get: Callable[[int], np.ndarray]) -> None:
        self._layers = layers
        self._get = get

    def __len__(self) -> int:
        return self._layers

    def __getitem__(self, layer: int) -> np.ndarray:
        if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)) or not (
                -self._layers <= layer < self._layers):
            raise IndexError(f"there is no layer {layer!r}; expected {-self._layers} to {self._layers - 1}")
        return self._get(int(layer) % self._layers)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._get(layer) for layer in range(self._layers))


class Weights:
    """The weights of a model: fp32, [in, out] as x @ W has it. Each access is a new array."""

    _handle: "Handle"
    config: "Config"
    tensors: Dict[str, Tuple[int, ...]]

    def weight(self, name: str) -> np.ndarray:
        """A tensor as the checkpoint has it, under its Hugging Face name: a matrix is [out, in]."""
        if not isinstance(name, str) or name not in self.tensors:
            raise InputError(f"weight: there is no tensor {name!r}, expected one of Model.tensors")
        values = np.empty(self.tensors[name], np.float32)
        check(lib.sinkref_weight(self._handle.value, name.encode(), values.ctypes.data))
        return values

    @property
    def W_E(self) -> np.ndarray:
        """[d_vocab, d_model]"""
        return self.weight("model.embed_tokens.weight")

    @property
    def W_U(self) -> np.ndarray:
        """[d_model, d_vocab]"""
        tied = self.config.tied_output
        return self.weight("model.embed_tokens.weight" if tied else "lm_head.weight").T

    @property
    def ln_final_w(self) -> np.ndarray:
        """[d_model]"""
        return self.weight("model.norm.weight")

    def _of_layer(self, part: str, shaped: Callable[[np.ndarray], np.ndarray] = lambda w: w) -> PerLayer:
        return PerLayer(self.config.n_layers, lambda layer: shaped(self.weight(f"model.layers.{layer}.{part}")))

    def _heads_in(self, part: str, heads: int) -> PerLayer:
        c = self.config
        return self._of_layer(part, lambda w: w.reshape(heads, c.d_head, c.d_model).transpose(0, 2, 1))

    def _bias(self, part: str, *shape: int) -> PerLayer:
        """0 where the model has none."""
        def get(layer: int) -> np.ndarray:
            name = f"model.layers.{layer}.{part}.bias"
            return self.weight(name).reshape(shape) if name in self.tensors else np.zeros(shape, np.float32)
        return PerLayer(self.config.n_layers, get)

    @property
    def W_Q(self) -> PerLayer:
        """[n_heads, d_model, d_head] of a layer"""
        return self._heads_in("self_attn.q_proj.weight", self.config.n_heads)

    @property
    def W_K(self) -> PerLayer:
        """[n_key_value_heads, d_model, d_head] of a layer"""
        return self._heads_in("self_attn.k_proj.weight", self.config.n_key_value_heads)

    @property
    def W_V(self) -> PerLayer:
        """[n_key_value_heads, d_model, d_head] of a layer"""
        return self._heads_in("self_attn.v_proj.weight", self.config.n_key_value_heads)

    @property
    def W_O(self) -> PerLayer:
        """[n_heads, d_head, d_model] of a layer"""
        c = self.config
        return self._of_layer("self_attn.o_proj.weight", lambda w: w.T.reshape(c.n_heads, c.d_head, c.d_model))

    @property
    def W_gate(self) -> PerLayer:
        """[d_model, d_mlp] of a layer: what gives hook_pre"""
        return self._of_layer("mlp.gate_proj.weight", np.transpose)

    @property
    def W_in(self) -> PerLayer:
        """[d_model, d_mlp] of a layer, up_proj: what gives hook_pre_linear"""
        return self._of_layer("mlp.up_proj.weight", np.transpose)

    @property
    def W_out(self) -> PerLayer:
        """[d_mlp, d_model] of a layer, down_proj"""
        return self._of_layer("mlp.down_proj.weight", np.transpose)

    @property
    def b_Q(self) -> PerLayer:
        """[n_heads, d_head] of a layer; 0 where there is none, as for the other biases"""
        return self._bias("self_attn.q_proj", self.config.n_heads, self.config.d_head)

    @property
    def b_K(self) -> PerLayer:
        """[n_key_value_heads, d_head] of a layer"""
        return self._bias("self_attn.k_proj", self.config.n_key_value_heads, self.config.d_head)

    @property
    def b_V(self) -> PerLayer:
        """[n_key_value_heads, d_head] of a layer"""
        return self._bias("self_attn.v_proj", self.config.n_key_value_heads, self.config.d_head)

    @property
    def b_O(self) -> PerLayer:
        """[d_model] of a layer"""
        return self._bias("self_attn.o_proj", self.config.d_model)

    @property
    def b_gate(self) -> PerLayer:
        """[d_mlp] of a layer"""
        return self._bias("mlp.gate_proj", self.config.d_mlp)

    @property
    def b_in(self) -> PerLayer:
        """[d_mlp] of a layer"""
        return self._bias("mlp.up_proj", self.config.d_mlp)

    @property
    def b_out(self) -> PerLayer:
        """[d_model] of a layer"""
        return self._bias("mlp.down_proj", self.config.d_model)

    @property
    def ln1_w(self) -> PerLayer:
        """[d_model] of a layer"""
        return self._of_layer("input_layernorm.weight")

    @property
    def ln2_w(self) -> PerLayer:
        """[d_model] of a layer"""
        return self._of_layer("post_attention_layernorm.weight")
