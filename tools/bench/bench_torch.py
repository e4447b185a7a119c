#!/usr/bin/env python3
"""The matrix products of sinkref beside PyTorch's own (torch.nn.functional.linear, fp32): the same
shapes, rows and threads, in turns, medians and ratios.

    build/venv/bin/python tools/bench/bench_torch.py --shapes 4096x4096,49152x576 --rows 16,64,512

Shapes are OUTPUTSxINPUTS, as in `sinkref bench --shapes`, which lists the models' own. Both use
copies of the weights of 512 MB together in turn, as a whole model would, so that no cache holds
them. PyTorch runs in a process of its own; OPENBLAS_* variables are unset.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from bench_peers import ROOT, Worker, clean_environment

ALL_COPIES_BYTES = 512 << 20


def serve(threads: int) -> None:
    """The worker: one JSON line in asks for a product, one out gives the seconds it takes."""
    import torch

    torch.set_num_threads(threads)
    shape, weights = None, None
    for line in sys.stdin:
        outputs, inputs, rows = json.loads(line)
        if shape != (outputs, inputs):
            shape, weights = (outputs, inputs), None  # the old ones are freed first
            weights = torch.randn(max(1, ALL_COPIES_BYTES // (outputs * inputs * 4)), outputs, inputs)
        x = torch.randn(rows, inputs)
        torch.nn.functional.linear(x, weights[0])  # its buffers are there, its threads awake
        with torch.inference_mode():
            start = time.perf_counter()
            for weight in weights:
                torch.nn.functional.linear(x, weight)
            print((time.perf_counter() - start) / len(weights), flush=True)


def sinkref_seconds(outputs: int, inputs: int, rows: int, threads: int) -> float:
    out = subprocess.run([ROOT / "build" / "sinkref", "bench", "--shapes", f"{outputs}x{inputs}", "--rows", str(rows),
                          "--runs", "1", "--threads", str(threads), "--json"],
                         check=True, capture_output=True, text=True, env=clean_environment(threads))
    return json.loads(out.stdout)["matmul"][0]["seconds"]


def numbers(text: str, separator: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(separator))
    if min(values) < 1:
        raise ValueError(text)
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="4096x4096,11008x4096,4096x11008,14336x4096,"
                                            "576x576,1536x576,576x1536,49152x576")
    parser.add_argument("--rows", default="1,16,64,512")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.worker:
        serve(a.threads)
        return 0
    try:
        shapes = [numbers(shape, "x") for shape in a.shapes.split(",")]
        all_rows = numbers(a.rows, ",")
        if any(len(shape) != 2 for shape in shapes) or a.rounds < 1 or a.threads < 1:
            raise ValueError
    except ValueError:
        parser.error("expected --shapes OUTPUTSxINPUTS,…, --rows N,…, and at least one round and thread")
    worker = Worker(__file__, ["--worker"], a.threads)
    print(f"{'out x in':>16} {'rows':>5} {'sinkref GFLOP/s':>16} {'PyTorch':>8} {'times':>6}")
    for outputs, inputs in shapes:
        for rows in all_rows:
            ours, theirs = [], []
            for _ in range(a.rounds):
                theirs.append(worker.ask([outputs, inputs, rows]))
                time.sleep(0.05)  # its threads stop spinning
                ours.append(sinkref_seconds(outputs, inputs, rows, a.threads))
            flops = 2e-9 * outputs * inputs * rows
            own, other = statistics.median(ours), statistics.median(theirs)
            print(f"{f'{outputs} x {inputs}':>16} {rows:5} {flops / own:16.1f} {flops / other:8.1f} {other / own:6.2f}",
                  flush=True)
    worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
