#!/usr/bin/env python3
"""What Python functions that only look cost a run: with and without them in turns, medians.

    python tools/bench/bench_hooks.py models/SmolLM2-135M-Instruct.Q4_1.gguf

Runs an installed package, or else build/src/python (-Dpython=enabled). Each function is given its array and returns None.
Every run also keeps the last block's resid_post, so that all compute the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))
from package import use_package

use_package()
import sinkref

NO_ATTENTION = lambda name: not name.endswith(("hook_attn_scores", "hook_pattern", "logits"))
WATCHED = {
    "no function": [],
    "resid_post of every block": [("blocks.*.hook_resid_post", lambda array, hook: None)],
    "every hook but scores, pattern, logits": [(NO_ATTENTION, lambda array, hook: None)],
    "pattern of every block": [("blocks.*.attn.hook_pattern", lambda array, hook: None)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    a = parser.parse_args()
    model = sinkref.Model(a.model)
    ids = [(i * 7919 + i * i * 31 + 1) % model.cfg.d_vocab for i in range(a.tokens)]  # those of `sinkref bench`
    last_block = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    seconds: dict[str, list[float]] = {name: [] for name in WATCHED}
    for number in range(a.rounds + 1):
        for name, hooks in WATCHED.items():
            start = time.perf_counter()
            model.run_with_cache(ids, last_block, positions=-1, logits="last", fwd_hooks=hooks)
            if number > 0:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    plain = statistics.median(seconds["no function"])
    for name, all_ in seconds.items():
        median = statistics.median(all_)
        print(f"{name:40} {median:.3f} s  {100 * (median / plain - 1):+5.1f} %")


if __name__ == "__main__":
    main()
