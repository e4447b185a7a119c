#!/usr/bin/env python3
"""Checks a report against Hugging Face's own code, with the definitions written out again here.

  tools/check/check_report.py build/report models/SmolLM2-135M-Instruct.Q4_1.gguf

From report.json it takes token ids only. Sink layers, both rankings of neurons, the ablations that
keep or drop them, massive activations, the sink metric and the repeats needed are computed from
Hugging Face's modules in true float64; every decision must be equal, and every number as near to
the float64 one as a few times what Hugging Face's fp32 is. Exit 0 if all agrees, 1 if not, 2 for
bad input.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))

import hf_runs

CANDIDATES, COLLAPSED, RAISED, RATIO = 10, 0.25, 0.5, 10.0
ALLOWANCE = 4.0  # times the error of one HF fp32 run, whose own size varies with the order of its sums


class Watch:
    """Norms of mlp_out and resid_post [layer][position], and what enters W_down."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.layers = model.model.layers
        self.mlp: list[torch.Tensor] = []
        self.resid: list[torch.Tensor] = []
        self.post: list[torch.Tensor] = []
        self.gate: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        handles = []

        def output(layer: torch.nn.Module, _: object, result: object) -> None:
            hidden = (result[0] if isinstance(result, tuple) else result)[0]
            self.values.append(hidden.clone())
            self.resid.append(hidden.double().norm(dim=-1))

        for layer in self.layers:
            handles += [
                layer.register_forward_hook(output),
                layer.mlp.register_forward_hook(lambda _m, _i, r: self.mlp.append(r[0].double().norm(dim=-1))),
                layer.mlp.down_proj.register_forward_pre_hook(lambda _m, i: self.post.append(i[0][0].clone())),
                layer.mlp.gate_proj.register_forward_hook(lambda _m, _i, r: self.gate.append(r[0].clone())),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def ablated(model: PreTrainedModel, layer: int, neurons: list[int]) -> Iterator[None]:
    def zero(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        changed = inputs[0].clone()
        changed[..., neurons] = 0
        return (changed,)

    handle = model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(zero)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def run(model: PreTrainedModel, tokens: list[int], attentions: bool = False) -> tuple[Watch, object]:
    watch = Watch(model)
    # Keeps the softmax of a float64 model in float64.
    with watch.attached(), hf_runs.Numbers(lambda _scores, _pattern: None):
        result = model.model(torch.tensor([tokens]), use_cache=False, output_attentions=attentions)
    return watch, result


def threshold(norms: list[float]) -> float:
    spread = torch.tensor(norms, dtype=torch.float64)
    return float(spread.mean() + 2 * spread.std()) if len(norms) > 1 else math.inf


def ranking(model: PreTrainedModel, lone: list[int], layer: int, strengths: torch.Tensor, before: Watch) -> dict:
    """The ten strongest, and the fewest whose ablation takes mlp_out below a quarter."""

    def without(neurons: list[int]) -> tuple[float, float]:
        with ablated(model, layer, neurons):
            watch, _ = run(model, lone)
        return float(watch.mlp[layer][0]), float(watch.resid[layer][0])

    def collapses(neurons: list[int]) -> bool:
        return without(neurons)[0] < COLLAPSED * float(before.mlp[layer][0])

    order = torch.sort(strengths, descending=True, stable=True).indices[:CANDIDATES].tolist()
    chosen: list[int] = []
    for neuron in order:
        chosen.append(neuron)
        if collapses(chosen):
            break
    found = {"order": order, "strengths": strengths[order].tolist(), "neurons": [], "norm_ablated": 0.0,
             "alone": [without([n])[1] for n in order]}
    if collapses(chosen):
        for neuron in reversed(list(chosen)):
            fewer = [n for n in chosen if n != neuron]
            if fewer and collapses(fewer):
                chosen = fewer
        found["norm_ablated"] = without(chosen)[1]
        if found["norm_ablated"] < RAISED * float(before.resid[layer][0]):
            found["neurons"] = sorted(chosen)
    return found


def sink_metric(model: PreTrainedModel, samples: list[list[int]]) -> torch.Tensor:
    """Attention on position 0, mean over the first 64 queries: [sample, layer, head]."""
    length = min(64, min(map(len, samples)))
    return torch.stack([
        torch.stack([a[0, :, :, 0].double().mean(dim=1) for a in run(model, s[:length], attentions=True)[1].attentions])
        for s in samples
    ])


def measure(model: PreTrainedModel, report: dict) -> dict:
    """Everything the report claims, from token ids alone."""
    lone = [report["lone_token"]]
    first, _ = run(model, lone)
    text, _ = run(model, report["inputs"]["text"])
    mlp = [float(n[0]) for n in first.mlp]
    typical_mlp = [float(n[1:].mean()) for n in text.mlp]
    found: dict = {
        "mlp_first": mlp,
        "mlp_typical": typical_mlp,
        "resid_first": [float(n[0]) for n in first.resid],
        "resid_typical": [float(n[1:].mean()) for n in text.resid],
        "threshold": threshold(mlp),
        "sinks": {},
    }
    for layer, block in enumerate(model.model.layers):
        if not mlp[layer] > RATIO * typical_mlp[layer] > 0:
            continue
        if not RAISED * float(first.resid[layer][0]) > found["resid_typical"][layer]:
            continue
        columns = block.mlp.down_proj.weight.double().norm(dim=0)
        gated = ranking(model, lone, layer, first.post[layer][0].double().abs() * columns, first)
        if gated["neurons"]:
            gate = ranking(model, lone, layer, first.gate[layer][0].double().abs() * columns, first)
            found["sinks"][layer] = {"gated": gated, "gate": gate}
    found["massive"] = []
    for values in text.values:
        magnitude = values.double().abs()
        top, flat = float(magnitude.max()), magnitude.flatten()
        token = magnitude[int(flat.argmax()) // magnitude.shape[1]]
        # numpy's median (the mean of the middle two), not torch's lower one.
        medians = [float(torch.quantile(m, 0.5)) for m in (flat, token)]
        found["massive"].append({"top": top, "flags": [top > 100 and top >= 1000 * m for m in medians]})
    found["metric"] = [sink_metric(model, samples["tokens"]) for samples in report["inputs"]["samples"]]
    condition = report["inputs"]["conditions"][0]
    found["repeats"] = []
    for word in report["inputs"]["words"]:
        watch, _ = run(model, condition["prefix"] + [word["token"]] * condition["repeats"])
        for layer in found["sinks"]:
            norms = watch.resid[layer][len(condition["prefix"]):]
            found["repeats"].append({"token": word["token"], "layer": layer, "norms": norms})
    return found


class Verdict:
    def __init__(self) -> None:
        self.failed = 0
        self.lines = 0

    def equal(self, what: str, ours: object, theirs: object) -> None:
        self.lines += 1
        good = ours == theirs
        self.failed += not good
        print(f"{'agrees ' if good else 'DIFFERS'}  {what}: {ours}" + ("" if good else f", Hugging Face {theirs}"))

    def near(self, what: str, ours: list[float], truth: list[float], noise: list[float]) -> None:
        """Relative errors; 1e-9 is what report.json rounds to."""
        self.lines += 1
        floor = max(abs(n - t) / abs(t) for n, t in zip(noise, truth))
        error = max(abs(o - t) / abs(t) for o, t in zip(ours, truth))
        good = len(ours) == len(truth) == len(noise) and error <= ALLOWANCE * floor + 1e-9
        self.failed += not good
        print(f"{'agrees ' if good else 'DIFFERS'}  {what}: error {error:.1e}, Hugging Face's fp32 {floor:.1e}")


def compare(report: dict, truth: dict, fp32: dict) -> int:
    verdict = Verdict()
    sinks = {sink["layer"]: sink for sink in report["sink_layers"]}
    for key in ("mlp_first", "mlp_typical", "resid_first", "resid_typical"):
        verdict.near(f"norms {key}, every layer", report["layers"][key], truth[key], fp32[key])
    verdict.equal("sink layers", sorted(sinks), sorted(truth["sinks"]))
    verdict.equal("layers above mean + 2 std",
                  [i for i, n in enumerate(report["layers"]["mlp_first"]) if n > report["paper_rule_threshold"]],
                  [i for i, n in enumerate(truth["mlp_first"]) if n > truth["threshold"]])
    for layer in sorted(set(sinks) & set(truth["sinks"])):
        for name, ours in (("gated", sinks[layer]), ("gate", sinks[layer]["by_gate"])):
            theirs, noise = truth["sinks"][layer][name], fp32["sinks"].get(layer, {}).get(name)
            verdict.equal(f"layer {layer}, ten strongest by {name}", [c["neuron"] for c in ours["candidates"]],
                          theirs["order"])
            verdict.equal(f"layer {layer}, neurons kept by {name}", ours["neurons"], theirs["neurons"])
            if noise is None or noise["order"] != theirs["order"]:
                continue
            verdict.near(f"layer {layer}, contributions by {name}", [c[name] for c in ours["candidates"]],
                         theirs["strengths"], noise["strengths"])
            verdict.near(f"layer {layer}, norm without each of them", [c["norm_ablated"] for c in ours["candidates"]],
                         theirs["alone"], noise["alone"])
            if theirs["neurons"]:
                verdict.near(f"layer {layer}, norm without those kept", [ours["norm_ablated"]],
                             [theirs["norm_ablated"]], [noise["norm_ablated"]])
    verdict.equal("massive activations, both medians",
                  [i for i, m in enumerate(report["massive_activations"]) if m["massive_by_all"]]
                  + [i for i, m in enumerate(report["massive_activations"]) if m["massive_by_token"]],
                  [i for i, m in enumerate(truth["massive"]) if m["flags"][0]]
                  + [i for i, m in enumerate(truth["massive"]) if m["flags"][1]])
    verdict.near("largest activation, every layer",
                 [abs(m["largest"][0]["value"]) for m in report["massive_activations"]],
                 [m["top"] for m in truth["massive"]], [m["top"] for m in fp32["massive"]])
    for ours, exact, noisy in zip(report["sink_metric"], truth["metric"], fp32["metric"]):
        verdict.near(f"attention on position 0, {ours['kind']}, every head",
                     [h for layer in ours["attention_on_first"] for h in layer],
                     exact.mean(dim=0).flatten().tolist(), noisy.mean(dim=0).flatten().tolist())
        verdict.equal(f"sink metric, {ours['kind']}, %", round(ours["percent"], 6),
                      round(float((exact > 0.3).double().mean()) * 100, 6))
    counts = {(r["token"], r["layer"]): r["count"] for r in report["repeats"]}
    curves = {(c["token"], layer["layer"]): layer["norms"] for c in report["norms_by_repeats"]
              if c["condition"] == report["inputs"]["conditions"][0]["name"] and not c["patched"]
              for layer in c["layers"]}
    for exact, noisy in zip(truth["repeats"], fp32["repeats"]):
        key = (exact["token"], exact["layer"])
        if key not in counts:
            continue
        level = math.sqrt(truth["resid_typical"][exact["layer"]] * truth["resid_first"][exact["layer"]])
        above = (exact["norms"] > level).nonzero().flatten()
        verdict.near(f"token {key[0]}, layer {key[1]}, norms along the run", curves[key], exact["norms"].tolist(),
                     noisy["norms"].tolist())
        verdict.equal(f"token {key[0]}, layer {key[1]}, repeats needed", counts[key],
                      int(above[0]) + 1 if len(above) else 0)
    print(f"{verdict.lines} comparisons, {verdict.failed} differ")
    return 1 if verdict.failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the --out folder of sinkref report")
    parser.add_argument("model", type=Path, help="the Hugging Face folder or .gguf file it was made from")
    arguments = parser.parse_args()
    try:
        report = json.loads((arguments.folder / "report.json").read_text())
        model = hf_runs.load(arguments.model)
    except (OSError, ValueError, hf_runs.UserError) as problem:
        print(f"check_report.py: {problem}", file=sys.stderr)
        return 2
    fp32 = measure(model, report)
    truth = measure(hf_runs.exact(copy.deepcopy(model)), report)
    return compare(report, truth, fp32)


if __name__ == "__main__":
    sys.exit(main())
