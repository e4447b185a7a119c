#!/usr/bin/env python3
"""Writes reference_outputs/fingerprints.json: the fingerprints of fixed runs, as build/sinkref makes
them. A fingerprint names every bit of a run's logits (include/sinkref/fingerprint.h).

A new fingerprint under the old arithmetic version is refused: raise arithmetic_version in
include/sinkref/number.h first and write the reason into reference_outputs/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "reference_outputs" / "fingerprints.json"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = [504, 1573, 555, 13197, 288, 260, 1112, 282, 260, 3398, 284, 2643, 1187, 656, 253, 3187, 30, 657, 436, 1035]
# Text, a long run of one token, and a batch of unequal lengths.
TINY = [[1, 5, 9, 200, 31, 44, 150] + [77] * 60 + [12, 90, 261], [3], [1, 40, 9, 221, 18, 6]]
RUNS = [(f"tiny_{name}", TINY) for name in ("llama1", "llama2", "llama3", "mistral")] + [
    (SMOLLM2, [TEXT + [260] * 100])]


def fingerprint(model: str, tokens: list[list[int]]) -> str:
    path = ROOT / ("models" if model.endswith(".gguf") else "reference_outputs") / model
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "tokens.json"
        ids.write_text(json.dumps(tokens))
        out = subprocess.run([ROOT / "build" / "sinkref", "trace", "--model", path, "--tokens-file", ids, "--out",
                              Path(folder) / "trace", "--json"], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)["fingerprint"]


def main() -> int:
    runs = [{"model": model, "tokens": tokens, "fingerprint": fingerprint(model, tokens)} for model, tokens in RUNS]
    version = int(runs[0]["fingerprint"].split("-")[0])
    old = json.loads(FILE.read_text()) if FILE.exists() else {"arithmetic_version": None, "runs": runs}
    before = {(r["model"], json.dumps(r["tokens"])): r["fingerprint"] for r in old["runs"]}
    changed = [r["model"] for r in runs
               if before.get((r["model"], json.dumps(r["tokens"])), r["fingerprint"]) != r["fingerprint"]]
    if changed and old["arithmetic_version"] == version:
        print(f"make_fingerprints.py: {', '.join(changed)}: other bits under arithmetic version {version}; raise the "
              "version in include/sinkref/number.h and write the reason into reference_outputs/README.md", file=sys.stderr)
        return 1
    lines = ",\n  ".join(json.dumps(run) for run in runs)
    FILE.write_text(f'{{"arithmetic_version": {version}, "runs": [\n  {lines}\n]}}\n')
    print(f"{FILE.relative_to(ROOT)}: {len(runs)} runs, arithmetic {version}, {len(changed)} changed")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())
