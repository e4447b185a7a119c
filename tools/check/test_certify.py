#!/usr/bin/env python3
"""Tests `sinkref certify` as a program, and tools/check_certificate.py with it; prints one line per finding.

- The independent checker agrees with every value of the tiny models (8 tokens), plain and with the softmax, RoPE,
  patch and ablation that they can be run with, and with 12,000 sampled values of SmolLM2.
- It refuses a flipped bit of a value, a radius, the hash and a weight; and a radius that is made false under a new hash.
- Hugging Face's true float64 lies within 1e-12 of the proved values: the tiny models and SmolLM2, with an ablation.
- `sink`, `verify` and `report` have their decisive comparisons proved where they are asked to.
- Products of every kernel and thread count give the same file; claims have their exit codes; a run out of reach is
  refused at once; an interrupted run leaves nothing.
Exit: 0 passed, 1 failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SINKREF = ROOT / "build" / "sinkref"
CHECKER = ROOT / "tools" / "check_certificate.py"
OUTPUTS = ROOT / "reference_outputs"
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = "1,5,9,7x3,11,3"
failed = 0


def report(name: str, good: bool, detail: str = "") -> None:
    global failed
    failed += not good
    print(f"{'ok  ' if good else 'FAIL'} {name}{': ' + detail if detail else ''}", flush=True)


def certify(model: Path, out: Path | None, *arguments: str, tokens: str = TOKENS) -> subprocess.CompletedProcess:
    command = [SINKREF, "certify", "--model", model, "--tokens", tokens, "--json", *arguments]
    if out is not None:
        command += ["--out", out, "--force"]
    return subprocess.run(command, capture_output=True, text=True)


def check(model: Path, file: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, CHECKER, "--model", model, file, *arguments], capture_output=True, text=True)


def agreement(folder: Path) -> None:
    runs = [(name, []) for name in ("tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral")]
    runs += [("tiny_llama3", ["--softmax", "one"]), ("tiny_llama3", ["--rope", "real"]),
             ("tiny_mistral", ["--patch", "0:3,17;1:5", "--ablate", "2:4"]),
             ("tiny_llama2", ["--patch", "1:5", "--patch-site", "gate", "--ablate", "0:1,2"])]
    for name, arguments in runs:
        file = folder / "c.safetensors"
        done = certify(OUTPUTS / name, file, "--hooks", "*", *arguments)
        result = json.loads(done.stdout) if done.returncode == 0 else {}
        report(f"{name} {' '.join(arguments)}: everything decided", result.get("undecided") == 0, done.stderr.strip()[-200:])
        checked = check(OUTPUTS / name, file)
        count = re.match(r"(\d+) values", checked.stdout)
        report(f"{name} {' '.join(arguments)}: the checker agrees with every value",
               checked.returncode == 0 and count is not None and int(count[1]) == result.get("decided"),
               (checked.stdout + checked.stderr).strip())


def flips(folder: Path) -> None:
    model, file, damaged = OUTPUTS / "tiny_llama3", folder / "c.safetensors", folder / "d.safetensors"
    certify(model, file, "--hooks", "blocks.*.hook_resid_post,logits")
    whole = bytearray(file.read_bytes())
    header = struct.unpack_from("<Q", whole)[0]

    def refuses(what: str, at: int, bit: int, path: Path = model) -> None:
        copy = bytearray(whole)
        copy[at] ^= bit
        damaged.write_bytes(copy)
        done = check(path, damaged)
        report(f"a flipped bit of {what} is refused", done.returncode == 1, done.stderr.strip())

    refuses("a value", len(whole) - 400, 1)
    refuses("a token's id", 8 + header, 1)
    radius = re.search(rb'radius\\": ?\\"(\d)', whole) or re.search(rb'radius[\\":]+(\d)', whole)
    refuses("a radius", radius.start(1), 1)
    # With a hash made for it, a wrong value is still refused: the checker has computed it.
    sys.path.insert(0, str(CHECKER.parent))
    from check_certificate import read_safetensors
    metadata, _, data = read_safetensors(file)
    changed = bytearray(data)
    changed[-400] ^= 1
    new = hashlib.sha256(metadata["certified"].encode() + changed).hexdigest()
    damaged.write_bytes(bytes(whole[:8 + header]).replace(metadata["certified_sha256"].encode(), new.encode()) + changed)
    done = check(model, damaged)
    report("a flipped bit of a value under a new hash is refused",
           done.returncode == 1 and "not the real number" in done.stderr, done.stderr.strip())
    other = folder / "model"
    shutil.copytree(model, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    done = check(other, file)
    report("a flipped bit of a weight is refused", done.returncode == 1, done.stderr.strip())
    report("the file itself holds", check(model, file).returncode == 0)


def radii(folder: Path) -> None:
    """Rewritten under a hash made for them: refused where that makes them false, and only there."""
    model, file, changed = OUTPUTS / "tiny_llama3", folder / "c.safetensors", folder / "d.safetensors"
    certify(model, file, "--hooks", "blocks.3.hook_resid_post")
    whole = file.read_bytes()
    size = struct.unpack_from("<Q", whole)[0]
    header, data = json.loads(whole[8:8 + size]), whole[8 + size:]
    metadata = header["__metadata__"]
    certified = json.loads(metadata["certified"])
    (entry,) = certified.values()
    radius = Decimal(entry["radius"])
    share = Decimal(re.search(r"off by (\S+) of its own", check(model, file).stdout)[1])

    def verdict(new: Decimal) -> subprocess.CompletedProcess:
        entry["radius"] = f"{new:.8e}".replace("e+", "e")
        text = json.dumps(certified)
        digest = hashlib.sha256(text.encode() + data).hexdigest()
        new_header = json.dumps(header | {"__metadata__": metadata | {"certified": text, "certified_sha256": digest}}).encode()
        changed.write_bytes(struct.pack("<Q", len(new_header)) + new_header + data)
        return check(model, changed)

    for what, factor in (("halved", Decimal("0.5")), ("a hundredth below the error", share * Decimal("0.99")),
                         ("a hundredth above the error", share * Decimal("1.01")), ("of nearly nothing", Decimal("1e-9"))):
        done = verdict(radius * factor)
        is_false = factor < share
        report(f"a radius {what}, under a new hash, is {'refused' if is_false else 'still true'}",
               done.returncode == is_false and ("too small" in done.stderr) == is_false,
               f"the centre is off by {share} of the radius; {(done.stdout + done.stderr).strip()}")


@contextmanager
def without_neurons(model, ablated: dict[int, list[int]]) -> Iterator[None]:
    """Their activations are zero where down_proj takes them."""
    def zeroed(neurons: list[int]) -> Callable:
        def hook(module, inputs):
            x = inputs[0].clone()
            x[..., neurons] = 0
            return (x,)
        return hook
    handles = [model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(zeroed(neurons))
               for layer, neurons in ablated.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hugging_face(folder: Path) -> None:
    """True float64 of their modules, with their own table of cos and sin: within 1e-12 of each tensor's rms. What the goldens
    hold (window, biases, softmax_1, patch) is compared by tests/certify_test.cpp; here are ablations."""
    sys.path[:0] = [str(ROOT / "tools" / "bench"), str(ROOT / "tools" / "reference")]
    import measure_proved
    from hf_runs import Numbers, exact
    from safetensors.numpy import save_file
    runs = [(OUTPUTS / name, list(range(1, 41)), {0: [3, 17], 2: [4]})
            for name in ("tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral")]
    runs.append((SMOLLM2, [504, 253, 5345, 17, 28, 99, 1000, 2], {2: [90, 430], 11: [1229, 1487]}))
    for path, tokens, ablated in runs:
        model = measure_proved.load_model(path)
        save_file(measure_proved.table_of(model, len(tokens)), folder / "table.safetensors")
        common = ["--model", path, "--tokens", ",".join(map(str, tokens)), "--rope", folder / "table.safetensors", "--force"]
        ablation = ";".join(f"{layer}:{','.join(map(str, neurons))}" for layer, neurons in ablated.items())
        proved = measure_proved.Proved(common, measure_proved.hooks_of(model), folder / "proved.safetensors",
                                       "--ablate", ablation)
        with without_neurons(twin := exact(model), ablated), Numbers(lambda scores, pattern: None):
            theirs = measure_proved.hugging_face(twin, tokens)
        found = measure_proved.errors(path.name, theirs, proved)
        report(f"{path.name} without {ablation}: Hugging Face's true float64 is within 1e-12",
               found.worst <= 1e-12, f"{found.worst:.1e} of the tensor's rms at most, {found.count} values")
        with Numbers(lambda scores, pattern: None):  # the bound can fail: of the run without an ablation it does
            other = measure_proved.errors(path.name, measure_proved.hugging_face(twin, tokens), proved)
        report(f"{path.name}: and is not, with the neurons", other.worst > 1e-6, f"{other.worst:.1e}")


def same_bytes(folder: Path) -> None:
    files = []
    for i, arguments in enumerate((["--threads", "1"], ["--threads", "3", "--kernel", "spec"], ["--kernel", "openblas"])):
        files.append(folder / f"{i}.safetensors")
        certify(OUTPUTS / "tiny_llama2", files[-1], "--hooks", "*", *arguments, tokens="1,5,9,7x60")
    report("the same bytes from every kernel and number of threads",
           len({file.read_bytes() for file in files}) == 1 and files[0].stat().st_size > 10_000)


def claims(folder: Path) -> None:
    model, text = OUTPUTS / "tiny_llama3", folder / "claims.txt"
    token = json.loads(certify(model, folder / "c.safetensors").stdout)["argmax"]["token"]
    for name, lines, code, verdicts in (
            ("true ones", f"argmax(logits[-1]) = {token}\nnorm(hook_embed[0]) > 0\n", 0, ["proved", "proved"]),
            ("a false one", f"argmax(logits[-1]) = {token + 1}\n", 1, ["disproved"]),
            ("one that equality hides", "sum(blocks.0.attn.hook_pattern[0,2,:3]) >= 1\n", 1, ["undecided"]),
            ("a malformed one", "norm(logits\n", 2, None)):
        text.write_text(lines)
        done = certify(model, None, "--claims", str(text))
        found = [claim["verdict"] for claim in json.loads(done.stdout)["claims"]] if done.returncode < 2 else None
        report(f"claims: {name}", done.returncode == code and found == verdicts, f"{done.returncode} {found} {done.stderr.strip()}")


def program(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run([SINKREF, *arguments], capture_output=True, text=True)


def studies(folder: Path) -> None:
    """What sink, report and verify have proved when they are asked to."""
    done = program("sink", "--model", SMOLLM2, "--repeats", "70", "--word", "the", "--certify", "--json")
    runs = json.loads(done.stdout)["certified"] if done.returncode == 0 else []
    verdicts = [claim["verdict"] for run in runs for claim in run["claims"]]
    report("sink --certify: all that it decided on SmolLM2 is proved",
           {run["about"] for run in runs} >= {"sink", "neurons", "repeats", "patch"} and len(verdicts) > 5
           and set(verdicts) == {"proved"}, f"{verdicts} {done.stderr.strip()[-200:]}")
    model, theirs = OUTPUTS / "tiny_llama3", folder / "theirs.safetensors"
    done = program("trace", "--model", model, "--tokens", TOKENS, "--hooks", "*", "--out", theirs)
    done = program("verify", "--model", model, "--candidate", theirs, "--certify", "--json")
    proofs = json.loads(done.stdout)["certified"] if done.returncode == 0 else []
    report("verify --certify: an agreeing run is near the real numbers, and float64 rounds to them",
           len(proofs) == 1 and proofs[0]["why"] == "worst" and proofs[0]["budgets"] < 1 and proofs[0]["float64_rounds_to_it"],
           f"{proofs} {done.stderr.strip()}")
    whole = bytearray(theirs.read_bytes())
    header = json.loads(whole[8:8 + struct.unpack_from("<Q", whole)[0]])
    begin = 8 + struct.unpack_from("<Q", whole)[0] + header["blocks.2.hook_mlp_out"]["data_offsets"][0]
    value = begin + 4 * (3 * 64 + 5)  # token 3, channel 5
    struct.pack_into("<f", whole, value, struct.unpack_from("<f", whole, value)[0] + 0.25)
    theirs.write_bytes(whole)
    done = program("verify", "--model", model, "--candidate", theirs, "--certify", "--json")
    proof = json.loads(done.stdout)["certified"][0] if done.returncode == 1 else {}
    report("verify --certify: where a run leaves the truth, the true value is enclosed and theirs is far from it",
           proof.get("why") == "first" and proof["tensor"] == "blocks.2.hook_mlp_out" and proof["index"] == [0, 3, 5]
           and proof["ulps"] > 1000 and proof["budgets"] > 1 and proof["float64_rounds_to_it"]
           and abs(float(proof["enclosure"].strip("[]").split(" +/-")[0]) + 0.25 - proof["theirs"]) < 1e-4,
           f"{proof} {done.stderr.strip()}")
    for arguments in (["--exact", "--candidate", theirs], ["--golden", OUTPUTS / "tiny_llama3/golden_prompt.safetensors"]):
        done = program("verify", "--model", model, *arguments, "--certify")
        report(f"verify {arguments[0]} --certify is refused in one line", done.returncode == 2 and done.stderr.count("\n") == 1,
               done.stderr.strip())


def reach(folder: Path) -> None:
    done = certify(OUTPUTS / "tiny_llama1", folder / "long.safetensors", "--at-any-cost", tokens="1x100000")
    report("a prompt longer than the context is refused by the context", done.returncode == 2 and "512" in done.stderr
           and "at-any-cost" not in done.stderr, done.stderr.strip())
    begin = time.monotonic()
    done = certify(SMOLLM2, folder / "far.safetensors", "--hooks", "*", tokens="1x8000")
    report("out of reach is said at once", done.returncode == 2 and "--at-any-cost" in done.stderr
           and time.monotonic() - begin < 20 and not (folder / "far.safetensors").exists(), done.stderr.strip())
    empty = folder / "empty"
    empty.mkdir()
    running = subprocess.Popen([SINKREF, "certify", "--model", SMOLLM2, "--tokens", "1x64", "--out", empty / "f.safetensors"],
                               stderr=subprocess.DEVNULL)
    time.sleep(2)
    running.send_signal(signal.SIGTERM)
    running.wait()
    report("an interrupted run leaves nothing", running.returncode != 0 and not list(empty.iterdir()))


def committed(_: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "reference" / "make_certified.py", "--check"],
                          capture_output=True, text=True)
    report("the committed certified values come out again", done.returncode == 0, (done.stdout + done.stderr).strip())
    for name in ("tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"):
        done = check(OUTPUTS / name, OUTPUTS / name / "certified_prompt.safetensors")
        report(f"{name}: the checker agrees with the committed values", done.returncode == 0, (done.stdout + done.stderr).strip())


def smollm2(folder: Path) -> None:
    file = folder / "s.safetensors"
    done = certify(SMOLLM2, file, "--hooks", "*", tokens="504,253,5345,17,28,99,1000,2")
    result = json.loads(done.stdout) if done.returncode == 0 else {}
    report("SmolLM2, 8 tokens: everything decided", result.get("undecided") == 0 and result.get("argmax", {}).get("proved"),
           done.stdout + done.stderr[-200:])
    checked = check(SMOLLM2, file, "--sample", "12000")
    count = re.match(r"(\d+) values", checked.stdout)
    report("SmolLM2: the checker agrees with 10,000 values and more",
           checked.returncode == 0 and count is not None and int(count[1]) >= 10_000, (checked.stdout + checked.stderr).strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one of: agreement, flips, radii, hugging_face, same_bytes, claims, studies, reach, committed, smollm2")
    arguments = parser.parse_args()
    tests = {test.__name__: test for test in (agreement, flips, radii, hugging_face, same_bytes, claims, studies, reach, committed, smollm2)}
    if arguments.only and arguments.only not in tests:
        parser.error(f"--only {arguments.only}: expected one of {', '.join(tests)}")
    for name, test in tests.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
                test(Path(folder))
    print("failed" if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
