#!/usr/bin/env python3
"""Speed of `sinkref eval` beside Hugging Face's model under lm-eval, on the same items and cores.

    tools/bench/bench_eval.py --model M --tokenizer DIR --data data/*.jsonl.gz --items 200 --batch-sizes 1,8,32

lm-eval's HFLM runs in fp32 with sdpa attention, sorts requests by length and, where a task's choices
are single tokens (MMLU), runs a context once for all of them. Only its log-likelihoods are timed, not
its start; of sinkref the whole process is. The best batch size is found on --probe items of each task, then all
items are run with it, in turns with sinkref. Wall and processor seconds are printed: where other programs
are at work, compare the latter. Needs tools/requirements-eval.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "check"), str(ROOT / "tools" / "reference")]


class Clock:
    """Wall and processor seconds of what runs under `with`, here and in finished children."""

    @staticmethod
    def processor() -> float:
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

    def __enter__(self) -> Clock:
        self.wall, self.used = time.monotonic(), self.processor()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.used = time.monotonic() - self.wall, self.processor() - self.used


def time_sinkref(args: argparse.Namespace, data: Path) -> Clock:
    command = [args.program, "eval", "--model", args.model, "--data", data, "--threads", args.threads]
    with Clock() as clock:
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return clock


class HuggingFace:
    def __init__(self, args: argparse.Namespace) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from hf_runs import source

        torch.set_num_threads(args.threads)
        self.model = AutoModelForCausalLM.from_pretrained(**source(args.model), dtype=torch.float32,
                                                          attn_implementation="sdpa").eval()
        self.tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)

    def time(self, items: list[dict], batch_size: int, folder: Path) -> Clock:
        from lm_eval.models.huggingface import HFLM

        from check_eval import make_task, run_lm_eval

        clock = Clock()

        class Timed(HFLM):
            def _loglikelihood_tokens(self, *arguments, **named):
                with clock:
                    return super()._loglikelihood_tokens(*arguments, **named)

        lm = Timed(pretrained=self.model, tokenizer=self.tokenizer, batch_size=batch_size)
        run_lm_eval(lm, [make_task(items[0]["task"], items, folder)])
        return clock


def stretches(items: list[dict], count: int, length: int) -> list[dict]:
    """About `count` items: stretches of neighbours at random places, in the order of the file."""
    blocks = [items[i : i + length] for i in range(0, len(items), length)]
    chosen = random.Random(0).sample(range(len(blocks)), min(len(blocks), max(1, count // length)))
    return [item for i in sorted(chosen) for item in blocks[i]]


def report(task: str, program: str, count: int, clock: Clock, args: argparse.Namespace) -> float:
    """Prints the line of one run; returns its wall seconds."""
    line = {"task": task, "program": program, "items": count, "threads": args.threads,
            "wall": round(clock.wall, 3), "processor": round(clock.used, 3),
            "items_per_s": round(count / clock.wall, 3), "items_per_processor_s": round(count / clock.used, 3)}
    print(json.dumps(line), flush=True)
    return clock.wall


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--tokenizer", required=True, type=Path, help="folder with tokenizer.json")
    parser.add_argument("--data", required=True, nargs="+", type=Path)
    parser.add_argument("--items", type=int, default=200, help="of each task, at random")
    parser.add_argument("--stretch", type=int, default=20, help="neighbours that are drawn together")
    parser.add_argument("--probe", type=int, default=40, help="items to choose the batch size with")
    parser.add_argument("--batch-sizes", default="1,8,32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=("sinkref", "hf"))
    parser.add_argument("--program", type=Path, default=ROOT / "build" / "sinkref")
    args = parser.parse_args()
    from check_eval import read_lines

    peer = None if args.only == "sinkref" else HuggingFace(args)
    totals: dict[str, float] = {}
    for file in args.data:
        items = read_lines(file)
        chosen = stretches(items, args.items, args.stretch)
        task = chosen[0]["task"]
        seconds = {}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if args.only != "hf":
                data = folder / "items.jsonl"
                data.write_text("".join(json.dumps(item) + "\n" for item in chosen))
                seconds["sinkref"] = report(task, "sinkref", len(chosen), time_sinkref(args, data), args)
            if peer:
                few = stretches(items, args.probe, args.stretch)
                sizes = {int(size): peer.time(few, int(size), folder).wall
                         for size in args.batch_sizes.split(",")}
                best = min(sizes, key=sizes.get)
                seconds["Hugging Face"] = report(task, f"Hugging Face, batches of {best}", len(chosen),
                                                 peer.time(chosen, best, folder), args)
        for program, of_sample in seconds.items():
            totals[program] = totals.get(program, 0) + of_sample * len(items) / len(chosen)
        if len(seconds) == 2:
            print(json.dumps({"task": task, "times": round(seconds["Hugging Face"] / seconds["sinkref"], 2)}), flush=True)
    print(json.dumps({"seconds for all items": {program: round(total) for program, total in totals.items()}}
                     | ({"times": round(totals["Hugging Face"] / totals["sinkref"], 2)} if len(totals) == 2 else {})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
