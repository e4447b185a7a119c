#!/usr/bin/env python3
"""Runs Hugging Face transformers on a prompt and writes a golden file: the truth and its noise floor.

The tensors are the truth, float64: Hugging Face's own modules with RMSNorm and softmax kept from
going through fp32, and its fp32 cos and sin tables, which belong to the model. Names and shapes are
TransformerLens's. `mlp.hook_pre_linear` is what the MLP goes on with, so after the patch.

The metadata's `floor` says how far Hugging Face's own fp32 is from that truth. One evaluation is one
draw of a lottery, so a pool of equally valid ones is run: eager, sdpa, one token at a time with a
cache, eager in a batch of copies, and eager with shuffled residual channels and neurons. For each tensor and measure:

  rms, max   of the error over the whole tensor, in the tensor's unit
  row_max    the worst row's rms error divided by that row's rms in the truth (a row is a last axis)
  row_rms    the same ratio, rms over the rows

each as `eager_*` (HF eager prefill) and `pool_*` (largest of the pool; sdpa shows no scores, so it is
missing from the pool of scores and patterns). Masked scores are left out. Two tensors are scaled
otherwise, as `scale` says: a score may cancel to nothing and only differences of scores matter, so
rows of scores are divided by the rms of the whole tensor; in norms every element is its own row.

examples:
  hf_golden.py reference_outputs/tiny_llama1 --tokens 1,5,9,7x8 --new-tokens 8 --out golden.safetensors
  hf_golden.py SmolLM2.gguf --tokens 504,3575,260x300 --compact --positions last:2 --out golden.safetensors
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import json
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
import transformers

import hf_runs
from hf_runs import PatchSpec, Request, UserError

PROGRAM = "hf_golden 1"
# How many shuffled copies. A one-token prompt's hook_scale is a single number, whose error is a
# single draw: many orders are needed to see how large it may be. More rows average by themselves,
# and each copy of a large model takes its whole memory.
SHUFFLED_ONE_TOKEN, SHUFFLED_SMALL, SHUFFLED_LARGE = 96, 24, 8
SMALL_MODEL = 10_000_000  # parameters
BATCH = 4  # copies of the prompt: other row counts take other kernels, and so other orders of sums
COMPACT = ["blocks.*.hook_resid_post.norm", "blocks.*.hook_attn_out.norm", "blocks.*.hook_mlp_out.norm", "logits"]


# ----------------------------------------------------------------------------------- the input


def parse_tokens(text: str) -> list[int]:
    """`1,5,7x3` -> [1, 5, 7, 7, 7]."""
    tokens: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", item.strip())
        if not match:
            raise UserError(f"--tokens: {item!r} is neither an id nor IDxCOUNT")
        tokens += [int(match[1])] * int(match[2] or 1)
    return tokens


def read_tokens(args: argparse.Namespace, vocabulary: int) -> torch.Tensor:
    """[b,p] int64 from --tokens or --tokens-file; rows must be of equal length, as nothing is padded."""
    rows = [parse_tokens(args.tokens)] if args.tokens else json.loads(args.tokens_file.read_text())
    if rows and isinstance(rows[0], int):
        rows = [rows]
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise UserError("tokens: expected one prompt, or several of one length")
    tokens = torch.tensor(rows, dtype=torch.int64)
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise UserError(f"tokens: ids must be in 0..{vocabulary - 1}, found {int(tokens.min())}..{int(tokens.max())}")
    return tokens


def parse_positions(text: str, length: int) -> list[int]:
    """`all`, `last:4` or `0,19,319` -> positions in ascending order."""
    if text == "all":
        return list(range(length))
    if match := re.fullmatch(r"last:(\d+)", text):
        return list(range(length))[-int(match[1]):]
    if not re.fullmatch(r"\d+(,\d+)*", text) or max(map(int, text.split(","))) >= length:
        raise UserError(f"--positions {text}: expected all, last:N or a list of positions below {length}")
    return sorted(set(map(int, text.split(","))))


def hook_filter(globs: list[str]) -> Callable[[str], bool]:
    """A derived `.norm` tensor has to be asked for by a glob that ends so; `*` means the hooks."""
    patterns = [(glob.endswith(".norm"), re.compile(fnmatch.translate(glob))) for glob in globs]

    @functools.cache
    def wants(name: str) -> bool:
        return any(norm == name.endswith(".norm") and pattern.match(name) for norm, pattern in patterns)

    return wants


# ----------------------------------------------------------------------------------- the floor


def row_scale(name: str) -> str:
    """What a row's error is divided by: the row's own rms, the element, or the whole tensor's rms."""
    if name.endswith(".norm"):
        return "element"
    return "tensor" if name.endswith("hook_attn_scores") else "row"


def rms(x: np.ndarray, count: np.ndarray | int, axis: int | None = None) -> np.ndarray:
    return np.sqrt(np.square(x).sum(axis=axis) / count)


def errors(name: str, truth: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """The four measures of `measured` (fp32) against `truth` (float64) of one shape; see the file's head."""
    if truth.shape != measured.shape or not np.array_equal(np.isfinite(truth), np.isfinite(measured)):
        raise UserError(f"{name}: fp32 and float64 runs differ in shape or in what is masked: a bug in this tool")
    finite = np.isfinite(truth)
    true = np.where(finite, truth, 0)
    error = np.where(finite, measured.astype(np.float64), 0) - true
    if row_scale(name) == "element":
        true, error, finite = true[..., None], error[..., None], finite[..., None]
    width = finite.sum(axis=-1)
    row_error, row_rms = rms(error, width, -1), rms(true, width, -1)
    if row_scale(name) == "tensor":
        row_rms = np.full_like(row_rms, rms(true, finite.sum()))
    ratio = np.divide(row_error, row_rms, out=np.zeros_like(row_error), where=row_error > 0)
    return {
        "rms": float(rms(error, finite.sum())),
        "max": float(np.abs(error).max()),
        "row_max": float(ratio.max()),
        "row_rms": float(rms(ratio, ratio.size)),
    }


def floor_of(name: str, truth: np.ndarray, pool: dict[str, dict[str, np.ndarray]]) -> dict[str, object]:
    """One tensor's entry of the floor: eager's own errors and the pool's largest."""
    measured = {variant: errors(name, truth, run[name]) for variant, run in pool.items() if name in run}
    entry: dict[str, object] = {"scale": row_scale(name)}
    for key in ("rms", "max", "row_max", "row_rms"):
        entry[f"eager_{key}"] = float(f"{measured['eager'][key]:.6g}")
        entry[f"pool_{key}"] = float(f"{max(m[key] for m in measured.values()):.6g}")
    return entry


# ------------------------------------------------------------------------------------ the runs


@dataclass
class Models:
    """One checkpoint as fp32, as float64 and as shuffled fp32 copies."""

    fp32: transformers.PreTrainedModel
    truth: transformers.PreTrainedModel
    shuffled: list[tuple[transformers.PreTrainedModel, hf_runs.Order]]
    sha256: str


@functools.lru_cache(maxsize=1)
def load_models(path: Path, with_shuffled: bool) -> Models:
    fp32 = hf_runs.load(path)
    small = fp32.num_parameters() < SMALL_MODEL
    copies = (SHUFFLED_ONE_TOKEN if small else SHUFFLED_LARGE) if with_shuffled else 0
    shuffled = [hf_runs.permuted(fp32, seed) for seed in range(1, copies + 1)]
    return Models(fp32, hf_runs.exact(fp32), shuffled, hf_runs.require_same_weights(fp32, path))


def evaluate_pool(models: Models, request: Request, eager_only: bool) -> dict[str, dict[str, np.ndarray]]:
    """{variant: {hook name: fp32 array}} of the equally valid fp32 evaluations."""
    pool = {"eager": hf_runs.record(models.fp32, request)}
    if eager_only:
        return pool
    pool |= {
        "sdpa": hf_runs.record(models.fp32, request, attention="sdpa"),
        "decode": hf_runs.record(models.fp32, request, chunk=1),
        "batched": hf_runs.record_in_batch(models.fp32, request, BATCH),
    }
    copies = models.shuffled if request.tokens.shape[1] == 1 else models.shuffled[:SHUFFLED_SMALL]
    for index, (model, order) in enumerate(copies, start=1):
        pool[f"shuffled{index}"] = hf_runs.record(model, request, order=order)
    return pool


def greedy(models: Models, request: Request, count: int) -> dict[str, np.ndarray]:
    if count == 0:
        return {}
    tokens, _ = hf_runs.generate(models.fp32, request, count)
    true_tokens, gaps = hf_runs.generate(models.truth, request, count)
    return {"generated": tokens, "generated_fp64": true_tokens, "generated_margin": gaps}


# ------------------------------------------------------------------------------------ the file


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, str]:
    """What could change a bit of the file: versions and CPU, but no time, path or thread count."""
    return {
        "program": PROGRAM,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def config_json(model: transformers.PreTrainedModel) -> str:
    config = model.config.to_dict()
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    return json.dumps(config, sort_keys=True)


def command_line(argv: list[str]) -> str:
    """The arguments with every path cut to its last part."""
    return " ".join(["hf_golden.py"] + [Path(a).name if os.sep in a else a for a in argv])


def serialized(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes depend on the content only.

    The library writes the metadata in an order that changes from run to run. Wide types come first, which
    keeps every tensor aligned.
    """
    types = {"float64": "F64", "float32": "F32", "int64": "I64"}
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    data = []
    begin = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        end = begin + tensor.nbytes
        header[name] = {"dtype": types[tensor.dtype.name], "shape": tensor.shape, "data_offsets": [begin, end]}
        data.append(tensor.tobytes())
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data)


def write_file(path: Path, content: bytes) -> None:
    """Writes beside the target and renames, so that nothing half-written stays behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hf_golden.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="Hugging Face folder or .gguf file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens", help="ids, IDxCOUNT repeats one: 1,5,7x300")
    source.add_argument("--tokens-file", type=Path, help="JSON list of ids, or of lists of one length")
    parser.add_argument("--hooks", help="globs of tensors to keep, default '*'; with --compact: to keep as well")
    parser.add_argument("--compact", action="store_true",
                        help="keep the logits, and the norms of resid_post, attn_out and mlp_out at every position")
    parser.add_argument("--positions", default="all",
                        help="rows to keep of every tensor but tokens and norms: all, last:N or 0,19,319")
    parser.add_argument("--patch", type=PatchSpec.parse, help="LAYER:N1,N2, the paper's patch of these neurons")
    parser.add_argument("--new-tokens", type=int, default=0, help="greedy tokens to generate (eos does not stop)")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    return parser.parse_args(argv)


def wanted_globs(args: argparse.Namespace) -> list[str]:
    asked = args.hooks.split(",") if args.hooks else []
    return COMPACT + asked if args.compact else asked or ["*"]


def run(argv: list[str], eager_only: bool = False) -> Path:
    """Writes the golden that `argv` asks for; `eager_only` leaves the rest of the pool out."""
    args = parse_arguments(argv)
    models = load_models(args.model, not eager_only)
    tokens = read_tokens(args, models.fp32.config.vocab_size)
    if args.patch:
        args.patch.check(models.fp32)
    globs, positions = wanted_globs(args), parse_positions(args.positions, tokens.shape[1])
    request = Request(tokens, hook_filter(globs), positions, args.patch)

    truth = hf_runs.record(models.truth, request)
    pool = evaluate_pool(models, request, eager_only)
    for glob in globs:
        if not fnmatch.filter(truth, glob):
            raise UserError(f"--hooks {glob}: matches no tensor of this model")
    floor = {name: floor_of(name, truth[name], pool) for name in truth}
    tensors = {
        "tokens": tokens.numpy(),
        "rope.inv_freq": models.fp32.model.rotary_emb.inv_freq.numpy(),
        **truth,
        **greedy(models, request, args.new_tokens),
    }
    metadata = environment() | {
        "precision": "float64",
        "model": args.model.name,
        "weights_sha256": models.sha256,
        "config": config_json(models.fp32),
        "command": command_line(argv),
        "patch": str(args.patch) if args.patch else "none",
        "positions": json.dumps(positions),
        "floor": json.dumps(floor, sort_keys=True),
        "floor_pool": json.dumps(list(pool)),
    }
    write_file(args.out, serialized(tensors, metadata))
    return args.out


def main(argv: list[str]) -> int:
    try:
        path = run(argv)
    except (UserError, OSError, json.JSONDecodeError) as error:
        print(f"hf_golden: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
