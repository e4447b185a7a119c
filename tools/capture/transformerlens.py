#!/usr/bin/env python3
"""Writes what TransformerLens computes as a trace for `sinkref verify`.

    transformerlens.py MODEL --tokens 1,5,9,7x8 --out theirs.safetensors
    sinkref verify --model MODEL --candidate theirs.safetensors

Without processing (no folded norms, nothing centred): the numbers are then Hugging Face's. The command boots a
TransformerBridge. A HookedTransformer, or a bridge of your own, is captured from Python; both name forms are known:

    from transformerlens import capture
    capture(model, tokens, "theirs.safetensors")
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "reference")]

import torch
import transformer_lens

import hf_runs
from trace_file import TYPES, parse_tokens, save_chosen

# Both systems answer to these names.
IN_BLOCK = {
    "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "ln1.hook_scale",
    "ln1.hook_normalized", "ln2.hook_scale", "ln2.hook_normalized", "attn.hook_q", "attn.hook_k", "attn.hook_v",
    "attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z",
    "mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post",
}
OUTER = {"hook_embed", "ln_final.hook_scale", "ln_final.hook_normalized"}
# The bridge's own names, for those that it does not also give in the legacy form.
BRIDGE = {
    "embed.hook_out": "hook_embed", "hook_in": "hook_resid_pre", "hook_out": "hook_resid_post",
    "ln2.hook_in": "hook_resid_mid", "attn.hook_out": "hook_attn_out", "mlp.hook_out": "hook_mlp_out",
    "attn.q.hook_out": "attn.hook_q", "attn.k.hook_out": "attn.hook_k", "attn.v.hook_out": "attn.hook_v",
    "attn.o.hook_in": "attn.hook_z", "mlp.gate.hook_out": "mlp.hook_pre", "mlp.in.hook_out": "mlp.hook_pre_linear",
    "mlp.out.hook_in": "mlp.hook_post",
}


def trace_name(name: str) -> tuple[str, bool] | None:
    """The name in a trace and whether it is the legacy one; None for what sinkref has no counterpart of."""
    if not name.startswith("blocks."):
        return (name, True) if name in OUTER else (BRIDGE[name], False) if name in BRIDGE else None
    _, layer, rest = name.split(".", 2)
    if rest in IN_BLOCK:
        return name, True
    return (f"blocks.{layer}.{BRIDGE[rest]}", False) if rest in BRIDGE else None


def shaped(name: str, x: torch.Tensor, cfg) -> torch.Tensor:
    """Heads apart, as [b,p,heads,h]."""
    kind = name.rsplit("_", 1)[-1]
    if ".attn.hook_" in name and kind in ("q", "k", "v", "z") and x.ndim == 3:
        return x.unflatten(-1, (-1, cfg.d_head))
    if name.endswith("hook_scale") and x.ndim == 2:
        return x[..., None]
    return x


def capture(model, tokens: list[int], out: str | Path, hooks: str = "*",
            metadata: dict[str, str] | None = None) -> None:
    """Runs `tokens` and writes the trace to `out`. `hooks`: comma-separated globs of the names to keep."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        logits, cache = model.run_with_cache(ids)
    tensors = {"tokens": ids, "logits": getattr(logits, "logits", logits)}
    for name, x in cache.items():
        known = trace_name(name)
        if known and isinstance(x, torch.Tensor) and (known[1] or known[0] not in tensors):
            tensors[known[0]] = shaped(known[0], x, model.cfg)
    dtype = TYPES[next(model.parameters()).dtype]
    about = {"engine": f"transformer_lens {getattr(transformer_lens, '__version__', '')}", "dtype": dtype}
    save_chosen(Path(out), tensors, about | (metadata or {}), hooks)


def load(path: Path, hf=None):
    """The bridge over Hugging Face's own modules, in fp32 if none are given. Tokens are given as ids, so any tokenizer
    will do."""
    from transformer_lens.model_bridge import TransformerBridge
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    hf = hf or hf_runs.load(path)
    dtype = next(hf.parameters()).dtype
    try:
        tokenizer = hf_runs.tokenizer(path)
    except ValueError:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, unk_token="?")))
    with tempfile.TemporaryDirectory() as folder:  # the bridge reads the configuration from a folder, not from a .gguf
        hf.config.save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, hf_model=hf, tokenizer=tokenizer, dtype=dtype)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Hugging Face folder or .gguf file")
    parser.add_argument("--tokens", required=True, help="ids, IDxCOUNT repeats one: 1,5,7x300")
    parser.add_argument("--hooks", default="*", help="globs of names to keep")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    capture(load(args.model), parse_tokens(args.tokens), args.out, args.hooks, {"model": args.model.name})
    print(f"{args.out}: {args.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
