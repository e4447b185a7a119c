#!/usr/bin/env python3
"""Runs the hooks of tools/guide/patch.md on Hugging Face and TransformerLens, live, against sinkref.

The functions are taken out of the page itself. On every tiny model, with neurons of two layers:
prompts of many, two and one token, prefill and decode.

Hugging Face runs in true float64 (hf_runs.exact), TransformerLens (--transformer-lens; build/venv-engines, see
setup.sh) in fp32; both are compared with `sinkref --precision fp64`. They differ without a patch too: by
the last bits of fp32 cosines and sines, and TransformerLens by its fp32. With the patch the distance may
be at most FACTOR times that.
A comparison with sinkref unpatched must miss that bound a hundredfold, or the check could not see a patch.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import DynamicCache

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))

from hf_runs import Numbers, exact, load

ROOT = Path(__file__).resolve().parents[2]
MODELS = ["tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"]
NEURONS = {0: [3, 50], 1: [17, 5, 40]}
PATCH = ";".join(f"{layer}:{','.join(map(str, columns))}" for layer, columns in NEURONS.items())
PROMPTS = [[1, 40, 9, 221] + [77] * 12 + [18, 6], [5, 30], [9]]
DECODED = 6
FACTOR = 4.0


def functions_of_the_page() -> dict:
    """The names that the python blocks of patch.md define."""
    found: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "tools/guide/patch.md").read_text(), re.M | re.S)
    for block in blocks:
        exec(block, found)
    return found


def sinkref(*arguments: str) -> str:
    command = [str(ROOT / "build/sinkref"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def sinkref_generated(model: Path, prompt: list[int]) -> list[int]:
    out = sinkref("generate", "--model", str(model), "--tokens", ",".join(map(str, prompt)), "--patch", PATCH,
                  "--max-new-tokens", str(DECODED), "--precision", "fp64", "--json")
    return json.loads(out)["tokens"]


def sinkref_logits(model: Path, tokens: list[int], patch: str) -> np.ndarray:
    """[p,V] in float64."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "t.safetensors"
        sinkref("trace", "--model", str(model), "--tokens", ",".join(map(str, tokens)), "--patch", patch,
                "--precision", "fp64", "--hooks", "logits", "--out", str(out))
        return load_file(out)["logits"][0]


def hf_logits(model, prompt: list[int], continuation: list[int]) -> np.ndarray:
    """Prefill of the prompt, then the continuation one token at a time with a cache: [p,V]."""
    cache, rows = DynamicCache(config=model.config), []
    with torch.no_grad(), Numbers(lambda scores, pattern: None):
        for part in [prompt, *([token] for token in continuation)]:
            rows.append(model(torch.tensor([part]), past_key_values=cache, use_cache=True).logits[0])
    return torch.cat(rows).double().numpy()


def tl_logits(bridge, prompt: list[int], continuation: list[int]) -> np.ndarray:
    cache, rows = DynamicCache(config=bridge.original_model.config), []
    with torch.no_grad():
        for part in [prompt, *([token] for token in continuation)]:
            rows.append(bridge(torch.tensor([part]), past_key_values=cache, use_cache=True)[0])
    return torch.cat(rows).double().numpy()


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of a row over that row's rms; infinite for NaN or another shape."""
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return np.inf
    return float((np.abs(ours - theirs).max(-1) / np.sqrt((ours**2).mean(-1))).max())


def truths(model: Path) -> Iterator[tuple[list[int], list[int], np.ndarray, np.ndarray]]:
    """Prompt, sinkref's patched continuation, sinkref's logits patched and not."""
    for prompt in PROMPTS:
        continuation = sinkref_generated(model, prompt)[: DECODED - 1]
        tokens = prompt + continuation
        # The patch of a one-token prompt pins nothing; as one prompt the tokens would be pinned.
        patch = PATCH if len(prompt) > 1 else "none"
        yield prompt, continuation, sinkref_logits(model, tokens, patch), sinkref_logits(model, tokens, "none")


def judge(name: str, patched: np.ndarray, plain: np.ndarray, theirs: np.ndarray, their_plain: np.ndarray,
          prompt: list[int], continuation: list[int]) -> tuple[str, bool]:
    floor, error, effect = distance(plain, their_plain), distance(patched, theirs), distance(plain, theirs)
    greedy = theirs[len(prompt) - 1:-1].argmax(-1).tolist() == continuation
    good = greedy and error < FACTOR * floor and (len(prompt) == 1 or effect > 100 * FACTOR * floor)
    return (f"{name}, {len(prompt):2} + {len(continuation)} tokens: distance {error:.1e}, unpatched runs {floor:.1e}, "
            f"sinkref without the patch {effect:.1e}; greedy tokens {'equal' if greedy else 'DIFFER'}", good)


def check_hf(add_patch_hf) -> Iterator[tuple[str, bool]]:
    for name in MODELS:
        path = ROOT / "reference_outputs" / name
        model = exact(load(path))
        for prompt, continuation, patched, plain in truths(path):
            their_plain = hf_logits(model, prompt, continuation)
            handles = add_patch_hf(model, NEURONS)
            theirs = hf_logits(model, prompt, continuation)
            for handle in handles:
                handle.remove()
            yield judge(f"{name} on Hugging Face float64", patched, plain, theirs, their_plain, prompt, continuation)


def check_tl(add_patch_tl) -> Iterator[tuple[str, bool]]:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "reference_outputs/tiny_llama3")  # not used; it insists
    for name in MODELS:
        path = ROOT / "reference_outputs" / name
        bridge = TransformerBridge.boot_transformers(str(path), hf_model=load(path), tokenizer=tokenizer, device="cpu")
        for prompt, continuation, patched, plain in truths(path):
            bridge.reset_hooks()
            their_plain = tl_logits(bridge, prompt, continuation)
            add_patch_tl(bridge, NEURONS)
            theirs = tl_logits(bridge, prompt, continuation)
            yield judge(f"{name} on TransformerLens fp32", patched, plain, theirs, their_plain, prompt, continuation)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformer-lens", action="store_true", help="TransformerLens instead of Hugging Face")
    args = parser.parse_args()
    page = functions_of_the_page()
    lines = check_tl(page["add_patch_tl"]) if args.transformer_lens else check_hf(page["add_patch_hf"])
    failed = 0
    for text, good in lines:
        print(("ok    " if good else "FAIL  ") + text, flush=True)
        failed += not good
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
