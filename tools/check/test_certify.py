#!/usr/bin/env python3
"""Tests `sinkref certify` as a program, and tools/check_certificate.py with it; prints one line per finding.

- The independent checker agrees with every value of the tiny models (8 tokens), plain and with the softmax, RoPE,
  patch and ablation that they can be run with, and with 12,000 sampled values of SmolLM2.
- It refuses a flipped bit of a value, a radius, the hash and a weight.
- Products of every kernel and thread count give the same file; claims have their exit codes; a run out of reach is
  refused at once; an interrupted run leaves nothing.
Exit: 0 passed, 1 failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
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
    import hashlib
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


def reach(folder: Path) -> None:
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
    parser.add_argument("--only", help="one of: agreement, flips, same_bytes, claims, reach, committed, smollm2")
    arguments = parser.parse_args()
    tests = {test.__name__: test for test in (agreement, flips, same_bytes, claims, reach, committed, smollm2)}
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
