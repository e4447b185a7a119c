#!/usr/bin/env python3
"""Errors against proved values: of sinkref in fp32 and fp64, and of Hugging Face in fp32 (eager, sdpa), float64 and bf16.

    build/venv/bin/python tools/bench/measure_proved.py reference_outputs/tiny_llama3 --tokens 1,5,9,7x5

`sinkref certify --digits` encloses the residual stream after every block but the last, and the logits; what each
implementation gives is compared with that. The errors are largest and rms, in units of the tensor's rms (the worst
tensor) and of the fp32 number's last place (over all values); "rounded" is the share of values that are the correctly
rounded ones, of float64 once rounded to fp32. Hugging Face is compared with the real numbers of its own fp32 table of cos
and sin, which PyTorch does not round correctly; the first line says what that table alone changes.
`--trace NAME=FILE` adds a trace of any other engine (tools/capture), compared as sinkref is.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))

from hf_runs import Numbers, UserError, exact, load, narrowed

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 30


def sinkref(*arguments: str | Path) -> None:
    done = subprocess.run([ROOT / "build" / "sinkref", *map(str, arguments), "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(done.stderr.strip())


class Proved:
    """The real numbers as a double and what it leaves, and their fp32 rounding."""

    def __init__(self, common: list[str | Path], hooks: str, file: Path, *arguments: str | Path):
        getcontext().prec = DIGITS + 10
        sinkref("certify", *common, "--hooks", hooks, "--digits", str(DIGITS), "--out", file, *arguments)
        self.rounded = {name: values.reshape(-1) for name, values in load_file(file).items() if name != "tokens"}
        self.high, self.low = {}, {}
        for line in Path(f"{file}.digits.jsonl").read_text().splitlines():
            entry = json.loads(line)
            exactly = [Decimal(text.strip("[]").split(" +/-")[0]) for text in entry["values"]]
            high = np.array([float(x) for x in exactly])
            self.high[entry["tensor"]] = high
            self.low[entry["tensor"]] = np.array([float(x - Decimal(h)) for x, h in zip(exactly, high.tolist())])


@dataclass
class Errors:
    """Largest and rms in units of the tensor's rms (the worst tensor), and of the last place (over all values)."""

    worst: float
    rms: float
    ulps: float
    rms_ulps: float
    right: int  # correctly rounded
    count: int


def errors(name: str, theirs: dict[str, np.ndarray], proved: Proved) -> Errors:
    worst = rms = ulps = squares = 0.0
    right = count = 0
    for tensor, high in proved.high.items():
        values = theirs[tensor].astype(np.float64).reshape(-1)
        if values.shape != high.shape or not np.isfinite(values).all():
            raise UserError(f"{name}: {tensor} has another shape, or values that are no numbers")
        error = np.abs((values - high) - proved.low[tensor])
        scale = np.sqrt(np.square(high).mean())
        worst = max(worst, error.max() / scale)
        rms = max(rms, np.sqrt(np.square(error).mean()) / scale)
        place = error / np.spacing(np.abs(proved.rounded[tensor])).astype(np.float64)
        ulps = max(ulps, place.max())
        squares += np.square(place).sum()
        right += int((values.astype(np.float32) == proved.rounded[tensor]).sum())
        count += len(values)
    return Errors(worst, rms, ulps, float(np.sqrt(squares / count)), right, count)


def compare(name: str, theirs: dict[str, np.ndarray], proved: Proved) -> None:
    e = errors(name, theirs, proved)
    print(f"{name:34} {e.worst:9.1e} {e.rms:9.1e} {e.ulps:9.1e} {e.rms_ulps:9.1e} {100 * e.right / e.count:9.3f} % "
          f"{e.count - e.right:9d}", flush=True)


def hugging_face(model, tokens: list[int], attention: str = "eager") -> dict[str, np.ndarray]:
    model.set_attn_implementation(attention)
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    model.set_attn_implementation("eager")
    values = {f"blocks.{layer}.hook_resid_post": h for layer, h in enumerate(out.hidden_states[1:-1])}
    return {name: x.to(torch.float64).numpy() for name, x in (values | {"logits": out.logits}).items()}


def load_model(path: Path) -> PreTrainedModel:
    """GGUF stores RMSNorm's eps in fp32: transformers takes 9.99999975e-06 where config.json, and sinkref, say 1e-05."""
    model = load(path)
    if path.suffix == ".gguf":
        for module in model.modules():
            if hasattr(module, "variance_epsilon"):
                module.variance_epsilon = float(str(np.float32(module.variance_epsilon)))
    return model


def hooks_of(model) -> str:
    """What hugging_face() gives."""
    layers = model.config.num_hidden_layers
    return ",".join([f"blocks.{layer}.hook_resid_post" for layer in range(layers - 1)] + ["logits"])


def table_of(model, length: int) -> dict[str, np.ndarray]:
    """cos and sin as the model's rotary module makes them."""
    cosine, sine = model.model.rotary_emb(torch.zeros(1), torch.arange(length)[None])
    half = cosine.shape[-1] // 2
    return {name: x[0, :, :half].float().contiguous().numpy() for name, x in (("cos", cosine), ("sin", sine))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", required=True, help="ids as for sinkref: 1,5,9,7x5")
    parser.add_argument("--trace", action="append", default=[], metavar="NAME=FILE", help="another engine's trace of them")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    hooks = hooks_of(model)
    common = ["--model", arguments.model, "--tokens", arguments.tokens]
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        folder = Path(name)
        stored = Proved(common, hooks, folder / "stored.safetensors")
        tokens = load_file(folder / "stored.safetensors")["tokens"].reshape(-1).tolist()
        save_file(table_of(model, len(tokens)), folder / "table.safetensors")
        own = Proved(common, hooks, folder / "own.safetensors", "--rope", folder / "table.safetensors")
        real = Proved(common, hooks, folder / "real.safetensors", "--rope", "real")
        print(f"{'':34} {'max/rms':>9} {'rms/rms':>9} {'max ulp':>9} {'rms ulp':>9} {'rounded':>11} {'not':>9}")
        compare("PyTorch's table, as real numbers", own.high, stored)
        compare("real angles, as real numbers", real.high, stored)
        for precision in ("fp32", "fp64"):
            file = folder / f"{precision}.safetensors"
            sinkref("trace", *common, "--hooks", hooks, "--precision", precision, "--out", file)
            compare(f"sinkref {precision}", load_file(file), stored)
        compare("HF fp32, eager", hugging_face(model, tokens), own)
        compare("HF fp32, sdpa", hugging_face(model, tokens, "sdpa"), own)
        compare("HF float64 as shipped", hugging_face(narrowed(copy.deepcopy(model), torch.float64), tokens), own)
        with Numbers(lambda scores, pattern: None):
            compare("HF true float64 (the goldens)", hugging_face(exact(model), tokens), own)
        compare("HF bf16", hugging_face(narrowed(copy.deepcopy(model), torch.bfloat16), tokens), own)
        for given in arguments.trace:
            name, _, file = given.partition("=")
            compare(name, load_file(file), stored)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"measure_proved.py: {error}", file=sys.stderr)
        sys.exit(2)
