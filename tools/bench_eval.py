#!/usr/bin/env python3
"""Speed of `sinkref eval` beside Hugging Face's model under lm-eval, on the same items and cores.

    tools/bench_eval.py --model M --tokenizer DIR --data data/*.jsonl.gz --items 200 --batch-sizes 1,8,32

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

ROOT = Path(__file__).resolve().parent.parent


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


def report(task: str, program: str, count: int, clock: Clock, args: argparse.Namespace) -> dict:
    line = {"task": task, "program": program, "items": count, "threads": args.threads,
            "wall": round(clock.wall, 3), "processor": round(clock.used, 3),
            "items_per_s": round(count / clock.wall, 3), "items_per_processor_s": round(count / clock.used, 3)}
    print(json.dumps(line), flush=True)
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--tokenizer", required=True, type=Path, help="folder with tokenizer.json")
    parser.add_argument("--data", required=True, nargs="+", type=Path)
    parser.add_argument("--items", type=int, default=200, help="of each task, at random")
    parser.add_argument("--reference-items", type=int, help="fewer for Hugging Face, which needs longer")
    parser.add_argument("--probe", type=int, default=8, help="items to choose the batch size with")
    parser.add_argument("--batch-sizes", default="1,8,32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=("sinkref", "hf"))
    parser.add_argument("--program", type=Path, default=ROOT / "build" / "sinkref")
    args = parser.parse_args()
    from check_eval import read_lines

    peer = None if args.only == "sinkref" else HuggingFace(args)
    for file in args.data:
        items = read_lines(file)
        order = random.Random(0).sample(range(len(items)), min(args.items, len(items)))
        chosen = [items[i] for i in sorted(order)]  # MMLU's subjects stay together
        fewer = [items[i] for i in sorted(order[: args.reference_items])]
        few = [items[i] for i in sorted(order[: args.probe])]
        task = chosen[0]["task"]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if args.only != "hf":
                data = folder / "items.jsonl"
                data.write_text("".join(json.dumps(item) + "\n" for item in chosen))
                ours = report(task, "sinkref", len(chosen), time_sinkref(args, data), args)
            if peer:
                sizes = {int(size): peer.time(few, int(size), folder).used
                         for size in args.batch_sizes.split(",")}
                best = min(sizes, key=sizes.get)
                theirs = report(task, f"Hugging Face, batches of {best}", len(fewer), peer.time(fewer, best, folder), args)
            if peer and args.only != "hf":
                ratios = {key: round(ours[key] / theirs[key], 2) for key in ("items_per_s", "items_per_processor_s")}
                print(json.dumps({"task": task, "sinkref / Hugging Face": ratios}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
