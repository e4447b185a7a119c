#!/usr/bin/env python3
"""Writes multiple-choice tasks of the installed lm-evaluation-harness as items for `sinkref eval`.

    tools/eval/export_lm_eval.py --tasks arc_easy,hellaswag,winogrande,mmlu,truthfulqa_mc2 --out data
    tools/eval/export_lm_eval.py --tasks mmlu --num-fewshot 5 --out data

Needs lm-eval (tools/requirements-eval.txt) and a network: lm-eval fetches the data sets from the
Hugging Face hub. The requests are lm-eval's own (fewshot_context, construct_requests), so prompts,
few-shot examples and their order are as it would send them. A group becomes one file: DIR/TASK.jsonl.gz
with, for `mmlu`, the subject in each item. Data keep the licences of their authors.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path


class UserError(Exception):
    """Bad input: the message is all the user needs to see."""


def leaves(tasks: dict):
    """The tasks of a dictionary in which groups hold dictionaries of their own."""
    for value in tasks.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield value


def labels_of(task, doc: dict) -> list[int] | None:
    """TruthfulQA mc2: a task that scores by the mass of all true answers."""
    if getattr(task.config, "process_results", None) is None:
        return None
    if "mc2_targets" in doc:
        return list(doc["mc2_targets"]["labels"])
    raise UserError(f"{task.config.task} scores its answers by a function of its own: not a plain choice")


SCORED = {"acc", "acc_norm", "acc_bytes"}


def metrics_of(task) -> set[str]:
    return {m["metric"] for m in task.config.metric_list or []}


def item_of(task, name: str, subject: str, number: int, doc: dict, num_fewshot: int) -> dict:
    context = task.fewshot_context(doc, num_fewshot=num_fewshot)
    requests = task.construct_requests(doc, context, metadata=(name, number, 1))
    if not isinstance(requests, list) or any(r.request_type != "loglikelihood" for r in requests):
        raise UserError(f"{name}: is not a multiple-choice task by log-likelihood")
    choices = task.doc_to_choice(doc)
    # For acc_mutual_info lm-eval asks every choice a second time, after nothing.
    if len(requests) == 2 * len(choices) and all(r.args[0] == "" for r in requests[len(choices):]):
        requests = requests[:len(choices)]
    if len(requests) != len(choices):
        raise UserError(f"{name}: asks {len(requests)} times for {len(choices)} choices, which sinkref does not score")
    contexts = [r.args[0] for r in requests]
    item = {"task": name, "id": f"{task.config.task}/{number}",
            "context": contexts[0] if len(set(contexts)) == 1 else "",
            "choices": [r.args[1] for r in requests]}
    if len(set(contexts)) > 1:
        item["contexts"] = contexts
    labels = labels_of(task, doc)
    if labels is not None:
        item["labels"] = labels
    else:
        gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        item["gold"] = choices.index(gold) if isinstance(gold, str) else gold
        if not isinstance(item["gold"], int):
            raise UserError(f"{name}: has several right answers to one question, which sinkref does not score")
    metrics = metrics_of(task)
    if "acc_norm" in metrics:
        item["norm_chars"] = [len(c) for c in choices]
    if "acc_bytes" in metrics:
        item["norm_bytes"] = [len(c.encode()) for c in choices]
    if subject:
        item["subject"] = subject
    return item


def export(tasks: list, group: str, num_fewshot: int | None, limit: int | None, folder: Path) -> None:
    name = f"{group}_{num_fewshot}shot" if num_fewshot else group
    path = folder / f"{name}.jsonl.gz"
    partial = path.with_suffix(".partial")
    count = 0
    # mtime=0: the same items are the same bytes.
    with gzip.GzipFile(partial, "wb", mtime=0) as file:
        for task in tasks:
            shots = num_fewshot if num_fewshot is not None else task.config.num_fewshot or 0
            task.set_config(key="num_fewshot", value=shots)
            task.set_fewshot_seed(seed=1234)  # lm-eval's default
            subject = "" if task.config.task == group else task.config.task.removeprefix(f"{group}_")
            for number, doc in enumerate(task.eval_docs):
                if limit is not None and number >= limit:
                    break
                item = item_of(task, name, subject, number, doc, shots)
                file.write((json.dumps(item, ensure_ascii=False) + "\n").encode())
                count += 1
    if count == 0:
        partial.unlink()
        raise UserError(f"{name}: has no items")
    if left_out := sorted({m for task in tasks for m in metrics_of(task)} - SCORED):
        print(f"{name}: not scored by sinkref and left out: {', '.join(left_out)}", file=sys.stderr)
    partial.replace(path)
    print(f"{path}: {count} items")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", required=True, help="names of lm-eval's tasks or groups, as arc_easy,mmlu")
    parser.add_argument("--num-fewshot", type=int, help="examples before each question (default: the task's own)")
    parser.add_argument("--limit", type=int, help="items per (sub)task")
    parser.add_argument("--include-path", help="folder with task files of your own, as lm_eval's option")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    args = parser.parse_args()
    try:
        from lm_eval.tasks import TaskManager, get_task_dict
    except ImportError:
        raise UserError("lm-eval is not installed here; run pip install -r tools/requirements-eval.txt") from None
    args.out.mkdir(parents=True, exist_ok=True)
    manager = TaskManager(include_path=args.include_path)
    for name in args.tasks.split(","):
        export(list(leaves(get_task_dict([name], manager))), name, args.num_fewshot, args.limit, args.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"export_lm_eval.py: {error}", file=sys.stderr)
        sys.exit(2)
