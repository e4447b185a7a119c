#!/usr/bin/env python3
"""Makes every golden file again, in a temporary folder, and compares it with the committed one.

Per file: the committed bytes are those of MANIFEST.json; tokens, positions, patch, weights, config
and the bits of rope.inv_freq are equal; greedy tokens are equal. Of each tensor
- the float64 truth has moved by at most a tenth of Hugging Face's own noise, the committed floor:
  then a verdict that compares an error with the floor stands. (On one kind of CPU it moves by float64's
  rounding, 1e-9 of that; where PyTorch rounds a cos otherwise, more, and the table shows it.)
- Hugging Face's fp32 eager run made today passes the test that sinkref has to pass, at most 1.2 times
  the committed floor from the committed truth, whole and by row. That holds on the kind of processor
  the floor was drawn on, which the file names. On another one PyTorch's products add in another order,
  so that today's run is a new draw of the lottery: at most 4 times the floor, and the median ratio of
  its errors to those of the committed eager run, over all tensors, within a factor of 2;
- with --pool, which runs all of the floor's pool again, the new floor is within a factor of 4 of the
  old, since it is a maximum over random draws.
sinkref itself has the same bits everywhere, so its own test against the floor is the same everywhere.
Exit: 0 all agree, 1 something differs, 2 could not run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))

import hf_golden
from make_goldens import GGUF, GOLDENS, JOBS, ROOT, Job, model_path

TRUTH_TOLERANCE = 0.1  # of the floor
ALLOWANCE = 1.2  # of the floor, as golden_allowance in golden.h
FLOOR_FACTOR = 4
MEDIAN_FACTOR = 2
PROCESSOR = ("cpu", "cpu_capability")
EXACT_METADATA = ("weights_sha256", "patch", "positions", "config", "precision")


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def exact_differences(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> Iterator[str]:
    """Integers and fp32 bits: tokens, generated tokens, inv_freq."""
    for name in old.keys() & new.keys():
        if old[name].dtype != np.float64 and old[name].tobytes() != new[name].tobytes():
            yield f"{name}: bits differ"
    for name in old.keys() ^ new.keys():
        yield f"{name}: in one file only"


def storage_rounding(truth: np.ndarray) -> float:
    """What storing a single number in fp32 costs; see storage_rounding in golden.cpp."""
    return float(np.spacing(np.float32(abs(truth.flat[0])))) / 2 if truth.size == 1 else 0.0


def eager_differences(old: dict[str, np.ndarray], was: dict, now: dict, allowance: float) -> Iterator[str]:
    """Hugging Face's fp32 run of today, by the bound that sinkref is held to."""
    for name in was.keys() & now.keys():
        rounding = storage_rounding(old[name])
        scales = {"rms": 1.0, "row_rms": abs(float(old[name].flat[0])) if rounding else 1.0}
        for key, scale in scales.items():
            ours, floor = now[name][f"eager_{key}"], was[name][f"pool_{key}"]
            if not ours <= allowance * floor + rounding / scale:
                yield f"{name}: {key} of today's eager run is {ours}, the floor {floor}"


def median_eager_ratio(was: dict, now: dict) -> float:
    """Today's eager error over the committed eager run's, of the tensors where both rounded at all."""
    pairs = [(now[name]["eager_rms"], was[name]["eager_rms"]) for name in was.keys() & now.keys()]
    ratios = [ours / theirs for ours, theirs in pairs if ours and theirs]
    return float(np.median(ratios)) if ratios else float("nan")


def floor_differences(was: dict, now: dict) -> Iterator[str]:
    for name in was.keys() & now.keys():
        for key in ("pool_rms", "pool_row_max"):
            low, high = sorted((was[name][key], now[name][key]))
            if high > FLOOR_FACTOR * low:
                yield f"{name}: {key} was {was[name][key]}, is {now[name][key]}"


def truth_moved(old: dict[str, np.ndarray], new: dict[str, np.ndarray], floor: dict) -> dict[str, float]:
    """By how much of the floor each tensor's truth has moved: rms of the difference, whole or by row."""
    moved = {}
    for name in floor.keys() & old.keys() & new.keys():
        same = old[name].shape == new[name].shape and np.array_equal(np.isfinite(old[name]), np.isfinite(new[name]))
        measured = hf_golden.errors(name, old[name], new[name]) if same else {"rms": np.inf, "row_rms": np.inf}
        moved[name] = max(measured[key] / floor[name][f"pool_{key}"] if measured[key] else 0.0
                          for key in ("rms", "row_rms"))
    return moved


@dataclass
class Comparison:
    problems: list[str]
    truth_moved: float  # at most, in units of the floor
    median_ratio: float  # today's eager errors over the committed ones
    same_processor: bool


def compare(committed: Path, made: Path, whole_pool: bool) -> Comparison:
    (old, was), (new, now) = read(committed), read(made)
    problems = [f"metadata {key}: differs" for key in EXACT_METADATA if was.get(key) != now.get(key)]
    problems += exact_differences(old, new)
    old_floor, new_floor = json.loads(was["floor"]), json.loads(now["floor"])
    problems += [f"{name}: has a floor in one file only" for name in old_floor.keys() ^ new_floor.keys()]
    same_processor = all(was.get(key) == now.get(key) for key in PROCESSOR)
    problems += eager_differences(old, old_floor, new_floor, ALLOWANCE if same_processor else FLOOR_FACTOR)
    ratio = median_eager_ratio(old_floor, new_floor)
    if not 1 / MEDIAN_FACTOR <= ratio <= MEDIAN_FACTOR:
        problems.append(f"the median ratio of today's eager errors to the committed ones is {ratio:.3g}")
    if whole_pool:
        problems += floor_differences(old_floor, new_floor)
    moved = truth_moved(old, new, old_floor)
    problems += [f"{name}: the float64 truth moved by {by:.1e} of the floor"
                 for name, by in sorted(moved.items()) if not by <= TRUTH_TOLERANCE]
    if not moved:
        problems.append("no tensor was compared")
    return Comparison(problems, max(moved.values(), default=0.0), ratio, same_processor)


def check(job: Job, gguf: Path, manifest: dict, scratch: Path, whole_pool: bool) -> list[str]:
    """Regenerates one file, prints its line of the table and returns what is wrong with it."""
    committed = ROOT / GOLDENS / job.file
    made = scratch / committed.name
    if hashlib.sha256(committed.read_bytes()).hexdigest() != manifest["files"][job.file]["sha256"]:
        return ["bytes are not those of MANIFEST.json"]
    start = time.monotonic()
    hf_golden.run(job.arguments(model_path(job, gguf), made), eager_only=not whole_pool)
    found = compare(committed, made, whole_pool)
    print(f"{'FAIL' if found.problems else 'ok  '} {job.file:44} truth moved {found.truth_moved:.1e} of HF's noise, "
          f"which is {found.median_ratio:.2f} x the committed{'' if found.same_processor else ', another processor'}, "
          f"{time.monotonic() - start:.0f} s", flush=True)
    return found.problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gguf", type=Path, default=ROOT / GGUF, help="SmolLM2's file, see tools/get_smollm2.sh")
    parser.add_argument("--pool", action="store_true", help="run the whole pool of the floor again, not eager alone")
    parser.add_argument("--only", default="", help="check only files whose path contains this")
    args = parser.parse_args()
    jobs = [job for job in JOBS if args.only in job.file]
    failed = False
    try:
        manifest = json.loads((ROOT / GOLDENS / "MANIFEST.json").read_text())
        with tempfile.TemporaryDirectory() as scratch:
            for job in jobs:
                problems = check(job, args.gguf, manifest, Path(scratch), args.pool)
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
