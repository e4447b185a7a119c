#!/usr/bin/env python3
"""Makes every golden file of reference_outputs/ and its MANIFEST.json: `JOBS` is the list.

For each tiny model: a prompt with every hook, a long run of one token, a patched prompt and a
one-token prompt. For SmolLM2-135M: text, the same text before 300 repeats of one token, and that
with the sink neurons of layer 2 pinned, the first to fire as the run grows. The tiny models
themselves come from make_tiny_models.py.
Run it from anywhere; check_goldens.py compares what it would make with what is committed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hf_golden
from make_tiny_models import MODELS
from make_tiny_models import main as make_tiny_models

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = "reference_outputs"
GGUF = "models/SmolLM2-135M-Instruct.Q4_1.gguf"

PROMPT = "1,5,9,200,31,44,150,77x8,12,90,261,7,33,118,290,64,21"
# "The old man walked to the end of the road and sat down under a tree. It was very", by hand: one id per word.
TEXT = "504,1573,555,13197,288,260,1112,282,260,3398,284,2643,1187,656,253,3187,30,657,436,1035"
REPEATED = f"{TEXT},260x300"
PATCHED_NEURONS = {"tiny_llama1": "1:17,5", "tiny_llama2": "0:3,50", "tiny_llama3": "1:40,5", "tiny_mistral": "2:3,50"}


@dataclass(frozen=True)
class Job:
    model: str  # path below the root
    file: str  # golden file below reference_outputs
    options: str

    def arguments(self, model: Path, out: Path) -> list[str]:
        """What hf_golden.py gets."""
        return [str(model), *shlex.split(self.options), "--out", str(out)]

    def command(self) -> str:
        """The same for a reader who stands in the root."""
        return f"tools/reference/hf_golden.py {self.model} {self.options} --out {GOLDENS}/{self.file}"


def tiny_jobs(name: str) -> Iterator[Job]:
    model = f"{GOLDENS}/{name}"
    patch = f"--patch {PATCHED_NEURONS[name]}"
    yield Job(model, f"{name}/golden_prompt.safetensors", f"--tokens {PROMPT} --new-tokens 12")
    yield Job(model, f"{name}/golden_repeat.safetensors",
              "--tokens 1,40,9,221,77x300 --compact --hooks blocks.*.hook_resid_post --positions 0,4,50,303 "
              "--new-tokens 8")
    yield Job(model, f"{name}/golden_patched.safetensors",
              f"--tokens 1,40,9,221,77x12,18,6,105,30 {patch} "
              "--hooks logits,blocks.*.mlp.hook_pre_linear,blocks.*.hook_resid_post --new-tokens 12")
    yield Job(model, f"{name}/golden_one.safetensors", "--tokens 1 --new-tokens 4")
    yield Job(model, f"{name}/golden_one_patched.safetensors",
              f"--tokens 1 {patch} --hooks logits,blocks.*.mlp.hook_pre_linear --new-tokens 4")


def smollm2_jobs() -> Iterator[Job]:
    yield Job(GGUF, "smollm2/golden_text.safetensors",
              f"--tokens {TEXT} --compact --hooks blocks.*.hook_resid_post,blocks.*.attn.hook_pattern "
              "--positions 0,1,19 --new-tokens 8")
    yield Job(GGUF, "smollm2/golden_repeat.safetensors",
              f"--tokens {REPEATED} --compact --hooks blocks.*.hook_resid_post --positions 20,319 --new-tokens 8")
    yield Job(GGUF, "smollm2/golden_patched.safetensors",
              f"--tokens {REPEATED} --patch 2:90,430 --compact "
              "--hooks blocks.*.hook_resid_post,blocks.2.mlp.hook_pre_linear --positions 20,319 --new-tokens 8")


JOBS = [job for model in MODELS for job in tiny_jobs(model.name)] + list(smollm2_jobs())


def model_path(job: Job, gguf: Path) -> Path:
    return gguf if job.model == GGUF else ROOT / job.model


def entry(path: Path, command: str) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "command": command, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def write_manifest(folder: Path) -> None:
    """Records every file that this tool or make_tiny_models.py made; leaves other tools' entries alone."""
    path = folder / "MANIFEST.json"
    manifest = json.loads(path.read_text()) if path.exists() else {"files": {}}
    manifest["hf_golden"] = hf_golden.environment()
    for job in JOBS:
        if (folder / job.file).exists():
            manifest["files"][job.file] = entry(folder / job.file, job.command())
    for model in MODELS:
        for file in sorted((folder / model.name).glob("*")):
            if not file.name.startswith("golden_"):
                name = f"{model.name}/{file.name}"
                manifest["files"][name] = entry(file, f"tools/reference/make_tiny_models.py --out {GOLDENS}")
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gguf", type=Path, default=ROOT / GGUF,
                        help="SmolLM2's file (tools/get_smollm2.sh models puts it at the default)")
    parser.add_argument("--only", default="", help="make only files whose path contains this")
    args = parser.parse_args()
    folder = ROOT / GOLDENS
    if not args.only and make_tiny_models(["--out", str(folder)]) != 0:
        return 2
    for job in JOBS:
        if args.only in job.file:
            code = hf_golden.main(job.arguments(model_path(job, args.gguf), folder / job.file))
            if code != 0:
                return code
    write_manifest(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
