#!/usr/bin/env python3
"""Activation patching beside TransformerLens: the same cells, and the time of a whole sweep.

    tools/setup.sh --engines
    meson configure build -Dpython=enabled && ninja -C build src/python/libsinkref_python.so
    build/venv-engines/bin/python tools/bench/sweep_transformerlens.py models/SmolLM2-135M-Instruct.Q4_1.gguf

*Values*: on 20 pairs of prompts in which two names change places, the logit difference of patched runs (resid_pre, six layers,
the last position of a name and the last one). TransformerLens's noise is what its fp32 run is off from the same bridge in
float64; sinkref's fp32 is held against the same float64, and may be off by no more (rms over all cells). sinkref in
fp64 shows that both compute one function.

*Time*: a sweep over all layers and positions of a prompt of 60 tokens, the source another text. TransformerLens runs its
own loop (transformer_lens.patching.get_act_patch_resid_pre) once as a whole, then samples of its cells, which cost the
same each, take turns with whole sweeps of sinkref. Each is a process of its own; OPENBLAS_* is unset for both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench_peers import Worker

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = ("transformerlens", "transformerlens-fp64", "sinkref", "sinkref-fp64")
NAMES = (" Mary", " John", " Sarah", " David", " Robert", " Susan", " Michael", " Anna", " Peter", " James")
PROMPTS = (
    "When{0} and{1} went to the store,{1} gave a drink to",
    "After{0} and{1} had lunch at the station,{1} handed the tickets to",
    "Then{0} and{1} were working in the garden.{1} decided to give a rose to",
    "While{0} and{1} were at school,{1} wrote a long letter to",
)
TEXTS = (
    "The river rises in the hills above the old town, runs south past the mills and the railway bridge, and reaches "
    "the sea near a village whose harbour was once the second largest of the whole coast. Every spring its water "
    "carries so much sand that the channel has to be dredged again before the first boats can leave",
    "A good experiment answers one question. Before you begin, write down what you expect to see, and what you would "
    "conclude if you saw something else. Keep every measurement, even those that look wrong, because an error that "
    "has been thrown away cannot be understood later, and ask somebody who doubts the result to repeat",
)


# ---------------------------------------------------------------------- the two systems, in their processes


def transformerlens_runner(path: Path, threads: int, fp64: bool) -> Callable:
    sys.path[:0] = [str(ROOT / "tools" / "capture"), str(ROOT / "tools" / "reference")]
    import pandas
    import torch
    from transformer_lens import patching

    import hf_runs
    import transformerlens

    torch.set_num_threads(threads)
    hf = hf_runs.load(path)
    model = transformerlens.load(path, hf_runs.exact(hf) if fp64 else hf)

    def run(tokens: list[int], source: list[int], right: int, wrong: int, cells: list | None) -> dict:
        with torch.no_grad(), hf_runs.Numbers(lambda *_: None):
            start = time.perf_counter()
            theirs = torch.tensor([source])
            _, cache = model.run_with_cache(theirs, names_filter=lambda name: name.endswith("hook_resid_pre"))

            def metric(logits: torch.Tensor) -> torch.Tensor:
                return logits[0, -1, right] - logits[0, -1, wrong]

            if cells is None:
                values = patching.get_act_patch_resid_pre(model, torch.tensor([tokens]), cache, metric)
            else:
                index = pandas.DataFrame(cells, columns=["layer", "pos"])
                values = patching.generic_activation_patch(
                    model, torch.tensor([tokens]), cache, metric, patch_setter=patching.layer_pos_patch_setter,
                    activation_name="resid_pre", index_df=index)
            return {"seconds": time.perf_counter() - start, "values": values.double().flatten().tolist()}

    return run


def sinkref_runner(path: Path, threads: int, fp64: bool) -> Callable:
    sys.path.append(str(ROOT / "tools"))
    from package import use_package

    use_package()
    import sinkref

    sinkref.set_threads(threads)
    model = sinkref.Model(path, precision="fp64" if fp64 else "fp32")

    def run(tokens: list[int], source: list[int], right: int, wrong: int, cells: list | None) -> dict:
        start = time.perf_counter()
        layers = None if cells is None else sorted({cell[0] for cell in cells})
        positions = None if cells is None else sorted({cell[1] for cell in cells})
        sweep = model.patch_sweep(tokens, source, sinkref.logit_difference(right, wrong), "hook_resid_pre",
                                  layers=layers, positions=positions)
        seconds = time.perf_counter() - start
        values = sweep.values if cells is None else [sweep.values[layers.index(l), positions.index(p)] for l, p in cells]
        return {"seconds": seconds, "values": [float(x) for x in (values.flatten() if cells is None else values)]}

    return run


def encode(path: Path, texts: list[str]) -> list[list[int]]:
    sys.path[:0] = [str(ROOT / "tools" / "reference")]
    import hf_runs

    tokenizer = hf_runs.tokenizer(path)
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def serve(name: str, path: Path, threads: int) -> None:
    """A worker: one JSON line in asks for cells, one JSON line out answers it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    make = sinkref_runner if name.startswith("sinkref") else transformerlens_runner
    run = make(path, threads, name.endswith("fp64"))
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=answers, flush=True)


# ------------------------------------------------------------------------------------------ the measurer


def pairs(path: Path, count: int) -> list[dict]:
    """Prompts and sources in which two names change places, as requests without cells."""
    ids = [found[0] for found in encode(path, list(NAMES)) if len(found) == 1]
    if len(ids) != len(NAMES):
        raise SystemExit("sweep_transformerlens.py: this model's tokenizer splits the names, expected one token each; "
                         "give SmolLM2 or another model whose vocabulary has them")
    found = []
    for i in range(count):
        a, b = i % len(NAMES), (i + 1 + i // len(NAMES)) % len(NAMES)
        clean, corrupted = (PROMPTS[i % len(PROMPTS)].format(NAMES[a], NAMES[b]) for a, b in ((a, b), (b, a)))
        source, tokens = encode(path, [clean, corrupted])
        if len(source) != len(tokens):
            raise SystemExit(f"sweep_transformerlens.py: {clean!r} and {corrupted!r} have {len(source)} and "
                             f"{len(tokens)} tokens, expected as many")
        found.append({"tokens": tokens, "source": source, "right": ids[a], "wrong": ids[b]})
    return found


def rms(values: list[float]) -> float:
    return math.sqrt(sum(x * x for x in values) / len(values))


def compare_values(workers: dict[str, Worker], path: Path, count: int, n_layers: int) -> dict:
    values: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    effect: list[float] = []
    layers = sorted({i * (n_layers - 1) // 5 for i in range(6)})
    for number, pair in enumerate(pairs(path, count)):
        differ = max(i for i, (a, b) in enumerate(zip(pair["tokens"], pair["source"])) if a != b)
        cells = [[layer, position] for layer in layers for position in (differ, len(pair["tokens"]) - 1)]
        for name in SYSTEMS:
            values[name] += workers[name].ask(pair | {"cells": cells})["values"]
        found = values["transformerlens-fp64"][-len(cells):]
        effect.append(max(found) - min(found))
        if sys.stderr.isatty():
            print(f"\rpair {number + 1} of {count}", end="\n" if number + 1 == count else "", file=sys.stderr)
    truth = values.pop("transformerlens-fp64")
    off = {name: [x - t for x, t in zip(found, truth)] for name, found in values.items()}
    return {"pairs": count, "cells": len(truth), "largest_effect": max(effect), "smallest_effect": min(effect),
            "rms": {name: rms(errors) for name, errors in off.items()},
            "max": {name: max(map(abs, errors)) for name, errors in off.items()}}


def compare_time(workers: dict[str, Worker], path: Path, a: argparse.Namespace, n_layers: int) -> dict:
    tokens, source = (ids[: a.tokens] for ids in encode(path, list(TEXTS)))
    if len(tokens) < a.tokens or len(source) < a.tokens:
        raise SystemExit(f"sweep_transformerlens.py: --tokens {a.tokens}: the texts have {len(tokens)} and {len(source)}")
    request = {"tokens": tokens, "source": source, "right": tokens[0], "wrong": source[0]}
    all_cells = [[layer, position] for layer in range(n_layers) for position in range(a.tokens)]
    draw = random.Random(1)
    theirs, ours = workers["transformerlens"], workers["sinkref"]
    theirs.ask(request | {"cells": all_cells[:2]})
    ours.ask(request | {"cells": all_cells[:2]})
    whole = None if a.no_whole else theirs.ask(request | {"cells": None})
    sampled, swept = [], []
    for _ in range(a.rounds):
        cells = draw.sample(all_cells, min(a.sample, len(all_cells)))
        sampled.append(theirs.ask(request | {"cells": cells})["seconds"] / len(cells) * len(all_cells))
        time.sleep(0.1)  # its threads stop spinning
        found = ours.ask(request | {"cells": None})
        swept.append(found["seconds"])
    result = {"tokens": a.tokens, "cells": len(all_cells), "rounds": a.rounds, "sampled_cells": a.sample,
              "sinkref_seconds": statistics.median(swept), "transformerlens_seconds_from_samples": statistics.median(sampled),
              "times_from_samples": statistics.median(sampled) / statistics.median(swept)}
    if whole is not None:
        result |= {"transformerlens_seconds_whole": whole["seconds"],
                   "times_whole": whole["seconds"] / statistics.median(swept),
                   "largest_difference": max(abs(x - y) for x, y in zip(whole["values"], found["values"]))}
    return result


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .gguf file or Hugging Face folder")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=60, help="length of the prompt that is swept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=60, help="cells of TransformerLens in each round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-whole", action="store_true", help="leave out TransformerLens's whole loop")
    parser.add_argument("--values-only", action="store_true", help="no timing")
    parser.add_argument("--time-only", action="store_true", help="no values")
    parser.add_argument("--json", type=Path, help="file to write everything to")
    parser.add_argument("--worker", choices=SYSTEMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for option in ("pairs", "tokens", "rounds", "sample", "threads"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option} {getattr(arguments, option)}: expected at least 1")
    most = len(NAMES) * (len(NAMES) - 1)
    if arguments.pairs > most:
        parser.error(f"--pairs {arguments.pairs}: expected at most {most}, as many as {len(NAMES)} names make")
    if not arguments.model.exists():
        parser.error(f"{arguments.model}: no such file or folder; tools/get_smollm2.sh models fetches one")
    return arguments


def main() -> int:
    a = parse()
    if a.worker:
        serve(a.worker, a.model, a.threads)
        return 0
    os.environ["TQDM_DISABLE"] = "1"
    sys.path[:0] = [str(ROOT / "tools" / "reference")]
    from transformers import AutoConfig

    import hf_runs

    n_layers = AutoConfig.from_pretrained(**hf_runs.source(a.model)).num_hidden_layers
    wanted = [name for name in SYSTEMS if not (a.time_only and name.endswith("fp64"))]
    workers = {name: Worker(__file__, [a.model, "--worker", name], a.threads) for name in wanted}
    result: dict = {}
    try:
        if not a.time_only:
            v = result["values"] = compare_values(workers, a.model, a.pairs, n_layers)
            print(f"{v['cells']} patched logit differences on {v['pairs']} pairs (effects {v['smallest_effect']:.2f} to "
                  f"{v['largest_effect']:.2f}), off from TransformerLens in float64:")
            for name in v["rms"]:
                print(f"  {name:22} rms {v['rms'][name]:.2e}  max {v['max'][name]:.2e}")
        if not a.values_only:
            t = result["time"] = compare_time(workers, a.model, a, n_layers)
            print(f"{t['cells']} cells, {t['tokens']} tokens, {a.threads} threads: sinkref {t['sinkref_seconds']:.1f} s; "
                  f"TransformerLens {t['transformerlens_seconds_from_samples']:.0f} s by samples, "
                  f"{t['times_from_samples']:.1f} times as long")
            if "times_whole" in t:
                print(f"  TransformerLens's whole loop {t['transformerlens_seconds_whole']:.0f} s, {t['times_whole']:.1f} "
                      f"times as long; values differ by {t['largest_difference']:.1e} at the most")
    finally:
        for worker in workers.values():
            worker.close()
    if a.json:
        a.json.write_text(json.dumps(result, indent=1) + "\n")
    within = a.time_only or result["values"]["rms"]["sinkref"] <= result["values"]["rms"]["transformerlens"]
    if not within:
        print("sweep_transformerlens.py: sinkref is off by more than TransformerLens's own noise", file=sys.stderr)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
