#!/usr/bin/env python3
"""Tests of the Python package: its arrays are the program's traces bit for bit, hooks do what the program's
--patch and --ablate do, and nothing that is given to it crashes.

    python tools/check/test_python.py            an installed package, or else build/src/python (-Dpython=enabled)

SINKREF_PROGRAM names the program (build/sinkref). SINKREF_TEST_MODEL adds a larger model to the comparisons.
"""

import dataclasses
import doctest
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unittest
import weakref
from pathlib import Path

import numpy as np

root = Path(__file__).resolve().parents[2]
sys.path.append(str(root / "tools"))
from package import use_package  # noqa: E402

use_package()
import sinkref  # noqa: E402

program = os.environ["SINKREF_PROGRAM"]
tiny = [root / "reference_outputs" / name for name in ("tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral")]
larger = [Path(os.environ["SINKREF_TEST_MODEL"])] if "SINKREF_TEST_MODEL" in os.environ else []
ids = [1, 5, 9, 7, 7, 7, 100, 3, 250, 8, 61, 62, 63, 7, 7, 1, 30, 31, 32, 33]
resid = "blocks.*.hook_resid_post"


def sinkref_program(*arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{arguments}: {done.stderr}")
    return done.stdout


def read_trace(path):
    """A safetensors file as {name: array}, in the file's order."""
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    dtypes = {"F32": np.float32, "F64": np.float64, "I64": np.int64}
    return {name: np.frombuffer(data[8 + size:][slice(*t["data_offsets"])], dtypes[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items() if name != "__metadata__"}


def trace(model, batch, *arguments, hooks="*"):
    with tempfile.TemporaryDirectory() as folder:
        tokens, out = Path(folder, "tokens.json"), Path(folder, "t.safetensors")
        tokens.write_text(json.dumps(batch))
        sinkref_program("trace", "--model", model, "--tokens-file", tokens, "--hooks", hooks, "--out", out, *arguments)
        return read_trace(out)


class Case(unittest.TestCase):
    def same(self, a, b, what=""):
        self.assertEqual(a.shape, b.shape, what)
        self.assertEqual(a.dtype, b.dtype, what)
        if np.ascontiguousarray(a).tobytes() != np.ascontiguousarray(b).tobytes():
            self.fail(f"{what}: {np.sum(a != b)} of {a.size} numbers differ, the first at "
                      f"{np.argwhere(a != b)[:1].tolist()}")

    def refused(self, pattern, f, *arguments, **named):
        with self.assertRaisesRegex(sinkref.InputError, pattern):
            f(*arguments, **named)


class ArraysAreTheTrace(Case):
    def compare(self, path, batch, arguments=(), **options):
        model = sinkref.Model(path, **options)
        expected = trace(path, batch, *arguments)
        expected.pop("tokens")
        expected.pop("lengths", None)
        logits, cache = model.run_with_cache(batch)
        self.assertEqual(list(cache), list(expected))
        for name, values in expected.items():
            self.same(cache[name], values, name)
        self.same(logits, expected["logits"])

    def test_every_hook_of_every_tiny_model(self):
        for path in tiny + larger:
            with self.subTest(path.name):
                self.compare(path, [ids])

    def test_float64_and_softmax_one(self):
        for path in tiny:
            self.compare(path, [ids], ["--precision", "fp64"], precision="fp64")
            self.compare(path, [ids], ["--softmax", "one"], softmax="one")

    def test_a_batch_of_unequal_lengths(self):
        self.compare(tiny[2], [ids, ids[:3], ids[:11]])

    def test_the_definition_itself(self):
        self.compare(tiny[2], [ids], ["--kernel", "spec"], kernel="spec")

    def test_every_slicing_of_a_prompt_gives_the_same(self):
        model = sinkref.Model(tiny[3])
        whole, cache = model.run_with_cache(ids)
        for cut in (1, 2, 7, 19):
            state = model.start(ids[:cut])
            logits, rest = state.run_with_cache(ids[cut:])
            self.same(logits, whole[:, cut:])
            for name, values in rest.items():
                full = cache[name]
                of_heads = name.endswith(("scores", "pattern"))
                self.same(values, full[:, :, cut:] if of_heads else full[:, cut:], name)

    def test_positions(self):
        model = sinkref.Model(tiny[2])
        logits, cache = model.run_with_cache(ids)
        for positions, index in ((-1, [-1]), ([0, 5, -1], [0, 5, -1]), (slice(2, 9, 3), [2, 5, 8]),
                                 (np.array([7, 3]), [7, 3])):
            some, few = model.run_with_cache(ids, positions=positions)
            self.same(some, logits[:, index])
            for name, values in few.items():
                of_heads = name.endswith(("scores", "pattern"))
                self.same(values, cache[name][:, :, index] if of_heads else cache[name][:, index], name)

    def test_names_are_asked_once_for_each_hook(self):
        model = sinkref.Model(tiny[2])
        for runs in (model, model.start(ids[:3])):
            asked = []
            _, cache = runs.run_with_cache(ids, lambda name: asked.append(name) or name == "hook_embed")
            self.assertEqual(asked, model.hook_names)
            self.assertEqual(list(cache), ["hook_embed"])

    def test_only_what_is_asked_for(self):
        model = sinkref.Model(tiny[2])
        logits, cache = model.run_with_cache(ids, names=["blocks.1.hook_mlp_out", "hook_embed"], logits=False)
        self.assertIsNone(logits)
        self.assertEqual(list(cache), ["hook_embed", "blocks.1.hook_mlp_out"])
        last, cache = model.run_with_cache(ids, names=lambda n: n.endswith("hook_z"), logits="last")
        self.assertEqual(len(cache), model.cfg.n_layers)
        self.same(last, model(ids)[:, -1])
        self.same(cache["z", 2], cache["blocks.2.attn.hook_z"])

    def test_log_probabilities(self):
        model = sinkref.Model(tiny[2], precision="fp64")
        logits = model(ids)[0]
        shifted = logits - logits.max(1, keepdims=True)
        expected = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        found = model.log_probs(ids)
        # exp and log of numpy and the sum's order: a few ulp of the largest term
        np.testing.assert_allclose(found, expected[np.arange(len(ids) - 1), ids[1:]], rtol=1e-13, atol=1e-12)
        self.assertEqual(model.perplexity(ids), float(np.exp(-found.mean())))


class TheCommandLine(Case):
    """What both have is the same."""

    def test_trace_of_some_positions(self):
        model = sinkref.Model(tiny[2])
        found = trace(tiny[2], [ids, ids[::-1]], "--positions", "0,5,-1")
        self.assertEqual(found.pop("positions").tolist(), [0, 5, 19])
        self.assertEqual(found.pop("tokens").tolist(), [ids, ids[::-1]])
        _, cache = model.run_with_cache([ids, ids[::-1]], positions=[0, 5, -1])
        self.assertEqual(list(found), list(cache))
        for name, values in found.items():
            self.same(cache[name], values, name)
        for bad in ("20", "-21", "1,1", "", "1,", "x"):
            done = subprocess.run([program, "trace", "--model", tiny[2], "--tokens", "1x20", "--positions", bad, "--out",
                                   "/dev/null/x"], capture_output=True, text=True)
            self.assertEqual((done.returncode, "--positions" in done.stderr), (2, True), bad)

    def test_trace_of_what_is_generated(self):
        model = sinkref.Model(tiny[2])
        tokens, cache = model.generate(ids, 6, names="*")
        found = trace(tiny[2], [ids], "--generate", "6")
        self.assertEqual(found.pop("tokens").tolist(), [ids + tokens.tolist()])
        for name, values in found.items():
            self.same(cache[name], values, name)
        both = trace(tiny[2], [ids, ids[:3]], "--generate", "4", hooks="blocks.*.hook_resid_post")
        _, short = model.generate(ids[:3], 4, names="blocks.*.hook_resid_post")
        self.assertEqual(both["lengths"].tolist(), [24, 7])
        for name, values in short.items():
            self.same(both[name][1:, :7], values, name)

    def test_verify_says_that_a_run_was_changed(self):
        with tempfile.TemporaryDirectory() as folder:
            traces = [str(Path(folder, name)) for name in ("plain.safetensors", "changed.safetensors")]
            for out, text in zip(traces, ("none", "hook_embed@1=zero")):
                sinkref_program("trace", "--model", tiny[2], "--tokens", "1,2,3", "--intervene", text, "--out", out)
            for candidate, said in ((traces[0], False), (traces[1], True)):
                done = subprocess.run([program, "verify", traces[0], candidate], capture_output=True, text=True)
                self.assertEqual('metadata "intervene" differ' in done.stdout, said)

    def test_what_is_measured(self):
        model = sinkref.Model(tiny[0])
        tokens = ",".join(map(str, ids))
        found = model.sink(tokens=tokens, repeats=20)
        self.assertEqual(found, json.loads(sinkref_program("sink", "--model", tiny[0], "--tokens", tokens, "--repeats", 20,
                                                           "--json")))
        self.assertEqual(found.model, found["model"])
        self.refused("repeats", model.sink, repeats=-1)
        self.refused("has no option --nothing", model.sink, nothing=1)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "t.safetensors")
            sinkref_program("trace", "--model", tiny[0], "--tokens", tokens, "--hooks", "*resid_post", "--out", out)
            self.assertEqual(model.verify(out).verdict, "agree")
            self.assertEqual(sinkref.Model(tiny[1]).verify(out).verdict, "differ")
            self.refused("nowhere", model.verify, "/nowhere")

    def test_verify_takes_a_trace_of_some_positions_and_of_what_is_generated(self):
        model = sinkref.Model(tiny[2])
        with tempfile.TemporaryDirectory() as folder:
            for arguments, held in ((["--positions=-1,3,0"], 3), (["--generate", 3], len(ids) + 3),
                                    (["--positions=-1,3", "--generate", 3], 2)):
                out = Path(folder, f"{held}.safetensors")
                sinkref_program("trace", "--model", tiny[2], "--tokens", ",".join(map(str, ids)), "--hooks", "*",
                                *arguments, "--out", out)
                for exact in (False, True):
                    found = model.verify(out, exact=exact)
                    self.assertEqual(found.verdict, "agree", (arguments, exact, found.problems))
                    self.assertEqual({t.tokens_compared for t in found.tensors}, {held})
        said = subprocess.run([sys.executable, "-m", "sinkref", "tokenize", "--model", str(tiny[2]), "--prompt", "a b",
                               "--json"], capture_output=True, text=True)
        self.assertEqual(said.stdout, sinkref_program("tokenize", "--model", tiny[2], "--prompt", "a b", "--json"))

    clean = ids[:5] + [44] + ids[6:12] + [90] + ids[13:]

    def sweep(self, *arguments, model=tiny[2]):
        text = [",".join(map(str, t)) for t in (ids, self.clean)]
        return json.loads(sinkref_program("patch-sweep", "--model", model, "--corrupted-tokens", text[0], "--clean-tokens",
                                          text[1], "--json", *arguments))

    def test_every_cell_of_a_sweep_is_a_run_with_intervene(self):
        for path, hook, by_head, metric in (
                (tiny[2], "hook_resid_pre", False, sinkref.logit_difference(3, 9)),
                (tiny[3], "mlp_out", False, sinkref.log_probability(3)), (tiny[0], "z", True, sinkref.probability(3)),
                (tiny[1], "attn.hook_k", True, sinkref.norm)):
            options = ["--hook", hook, "--layers", "0,-1", "--positions", "4,5,12,-1", "--metric", metric.name]
            options += [a for pair in zip(("--answer-token", "--wrong-token"), metric.tokens) for a in pair]
            model = sinkref.Model(path)
            last = model.cfg.n_layers - 1
            observed = f"blocks.{last}.hook_resid_mid" if metric is sinkref.norm else "logits"
            found = self.sweep(*options, "--observed", observed, *["--by-head"] * by_head, model=path)
            same = model.patch_sweep(ids, self.clean, metric, hook, layers=[0, -1], positions=[4, 5, 12, -1],
                                     by_head=by_head, observed=observed)
            sweep, = found["sweeps"]
            self.assertEqual((sweep["values"], sweep["hook"]), (same.values.tolist(), same.hook))
            self.assertEqual((found["clean"]["value"], found["corrupted"]["value"]), (same.clean, same.corrupted))
            self.assertEqual((found["layers"], found["positions"]), ([0, last], [4, 5, 12, 19]))
            texts = found["corrupted"]["texts"]
            self.assertEqual(same.pieces, tuple(texts[p] for p in found["positions"]))
            self.assertFalse(same == dataclasses.replace(same, values=same.values.copy()))
            with tempfile.TemporaryDirectory() as folder:
                theirs = Path(folder, "clean.safetensors")
                sinkref_program("trace", "--model", path, "--tokens", ",".join(map(str, self.clean)), "--hooks", "*",
                                "--out", theirs)
                changed = 0
                for l, layer in enumerate(found["layers"]):
                    for p, position in enumerate(found["positions"]):
                        for head, value in enumerate(sweep["values"][l][p] if by_head else [sweep["values"][l][p]]):
                            text = f"blocks.{layer}.{sweep['hook']}@{position}{f'#{head}' if by_head else ''}=from:{theirs}"
                            run = trace(path, [ids], "--intervene", text, "--positions", "-1", hooks=observed)
                            row = run[observed].reshape(1, -1)
                            self.assertEqual(float(metric(row)[0]), value, text)
                            if metric.name == "logit_difference":
                                self.assertEqual(float(row[0, 3]) - float(row[0, 9]), value, text)
                            changed += value != same.corrupted
                self.assertGreater(changed, 2)

    def test_a_sweep_of_several_hooks_in_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "sweep.json")
            options = ["--answer-token", 3, "--wrong-token", 9, "--hook", "attn_out,mlp_out", "--out", out]
            said = self.sweep(*options)
            self.assertEqual(json.loads(out.read_text()), said)
            self.assertEqual([s["hook"] for s in said["sweeps"]], ["hook_attn_out", "hook_mlp_out"])
            self.assertEqual(said["metric"], {"name": "logit_difference", "answer": 3, "wrong": 9, "observed": "logits",
                                              "position": 19})
            self.assertEqual([len(s["values"]) for s in said["sweeps"]], [4, 4])
            self.assertEqual([len(row) for row in said["sweeps"][0]["values"]], [20] * 4)

    def test_lens(self):
        model = sinkref.Model(tiny[2])
        tokens = ",".join(map(str, ids))
        said = json.loads(sinkref_program("lens", "--model", tiny[2], "--tokens", tokens, "--positions", "3,-1", "--top", 4,
                                          "--layers", "0,2,3", "--answer-token", 17, "--json"))
        logits = model.lens(ids, [3, -1])
        cells = iter(said["cells"])
        for layer in (0, 2, 3):
            for i, position in enumerate((3, 19)):
                cell, row = next(cells), logits[layer, i]
                self.assertEqual((cell["layer"], cell["position"]), (layer, position))
                order = np.argsort(-row, kind="stable")
                self.assertEqual([t["token"] for t in cell["top"]], order[:4].tolist())
                for guess in cell["top"] + [cell["answer"]]:
                    self.assertEqual(guess["probability"], float(sinkref.probability(guess["token"])(row[None])[0]))
                self.assertEqual((cell["answer"]["token"], cell["answer"]["rank"]), (17, 1 + int((row > row[17]).sum())))
        self.assertEqual(list(cells), [])

    def test_score(self):
        model = sinkref.Model(tiny[2])
        said = json.loads(sinkref_program("score", "--model", tiny[2], "--tokens", ",".join(map(str, ids)), "--json"))
        self.assertEqual((said["tokens"], said["logprobs"][0]), (ids, None))
        self.assertEqual(said["logprobs"][1:], model.log_probs(ids).tolist())
        self.assertAlmostEqual(said["perplexity"] / model.perplexity(ids), 1, 12)


class Text(Case):
    def test_ids_are_the_programs(self):
        model = sinkref.Model(tiny[2])
        for text in ("Hello world", "grüße\n 😀", " a  b "):
            for flag, bos in ((None, "auto"), (True, "on"), (False, "off")):
                said = json.loads(sinkref_program("tokenize", "--model", tiny[2], "--prompt", text, "--bos", bos,
                                                  "--json"))
                self.assertEqual(model.to_tokens(text, prepend_bos=flag).tolist(), [said["tokens"]])

    def test_round_trip(self):
        model = sinkref.Model(tiny[2])
        for text in ("Hello world", "grüße\n\0 😀", " a  b "):
            self.assertEqual(model.to_string(model.to_tokens(text, prepend_bos=False)), text)

    def test_text_runs_as_its_ids(self):
        model = sinkref.Model(tiny[2])
        self.same(model("Hello world"), model(model.to_tokens("Hello world")))


class Functions(Case):
    def setUp(self):
        self.model = sinkref.Model(tiny[2])

    def test_a_function_sees_what_the_cache_has_and_changes_nothing(self):
        seen = {}

        def look(array, hook):
            self.assertNotIn(hook.name, seen)  # once for each hook
            seen[hook.name] = array
            self.assertEqual(hook.positions, range(len(ids)))
            self.assertEqual(hook.layer(), int(hook.name.split(".")[1]) if hook.name.startswith("blocks") else None)

        for precision in ("fp32", "fp64"):
            seen.clear()
            model = sinkref.Model(tiny[3], precision=precision)
            logits, cache = model.run_with_cache(ids)
            self.same(model.run_with_hooks(ids, [("*", look)]), logits)
            self.assertEqual(list(seen), list(cache))
            for name, array in seen.items():  # kept beyond the run
                self.same(array, cache[name], name)

    def test_zeroing_neurons_is_the_programs_ablation(self):
        def zero(array, hook):
            array[:, :, [3, 77]] = 0

        expected = trace(tiny[2], [ids], "--ablate", "1:3,77")
        logits, cache = self.model.run_with_cache(ids, fwd_hooks=[("blocks.1.mlp.hook_post", zero)])
        for name, values in cache.items():
            self.same(values, expected[name], name)

    def test_pinning_is_the_programs_patch(self):
        def pin(array, hook):
            array[:, 1:, [3, 77]] = array[:, 1:2, [3, 77]]

        expected = trace(tiny[2], [ids], "--patch", "1:3,77;2:5", hooks="logits")["logits"]

        def pin_5(array, hook):
            array[:, 1:, 5] = array[:, 1:2, 5]

        hooks = [("blocks.1.mlp.hook_pre_linear", pin), ("blocks.2.mlp.hook_pre_linear", pin_5)]
        self.same(self.model.run_with_hooks(ids, hooks), expected)

    def test_every_replacement_goes_on(self):
        """Replaced by another run's value at every hook, the rest is as if the engine had computed it."""
        other = ids[:5] + ids[6:] + [9]
        _, cache = self.model.run_with_cache(other)
        for name in cache:
            with self.subTest(name):
                _, after = self.model.run_with_cache(ids, fwd_hooks=[(name, lambda a, h: cache[name])])
                self.same(after[name], cache[name])
        # The last residual stream decides alone.
        logits = self.model.run_with_hooks(ids, [("blocks.3.hook_resid_post", lambda a, h: cache[h.name])])
        self.same(logits, cache["logits"])

    def test_functions_run_in_their_order_and_replace_scores_of_all_heads(self):
        order = []

        def first(array, hook):
            order.append(1)
            return np.asfortranarray(array) * np.float32(2)  # not contiguous

        def second(array, hook):
            order.append(2)
            array[:, 1, :, 0] = -np.inf
            array[:, 1, 0, 0] = 0

        name = "blocks.0.attn.hook_attn_scores"
        _, plain = self.model.run_with_cache(ids, name)
        _, cache = self.model.run_with_cache(ids, ["*pattern", name], fwd_hooks=[(name, first), (name, second)])
        self.assertEqual(order, [1, 2])
        doubled = plain[name] * np.float32(2)
        doubled[:, 1, :, 0] = -np.inf
        doubled[:, 1, 0, 0] = 0
        self.same(cache[name], doubled)
        self.assertTrue((cache["pattern", 0][:, 1, 1:, 0] == 0).all())

    def test_the_kernels_agree_on_replaced_patterns(self):
        def keep_first(array, hook):
            array[:, 2] = 0
            array[:, 2, :, 0] = 1

        hooks = [("blocks.*.attn.hook_pattern", keep_first)]
        logits = self.model.run_with_hooks(ids, hooks)
        for kernel in ("avx2", "avx512"):
            try:
                model = sinkref.Model(tiny[2], kernel=kernel)
            except sinkref.InputError:
                continue  # not of this machine
            self.same(model.run_with_hooks(ids, hooks), logits)
        self.refused("one head at a time", sinkref.Model(tiny[2], kernel="spec").run_with_hooks, ids, hooks)

    def test_an_exception_ends_the_run_with_its_own_traceback(self):
        def fails(array, hook):
            raise ZeroDivisionError("mine")

        try:
            self.model.run_with_hooks(ids, [("blocks.2.attn.hook_z", fails)])
            self.fail("nothing was raised")
        except ZeroDivisionError as error:
            self.assertEqual(str(error), "mine")
            self.assertEqual(traceback.extract_tb(error.__traceback__)[-1].name, "fails")

    def test_whatever_a_function_raises_comes_out(self):
        for error in (GeneratorExit, StopIteration, KeyboardInterrupt, SystemExit, MemoryError):
            def fails(array, hook):
                raise error("mine")

            with self.assertRaisesRegex(error, "mine"):
                self.model.run_with_hooks(ids, [("blocks.2.attn.hook_z", fails)])

    def test_a_function_may_run_a_model(self):
        inner = []
        logits = self.model.run_with_hooks(
            ids, [("blocks.1.attn.hook_pattern", lambda a, h: inner.append(self.model(ids)))])
        self.same(inner[0], logits)


class Generation(Case):
    def test_is_the_programs(self):
        for path in tiny:
            model = sinkref.Model(path)
            said = json.loads(sinkref_program("generate", "--model", path, "--tokens", ",".join(map(str, ids)),
                                              "--max-new-tokens", 12, "--json"))
            self.assertEqual(model.generate(ids, 12).tolist(), said["tokens"])
            state = model.start(ids[:6])
            self.assertEqual(state.generate(12, ids[6:]).tolist(), said["tokens"])

    def test_activations_of_what_is_generated_are_those_of_a_prompt(self):
        model = sinkref.Model(tiny[2])
        told = []
        tokens, cache = model.generate(ids, 6, names="*", each=told.append)
        self.assertEqual(told, tokens.tolist())
        _, expected = model.run_with_cache([*ids, *tokens])
        for name, values in expected.items():
            self.same(cache[name], values, name)

    def test_a_full_context_ends_it(self):
        model = sinkref.Model(tiny[2])
        prompt = (ids * 40)[:model.cfg.n_ctx - 3]
        tokens, cache = model.generate(prompt, 50, names="hook_embed")
        self.assertLessEqual(len(tokens), 4)
        self.assertEqual(cache["hook_embed"].shape[1], min(len(prompt) + len(tokens), model.cfg.n_ctx))

    def test_states(self):
        model = sinkref.Model(tiny[2])
        state = model.start(ids[:8])
        fork, shorter = state.fork(), state.fork(4)
        a, b = state.append(ids[8:12]), fork.append(ids[12:])
        self.same(a, model(ids[:12])[:, 8:])
        self.same(b, model(ids[:8] + ids[12:])[:, 8:])
        self.same(shorter.append(ids[4:]), model(ids)[:, 4:])
        self.assertEqual((len(state), len(fork), shorter.tokens.tolist()), (12, 16, [ids]))
        self.assertEqual(state.generate(3).tolist(), model.generate(ids[:12], 3).tolist())
        self.same(state.append(ids[:2]), model(state.tokens[0])[:, -2:])

    def test_a_failed_run_leaves_a_state_as_it_was(self):
        model = sinkref.Model(tiny[2])
        state = model.start(ids[:8])

        def fails(array, hook):
            raise KeyError

        with self.assertRaises(KeyError):
            state.append(ids[8:], fwd_hooks=[("blocks.3.hook_resid_post", fails)])
        self.refused("not in the vocabulary", state.append, [10**6])
        self.refused("being run", state.append, [1], fwd_hooks=[("hook_embed", lambda a, h: state.append([2]))])
        self.assertEqual(len(state), 8)
        self.same(state.append(ids[8:]), model(ids)[:, 8:])


class Interventions(Case):
    """Each action is what plain numpy does in a hook, and what --intervene does."""

    I = sinkref.Intervention

    def setUp(self):
        self.model = sinkref.Model(tiny[2])
        self.other = ids[:5] + [44] + ids[6:]
        _, self.cache = self.model.run_with_cache(self.other)

    def equal(self, intervention, function, names=None, model=None):
        """`function` changes a hook's array as the intervention should."""
        model = model or self.model
        hook = intervention._hook
        _, expected = model.run_with_cache(ids, fwd_hooks=[(hook, function)])
        _, found = model.run_with_cache(ids, interventions=[intervention])
        for name in expected:
            self.same(found[name], expected[name], f"{intervention}: {name}")
        _, plain = model.run_with_cache(ids)
        self.assertTrue(any((plain[n] != found[n]).any() for n in plain), f"{intervention} changes nothing")

    def test_actions_on_vectors(self):
        I, name = self.I, "blocks.1.hook_resid_mid"
        theirs = self.cache[name]
        vector = np.linspace(-1, 1, 64)
        total = np.zeros(64)  # in the order of the positions
        for row in theirs[0].astype(np.float64):
            total += row
        mean = (total / theirs.shape[1]).astype(np.float32)

        def assign(index, value):
            def f(array, hook):
                array[index] = value(array) if callable(value) else value
            return f

        every, some = np.s_[:, :], np.s_[:, [0, 5, 19]]
        self.equal(I.zero(name), assign(every, 0))
        self.equal(I.zero(name, positions=[0, 5, -1]), assign(some, 0))
        self.equal(I.zero(name, positions=slice(-3, None), parts=[3, 60]), assign(np.s_[:, -3:, [3, 60]], 0))
        self.equal(I.mean(name, theirs), assign(every, mean))
        self.equal(I.mean(name, vector, positions="2:4,7"), assign(np.s_[:, [2, 3, 7]], vector.astype(np.float32)))
        self.equal(I.patch(name, self.cache), assign(every, theirs))
        self.equal(I.patch(name, theirs, positions=5), assign(np.s_[:, 5], theirs[:, 5]))
        self.equal(I.patch(name, theirs, parts=range(8)), assign(np.s_[:, :, :8], theirs[:, :, :8]))
        self.equal(I.steer(name, vector, -2.5), assign(every, lambda a: a + (-2.5 * vector).astype(np.float32)))
        self.equal(I.pin(name, 4, parts=[1, 2]), assign(np.s_[:, 5:, [1, 2]], lambda a: a[:, 4:5, [1, 2]]))

    def test_heads(self):
        I = self.I
        z, pattern, scores = "blocks.2.attn.hook_z", "blocks.2.attn.hook_pattern", "blocks.2.attn.hook_attn_scores"

        def zero_heads(array, hook):
            array[:, :, [0, 3]] = 0

        def zero_pattern(array, hook):
            array[:, [0, 3]] = 0

        def their_pattern(array, hook):
            array[:, 1, 4:9] = self.cache[hook.name][:, 1, 4:9]

        def their_values(array, hook):
            array[:, :, 1] = self.cache[hook.name][:, :, 1]

        self.equal(I.zero(z, parts=[0, 3]), zero_heads)
        self.equal(I.zero(pattern, parts=[0, 3]), zero_pattern)
        for name in (pattern, scores):
            self.equal(I.patch(name, self.cache, positions=slice(4, 9), parts=1), their_pattern)
        self.equal(I.patch("blocks.2.attn.hook_v", self.cache, parts=1), their_values)

    def test_directions(self):
        """To rounding: numpy sums in another order."""
        I, name = self.I, "blocks.1.hook_resid_post"
        model = sinkref.Model(tiny[2], precision="fp64")
        _, plain = model.run_with_cache(ids)
        _, theirs = model.run_with_cache(self.other)
        d = np.sin(np.arange(64.0))

        def component(x):
            return x @ d / (d @ d)

        for one, wanted in ((I.zero(name, along=d), 0), (I.mean(name, theirs, along=d), component(theirs[name]).mean()),
                            (I.patch(name, theirs, along=d), component(theirs[name])),
                            (I.pin(name, 2, along=d), component(plain[name][:, 2:3]))):
            _, found = model.run_with_cache(ids, name, logits=False, interventions=[one])
            rest = found[name] - component(found[name])[..., None] * d
            np.testing.assert_allclose(rest, plain[name] - component(plain[name])[..., None] * d, atol=1e-12)
            expected = np.broadcast_to(wanted, (1, 20)).copy()
            if "pin" in str(one):
                expected[:, :2] = component(plain[name])[:, :2]
            np.testing.assert_allclose(component(found[name]), expected, atol=1e-12, err_msg=str(one))

    def test_resampling_draws_from_all_positions(self):
        name = "blocks.0.hook_mlp_out"
        one = self.I.resample(name, self.cache)
        _, found = self.model.run_with_cache(ids, name, logits=False, interventions=[one])
        rows = [next(i for i in range(20) if (self.cache[name][0, i] == row).all()) for row in found[name][0]]
        self.assertGreater(len(set(rows)), 5)
        self.assertNotEqual(rows, list(range(20)))
        _, again = self.model.run_with_cache(ids[:7], name, logits=False, interventions=[one])
        self.same(again[name], found[name][:, :7])

    def test_the_same_from_the_command_line(self):
        with tempfile.TemporaryDirectory() as folder:
            theirs, vector = Path(folder, "theirs.safetensors"), Path(folder, "vector.json")
            sinkref_program("trace", "--model", tiny[2], "--tokens", ",".join(map(str, self.other)), "--hooks", "*",
                            "--out", theirs)
            v = [i / 7 - 4 for i in range(64)]
            vector.write_text(json.dumps(v))
            I = self.I
            text = (f"blocks.*.hook_attn_out@5:#0,1=from:{theirs};blocks.2.hook_resid_pre@-1=add:1.5*{vector};"
                    f"blocks.3.hook_mlp_out=resample:{theirs};hook_embed#along:{vector}=mean:{theirs}")
            objects = [I.patch("blocks.*.hook_attn_out", self.cache, slice(5, None), [0, 1]),
                       I.steer("blocks.2.hook_resid_pre", v, 1.5, -1),
                       I.resample("blocks.3.hook_mlp_out", self.cache), I.mean("hook_embed", self.cache, along=v)]
            expected = trace(tiny[2], [ids], "--intervene", text)
            for interventions in (text, objects):
                _, cache = self.model.run_with_cache(ids, interventions=interventions)
                for name, values in cache.items():
                    self.same(values, expected[name], name)
            said = self.model.interventions_text(objects)
            self.assertEqual(said, self.model.interventions_text(text))
            self.assertNotIn(folder, said)
            out = Path(folder, "out.safetensors")
            sinkref_program("trace", "--model", tiny[2], "--tokens", "1,2,3,4,5,6,7", "--intervene", text, "--out", out)
            data = out.read_bytes()
            header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
            self.assertEqual(header["__metadata__"]["intervene"], said)

    def test_ablate_and_patch_are_shorthands(self):
        ablate, patch = "blocks.1.mlp.hook_post#3,77=zero", "blocks.1.mlp.hook_pre_linear#3,77=pin:1"
        tokens = ",".join(map(str, ids))
        for short, long in ((("--ablate", "1:3,77"), ablate), (("--patch", "1:3,77"), patch)):
            expected = trace(tiny[2], [ids, ids[:1], ids[:6]], *short)
            found = trace(tiny[2], [ids, ids[:1], ids[:6]], "--intervene", long)
            for name, values in expected.items():
                self.same(found[name], values, name)
            for prompt in (tokens, "7"):  # one token has no position 1
                generated = [sinkref_program("generate", "--model", tiny[2], "--tokens", prompt, "--json",
                                             "--max-new-tokens", 20, *way) for way in (short, ("--intervene", long))]
                self.assertEqual(*generated)
                self.assertEqual(json.loads(generated[0])["tokens"], self.model.generate(
                    [int(t) for t in prompt.split(",")], 20, interventions=long).tolist())

    def test_however_a_prompt_is_split(self):
        one = [self.I.pin("blocks.1.mlp.hook_post", 3, parts=[5]), self.I.zero("blocks.0.hook_mlp_out", "2:")]
        logits, _ = self.model.run_with_cache(ids, (), interventions=one)
        state = self.model.start()
        parts = [state.append(ids[a:b], interventions=one) for a, b in ((0, 3), (3, 4), (4, 11), (11, 20))]
        self.same(np.concatenate(parts, 1), logits)

    def test_bad_ones(self):
        I, run = self.I, self.model.run_with_cache
        name, z = "blocks.1.hook_resid_mid", "blocks.1.attn.hook_z"
        short = {k: v[:, :5] for k, v in self.cache.items()}
        for bad, message in (
                ("blocks.1.hook_resid_mid", "has no action"), ("hook_embd=zero", "closest is \"hook_embed\""),
                (f"{name}=zap", "is no action"), (f"{name}=zero:1", "is no action"), (f"{name}=from", "is no action"),
                (f"{name}@x=zero", "expected positions"), (f"{name}@=zero", "expected positions"),
                (f"{name}#64=zero", "no element 64"), (f"{z}#4=zero", "no head 4"), (f"{name}#=zero", "expected numbers"),
                (f"{name}=pin:-1", "a position"), (f"{name}=from:/nowhere.safetensors", "nowhere"),
                (f"{name}=add:1e999*&0", "NUMBER"), (f"{name}=from:&0", "expected a file"),
                (f"{name}=from:&x", "expected a file"), ("", "has no action"),
                (I.patch(name, short), "has 5 positions, expected position 5"),
                (I.patch(name, np.zeros(64)), "no positions"), (I.patch(name, np.zeros((1, 20, 63))), "1,20,63"),
                (I.patch(name, np.zeros((3, 20, 64))), "has 3 sequences"), (I.mean(name, np.zeros(63)), r"\[63\]"),
                (I.steer(name, np.full(64, np.nan)), "not finite"), (I.steer(name, np.zeros((1, 20, 64))), "no vector"),
                (I.patch(name, {}), "the cache has no"), (I.zero(name, along=np.zeros(64)), "direction is zero"),
                (I.mean("*pattern", self.cache), "zero or from"), (I.zero("*pattern", along=[1.0]), "no direction"),
                (I.patch(name, "abc"), "expected numbers"), (I.patch(name, 5), "shape"), (5, "expected a list"),
                ([5], "expected Intervention"), ([I.pin(name, 1), I.pin(name, 2)], "to two positions")):
            with self.subTest(str(bad)):
                self.refused(message, run, ids, interventions=bad)
        for call in (lambda: I(5), lambda: I.zero("a@b"), lambda: I.zero(name, parts=[0.5]), lambda: I.pin(name, -1),
                     lambda: I.zero(name, positions=[]), lambda: I.zero(name, positions=1.5),
                     lambda: I.steer(name, [1.0], "x"), lambda: I.zero(name, positions=slice(0, 4, 2)),
                     lambda: I.zero(name, parts=[1], along=[1.0])):
            self.refused("Intervention", call)


class Sweeps(Case):
    other = ids[:5] + [44] + ids[6:12] + [90] + ids[13:]

    def compare(self, model, hook, by_head=False, observed="logits", observed_position=-1, **axes):
        """Every cell is a whole run with a patch by a function."""
        _, theirs = model.run_with_cache(self.other)
        rows = []

        def keep(array):
            rows.append(array)
            return array[:, 7] * 1.0

        sweep = model.patch_sweep(ids, self.other, keep, hook, by_head=by_head, observed=observed,
                                  observed_position=observed_position, **axes)
        rows = np.concatenate(rows[:-2])  # of the two whole runs
        heads = sweep.values.shape[2] if by_head else 1
        cell = changed = 0
        _, plain = model.run_with_cache(ids, observed, logits=False, positions=observed_position)
        for layer in sweep.layers:
            for position in sweep.positions:
                for head in range(heads):
                    def patch(array, h):
                        part = (0, position, head) if by_head else (0, position)
                        array[part] = theirs[h.name][part]

                    _, cache = model.run_with_cache(ids, observed, logits=False, positions=observed_position,
                                                    fwd_hooks=[(f"blocks.{layer}.{hook}", patch)])
                    self.same(rows[cell], cache[observed].reshape(-1), f"{hook} {layer} {position} {head}")
                    changed += (cache[observed] != plain[observed]).any()
                    cell += 1
        self.assertEqual(cell, len(rows))
        self.assertEqual(sweep.corrupted, float(plain[observed].reshape(-1)[7]))
        return changed

    def test_every_cell_is_a_whole_run(self):
        for path in tiny:
            model = sinkref.Model(path)
            for hook in ("hook_resid_pre", "hook_resid_post", "attn.hook_k", "mlp.hook_post"):
                # Before its first difference the runs are the same.
                self.assertGreater(self.compare(model, hook, positions=[0, 5, 6, 12, 19]), 4)

    def test_every_point_of_a_block(self):
        model = sinkref.Model(tiny[3], precision="fp64")
        for name in model.hook_names:
            if name.startswith("blocks.1.") and not name.endswith(("scores", "pattern")):
                self.compare(model, name[9:], layers=[1, -1], positions=[3, 5, -1])

    def test_heads(self):
        self.assertGreater(self.compare(sinkref.Model(tiny[2]), "attn.hook_z", by_head=True), 20)
        self.compare(sinkref.Model(tiny[2]), "attn.hook_v", by_head=True, layers=2)

    def test_what_is_observed(self):
        model = sinkref.Model(tiny[2])
        for observed, position in (("blocks.2.hook_resid_post", 9), ("blocks.1.attn.hook_q", -1), ("logits", 7),
                                   ("ln_final.hook_normalized", -1)):
            self.compare(model, "hook_resid_mid", observed=observed, observed_position=position)

    def test_the_definition_agrees(self):
        self.compare(sinkref.Model(tiny[2], kernel="spec"), "hook_attn_out", positions=[4, 5, 12])

    def test_metrics_and_labels(self):
        model = sinkref.Model(tiny[2])
        sweep = model.patch_sweep(ids, self.other, sinkref.logit_difference(3, 9), layers=slice(0, 2))
        self.assertEqual((sweep.values.shape, sweep.layers, len(sweep.pieces)), ((2, 20), (0, 1), 20))
        clean, corrupted = model(self.other)[0, -1].astype(float), model(ids)[0, -1].astype(float)
        self.assertEqual((sweep.clean, sweep.corrupted), (clean[3] - clean[9], corrupted[3] - corrupted[9]))
        self.assertEqual(sweep.values[0, 0], sweep.corrupted)
        ln = model.patch_sweep(ids, self.other, sinkref.log_probability(3), positions=5)
        p = model.patch_sweep(ids, self.other, sinkref.probability(3), positions=5)
        np.testing.assert_allclose(np.exp(ln.values), p.values)
        self.assertEqual(ln.clean, model.log_probs(self.other + [3])[-1])
        n = model.patch_sweep(ids, self.other, sinkref.norm, observed="blocks.3.hook_resid_post")
        self.assertGreater(n.values.min(), 0)
        _, cache = model.run_with_cache(self.other, "blocks.3.hook_resid_post", positions=-1, logits=False)
        self.assertAlmostEqual(n.clean, float(np.linalg.norm(cache["resid_post", 3].astype(float))), 12)
        same = model.patch_sweep(ids, ids, sinkref.norm)
        self.assertTrue((same.values == same.corrupted).all())
        self.refused("both runs", lambda: same.restored)

    def test_short_names_of_hooks(self):
        model, metric = sinkref.Model(tiny[2]), sinkref.logit_difference(3, 9)
        for short, name in (("resid_pre", "hook_resid_pre"), ("z", "attn.hook_z"), ("post", "mlp.hook_post"),
                            ("hook_pre_linear", "mlp.hook_pre_linear"), ("ln2.hook_scale", "ln2.hook_scale")):
            found, expected = (model.patch_sweep(ids, self.other, metric, h, positions=5) for h in (short, name))
            self.assertEqual((found.hook, found.values.tolist()), (name, expected.values.tolist()))
        self.refused("ln1.hook_scale. or .ln2", model.patch_sweep, ids, ids, metric, "scale")

    def test_a_metric_is_a_function_of_rows(self):
        rows = np.array([[1, 3, 2], [0, 0, 0]], np.float32)
        self.assertEqual(sinkref.logit_difference(1, 0)(rows).tolist(), [2, 0])
        self.assertEqual(sinkref.norm(rows.astype(float)).tolist(), [14 ** 0.5, 0])
        p = np.exp(rows.astype(float))
        p /= p.sum(1, keepdims=True)
        # softmax of fp32 is good to 2e-7 (src/arithmetic/log_softmax.h)
        np.testing.assert_allclose(sinkref.probability(2)(rows), p[:, 2], rtol=2e-7)
        np.testing.assert_allclose(sinkref.log_probability(2)(rows), np.log(p[:, 2]), rtol=4e-7)
        self.assertEqual((repr(sinkref.logit_difference(1, 0)), repr(sinkref.norm)), ("logit_difference(1, 0)", "norm"))
        for bad in (rows[0], rows.astype(int), rows[:0], "a", None):
            self.refused("expected float", sinkref.norm, bad)
        self.refused("no token 3", sinkref.probability(3), rows)
        for bad in (-1, 1.5, "a", True, None, 2**70):
            self.refused("expected an id", sinkref.probability, bad)
        for bad in (("perplexity",), ("probability", 1, 2), ("logit_difference", 1)):
            self.refused("logit_difference of 2", sinkref.Metric, *bad)

    def test_bad_ones(self):
        model, metric = sinkref.Model(tiny[2]), sinkref.logit_difference(1, 2)
        for message, arguments, named in (
                ("20 and 19 tokens", (ids, ids[1:], metric), {}), ("metric", (ids, ids, 5), {}),
                ("one number a cell", (ids, ids, lambda r: r), {}), ("closest", (ids, ids, metric, "resid_prr"), {}),
                ("no hook of a block", (ids, ids, metric, "hook_*"), {}), ("neither scores", (ids, ids, metric, "attn.hook_pattern"), {}),
                ("no heads", (ids, ids, metric), {"by_head": True}), ("layers: there is no layer 4", (ids, ids, metric), {"layers": 4}),
                ("layers: found", (ids, ids, metric), {"layers": []}), ("corrupted: found no tokens", ([], ids, metric), {}),
                ("by_head", (ids, ids, metric), {"by_head": "yes"}), ("expected names", (ids, ids, metric, "z\0"), {}),
                ("observed_position", (ids, ids, metric), {"observed_position": [1, 2]}),
                ("no position", (ids, ids, metric), {"positions": [20]}), ("stands for", (ids, ids, metric), {"observed": "*"}),
                ("neither scores", (ids, ids, sinkref.norm), {"observed": "blocks.0.attn.hook_pattern"}),
                *(("looks at blocks.2.hook_resid_post, expected logits", (ids, ids, of_tokens),
                   {"observed": "blocks.2.hook_resid_post"})
                  for of_tokens in (metric, sinkref.probability(3), sinkref.log_probability(3)))):
            self.refused(message, model.patch_sweep, *arguments, **named)

        def fails(rows):
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, model.patch_sweep, ids, self.other, fails)


class Attributions(Case):
    def test_sums_close_within_the_bound(self):
        for path in tiny:
            for precision, closest in (("fp32", 1e-4), ("fp64", 1e-12)):
                model = sinkref.Model(path, precision=precision)
                for by, count in (("layer", 2), ("head", model.cfg.n_heads + 1),
                                  ("neuron", model.cfg.n_heads + model.cfg.d_mlp)):
                    for a in (model.attribute_logit(ids, 17, 9, by), model.attribute_norm(ids, -2, -1, by),
                              model.attribute_norm(ids, 0, 0, by)):
                        self.assertLessEqual(abs(a.remainder), a.bound)
                        # The bound is no blank cheque.
                        self.assertLess(a.bound, closest * np.abs(a.values).sum())
                        self.assertEqual(len(a.labels), len(a.values))
                    logit = model.attribute_logit(ids, 17, 9, by)
                    self.assertEqual(logit.total, float(model(ids)[0, 9, 17]))
                    self.assertGreaterEqual(len(logit.values), 1 + model.cfg.n_layers * count)

    def test_a_part_is_what_its_write_adds(self):
        """A head's share is the difference that its write makes, everything after it held still."""
        model = sinkref.Model(tiny[2], precision="fp64")
        a = model.attribute_logit(ids, 17, -1, "head")
        _, c = model.run_with_cache(ids, positions=-1)
        direction = model.ln_final_w * model.W_U[:, 17] / c["ln_final.hook_scale"][0, 0, 0]
        write = c["z", 2][0, 0, 1] @ model.W_O[2][1]
        self.assertAlmostEqual(a.values[a.labels.index("2.head.1")], float(write @ direction), 10)
        self.assertEqual(len(a.top(3)), 3)

    def test_the_lens(self):
        model = sinkref.Model(tiny[3])
        logits, cache = model.run_with_cache(ids)
        lens = model.lens(ids)
        self.same(lens[-1], logits[0])
        last = model.cfg.n_layers - 1
        for layer in range(last):  # the last block's stream replaced
            I, name = sinkref.Intervention, f"blocks.{last}.hook_resid_post"
            replaced, _ = model.run_with_cache(ids, (), interventions=I.patch(name, cache["resid_post", layer]))
            self.same(lens[layer], replaced[0])
        for layer in (0, 2):
            x = cache["resid_post", layer][0].astype(np.float64)
            x = x / np.sqrt((x * x).mean(1, keepdims=True) + model.cfg.eps) * model.ln_final_w
            np.testing.assert_allclose(lens[layer], x @ model.W_U, rtol=1e-4, atol=1e-3)
        self.same(model.lens(ids, [-1, 3]), lens[:, [-1, 3]])
        self.same(sinkref.Model(tiny[3], kernel="spec").lens(ids, slice(4, 9)), lens[:, 4:9])
        self.same(sinkref.Model(tiny[3], precision="fp64").lens(ids)[-1], sinkref.Model(tiny[3], precision="fp64")(ids)[0])

    def test_scores_close_within_the_bound(self):
        for path in tiny + larger:
            for precision, closest in (("fp32", 5e-4), ("fp64", 1e-9)):
                model = sinkref.Model(path, precision=precision)
                group = model.cfg.n_heads // model.cfg.n_key_value_heads
                few = model.cfg.n_layers > 8
                layers = (0, 1, 11, model.cfg.n_layers - 1) if few else range(model.cfg.n_layers)
                for layer in layers:
                    _, cache = model.run_with_cache(ids, f"blocks.{layer}.attn.*", logits=False)
                    for head in range(0, model.cfg.n_heads, 4 if few else 1):
                        for query, key in ((-1, 13), (5, 0), (9, 9)):
                            q = np.linalg.norm(cache["rot_q", layer][0, query, head].astype(float))
                            k = np.linalg.norm(cache["rot_k", layer][0, key, head // group].astype(float))
                            for by in ("layer", "head"):
                                a = model.attribute_score(ids, layer, head, query, key, by)
                                where = f"{path.name}, {precision}, {layer}.{head}, {query} {key}, {by}"
                                self.assertEqual(a.total, float(cache["attn_scores", layer][0, head, query, key]), where)
                                self.assertLessEqual(abs(a.remainder), a.bound, where)
                                # The bound is no blank cheque.
                                self.assertLess(a.bound, (100 if few else 1) * closest * q * k / model.cfg.d_head**0.5, where)
                                self.assertEqual(a.values.shape, (len(a.query_labels), len(a.key_labels)))
                                self.assertEqual(len(set(a.query_labels)), len(a.query_labels))

    def test_under_every_intervention_the_bound_holds_or_the_split_is_refused(self):
        I = sinkref.Intervention
        refused = {"hook_resid_pre", "hook_resid_mid", "hook_resid_post", "ln_final.hook_scale", "ln_final.hook_normalized",
                   "logits"}
        for path in (tiny[1], tiny[2]):  # with biases, without
            model = sinkref.Model(path)
            for hook in model._hooks:
                end = hook.name if hook.layer is None else hook.name[len(f"blocks.{hook.layer}."):]
                some = range(32) if end == "hook_embed" else None  # without any embedding the norm is 0
                changes = [I.zero(hook.name, parts=some)] if not end.endswith("hook_scale") else []  # which divides
                if not hook.attention:
                    changes.append(I.steer(hook.name, np.linspace(0.5, 1, int(np.prod(hook.shape))), 2.0))
                for change, by in ((change, by) for change in changes for by in ("layer", "head", "neuron")):
                    barred = refused | {"layer": set(), "head": {"hook_attn_out"},
                                        "neuron": {"hook_attn_out", "hook_mlp_out"}}[by]
                    splits = [lambda: model.attribute_logit(ids, 74, -1, by, change)]
                    if hook.layer is None or hook.layer <= 2:
                        splits.append(lambda: model.attribute_norm(ids, 2, 9, by, [change]))
                    for split in splits:
                        if end in barred:
                            self.refused(f"^interventions: {hook.name} is changed at position .*expected", split)
                        else:
                            a = split()
                            self.assertLessEqual(abs(a.remainder), a.bound, (path.name, change, by))
        # Elsewhere it is a run like any other.
        for where, at in ((0, -1), ("3:", 2), (-1, 18)):
            for by in ("layer", "head", "neuron"):
                changes = (I.zero(f"blocks.1.{end}", where) for end in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out"))
                a = model.attribute_logit(ids, 74, at, by, changes)
                self.assertLessEqual(abs(a.remainder), a.bound, (where, at, by))
        self.refused("position 19.*expected other hooks", model.attribute_logit, ids, 74, interventions="*mid@-1=zero")
        self.refused("norm.*is 0", model.attribute_norm, ids, 1, by="layer",
                     interventions="hook_embed=zero;*attn_out=zero;*mlp_out=zero")

    def test_the_writers_of_a_score(self):
        """Taken out of the key's stream with the norm's scale held, a writer takes its share of the score along."""
        model = sinkref.Model(tiny[1], precision="fp64")  # biases, and two heads to a key
        layer, head, query, key = 2, 3, 11, 4
        a = model.attribute_score(ids, layer, head, query, key)
        self.assertEqual(a.query_labels[:3], ("embed", "0.head.0", "0.head.1"))
        self.assertEqual(a.key_labels[-3:], ("1.attn.bias", "1.mlp", "bias"))
        _, c = model.run_with_cache(ids)
        writes = {"embed": c["hook_embed"][0, key], "1.mlp": c["mlp_out", 1][0, key], "0.attn.bias": model.b_O[0],
                  "1.head.2": c["z", 1][0, key, 2] @ model.W_O[1][2]}
        name, scores = f"blocks.{layer}.ln1.hook_normalized", f"blocks.{layer}.attn.hook_attn_scores"
        for label, write in writes.items():
            def without(array, hook):
                array[0, key] -= write / c["scale", layer, "ln1"][0, key]

            _, changed = model.run_with_cache(ids, scores, logits=False, fwd_hooks=[(name, without)])
            share = float(c[scores][0, head, query, key] - changed[scores][0, head, query, key])
            self.assertAlmostEqual(a.by_key[a.key_labels.index(label)], share, 10, label)
        by_layer = model.attribute_score(ids, layer, head, query, key, "layer")
        heads = [i for i, label in enumerate(a.query_labels) if label.startswith("1.head") or label == "1.attn.bias"]
        self.assertAlmostEqual(float(a.by_query[heads].sum()), by_layer.by_query[by_layer.query_labels.index("1.attn")], 10)
        self.assertEqual(a.top(1)[0][2], a.values.flat[np.abs(a.values).argmax()])

    def test_bad_ones(self):
        model = sinkref.Model(tiny[2])
        self.refused("token", model.attribute_logit, ids, 512)
        self.refused("by", model.attribute_logit, ids, 5, by="heads")
        self.refused("layer", model.attribute_norm, ids, 4)
        self.refused("position", model.attribute_norm, ids, 0, [1])
        self.refused("no position", model.attribute_norm, ids, 0, 20)
        for message, arguments in (("layer", (4, 0)), ("layer", (0.0, 0)), ("head", (0, 4)), ("query", (0, 0, 20)),
                                   ("key", (0, 0, 1, -21)), ("does not see", (0, 0, 1, 2)), ("by", (0, 0, 1, 0, "neuron"))):
            self.refused(message, model.attribute_score, ids, *arguments)
        self.refused("no tokens", model.attribute_score, [], 0, 0)
        for bad in ([], [512], [[1], [2]]):
            self.refused("no tokens|vocabulary|sequences", model.lens, bad)
        self.refused("no position", model.lens, ids, 20)


class WeightsAreTheModel(Case):
    def test_they_compute_its_activations(self):
        for path in tiny:
            m = sinkref.Model(path, precision="fp64")
            _, c = m.run_with_cache(ids)
            embed = m.W_E[ids]
            np.testing.assert_array_equal(c["hook_embed"][0], embed)
            for layer in range(m.cfg.n_layers):
                x = c[f"blocks.{layer}.ln1.hook_normalized"][0] * m.ln1_w[layer]
                y = c[f"blocks.{layer}.ln2.hook_normalized"][0] * m.ln2_w[layer]
                for name, w, b in (("q", m.W_Q, m.b_Q), ("k", m.W_K, m.b_K), ("v", m.W_V, m.b_V)):
                    np.testing.assert_allclose(np.einsum("pd,hde->phe", x, w[layer]) + b[layer], c[name, layer][0],
                                               rtol=1e-10, atol=1e-10)
                np.testing.assert_allclose(np.einsum("phe,hed->pd", c["z", layer][0], m.W_O[layer]) + m.b_O[layer],
                                           c["attn_out", layer][0], rtol=1e-10, atol=1e-10)
                np.testing.assert_allclose(y @ m.W_gate[layer] + m.b_gate[layer], c["pre", layer][0], rtol=1e-10,
                                           atol=1e-10)
                np.testing.assert_allclose(y @ m.W_in[layer] + m.b_in[layer], c["pre_linear", layer][0], rtol=1e-10,
                                           atol=1e-10)
                np.testing.assert_allclose(c["post", layer][0] @ m.W_out[layer] + m.b_out[layer],
                                           c["mlp_out", layer][0], rtol=1e-10, atol=1e-10)
            logits = (c["ln_final.hook_normalized"][0] * m.ln_final_w) @ m.W_U
            np.testing.assert_allclose(logits, c["logits"][0], rtol=1e-10, atol=1e-10)
            self.assertRaises(IndexError, lambda: m.W_O[m.cfg.n_layers])
            self.assertEqual(len(list(m.W_O)), m.cfg.n_layers)


class BadInput(Case):
    def setUp(self):
        self.model = sinkref.Model(tiny[2])

    def test_tokens(self):
        run = self.model.run_with_cache
        for bad, message in (
                ([], "empty"), ([[]], "empty"), (np.zeros((0, 3), int), "empty|tokens"), ([1.5, 2], "float64"),
                ([True, False], "bool"), ([1, -1], "-1"), ([1, 2**40], str(2**40)), ([1, 512], "not in the vocabulary"),
                (np.zeros((1, 2, 3), int), r"\[2, 3\]|\[1, 2, 3\]"), (None, "expected whole numbers"),
                ({1: 2}, "expected whole numbers"), ([1, [2]], "expected whole numbers"), (b"text", "expected"),
                ([1, "a"], "expected"), ([1] * 513, "at most"), ("", "empty"), ("\ud800", "UTF-8"), (7, r"shape \[\]"),
                ([2**70], "expected whole"), (np.ma.array([1, 2], mask=[0, 1]), "masked"), (["a", 1], "expected"), (np.array(["a"]), "expected")):
            with self.subTest(repr(bad)[:40]):
                if isinstance(bad, str) and not bad and self.model.to_tokens("").size:
                    continue  # a BOS
                self.refused(message, run, bad)

    def test_arrays_of_any_layout_are_taken(self):
        expected = self.model(ids)
        spread = np.zeros(2 * len(ids), np.int16)
        spread[::2] = ids
        for tokens in (spread[::2], np.array(ids[::-1], np.uint64)[::-1], np.array([ids]).T[:, 0], tuple(ids),
                       np.array([ids], order="F")):
            self.same(self.model(tokens), expected)

    def test_names(self):
        run = self.model.run_with_cache
        self.refused("closest is .*hook_resid_post", run, ids, "blocks.1.hook_resid_pots")
        self.refused("closest is .*hook_resid_post", run, ids, ["hook_embed", "resid_post"])
        self.refused("fwd_hooks.*closest is .*attn.hook_pattern", self.model.run_with_hooks, ids,
                     [("blocks.0.attn.hook_patern", print)])
        for bad in ([1], 5, b"hook_embed"):
            self.refused("names", run, ids, bad)
        self.refused("no hook matches", run, ids, "a" * 10**6)  # at once
        self.refused("logits", run, ids, logits=np.array([1, 2]))
        self.refused("names", run, ids, "blocks.99.hook_q\0")
        self.refused("nothing is asked for", run, ids, [], logits=False)
        self.refused("logits", run, ids, logits="all")
        _, cache = run(ids)
        self.assertIs(cache["scale", 2, "ln2"], cache["blocks.2.ln2.hook_scale"])
        self.assertIs(cache["q", 2], cache["blocks.2.attn.hook_q"])
        with self.assertRaisesRegex(KeyError, "ln1.hook_scale' or 'blocks.2.ln2"):
            cache["scale", 2]
        with self.assertRaisesRegex(KeyError, "did you mean 'blocks.0.hook_resid_pre'"):
            run(ids, "*resid_pre")[1]["blocks.0.hook_resid_pr"]

    def test_positions(self):
        for bad, message in ((20, "no position 20"), ([-21], "no position -21"), ([], "at least one"),
                             ([1, 1], "twice"), ([0, -20], "twice"), ([0.5], "float64"), ("1", "found '1'"),
                             (True, "found True"), (slice(5, 5), "slice"), ([[1]], "shape"), (slice(0.5, 3), "found slice"),
                             ([[0], [1, 2]], "found"), (np.array([2**63], np.uint64), str(2**63))):
            self.refused(message, self.model.run_with_cache, ids, positions=bad)

    def test_what_functions_give(self):
        name = "blocks.1.hook_resid_mid"
        for bad, message in (
                (lambda a: a.astype(np.float64), "float64.*expected float32"), (lambda a: a[:, 1:], r"\[1, 19, 64\]"),
                (lambda a: a[0], r"\[20, 64\]"), (lambda a: a.astype(int), "int64"), (lambda a: 0, "returned int"),
                (lambda a: a.tolist(), "returned list"), (lambda a: a * np.nan, "NaN at position 0, element 0"),
                (lambda a: a + np.inf, "an infinity"), (lambda a: a.astype(object), "object"),
                (lambda a: np.empty((0,), np.float32), r"\[0\]"), (lambda a: a.astype(">f4"), ">f4|float32")):
            self.refused(message, self.model.run_with_hooks, ids, [(name, lambda a, h: bad(a))])

        def resize(array, hook):
            array.resize((1, 1, 1), refcheck=False)

        self.refused(r"shape \[1, 1, 1\]", self.model.run_with_hooks, ids, [(name, resize)])

        def in_place(array, hook):
            array[0, 3, 5] = np.nan

        self.refused("NaN at position 3, element 5", self.model.run_with_hooks, ids, [(name, in_place)])
        self.refused("finite", self.model.run_with_hooks, ids,
                     [("blocks.0.attn.hook_pattern", lambda a, h: a - np.float32(np.inf))])
        scores = "blocks.1.attn.hook_attn_scores"
        self.refused("not finite.*overflows.*hooks and interventions", self.model.run_with_hooks, ids,
                     [(scores, lambda a, h: np.full_like(a, -np.inf))])
        self.refused("not finite.*overflows.*hooks and interventions", self.model.run_with_cache, ids, interventions=
                     sinkref.Intervention.zero("blocks.1.ln1.hook_scale"))
        for bad in (5, [5], [(name,)], [(name, 5)], [(None, print)], "ab", [(name, print, 1)]):
            self.refused("fwd_hooks", self.model.run_with_hooks, ids, bad)
        self.refused("one after the other", self.model.run_with_hooks, [ids, ids], [(name, lambda a, h: None)])

    def test_models(self):
        self.refused("/nowhere", sinkref.Model, "/nowhere")
        self.refused("NUL", sinkref.Model, "a\0b")
        self.refused("expected", sinkref.Model, 5)
        self.refused("kernel", sinkref.Model, tiny[0], kernel=5)
        self.refused("fast", sinkref.Model, tiny[0], kernel="fast")
        self.refused("precision", sinkref.Model, precision="fp16")
        self.refused("softmax", sinkref.Model, softmax=True)
        self.refused("tensor", self.model.weight, "lm_head")
        self.refused("set_threads", sinkref.set_threads, -1)
        self.refused("fork", self.model.start(ids).fork, 21)
        self.refused("empty", self.model.start().generate, 3)
        self.refused("count", self.model.generate, ids, 0)
        self.refused("at least two", self.model.log_probs, [1])
        self.refused("vocabulary", self.model.log_probs, [1, 512])
        self.refused("vocabulary", self.model.to_string, [1, 99999])
        self.refused("str", self.model.to_tokens, [5])
        for bad in (None, 5, []):
            self.refused("expected a text", self.model.to_tokens, bad)
        self.refused("each", self.model.generate, ids, 2, each=5)
        self.refused("kernel", sinkref.Model, tiny[0], kernel="auto\0x")
        self.refused("tensor", self.model.weight, ["a"])
        self.refused("prepend_bos", self.model.to_tokens, "a", prepend_bos="yes")
        self.refused("as many", self.model.to_tokens, ["a", "a b c d e f"])


class TheGuide(Case):
    def test_every_example_gives_what_it_says(self):
        text = (root / "tools" / "guide" / "python.md").read_text()
        blocks = text.split("```python\n")[1:]
        examples = "\n\n".join(block.split("```")[0] for block in blocks)
        test = doctest.DocTestParser().get_doctest(examples, {}, "python.md", "python.md", 0)
        self.assertGreater(len(test.examples), 20)
        said = []
        doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test, out=said.append)
        self.assertEqual("".join(said), "")


class Process(Case):
    def test_import_takes_less_than_a_fifth_of_a_second(self):
        code = ("import numpy, time; t = time.process_time(); import sinkref; print(time.process_time() - t)")
        alone = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                                      check=True).stdout) for _ in range(3)]
        self.assertLess(min(alone), 0.2)

    def test_nothing_leaks_over_a_thousand_runs(self):
        model = sinkref.Model(tiny[2])

        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        def round_(n):
            for _ in range(n):
                _, cache = model.run_with_cache(ids, fwd_hooks=[("*resid_post", lambda a, h: a * np.float32(1.5))])
                state = model.start(ids[:5])
                state.fork().append(ids[5:])
                try:
                    model.run_with_hooks(ids, [("*z", lambda a, h: a[0])])
                except sinkref.InputError:
                    pass
                model.W_O[1], model.to_tokens("abc")

        round_(100)
        gc.collect()
        before = resident()
        round_(1000)
        gc.collect()
        # One array of logits a run would be 40 MB.
        self.assertLess(resident() - before, 8 << 20)
        model_gone = weakref.ref(model)
        del model
        gc.collect()
        self.assertIsNone(model_gone())

    def test_arrays_outlive_their_model(self):
        model = sinkref.Model(tiny[2])
        expected = model(ids).copy()
        logits, cache = model.run_with_cache(ids)
        state = model.start(ids[:5])
        del model
        gc.collect()
        self.same(logits, expected)
        self.same(state.append(ids[5:]), expected[:, 5:])

    def test_threads_run_one_model(self):
        model = sinkref.Model(tiny[2])
        expected = model(ids)
        wrong = []

        def work():
            for _ in range(30):
                logits, cache = model.run_with_cache(ids, fwd_hooks=[("*pattern", lambda a, h: None)])
                if logits.tobytes() != expected.tobytes():
                    wrong.append(1)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])

    def test_the_lock_is_released(self):
        """Another thread's Python goes on while the engine runs."""
        model = sinkref.Model(tiny[2], kernel="spec")
        prompt = (ids * 26)[:500]
        counted, stop = [0], threading.Event()

        def count():
            while not stop.is_set():
                counted[0] += 1
                time.sleep(0.001)

        thread = threading.Thread(target=count)
        thread.start()
        time.sleep(0.05)
        at = counted[0]
        model.run_with_cache(prompt, "blocks.3.hook_resid_post", logits=False)
        during = counted[0] - at
        stop.set()
        thread.join()
        self.assertGreater(during, 3)

    def test_a_fork_and_a_spawned_process_run_the_model(self):
        model = sinkref.Model(tiny[2])
        expected = model(ids)
        child = os.fork()
        if child == 0:
            os._exit(0 if model(ids).tobytes() == expected.tobytes() else 1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if sys.version_info >= (3, 9) else 0, 0)
        self.same(pickle.loads(pickle.dumps(model))(ids), expected)

    def test_thread_counts_change_nothing(self):
        model = sinkref.Model(tiny[2])
        expected = model(ids)
        try:
            for n in (1, 2, 5):
                sinkref.set_threads(n)
                self.assertEqual(sinkref.threads(), n)
                self.same(model(ids), expected)
        finally:
            sinkref.set_threads(0)

    def interrupted(self, code, signal_):
        """A process that prints "go" and runs long gets a signal. What it says then, and its errors."""
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as process:
            self.assertEqual(process.stdout.readline(), "go\n")
            time.sleep(0.3)
            self.assertIsNone(process.poll(), "it ended by itself")
            process.send_signal(signal_)
            said, errors = process.communicate(timeout=60)
            return said, errors

    long_run = ("import sinkref, signal\n"
                "m = sinkref.Model({path!r}, kernel='spec', precision='fp64')\n"
                "ids = [5] * 500\n{setup}\nprint('go', flush=True)\n"
                "try:\n    for i in range(1000): {call}\n"
                "except {error} as e: print('ended', type(e).__name__)\n"
                "print(m([1, 2]).shape)\n")

    def test_ctrl_c_stops_a_long_run(self):
        for call in ("m(ids)", "m.run_with_hooks(ids, [('*resid_post', lambda a, h: None)])", "m.generate([5], 500)",
                     "m.run_with_hooks([5] * 30, [('*hook_z', lambda a, h: sum(range(1000)) and None)])"):
            code = self.long_run.format(path=str(tiny[2]), setup="", call=call, error="KeyboardInterrupt")
            said, errors = self.interrupted(code, signal.SIGINT)
            self.assertEqual((said, errors), ("ended KeyboardInterrupt\n(1, 2, 512)\n", ""), call)

    def test_a_sweep_looks_for_signals_after_each_block(self):
        """One batch of cells takes seconds, in which a handler is called again and again."""
        model = sinkref.Model(tiny[2], kernel="spec", precision="fp64")
        count, before_metric = [0], []

        def metric(rows):
            before_metric.append(count[0])
            return rows[:, 0]

        def tick(*_):
            count[0] += 1

        old = signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        try:
            model.patch_sweep([5] * 500, [7] * 500, metric, layers=0, positions=0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        # Once as the run begins, once as the metric is called; three blocks each of the run as it is and of the cell.
        self.assertGreater(before_metric[0], 4)

    def test_the_exception_of_another_signals_handler_does_so_too(self):
        setup = "def stop(*_): raise TimeoutError('mine')\nsignal.signal(signal.SIGUSR1, stop)"
        code = self.long_run.format(path=str(tiny[2]), setup=setup, call="m(ids)", error="TimeoutError")
        said, errors = self.interrupted(code, signal.SIGUSR1)
        self.assertEqual((said, errors), ("ended TimeoutError\n(1, 2, 512)\n", ""))


if __name__ == "__main__":
    unittest.main()
