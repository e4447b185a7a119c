"""The model class: hands the requests to `sinkref eval` and reads the log-likelihoods back.

    lm_eval --model sinkref --model_args model=PATH,patch=auto --tasks arc_easy

model_args: model (folder or .gguf), patch and ablate (LAYER:NEURONS[;...]; patch also auto), bos (auto,
on, off), threads, kernel, program (the sinkref to run; else $SINKREF, the PATH, or this project's
build/sinkref). Neurons are joined by '+' here, because lm-eval splits model_args at every comma.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

PASSED_ON = ("model", "patch", "ablate", "bos", "threads", "kernel", "softmax", "precision")


def find_program(given: str | None) -> str:
    built = Path(__file__).resolve().parents[4] / "build" / "sinkref"
    for candidate in (given, os.environ.get("SINKREF"), shutil.which("sinkref"), built):
        if candidate and Path(candidate).is_file():
            return str(candidate)
    raise ValueError("there is no sinkref program; add program=PATH to --model_args or set SINKREF")


def items_of(requests: list[Instance]) -> list[list[int]]:
    """Requests by their index: consecutive ones with one context are the choices of one item."""
    items: list[list[int]] = []
    for index, request in enumerate(requests):
        if items and requests[items[-1][-1]].args[0] == request.args[0]:
            items[-1].append(index)
        else:
            items.append([index])
    return items


class SinkrefLM(LM):
    def __init__(self, model: str, program: str | None = None, batch_size=None, max_batch_size=None, device=None,
                 **settings) -> None:
        """batch_size and device are lm-eval's own arguments: sinkref chooses its batches, on the CPU."""
        super().__init__()
        unknown = set(settings) - set(PASSED_ON)
        if unknown:
            raise ValueError(f"model_args: unknown {', '.join(sorted(unknown))}; known are {', '.join(PASSED_ON)}")
        settings = {name: str(value).replace("+", ",") if name in ("patch", "ablate") else str(value)
                    for name, value in settings.items()}
        self.options = ["--model", str(model)]
        for name, value in settings.items():
            self.options += [f"--{name}", value]
        self.patched = settings.get("patch", "none") != "none"
        self.program = find_program(program)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        if not requests:
            return []
        items = items_of(requests)
        with tempfile.TemporaryDirectory() as folder:
            data, samples = Path(folder, "requests.jsonl"), Path(folder, "samples.jsonl")
            with data.open("w", encoding="utf-8") as file:
                for number, item in enumerate(items):
                    record = {"task": "requests", "id": str(number), "context": requests[item[0]].args[0],
                              "choices": [requests[i].args[1] for i in item], "gold": 0}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
            command = [self.program, "eval", *self.options, "--data", str(data), "--samples", str(samples),
                       "--variant", "patched" if self.patched else "original", "--json"]
            done = subprocess.run(command, stdout=subprocess.PIPE)  # progress and errors on our stderr
            if done.returncode != 0:
                raise RuntimeError(f"sinkref eval ended with exit code {done.returncode}; its message is above")
            lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").split("\n") if line]
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for item, line in zip(items, lines, strict=True):
            if "error" in line:  # lm-eval has no place for a request without an answer
                raise RuntimeError(f"sinkref eval cannot score {requests[item[0]].args!r}: {line['error']}")
            for index, ll, greedy in zip(item, line["ll"], line["greedy"], strict=True):
                answers[index] = (ll, bool(greedy))
                self.cache_hook.add_partial("loglikelihood", requests[index].args, answers[index])
        return answers

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
        raise NotImplementedError("sinkref answers multiple-choice tasks (log-likelihood) only, not perplexity ones")

    def generate_until(self, requests, disable_tqdm: bool = False):
        raise NotImplementedError("sinkref answers multiple-choice tasks (log-likelihood) only, not generative ones")
