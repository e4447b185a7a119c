#!/usr/bin/env python3
"""No false alarms: correct runs of other engines must agree within rounding.

Hugging Face in fp32 (eager, sdpa, one token at a time) and in bf16 and fp16 on the tiny models; with the
packages of tools/requirements-engines.txt also TransformerLens and llama.cpp (fp32 and fp16 cache). Prompts
are pseudo-random text, runs of one token and mixtures.

    test_verify_engines.py             three prompts for each model and engine
    test_verify_engines.py --full      thirty prompts, and SmolLM2-135M with up to 1,000 repeats
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools" / "capture")]

import torch

import hf_runs
from hf import capture
from test_verify_faults import verify

OUTPUTS = ROOT / "reference_outputs"
TINY = ["tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"]
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
HF = [("eager", torch.float32), ("sdpa", torch.float32), ("decode", torch.float32),
      ("eager", torch.bfloat16), ("eager", torch.float16)]


def prompts(count: int, vocabulary: int, longest: int) -> list[list[int]]:
    """Text, a run after a few tokens, and both; the first of them one token long."""
    rng = random.Random(20)
    some = lambda n: [rng.randrange(3, vocabulary) for _ in range(n)]
    kinds = [lambda n: some(n), lambda n: some(3) + some(1) * (n - 3), lambda n: some(n // 2) + some(1) * (n // 2)]
    made = [some(1)]
    while len(made) < count:
        made.append(kinds[len(made) % 3](rng.randrange(5, longest)))
    return made


class Tally:
    def __init__(self) -> None:
        self.runs = self.alarms = 0
        self.worst = 0.0

    def add(self, what: str, path: Path, trace: Path) -> None:
        _, report = verify(path, trace, [])
        ratios = [t["worst"][kind] / t["worst"][f"{kind}_budget"] for t in report["tensors"]
                  for kind in ("local", "propagated") if t["worst"][kind]]
        self.runs += 1
        self.worst = max([self.worst, *ratios])
        if report["verdict"] != "agree":
            self.alarms += 1
            first = report["first"] or {}
            print(f"ALARM {what}: {first.get('tensor')} token {first.get('token')} local {first.get('local')} of "
                  f"{first.get('local_budget')}, propagated {first.get('propagated')} of "
                  f"{first.get('propagated_budget')} {report['problems']}", flush=True)


def hugging_face(path: Path, lists: list[list[int]], scratch: Path, tally: dict[str, Tally], variants: list) -> None:
    trace = scratch / "theirs.safetensors"
    for way, dtype in variants:
        model = hf_runs.load(path).to(dtype)
        model.set_attn_implementation("sdpa" if way == "sdpa" else "eager")
        name = f"HF {way} {dtype}".replace("torch.", "")
        for i, tokens in enumerate(lists):
            capture(model, tokens, trace, decode=way == "decode")
            tally.setdefault(name, Tally()).add(f"{name} {path.name} prompt {i}", path, trace)


def transformer_lens(path: Path, lists: list[list[int]], scratch: Path, tally: dict[str, Tally]) -> None:
    import transformerlens

    model = transformerlens.load(path)
    for i, tokens in enumerate(lists):
        transformerlens.capture(model, tokens, scratch / "tl.safetensors")
        tally.setdefault("TransformerLens", Tally()).add(f"TransformerLens {path.name} prompt {i}", path,
                                                         scratch / "tl.safetensors")


def llama_cpp(path: Path, lists: list[list[int]], scratch: Path, tally: dict[str, Tally]) -> None:
    import llamacpp
    import make_gguf

    file = scratch / f"{path.stem}.fp32.gguf"
    make_gguf.write(hf_runs.load(path), file)
    for cache in ("f32", "f16"):
        for i, tokens in enumerate(lists):
            llamacpp.capture(file, tokens, scratch / "llama.safetensors", cache)
            name = f"llama.cpp, {cache} cache"
            tally.setdefault(name, Tally()).add(f"{name} {path.name} prompt {i}", file, scratch / "llama.safetensors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--engines", action="store_true", help="fail if TransformerLens or llama-cpp-python is not there")
    parser.add_argument("--models", default=",".join(TINY))
    args = parser.parse_args()
    engines = {"transformer_lens": (transformer_lens, TINY), "llama_cpp": (llama_cpp, TINY[:3])}
    there = [name for name in engines if importlib.util.find_spec(name)]
    if args.engines and len(there) < len(engines):
        print(f"test_verify_engines: only {there} of {list(engines)}; tools/setup.sh --engines installs them")
        return 2
    tally: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in args.models.split(","):
            path = OUTPUTS / name
            lists = prompts(30 if args.full else 3, hf_runs.load(path).config.vocab_size, 300 if args.full else 60)
            hugging_face(path, lists, scratch, tally, HF)
            for engine in there:
                run, models = engines[engine]
                if name in models:
                    run(path, lists[: 6 if args.full else 2], scratch, tally)
        if args.full:
            text = [504, 3575, 282, 260, 2240, 314, 7042, 30]
            lists = [text, text + [260] * 300, text + [260] * 1000]
            hugging_face(SMOLLM2, lists[:2], scratch, tally, HF)
            hugging_face(SMOLLM2, lists[2:], scratch, tally, HF[:2])
            if "llama_cpp" in there:
                llama_cpp(SMOLLM2, lists[:2], scratch, tally)
    for name, one in tally.items():
        print(f"{name:22} {one.runs:4} runs, {one.alarms} false alarms, largest error {one.worst:.2f} of its budget")
    for name in engines.keys() - set(there):
        print(f"{name:22} is not installed: not run")
    return 1 if any(one.alarms for one in tally.values()) or not tally else 0


if __name__ == "__main__":
    sys.exit(main())
