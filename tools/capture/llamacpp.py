#!/usr/bin/env python3
"""Writes what llama.cpp computes for a GGUF as a trace for `sinkref verify` (by way of llama-cpp-python).

    llamacpp.py model.gguf --tokens 1,5,9,7x8 --out theirs.safetensors
    sinkref verify --model model.gguf --candidate theirs.safetensors

llama.cpp's graph calls back with every tensor it computes; the table below says which of its names is which
hook. Its queries and keys have each head's two RoPE halves interleaved: they are put in order. The default
KV cache is fp16; the trace says so, and the budget of verify includes it (--cache f32 for the tight one).
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import llama_cpp
import torch
from gguf import GGUFReader

from trace_file import parse_tokens, save_chosen

# llama.cpp's name, without the layer -> {hook: which of the tensors of that name, in order}. A projection, its
# bias, its reshape and its rotation are all called Qcur.
HOOKS = {
    "norm": {"ln1.hook_normalized": 0, "ln2.hook_normalized": 1},
    "Qcur": {"attn.hook_q": -2, "attn.hook_rot_q": -1},
    "Kcur": {"attn.hook_k": -2, "attn.hook_rot_k": -1},
    "Vcur": {"attn.hook_v": -1},
    "kq_soft_max": {"attn.hook_pattern": -1},
    "kqv_out": {"attn.hook_z": -1},
    "attn_out": {"hook_attn_out": -1},
    "ffn_inp": {"hook_resid_mid": -1},
    "ffn_gate": {"mlp.hook_pre": -1},
    "ffn_up": {"mlp.hook_pre_linear": -1},
    "ffn_gate_b": {"mlp.hook_pre": -1},
    "ffn_up_b": {"mlp.hook_pre_linear": -1},
    "ffn_swiglu": {"mlp.hook_post": -1},
    "ffn_out": {"hook_mlp_out": -1},
    "l_out": {"hook_resid_post": -1},
}
OUTER = {"inp_embd": "hook_embed", "embd": "hook_embed", "result_output": "logits"}
F32 = 0


class Tensor(ctypes.Structure):
    """The head of struct ggml_tensor."""

    _fields_ = [("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4),
                ("nb", ctypes.c_size_t * 4)]


def library() -> ctypes.CDLL:
    ggml = ctypes.CDLL(str(next(Path(llama_cpp.__file__).parent.glob("lib/libggml-base.so*"))))
    ggml.ggml_get_name.restype = ctypes.c_char_p
    ggml.ggml_get_name.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    ggml.ggml_nbytes.argtypes = [ctypes.c_void_p]
    ggml.ggml_nbytes.restype = ctypes.c_size_t
    return ggml


class Recorder:
    """Keeps the tensors of one graph evaluation by llama.cpp's names, several of one name in order."""

    def __init__(self, dump: bool) -> None:
        self.ggml, self.seen, self.dump = library(), {}, dump
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self.on_tensor)

    def on_tensor(self, tensor: int, ask: bool, data: int) -> bool:
        if ask:
            return True
        head = Tensor.from_address(tensor)
        name = self.ggml.ggml_get_name(tensor).decode()
        stem = name.split(" (")[0]  # views and reshapes of a tensor say so in brackets
        shape = [n for n in head.ne]
        if self.dump:
            print(name, shape, "type", head.type)
        dense = head.nb[0] == 4 and all(head.nb[i + 1] == head.nb[i] * head.ne[i] for i in range(3))
        wanted = stem in OUTER or stem.rsplit("-", 1)[0] in HOOKS or stem in ("norm", "result_norm")
        if head.type != F32 or not dense or not wanted:
            return True
        values = torch.empty(shape[::-1], dtype=torch.float32)
        self.ggml.ggml_backend_tensor_get(tensor, values.data_ptr(), 0, self.ggml.ggml_nbytes(tensor))
        self.seen.setdefault(stem, []).append((name, values))
        return True


def half_split(x: torch.Tensor) -> torch.Tensor:
    """[p,heads,h] with neighbours turned -> with halves turned, as Hugging Face and sinkref have it."""
    return torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1)


def shaped(hook: str, x: torch.Tensor, length: int, heads: dict[str, int]) -> torch.Tensor:
    """llama.cpp's [1,1,p,n], [1,p,heads,h] or [1,heads,q,keys] as a trace has it."""
    if hook.endswith("pattern"):  # the cache has room for more keys
        return x[:, :, :length, :length].contiguous()
    x = x.reshape(1, length, -1)
    name = hook.rsplit("_", 1)[-1]
    if name in ("q", "k", "v", "z") and hook.startswith("attn."):
        x = x.reshape(1, length, heads["K" if name in ("k", "v") else "H"], heads["h"])
    return half_split(x) if name in ("q", "k") else x


def renamed(seen: dict, length: int, heads: dict[str, int]) -> dict[str, torch.Tensor]:
    tensors = {}
    for stem, found in seen.items():
        if stem in OUTER:
            tensors[OUTER[stem]] = found[-1][1].reshape(1, length, -1)
            continue
        if "-" not in stem:
            continue
        name, layer = stem.rsplit("-", 1)
        plain = [x for full, x in found if " (" not in full]  # no views
        for hook, which in HOOKS[name].items():
            tensors[f"blocks.{layer}.{hook}"] = shaped(hook, plain[which], length, heads)
    return tensors


def field(reader: GGUFReader, key: str, fallback: int | None = None) -> int:
    found = reader.get_field(f"llama.{key}")
    return int(found.parts[found.data[0]][0]) if found else fallback


def capture(path: Path, tokens: list[int], out: Path, cache: str = "f16", threads: int = 2, dump: bool = False,
            hooks: str = "*") -> None:
    """Runs `tokens` as one batch and writes the trace to `out`. `hooks`: comma-separated globs of the names to keep."""
    reader = GGUFReader(path)
    count = field(reader, "attention.head_count")
    heads = {"H": count, "K": field(reader, "attention.head_count_kv", count),
             "h": field(reader, "attention.key_length", field(reader, "embedding_length") // count)}
    llama_cpp.llama_log_set(QUIET, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llamacpp.py: {path}: llama.cpp cannot load it")
    recorder = Recorder(dump)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(len(tokens), 32)
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it shows no attention pattern
    params.type_k = params.type_v = {"f32": 0, "f16": 1}[cache]
    params.cb_eval = recorder.callback
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, i, 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = 1  # all rows, or the last block drops the others
    recorder.seen.clear()  # of the reserving passes
    if llama_cpp.llama_decode(context, batch) != 0:
        raise SystemExit("llamacpp.py: llama_decode failed")
    tensors = {"tokens": torch.tensor([tokens])} | renamed(recorder.seen, len(tokens), heads)
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    about = {"engine": f"llama.cpp (llama-cpp-python {llama_cpp.__version__})", "model": path.name, "dtype": "fp32",
             "kv_cache": "fp32" if cache == "f32" else "fp16"}
    save_chosen(out, tensors, about, hooks)


@llama_cpp.llama_log_callback
def QUIET(level: int, text: bytes, data: int) -> None:
    pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help=".gguf file; fp32 or another type that holds the weights exactly")
    parser.add_argument("--tokens", required=True, help="ids, IDxCOUNT repeats one: 1,5,7x300")
    parser.add_argument("--hooks", default="*", help="globs of names to keep")
    parser.add_argument("--cache", default="f16", choices=["f16", "f32"], help="llama.cpp's KV cache")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dump", action="store_true", help="print every name the graph calls back with")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    capture(args.model, parse_tokens(args.tokens), args.out, args.cache, args.threads, args.dump, args.hooks)
    print(f"{args.out}: {args.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
