#!/usr/bin/env python3
"""Holds every sentence of a report's findings against report.json, with the rules written out again here.

  tools/check/check_findings.py report [--documents]

The sentences are read from report.html. What they say is computed anew from the numbers of report.json alone: counts
from the curves, medians, shares, which words, under which condition. A finding that this file does not know is a
failure. --documents: the report is that of SmolLM2 with every default, and the sentences of README.md and the guides
that quote its numbers are compared with it too. Exit 0 if all agree, 1 if not, 2 for bad input.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINNED = {"gate": "the gate", "both": "both", "ablated": "the neurons ablated everywhere"}
INTERVENTIONS = ("original", "up", "gate", "both", "ablated")
ANY = "\0"  # stands for a token's text, which report.json does not hold


def plain(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def percent(share: float) -> str:
    near_an_end = share not in (0, 1) and (share < 0.0995 or share > 0.9905)
    return f"{100 * share:.1f}\u00a0%" if near_an_end else f"{100 * share:.0f}\u00a0%"


def joined(parts: list[str], comma: str = ", ", last: str = " and ") -> str:
    return parts[0] if len(parts) == 1 else comma.join(parts[:-1]) + last + parts[-1] if parts else ""


def listed(parts: list[str]) -> str:
    return joined(parts, "; ", "; and ")


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def after(condition: str) -> str:
    return "with nothing before it" if condition == "nothing" else f"after {condition}"


def median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def is_near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-8 * max(abs(a), abs(b))


class Report:
    def __init__(self, report: dict) -> None:
        self.j = report
        self.sinks = report["sink_layers"]
        self.conditions = report["inputs"]["conditions"]
        self.usual = self.conditions[0]["name"]
        self.words = [word["word"] for word in report["inputs"]["words"]]

    def level(self, sink: dict) -> float:
        return math.sqrt(sink["norm_typical"] * sink["norm_first"])

    def run(self, word: str, condition: str, patched: bool) -> dict | None:
        return next((r for r in self.j["norms_by_repeats"]
                     if (r["word"], r["condition"], r["patched"]) == (word, condition, patched)), None)

    def curve(self, run: dict, sink: dict) -> list[float]:
        return next(layer["norms"] for layer in run["layers"] if layer["layer"] == sink["layer"])

    def count(self, run: dict, sink: dict) -> int:
        """First repeat above half-way, from the curve."""
        return next((n for n, norm in enumerate(self.curve(run, sink), 1) if norm > self.level(sink)), 0)

    # --- one method for each question -----------------------------------------------------------------------------

    def sink(self) -> tuple[str, str]:
        if not self.sinks:
            return ("No. No layer's MLP gives the first token a norm far above that of ordinary tokens by a few "
                    "neurons.", "")
        parts = [f"after layer {s['layer']} the norm is {plain(s['norm_first'])}, "
                 f"{plain(s['norm_first'] / s['norm_typical'])} times that of ordinary tokens "
                 f"({plain(s['norm_typical'])})" for s in self.sinks]
        return f"Yes, the lone token {ANY}: {joined(parts)}.", ""

    def neurons(self) -> tuple[str, str]:
        parts, others = [], []
        for s in self.sinks:
            names = ", ".join(map(str, s["neurons"]))
            parts.append(f"neuron{'s' * (len(s['neurons']) != 1)} {names} of layer {s['layer']} (without them the norm "
                         f"falls from {plain(s['norm_first'])} to {plain(s['norm_ablated'])})")
            left = [c["norm_ablated"] for c in s["candidates"] if c["neuron"] not in s["neurons"]]
            if left:
                others.append(f"layer {s['layer']} stays at {plain(min(left))} or more")
        return sentence(joined(parts)), (
            f"the other strongest neurons, each switched off alone: {joined(others)}." if others else "")

    def fired(self, condition: dict, sink: dict) -> str:
        runs = [r for r in self.j["norms_by_repeats"] if r["condition"] == condition["name"] and not r["patched"]]
        counts = sorted(c for c in (self.count(r, sink) for r in runs) if c)
        of = f" of {len(runs)} word{'s' * (len(runs) != 1)}"
        if not counts:
            return f"none{of} within {condition['repeats']} repeats"
        at = (str(counts[0]) if counts[0] == counts[-1] else
              f"{counts[0]} to {counts[-1]}" if len(counts) > 6 else joined(list(map(str, counts))))
        return f"{len(counts)}{of}, at {at}"

    def repeats(self) -> tuple[str, str]:
        told = [sentence(f"layer {s['layer']} is set off " + listed(
            [f"{after(c['name'])} by {self.fired(c, s)}" for c in self.conditions])) for s in self.sinks]
        return " ".join(told) or "There is no sink that it could set off.", ""

    def patch(self) -> tuple[str, str]:
        if not self.sinks:
            moved = [n["total_variation"] for n in self.j["next_token"]]
            return (f"There is no sink, so there is nothing to prevent. The patch {self.j['patch']} moves the next "
                    f"token's distribution after the runs {after(self.usual)} by a total variation of "
                    f"{plain(min(moved))} to {plain(max(moved))}.", "")
        parts = []
        for s in self.sinks:
            before = then = 0
            ratios = []
            for word in self.words:
                was, now = self.run(word, self.usual, False), self.run(word, self.usual, True)
                before += self.count(was, s) > 0
                then += self.count(now, s) > 0
                ratios.append(self.curve(now, s)[-1] / self.curve(was, s)[-1])
            verdict = ("there was nothing to prevent" if not before else "yes" if not then else
                       "in part" if then < before else "no")
            parts.append(f"at layer {s['layer']} {verdict}: {before} of {len(ratios)} words set it off without and "
                         f"{then} with the patch (norm at the end {plain(median(ratios))} of before)")
        return sentence(f"run {after(self.usual)}, {listed(parts)}"), ""

    def sites(self) -> tuple[str, str]:
        effect = self.j["patch_effect"]
        for word in effect["words"]:  # what the runs say must be what stands here
            for name, patched in (("original", False), ("up", True)):
                for told, s in zip(word[name], self.sinks):
                    assert told["count"] == self.count(self.run(word["word"], self.usual, patched), s), word["word"]
        told = []
        for name, what in PINNED.items():
            parts = []
            for i, s in enumerate(self.sinks):
                words = [f"\"{w['word']}\" (at {w[name][i]['count']})" for w in effect["words"] if w[name][i]["count"]]
                parts.append(f"layer {s['layer']}{' is set off' * (i == 0)} by {joined(words) or 'no word'}")
            told.append(sentence(f"with {what}{' pinned' * (name != 'ablated')}, {joined(parts)}"))
        pinned = {"original": "nothing", "up": "up", **PINNED}
        costs = [f"{plain(effect['text'][name]['perplexity'])} ({pinned[name]})" for name in INTERVENTIONS]
        return " ".join(told), f"perplexity of ordinary text {joined(costs)}."

    def statements(self, causal: bool) -> str:
        groups: dict[str, list[dict]] = {}
        for claim in self.j["first_layer"]["claims"]:
            bound = claim.get("at_least", claim.get("at_most"))
            holds = claim["measured"] >= bound if "at_least" in claim else claim["measured"] <= bound
            assert holds == claim["holds"], claim
            if claim["causal"] == causal:
                groups.setdefault(claim["about"], []).append(claim)
        kind = "causal" if causal else "observed"
        if not groups:
            return "Without a sink no causal statement can be tried." if causal else "0 of 0 observed statements hold."
        held, partly, not_so = 0, [], []
        for claims in groups.values():
            good = sum(c["holds"] for c in claims)
            first = claims[0]
            text = first["statement"]
            if "word" in first:
                text = text.replace(f" of \"{first['word']}\"", "", 1)
            bound = (f"least {plain(first['at_least'])}" if "at_least" in first else f"most {plain(first['at_most'])}")
            if good == len(claims):
                held += 1
            elif good:
                partly.append(f'"{text}" ({good} of {len(claims)} words)')
            else:
                not_so.append(f'"{text}" (' + (f"{plain(first['measured'])}, expected at {bound}" if len(claims) == 1
                                               else f"0 of {len(claims)} words") + ")")
        told = (f"{held} of {len(groups)} {kind} statement{'s' * (len(groups) != 1)} "
                f"{'holds' if held == 1 else 'hold'}")
        if partly:
            told += "; in part: " + joined(partly)
        if not_so:
            told += "; not so: " + joined(not_so)
        return told + "."

    def first_layer(self) -> tuple[str, str]:
        controls = [f"{c['control']['is']} {plain(c['control']['measured'])}"
                    for c in self.j["first_layer"]["claims"] if "control" in c]
        return (self.statements(True) + " " + self.statements(False),
                f"of the causal ones in turn: {listed(controls)}." if controls else "")

    def cluster(self) -> tuple[str, str]:
        attacks = self.j["cluster_attack"]["attacks"]

        def of_kind(kind: str, key: str) -> str:
            mine = [a for a in attacks if a["kind"] == kind]
            where = f" in {joined([str(a[key]) for a in mine])} of {attacks[0]['runs']} runs"
            if kind == "identical":
                return "one token repeated" + where
            tokens = "tokens of one cluster" if kind == "cluster" else "tokens drawn at random"
            return f"{joined([str(a['different']) for a in mine])} {tokens}{where}"

        def both(key: str) -> str:
            return of_kind("identical", key) + ", " + of_kind("cluster", key)

        random = of_kind("random", "fired_patched")
        return (sentence(f"runs {after(self.usual)}, layer {attacks[0]['layer']}: {both('fired')}") + " " +
                sentence(f"with the patch: {both('fired_patched')}"),
                f"{of_kind('random', 'fired')}, patched {random[random.index(' in ') + 1:]}.")

    def definitions(self) -> tuple[str, str]:
        norms = self.j["layers"]["mlp_first"][:15]
        spread = (math.sqrt(sum((n - mean(norms)) ** 2 for n in norms) / (len(norms) - 1)) if len(norms) > 1 else math.inf)
        above = [i for i, n in enumerate(self.j["layers"]["mlp_first"]) if n > mean(norms) + 2 * spread]
        rule = f"The paper's rule names layer {above[0]}" if above else "The paper's rule names no layer"
        massive = [i for i, m in enumerate(self.j["massive_activations"])
                   if abs(m["largest"][0]["value"]) > 100 and abs(m["largest"][0]["value"]) >= 1000 * m["median_all"]]
        which = ("no layer has massive activations" if not massive else
                 f"layer {massive[0]} has massive activations" if len(massive) == 1 else
                 f"layers {massive[0]} to {massive[-1]} have massive activations")
        shares = [percent(m["percent"] / 100) for m in self.j["sink_metric"]]
        before = "after BOS" if self.usual.startswith("BOS") else "with nothing before it"
        return (f"{rule}; {which}; more than 30 % of their attention is parked on position 0 by {shares[0]} of the heads "
                f"on ordinary text, {shares[1]} on one word repeated {before} and {shares[2]} on random tokens.", "")

    def attention(self) -> tuple[str, str]:
        found = self.j["attention"]
        middle = len(self.j["layers"]["mlp_first"]) // 2
        text = next(x for x in found["text"] if x["layer"] == middle)
        run = next(x for x in found["run"] if x["layer"] == middle)
        return (f"In the middle layer ({middle}) the last of {self.conditions[0]['repeats']} repeats of "
                f"\"{found['word']}\" {after(found['condition'])} gives {percent(run['on_first'][-1])} of its attention "
                f"to position 0 and {percent(run['on_body'][-1])} to the run. A token of ordinary text gives "
                f"{percent(mean(text['on_first'][1:]))} to position 0.", "")

    def task(self) -> tuple[str, str]:
        parts = []
        for condition in self.conditions:
            mine = [t for t in self.j["repeat_task"] if t["condition"] == condition["name"] and not t["patched"]]
            points = sorted({t["repeats"] for t in mine})
            counts = []
            for n in points[:1] + points[1:][-1:]:
                at = [t for t in mine if t["repeats"] == n]
                kept = sum(all(token == t["token"] for token in t["generated"]) and t["outcome"] == "repeats" for t in at)
                counts.append(f"{kept} of {len(at)} prompts after {n} repeats")
            if counts:
                parts.append(f"{after(condition['name'])} in {joined(counts)}")
        return f"It does {listed(parts)}." if parts else "No prompt with a request was run.", ""

    def softmax(self) -> tuple[str, str]:
        other = self.j["softmax_what_if"]
        name = "softmax_1" if other["softmax"] == "one" else "the standard softmax"
        return (f"With {name} and the same weights the first token's largest norm is "
                f"{plain(max(other['layers']['resid_first']))} instead of {plain(max(self.j['layers']['resid_first']))}, "
                f"and {percent(other['sink_metric']['percent'] / 100)} of the heads park on position 0 instead of "
                f"{percent(self.j['sink_metric'][0]['percent'] / 100)} (ordinary text).", "")

    def paper(self) -> tuple[str, str]:
        paper = self.j["paper"]
        published, measured = paper["published"], paper["measured"]
        if measured is None:
            return "No sink was found: nothing of the row is reproduced.", ""
        reached = [c for c in (self.count(self.run(w, self.usual, False), self.sinks[0]) for w in self.words) if c]
        repeats = (f"; repeats needed {after(self.usual)} {plain(median(reached)) if reached else 'not reached'} against "
                   f"{published['repeats']}.")
        if (measured["layer"], measured["neurons"]) == (published["layer"], published["neurons"]):
            return "Layer and neurons are as published" + repeats, ""
        names = [", ".join(map(str, x["neurons"])) for x in (measured, published)]
        return (f"Layer {measured['layer']} against {published['layer']}, neurons {names[0]} against {names[1]}{repeats}", "")

    def goldens(self) -> tuple[str, str]:
        files = self.j["goldens"]
        return (f"{sum(g['agrees'] for g in files)} of {len(files)} golden files agree; the largest error is "
                f"{plain(max(g['worst_ratio'] for g in files))} times that of Hugging Face's own fp32.", "")

    def certified(self) -> tuple[str, str]:
        runs = self.j["certified"]
        verdicts = [claim["verdict"] for run in runs for claim in run["claims"]]
        left_out = sum(run["left_out"] is not None for run in runs)
        for run in runs:
            assert run["layer"] in [s["layer"] for s in self.sinks] and (run["left_out"] is None) == bool(run["claims"]), run
        told = (f"{verdicts.count('proved')} of {len(verdicts)} decisive comparisons are proved for the real numbers that the "
                f"activations are, {verdicts.count('disproved')} disproved, {verdicts.count('undecided')} undecided.")
        if left_out:
            told += f" Left out: {left_out} of {len(runs)} runs."
        return told, ""

    def remarks(self) -> list[str]:
        """Numbers that the section on attention must name beside each other."""
        found = self.j["attention"]
        repeated = self.j["sink_metric"][1]
        shares = [f"{percent(x['on_body'][-1])} in layer {x['layer']}" for x in found["run"]]
        named = [f"{percent(repeated['percent'] / 100)} of the heads give position 0 more than 30 %"]
        return named + ([", ".join(shares)] if found["run_begins"] > 0 else [])


QUESTIONS = {
    "Does the model treat its very first token specially (an attention sink)?": Report.sink,
    "Which neurons do it?": Report.neurons,
    "Does a long run of one word come to look like a first token?": Report.repeats,
    "Does the paper's patch prevent it?": Report.patch,
    "Which words still set it off when something else is pinned?": Report.sites,
    "Does the first attention layer explain why?": Report.first_layer,
    "Do different but similar tokens set it off as well (cluster attack)?": Report.cluster,
    "Do the published definitions see it too?": Report.definitions,
    "Where does attention go?": Report.attention,
    "Asked to repeat a word, does the model go on repeating it?": Report.task,
    "Would the sink vanish if heads could attend to nothing?": Report.softmax,
    "Which of this is proved?": Report.certified,
    "Can these numbers be trusted?": Report.goldens,
}
CAUSAL = ["Which neurons do it?", "Does the paper's patch prevent it?",
          "Which words still set it off when something else is pinned?", "Does the first attention layer explain why?",
          "Do different but similar tokens set it off as well (cluster attack)?"]


def findings(page: str) -> list[tuple[str, str, str]]:
    table = re.search(r'<table class="findings">(.*?)</table>', page, re.S).group(1)
    rows = re.findall(r'<tr><td><a href="#[^"]*">(.*?)</a></td><td><p>(.*?)</p>(?:<p class="control">Control: (.*?)</p>)?</td>',
                      table, re.S)
    return [tuple(html.unescape(part) for part in row) for row in rows]


def matches(expected: str, told: str) -> bool:
    return re.fullmatch(".+?".join(map(re.escape, expected.split(ANY))), told, re.S) is not None


def check(report: Report, page: str) -> list[str]:
    wrong, asked = [], []
    rows = findings(page)
    for question, answer, control in rows:
        method = QUESTIONS.get(question)
        if re.match(r"Does it agree with the paper's row", question):
            method = Report.paper
        if method is None:
            wrong.append(f"{question}: this check does not know how it is decided")
            continue
        asked.append(question)
        for what, told, expected in zip(("answer", "control"), (answer, control), method(report)):
            if not matches(expected, told):
                wrong.append(f"{question}\n  {what} on the page: {told}\n  from report.json:   {expected}")
    order = [q for q in asked if q in CAUSAL]
    if len(asked) != len(rows) or (report.sinks and "Which neurons do it?" not in asked):
        wrong.append("a question is missing")
    if order and max(map(asked.index, order)) > min((asked.index(q) for q in asked if "definitions" in q), default=99):
        wrong.append("a causal finding stands behind one that only describes")
    text = html.unescape(page)
    wrong += [f"the section on attention does not say \"{remark}\"" for remark in report.remarks() if remark not in text]
    if "of its attention" in text and report.j["notes"]:
        wrong += [f"a note is not on the page: {note}" for note in report.j["notes"] if note not in text]
    if "<details><summary>The paper" in page:
        wrong.append("the table of statements is folded")
    print(f"{len(rows)} findings, {len(wrong)} of them or of what stands beside them are wrong")
    return wrong


def documented(report: Report) -> list[str]:
    """Sentences of the documents that quote the SmolLM2 report."""
    sinks = {s["layer"]: s for s in report.sinks}
    strongest = report.sinks[0]
    fired = {w: {s["layer"]: report.count(report.run(w, report.usual, False), s) for s in report.sinks} for w in report.words}
    attacks = report.j["cluster_attack"]["attacks"]
    random = next(a for a in attacks if a["kind"] == "random")
    gate = [w for w in report.j["patch_effect"]["words"] if any(s["count"] for s in w["gate"])]
    beyond_bos = sorted(c for c in (report.count(report.run(w, "BOS", False), sinks[11]) for w in report.words) if c)
    number = ["no", "one", "two", "three", "four", "five"]
    quoted = [
        ("README.md", f"The residual stream of the first token is {strongest['norm_first'] / strongest['norm_typical']:.0f} "
                      "times as long as that of ordinary text."),
        ("README.md", f"the word \"the\" sets off layer 2 after {fired['the'][2]} repeats."),
        ("README.md", f"{number[len(beyond_bos)]} of five words set off layer 11, at {joined(list(map(str, beyond_bos)))}"),
        ("README.md", f"for {number[len(report.words) - len(gate)]} of five words"),
        ("tools/guide/patch.md", f"{number[len(report.words) - len(gate)]} of five words"),
        ("tools/guide/first_layer.md", f"random tokens set it off in {random['fired']} of {random['runs']} runs, with the patch in "
                                       f"{random['fired_patched']}"),
    ]
    for word in gate:
        at = next(s["count"] for s in word["gate"] if s["count"])
        quoted += [("README.md", f"\"{word['word']}\" still sets off layer 2 at {at}"),
                   ("tools/guide/patch.md", f"\"{word['word']}\" still sets off layer 2 at {at}")]
    wrong = []
    for document, words in quoted:
        if words not in re.sub(r"\s+", " ", (ROOT / document).read_text(encoding="utf-8")):
            wrong.append(f"{document} does not say: {words}")
    print(f"{len(quoted)} sentences of the documents, {len(wrong)} are not what the report says")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the --out folder of sinkref report")
    parser.add_argument("--documents", action="store_true", help="compare the documents with this SmolLM2 report too")
    arguments = parser.parse_args()
    try:
        report = Report(json.loads((arguments.folder / "report.json").read_text(encoding="utf-8")))
        page = (arguments.folder / "report.html").read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError) as problem:
        print(f"check_findings.py: {arguments.folder}: {problem}", file=sys.stderr)
        return 2
    wrong = check(report, page) + (documented(report) if arguments.documents else [])
    for line in wrong:
        print("WRONG " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
