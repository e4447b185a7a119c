#!/usr/bin/env python3
"""No false alarms: correct runs of other engines must agree within rounding.

Hugging Face in fp32 (eager, sdpa, one token at a time), bf16 and fp16; with the packages of
tools/requirements-engines.txt also TransformerLens and llama.cpp (fp32 and fp16 cache). Prompts are text, runs of
one token, and mixtures of both.

    test_verify_engines.py             three prompts for each tiny model and engine
    test_verify_engines.py --full      thirty prompts, also on SmolLM2-135M, where one of them has 1,000 repeats
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "reference"), str(ROOT / "tools" / "capture")]

import torch

import hf_runs
from hf import capture
from test_verify_faults import SMOLLM2, verify

OUTPUTS = ROOT / "reference_outputs"
TINY = ["tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"]
HF = [("eager", torch.float32), ("sdpa", torch.float32), ("decode", torch.float32),
      ("eager", torch.bfloat16), ("eager", torch.float16)]
REPEATS = 1000
# Of so long a prompt, all attention maps would be gigabytes: those of three blocks, and the rest without them.
LONG = ("hook_embed,*.hook_resid_*,*.hook_attn_out,*.hook_mlp_out,*.hook_scale,*.hook_normalized,*.mlp.hook_*,"
        "*.attn.hook_rot_?,*.attn.hook_v,*.attn.hook_z,logits,blocks.0.*,blocks.14.*,blocks.29.*")


@dataclass
class Prompt:
    tokens: list[int]
    hooks: str = "*"


def tiny_prompts(count: int, vocabulary: int, longest: int) -> list[Prompt]:
    """Pseudo-random text, a run after a few tokens, and both; the first of them one token long."""
    rng = random.Random(20)
    some = lambda n: [rng.randrange(3, vocabulary) for _ in range(n)]
    kinds = [lambda n: some(n), lambda n: some(3) + some(1) * (n - 3), lambda n: some(n // 2) + some(1) * (n // 2)]
    made = [some(1)]
    while len(made) < count:
        made.append(kinds[len(made) % 3](rng.randrange(5, longest)))
    return [Prompt(tokens) for tokens in made]


def smollm2_prompts(count: int) -> list[Prompt]:
    """Passages of the README, with runs of one token behind every other, and 1,000 repeats."""
    tokenizer = hf_runs.tokenizer(SMOLLM2)
    words = tokenizer((ROOT / "README.md").read_text())["input_ids"]
    rng = random.Random(21)
    made = [Prompt([tokenizer.bos_token_id]),
            Prompt(words[:8] + tokenizer(" the")["input_ids"] * REPEATS, LONG)]
    while len(made) < count:
        begin, length = rng.randrange(len(words) - 60), rng.randrange(4, 60)
        run = [words[begin]] * rng.randrange(5, 100) if len(made) % 2 else []
        made.append(Prompt(words[begin : begin + length] + run))
    return made


class Tally:
    """Runs of one engine: false alarms, and the largest error over its budget and where."""

    def __init__(self) -> None:
        self.runs = self.alarms = 0
        self.worst = (0.0, "")

    def line(self) -> str:
        return (f"{self.runs:4} runs, {self.alarms} false alarms, largest error {self.worst[0]:.2f} of its budget "
                f"({self.worst[1]})")

    def add(self, what: str, path: Path, trace: Path) -> None:
        _, report = verify(path, trace, [])
        ratios = [(t["worst"][kind] / t["worst"][f"{kind}_budget"], f"{kind} of {t['tensor']}, {what}")
                  for t in report["tensors"] for kind in ("local", "propagated") if t["worst"][kind]]
        self.runs += 1
        self.worst = max([self.worst, *ratios])
        if sys.stderr.isatty():
            print(f"{what}: {len(report['tensors'])} tensors", file=sys.stderr)
        if report["verdict"] != "agree":
            self.alarms += 1
            first = report["first"] or {}
            print(f"ALARM {what}: {first.get('tensor')} token {first.get('token')} local {first.get('local')} of "
                  f"{first.get('local_budget')}, propagated {first.get('propagated')} of "
                  f"{first.get('propagated_budget')} {report['problems']}", flush=True)


Tallies = dict[str, Tally]


def hugging_face(path: Path, prompts: list[Prompt], scratch: Path, tallies: Tallies) -> None:
    trace = scratch / "theirs.safetensors"
    for way, dtype in HF:
        model = hf_runs.narrowed(hf_runs.load(path), dtype)
        model.set_attn_implementation("sdpa" if way == "sdpa" else "eager")
        name = f"HF {way} {dtype}".replace("torch.", "")
        for i, prompt in enumerate(prompts):
            hooks = prompt.hooks
            if way == "sdpa" and hooks != "*":  # it shows no attention
                hooks = hooks.partition(",blocks.0")[0]
            capture(model, prompt.tokens, trace, hooks, decode=way == "decode")
            tallies.setdefault(name, Tally()).add(f"{name} {path.name} prompt {i}", path, trace)
        print(f"{path.name}, {name}: so far {tallies[name].line()}", flush=True)


def transformer_lens(path: Path, prompts: list[Prompt], scratch: Path, tallies: Tallies) -> None:
    import transformerlens

    model = transformerlens.load(path)
    for i, prompt in enumerate(prompts):
        transformerlens.capture(model, prompt.tokens, scratch / "tl.safetensors", prompt.hooks)
        tallies.setdefault("TransformerLens", Tally()).add(f"TransformerLens {path.name} prompt {i}", path,
                                                           scratch / "tl.safetensors")
    print(f"{path.name}, TransformerLens: so far {tallies['TransformerLens'].line()}", flush=True)


def llama_cpp(path: Path, prompts: list[Prompt], scratch: Path, tallies: Tallies) -> None:
    import llamacpp
    import make_gguf

    model = hf_runs.load(path)
    if getattr(model.config, "sliding_window", None):  # llama.cpp's llama architecture has none
        return
    file = scratch / f"{path.stem}.fp32.gguf"
    make_gguf.write(model, file)
    for cache in ("f32", "f16"):
        name = f"llama.cpp, {cache} cache"
        for i, prompt in enumerate(prompts):
            llamacpp.capture(file, prompt.tokens, scratch / "llama.safetensors", cache, hooks=prompt.hooks)
            tallies.setdefault(name, Tally()).add(f"{name} {path.name} prompt {i}", file,
                                                  scratch / "llama.safetensors")
        print(f"{path.name}, {name}: so far {tallies[name].line()}", flush=True)


ENGINES = {"transformers": hugging_face, "transformer_lens": transformer_lens, "llama_cpp": llama_cpp}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--engines", action="store_true", help="fail if one of --only is not installed")
    parser.add_argument("--only", default=",".join(ENGINES), help=f"some of {','.join(ENGINES)}")
    parser.add_argument("--models", help="tiny models, or smollm2")
    parser.add_argument("--prompts", type=int, help="how many for each model and engine, instead of 3 or 30")
    args = parser.parse_args()
    there = [name for name in args.only.split(",") if importlib.util.find_spec(name)]
    if args.engines and there != args.only.split(","):
        print(f"test_verify_engines: only {there} of {args.only}; tools/setup.sh --engines installs them")
        return 2
    models = args.models.split(",") if args.models else TINY + ["smollm2"] * args.full
    tallies: Tallies = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            path = SMOLLM2 if name == "smollm2" else OUTPUTS / name
            count = args.prompts or (30 if args.full else 3)
            prompts = (smollm2_prompts(count) if name == "smollm2" else
                       tiny_prompts(count, hf_runs.load(path).config.vocab_size, 300 if args.full else 60))
            for engine in there:
                ENGINES[engine](path, prompts, Path(folder), tallies)
    for name, one in tallies.items():
        print(f"{name:22} {one.line()}")
    for name in args.only.split(","):
        if name not in there:
            print(f"{name:22} is not installed: not run")
    return 1 if any(one.alarms for one in tallies.values()) or not tallies else 0


if __name__ == "__main__":
    sys.exit(main())
