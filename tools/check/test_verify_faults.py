#!/usr/bin/env python3
"""Seeds faults into Hugging Face's own models and demands that `sinkref verify` finds and names them.

Each fault alters the code, the weights or the configuration of a model in memory; its run is captured
with tools/capture/hf.py and verified. Demanded: every fault is detected, its first divergent tensor is
right, at least 80 % are named right, and none is named wrongly with certainty.

    test_verify_faults.py            the tiny models
    test_verify_faults.py --smollm2  some of them on SmolLM2-135M too
    test_verify_faults.py --models tiny_llama2 --only "rope pairs neighbours" --write theirs.safetensors
                                     the trace of one fault, to see what verify says of it
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "reference"), str(ROOT / "tools" / "capture")]

from transformers import PreTrainedModel

import hf_runs
from hf import capture
from verify_faults import Fault, faults_of

SINKREF = ROOT / "build" / "sinkref"
OUTPUTS = ROOT / "reference_outputs"
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def verify(path: Path, trace: Path, arguments: list[str]) -> tuple[int, dict]:
    command = [SINKREF, "verify", "--model", path, "--candidate", trace, "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr}")
    return done.returncode, json.loads(done.stdout)


def seed(original: PreTrainedModel, fault: Fault, trace: Path) -> None:
    model = copy.deepcopy(original)
    context = fault.apply(model)
    with context if hasattr(context, "__enter__") else nullcontext():
        capture(model, fault.tokens, trace, fault.hooks, metadata=fault.metadata)


def run(path: Path, scratch: Path, only: str) -> list[tuple[bool, bool, bool, bool]]:
    """Per fault: detected, first tensor right, named right, wrong name as certain."""
    original = hf_runs.load(path)
    results = []
    for fault in faults_of(original):
        if only not in fault.name:
            continue
        trace = scratch / "theirs.safetensors"
        seed(original, fault, trace)
        exit_code, report = verify(path, trace, fault.arguments)
        first = (report["first"] or {}).get("tensor")
        named = [(d["fault"], d["certainty"]) for d in report["diagnosis"]]
        detected = exit_code == 1 and report["verdict"] == "differ"
        right = bool(named) and named[0][0] == fault.slug
        wrong = any(name != fault.slug and certainty == "certain" for name, certainty in named)
        results.append((detected, first == fault.first, right, wrong))
        mark = "ok  " if all((detected, first == fault.first, right, not wrong)) else "BAD "
        print(f"{mark} {path.name:14} {fault.name:30} first {first} named {named}", flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny_llama1,tiny_llama2,tiny_llama3,tiny_mistral")
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the trace of the one fault chosen, and stop")
    args = parser.parse_args()
    paths = [OUTPUTS / name for name in args.models.split(",") if name]
    if args.write:
        original = hf_runs.load(paths[0])
        chosen = [fault for fault in faults_of(original) if args.only in fault.name]
        if len(paths) != 1 or len(chosen) != 1:
            parser.error("--write takes one model and the name of one fault, not "
                         f"{len(paths)} and {[fault.name for fault in chosen]}")
        seed(original, chosen[0], args.write)
        return 0
    if args.smollm2:
        paths.append(SMOLLM2)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in paths:
            results += run(path, Path(scratch), args.only)
    detected, first, named, wrong = (sum(column) for column in zip(*results))
    n = len(results)
    print(f"{n} faults: {detected} detected, {first} at the right tensor, {named} named right, "
          f"{wrong} named wrongly as certain")
    return 0 if n and detected == n and first == n and named >= 0.8 * n and wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
