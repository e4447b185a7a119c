#!/usr/bin/env python3
"""Makes the table of benchmarks, original against patched: reference_outputs/eval/smollm2.

    tools/eval/export_lm_eval.py --tasks winogrande,arc_easy,arc_challenge,mmlu,hellaswag --out data
    tools/eval/benchmark_table.py --model M --patch auto --data data/*.jsonl.gz --sample mmlu=2000,hellaswag=2000 \\
        --work build/benchmarks --out build/table

Runs `sinkref eval` on one file after the other. Kill it whenever you like: the same command goes on
where it stopped. DIR of --out gets

    benchmarks.json     every run's identity, metrics, paired differences, and the time it took
    TASK.jsonl.gz       per item and variant: log-likelihoods and metrics, no text of the data
    README.md           what stands between its two "table" marks is replaced (or the file is made)

--only-collect makes DIR anew from the runs of --work that are finished. Python's standard library does.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METRICS = ("acc", "acc_norm")  # acc_bytes is in benchmarks.json
MARKS = ("<!-- table: made by tools/eval/benchmark_table.py -->", "<!-- end of table -->")


class UserError(Exception):
    """Bad input: the message is all the user needs to see."""


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(args: argparse.Namespace, file: Path, sample: int | None) -> None:
    """One file's run, or what is left of it; its times are added to WORK/NAME.times."""
    name = file.name.split(".")[0]
    samples = args.work / f"{name}.jsonl"
    command = [args.program, "eval", "--model", args.model, "--patch", args.patch, "--threads", args.threads,
               "--data", file, "--samples", samples, "--json"]
    if sample:
        command += ["--limit", sample, "--seed", args.seed]
    print(f"{name}:", file=sys.stderr)
    before, start = processor_seconds(), time.monotonic()
    try:
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    finally:
        with (args.work / f"{name}.times").open("a") as times:
            print(json.dumps({"wall": time.monotonic() - start, "processor": processor_seconds() - before}), file=times)
    if done.returncode != 0:
        raise UserError(f"{name}: sinkref eval ended with exit code {done.returncode}")
    (args.work / f"{name}.json").write_text(done.stdout)


def finished_runs(work: Path) -> dict[str, dict]:
    """Task to {run, original, patched, delta, seconds, samples}."""
    found = {}
    for summary in sorted(work.glob("*.json")):
        samples = summary.with_suffix(".jsonl")
        if not samples.exists():
            continue
        content = json.loads(summary.read_text())
        times = [json.loads(line) for line in summary.with_suffix(".times").read_text().splitlines()]
        seconds = {key: round(sum(t[key] for t in times)) for key in ("wall", "processor")}
        for task, metrics in content["tasks"].items():
            if "delta" not in metrics:
                raise UserError(f"{summary}: was run without a patch; give --patch LAYER:NEURONS and another --work")
            found[task] = {"run": content["run"], **metrics, "seconds": seconds, "samples": samples}
    if not found:
        raise UserError(f"{work}: holds no finished run of sinkref eval")
    return found


def with_error(metrics: dict, metric: str, sign: str = "") -> str:
    error = metrics[f"{metric}_stderr"]
    return f"{metrics[metric]:{sign}.4f}" + (f" ± {error:.4f}" if error is not None else "")


def table(runs: dict[str, dict]) -> str:
    lines = ["| task | metric | items | original | patched | difference | better, worse | McNemar's p | processor time |",
             "|---|---|---|---|---|---|---|---|---|"]
    for task, found in runs.items():
        for metric in METRICS:
            if metric not in found["original"]:
                continue
            delta = found["delta"]
            p = delta[f"{metric}_mcnemar_p"]
            lines.append("| " + " | ".join([
                task, metric, str(found["original"]["n"]), with_error(found["original"], metric),
                with_error(found["patched"], metric), with_error(delta, metric, "+"),
                f"{delta[metric + '_better']}, {delta[metric + '_worse']}", "" if p is None else f"{p:.2g}",
                f"{found['seconds']['processor'] / 60:.1f} min" if metric == METRICS[0] else ""]) + " |")
    return "\n".join(lines)


def collect(args: argparse.Namespace) -> None:
    runs = finished_runs(args.work)
    args.out.mkdir(parents=True, exist_ok=True)
    for task, found in runs.items():
        lines = [line for line in found.pop("samples").read_bytes().split(b"\n") if line and json.loads(line)["task"] == task]
        with (args.out / f"{task}.jsonl.gz").open("wb") as file, gzip.GzipFile("", "wb", mtime=0, fileobj=file) as packed:
            packed.write(b"\n".join(lines) + b"\n")  # mtime=0: the same items are the same bytes
    (args.out / "benchmarks.json").write_text(json.dumps(runs, indent=1) + "\n")
    page = args.out / "README.md"
    text = page.read_text() if page.exists() else "\n".join(MARKS) + "\n"
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n\n{table(runs)}\n\n{MARKS[1]}{after}")
    print(table(runs))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Hugging Face folder or .gguf file")
    parser.add_argument("--patch", default="auto", help="as of sinkref eval")
    parser.add_argument("--data", nargs="+", type=Path, default=[], help="files of items; small ones first")
    parser.add_argument("--sample", default="", help="random samples instead of all items, as mmlu=2000,hellaswag=2000: "
                                                     "the file whose name begins so")
    parser.add_argument("--seed", type=int, default=1, help="of --sample")
    parser.add_argument("--threads", type=int, default=0, help="0 for all cores")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table")
    parser.add_argument("--only-collect", action="store_true", help="run nothing")
    parser.add_argument("--program", type=Path, default=ROOT / "build" / "sinkref")
    args = parser.parse_args()
    samples = dict(part.split("=") for part in args.sample.split(",") if part)
    if not all(number.isdigit() for number in samples.values()):
        raise UserError(f"--sample {args.sample}: expected NAME=ITEMS,NAME=ITEMS")
    if not args.only_collect:
        if not args.model or not args.data:
            raise UserError("--model and --data are needed to run; --only-collect does without")
        args.work.mkdir(parents=True, exist_ok=True)
        for file in args.data:
            sizes = [int(size) for name, size in samples.items() if file.name.startswith(name)]
            run(args, file, sizes[0] if sizes else None)
    collect(args)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"benchmark_table.py: {error}", file=sys.stderr)
        sys.exit(2)
