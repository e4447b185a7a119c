#!/usr/bin/env python3
"""sinkref beside other work on the same cores: four busy loops in process groups of their own, and alone.

    busy.py --against PROGRAM [--pairs N] [--model MODEL] [--report-model MODEL]

PROGRAM is a sinkref to compare with; one that still used OpenMP is told to put waiting threads to sleep
(OMP_WAIT_POLICY=passive) beside other work, and nothing alone. The two run in turns; the figure is the median of the
pairs' ratios. Exit 1 if it is above 1.3 beside other work or 1.02 alone.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOOPS = 4
LIMITS = {"four busy loops": 1.3, "alone": 1.02}


def seconds(program, arguments, **environment):
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        subprocess.run([program, *arguments], cwd=folder, env=os.environ | environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        return time.monotonic() - begin


def busy_loops():
    """Sessions of their own, as other users' work has."""
    return [subprocess.Popen(["timeout", "3600", "sh", "-c", "while :; do :; done"], start_new_session=True) for _ in range(LOOPS)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, type=os.path.abspath)
    parser.add_argument("--program", default=str(ROOT / "build" / "sinkref"))
    parser.add_argument("--model", default=str(ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--report-model", default=str(ROOT / "reference_outputs" / "tiny_llama3"))
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    commands = {
        "generate": ["generate", "--model", options.model, "--tokens", "5x50", "--max-new-tokens", "8"],
        "report": ["report", "--model", options.report_model, "--tokens", "5,17,5x20,9,9,11", "--repeats", "70", "--out", "r"],
    }
    print(f"load before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores")
    good = True
    for place, limit in LIMITS.items():
        loops = busy_loops() if place != "alone" else []
        environment = {"OMP_WAIT_POLICY": "passive"} if loops else {}
        try:
            for name, arguments in commands.items():
                pairs = []
                for i in range(options.pairs):
                    turn = [(options.program, {}), (options.against, environment)]
                    took = [seconds(program, arguments, **env) for program, env in (turn if i % 2 == 0 else turn[::-1])]
                    pairs.append(took if i % 2 == 0 else took[::-1])
                ratio = statistics.median(ours / theirs for ours, theirs in pairs)
                ours, theirs = (statistics.median(each) for each in zip(*pairs))
                good &= ratio <= limit
                print(f"{place:16} {name:9} {ours:7.2f} s against {theirs:7.2f} s: {ratio:.3f} times, at most {limit}"
                      f"{'' if ratio <= limit else '   MISSED'}", flush=True)  # fmt: skip
        finally:
            for loop in loops:
                os.killpg(loop.pid, 15)
                loop.wait()
    return 0 if good else 1


sys.exit(main())
