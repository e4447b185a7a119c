#!/usr/bin/env python3
"""sinkref beside PyTorch (Hugging Face eager and sdpa) and llama.cpp: the same model, threads and
tokens, in turns, medians and ratios.

    tools/setup.sh --engines
    build/venv-engines/bin/python tools/bench/bench_peers.py models/SmolLM2-135M-Instruct.Q4_1.gguf --prefill 512 --decode 32

Every program is asked for the same: logits of the prompt's last token, then of each further token.
All run fp32 weights, rewritten from the GGUF (tools/bench/convert_gguf.py, once, into build/peers);
llama.cpp and sinkref also an fp16 file, and sinkref the GGUF as it is. llama.cpp keeps its default
cache (fp16) and micro-batch (512), of which sinkref's --chunk is set to the same; PyTorch takes the
prompt as one. Each peer is a process of its own that sleeps while others run;
OPENBLAS_* variables are unset for all of them. `times` is how many times as fast sinkref is on the
same weights (the GGUF as it is: against fp32 peers).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = {"hf-eager": "f32", "hf-sdpa": "f32", "llama.cpp-f32": "f32", "llama.cpp-f16": "f16"}


def some_tokens(count: int, vocab_size: int) -> list[int]:
    """The tokens of `sinkref bench` (src/bench/model.cpp)."""
    return [(i * 7919 + i * i * 31 + 1) % vocab_size for i in range(count)]


# ------------------------------------------------------------------- the peers, in their processes


def hf_runner(model_path: Path, attention: str, threads: int) -> Callable:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        model_path.parent, gguf_file=model_path.name, dtype=torch.float32, attn_implementation=attention).eval()

    @torch.inference_mode()
    def run(prefill: int, decode: int) -> dict:
        ids = torch.tensor([some_tokens(prefill + decode, model.config.vocab_size)])
        start = time.perf_counter()
        out = model(ids[:, :prefill], use_cache=True, logits_to_keep=1)
        middle = time.perf_counter()
        first = int(out.logits[0, -1].argmax())
        for i in range(prefill, prefill + decode):
            out = model(ids[:, i : i + 1], past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        return {"prefill": middle - start, "decode": time.perf_counter() - middle, "argmax": first}

    return run


def llama_runner(model_path: Path, context: int, threads: int) -> Callable:
    import llama_cpp

    model = llama_cpp.Llama(str(model_path), n_ctx=context, n_batch=context, n_ubatch=min(512, context),
                            n_threads=threads, n_threads_batch=threads, verbose=False)
    vocab_size = model.n_vocab()

    def argmax() -> int:
        logits = model._ctx.get_logits_ith(-1) if hasattr(model._ctx, "get_logits_ith") else model._ctx.get_logits()
        return max(range(vocab_size), key=lambda i: logits[i])

    def run(prefill: int, decode: int) -> dict:
        ids = some_tokens(prefill + decode, vocab_size)
        model.reset()
        start = time.perf_counter()
        model.eval(ids[:prefill])
        middle = time.perf_counter()
        first = argmax()
        after = time.perf_counter()
        for token in ids[prefill:]:
            model.eval([token])
        return {"prefill": middle - start, "decode": time.perf_counter() - after, "argmax": first}

    return run


def serve(name: str, model_path: Path, context: int, threads: int) -> None:
    """A worker: one JSON line in asks for a run, one JSON line out answers it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    if name.startswith("hf-"):
        run = hf_runner(model_path, name.removeprefix("hf-"), threads)
    else:
        run = llama_runner(model_path, context, threads)
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=answers, flush=True)


# ------------------------------------------------------------------------------------ the measurer


def clean_environment(threads: int) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")}
    return kept | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}


class Worker:
    """A process of its own that answers JSON lines: this or another script as its own worker."""

    def __init__(self, script: str, arguments: list, threads: int):
        self.process = subprocess.Popen(
            [sys.executable, script, *map(str, arguments), "--threads", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(threads))

    def ask(self, request: dict | list):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{Path(sys.argv[0]).name}: a peer ended: {' '.join(self.process.args[2:])}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def sinkref_run(model: Path, prefill: int, decode: int, threads: int, chunk: int) -> dict:
    program = ROOT / "build" / "sinkref"
    out = subprocess.run([program, "bench", "--model", model, "--prefill", str(prefill), "--decode", str(decode),
                          "--runs", "1", "--threads", str(threads), "--chunk", str(chunk), "--json"],
                         check=True, capture_output=True, text=True, env=clean_environment(threads))
    j = json.loads(out.stdout)
    return {"prefill": prefill / j["prefill_tokens_per_s"], "decode": decode / j["decode_tokens_per_s"],
            "peak_rss_bytes": j["peak_rss_bytes"], "prefill_peak_share": j["prefill_peak_share"],
            "decode_read_share": j["decode_read_share"]}


def sinkref_argmax(model: Path, prefill: int, vocab_size: int) -> int:
    ids = ",".join(map(str, some_tokens(prefill, vocab_size)))
    out = subprocess.run([ROOT / "build" / "sinkref", "generate", "--model", model, "--tokens", ids, "--max-new-tokens",
                          "1", "--json"], check=True, capture_output=True, text=True)
    tokens = json.loads(out.stdout)["tokens"]
    return tokens[0] if tokens else -1  # an eos token is not returned


def model_files(source: Path) -> dict[str, Path]:
    """The three files, written where they are missing or older than the source."""
    from convert_gguf import convert

    folder = ROOT / "build" / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"as it is": source}
    for kind in ("f32", "f16"):
        files[kind] = folder / f"{source.name.removesuffix('.gguf')}.{kind}.gguf"
        if not files[kind].exists() or files[kind].stat().st_mtime < source.stat().st_mtime:
            convert(source, files[kind], kind)
    return files


def measure(arguments: argparse.Namespace, files: dict[str, Path], names: list[str]) -> dict[str, dict]:
    a = arguments
    context = a.prefill + a.decode + 8
    workers = {name: Worker(__file__, [files[PEERS[name]], "--worker", name, "--context", context], a.threads)
               for name in names}
    contenders: dict[str, Callable[[], dict]] = {
        f"sinkref ({kind})": lambda path=path: sinkref_run(path, a.prefill, a.decode, a.threads, a.chunk)
        for kind, path in files.items()}
    contenders |= {name: lambda worker=worker: worker.ask({"prefill": a.prefill, "decode": a.decode})
                   for name, worker in workers.items()}
    results: dict[str, list[dict]] = {name: [] for name in contenders}
    try:
        for worker in workers.values():
            worker.ask({"prefill": min(a.prefill, 64), "decode": 2})  # pages and caches are warm from here on
        for number in range(a.rounds):
            for name, run in contenders.items():
                results[name].append(run())
                time.sleep(0.05)  # its threads stop spinning
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {a.rounds}", end="\n" if number + 1 == a.rounds else "", file=sys.stderr)
    finally:
        for worker in workers.values():
            worker.close()
    summary = {}
    for name, runs in results.items():
        median = {key: statistics.median(r[key] for r in runs) for key in runs[0] if key != "argmax"}
        summary[name] = {"prefill_tokens_per_s": a.prefill / median.pop("prefill"),
                         "decode_tokens_per_s": a.decode / median.pop("decode"), **median}
        if "argmax" in runs[0]:
            summary[name]["argmax"] = runs[0]["argmax"]
    return summary


def add_ratios(summary: dict[str, dict]) -> None:
    for name, result in summary.items():
        if name in PEERS:
            ours = summary[f"sinkref ({PEERS[name]})"]
            for key in ("prefill", "decode"):
                rate = f"{key}_tokens_per_s"
                result[f"{key}_times"] = ours[rate] / result[rate]


def print_table(summary: dict[str, dict]) -> None:
    print(f"{'':22} {'prefill tok/s':>14} {'times':>6} {'decode tok/s':>13} {'times':>6}")
    for name, r in summary.items():
        times = [f"{r[key]:.2f}" if key in r else "" for key in ("prefill_times", "decode_times")]
        print(f"{name:22} {r['prefill_tokens_per_s']:14.1f} {times[0]:>6} {r['decode_tokens_per_s']:13.1f} {times[1]:>6}")


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("torch", "transformers", "llama_cpp_python"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .gguf file")
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=512, help="tokens of the prompt per step of sinkref")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of " + ", ".join(PEERS))
    parser.add_argument("--json", type=Path, help="file to write everything to")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--context", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for option in ("prefill", "decode", "threads", "rounds", "chunk"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option} {getattr(arguments, option)}: expected at least 1")
    if not arguments.model.is_file():
        parser.error(f"{arguments.model}: no such file; tools/get_smollm2.sh models fetches one")
    unknown = [name for name in arguments.peers.split(",") if name and name not in PEERS]
    if unknown:
        parser.error(f"--peers {unknown[0]}: expected some of {', '.join(PEERS)}")
    return arguments


def main() -> int:
    arguments = parse()
    if arguments.worker:
        serve(arguments.worker, arguments.model, arguments.context, arguments.threads)
        return 0
    names = [name for name in arguments.peers.split(",") if name]
    if any(name.startswith("llama") for name in names) and "llama_cpp_python" not in versions():
        print("bench_peers.py: llama-cpp-python is missing; tools/setup.sh --engines installs it into build/venv-engines",
              file=sys.stderr)
        return 2
    files = model_files(arguments.model)
    summary = measure(arguments, files, names)
    add_ratios(summary)
    print_table(summary)
    import gguf

    vocab_size = len(gguf.GGUFReader(files["f32"]).fields["tokenizer.ggml.tokens"].data)
    expected = sinkref_argmax(files["f32"], arguments.prefill, vocab_size)
    wrong = [name for name in names if PEERS[name] == "f32" and expected >= 0 and summary[name]["argmax"] != expected]
    if arguments.json:
        arguments.json.write_text(json.dumps(
            {"model": arguments.model.name, "threads": arguments.threads, "prefill": arguments.prefill,
             "decode": arguments.decode, "rounds": arguments.rounds, "chunk": arguments.chunk, "versions": versions(),
             "results": summary}, indent=2) + "\n")
    for name in wrong:
        print(f"bench_peers.py: {name} has another first token than sinkref ({summary[name]['argmax']}, not {expected}): "
              "not the same computation", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
