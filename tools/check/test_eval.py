#!/usr/bin/env python3
"""Tests of `sinkref eval` as a program: kill and resume, shards and merge, bad input; with --ray on a
Ray cluster of this machine, one worker of which is killed; with --lm-eval tasks of the real lm-eval,
exported and through its own command. Uses the tiny model."""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "sinkref"
ITEMS = ROOT / "reference_outputs" / "eval" / "items.jsonl"
PREFIXES = ROOT / "reference_outputs" / "eval" / "mmlu_prefix.jsonl"
PATCH = ["--patch", "0:3,17;1:5"]


def command(*arguments: object) -> list[str]:
    return [str(PROGRAM), "eval", *map(str, arguments), "--threads", "1"]


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, text=True)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.split("\n") if line]


def items(*tasks: str) -> list[dict]:
    return [item for item in lines(ITEMS.read_text()) if not tasks or item["task"] in tasks]


class EvalTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def done(self, *arguments: object) -> subprocess.CompletedProcess:
        result = run(*arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def refused(self, named: str, *arguments: object) -> None:
        result = run(*arguments)
        self.assertEqual(result.returncode, 2, (arguments, result.stderr))
        error = result.stderr.strip().split("\n")[-1]
        self.assertTrue(error.startswith("sinkref: "), result.stderr)
        self.assertIn(named, error)

    def write(self, *records: object) -> Path:
        file = self.folder / "data.jsonl"
        file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
        return file

    def uninterrupted(self) -> tuple[bytes, bytes, str]:
        file = self.folder / "whole.jsonl"
        summary = self.done("--data", ITEMS, *PATCH, "--samples", file, "--json").stdout
        return file.read_bytes(), Path(f"{file}.run.json").read_bytes(), summary

    def test_kill_and_resume(self) -> None:
        """SIGKILL at ten random moments, after every other one of which the last bytes are lost too."""
        data = self.write(*(item | {"id": f"{item['id']}/{copy}"} for copy in range(12) for item in items()))
        whole, file = self.folder / "whole.jsonl", self.folder / "killed.jsonl"
        partial = Path(f"{file}.partial")
        summary = self.done("--data", data, *PATCH, "--samples", whole, "--json").stdout
        moments = random.Random(7)
        kept = []
        for kill, size in enumerate(sorted(moments.uniform(0, 0.9) * whole.stat().st_size for _ in range(10))):
            process = subprocess.Popen(command("--data", data, *PATCH, "--samples", file, "--json"),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not (partial.exists() and partial.stat().st_size >= size):
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            self.assertEqual(process.wait(), -signal.SIGKILL, "it had ended before")
            if kill % 2:
                os.truncate(partial, max(0, partial.stat().st_size - moments.randrange(1, 300)))
            kept.append(partial.stat().st_size)
        self.assertGreater(len(set(kept)), 5)
        end = self.done("--data", data, *PATCH, "--samples", file, "--json").stdout
        self.assertEqual(file.read_bytes(), whole.read_bytes())
        self.assertEqual(Path(f"{file}.run.json").read_bytes(), Path(f"{whole}.run.json").read_bytes())
        self.assertEqual(end, summary)
        self.assertFalse(partial.exists())
        # Once more: nothing is run, the same is printed.
        self.assertEqual(self.done("--data", data, *PATCH, "--samples", file, "--json").stdout, summary)
        self.assertEqual(file.read_bytes(), whole.read_bytes())

    def test_every_prefix_of_the_partial_file_resumes(self) -> None:
        whole, _, _ = self.uninterrupted()
        file = self.folder / "cut.jsonl"
        for size in (0, 1, 200, len(whole) // 3, len(whole) - 1, len(whole)):
            self.done("--data", ITEMS, *PATCH, "--samples", file, "--force")
            file.rename(f"{file}.partial")
            os.truncate(f"{file}.partial", size)
            self.done("--data", ITEMS, *PATCH, "--samples", file)
            self.assertEqual(file.read_bytes(), whole, size)

    def test_shards_merge_to_the_same_bytes(self) -> None:
        whole, info, summary = self.uninterrupted()
        for count in (1, 2, 5, 50):
            shards = [self.folder / f"{count}-{i}.jsonl" for i in range(count)]
            for i, shard in enumerate(shards):
                self.done("--data", ITEMS, *PATCH, "--samples", shard, "--shard", f"{i}/{count}")
            merged = self.folder / f"merged-{count}.jsonl"
            printed = self.done("--merge", *reversed(shards), "--samples", merged, "--json").stdout
            self.assertEqual(merged.read_bytes(), whole)
            self.assertEqual(Path(f"{merged}.run.json").read_bytes(), info)
            self.assertEqual(printed, summary)
        two = [self.folder / f"2-{i}.jsonl" for i in range(2)]
        out = self.folder / "out.jsonl"
        self.refused("shard 1/2 is missing", "--merge", two[0], "--samples", out)
        self.refused("there twice", "--merge", two[0], two[0], "--samples", out)
        self.refused("of 5", "--merge", two[0], self.folder / "5-1.jsonl", "--samples", out)
        self.refused("no shard", "--merge", self.folder / "whole.jsonl", "--samples", out)
        self.refused("is not there", "--merge", two[0], self.folder / "none.jsonl", "--samples", out)
        two[1].write_bytes(two[1].read_bytes()[:-5])
        self.refused("2-1.jsonl", "--merge", *two, "--samples", out)
        self.assertFalse(out.exists())

    def test_another_run_is_not_mixed_in(self) -> None:
        file = self.folder / "a.jsonl"
        data = self.write(*items("arc_easy"))
        self.done("--data", data, "--samples", file)
        before = file.read_bytes()
        self.refused("another run (patch is", "--data", data, "--samples", file, *PATCH)
        self.refused("another run (limit is", "--data", data, "--samples", file, "--limit", 2)
        self.write(*items("arc_easy")[:3])
        self.refused("another run (data is", "--data", data, "--samples", file)
        self.assertEqual(file.read_bytes(), before)
        self.done("--data", data, "--samples", file, "--force")
        self.assertEqual(len(lines(file.read_text())), 3)

    def test_selection(self) -> None:
        file = self.folder / "s.jsonl"
        self.done("--data", ITEMS, "--tasks", "arc_easy,mmlu", "--limit", 2, "--samples", file)
        self.assertEqual([s["task"] for s in lines(file.read_text())], ["mmlu"] * 2 + ["arc_easy"] * 2)
        self.done("--data", ITEMS, "--tasks", "arc_easy", "--limit", 3, "--seed", 5, "--samples", file, "--force")
        alone = lines(file.read_text())
        self.done("--data", ITEMS, "--limit", 3, "--seed", 5, "--samples", file, "--force")
        self.assertEqual([s for s in lines(file.read_text()) if s["task"] == "arc_easy"], alone)
        self.assertNotEqual([s["id"] for s in alone], [i["id"] for i in items("arc_easy")][:3])

    def test_few_shot_is_the_longer_prompt(self) -> None:
        prefixes = {p["subject"]: p for p in lines(PREFIXES.read_text())}
        written = []
        for item in items("mmlu"):
            p = prefixes[item["subject"]]
            item["context"] = p["prefix_5shot"] + item["context"][len(p["description"]):]
            written.append(item | {"task": "mmlu_5shot"})
        a, b = self.folder / "a.jsonl", self.folder / "b.jsonl"
        self.done("--data", ITEMS, "--few-shot", PREFIXES, "--tasks", "mmlu_5shot", "--samples", a)
        self.done("--data", self.write(*written), "--samples", b)
        self.assertEqual(a.read_bytes(), b.read_bytes())

    def test_gzip_and_variants(self) -> None:
        packed = self.folder / "items.jsonl.gz"
        packed.write_bytes(gzip.compress(ITEMS.read_bytes()))
        a, b, c = (self.folder / name for name in "abc")
        self.done("--data", packed, *PATCH, "--samples", a)
        self.done("--data", ITEMS, *PATCH, "--samples", b, "--variant", "patched")
        self.done("--data", ITEMS, "--samples", c)
        both = lines(a.read_text())
        self.assertEqual(both[1::2], lines(b.read_text()))
        self.assertEqual(both[0::2], lines(c.read_text()))
        packed.write_bytes(packed.read_bytes()[:-20])
        self.refused("damaged gzip", "--data", packed)

    def test_bad_input_names_the_line(self) -> None:
        good = items("arc_easy")[0]
        bad = {
            "expected JSON, found": "{",
            "is empty": "",
            "expected a JSON object": "[1]",
            'has no "choices"': {k: v for k, v in good.items() if k != "choices"},
            '"choices": expected': good | {"choices": []},
            '"context" is': good | {"context": 3},
            '"contexts": expected a list of 4': good | {"contexts": ["a"]},
            '"gold" is "4"': good | {"gold": 4},
            '"gold" is "-1"': good | {"gold": -1},
            '"labels"': good | {"labels": [0, 0, 0, 0]},
            '"norm_chars": expected a list of 4': good | {"norm_chars": [1, 2]},
            "stands at": good,
        }
        for named, record in bad.items():
            data = self.write(good, record)
            self.refused(named, "--data", data)
            self.refused("data.jsonl:2", "--data", data)
        self.refused("holds no items", "--data", self.write())
        self.refused("no task", "--data", self.write(good), "--tasks", "hellaswag")
        self.refused("--data", "--samples", self.folder / "x")
        self.refused("nothere", "--data", self.folder / "nothere")
        for shard in ("2/2", "1", "a/b", "-1/2", "0/0", "1/2/3"):
            self.refused("--shard", "--data", ITEMS, "--shard", shard, "--samples", self.folder / "x")

    def test_an_item_that_cannot_be_scored_stops_nothing(self) -> None:
        first, second = items("arc_easy")[:2]
        many = [first | {"id": str(i)} for i in range(80)]
        bad = second | {"id": "bad", "choices": [" word" * 600, " b", " c", " d"]}
        data = self.write(*many, bad, second, bad | {"task": "other"}, second | {"task": "other"})
        alone, file = self.folder / "alone.jsonl", self.folder / "kept.jsonl"
        self.done("--data", data, *PATCH, "--samples", file)
        result = self.done("--data", data, *PATCH, "--samples", file, "--json")  # what it said, again
        tasks = json.loads(result.stdout)["tasks"]
        self.assertEqual([(t["not_scored"], t["original"]["n"], t["patched"]["n"]) for t in tasks.values()],
                         [(1, 81, 81), (1, 1, 1)])
        self.assertIn("arc_easy: 1 items could not be scored and do not count; the first: ", result.stderr)
        self.assertIn("data.jsonl:81: choice 0 is", result.stderr)
        samples = lines(file.read_text())
        errors = [s for s in samples if "error" in s]
        self.assertEqual([(s["task"], s["id"], s["variant"]) for s in errors],
                         [(t, "bad", v) for t in ("arc_easy", "other") for v in ("original", "patched")])
        self.assertTrue(all(set(s) == {"task", "id", "variant", "error"} for s in errors))
        # The others are what they are without it.
        self.done("--data", self.write(*many, second, second | {"task": "other"}), *PATCH, "--samples", alone)
        self.assertEqual([s for s in samples if "error" not in s], lines(alone.read_text()))
        self.refused("no item could be scored", "--data", self.write(bad))

    def test_what_is_too_long_is_said_to_be_shortened(self) -> None:
        item = items("arc_easy")[0]
        long = item | {"id": "long", "context": "word " * 600 + item["context"]}
        file = self.folder / "long.jsonl"
        result = self.done("--data", self.write(item, long), "--samples", file, "--json")
        self.assertEqual(json.loads(result.stdout)["tasks"]["arc_easy"]["truncated"], 1)
        self.assertIn("1 items are longer than the model's context and lost their beginning", result.stderr)
        short, cut = lines(file.read_text())
        self.assertNotIn("truncated", short)
        self.assertGreater(cut["truncated"], 0)
        self.assertEqual(self.done("--data", self.folder / "data.jsonl", "--samples", file, "--json").stdout, result.stdout)

    def test_a_run_is_known_by_contents(self) -> None:
        """Weights, configuration, tokenizer, data and settings: not the names of files."""
        model, file, data = self.folder / "m", self.folder / "s.jsonl", self.write(*items("arc_easy"))
        tiny = ROOT / "reference_outputs" / "tiny_llama3"
        shutil.copytree(tiny, model)
        (self.folder / "link").symlink_to("m")
        shutil.copy(data, self.folder / "renamed.jsonl")
        arguments = ["--model", model, "--data", data, "--samples", file]
        self.done(*arguments)
        whole = file.read_bytes()
        partial = Path(f"{file}.partial")
        for name in (f"{model}/", self.folder / "link", f"{self.folder}/./m", tiny):
            for given in (data, self.folder / "renamed.jsonl"):
                file.rename(partial)
                os.truncate(partial, len(whole) // 2)
                self.done("--model", name, "--data", given, "--samples", file)
                self.assertEqual(file.read_bytes(), whole)
        self.done(*arguments, "--tasks", "arc_easy", "--force")
        self.done(*arguments, "--tasks", "arc_easy")
        self.done(*arguments, "--force")

        config = json.loads((model / "config.json").read_text())
        rope = config["rope_parameters"] | {"rope_theta": 1e4}
        for key, value in {"rms_norm_eps": 1e-2, "rope_parameters": rope, "max_position_embeddings": 300}.items():
            (model / "config.json").write_text(json.dumps(config | {key: value}))
            self.refused("another run (config: ", *arguments)
            (model / "config.json").write_text(json.dumps(config))
        self.done(*arguments)
        tokenizer = next(f for f in (model / "tokenizer.json", model / "tokenizer.model") if f.exists())
        before = tokenizer.read_bytes()
        if tokenizer.suffix == ".json":
            tokenizer.write_bytes(before.replace(b"{", b"{ ", 1))
            self.refused("another run (tokenizer_sha256 is", *arguments)
            tokenizer.write_bytes(before)
        self.refused("another run (kernel is", *arguments, "--kernel", "openblas")
        self.done(*arguments, "--kernel", "spec", "--chunk", "7")
        self.assertEqual(file.read_bytes(), whole)

    def test_results_have_a_place_before_the_work(self) -> None:
        data = self.write(*items("arc_easy"))
        out = self.folder / "out.json"
        out.write_text("mine")
        self.refused("out.json: exists already", "--data", data, "--out", out, "--samples", self.folder / "s")
        self.assertEqual(sorted(f.name for f in self.folder.iterdir()), ["data.jsonl", "out.json"])
        self.assertEqual(out.read_text(), "mine")

    def test_signals_leave_what_resumes_and_nothing_else(self) -> None:
        data = self.write(*(item | {"id": f"{item['id']}/{copy}"} for copy in range(30) for item in items()))
        whole = self.folder / "whole.jsonl"
        self.done("--data", data, "--samples", whole)
        for number, name in enumerate(("QUIT", "USR1", "XCPU", "PIPE", "TERM", "USR2", "ALRM", "HUP")):
            folder = self.folder / name
            folder.mkdir()
            file = folder / "s.jsonl"
            process = subprocess.Popen(command("--data", data, "--samples", file, "--out", folder / "o.json", "--kernel", "spec"),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            partial = Path(f"{file}.partial")
            while process.poll() is None and not (partial.exists() and partial.stat().st_size > 0):
                time.sleep(0.001)
            process.send_signal(getattr(signal, f"SIG{name}"))
            self.assertEqual(process.wait(), -getattr(signal, f"SIG{name}"), name)
            self.assertEqual(sorted(f.name for f in folder.iterdir()), ["s.jsonl.partial", "s.jsonl.run.json"])
            if number < 2:
                self.done("--data", data, "--samples", file)
                self.assertEqual(file.read_bytes(), whole.read_bytes())

    def test_control_characters_do_not_reach_the_terminal(self) -> None:
        item = items("arc_easy")[0]
        for name in ("a\x1b[2Jb", "a\rb", "a\x7fb", "a\u009bb"):
            result = self.done("--data", self.write(item | {"task": name}))
            for c in "\x1b\r\x7f\u009b":
                self.assertNotIn(c, result.stdout + result.stderr)
            self.refused("no task", "--data", self.folder / "data.jsonl", "--tasks", "x")

    def test_many_choices_after_one_context(self) -> None:
        """As lm-eval asks BLiMP: one empty context, and a thousand choices."""
        choices = [f" {a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"]
        item = {"task": "many", "id": "0", "context": "", "choices": choices, "gold": 0}
        ones = [item | {"id": str(i), "choices": [c]} for i, c in enumerate(choices)]
        one, many = self.folder / "one", self.folder / "many"
        self.done("--data", self.write(item), "--samples", one)
        self.done("--data", self.write(*ones), "--samples", many)
        self.assertEqual(lines(one.read_text())[0]["ll"], [s["ll"][0] for s in lines(many.read_text())])

    def test_only_one_process_writes(self) -> None:
        file = self.folder / "one.jsonl"
        process = subprocess.Popen(command("--data", ITEMS, "--kernel", "spec", "--samples", file),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not Path(f"{file}.partial").exists() and process.poll() is None:
                time.sleep(0.005)
            time.sleep(0.05)
            if process.poll() is None:
                self.refused("another process", "--data", ITEMS, "--samples", file)
        finally:
            process.kill()
            process.wait()


class ExportTest(unittest.TestCase):
    """tools/eval/export_lm_eval.py on tasks made here, as lm-eval has them."""

    def item(self, answers: list[str], requests: list[tuple[str, str]], metrics: tuple[str, ...]) -> dict:
        sys.path.insert(0, str(ROOT / "tools" / "eval"))
        from export_lm_eval import item_of
        asked = [SimpleNamespace(request_type="loglikelihood", args=r) for r in requests]
        task = SimpleNamespace(
            config=SimpleNamespace(task="t", process_results=None, metric_list=[{"metric": m} for m in metrics]),
            multiple_input=False, fewshot_context=lambda doc, num_fewshot: "Q", doc_to_choice=lambda doc: answers,
            doc_to_target=lambda doc: 1, construct_requests=lambda doc, context, metadata: asked)
        return item_of(task, "t", "", 0, {}, 0)

    def test_choices_are_exported_once(self) -> None:
        answers = ["a", "bb", "ccc"]
        asked = [("Q", f" {a}") for a in answers]
        for metrics, requests in ((("acc", "acc_norm"), asked),
                                  # For acc_mutual_info lm-eval asks each choice once more, after nothing.
                                  (("acc", "acc_norm", "acc_mutual_info"), asked + [("", a) for a in answers])):
            item = self.item(answers, requests, metrics)
            self.assertEqual(item["choices"], [" a", " bb", " ccc"])
            self.assertEqual((item["context"], item["gold"], item["norm_chars"]), ("Q", 1, [1, 2, 3]))
            self.assertNotIn("contexts", item)
        with self.assertRaisesRegex(Exception, "asks 4 times for 3 choices"):
            self.item(answers, asked + [("Q", " d")], ("acc",))


class CommittedTableTest(unittest.TestCase):
    """The committed table of benchmarks follows from the committed items, computed here once more."""

    FOLDER = ROOT / "reference_outputs" / "eval" / "smollm2"

    @staticmethod
    def estimate(values: list[float]) -> tuple[float, float]:
        mean = math.fsum(values) / len(values)
        return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))

    def test_numbers(self) -> None:
        tasks = json.loads((self.FOLDER / "benchmarks.json").read_text())
        page = (self.FOLDER / "README.md").read_text()
        self.assertGreater(len(tasks), 0)
        for task, found in tasks.items():
            samples = lines(gzip.open(self.FOLDER / f"{task}.jsonl.gz", "rt", encoding="utf-8").read())
            original, patched = samples[0::2], samples[1::2]
            self.assertEqual([s["id"] for s in original], [s["id"] for s in patched])
            self.assertEqual(len(original), found["original"]["n"])
            if any("subject" in s for s in samples):
                continue  # pooled errors: eval_metrics_test.cpp
            for metric in (key for key in original[0] if key.startswith("acc")):
                a, b = ([float(s[metric]) for s in half] for half in (original, patched))
                for values, key in ((a, "original"), (b, "patched"), ([y - x for x, y in zip(a, b)], "delta")):
                    for got, name in zip(self.estimate(values), (metric, f"{metric}_stderr")):
                        self.assertAlmostEqual(got, found[key][name], 12, (task, key, name))
                better, worse = sum(y > x for x, y in zip(a, b)), sum(y < x for x, y in zip(a, b))
                self.assertEqual((better, worse), (found["delta"][f"{metric}_better"], found["delta"][f"{metric}_worse"]))
                if (p := found["delta"][f"{metric}_mcnemar_p"]) is not None:
                    n, least = better + worse, min(better, worse)
                    exact = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
                    self.assertAlmostEqual(p, exact, 12, (task, metric))
                if metric != "acc_bytes":
                    self.assertIn(f"| {task} | {metric} | {len(a)} | {found['original'][metric]:.4f} ±", page)


class RayTest(EvalTest):
    """The same bytes from a Ray cluster, one of whose workers is killed."""

    def test_worker_killed(self) -> None:
        whole, info, _ = self.uninterrupted()
        out, work = self.folder / "ray.jsonl", self.folder / "work"
        driver = subprocess.Popen([sys.executable, ROOT / "tools" / "eval" / "eval_ray.py", "--shards", "3", "--out", out,
                                   "--work", work, "--", "--kernel", "spec", "--data", ITEMS, *PATCH],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        killed = 0
        deadline = time.monotonic() + 300
        while driver.poll() is None and time.monotonic() < deadline:
            # The parent of a running shard is Ray's worker.
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
                except (OSError, IndexError, ValueError):
                    continue
                if killed == 0 and b"--shard" in words and str(work).encode() in b" ".join(words):
                    os.kill(parent, signal.SIGKILL)
                    killed = parent
            time.sleep(0.05)
        self.assertEqual(driver.wait(timeout=10), 0, driver.stderr.read())
        self.assertNotEqual(killed, 0)
        self.assertEqual(out.read_bytes(), whole)
        self.assertEqual(Path(f"{out}.run.json").read_bytes(), info)


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
fewshot_split: test
output_type: multiple_choice
metadata: {{version: 1}}
"""
PLAIN = """
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{answers}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
BY_CONTEXT = """
doc_to_text: !function utils.right_one
doc_to_choice: !function utils.beginnings
doc_to_target: !function utils.ending
metric_list: [{metric: acc}]
"""
SEVERAL_TRUE = """
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: "{{mc2_targets.choices}}"
doc_to_target: 0
process_results: !function utils.process_results_mc2
metric_list: [{metric: acc}]
"""
UTILS = """
from lm_eval.tasks.truthfulqa.utils import process_results_mc2
def right_one(doc): return doc["gold"]
def beginnings(doc): return [f"{doc['question']} {a}" for a in doc["answers"]]
def ending(doc): return "is right"
"""


class LmEvalTest(EvalTest):
    """Tasks of lm-eval from local files: exported, and through `lm_eval --model sinkref`, are one result."""

    TASKS = ("local_plain", "local_contexts", "local_several", "local_group")

    def write_tasks(self) -> Path:
        folder = self.folder / "tasks"
        folder.mkdir()
        docs = [{"question": item["context"].removeprefix("Question: ").removesuffix("\nAnswer:"),
                 "answers": [choice[1:] for choice in item["choices"]], "gold": item["gold"],
                 # Short ones, the true ones first: lm-eval's exp() underflows, and it takes what follows a 0 for false.
                 "mc2_targets": {"choices": ["a", "b", "c", "d"], "labels": [1, 1, 0, 0]}}
                for item in items("arc_easy", "arc_challenge") if len(item["choices"]) == 4]
        bodies = {"local_plain": PLAIN, "local_contexts": BY_CONTEXT, "local_several": SEVERAL_TRUE,
                  "local_group_a": PLAIN, "local_group_b": PLAIN}
        for number, (name, body) in enumerate(bodies.items()):
            data = folder / f"{name}.json"
            data.write_text("".join(json.dumps(doc) + "\n" for doc in docs[number % 2 :]))
            (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data) + body)
        (folder / "local_group.yaml").write_text(
            "group: local_group\ntask: [local_group_a, local_group_b]\n"
            "aggregate_metric_list: [{metric: acc, weight_by_size: true}, {metric: acc_norm, weight_by_size: true}]\n"
            "metadata: {version: 1}\n")
        (folder / "utils.py").write_text(UTILS)
        return folder

    def python(self, *arguments: object) -> None:
        environment = os.environ | {"HF_HOME": str(self.folder / "hf"), "HF_HUB_OFFLINE": "1", "SINKREF": str(PROGRAM),
                                    "PYTHONPATH": str(self.folder / "plugin")}
        done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])

    def results_of_lm_eval(self, tasks: Path, shots: int, arguments: str) -> dict:
        out = self.folder / f"out-{shots}-{arguments.count('patch')}"
        start = f"import site; site.addsitedir({str(self.folder / 'plugin')!r}); " \
                "from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
        self.python("-c", start, "--model", "sinkref", "--model_args", arguments, "--tasks", ",".join(self.TASKS),
                    "--include_path", tasks, "--num_fewshot", shots, "--output_path", out)
        (results,) = out.rglob("results_*.json")
        return json.loads(results.read_text())["results"]

    def test_exported_is_what_lm_eval_asks(self) -> None:
        self.python("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
                    "--target", self.folder / "plugin", ROOT / "tools" / "eval" / "lm_eval_sinkref")
        tasks = self.write_tasks()
        model = ROOT / "reference_outputs" / "tiny_llama3"
        for shots in (0, 2):
            data = self.folder / f"data-{shots}"
            self.python(ROOT / "tools" / "eval" / "export_lm_eval.py", "--tasks", ",".join(self.TASKS), "--num-fewshot", shots,
                        "--include-path", tasks, "--out", data)
            ours = json.loads(self.done("--model", model, "--data", *sorted(data.glob("*.gz")), *PATCH, "--json").stdout)
            for variant, patch in (("original", ""), ("patched", ",patch=0:3+17;1:5")):
                theirs = self.results_of_lm_eval(tasks, shots, f"model={model},threads=1{patch}")
                for name in self.TASKS:
                    exported = ours["tasks"][f"{name}_{shots}shot" if shots else name][variant]
                    for metric in ("acc", "acc_norm") if name in ("local_plain", "local_group") else ("acc",):
                        for of_ours, of_theirs in ((metric, f"{metric},none"),
                                                   (f"{metric}_stderr", f"{metric}_stderr,none")):
                            self.assertAlmostEqual(exported[of_ours], theirs[name][of_theirs], 12, (name, shots, variant))
            self.assertNotEqual(ours["tasks"], {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", action="store_true", help="only the test on Ray (needs requirements-eval.txt)")
    parser.add_argument("--lm-eval", action="store_true", help="only the test with lm-eval (needs the same)")
    parser.add_argument("--program", type=Path, default=PROGRAM)
    args, rest = parser.parse_known_args()
    PROGRAM = args.program
    case = ("RayTest.test_worker_killed" if args.ray else
            "LmEvalTest.test_exported_is_what_lm_eval_asks" if args.lm_eval else "EvalTest ExportTest CommittedTableTest")
    unittest.main(argv=[sys.argv[0], *(rest or case.split())])
