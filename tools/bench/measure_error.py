#!/usr/bin/env python3
"""The rounding error of sinkref's fp32, with that of Hugging Face's fp32 beside it: tensor by tensor
and by position, against sinkref --precision fp64.

    build/venv/bin/python tools/bench/measure_error.py models/SmolLM2-135M-Instruct.Q4_1.gguf

Three inputs: text (this project's README), one word 2,000 times, and runs of several words with a BOS
token before each, which puts many attention sinks into one prompt. Printed per kind of tensor: the
rms error of both (the layer where sinkref compares worst), their ratio, and how many of the layers
have a ratio above 1. RoPE's table has Hugging Face's bits in all three runs, so its rounding is in
none of these errors.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))

from hf_runs import Request, UserError, load, record
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
HOOKS = ("blocks.*.attn.hook_rot_q,blocks.*.attn.hook_rot_k,blocks.*.attn.hook_v,blocks.*.attn.hook_z,"
         "blocks.*.hook_attn_out,blocks.*.mlp.hook_pre,blocks.*.mlp.hook_post,blocks.*.hook_mlp_out,"
         "blocks.*.hook_resid_post,ln_final.hook_normalized,logits")
SOME_POSITIONS = 96  # of a long prompt: the first ones, the rest evenly spaced


def sinkref(*arguments: str | Path) -> dict:
    out = subprocess.run([ROOT / "build" / "sinkref", *map(str, arguments), "--json"], capture_output=True, text=True)
    if out.returncode != 0:
        raise UserError(out.stderr.strip())
    return json.loads(out.stdout)


def inputs(model: Path, repeats: int) -> dict[str, list[int]]:
    text = sinkref("tokenize", "--model", model, "--prompt-file", ROOT / "README.md")["tokens"][:512]
    words = [sinkref("tokenize", "--model", model, "--prompt", f"the {word}", "--bos", "off")["tokens"][-1]
             for word in ("the", "dust", "one", "bites", "Another", "poem")]
    start = text[:12]
    return {"text": text,
            "repeats": start + [words[0]] * repeats,
            "sinks": sum(([start[0]] + [word] * 80 for word in words), [])}


def traced(model: Path, tokens: list[int], precision: str, positions: list[int], folder: str) -> dict[str, np.ndarray]:
    """The rows at `positions` of every tensor of a trace, in double."""
    ids, out = Path(folder) / "tokens.json", Path(folder) / f"{precision}.safetensors"
    ids.write_text(json.dumps(tokens))
    sinkref("trace", "--model", model, "--tokens-file", ids, "--hooks", HOOKS, "--precision", precision, "--out", out,
            "--force")
    with safe_open(out, framework="numpy") as file:
        values = {name: np.stack([file.get_slice(name)[0, p] for p in positions]).astype(np.float64)
                  for name in file.keys() if name not in ("tokens", "lengths")}
    out.unlink()
    return values


def row_rms(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """rms error of each row; refuses what is no number."""
    if values.shape != truth.shape or not np.isfinite(values).all() or not np.isfinite(truth).all():
        raise UserError(f"shapes {values.shape} and {truth.shape}, or values that are no numbers")
    return np.sqrt(np.square(values - truth).reshape(len(truth), -1).mean(axis=1))


def compare(model: Path, hf_model, tokens: list[int]) -> dict:
    first = min(16, len(tokens))
    rest = np.linspace(first, len(tokens) - 1, min(SOME_POSITIONS - first, len(tokens) - first)).astype(int)
    positions = [*range(first), *sorted(set(rest.tolist()))]
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        truth = traced(model, tokens, "fp64", positions, folder)
        ours = traced(model, tokens, "fp32", positions, folder)
    globs = [re.compile(re.escape(glob).replace(r"\*", ".*")) for glob in HOOKS.split(",")]
    request = Request(tokens=torch.tensor([tokens]), positions=positions, patch=None,
                      wants=lambda name: any(glob.fullmatch(name) for glob in globs))
    theirs = {name: values[0].astype(np.float64) for name, values in record(hf_model, request).items()}
    tensors = {}
    for name, exact in truth.items():
        our_rows, their_rows = row_rms(ours[name], exact), row_rms(theirs[name], exact)
        tensors[name] = {"rms": float(np.sqrt(np.square(our_rows).mean())),
                         "hf_rms": float(np.sqrt(np.square(their_rows).mean())),
                         "by_position": our_rows.tolist(), "hf_by_position": their_rows.tolist()}
    return {"length": len(tokens), "positions": positions, "tensors": tensors}


def ratio(ours: float, theirs: float) -> float:
    return ours / theirs if theirs > 0 else (0.0 if ours == 0 else float("inf"))


def print_tensors(tensors: dict[str, dict]) -> None:
    kinds: dict[str, list[str]] = {}
    for name in tensors:
        kinds.setdefault(re.sub(r"blocks\.\d+\.", "", name), []).append(name)
    print(f"  {'tensor':24} {'layer':>5} {'sinkref':>9} {'HF fp32':>9} {'ratio':>6} {'above 1':>9}")
    for kind, names in kinds.items():
        ratios = {name: ratio(tensors[name]["rms"], tensors[name]["hf_rms"]) for name in names}
        worst = max(names, key=ratios.get)
        layer = re.match(r"blocks\.(\d+)\.", worst)
        above = f"{sum(r > 1 for r in ratios.values())} of {len(names)}"
        print(f"  {kind:24} {layer[1] if layer else '':>5} {tensors[worst]['rms']:9.2e} {tensors[worst]['hf_rms']:9.2e} "
              f"{ratios[worst]:6.2f} {above:>9}")


def print_positions(result: dict) -> None:
    """The logits' error along the prompt, in five stretches."""
    logits = result["tensors"]["logits"]
    parts = [part for part in np.array_split(np.arange(len(result["positions"])), 5) if len(part)]
    print("  logits by position: " + ", ".join(
        f"{result['positions'][part[0]]}-{result['positions'][part[-1]]} "
        f"{np.mean([logits['by_position'][i] for i in part]):.1e}/{np.mean([logits['hf_by_position'][i] for i in part]):.1e}"
        for part in parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a Hugging Face folder or .gguf file with a tokenizer")
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--inputs", default="text,repeats,sinks")
    parser.add_argument("--json", type=Path, help="file to write every number to")
    arguments = parser.parse_args()
    hf_model = load(arguments.model)
    all_inputs = inputs(arguments.model, arguments.repeats)
    unknown = set(arguments.inputs.split(",")) - set(all_inputs)
    if unknown:
        parser.error(f"--inputs {', '.join(sorted(unknown))}: expected some of {', '.join(all_inputs)}")
    results, worse = {}, 0
    for name in arguments.inputs.split(","):
        results[name] = compare(arguments.model, hf_model, all_inputs[name])
        print(f"{name}, {results[name]['length']} tokens")
        print_tensors(results[name]["tensors"])
        print_positions(results[name])
        worse += sum(t["rms"] > t["hf_rms"] for t in results[name]["tensors"].values())
    count = sum(len(r["tensors"]) for r in results.values())
    print(f"{count - worse} of {count} tensors have an rms error no larger than Hugging Face's")
    if arguments.json:
        arguments.json.write_text(json.dumps({"model": arguments.model.name, "inputs": results}) + "\n")
    return 0 if worse == 0 else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"measure_error.py: {error}", file=sys.stderr)
        sys.exit(2)
