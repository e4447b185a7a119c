#!/usr/bin/env python3
"""Writes what Hugging Face's LLaMA or Mistral computes as a trace for `sinkref verify`.

    hf.py MODEL --tokens 1,5,9,7x8 --out theirs.safetensors
    sinkref verify --model MODEL --candidate theirs.safetensors

For a model that you have altered in memory (your kernel, your patch, your port), call it from Python:

    from hf import capture
    capture(model, tokens, "theirs.safetensors")

Only forward hooks are used: the numbers are those of the modules as they are.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "reference")]

import torch
from transformers import DynamicCache, PreTrainedModel

import hf_runs
from trace_file import TYPES, parse_tokens, save


class TraceRecorder(hf_runs.Recorder):
    """Keeps tensors as they are: fp16 and bf16 too, which numpy has no or little use for."""

    def append(self, name: str, x: torch.Tensor) -> None:
        self.pieces.setdefault(name, []).append(x.clone())

    def tensors(self) -> dict[str, torch.Tensor]:
        axis = lambda name: 2 if name.endswith(("hook_attn_scores", "hook_pattern")) else 1
        return {name: torch.cat(pieces, dim=axis(name)) for name, pieces in self.pieces.items()}


def capture(model: PreTrainedModel, tokens: list[int] | list[list[int]], out: str | Path, hooks: str = "*",
            decode: bool = False, metadata: dict[str, str] | None = None) -> None:
    """Runs `tokens` (one prompt, or several of one length) and writes the trace to `out`.

    `hooks`: comma-separated globs of the names to keep. `decode`: one token at a time with a KV cache.
    """
    batch = tokens if isinstance(tokens[0], list) else [tokens]
    ids = torch.tensor(batch)
    globs = hooks.split(",")
    wants = lambda name: not name.endswith(".norm") and any(fnmatch.fnmatchcase(name, g) for g in globs)
    recorder = TraceRecorder(model, wants, ids.shape[1], list(range(ids.shape[1])))
    cache = DynamicCache(config=model.config) if decode else None
    with torch.no_grad(), recorder.recording():
        for part in ids.split(1 if decode else ids.shape[1], dim=1):
            model(part, past_key_values=cache, use_cache=decode)
    tensors = {"tokens": ids, **recorder.tensors()}
    rotary = getattr(model.model, "rotary_emb", None)
    if rotary is not None:
        tensors["rope.inv_freq"] = rotary.inv_freq.float()
    asked = [] if hooks == "*" else [("hooks", hooks)]  # sdpa shows no scores: "*" means what there is
    config = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
    about = {"engine": "transformers", "dtype": TYPES[model.dtype], "config": config, **dict(asked)}
    save(Path(out), tensors, about | (metadata or {}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Hugging Face folder or .gguf file")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--tokens", help="ids, IDxCOUNT repeats one: 1,5,7x300")
    text.add_argument("--prompt", help="text, by the model's own tokenizer")
    parser.add_argument("--hooks", default="*", help="globs of names to keep")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--attention", default="eager", choices=["eager", "sdpa"], help="sdpa shows no scores")
    parser.add_argument("--decode", action="store_true", help="one token at a time with a KV cache")
    parser.add_argument("--weights-hash", action="store_true", help="say which weights these are (reads them all)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        model = hf_runs.load(args.model)
    except hf_runs.UserError as error:
        print(f"hf.py: {error}", file=sys.stderr)
        return 2
    about = {"model": args.model.name}
    if args.weights_hash:
        about["weights_sha256"] = hf_runs.model_sha256(model)
    hf_runs.narrowed(model, getattr(torch, args.dtype)).set_attn_implementation(args.attention)
    tokens = parse_tokens(args.tokens) if args.tokens else hf_runs.tokenizer(args.model)(args.prompt)["input_ids"]
    capture(model, tokens, args.out, args.hooks, args.decode, about)
    print(f"{args.out}: {args.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
