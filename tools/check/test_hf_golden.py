#!/usr/bin/env python3
"""Tests hf_golden.py's truth on the tiny models of reference_outputs/; prints one line per finding.

The truth has to agree with a float64 forward pass written here from the equations (numpy, loops over
heads, no Hugging Face code), with its own decode, and with its own shuffled copy, all within 1e-12 of
each tensor's rms; and transformers' dtype=float64 as shipped has to be far from it, or the
replacements in hf_runs.py would be pointless. Exit: 0 passed, 1 failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))

import hf_golden
import hf_runs
from hf_runs import PatchSpec, Request
from make_goldens import GOLDENS, PATCHED_NEURONS, PROMPT, ROOT
from weights_hash import folder_tensors

AGREES = 1e-12  # float64 rounding, 2e-16, times sqrt of some 1e3 operations, times a gain of some 1e2
DIFFERS = 1e-8  # what an fp32 rounding on the way leaves behind is some 1e-7


class Numpy:
    """LLaMA/Mistral from the equations, one prompt, float64. Activations are [p, features]."""

    def __init__(self, folder: Path, inv_freq: np.ndarray, patch: PatchSpec | None) -> None:
        self.c = json.loads((folder / "config.json").read_text())
        self.w = {name: values.astype(np.float64) for name, values in folder_tensors(folder)}
        self.patch = patch
        self.h = self.c.get("head_dim", self.c["hidden_size"] // self.c["num_attention_heads"])
        self.inv_freq = inv_freq
        self.out: dict[str, np.ndarray] = {}

    def keep(self, name: str, x: np.ndarray) -> np.ndarray:
        self.out[name] = x[None]
        return x

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def norm(self, hook: str, name: str, x: np.ndarray) -> np.ndarray:
        scale = self.keep(f"{hook}.hook_scale", np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"]))
        return self.keep(f"{hook}.hook_normalized", x / scale) * self.w[f"{name}.weight"]

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """x: [p,H,h]; pair i is (i, i + h/2). Angles, cos and sin are fp32 and torch's: part of the model."""
        positions = torch.arange(len(x), dtype=torch.float32)[:, None]
        angle = positions * torch.from_numpy(self.inv_freq)
        cos, sin = (t.double().numpy()[:, None, :] for t in (angle.cos(), angle.sin()))
        a, b = x[..., : self.h // 2], x[..., self.h // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def visible(self, p: int) -> np.ndarray:
        """[q,k]: k <= q, and k > q - W if there is a window of W keys."""
        q, k = np.arange(p)[:, None], np.arange(p)[None, :]
        window = self.c.get("sliding_window") or p
        return (k <= q) & (k > q - window)

    def attention(self, hook: str, name: str, x: np.ndarray) -> np.ndarray:
        q, k, v = (self.keep(f"{hook}.hook_{n}", self.linear(f"{name}.{n}_proj", x).reshape(len(x), -1, self.h))
                   for n in "qkv")
        q, k = self.keep(f"{hook}.hook_rot_q", self.rotate(q)), self.keep(f"{hook}.hook_rot_k", self.rotate(k))
        group = q.shape[1] // k.shape[1]
        scores, patterns, z = [], [], []
        for head in range(q.shape[1]):
            s = q[:, head] @ k[:, head // group].T / np.sqrt(self.h)
            s = np.where(self.visible(len(x)), s, -np.inf)
            e = np.exp(s - s.max(-1, keepdims=True))
            a = e / e.sum(-1, keepdims=True)
            scores.append(s), patterns.append(a), z.append(a @ v[:, head // group])
        self.keep(f"{hook}.hook_attn_scores", np.stack(scores))
        self.keep(f"{hook}.hook_pattern", np.stack(patterns))
        z = self.keep(f"{hook}.hook_z", np.stack(z, axis=1))
        return self.linear(f"{name}.o_proj", z.reshape(len(x), -1))

    def mlp(self, hook: str, name: str, layer: int, x: np.ndarray) -> np.ndarray:
        gate = self.keep(f"{hook}.hook_pre", self.linear(f"{name}.gate_proj", x))
        up = self.linear(f"{name}.up_proj", x)
        if self.patch and self.patch.layer == layer and len(x) > 1:
            up[1:, list(self.patch.neurons)] = up[1, list(self.patch.neurons)]
        up = self.keep(f"{hook}.hook_pre_linear", up)
        return self.linear(f"{name}.down_proj", self.keep(f"{hook}.hook_post", gate / (1 + np.exp(-gate)) * up))

    def forward(self, tokens: list[int]) -> dict[str, np.ndarray]:
        x = self.keep("hook_embed", self.w["model.embed_tokens.weight"][tokens])
        for i in range(self.c["num_hidden_layers"]):
            b, name = f"blocks.{i}", f"model.layers.{i}"
            self.keep(f"{b}.hook_resid_pre", x)
            normed = self.norm(f"{b}.ln1", f"{name}.input_layernorm", x)
            x = x + self.keep(f"{b}.hook_attn_out", self.attention(f"{b}.attn", f"{name}.self_attn", normed))
            self.keep(f"{b}.hook_resid_mid", x)
            normed = self.norm(f"{b}.ln2", f"{name}.post_attention_layernorm", x)
            x = x + self.keep(f"{b}.hook_mlp_out", self.mlp(f"{b}.mlp", f"{name}.mlp", i, normed))
            self.keep(f"{b}.hook_resid_post", x)
        x = self.norm("ln_final", "model.norm", x)
        self.keep("logits", x @ self.w.get("lm_head.weight", self.w["model.embed_tokens.weight"]).T)
        return self.out


def rope_by_formula(c: dict, h: int) -> np.ndarray:
    """inv_freq [h/2] in float64, from the config: default, linear, llama3."""
    rope = c.get("rope_parameters") or {"rope_theta": c.get("rope_theta", 10000.0), **(c.get("rope_scaling") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    freq = rope["rope_theta"] ** (-np.arange(0, h, 2) / h)
    if kind == "linear":
        return freq / rope["factor"]
    if kind == "llama3":
        turns = rope["original_max_position_embeddings"] * freq / (2 * np.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        keep = np.clip((turns - low) / (high - low), 0, 1)
        return freq * (keep + (1 - keep) / rope["factor"])
    return freq


def largest_difference(truth: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> tuple[float, str]:
    """Over all tensors, the largest rms difference over the truth's rms, and whose it is. Names must be equal."""
    if truth.keys() != other.keys():
        raise AssertionError(f"hooks in one run only: {sorted(truth.keys() ^ other.keys())}")
    worst = (0.0, "no tensor")
    for name, true in truth.items():
        finite = np.isfinite(true)
        if true.shape != other[name].shape or not np.array_equal(finite, np.isfinite(other[name])):
            raise AssertionError(f"{name}: shapes {true.shape}, {other[name].shape}, or masks, differ")
        difference = np.linalg.norm(true[finite] - other[name][finite]) / np.linalg.norm(true[finite])
        worst = max(worst, (float(difference), name))
    return worst


def shipped_float64(model: torch.nn.Module, tokens: torch.Tensor) -> np.ndarray:
    """The logits of dtype=float64 without our replacements."""
    with torch.no_grad():
        return model.double()(tokens).logits.numpy()


def findings(name: str, patch: PatchSpec | None) -> Iterator[tuple[str, float, bool]]:
    """(what, relative difference, passed) for one tiny model."""
    folder = ROOT / GOLDENS / name
    models = hf_golden.load_models(folder, with_shuffled=False)
    tokens = hf_golden.parse_tokens(PROMPT)
    request = Request(torch.tensor([tokens]), hf_golden.hook_filter(["*"]), list(range(len(tokens))), patch)
    truth = hf_runs.record(models.truth, request)
    inv_freq = models.fp32.model.rotary_emb.inv_freq.numpy()

    independent = Numpy(folder, inv_freq, patch)
    formula = rope_by_formula(independent.c, independent.h)
    step = float(np.max(np.abs(inv_freq - formula) / formula))
    yield "inv_freq against the formula in float64", step, step < 4e-7  # a few fp32 steps: pow is not exact
    for what, run in {
        "equations in numpy": independent.forward(tokens),
        "one token at a time": hf_runs.record(models.truth, request, chunk=1),
        "chunks of five": hf_runs.record(models.truth, request, chunk=5),
    }.items():
        difference, tensor = largest_difference(truth, run)
        yield f"{what}, worst in {tensor}", difference, difference < AGREES
    shuffled, order = hf_runs.permuted(models.truth, 7)
    difference, tensor = largest_difference(truth, hf_runs.record(shuffled, request, order=order))
    yield f"shuffled units, worst in {tensor}", difference, difference < AGREES
    if patch is None:
        shipped = shipped_float64(hf_runs.load(folder), request.tokens)
        difference, _ = largest_difference({"logits": truth["logits"]}, {"logits": shipped})
        yield "transformers' own float64 is elsewhere", difference, difference > DIFFERS


def generation_findings(name: str) -> Iterator[tuple[str, float, bool]]:
    """Patched greedy decode of the truth against running the equations on each longer prompt."""
    folder, patch = ROOT / GOLDENS / name, PatchSpec.parse(PATCHED_NEURONS[name])
    models = hf_golden.load_models(folder, with_shuffled=False)
    inv_freq = models.fp32.model.rotary_emb.inv_freq.numpy()
    for prompt, spec in ((hf_golden.parse_tokens("1,40,77x5"), patch), ([1], None)):
        request = Request(torch.tensor([prompt]), lambda hook: False, [], patch)
        generated, gaps = hf_runs.generate(models.truth, request, 6)
        text, wrong = list(prompt), 0.0
        for token, gap in zip(generated[0].tolist(), gaps[0]):
            logits = np.sort(Numpy(folder, inv_freq, spec).forward(text)["logits"][0, -1])
            wrong = max(wrong, abs(logits[-1] - logits[-2] - gap))
            text.append(token)
        yield f"patched generation after {len(prompt)} tokens, margins", wrong, wrong < 1e-10


def write_twice() -> Iterator[tuple[str, float, bool]]:
    """Two runs of the program give the same bytes, which the safetensors library can read."""
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / folder / "g.safetensors" for folder in "ab"]
        for file in files:
            hf_golden.run([str(ROOT / GOLDENS / "tiny_llama1"), "--tokens", "1,5x3", "--out", str(file)])
        a, b = (file.read_bytes() for file in files)
        yield "two runs, same bytes", 0.0, a == b and load_file(files[0])["tokens"].tolist() == [[1, 5, 5, 5]]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    failed = 0
    for name, neurons in PATCHED_NEURONS.items():
        results = [*findings(name, None), *findings(name, PatchSpec.parse(neurons)), *generation_findings(name)]
        for what, difference, passed in results:
            print(f"{'ok  ' if passed else 'FAIL'} {name:13} {difference:8.1e}  {what}", flush=True)
            failed += not passed
    for what, _, passed in write_twice():
        print(f"{'ok  ' if passed else 'FAIL'} {what}")
        failed += not passed
    print("passed" if not failed else f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
