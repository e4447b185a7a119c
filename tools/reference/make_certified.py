#!/usr/bin/env python3
"""Makes the certified values beside the golden files of reference_outputs/, for the goldens' own tokens.

    build/venv/bin/python tools/reference/make_certified.py            writes what is missing
    build/venv/bin/python tools/reference/make_certified.py --check    certifies again and compares every value

A value is a real number rounded to fp32, so that nothing but a defect can change it. The radii may differ with
Arb's version, and are not compared. Exit: 0 done, 1 a value differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = ROOT / "reference_outputs"
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
TINY_HOOKS = "blocks.*.hook_resid_post,logits"
# (model, golden whose tokens are run, file, hooks)
JOBS = [(OUTPUTS / name, f"{name}/golden_prompt.safetensors", f"{name}/certified_prompt.safetensors", TINY_HOOKS)
        for name in ("tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral")]
JOBS.append((SMOLLM2, "smollm2/golden_text.safetensors", "smollm2/certified_text.safetensors",
             "blocks.2.hook_resid_post,blocks.11.hook_resid_post,blocks.29.hook_resid_post,ln_final.hook_normalized"))


def certify(model: Path, golden: Path, hooks: str, out: Path) -> None:
    tokens = ",".join(map(str, load_file(golden)["tokens"].reshape(-1).tolist()))
    subprocess.run([ROOT / "build" / "sinkref", "certify", "--model", model, "--tokens", tokens, "--hooks", hooks, "--out", out],
                   check=True, stderr=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    different = 0
    for model, golden, file, hooks in JOBS:
        if not check:
            if not (OUTPUTS / file).exists():
                certify(model, OUTPUTS / golden, hooks, OUTPUTS / file)
                print(f"made {file}")
            continue
        with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
            again = Path(folder) / "again.safetensors"
            certify(model, OUTPUTS / golden, hooks, again)
            old, new = load_file(OUTPUTS / file), load_file(again)
            same = old.keys() == new.keys() and all(np.array_equal(old[name], new[name]) for name in old)
            different += not same
            print(f"{'ok  ' if same else 'FAIL'} {file}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
