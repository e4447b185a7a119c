#!/usr/bin/env python3
"""Runs `sinkref eval` in shards on a Ray cluster; the result is the unsharded one, byte for byte.

    tools/eval/eval_ray.py --shards 16 --out all.jsonl --work /shared/work -- \\
        --model /shared/model.gguf --data /shared/mmlu.jsonl.gz --patch auto

What stands after -- goes to every shard; all nodes must see the same paths. --address auto joins a
running cluster; without it Ray starts on this machine. A shard whose worker dies is run again, on
any node, and goes on from the lines in --work (from the beginning if that is no shared folder).
Prints the summary as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = ("", ".run.json")  # a samples file and what it is of


class UserError(Exception):
    """Bad input: the message is all the user needs to see."""


def die_with_parent() -> None:
    """A killed worker must not leave its sinkref behind, which would hold the shard's file."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def run_shard(command: list[str], index: int, count: int, work: str) -> list[bytes]:
    """On a worker: the shard's files."""
    samples = Path(work, f"shard-{index}-of-{count}.jsonl")
    samples.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(10):
        done = subprocess.run([*command, "--shard", f"{index}/{count}", "--samples", str(samples)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        if done.returncode == 0:
            return [Path(f"{samples}{suffix}").read_bytes() for suffix in SUFFIXES]
        if "another process is writing it" not in done.stderr:
            break
        time.sleep(1 + attempt)  # the worker before us is still being ended
    raise UserError(f"shard {index}/{count}: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")


def with_neurons(program: str, options: list[str]) -> list[str]:
    """`--patch auto` found once, instead of by every shard."""
    if "auto" not in options or options[options.index("auto") - 1] != "--patch":
        return options
    model = options[options.index("--model") + 1] if "--model" in options else None
    command = [program, "sink", "--repeats", "1", "--json"] + (["--model", model] if model else [])
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["patch"]
    return [*options[: options.index("auto")], found, *options[options.index("auto") + 1 :]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, required=True, help="a few times the number of workers")
    parser.add_argument("--out", type=Path, required=True, help="the merged samples file")
    parser.add_argument("--work", type=Path, required=True, help="folder for the shards, seen by all nodes if you can")
    parser.add_argument("--address", help="of the cluster, or auto; default: a new one on this machine")
    parser.add_argument("--cpus", type=int, default=1, help="cores (and threads) of a shard")
    parser.add_argument("--retries", type=int, default=5, help="how often a shard may lose its worker")
    parser.add_argument("--program", default=str(ROOT / "build" / "sinkref"))
    parser.add_argument("--force", action="store_true", help="replace --out")
    parser.add_argument("options", nargs="+", help="of sinkref eval")
    args = parser.parse_args()
    try:
        import ray
    except ImportError:
        raise UserError("ray is not installed here; run pip install -r tools/requirements-eval.txt") from None
    if args.shards < 1:
        raise UserError("--shards: expected at least 1")
    if args.out.exists() and not args.force:
        raise UserError(f"{args.out}: exists already; choose another name or add --force")

    options = with_neurons(args.program, args.options)
    ray.init(address=args.address, log_to_driver=False, include_dashboard=False)
    remote = ray.remote(num_cpus=args.cpus, max_retries=args.retries)(run_shard)
    command = [args.program, "eval", *options, "--threads", str(args.cpus)]
    work = str(args.work.resolve())
    waiting = {remote.remote(command, i, args.shards, work): i for i in range(args.shards)}
    files: dict[int, Path] = {}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        index = waiting.pop(ready)
        files[index] = args.work / f"shard-{index}-of-{args.shards}.jsonl"
        args.work.mkdir(parents=True, exist_ok=True)
        for suffix, content in zip(SUFFIXES, ray.get(ready), strict=True):
            Path(f"{files[index]}{suffix}").write_bytes(content)
        print(f"shard {index} done, {len(waiting)} to go", file=sys.stderr)
    merge = [args.program, "eval", "--merge", *(str(files[i]) for i in sorted(files)), "--samples", str(args.out), "--json"]
    return subprocess.run(merge + (["--force"] if args.force else [])).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"eval_ray.py: {error}", file=sys.stderr)
        sys.exit(2)
