#!/usr/bin/env python3
"""Checks what `sinkref certify` wrote, with nothing of sinkref's: another reader of checkpoints, another text of
the model, and FLINT's balls from python-flint.

    build/venv/bin/python tools/check_certificate.py --model MODEL certificate.safetensors [--sample 10000]

1. The file is whole: the hash over its numbers and radii, and the model's weights, are those that it names.
2. The model is evaluated with balls of --bits more than the certificate had; every fp32 value (or --sample of them,
   drawn with --seed) must be the one nearest to the real number, which must lie between the two boundaries of its
   rounding. Values that the certificate lists as undecided are passed over, and counted.
3. A radius is a claim about its tensor's widest ball, whose place and centre the certificate names: the real number must lie
   no further from the centre. A radius below that is refused; one that these balls cannot tell from it is counted.
Exit: 0 the certificate holds, 1 it does not, 2 it could not be checked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import mmap
import os
import random
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on a busy machine its threads wait for one another most of the time

import numpy as np
from flint import arb, arb_mat, ctx

INFINITY = float("inf")


class Refused(Exception):
    """The certificate does not hold."""


class Unreadable(Exception):
    """It cannot be checked."""


# --- files -----------------------------------------------------------------------------------------------------------

def read_safetensors(path: Path) -> tuple[dict, dict[str, np.ndarray], bytes]:
    """__metadata__, the tensors and all bytes behind the header."""
    raw = path.read_bytes()
    if len(raw) < 8:
        raise Unreadable(f"{path} is too short for a safetensors file")
    size = struct.unpack_from("<Q", raw)[0]
    try:
        header = json.loads(raw[8:8 + size])
    except ValueError as error:
        raise Refused(f"{path}: the header is no JSON: {error}") from error
    data = raw[8 + size:]
    kinds = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "F16": "<f2", "BF16": "<u2"}
    metadata, tensors = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        tensors[name] = values
    return metadata, tensors, data


class Folder:
    """A Hugging Face folder."""

    def __init__(self, path: Path):
        c = json.loads((path / "config.json").read_text())
        rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        heads = c["num_attention_heads"]
        self.layers, self.heads = c["num_hidden_layers"], heads
        self.kv_heads = c.get("num_key_value_heads") or heads
        self.head_dim = c.get("head_dim") or c["hidden_size"] // heads
        self.eps = float(c["rms_norm_eps"])
        self.window = c.get("sliding_window")
        self.tied = c.get("tie_word_embeddings", False)
        self.theta = float(rope.get("rope_theta", c.get("rope_theta", 10000.0)))
        self.rope = {"default": None, "linear": rope, "llama3": rope}[kind]
        self.rope_divisors = None
        self.tensors: dict[str, np.ndarray] = {}
        for shard in sorted(path.glob("*.safetensors")):
            if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", shard.name):
                self.tensors |= read_safetensors(shard)[1]

    def weight(self, name: str) -> np.ndarray | None:
        values = self.tensors.get(name)
        return None if values is None else values.astype("<f4")


class Gguf:
    """A GGUF file of the llama architecture."""

    NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
             "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
             "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}

    def __init__(self, path: Path):
        with path.open("rb") as file:
            self.raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.at = 0
        magic, version, tensors, pairs = self.take("<IIQQ")
        if magic != 0x46554747 or version not in (2, 3):
            raise Unreadable(f"{path} is no GGUF file of version 2 or 3")
        fields = {self.text(): self.value(self.take("<I")[0]) for _ in range(pairs)}
        self.infos = {}
        for _ in range(tensors):
            name = self.text()
            shape = self.take("<" + "Q" * self.take("<I")[0])
            kind, offset = self.take("<IQ")
            self.infos[name] = (tuple(reversed(shape)), kind, offset)
        align = fields.get("general.alignment", 32)
        self.data = (self.at + align - 1) // align * align
        arch = fields["general.architecture"]
        get = lambda key, default=None: fields.get(f"{arch}.{key}", default)  # noqa: E731
        self.layers, self.heads = get("block_count"), get("attention.head_count")
        self.kv_heads = get("attention.head_count_kv", self.heads)
        self.head_dim = get("attention.key_length", get("embedding_length") // self.heads)
        self.eps = shortest_double(get("attention.layer_norm_rms_epsilon"))
        self.window = get("attention.sliding_window")
        self.theta = shortest_double(get("rope.freq_base", 10000.0))
        self.tied = "output.weight" not in self.infos
        self.rope = None
        self.rope_divisors = self.read("rope_freqs.weight") if "rope_freqs.weight" in self.infos else None

    def take(self, layout: str) -> tuple:
        values = struct.unpack_from(layout, self.raw, self.at)
        self.at += struct.calcsize(layout)
        return values

    def text(self) -> str:
        (size,) = self.take("<Q")
        self.at += size
        return self.raw[self.at - size:self.at].decode("utf-8", "replace")

    def value(self, kind: int):
        simple = "<B <b <H <h <I <i <f <?".split()
        if kind < 8:
            return self.take(simple[kind])[0]
        if kind == 8:
            return self.text()
        if kind == 9:
            of, count = self.take("<IQ")
            return [self.value(of) for _ in range(count)]
        return self.take({10: "<Q", 11: "<q", 12: "<d"}[kind])[0]

    def read(self, name: str) -> np.ndarray:
        shape, kind, offset = self.infos[name]
        count = math.prod(shape)
        block, size = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 30: (1, 2)}.get(kind, (0, 0))
        if not block:
            raise Unreadable(f"{name} is of ggml type {kind}, which this checker does not read")
        begin = self.data + offset
        raw = np.frombuffer(self.raw[begin:begin + count // block * size], np.uint8).reshape(-1, size)
        half = lambda column: raw[:, column:column + 2].copy().view("<f2").astype("<f4")  # noqa: E731
        if kind == 0:
            values = raw.reshape(-1).view("<f4")
        elif kind == 1:
            values = raw.reshape(-1).view("<f2").astype("<f4")
        elif kind == 30:
            values = (raw.reshape(-1).view("<u2").astype("<u4") << 16).view("<f4")
        elif kind == 8:
            values = raw[:, 2:].copy().view(np.int8).astype("<f4") * half(0)
        else:
            packed = raw[:, 2 if kind == 2 else 4:]
            nibbles = np.concatenate([packed & 15, packed >> 4], axis=1).astype("<f4")
            values = (nibbles - np.float32(8)) * half(0) if kind == 2 else nibbles * half(0) + half(2)
        return np.ascontiguousarray(values, "<f4").reshape(shape)

    def weight(self, name: str) -> np.ndarray | None:
        match = re.fullmatch(r"(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)", name)
        stored = (f"blk.{match[1]}." if match[1] else "") + self.NAMES[match[2]] + "." + match[3]
        if stored not in self.infos:
            return None
        values = self.read(stored)
        heads = {"self_attn.q_proj": self.heads, "self_attn.k_proj": self.kv_heads}.get(match[2])
        if heads:  # llama.cpp stores the two halves of each head alternately
            values = values.reshape(heads, self.head_dim // 2, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        return values


def shortest_double(stored: float) -> float:
    """A decimal of a configuration that GGUF keeps as fp32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(stored)))


# --- the model -------------------------------------------------------------------------------------------------------

def exact(values: np.ndarray) -> list[arb]:
    return [arb(x) for x in values.astype(np.float64).reshape(-1).tolist()]


class Rows:
    """Rows of balls, their middles as integers of 16-bit digits."""

    def __init__(self, x: list[list[arb]]):
        self.cols, self.errors, self.places = len(x[0]), [], []
        digits = []
        for row in x:
            middles = [tuple(map(int, v.mid().man_exp())) for v in row]
            top = max((man.bit_length() + exp for man, exp in middles if man), default=0)
            place = ctx.prec - top  # a unit is 2^-place
            whole = [abs(man) << (exp + place) if exp + place >= 0 else abs(man) >> -(exp + place) for man, exp in middles]
            raw = b"".join(v.to_bytes(ctx.prec // 16 * 2 + 4, "little") for v in whole)
            digits.append(np.frombuffer(raw, "<u2").reshape(self.cols, -1).T * np.sign([float(man) for man, _ in middles]))
            unit = arb(2) ** place
            self.errors.append([float((v.rad() * unit).upper()) * (1 + 1e-15) + 1 for v in row])
            self.places.append(place)
        self.count = digits[0].shape[0]
        self.digits = np.concatenate(digits)


def product(x: Rows, weight: np.ndarray) -> list[list[arb]]:
    """x · weightᵀ. A row of weights becomes an integer of 20-bit pieces: numpy's float64 sums of their products with 16-bit
    digits stay below 2^53, and so are exact. Entry by entry FLINT would take minutes."""
    outputs, tokens = len(weight), len(x.places)
    if 16 + 20 + math.ceil(math.log2(x.cols)) > 53:
        raise Unreadable(f"a product over {x.cols} terms is too long for exact float64 sums")
    fraction, exponent = np.frexp(weight)
    significand = (np.abs(fraction) * 2.0 ** 24).astype(np.int64)  # of fp32
    lowest = exponent - 24 + np.log2((significand & -significand).clip(1)).astype(np.int64)
    low = np.where(weight != 0, lowest, 10 ** 6).min(axis=1)
    low = np.where(low == 10 ** 6, 0, low)
    integers = np.ldexp(weight, -low[:, None])
    totals = [[0] * outputs for _ in range(tokens)]
    rest, shift = integers, 0
    while shift == 0 or np.any(rest):
        high = np.trunc(rest * 2.0 ** -20)
        sums = (x.digits @ (rest - high * 2.0 ** 20).T).astype(np.int64).reshape(tokens, x.count, outputs)
        carried = np.zeros((tokens, outputs, x.count + 4), "<u2")
        acc = np.zeros((tokens, outputs), np.int64)
        for s in range(x.count):
            acc += sums[:, s]
            carried[:, :, s] = acc & 0xFFFF
            acc >>= 16
        carried[:, :, x.count:] = acc.astype("<i8").view("<u2").reshape(tokens, outputs, 4)
        size, raw = 2 * (x.count + 4), carried.tobytes()
        for t, row in enumerate(totals):
            for n in range(outputs):
                at = (t * outputs + n) * size
                row[n] += int.from_bytes(raw[at:at + size], "little", signed=True) << shift
        rest, shift = high, shift + 20
    # Positive terms: rounded sums are within this factor of the exact ones.
    bounds = (np.array(x.errors) @ np.abs(integers).T) * (1 + (x.cols + 8) * 2.0 ** -51)
    low = low.tolist()
    return [[arb((total, lo - place), arb((math.ceil(bound), lo - place))) for total, bound, lo in zip(row, of_row, low)]
            for row, of_row, place in zip(totals, bounds.tolist(), x.places)]


class Reference:
    """One sequence through a LLaMA, in balls: Touvron et al. 2023 with rotate_half, as transformers has it."""

    def __init__(self, source, metadata: dict, tokens: list[int], show: Callable[[str, Callable[[], object]], None]):
        self.m, self.meta, self.tokens, self.show = source, metadata, tokens, show
        self.softmax_one = metadata["softmax"] == "one"
        self.patch, self.ablate = (self.neurons(metadata.get(k, "none")) for k in ("patch", "ablate"))
        self.site = metadata.get("patch_site", "up")
        self.table = json.loads(metadata["rope"]) if metadata.get("rope", "").startswith("{") else None
        self.turns = [[self.turn(p, i) for i in range(source.head_dim // 2)] for p in range(len(tokens))]

    @staticmethod
    def neurons(text: str) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for part in [] if text == "none" else text.split(";"):
            layer, indices = part.split(":")
            found.setdefault(int(layer), []).extend(map(int, indices.split(",")))
        return found

    def turn(self, position: int, i: int) -> tuple[arb, arb]:
        if self.table is not None:
            at = position * (self.m.head_dim // 2) + i
            return tuple(arb(float(np.float32(self.table[name][at]))) for name in ("cos", "sin"))
        if self.meta.get("rope", "stored") == "stored":
            inv_freq = np.float32(json.loads(self.meta["config"])["inv_freq"][i])
            angle = arb(float(np.float32(position) * inv_freq))
            return tuple(arb(float(nearest_fp32(x))) for x in (angle.cos(), angle.sin()))
        f = arb(self.m.theta) ** (-arb(2 * i) / self.m.head_dim)
        if self.m.rope and self.m.rope.get("rope_type", self.m.rope.get("type")) == "linear":
            f = f / arb(float(self.m.rope["factor"]))
        elif self.m.rope:
            f = self.llama3(f)
        if self.m.rope_divisors is not None:
            f = f / arb(float(self.m.rope_divisors[i]))
        angle = position * f
        return angle.cos(), angle.sin()

    def llama3(self, f: arb) -> arb:
        r = self.m.rope
        old, factor = arb(float(r["original_max_position_embeddings"])), arb(float(r["factor"]))
        low, high = arb(float(r["low_freq_factor"])), arb(float(r["high_freq_factor"]))
        wavelength = 2 * arb.pi() / f
        if wavelength < old / high:
            return f
        if wavelength > old / low:
            return f / factor
        smooth = (old / wavelength - low) / (high - low)
        return (1 - smooth) * f / factor + smooth * f

    def linear(self, name: str, x: Rows, outputs: np.ndarray | None = None) -> list[list[arb]]:
        weight = self.m.weight(f"{name}.weight")
        if outputs is not None:
            weight = weight[outputs]
        y = product(x, weight.astype(np.float64))
        bias = self.m.weight(f"{name}.bias")
        return y if bias is None else [[a + b for a, b in zip(row, exact(bias))] for row in y]

    def norm(self, name: str, hook: str, x: list[list[arb]]) -> list[list[arb]]:
        weight = exact(self.m.weight(f"{name}.weight"))
        scale = [(sum((v * v for v in row), arb(0)) / len(row) + arb(self.m.eps)).sqrt() for row in x]
        y = [[v / s for v in row] for row, s in zip(x, scale)]
        self.show(f"{hook}.hook_scale", lambda: scale)
        self.show(f"{hook}.hook_normalized", lambda: y)
        return [[v * w for v, w in zip(row, weight)] for row in y]

    def rotate(self, x: list[list[arb]]) -> list[list[arb]]:
        h, y = self.m.head_dim // 2, []
        for row, turns in zip(x, self.turns):
            out = list(row)
            for head in range(0, len(row), 2 * h):
                for i, (cosine, sine) in enumerate(turns):
                    a, b = row[head + i], row[head + h + i]
                    out[head + i], out[head + h + i] = a * cosine - b * sine, b * cosine + a * sine
            y.append(out)
        return y

    def pin(self, where: str, layer: int, x: list[list[arb]]) -> None:
        """The paper's patch: from position 1 on, a neuron has its value of position 1."""
        if where in {"up": ("up",), "gate": ("gate",), "both": ("gate", "up"), "post": ("post",)}[self.site]:
            for neuron in self.patch.get(layer, []):
                for row in x[2:]:
                    row[neuron] = x[1][neuron]

    def attend(self, b: str, q: list, k: list, v: list) -> list[list[arb]]:
        n, h = len(q), self.m.head_dim
        z = [[] for _ in range(n)]
        scores, pattern = [], []
        for head in range(self.m.heads):
            own, shared = head * h, head // (self.m.heads // self.m.kv_heads) * h
            part = lambda x, at: arb_mat([row[at:at + h] for row in x])  # noqa: E731
            s = (part(q, own) * part(k, shared).transpose()).tolist()
            s = [[x / arb(h).sqrt() for x in row] for row in s]
            p = []
            for i, row in enumerate(s):
                first = max(0, i + 1 - self.m.window) if self.m.window else 0
                seen = range(first, i + 1)
                top = max([row[j].mid() for j in seen] + ([arb(0)] if self.softmax_one else []))
                e = {j: (row[j] - top).exp() for j in seen}
                total = sum(e.values(), (-top).exp() if self.softmax_one else arb(0))
                p.append([e[j] / total if j in e else arb(0) for j in range(n)])
                s[i] = [row[j] if j in e else None for j in range(n)]
            for row, out in zip((arb_mat(p) * part(v, shared)).tolist(), z):
                out.extend(row)
            scores.append(s)
            pattern.append([[x if a is not None else None for x, a in zip(*rows)] for rows in zip(p, s)])
        self.show(f"{b}.attn.hook_attn_scores", lambda: scores)
        self.show(f"{b}.attn.hook_pattern", lambda: pattern)
        return z

    def run(self, depth: int, vocabulary: np.ndarray | None) -> None:
        embedding = self.m.weight("model.embed_tokens.weight")
        x = [exact(embedding[t]) for t in self.tokens]
        add = lambda a, b: [[u + w for u, w in zip(*rows)] for rows in zip(a, b)]  # noqa: E731
        self.show("hook_embed", lambda: x)
        for layer in range(depth):
            b, w = f"blocks.{layer}", f"model.layers.{layer}."
            self.show(f"{b}.hook_resid_pre", lambda: x)
            normed = Rows(self.norm(w + "input_layernorm", f"{b}.ln1", x))
            q, k, v = (self.linear(f"{w}self_attn.{n}_proj", normed) for n in "qkv")
            for name, value in zip("qkv", (q, k, v)):
                self.show(f"{b}.attn.hook_{name}", lambda value=value: value)
            q, k = self.rotate(q), self.rotate(k)
            self.show(f"{b}.attn.hook_rot_q", lambda: q)
            self.show(f"{b}.attn.hook_rot_k", lambda: k)
            z = self.attend(b, q, k, v)
            self.show(f"{b}.attn.hook_z", lambda: z)
            out = self.linear(w + "self_attn.o_proj", Rows(z))
            self.show(f"{b}.hook_attn_out", lambda: out)
            x = add(x, out)
            self.show(f"{b}.hook_resid_mid", lambda: x)
            normed = Rows(self.norm(w + "post_attention_layernorm", f"{b}.ln2", x))
            gate, up = (self.linear(f"{w}mlp.{n}_proj", normed) for n in ("gate", "up"))
            self.pin("gate", layer, gate)
            self.pin("up", layer, up)
            self.show(f"{b}.mlp.hook_pre", lambda: gate)
            self.show(f"{b}.mlp.hook_pre_linear", lambda: up)
            post = [[g / (1 + (-g).exp()) * u for g, u in zip(*rows)] for rows in zip(gate, up)]
            self.pin("post", layer, post)
            for neuron in self.ablate.get(layer, []):
                for row in post:
                    row[neuron] = arb(0)
            self.show(f"{b}.mlp.hook_post", lambda: post)
            out = self.linear(w + "mlp.down_proj", Rows(post))
            self.show(f"{b}.hook_mlp_out", lambda: out)
            x = add(x, out)
            self.show(f"{b}.hook_resid_post", lambda: x)
        if depth < self.m.layers:
            return
        normed = Rows(self.norm("model.norm", "ln_final", x))
        head = "model.embed_tokens" if self.m.tied else "lm_head"
        self.show("logits", lambda: self.linear(head, normed, vocabulary))


# --- the comparison --------------------------------------------------------------------------------------------------

def nearest_fp32(x: arb) -> np.float32:
    """fp32 nearest to every number of a ball, or Unreadable."""
    value = np.float32(float(x.mid()))
    if not rounds_to(x, value):
        raise Unreadable("an entry of RoPE's table lies too near to the middle of two fp32 numbers")
    return value


def rounds_to(x: arb, value: np.float32) -> bool:
    """True if every number of the ball rounds to `value`, to nearest, ties to even."""
    if not x.is_finite():
        return False
    largest = float(np.finfo(np.float32).max)
    if np.isinf(value):  # fp32 rounds to infinity from half a step past the largest on
        edge = arb(largest + 2.0 ** 103)
        return bool(x >= edge) if value > 0 else bool(x <= -edge)
    if not np.isfinite(value):
        return False
    bits = int(np.abs(value).view(np.uint32))
    below, above = (float(np.uint32(max(b, 0)).view(np.float32)) if b < 0x7F800000 else 2.0 ** 128 for b in (bits - 1, bits + 1))
    size = float(abs(value))
    # Exact in double: 25 bits.
    low, high = (-above / 2 if bits == 0 else (below + size) / 2), (size + above) / 2
    y = -x if np.signbit(value) and bits else x
    if bits % 2 == 0:  # the boundaries themselves round to the even one
        return bool(y >= arb(low)) and bool(y <= arb(high))
    return bool(y > arb(low)) and bool(y < arb(high))


class Check:
    def __init__(self, tensors: dict[str, np.ndarray], certified: dict, chosen: dict[str, set[int]] | None,
                 columns: np.ndarray | None):
        self.tensors, self.certified, self.chosen, self.columns = tensors, certified, chosen, columns
        self.checked = self.skipped = 0
        self.radii = self.close_radii = 0
        self.largest_share = arb(0)  # of a radius that a centre is off
        self.seen: set[str] = set()

    def __call__(self, name: str, values: Callable[[], object]) -> None:
        if name not in self.tensors:
            return
        self.seen.add(name)
        stored = self.tensors[name].reshape(-1)
        chosen = None if self.chosen is None else self.chosen.get(name)
        if chosen is not None and not chosen:
            return
        undecided = set(self.certified[name]["undecided_at"])
        flat = flatten(values())
        if name == "logits" and self.columns is not None:
            width, many = self.tensors[name].shape[-1], len(self.columns)
            places = ((i // many * width + int(self.columns[i % many]), x) for i, x in enumerate(flat))
        else:
            places = enumerate(flat)
        widest = self.certified[name].get("widest")
        count = 0
        for place, x in places:
            count += 1
            if widest and place == widest["at"]:
                self.radius(name, x, widest["centre"])
            if chosen is not None and place not in chosen:
                continue
            value = stored[place]
            if x is None:
                masked = 0.0 if name.endswith("pattern") else -INFINITY
                if float(value) != masked:
                    raise Refused(f"{name}[{place}] is {value}, expected {masked}: the query does not see this key")
                continue
            if place in undecided:
                self.skipped += 1
                continue
            if not rounds_to(x, value):
                raise Refused(f"{name}[{place}] is {value!r}, which is not the real number rounded: {x.str(20)}")
            self.checked += 1
        if widest and not 0 <= widest["at"] < len(stored):
            raise Refused(f"{name}: the widest ball's place {widest['at']} is not in the tensor")
        if chosen is None and count != len(stored):
            raise Refused(f"{name} holds {len(stored)} values, expected {count}")


    def radius(self, name: str, x: arb | None, centre: str) -> None:
        mantissa, exponent = (int(part, 16) for part in centre.split())
        if x is None:
            raise Refused(f"{name}: the widest ball is one that no query sees")
        off, radius = abs(x - arb((mantissa, exponent))), arb(self.certified[name]["radius"])
        if off > radius:
            raise Refused(f"{name}: the radius {self.certified[name]['radius']} is too small: the real number lies "
                          f"{off.str(5)} from the centre of the widest ball")
        self.radii += 1
        if not off <= radius:
            self.close_radii += 1
        elif radius > 0:
            self.largest_share = self.largest_share.max((off / radius).upper())


def flatten(values) -> Iterator:
    if isinstance(values, list):
        for value in values:
            yield from flatten(value)
    else:
        yield values


def weights_sha256(source, depth: int) -> str:
    """SHA-256 over a line "name|shape|SHA-256 of the fp32 values" for each tensor that the run reads, in order of names."""
    names = ["model.embed_tokens.weight"]
    for layer in range(depth):
        for part in ("input_layernorm", "post_attention_layernorm", *(f"self_attn.{n}_proj" for n in "qkvo"),
                     *(f"mlp.{n}_proj" for n in ("gate", "up", "down"))):
            names += [f"model.layers.{layer}.{part}.weight", f"model.layers.{layer}.{part}.bias"]
    if depth == source.layers:
        names += ["model.norm.weight"] + ([] if source.tied else ["lm_head.weight"])
    lines = []
    for name in sorted(names):
        values = source.weight(name)
        if values is not None:
            shape = ",".join(map(str, values.shape))
            lines.append(f"{name}|{shape}|{hashlib.sha256(np.ascontiguousarray(values, '<f4')).hexdigest()}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check(model: Path, certificate: Path, sample: int, seed: int, more_bits: int) -> str:
    metadata, tensors, data = read_safetensors(certificate)
    if "certified" not in metadata:
        raise Unreadable(f"{certificate} has no certificate in its __metadata__")
    certified = json.loads(metadata["certified"])
    found = hashlib.sha256(metadata["certified"].encode() + data).hexdigest()
    if found != metadata.get("certified_sha256"):
        raise Refused("the numbers or radii are not those that were written: their SHA-256 differs")
    source = Gguf(model) if model.is_file() else Folder(model)
    depth = int(metadata["blocks_run"])
    if weights_sha256(source, depth) != metadata["weights_sha256"]:
        raise Refused("the model's weights are not those of the certificate: their SHA-256 differs")
    for name, entry in certified.items():
        if len(entry["undecided_at"]) != entry["undecided"] or not re.fullmatch(r"\d(\.\d+)?e-?\d+|0", entry["radius"]):
            raise Refused(f"{name}: the radius {entry['radius']!r} or the list of undecided values is malformed")
    tokens = [int(t) for t in tensors.pop("tokens").reshape(-1)]
    if set(tensors) != set(certified):
        raise Refused("the tensors are not those that are certified")
    chosen = columns = None
    if sample:
        draw = random.Random(seed)
        sizes = {name: values.size for name, values in tensors.items()}
        chosen = {}
        if "logits" in sizes:  # some columns, so that the head need not be multiplied whole
            width, rows = tensors["logits"].shape[-1], tensors["logits"].shape[-2]
            share = max(1, round(sample * sizes["logits"] / sum(sizes.values()) / rows))
            columns = np.array(sorted(draw.sample(range(width), min(width, share, 2000))))
            chosen["logits"] = {p * width + int(c) for p in range(rows) for c in columns}
        rest = [name for name in sizes if name != "logits"]
        total = sum(sizes[name] for name in rest)
        for name in rest:
            count = min(sizes[name], max(1, math.ceil(1.25 * sample * sizes[name] / total)))
            chosen[name] = set(draw.sample(range(sizes[name]), count))
        for name, entry in certified.items():  # and what the radii are about
            if "widest" not in entry:
                continue
            chosen[name].add(entry["widest"]["at"])
            if name == "logits":
                columns = np.union1d(columns, [entry["widest"]["at"] % width])
    ctx.prec = int(metadata["bits"]) + more_bits
    checker = Check(tensors, certified, chosen, columns)
    Reference(source, metadata, tokens, checker).run(depth, columns)
    if checker.seen != set(tensors):
        raise Refused(f"not tensors of this model: {', '.join(sorted(set(tensors) - checker.seen))}")
    if checker.checked < min(sample, 1):
        raise Unreadable("nothing was checked")
    unchecked = sum(entry["radius"] != "0" and "widest" not in entry for entry in certified.values())
    return (f"{checker.checked} values are the real numbers rounded correctly, {checker.skipped} undecided ones were passed "
            f"over; {checker.radii} radii hold, the farthest centre off by {float(checker.largest_share):.4g} of its own"
            + (f"; {checker.close_radii} of them cannot be told" if checker.close_radii else "")
            + (f"; {unchecked} radii have no centre to be checked by" if unchecked else "") + f"; {len(tensors)} tensors, {len(tokens)} tokens")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("certificate", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="the Hugging Face folder or .gguf file that it speaks of")
    parser.add_argument("--sample", type=int, default=0, help="check about so many values; all without it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bits", type=int, default=40, help="more precision than the certificate's")
    arguments = parser.parse_args()
    try:
        print(check(arguments.model, arguments.certificate, arguments.sample, arguments.seed, arguments.bits))
        return 0
    except Refused as refusal:
        print(f"check_certificate.py: REFUSED: {refusal}", file=sys.stderr)
        return 1
    except (Unreadable, OSError, KeyError, ValueError) as error:
        print(f"check_certificate.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
