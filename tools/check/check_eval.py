#!/usr/bin/env python3
"""Holds `sinkref eval` against Hugging Face's model under the real lm-evaluation-harness.

    tools/check/check_eval.py --model MODEL --tokenizer DIR --data FILE ... --limit 200 --patch 2:90,430
    tools/check/check_eval.py ... --samples FILE --check 200      # items of a run that is done, at random

For every item: each choice's log-likelihood within the tolerance, and the decision (acc, acc_norm,
acc_bytes) equal unless the margin between the best two is below it; then every metric and standard
error. lm-eval builds the requests from the text of the data and scores them (simple_evaluate), so a
wrong token boundary, truncation or divisor shows. With --patch the same again with the paper's hook
on up_proj. Needs tools/requirements-eval.txt. Exit 0 or 1.

The reference is Hugging Face's model in true float64 (hf_runs.py), because its fp32 itself is off by more
than the tolerance here and there: on SmolLM2 by up to 7e-4 for one choice. With --reference both, fp32
is asked first, and float64 about the items where the two differ by more than the tolerance.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from lm_eval import simple_evaluate
from lm_eval.api.metrics import mean_stderr, pooled_sample_stderr
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.truthfulqa.utils import process_results_mc2
from transformers import AutoTokenizer, DynamicCache

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))

from hf_runs import Numbers, exact, load

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = ("acc", "acc_norm", "acc_bytes")


def read_lines(path: Path) -> list[dict]:
    text = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().split("\n") if line]


class Pin:
    """The paper's patch in prefill, batched: x[:, 1:, n] = x[:, 1, n] (padding is on the right)."""

    def __init__(self, columns: list[int]) -> None:
        self.columns = torch.tensor(columns)
        self.start = 0  # position of the first token of the call
        self.value: torch.Tensor | None = None

    def __call__(self, module: torch.nn.Module, inputs: tuple, x: torch.Tensor) -> torch.Tensor:
        first = max(1 - self.start, 0)
        if x.shape[1] > first:
            if self.start <= 1:
                self.value = x[:, first : first + 1, self.columns].clone()
            x[:, first:, self.columns] = self.value
        return x


def pin_up_proj(model: torch.nn.Module, patch: str) -> tuple[list[Pin], list]:
    pins, handles = [], []
    for part in patch.split(";"):
        layer, neurons = part.split(":")
        pins.append(Pin([int(n) for n in neurons.split(",")]))
        handles.append(model.model.layers[int(layer)].mlp.up_proj.register_forward_hook(pins[-1]))
    return pins, handles


class SharedPrefixLM(HFLM):
    """HFLM that runs what requests share once, with Hugging Face's own cache: several times faster,
    and equal but for rounding. lm-eval still makes the requests and scores them."""

    pins: list[Pin] = []

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
        answers, cache, cached = [], DynamicCache(config=self.model.config), []
        for context, group in groupby(requests, key=lambda request: request[1]):
            choices = [request[2] for request in group]
            shared = 0
            while shared < min(len(cached), len(context) - 1) and cached[shared] == context[shared]:
                shared += 1
            if shared < len(cached):
                cache.crop(shared - len(cached))
            last = self.call([context[shared:]], cache, shared, rows=1)[0, -1]
            cached = list(context)
            answers += self.continuations(choices, last, cache, len(context))
        return answers

    def call(self, tokens: list[list[int]], cache: DynamicCache, start: int, rows: int = 0) -> torch.Tensor:
        if start + max(map(len, tokens)) > self.max_length:
            raise ValueError("a request is longer than the model's limit; check it with --plain")
        for pin in self.pins:
            pin.start = start
        width = max(map(len, tokens))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in tokens])
        with torch.no_grad(), Numbers(lambda *_: None):  # which lets float64 be float64 in the softmax
            return self.model(padded, past_key_values=cache, use_cache=True, logits_to_keep=rows).logits

    def continuations(self, choices: list[list[int]], last: torch.Tensor, cache: DynamicCache, start: int):
        rows = [[last] for _ in choices]
        longer = [i for i, choice in enumerate(choices) if len(choice) > 1]
        if longer:
            branch = copy.deepcopy(cache)
            branch.batch_repeat_interleave(len(longer))
            logits = self.call([choices[i][:-1] for i in longer], branch, start)
            for row, i in enumerate(longer):
                rows[i] += list(logits[row, : len(choices[i]) - 1])
        for choice, logits in zip(choices, rows, strict=True):
            p = torch.log_softmax(torch.stack(logits), dim=-1)
            yield float(p[range(len(choice)), choice].sum()), bool((p.argmax(dim=-1) == torch.tensor(choice)).all())


def undelimited(choice: str) -> str:
    """lm-eval puts the delimiter itself."""
    assert choice.startswith(" "), choice
    return choice[1:]


def make_task(name: str, items: list[dict], folder: Path) -> ConfigurableTask:
    """A task of lm-eval over these records; nothing but the text and the gold goes in."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: doc["context"],
        "doc_to_choice": lambda doc: [undelimited(c) for c in doc["choices"]],
        "doc_to_target": lambda doc: doc["gold"],
        "metric_list": [{"metric": "acc"}],
    }
    for key, metric in (("norm_chars", "acc_norm"), ("norm_bytes", "acc_bytes")):
        if key in items[0]:
            config["metric_list"].append({"metric": metric})
    if "contexts" in items[0]:  # as tasks/winogrande
        config["doc_to_text"] = lambda doc: doc["gold"]
        config["doc_to_choice"] = lambda doc: doc["contexts"]
        config["doc_to_target"] = lambda doc: undelimited(doc["choices"][0])
    if "labels" in items[0]:  # as tasks/truthfulqa
        config["doc_to_target"] = 0
        config["process_results"] = lambda doc, results: process_results_mc2(
            {"mc2_targets": {"labels": doc["labels"]}}, results
        )
    return ConfigurableTask(config=config)


def run_lm_eval(lm: HFLM, tasks: list[ConfigurableTask]) -> dict[str, list[dict]]:
    results = simple_evaluate(model=lm, tasks=tasks, log_samples=True, bootstrap_iters=0, random_seed=None,
                              numpy_random_seed=None, torch_random_seed=None, fewshot_random_seed=None)
    return {task: sorted(samples, key=lambda s: s["doc_id"]) for task, samples in results["samples"].items()}


def log_likelihoods(sample: dict) -> list[float]:
    return [float(r[0]) for r in sample["filtered_resps"]]


def difference(ours: dict, theirs: dict) -> float:
    """The largest of one item's choices; NaN stays NaN."""
    return float(np.max(np.abs(np.subtract(ours["ll"], log_likelihoods(theirs)))))


class Comparison:
    """One task under one variant."""

    def __init__(self, name: str, tolerance: float) -> None:
        self.name, self.tolerance, self.failures = name, tolerance, []
        self.worst = 0.0
        self.items = self.within_margin = 0

    def item(self, ours: dict, theirs: dict, divisors: dict[str, list]) -> None:
        self.items += 1
        where = f"{self.name} {ours['id']}"
        ll, off = log_likelihoods(theirs), difference(ours, theirs)
        self.worst = max(self.worst, off)
        if not off <= self.tolerance:  # also for NaN
            self.failures.append(f"{where}: log-likelihoods differ by {off:.3g}")
        for metric in DECISIONS:
            if metric not in ours or isinstance(ours[metric], float):
                if metric in ours and not abs(ours[metric] - theirs[metric]) <= self.tolerance:
                    self.failures.append(f"{where}: {metric} {ours[metric]} against {theirs[metric]}")
                continue
            if ours[metric] == theirs[metric]:
                continue
            scores = sorted((a / d for a, d in zip(ll, divisors.get(metric, [1] * len(ll)))), reverse=True)
            if scores[0] - scores[1] <= self.tolerance:
                self.within_margin += 1
            else:
                self.failures.append(f"{where}: {metric} {ours[metric]} against {theirs[metric]}")

    def task(self, items: dict, ours: list[dict], indices: list[int], theirs: list[dict], summary: dict) -> None:
        """`theirs` are lm-eval's samples of ours[indices]; `summary` is sinkref's, of all of ours."""
        merged = list(ours)
        for i, sample in zip(indices, theirs, strict=True):
            doc = items[ours[i]["task"], ours[i]["id"]]
            divisors = {"acc_norm": doc.get("norm_chars"), "acc_bytes": doc.get("norm_bytes")}
            self.item(ours[i], sample, {k: v for k, v in divisors.items() if v})
            merged[i] = ours[i] | {m: sample[m] for m in DECISIONS if m in sample}
        self.summary(summary, merged)

    def summary(self, ours: dict, samples: list[dict]) -> None:
        """sinkref's metrics of all items against lm-eval's functions on `samples`."""
        for metric in DECISIONS:
            if metric not in ours:
                continue
            groups = defaultdict(list)
            for sample in samples:
                groups[sample.get("subject", "")].append(float(sample[metric]))
            values = [v for group in groups.values() for v in group]
            mean = float(np.mean(values))
            error = (pooled_sample_stderr([mean_stderr(g) for g in groups.values()], [len(g) for g in groups.values()])
                     if all(len(g) > 1 for g in groups.values()) else math.nan)
            slack = self.within_margin / len(values) + 1e-6
            if not abs(ours[metric] - mean) <= slack:
                self.failures.append(f"{self.name}: {metric} {ours[metric]} against {mean}")
            if not math.isnan(error) and not abs(ours[f"{metric}_stderr"] - error) <= slack:
                self.failures.append(f"{self.name}: {metric}_stderr {ours[metric + '_stderr']} against {error}")

    def __str__(self) -> str:
        return (f"{self.name}: {self.items} items, largest difference of a log-likelihood {self.worst:.2g}, "
                f"{self.within_margin} decisions within the margin, {len(self.failures)} failures")


def run_sinkref(args: argparse.Namespace, folder: Path) -> tuple[Path, dict]:
    samples = args.samples or folder / "samples.jsonl"
    command = [args.program, "eval", "--model", args.model, "--data", *args.data, "--samples", samples, "--json"]
    command += ["--patch", args.patch] if args.patch else []
    command += ["--limit", str(args.limit)] if args.limit else []
    command += ["--seed", str(args.seed)] if args.limit and args.seed is not None else []
    command += ["--few-shot", args.few_shot] if args.few_shot else []
    summary = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE).stdout
    return samples, json.loads(summary)["tasks"]


def run_variant(args: argparse.Namespace, model, tokenizer, tasks: list, patch: str | None) -> dict[str, list[dict]]:
    pins, handles = pin_up_proj(model, patch) if patch else ([], [])
    lm = (HFLM if args.plain else SharedPrefixLM)(pretrained=model, tokenizer=tokenizer, batch_size=args.batch_size)
    lm.pins = pins
    results = run_lm_eval(lm, tasks)
    for handle in handles:
        handle.remove()
    return results


def ask_again(args: argparse.Namespace, twin, tokenizer, items: dict, own: dict, theirs: dict, patch: str | None) -> None:
    """Puts float64's answers in place of fp32's for the items where sinkref and fp32 are far apart."""
    for task, samples in own.items():
        off = [difference(a, b) for a, b in zip(samples, theirs[task], strict=True)]
        far = [k for k, d in enumerate(off) if not d <= args.tolerance]
        print(f"{task}: largest difference from fp32 {max(off):.2g}, {len(far)} items beyond {args.tolerance:g}: "
              "asked in float64", flush=True)
        if not far:
            continue
        with tempfile.TemporaryDirectory() as folder:
            again = make_task(task, [items[task, samples[k]["id"]] for k in far], Path(folder))
            for k, sample in zip(far, run_variant(args, twin, tokenizer, [again], patch)[task], strict=True):
                theirs[task][k] = sample


def with_few_shot(item: dict, prefixes: dict[str, dict]) -> dict:
    prefix = prefixes[item["subject"]]
    context = prefix["prefix_5shot"] + item["context"].removeprefix(prefix["description"])
    return item | {"task": item["task"] + "_5shot", "context": context}


def read_items(args: argparse.Namespace) -> dict[tuple[str, str], dict]:
    prefixes = {p["subject"]: p for p in read_lines(args.few_shot)} if args.few_shot else {}
    items = {}
    for file in args.data:
        for item in read_lines(file):
            item = with_few_shot(item, prefixes) if item.get("subject") in prefixes else item
            items[item["task"], item["id"]] = item
    return items


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--tokenizer", required=True, type=Path, help="folder with tokenizer.json")
    parser.add_argument("--data", required=True, nargs="+", type=Path)
    parser.add_argument("--few-shot", type=Path)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--patch", help="LAYER:NEURONS[;...], empty for the original alone")
    parser.add_argument("--samples", type=Path, help="keep (or resume) sinkref's samples here")
    parser.add_argument("--check", type=int, help="hold this many items of each task against lm-eval (default: all)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--reference", choices=("fp64", "fp32", "both"), default="fp64")
    parser.add_argument("--plain", action="store_true", help="HFLM itself (fp32), without SharedPrefixLM")
    parser.add_argument("--tolerance", type=float, default=2e-4)
    parser.add_argument("--program", type=Path, default=ROOT / "build" / "sinkref")
    args = parser.parse_args()

    failures = []
    with tempfile.TemporaryDirectory() as folder:
        samples_file, summary = run_sinkref(args, Path(folder))
        ours = defaultdict(list)
        for sample in read_lines(samples_file):
            ours[sample["task"], sample["variant"]].append(sample)
        items = read_items(args)
        model = load(args.model)
        twin = exact(model) if args.reference != "fp32" and not args.plain else model
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
        tasks, chosen = [], {}
        for task in dict.fromkeys(task for task, _ in ours):
            ids = [sample["id"] for sample in next(samples for (t, _), samples in ours.items() if t == task)]
            chosen[task] = sorted(random.Random(0).sample(range(len(ids)), min(args.check or len(ids), len(ids))))
            tasks.append(make_task(task, [items[task, ids[i]] for i in chosen[task]], Path(folder)))
        for variant in dict.fromkeys(v for _, v in ours):
            start = time.monotonic()
            patch = args.patch if variant == "patched" else None
            own = {task: [ours[task, variant][i] for i in indices] for task, indices in chosen.items()}
            if args.reference == "both":
                theirs = run_variant(args, model, tokenizer, tasks, patch)
                ask_again(args, twin, tokenizer, items, own, theirs, patch)
            else:
                theirs = run_variant(args, twin, tokenizer, tasks, patch)
            print(f"{variant}: lm-eval with transformers took {time.monotonic() - start:.1f} s", file=sys.stderr)
            for task, indices in chosen.items():
                comparison = Comparison(f"{task} {variant}", args.tolerance)
                comparison.task(items, ours[task, variant], indices, theirs[task], summary[task][variant])
                print(comparison, flush=True)
                failures += comparison.failures
    for failure in failures[:20]:
        print(failure)
    return 1 if failures or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
