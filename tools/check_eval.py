#!/usr/bin/env python3
"""Holds `sinkref eval` against Hugging Face's model under the real lm-evaluation-harness.

    tools/check_eval.py --model MODEL --tokenizer DIR --data FILE ... --limit 200 --patch 2:90,430

For every item: each choice's log-likelihood within the tolerance, and the decision (acc, acc_norm,
acc_bytes) equal unless the margin between the best two is below it; then every metric and standard
error. lm-eval builds the requests from the text of the data and scores them (simple_evaluate), so a
wrong token boundary, truncation or divisor shows. With --patch the same again with the paper's hook
on up_proj. Needs tools/requirements-eval.txt. Exit 0 or 1.

The reference is Hugging Face's model in true float64 (hf_runs.py), because its fp32 is off by more
than the tolerance: on SmolLM2 by up to 7e-4 for one choice. --reference fp32 measures that too.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
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

from hf_runs import Numbers, exact, load

ROOT = Path(__file__).resolve().parent.parent
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


class Comparison:
    def __init__(self, tolerance: float) -> None:
        self.tolerance, self.failures = tolerance, []
        self.worst = 0.0
        self.items = self.within_margin = 0

    def item(self, where: str, ours: dict, theirs: dict, divisors: dict[str, list]) -> None:
        self.items += 1
        ll = [float(r[0]) for r in theirs["filtered_resps"]]
        difference = max(abs(a - b) for a, b in zip(ours["ll"], ll, strict=True))
        self.worst = max(self.worst, difference)
        if not difference <= self.tolerance:  # also for NaN
            self.failures.append(f"{where}: log-likelihoods differ by {difference:.3g}")
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

    def summary(self, where: str, ours: dict, theirs: list[dict], subjects: list[str]) -> None:
        for metric in DECISIONS:
            if metric not in ours:
                continue
            groups = defaultdict(list)
            for sample, subject in zip(theirs, subjects, strict=True):
                groups[subject].append(float(sample[metric]))
            values = [v for group in groups.values() for v in group]
            mean = float(np.mean(values))
            error = (pooled_sample_stderr([mean_stderr(g) for g in groups.values()], [len(g) for g in groups.values()])
                     if all(len(g) > 1 for g in groups.values()) else math.nan)
            slack = self.within_margin / len(values) + 1e-6
            if not abs(ours[metric] - mean) <= slack:
                self.failures.append(f"{where}: {metric} {ours[metric]} against {mean}")
            if not math.isnan(error) and not abs(ours[f"{metric}_stderr"] - error) <= slack:
                self.failures.append(f"{where}: {metric}_stderr {ours[metric + '_stderr']} against {error}")


def run_sinkref(args: argparse.Namespace, folder: Path) -> tuple[Path, dict]:
    samples = args.samples or folder / "samples.jsonl"
    command = [args.program, "eval", "--model", args.model, "--data", *args.data, "--samples", samples, "--json"]
    command += ["--patch", args.patch] if args.patch else []
    command += ["--limit", str(args.limit)] if args.limit else []
    command += ["--seed", str(args.seed)] if args.limit and args.seed is not None else []
    command += ["--few-shot", args.few_shot] if args.few_shot else []
    summary = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE).stdout
    return samples, json.loads(summary)["tasks"]


def with_few_shot(item: dict, prefixes: dict[str, dict]) -> dict:
    prefix = prefixes[item["subject"]]
    context = prefix["prefix_5shot"] + item["context"].removeprefix(prefix["description"])
    return item | {"task": item["task"] + "_5shot", "context": context}


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
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--reference", choices=("fp64", "fp32"), default="fp64")
    parser.add_argument("--plain", action="store_true", help="HFLM itself (fp32), without SharedPrefixLM")
    parser.add_argument("--tolerance", type=float, default=2e-4)
    parser.add_argument("--program", type=Path, default=ROOT / "build" / "sinkref")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        samples_file, summary = run_sinkref(args, Path(folder))
        ours = defaultdict(list)
        for sample in read_lines(samples_file):
            ours[sample["task"], sample["variant"]].append(sample)
        items = {}
        prefixes = {p["subject"]: p for p in read_lines(args.few_shot)} if args.few_shot else {}
        for file in args.data:
            for item in read_lines(file):
                item = with_few_shot(item, prefixes) if item.get("subject") in prefixes else item
                items[item["task"], item["id"]] = item
        model = load(args.model)
        if args.reference == "fp64" and not args.plain:
            model = exact(model)
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
        tasks, chosen = [], {}
        for task in dict.fromkeys(task for task, _ in ours):
            variant = next(v for t, v in ours if t == task)
            chosen[task] = [items[task, s["id"]] for s in ours[task, variant]]
            tasks.append(make_task(task, chosen[task], Path(folder)))
        comparison = Comparison(args.tolerance)
        for variant in dict.fromkeys(v for _, v in ours):
            pins, handles = pin_up_proj(model, args.patch) if variant == "patched" else ([], [])
            start = time.monotonic()
            lm_class = HFLM if args.plain else SharedPrefixLM
            lm = lm_class(pretrained=model, tokenizer=tokenizer, batch_size=args.batch_size)
            lm.pins = pins
            theirs = run_lm_eval(lm, tasks)
            print(f"{variant}: lm-eval with transformers took {time.monotonic() - start:.1f} s", file=sys.stderr)
            for handle in handles:
                handle.remove()
            for task, docs in chosen.items():
                for doc, own, sample in zip(docs, ours[task, variant], theirs[task], strict=True):
                    divisors = {"acc_norm": doc.get("norm_chars"), "acc_bytes": doc.get("norm_bytes")}
                    comparison.item(f"{task} {doc['id']} {variant}", own, sample,
                                    {k: v for k, v in divisors.items() if v})
                comparison.summary(f"{task} {variant}", summary[task][variant], theirs[task],
                                   [doc.get("subject", "") for doc in docs])
    for failure in comparison.failures[:20]:
        print(failure)
    print(f"{comparison.items} items and variants, largest difference of a log-likelihood {comparison.worst:.3g}, "
          f"{comparison.within_margin} decisions within the margin, {len(comparison.failures)} failures")
    return 1 if comparison.failures or comparison.items == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
