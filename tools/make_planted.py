#!/usr/bin/env python3
"""Writes a small Hugging Face model that was built by hand to have the paper's mechanism.

It is the smallest model that shows the whole phenomenon, and the one place where the truth about a
sink is known: `sinkref report` must find the row of the paper's table that was planted, with no
knowledge of it. d = 32, 2 heads of 32, 6 layers, 384 tokens (reference_outputs/tiny_tokenizer); the
MLP is as wide as in the real model, so that the neurons have the paper's ids.

The residual stream, before a random rotation hides it:

    content 0-11    every token has its own direction, of one length R; BOS has axis 5 to itself
    constant 12     the same number c in every token
    detector 13     what the first-detector neuron writes
    sink 14, 15     what the sink neurons write, and what other neurons add at a first token
    16-31           nuisance: random parts of the embedding, random heads and neurons write here

Layer 0, head 0 detects other tokens. Its queries are minus its keys, so a token attends to others
rather than to its own kind: score -beta for the same token, about 0 for another. It subtracts the
content it sees. A token that sees only itself (the first of a sequence; nearly so the n-th repeat,
whose attention to the prefix is e^beta / (e^beta + n)) is left without content; any other keeps
some 10 times the constant. RMSNorm then divides by what is left, so that the *constant* is large
for the first token and small for others: one neuron, gate and up both the normalized constant,
detects the first token, and writes the detector. In the sink layer the sink neurons read
a·detector - b·constant and write the massive norm. beta sets the number of repeats.

RoPE's base is 1e9, and head 0 uses slow dimensions, so that thousands of positions do not turn it.
beta and R are tuned by running the model (numpy, float64) on repeats and on random tokens.

    row        width  layer  neurons      norm of BOS  without them  typical  repeats
    llama-1    11008      2  7003                1400           300       11      450
    llama-2    11008      1  7890, 10411         1022           140       11     1000
    llama-3    14336      1  198, 2427            400             8       11     4000
    mistral    14336      1  7310, 8572           250          17.5       11     1200

Layers, neurons, repeats, and the norms with and without the neurons are the paper's (Yona et al.
2025; LLaMA-2's e^6.93, e^2.41); the other typical norms are not published and chosen. Everything
else follows --seed. --control leaves the detector and the sink neurons out and keeps the rest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TOKENIZER = Path(__file__).resolve().parent.parent / "reference_outputs" / "tiny_tokenizer"
D, HEAD, HEADS, LAYERS, VOCAB, BOS = 32, 32, 2, 6, 384, 0
CONTENT, CONSTANT, DETECTOR, SINK, REST, NUISANCE = slice(0, 12), 12, 13, 14, 15, slice(16, 32)
THETA = 1e9
SLOW = np.r_[10:16, 26:32]  # the 6 slowest pairs (i, i + 16) of a head
REST_NEURONS = 8
BOS_AXIS = 5                # of the slowest pair: 4,000 positions turn it by 2e-5
C, NU = 1.0, 0.3            # constant, nuisance of the embedding
KAPPA, WRITE = 2.0, 0.05    # detector: gate and up = KAPPA·constant; it writes WRITE·post
READ, AGAINST = 2.0, 1.0    # sink neurons: gate and up = READ·detector - AGAINST·constant


@dataclass(frozen=True)
class Row:
    width: int
    layer: int
    neurons: tuple[int, ...]
    first: float
    ablated: float
    typical: float
    repeats: int
    kv_heads: int
    config: dict


ROWS = {
    "llama-1": Row(11008, 2, (7003,), 1400, 300, 11, 450, 2,
                   {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-6}),
    "llama-2": Row(11008, 1, (7890, 10411), 1022, 140, 11.1, 1000, 2,
                   {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5}),
    "llama-3": Row(14336, 1, (198, 2427), 400, 8, 11, 4000, 1,
                   {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5}),
    "mistral": Row(14336, 1, (7310, 8572), 250, 17.5, 11, 1200, 1,
                   {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "rms_norm_eps": 1e-5,
                    "sliding_window": 4096}),
}


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def normed(x: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


class Planted:
    """The weights for given beta and R, not yet rotated: reading matrices [out, D], writing [D, in]."""

    def __init__(self, row: Row, seed: int, control: bool) -> None:
        self.row, self.control, self.seed = row, control, seed
        random = np.random.default_rng(seed)
        self.eps = row.config["rms_norm_eps"]
        directions = random.standard_normal((VOCAB, 12))
        directions[:, BOS_AXIS] = 0
        directions[BOS] = np.eye(12)[BOS_AXIS]
        self.directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        nuisance = random.standard_normal((VOCAB, 16))
        self.nuisance = NU * nuisance / np.linalg.norm(nuisance, axis=1, keepdims=True)
        self.layers = [self.random_layer(random) for _ in range(LAYERS)]
        others = np.setdiff1d(np.arange(row.width), row.neurons)
        self.detector, *self.rest = random.choice(others, 1 + REST_NEURONS, replace=False)
        self.lm_head = random.standard_normal((VOCAB, D)) / D**0.5
        self.rotation = np.linalg.qr(random.standard_normal((D, D)))[0]

    def random_layer(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Heads and neurons of no meaning; what they write is small and stays in the nuisance part."""
        kv, m = self.row.kv_heads * HEAD, self.row.width
        w = {name: random.standard_normal((out, D)) / D**0.5
             for name, out in (("q", HEADS * HEAD), ("k", kv), ("v", kv), ("gate", m), ("up", m))}
        w["o"], w["down"] = np.zeros((D, HEADS * HEAD)), np.zeros((D, m))
        w["o"][NUISANCE] = 0.05 * random.standard_normal((16, HEADS * HEAD)) / (HEADS * HEAD) ** 0.5
        w["down"][NUISANCE] = 0.1 * random.standard_normal((16, m)) / m**0.5
        return w

    def plant(self, beta: float, length: float, gains: tuple[float, float]) -> None:
        """beta and R; gains of the sink neurons together and of the rest."""
        self.embedding = np.zeros((VOCAB, D))
        self.embedding[:, CONTENT] = length * self.directions
        self.embedding[:, CONSTANT] = C
        self.embedding[:, NUISANCE] = self.nuisance
        scale = np.sqrt((length**2 + C**2 + NU**2) / D + self.eps)  # ln1 of every token
        w = self.layers[0]
        sharpness = np.sqrt(abs(beta) * HEAD**0.5) * scale / length
        w["q"][:HEAD] = 0
        w["k"][SLOW], w["q"][SLOW] = 0, 0
        w["k"][SLOW, CONTENT] = sharpness * np.eye(12)
        w["q"][SLOW, CONTENT] = -np.sign(beta) * sharpness * np.eye(12)
        w["v"][:12] = np.eye(12, D)
        w["o"][:, :HEAD] = 0
        w["o"][CONTENT, :12] = -scale * np.eye(12)
        if self.control:
            return
        self.neuron(0, self.detector, {CONSTANT: KAPPA}, DETECTOR, WRITE)
        reading = {DETECTOR: READ, CONSTANT: -AGAINST}
        shares = np.array([0.55, 0.45])[: len(self.row.neurons)]
        for neuron, share in zip(self.row.neurons, shares / shares.sum()):
            self.neuron(self.row.layer, neuron, reading, SINK, gains[0] * share)
        for neuron in self.rest:
            self.neuron(self.row.layer, neuron, reading, REST, gains[1] / REST_NEURONS)

    def neuron(self, layer: int, index: int, reads: dict[int, float], writes: int, gain: float) -> None:
        w = self.layers[layer]
        w["gate"][index] = w["up"][index] = w["down"][:, index] = 0
        for dimension, weight in reads.items():
            w["gate"][index, dimension] = w["up"][index, dimension] = weight
        w["down"][writes, index] = gain

    def norms(self, tokens: np.ndarray) -> np.ndarray:
        """Norms of the residual stream after the sink layer [p]; RoPE, which hardly turns, is left out."""
        x = self.embedding[tokens]
        mask = np.triu(np.full((len(tokens),) * 2, -np.inf, dtype=np.float32), 1)
        for w in self.layers[: self.row.layer + 1]:
            n = normed(x, self.eps)
            z = []
            for head in range(HEADS):
                q = w["q"][head * HEAD :][:HEAD]
                k, v = (w[name][head * self.row.kv_heads // HEADS * HEAD :][:HEAD] for name in "kv")
                scores = ((n @ q.T) @ (n @ k.T).T / HEAD**0.5).astype(np.float32) + mask
                pattern = np.exp(scores - scores.max(-1, keepdims=True))
                z.append((pattern / pattern.sum(-1, keepdims=True)) @ (n @ v.T))
            x = x + np.concatenate(z, -1) @ w["o"].T
            n = normed(x, self.eps).astype(np.float32)
            gate, up = (n @ w[name].T.astype(np.float32) for name in ("gate", "up"))
            x = x + (silu(gate) * up) @ w["down"].T.astype(np.float32)
        return np.linalg.norm(x, axis=-1)

    def tune(self) -> None:
        """R to the typical norm, the gains to the norms of BOS, beta to the number of repeats."""
        row, length, beta = self.row, self.row.typical / 1.3, np.log(self.row.repeats / 10)
        text = np.random.default_rng(self.seed + 1).integers(2, VOCAB, 100)
        text[0] = BOS
        word = 2 + self.seed % 100
        for _ in range(2):
            self.plant(beta, length, (0, 0))
            length *= row.typical / self.norms(text)[1:].mean()
        self.plant(beta, length, (0, 0))
        if self.control:
            return
        base = self.norms(np.array([BOS]))[0]  # of what the sink neurons and the rest add to
        self.plant(beta, length, (1, 0))
        gated = np.sqrt(self.norms(np.array([BOS]))[0] ** 2 - base**2)
        gains = (np.sqrt(row.first**2 - row.ablated**2) / gated, np.sqrt(row.ablated**2 - base**2) / gated)
        for _ in range(3):
            self.plant(beta, length, gains)
            norms = self.norms(np.array([BOS] + [word] * (row.repeats * 5 // 4)))
            threshold = np.sqrt(self.norms(text)[1:].mean() * norms[0])
            above = np.flatnonzero(norms[1:] > threshold)
            found = above[0] + 1 if len(above) else 3 * row.repeats // 2
            beta += np.log(row.repeats / found)
            if found == row.repeats:
                break
        self.plant(beta, length, gains)

    def tensors(self) -> dict[str, np.ndarray]:
        """Hugging Face's tensors, the residual stream rotated: norms with weight 1 do not mind."""
        r = self.rotation.T
        named = {"model.embed_tokens.weight": self.embedding @ r, "lm_head.weight": self.lm_head @ r,
                 "model.norm.weight": np.ones(D)}
        for index, w in enumerate(self.layers):
            at = f"model.layers.{index}"
            for name in "qkv":
                named[f"{at}.self_attn.{name}_proj.weight"] = w[name] @ r
            for name in ("gate", "up"):
                named[f"{at}.mlp.{name}_proj.weight"] = w[name] @ r
            named[f"{at}.self_attn.o_proj.weight"] = self.rotation @ w["o"]
            named[f"{at}.mlp.down_proj.weight"] = self.rotation @ w["down"]
            named[f"{at}.input_layernorm.weight"] = np.ones(D)
            named[f"{at}.post_attention_layernorm.weight"] = np.ones(D)
        return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in named.items()}


def write(row: Row, seed: int, control: bool, out: Path) -> None:
    model = Planted(row, seed, control)
    model.tune()
    out.mkdir(parents=True, exist_ok=True)
    config = {**row.config, "hidden_act": "silu", "hidden_size": D, "intermediate_size": row.width,
              "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": row.kv_heads,
              "head_dim": HEAD, "vocab_size": VOCAB, "max_position_embeddings": 8192, "rope_theta": THETA,
              "tie_word_embeddings": False, "bos_token_id": BOS, "eos_token_id": 1, "torch_dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, out / name)
    save_file(model.tensors(), out / "model.safetensors", metadata={"format": "pt"})


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=ROWS, required=True, help="the row of the paper's table")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=1, help="of everything that carries no meaning")
    parser.add_argument("--control", action="store_true", help="plant nothing")
    args = parser.parse_args(argv)
    try:
        write(ROWS[args.row], args.seed, args.control, args.out)
    except OSError as error:
        print(f"make_planted: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
