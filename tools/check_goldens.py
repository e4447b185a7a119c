#!/usr/bin/env python3
"""Makes every golden file again, in a temporary folder, and compares it with the committed one.

Per file: the committed bytes are those of MANIFEST.json; tokens, positions, patch, weights and the
bits of rope.inv_freq are equal; each float64 tensor is within 1e-9 of its rms (float64 noise is 1e-12
at most; the rest is room for a sum's order. Another CPU may round an fp32 cos differently, which
shows as 1e-8 or more and is reported, since it is a real change of what HF computes); greedy tokens are
equal; each tensor's noise floor is within a factor of 4, as it is a maximum over six draws.
Exit: 0 all agree, 1 something differs, 2 could not run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import safe_open

import hf_golden
from make_goldens import GGUF, GOLDENS, JOBS, ROOT, Job, model_path

TRUTH_TOLERANCE = 1e-9
FLOOR_FACTOR = 4
EXACT_METADATA = ("weights_sha256", "patch", "positions", "config", "floor_pool", "precision")


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def relative_rms(truth: np.ndarray, other: np.ndarray) -> float:
    """rms of the difference over the rms of the truth, where finite; infinite if the masks differ."""
    finite = np.isfinite(truth)
    if truth.shape != other.shape or not np.array_equal(finite, np.isfinite(other)):
        return float("inf")
    difference = np.linalg.norm(truth[finite] - other[finite])
    return float(difference / np.linalg.norm(truth[finite])) if difference else 0.0


def exact_differences(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> Iterator[str]:
    """Integers and fp32 bits: tokens, generated tokens, inv_freq."""
    for name in old.keys() & new.keys():
        if old[name].dtype != np.float64 and old[name].tobytes() != new[name].tobytes():
            yield f"{name}: bits differ"
    for name in old.keys() ^ new.keys():
        yield f"{name}: in one file only"


def floor_differences(old: str, new: str) -> Iterator[str]:
    was, now = json.loads(old), json.loads(new)
    for name in was.keys() & now.keys():
        for key in ("pool_rms", "pool_row_max"):
            low, high = sorted((was[name][key], now[name][key]))
            if high > FLOOR_FACTOR * low:
                yield f"{name}: {key} was {was[name][key]}, is {now[name][key]}"


def compare(committed: Path, made: Path) -> tuple[float, list[str]]:
    """The largest relative difference of a truth, and everything that is wrong."""
    (old, was), (new, now) = read(committed), read(made)
    problems = [f"metadata {key}: differs" for key in EXACT_METADATA if was.get(key) != now.get(key)]
    problems += exact_differences(old, new)
    problems += floor_differences(was["floor"], now["floor"])
    worst = 0.0
    for name in old.keys() & new.keys():
        if old[name].dtype == np.float64 and name != "generated_margin":
            error = relative_rms(old[name], new[name])
            worst = max(worst, error)
            if not error <= TRUTH_TOLERANCE:
                problems.append(f"{name}: float64 values moved by {error:.1e} of their rms")
    return worst, problems


def check(job: Job, gguf: Path, manifest: dict, scratch: Path) -> list[str]:
    """Regenerates one file, prints its line of the table and returns what is wrong with it."""
    committed = ROOT / GOLDENS / job.file
    made = scratch / committed.name
    if hashlib.sha256(committed.read_bytes()).hexdigest() != manifest["files"][job.file]["sha256"]:
        return ["bytes are not those of MANIFEST.json"]
    hf_golden.run(job.arguments(model_path(job, gguf), made))
    worst, problems = compare(committed, made)
    same = "same bytes" if committed.read_bytes() == made.read_bytes() else "new bytes"
    print(f"{'ok  ' if not problems else 'FAIL'} {job.file:44} truth moved {worst:.1e}  {same}", flush=True)
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gguf", type=Path, default=ROOT / GGUF, help="SmolLM2's file, see tools/get_smollm2.sh")
    parser.add_argument("--only", default="", help="check only files whose path contains this")
    args = parser.parse_args()
    jobs = [job for job in JOBS if args.only in job.file]
    failed = False
    try:
        manifest = json.loads((ROOT / GOLDENS / "MANIFEST.json").read_text())
        with tempfile.TemporaryDirectory() as scratch:
            for job in jobs:
                problems = check(job, args.gguf, manifest, Path(scratch))
                failed |= bool(problems)
                for problem in problems:
                    print(f"     {job.file}: {problem}")
    except (hf_golden.UserError, OSError, KeyError) as error:
        print(f"check_goldens: {error}", file=sys.stderr)
        return 2
    print(f"{len(jobs)} golden files {'differ: see above' if failed else 'agree'}")
    return int(failed or not jobs)


if __name__ == "__main__":
    sys.exit(main())
